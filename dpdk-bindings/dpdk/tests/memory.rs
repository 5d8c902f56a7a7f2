//! Pools and packet buffers on a real EAL.

mod common;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use common::with_eal;
use dpdk::descriptors::MemoryDescriptors;
use dpdk::mbuf::{Checksum, HEADROOM, L3_LEN_MAX, L4, NoRoom, TxOffload};
use dpdk::{Burst, Eal, Mbuf, Mempool, mempool};

const ONE_LCORE: &[&str] = &["--lcores=0@0"];

fn pool_of(eal: &Eal, buffers: u32) -> Mempool {
    let config = mempool::Config { buffers, cache: 0, data_room: 2048 + HEADROOM as u16, socket: None };
    Mempool::new(eal, "packets", &config).expect("the pool fits in memory")
}

fn packet(pool: &Mempool, bytes: &[u8]) -> Mbuf {
    let mut packet = pool.alloc().expect("the pool has buffers");
    packet.set_len(bytes.len()).expect("the bytes fit");
    packet.head_mut().copy_from_slice(bytes);
    packet
}

#[test]
fn buffers_come_back_to_their_pool() {
    with_eal("buffers_come_back_to_their_pool", ONE_LCORE, |eal| {
        let pool = pool_of(&eal, 63);
        let mut taken = Vec::new();
        while let Some(packet) = pool.alloc() {
            taken.push(packet);
        }
        assert_eq!((taken.len(), pool.in_use()), (63, 63));
        taken.truncate(10);
        assert_eq!(pool.in_use(), 10);
        // Another thread, which the EAL does not know, may free them too.
        std::thread::spawn(move || drop(taken)).join().unwrap();
        assert_eq!(pool.in_use(), 0);
        assert!(pool.alloc().is_some());
    });
}

