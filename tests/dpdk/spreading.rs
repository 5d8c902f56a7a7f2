//! A distributor's loop and a worker's on a real EAL, with the ring between them: the distributor has the ports' receive
//! queues, the worker their transmit queues.

use std::sync::Arc;

use baton::base::counters::{Counter, Counters};
use baton::base::ids::{PortId, WorkerId};
use baton::base::time::Duration;
use baton::config::checked::Idle;
use baton::distributor::spread::{Distributor, DistributorSetup};
use baton::driver::clock::Clock;
use baton::driver::dpdk_io::{DpdkIo, DpdkIoSetup};
use baton::driver::idle::Idler;
use baton::driver::intake::Intake;
use baton::driver::lcore::Lcore;
use baton::driver::lease::{Lease, Turns};
use baton::driver::rings::{self, DistributorEnds, LivenessEnds, MasterEnds};
use baton::driver::spreading::SpreadingLcore;
use dpdk::Eal;

use crate::bytes;
use crate::common::with_eal;
use crate::wires::{self, CLIENT, Near, RINGS, SERVER, SERVER_MAC, SYN, Wires};

struct Bench {
    wires: Wires,
    distributor: SpreadingLcore<Intake>,
    worker: Lcore<DpdkIo>,
    liveness: LivenessEnds,
    master: MasterEnds,
    /// Of the worker, and of the distributor.
    counters: [Arc<Counters>; 2],
    turns: [Arc<Turns>; 2],
}

impl Bench {
    /// Told to lead, under a lease, and where the server is.
    fn active(eal: &Eal) -> Bench {
        let roles = r#"{ cpu = 0, roles = ["distributor"] }, { cpu = 0, roles = ["traffic-manager"] }"#;
        let snapshot = wires::snapshot(roles);
        let (wires, Near { mut rx, mut outboxes }) = Wires::open(eal, &snapshot, 1, 1);
        let clock = Clock::start();
        let counters: [Arc<Counters>; 2] = Default::default();
        let turns: [Arc<Turns>; 2] = Default::default();
        let lease = Arc::new(Lease::default());
        lease.publish(clock.now() + Duration::from_secs(3600));
        let mut ends = rings::make(eal, 3, 1, 1, false).unwrap();
        let worker = wires.worker(&snapshot, (0, 1), clock.now(), &counters[0]);
        let world = DpdkIo::new(DpdkIoSetup {
            worker: WorkerId(0),
            pool: wires.pool.clone(),
            clock,
            lease,
            counters: Arc::clone(&counters[0]),
            rx: Vec::new(),
            outboxes: outboxes.remove(0),
            relays: Vec::new(),
            ends: ends.workers.remove(0),
        });
        let distributor = Distributor::new(DistributorSetup {
            snapshot,
            workers: 1,
            link_addresses: wires.macs.clone(),
            toeplitz: wires::toeplitz(),
            me: WorkerId(1),
            hash_seed: 5,
            now: clock.now(),
            counters: Arc::clone(&counters[1]),
        })
        .expect("memory");
        let DistributorEnds { passing, orders, spent } = ends.distributors.remove(0);
        let pool = wires.pool.clone();
        let site = Intake::new(rx.remove(0), passing, pool, clock, Arc::clone(&counters[1]));
        let site = site.told_by(orders, spent);
        let idler = Idler::new(Idle::Poll);
        let mut bench = Bench {
            wires,
            distributor: SpreadingLcore::new(distributor, site, idler, Arc::clone(&turns[1])),
            worker: Lcore::new(worker, world, idler, Arc::clone(&turns[0])),
            liveness: ends.liveness,
            master: ends.master,
            counters,
            turns,
        };
        wires::lead(&mut bench.liveness, &mut bench.master);
        bench.worker.turn();
        bench
    }

    /// A frame arrives at a port, and the distributor turns once.
    fn arrive(&mut self, port: usize, frame: &[u8]) {
        self.wires.put(port, frame);
        self.distributor.turn();
    }

    fn count(&self, lcore: usize, counter: Counter) -> u64 {
        self.counters[lcore].value(counter)
    }
}

#[test]
fn a_syn_goes_from_the_distributor_to_the_worker_and_to_the_server() {
    with_eal("spreading::a_syn_goes_from_the_distributor_to_the_worker_and_to_the_server", RINGS, |eal| {
        let mut bench = Bench::active(&eal);
        bench.arrive(CLIENT, &bytes(SYN));
        assert!(bench.wires.left(SERVER).is_empty(), "the worker did not turn yet");
        bench.worker.turn();
        let left = bench.wires.left(SERVER);
        assert_eq!((left.len(), &left[0][..6]), (1, &SERVER_MAC[..]));
        assert_eq!([0, 1].map(|lcore| bench.count(lcore, Counter::RxPackets)), [0, 1]);
        assert_eq!([0, 1].map(|lcore| bench.count(lcore, Counter::HandedOver)), [0, 1]);
        // One more turn each, so that the time of the last ones is known.
        bench.worker.turn();
        bench.distributor.turn();
        assert_eq!([0, 1].map(|lcore| bench.turns[lcore].spent().packets), [1, 1]);
        assert_eq!(bench.turns[1].spent().busy_turns, 1);
        drop(bench);
    });
}

#[test]
fn arp_and_heartbeats_go_to_their_threads_from_the_distributor() {
    with_eal("spreading::arp_and_heartbeats_go_to_their_threads_from_the_distributor", RINGS, |eal| {
        let mut bench = Bench::active(&eal);
        let mut arp = vec![0xff; 6];
        arp.extend([2, 0, 0, 0, 1, 50, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 1, 50, 10, 1, 0, 50]);
        arp.extend([0, 0, 0, 0, 0, 0, 10, 1, 0, 100]);
        bench.arrive(CLIENT, &arp);
        assert_eq!(bench.master.punted.iter().map(|ring| ring.len()).collect::<Vec<_>>(), [0, 1]);
        let mut heartbeat = vec![0xff; 12];
        heartbeat.extend([0x88, 0xb5]);
        heartbeat.resize(90, 1);
        bench.arrive(SERVER, &heartbeat);
        let heard = bench.liveness.heard[3 + SERVER].pop_one().unwrap();
        assert_eq!((heard.port, &heard.bytes[..]), (PortId(SERVER as u16), &heartbeat[..]));
        drop(bench);
    });
}

#[test]
fn a_worker_that_falls_behind_is_dropped_for_at_the_distributor_and_counted() {
    let name = "spreading::a_worker_that_falls_behind_is_dropped_for_at_the_distributor_and_counted";
    with_eal(name, RINGS, |eal| {
        let mut bench = Bench::active(&eal);
        let before = bench.wires.pool.in_use();
        let syn = bytes(SYN);
        for _ in 0..1200 {
            bench.arrive(CLIENT, &syn);
        }
        let dropped = bench.count(1, Counter::DropHandOverFull);
        assert!(dropped > 0 && dropped < 200, "{dropped} dropped");
        assert_eq!(
            u64::from(bench.wires.pool.in_use() - before),
            1200 - dropped,
            "what is dropped is free again"
        );
        let mut left = 0;
        for _ in 0..40 {
            bench.worker.turn();
            left += bench.wires.left(SERVER).len() + bench.wires.left(SERVER).len();
        }
        assert_eq!(left as u64, 1200 - dropped);
        assert_eq!(bench.wires.pool.in_use(), before);
        drop(bench);
    });
}
