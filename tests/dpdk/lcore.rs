//! One worker's loop on a real EAL: ports, rings, the lease.

use std::sync::Arc;

use baton::base::buffer::Buffer;
use baton::base::counters::{Counter, Counters};
use baton::base::ids::{PortId, WorkerId};
use baton::base::io::TxClass;
use baton::base::time::{Duration, Instant};
use baton::config::checked::Idle;
use baton::driver::clock::Clock;
use baton::driver::dpdk_io::{DpdkIo, DpdkIoSetup};
use baton::driver::idle::Idler;
use baton::driver::lcore::Lcore;
use baton::driver::lease::{Lease, Turns};
use baton::driver::rings::{self, Frame, LivenessEnds, MasterEnds};
use baton::failover::{FrameBytes, WorkerReport};
use dpdk::Eal;

use crate::bytes;
use crate::common::with_eal;
use crate::wires::{self, CLIENT, Near, RINGS, SERVER, SERVER_MAC, SYN, Wires};

struct Bench {
    wires: Wires,
    lcore: Lcore<DpdkIo>,
    liveness: LivenessEnds,
    master: MasterEnds,
    lease: Arc<Lease>,
    clock: Clock,
    turns: Arc<Turns>,
    counters: Arc<Counters>,
}

impl Bench {
    fn new(eal: &Eal) -> Bench {
        let snapshot = wires::snapshot("{ cpu = 0 }");
        let (wires, Near { mut rx, mut outboxes }) = Wires::open(eal, &snapshot, 1, 1);
        let (clock, counters) = (Clock::start(), Arc::new(Counters::default()));
        let (lease, turns) = (Arc::new(Lease::default()), Arc::new(Turns::default()));
        let mut ends = rings::make(eal, 3, 1, 0, false).unwrap();
        let worker = wires.worker(&snapshot, (0, 1), clock.now(), &counters);
        let world = DpdkIo::new(DpdkIoSetup {
            worker: WorkerId(0),
            pool: wires.pool.clone(),
            clock,
            lease: Arc::clone(&lease),
            counters: Arc::clone(&counters),
            rx: rx.remove(0),
            outboxes: outboxes.remove(0),
            relays: Vec::new(),
            ends: ends.workers.remove(0),
        });
        let lcore = Lcore::new(worker, world, Idler::new(Idle::Poll), Arc::clone(&turns));
        let (liveness, master) = (ends.liveness, ends.master);
        Bench { wires, lcore, liveness, master, lease, clock, turns, counters }
    }

    /// Told to lead, and where the server is.
    fn active(eal: &Eal) -> Bench {
        let mut bench = Bench::new(eal);
        wires::lead(&mut bench.liveness, &mut bench.master);
        bench.lcore.turn();
        bench
    }

    /// A frame arrives at a port, and the worker turns once.
    fn arrive(&mut self, port: usize, frame: &[u8]) {
        self.wires.put(port, frame);
        self.lcore.turn();
    }
}

#[test]
fn a_syn_leaves_for_the_server_only_under_the_lease() {
    with_eal("lcore::a_syn_leaves_for_the_server_only_under_the_lease", RINGS, |eal| {
        let mut bench = Bench::active(&eal);
        let syn = bytes(SYN);
        bench.arrive(CLIENT, &syn);
        assert!(bench.wires.left(SERVER).is_empty(), "there is no lease yet");
        assert_eq!(bench.counters.value(Counter::DropTxLease), 1);

        bench.lease.publish(bench.clock.now() + Duration::from_secs(3600));
        bench.arrive(CLIENT, &syn);
        let left = bench.wires.left(SERVER);
        assert_eq!(left.len(), 1);
        assert_eq!((&left[0][..6], &left[0][6..12]), (&SERVER_MAC[..], &[0, 0, 0x5e, 0, 1, 51][..]));
        assert_eq!((&left[0][30..34], &left[0][36..38]), (&[10, 2, 0, 10][..], &8080u16.to_be_bytes()[..]));
        assert_eq!(bench.counters.value(Counter::TxPackets), 1);

        bench.lease.publish(Instant::ZERO);
        bench.arrive(CLIENT, &syn);
        assert!(bench.wires.left(SERVER).is_empty(), "the lease ended");
        assert_eq!(bench.counters.value(Counter::DropTxLease), 2);
        drop(bench);
    });
}