#[test]
fn many_buffers_come_at_once_or_none() {
    with_eal("many_buffers_come_at_once_or_none", ONE_LCORE, |eal| {
        let pool = pool_of(&eal, 63);
        let mut taken = Burst::<48>::new();
        assert!(pool.alloc_bulk(&mut taken, 40));
        assert_eq!((taken.len(), pool.in_use()), (40, 40));
        assert!(taken.iter().all(|packet| packet.headroom() == HEADROOM && packet.total_len() == 0));
        assert!(!pool.alloc_bulk(&mut taken, 9), "the array has room for eight");
        let mut more = Burst::<48>::new();
        assert!(!pool.alloc_bulk(&mut more, 24), "the pool has 23");
        assert_eq!((more.len(), pool.in_use()), (0, 40));
        assert!(pool.alloc_bulk(&mut more, 23));
        drop((taken, more));
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_descriptor_of_memory_that_a_driver_closed_comes_back() {
    with_eal("a_descriptor_of_memory_that_a_driver_closed_comes_back", ONE_LCORE, |eal| {
        let memory = |number: &i32| {
            std::fs::read_link(format!("/proc/self/fd/{number}"))
                .is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:nohuge"))
        };
        let number = (0..256).find(memory).expect("the EAL's memory has a descriptor");
        let kept = MemoryDescriptors::keep(&eal).expect("it can be copied");
        assert_eq!(kept.restore().expect("nothing is wrong"), 0);
        // SAFETY: as memif does, and nobody uses the descriptor until it is back.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
        assert!(!memory(&number));
        assert_eq!(kept.restore().expect("the number is free"), 1);
        assert!(memory(&number));
        // SAFETY: as above.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
        let other = std::fs::File::open("/dev/null").expect("it opens");
        assert_eq!(other.as_raw_fd(), number, "the lowest free number");
        let error = kept.restore().expect_err("it belongs to another");
        assert_eq!(error.to_string(), format!("descriptor {number} is /dev/null now"));
    });
}

#[test]
fn a_dropped_pool_leaves_its_name_and_memory_free() {
    with_eal("a_dropped_pool_leaves_its_name_and_memory_free", ONE_LCORE, |eal| {
        // 128 MiB hold one of these, not fifty.
        for _ in 0..50 {
            let pool = pool_of(&eal, 16_383);
            let handle = pool.clone();
            drop(pool);
            assert!(handle.alloc().is_some());
        }
    });
}

#[test]
fn a_packet_outlives_the_handles_of_its_pool() {
    with_eal("a_packet_outlives_the_handles_of_its_pool", ONE_LCORE, |eal| {
        let packet = packet(&pool_of(&eal, 63), b"still here");
        drop(eal);
        assert_eq!(packet.head(), b"still here");
    });
}

#[test]
fn a_second_pool_of_one_name_is_an_error_that_says_so() {
    with_eal("a_second_pool_of_one_name_is_an_error_that_says_so", ONE_LCORE, |eal| {
        let _first = pool_of(&eal, 63);
        let error =
            Mempool::new(&eal, "packets", &mempool::Config { buffers: 63, cache: 0, ..Default::default() })
                .unwrap_err();
        assert_eq!(error.errno, 17);
        assert_eq!(
            error.to_string(),
            "cannot make a pool of 63 buffers named packets: File exists (errno 17)"
        );
    });
}

#[test]
fn a_cache_that_could_hold_the_whole_pool_is_refused_in_words() {
    with_eal("a_cache_that_could_hold_the_whole_pool_is_refused_in_words", ONE_LCORE, |eal| {
        let config = mempool::Config { buffers: 63, cache: 250, ..Default::default() };
        let error = Mempool::new(&eal, "packets", &config).unwrap_err();
        assert!(error.to_string().contains("at most 42"), "{error}");
    });
}

#[test]
fn the_front_of_a_packet_moves_within_its_buffer_only() {
    with_eal("the_front_of_a_packet_moves_within_its_buffer_only", ONE_LCORE, |eal| {
        let pool = pool_of(&eal, 63);
        let mut packet = packet(&pool, b"0123456789");
        assert_eq!(packet.headroom(), HEADROOM);

        assert_eq!(packet.prepend(HEADROOM + 1), Err(NoRoom));
        assert_eq!(packet.head(), b"0123456789");
        packet.prepend(4).unwrap();
        packet.head_mut()[..4].copy_from_slice(b"abcd");
        assert_eq!((packet.head(), packet.total_len()), (&b"abcd0123456789"[..], 14));

        assert_eq!(packet.trim_front(15), Err(NoRoom));
        packet.trim_front(6).unwrap();
        assert_eq!((packet.head(), packet.total_len()), (&b"23456789"[..], 8));
        packet.prepend(HEADROOM + 2).unwrap();
        assert_eq!((packet.headroom(), packet.total_len()), (0, HEADROOM + 10));
        packet.trim_front(HEADROOM + 10).unwrap();
        assert_eq!((packet.head(), packet.total_len()), (&b""[..], 0));
    });
}

#[test]
fn a_packet_grows_to_the_end_of_its_buffer_and_no_further() {
    with_eal("a_packet_grows_to_the_end_of_its_buffer_and_no_further", ONE_LCORE, |eal| {
        let pool = pool_of(&eal, 63);
        let mut packet = packet(&pool, b"x");
        packet.set_len(2048).unwrap();
        assert_eq!(packet.head().len(), 2048);
        for too_long in [2049, 65_536 + 1, usize::MAX] {
            assert_eq!(packet.set_len(too_long), Err(NoRoom));
        }
        assert_eq!((packet.total_len(), packet.head()[0]), (2048, b'x'));
        packet.trim_front(48).unwrap();
        assert_eq!(packet.set_len(2001), Err(NoRoom));
        packet.set_len(2000).unwrap();
    });
}

#[test]
fn a_shared_packet_keeps_its_bytes_and_cannot_be_written() {
    with_eal("a_shared_packet_keeps_its_bytes_and_cannot_be_written", ONE_LCORE, |eal| {
        let pool = pool_of(&eal, 63);
        let mut packet = packet(&pool, b"shared bytes");
        let shared = packet.share(&pool).unwrap();
        assert_eq!(shared.head().as_ptr(), packet.head().as_ptr(), "no byte is copied");
        assert!(packet.is_shared());

        let write = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| packet.head_mut()[0] = 0));
        assert!(write.is_err(), "the bytes were written under the second reference");
        // The fronts move apart: they are each one's own.
        packet.trim_front(7).unwrap();
        assert_eq!((packet.head(), shared.head()), (&b"bytes"[..], &b"shared bytes"[..]));

        packet.make_unique().unwrap();
        packet.head_mut().copy_from_slice(b"BYTES");
        assert_eq!((packet.head(), shared.head()), (&b"BYTES"[..], &b"shared bytes"[..]));

        drop(packet);
        assert_eq!(shared.head(), b"shared bytes");
        drop(shared);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_packet_may_be_written_again_when_the_second_reference_is_gone() {
    with_eal("a_packet_may_be_written_again_when_the_second_reference_is_gone", ONE_LCORE, |eal| {
        let pool = pool_of(&eal, 63);
        let mut packet = packet(&pool, b"mine");
        let shared = packet.share(&pool).unwrap();
        let third = shared.share(&pool).unwrap();
        drop(shared);
        assert!(packet.is_shared());
        std::thread::spawn(move || drop(third)).join().unwrap();
        packet.head_mut().copy_from_slice(b"MINE");
        assert_eq!(packet.head(), b"MINE");
        drop(packet);
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn an_exhausted_pool_shares_and_copies_nothing() {
    with_eal("an_exhausted_pool_shares_and_copies_nothing", ONE_LCORE, |eal| {
        let pool = pool_of(&eal, 2);
        let mut first = packet(&pool, b"first");
        let shared = first.share(&pool).unwrap();
        assert!(first.share(&pool).is_none() && first.copy(&pool).is_none() && pool.alloc().is_none());
        assert_eq!(first.make_unique(), Err(NoRoom));
        assert_eq!((first.head(), shared.head()), (&b"first"[..], &b"first"[..]));
    });
}

#[test]
fn a_chain_is_one_packet_of_several_segments() {
    with_eal("a_chain_is_one_packet_of_several_segments", ONE_LCORE, |eal| {
        let pool = pool_of(&eal, 63);
        let mut head = packet(&pool, b"head ");
        head.chain(packet(&pool, b"middle ")).unwrap();
        head.chain(packet(&pool, b"end")).unwrap();
        assert_eq!((head.total_len(), head.segment_count(), head.head()), (15, 3, &b"head "[..]));
        assert_eq!(head.segments().collect::<Vec<_>>(), [&b"head "[..], b"middle ", b"end"]);
        assert_eq!(head.set_len(1), Err(NoRoom));
        assert_eq!(head.trim_front(6), Err(NoRoom), "only the first segment is cut");

        let copy = head.copy(&pool).unwrap();
        assert_eq!((copy.head(), copy.segment_count()), (&b"head middle end"[..], 1));
        head.linearize().unwrap();
        assert_eq!((head.head(), head.segment_count(), head.total_len()), (&b"head middle end"[..], 1, 15));
        drop((head, copy));
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn what_is_asked_of_the_port_is_what_dpdk_reads() {
    with_eal("what_is_asked_of_the_port_is_what_dpdk_reads", ONE_LCORE, |eal| {
        let pool = pool_of(&eal, 63);
        let mut packet = packet(&pool, b"packet");
        let wanted =
            TxOffload { l2_len: 18, l3_len: 60, ipv6: false, ip_checksum: true, l4_checksum: Some(L4::Udp) };
        packet.set_tx_offload(&wanted).unwrap();
        assert_eq!(packet.tx_header_lengths(), (18, 60));
        packet.set_tx_offload(&TxOffload { l3_len: L3_LEN_MAX, ..wanted }).unwrap();
        assert_eq!(packet.tx_header_lengths(), (18, L3_LEN_MAX));
        assert_eq!(packet.set_tx_offload(&TxOffload { l3_len: L3_LEN_MAX + 1, ..wanted }), Err(NoRoom));
        assert_eq!(packet.tx_header_lengths(), (0, 0));
        // Requests are no findings.
        assert_eq!(
            (packet.rx_ip_checksum(), packet.rx_l4_checksum()),
            (Checksum::Unknown, Checksum::Unknown)
        );
        packet.set_port(7);
        assert_eq!(packet.port(), 7);
    });
}
