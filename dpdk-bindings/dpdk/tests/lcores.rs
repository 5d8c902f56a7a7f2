//! Lcores, rings between them, and the clock, on a real EAL.

mod common;

use std::sync::Arc;

use arrayvec::ArrayVec;
use common::with_eal;
use dpdk::lcore::{self, LcoreId};
use dpdk::{Eal, Mbuf, Mempool, clock, eal, mempool, ring};

/// Two lcores that share a CPU.
const TWO_LCORES: &[&str] = &["--lcores=0@0,1@0"];

#[test]
fn a_closure_runs_on_the_worker_lcore_and_gives_its_result_back() {
    with_eal("a_closure_runs_on_the_worker_lcore_and_gives_its_result_back", TWO_LCORES, |eal| {
        assert_eq!((eal.main_lcore(), eal.worker_lcores()), (LcoreId(0), vec![LcoreId(1)]));
        assert_eq!((lcore::current(), eal.cpu_of(LcoreId(1))), (Some(LcoreId(0)), Some(0)));
        let seven = 7;
        let job = eal.launch(LcoreId(1), move || (lcore::current(), seven)).unwrap();
        assert_eq!(job.join().unwrap(), (Some(LcoreId(1)), 7));
        // And again: the lcore is free.
        assert_eq!(eal.launch(LcoreId(1), || "again").unwrap().join().unwrap(), "again");
    });
}

#[test]
fn an_lcore_does_one_thing_at_a_time() {
    with_eal("an_lcore_does_one_thing_at_a_time", TWO_LCORES, |eal| {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let job = eal.launch(LcoreId(1), move || wait.recv().is_ok()).unwrap();
        assert!(!job.is_finished());
        assert_eq!(eal.launch(LcoreId(1), || ()).unwrap_err().errno, 16);
        assert!(eal.launch(LcoreId(0), || ()).is_err(), "the main lcore is no worker");
        assert!(eal.launch(LcoreId(99), || ()).is_err(), "there is no such lcore");
        release.send(()).unwrap();
        assert!(job.join().unwrap());
    });
}

#[test]
fn a_panic_on_an_lcore_is_told_to_who_joins() {
    with_eal("a_panic_on_an_lcore_is_told_to_who_joins", TWO_LCORES, |eal| {
        let outcome = eal.launch(LcoreId(1), || panic!("out of cheese")).unwrap().join();
        assert_eq!(*outcome.unwrap_err().downcast::<&str>().unwrap(), "out of cheese");
        assert_eq!(eal.launch(LcoreId(1), || 1).unwrap().join().unwrap(), 1);
    });
}

#[test]
fn a_registered_thread_is_an_lcore_until_it_leaves() {
    with_eal("a_registered_thread_is_an_lcore_until_it_leaves", TWO_LCORES, |eal| {
        let running = (*eal).clone();
        std::thread::spawn(move || {
            assert_eq!(lcore::current(), None);
            let registered = running.register_thread().unwrap();
            assert!(lcore::current().is_some());
            assert!(running.register_thread().is_err(), "once is enough");
            assert_eq!(running.worker_lcores(), [LcoreId(1)], "nothing is launched on it");
            drop(registered);
            assert_eq!(lcore::current(), None);
        })
        .join()
        .unwrap();
    });
}

#[test]
fn the_eal_starts_once_in_a_process() {
    with_eal("the_eal_starts_once_in_a_process", TWO_LCORES, |eal| {
        assert!(Eal::init(["again"]).unwrap_err().to_string().contains("started before"));
        assert!(eal::version().starts_with("DPDK "));
        drop(eal);
        assert!(Eal::init(["again"]).is_err());
    });
}

#[test]
fn the_clock_goes_forward() {
    with_eal("the_clock_goes_forward", TWO_LCORES, |eal| {
        let before = clock::tsc();
        assert!(clock::tsc_hz(&eal) > 1_000_000);
        assert!(clock::tsc() > before);
    });
}

