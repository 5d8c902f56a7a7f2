//! A distributor's loop and a worker's on a real EAL, with the ring between them. Each port is a `net_ring` with two
//! queues, as in `lcore`: the distributor receives from queue 0, the worker sends by queue 1.

use std::path::Path;
use std::sync::Arc;

use arrayvec::ArrayVec;
use baton::base::counters::{Counter, Counters};
use baton::base::ids::{BootId, NodeId, PortId, Term, WorkerId};
use baton::base::time::Duration;
use baton::config::checked::Idle;
use baton::config::snapshot::Snapshot;
use baton::distributor::spread::{Distributor, DistributorSetup};
use baton::driver::clock::Clock;
use baton::driver::dpdk_io::{DpdkIo, DpdkIoSetup};
use baton::driver::idle::Idler;
use baton::driver::intake::Intake;
use baton::driver::lcore::Lcore;
use baton::driver::lease::{Lease, Turns};
use baton::driver::mbuf::Packet;
use baton::driver::outbox::Outbox;
use baton::driver::rings::{self, LivenessEnds, MasterEnds};
use baton::driver::spreading::SpreadingLcore;
use baton::driver::{ports, ports::Queues};
use baton::flow::toeplitz::{MICROSOFT_KEY, Toeplitz};
use baton::mirror::Variant;
use baton::traffic::routes::NextHop;
use baton::worker::message::{Command, Role};
use baton::worker::{Worker, WorkerSetup};
use dpdk::{Burst, Eal, Mempool, RxQueue, TxQueue};

use crate::common::with_eal;
use crate::lcore::{CONFIG, RINGS, SYN};
use crate::{SOFTWARE, bytes, packet};

const CLIENT: usize = 0;
const SERVER: usize = 1;
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 10];

struct Bench {
    pool: Mempool,
    wires: Vec<(TxQueue, RxQueue)>,
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
        let text = CONFIG.replace("{ cpu = 0 }", roles);
        let checked = baton::config::load(Path::new("bench.toml"), &text).expect("it is good");
        let pool = crate::pool(eal);
        let (mut wires, mut rx, mut outboxes, mut macs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (config, number) in checked.ports.iter().zip(0..) {
            let open = ports::open(eal, PortId(number), config, Queues::both(2), &pool).unwrap();
            let [rx_own, rx_wire] = open.rx.try_into().unwrap();
            let [tx_wire, tx_own] = open.tx.try_into().unwrap();
            rx.push((open.id, rx_own));
            outboxes.push(Outbox::of_queue(tx_own, open.tx_abilities));
            wires.push((tx_wire, rx_wire));
            macs.push(open.mac);
        }
        let clock = Clock::start();
        let counters: [Arc<Counters>; 2] = Default::default();
        let turns: [Arc<Turns>; 2] = Default::default();
        let lease = Arc::new(Lease::default());
        lease.publish(clock.now() + Duration::from_secs(3600));
        let snapshot = Arc::new(Snapshot { generation: 1, checked });
        let toeplitz = Arc::new(Toeplitz::new(&MICROSOFT_KEY).unwrap());
        let mut ends = rings::make(eal, 1, 1).unwrap();
        let worker = Worker::<Packet>::new(WorkerSetup {
            id: WorkerId(0),
            workers: 1,
            boot: BootId(1),
            snapshot: Arc::clone(&snapshot),
            link_addresses: macs.clone(),
            toeplitz: Arc::clone(&toeplitz),
            balance_secret: [7; 16],
            hash_seed: 5,
            seed: 6,
            boot_parity: None,
            now: clock.now(),
            hold_packets_max: 64,
            fragments_waiting_max: 64,
            counters: Arc::clone(&counters[0]),
            variant: Variant::Sound,
        })
        .expect("memory");
        let world = DpdkIo::new(DpdkIoSetup {
            worker: WorkerId(0),
            pool: pool.clone(),
            clock,
            lease,
            counters: Arc::clone(&counters[0]),
            rx: Vec::new(),
            outboxes,
            relays: Vec::new(),
            ends: ends.workers.remove(0),
        });
        let distributor = Distributor::new(DistributorSetup {
            snapshot,
            workers: 1,
            link_addresses: macs,
            toeplitz,
            counters: Arc::clone(&counters[1]),
        });
        let site = Intake::new(rx, ends.distributors.remove(0), clock, Arc::clone(&counters[1]));
        let idler = Idler::new(Idle::Poll);
        let mut bench = Bench {
            pool,
            wires,
            distributor: SpreadingLcore::new(distributor, site, idler, Arc::clone(&turns[1])),
            worker: Lcore::new(worker, world, idler, Arc::clone(&turns[0])),
            liveness: ends.liveness,
            master: ends.master,
            counters,
            turns,
        };
        let term = Term { counter: 1, node: NodeId(1) };
        let lead = Command::Role { epoch: 3, role: Role::Active, term };
        bench.liveness.commands[0].push_one(lead).unwrap();
        let hop = NextHop { port: PortId(SERVER as u16), address: "10.2.0.10".parse().unwrap() };
        bench.master.commands[0].push_one(Command::Neighbour { hop, link: Some(SERVER_MAC) }).unwrap();
        bench.worker.turn();
        bench
    }

    /// A frame arrives at a port, and the distributor turns once.
    fn arrive(&mut self, port: usize, frame: &[u8]) {
        let mut burst: ArrayVec<_, 32> = ArrayVec::new();
        burst.push(packet(&self.pool, frame).finish(&SOFTWARE).unwrap());
        assert_eq!(self.wires[port].0.send(&mut burst), 1);
        self.distributor.turn();
    }

    /// What has left by a port.
    fn left(&mut self, port: usize) -> Vec<Vec<u8>> {
        let mut burst = Burst::<32>::new();
        self.wires[port].1.receive(&mut burst);
        burst.iter().map(|mbuf| mbuf.head().to_vec()).collect()
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
        assert!(bench.left(SERVER).is_empty(), "the worker did not turn yet");
        bench.worker.turn();
        let left = bench.left(SERVER);
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
        let heard = bench.liveness.heard[1].pop_one().unwrap();
        assert_eq!((heard.port, &heard.bytes[..]), (PortId(SERVER as u16), &heartbeat[..]));
        drop(bench);
    });
}

#[test]
fn a_worker_that_falls_behind_is_dropped_for_at_the_distributor_and_counted() {
    let name = "spreading::a_worker_that_falls_behind_is_dropped_for_at_the_distributor_and_counted";
    with_eal(name, RINGS, |eal| {
        let mut bench = Bench::active(&eal);
        let before = bench.pool.in_use();
        let syn = bytes(SYN);
        for _ in 0..1200 {
            bench.arrive(CLIENT, &syn);
        }
        let dropped = bench.count(1, Counter::DropHandOverFull);
        assert!(dropped > 0 && dropped < 200, "{dropped} dropped");
        assert_eq!(u64::from(bench.pool.in_use() - before), 1200 - dropped, "what is dropped is free again");
        let mut left = 0;
        for _ in 0..40 {
            bench.worker.turn();
            left += bench.left(SERVER).len() + bench.left(SERVER).len();
        }
        assert_eq!(left as u64, 1200 - dropped);
        assert_eq!(bench.pool.in_use(), before);
        drop(bench);
    });
}