#[test]
fn a_worker_reports_its_role_to_the_liveness_thread_and_counts_its_turns() {
    with_eal("lcore::a_worker_reports_its_role_to_the_liveness_thread_and_counts_its_turns", RINGS, |eal| {
        let mut bench = Bench::active(&eal);
        let report = bench.liveness.reports[0].pop_one();
        assert_eq!(report, Some(WorkerReport::Installed { worker: WorkerId(0), epoch: 3 }));
        let before = bench.turns.count();
        bench.lcore.turn();
        assert_eq!(bench.turns.count(), before + 1);
    });
}

#[test]
fn turns_with_packets_are_busy_and_turns_without_are_empty() {
    with_eal("lcore::turns_with_packets_are_busy_and_turns_without_are_empty", RINGS, |eal| {
        let mut bench = Bench::active(&eal);
        // How long a turn lasted is known when the next one begins.
        bench.lcore.turn();
        let before = bench.turns.spent();
        bench.arrive(CLIENT, &bytes(SYN));
        assert_eq!(bench.turns.spent().packets, before.packets, "it is not over");
        bench.lcore.turn();
        let busy = bench.turns.spent();
        assert_eq!((busy.turns - before.turns, busy.busy_turns - before.busy_turns), (2, 1));
        assert_eq!((busy.packets, busy.empty > before.empty), (before.packets + 1, true));
        assert!(busy.busy > before.busy);
        bench.lcore.turn();
        let empty = bench.turns.spent();
        assert_eq!((empty.busy_turns, empty.busy, empty.packets), (busy.busy_turns, busy.busy, busy.packets));
        assert!(empty.empty > busy.empty);
        drop(bench);
    });
}

#[test]
fn liveness_frames_pass_by_value_and_leave_without_a_lease() {
    with_eal("lcore::liveness_frames_pass_by_value_and_leave_without_a_lease", RINGS, |eal| {
        let mut bench = Bench::new(&eal);
        let mut out = FrameBytes::try_from(&[3, 0x62, 0x61, 0x74, 0x6f, 0x6e][..]).unwrap();
        out.try_extend_from_slice(&[2, 0, 0, 0, 0, 9, 0x88, 0xb5]).unwrap();
        out.try_extend_from_slice(&[7; 50]).unwrap();
        let (class, port) = (TxClass::Own, PortId(SERVER as u16));
        bench.liveness.frames.push_one(Frame { port, class, bytes: out.clone() }).unwrap();
        bench.lcore.turn();
        assert_eq!(bench.wires.left(SERVER), [out.to_vec()]);

        bench.arrive(CLIENT, &out);
        let heard = bench.liveness.heard[CLIENT].pop_one().unwrap();
        assert_eq!((heard.port, &heard.bytes), (PortId(CLIENT as u16), &out));
        assert_eq!(bench.wires.pool.in_use(), 0, "no buffer stays with either");
    });
}

#[test]
fn a_flood_of_liveness_frames_on_one_lan_leaves_what_comes_by_another_port() {
    with_eal(
        "lcore::a_flood_of_liveness_frames_on_one_lan_leaves_what_comes_by_another_port",
        RINGS,
        |eal| {
            let mut bench = Bench::new(&eal);
            let mut frame = vec![0xff; 12];
            frame.extend([0x88, 0xb5]);
            frame.resize(90, 1);
            (0..500).for_each(|_| bench.arrive(CLIENT, &frame));
            assert!(bench.counters.value(Counter::DropLivenessFull) > 0);
            bench.arrive(SERVER, &frame);
            let heard = bench.liveness.heard[SERVER].pop_one().expect("it came");
            assert_eq!(heard.port, PortId(SERVER as u16));
            drop(bench);
        },
    );
}

#[test]
fn arp_goes_to_the_master_as_it_came() {
    with_eal("lcore::arp_goes_to_the_master_as_it_came", RINGS, |eal| {
        let mut bench = Bench::new(&eal);
        let arp = bytes(
            "ffffffffffff020000000132080600010800060400010200000001320a010032\
             0000000000000a010002000000000000000000000000000000000000",
        );
        bench.arrive(CLIENT, &arp);
        let punted = bench.master.punted[0].pop_one().unwrap();
        assert_eq!((punted.rx().port, punted.head()), (PortId(CLIENT as u16), &arp[..]));
        drop(punted);
    });
}