#[test]
fn a_ring_between_lcores_is_first_in_first_out_and_loses_nothing() {
    with_eal("a_ring_between_lcores_is_first_in_first_out_and_loses_nothing", TWO_LCORES, |eal| {
        const COUNT: u32 = 100_000;
        let (mut producer, mut consumer) = ring::ring::<(u64, u32)>(&eal, "numbers", 100).unwrap();
        let job = eal
            .launch(LcoreId(1), move || {
                let mut next = 0;
                let mut waiting = ArrayVec::<_, 32>::new();
                while next < COUNT || !waiting.is_empty() {
                    while next < COUNT && !waiting.is_full() {
                        waiting.push((u64::from(next) << 32, next));
                        next += 1;
                    }
                    if producer.push(&mut waiting) == 0 {
                        std::thread::yield_now();
                    }
                }
            })
            .unwrap();
        let mut expected = 0;
        let mut burst = ArrayVec::<_, 7>::new();
        while expected < COUNT {
            if consumer.pop(&mut burst) == 0 {
                std::thread::yield_now();
            }
            for value in burst.drain(..) {
                assert_eq!(value, (u64::from(expected) << 32, expected));
                expected += 1;
            }
        }
        job.join().unwrap();
        assert!(consumer.is_empty());
    });
}

#[test]
fn a_full_ring_leaves_the_rest_with_the_producer_in_order() {
    with_eal("a_full_ring_leaves_the_rest_with_the_producer_in_order", TWO_LCORES, |eal| {
        let (mut producer, mut consumer) = ring::ring::<u32>(&eal, "small", 5).unwrap();
        let mut values: ArrayVec<u32, 8> = (0..8).collect();
        assert_eq!((producer.capacity(), producer.push(&mut values)), (5, 5));
        assert_eq!((&values[..], producer.push_one(8)), (&[5, 6, 7][..], Err(8)));
        assert_eq!(consumer.pop_one(), Some(0));
        assert_eq!((producer.push(&mut values), &values[..]), (1, &[6, 7][..]));
        let mut rest = ArrayVec::<u32, 8>::new();
        assert_eq!((consumer.pop(&mut rest), &rest[..]), (5, &[1, 2, 3, 4, 5][..]));
        assert_eq!(consumer.pop_one(), None);
    });
}

#[test]
fn what_is_left_in_a_ring_is_dropped_once_with_it() {
    with_eal("what_is_left_in_a_ring_is_dropped_once_with_it", TWO_LCORES, |eal| {
        let witness = Arc::new(());
        let (mut producer, mut consumer) = ring::ring::<Arc<()>>(&eal, "arcs", 8).unwrap();
        for _ in 0..3 {
            producer.push_one(witness.clone()).unwrap();
        }
        drop(consumer.pop_one());
        drop(producer);
        assert_eq!(Arc::strong_count(&witness), 3);
        assert_eq!(consumer.len(), 2, "the other end still has them");
        drop(consumer);
        assert_eq!(Arc::strong_count(&witness), 1);
        ring::ring::<u32>(&eal, "arcs", 8).expect("the name is free again");
    });
}

#[test]
fn packets_move_through_a_ring_with_their_notes_and_come_back_to_the_pool() {
    with_eal("packets_move_through_a_ring_with_their_notes_and_come_back_to_the_pool", TWO_LCORES, |eal| {
        let config = mempool::Config { buffers: 255, cache: 32, ..Default::default() };
        let pool = Mempool::new(&eal, "packets", &config).unwrap();
        let (mut producer, mut consumer) = ring::ring::<(Mbuf, [u8; 8])>(&eal, "packets", 64).unwrap();
        for n in 0..40 {
            let mut packet = pool.alloc().unwrap();
            packet.set_len(usize::from(n) + 1).unwrap();
            packet.head_mut().fill(n);
            producer.push_one((packet, [n; 8])).unwrap();
        }
        let job = eal
            .launch(LcoreId(1), move || {
                for n in 0..30 {
                    let (packet, note) = consumer.pop_one().unwrap();
                    assert_eq!((packet.head(), note), (&vec![n; usize::from(n) + 1][..], [n; 8]));
                }
                consumer
            })
            .unwrap();
        let consumer = job.join().unwrap();
        assert_eq!(pool.in_use(), 10);
        drop((producer, consumer));
        assert_eq!(pool.in_use(), 0);
    });
}
