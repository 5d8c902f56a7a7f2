//! One worker's loop on a real EAL: ports, rings, the lease. Each port is a `net_ring` with
//! two queues that loop back to themselves: what the test sends on queue 0 the worker
//! receives there, and what the worker sends on queue 1 the test receives there.

use std::path::Path;
use std::sync::Arc;

use arrayvec::ArrayVec;
use baton::base::buffer::Buffer;
use baton::base::counters::{Counter, Counters};
use baton::base::ids::{BootId, NodeId, PortId, Term, WorkerId};
use baton::base::io::TxClass;
use baton::base::time::{Duration, Instant};
use baton::config::checked::Idle;
use baton::config::snapshot::Snapshot;
use baton::driver::clock::Clock;
use baton::driver::dpdk_io::{DpdkIo, DpdkIoSetup};
use baton::driver::idle::Idler;
use baton::driver::lcore::Lcore;
use baton::driver::lease::{Lease, Turns};
use baton::driver::mbuf::Packet;
use baton::driver::outbox::Outbox;
use baton::driver::ports;
use baton::driver::rings::{self, Frame, LivenessEnds, MasterEnds};
use baton::failover::{FrameBytes, WorkerReport};
use baton::flow::toeplitz::{MICROSOFT_KEY, Toeplitz};
use baton::mirror::Variant;
use baton::traffic::routes::NextHop;
use baton::worker::message::{Command, Role};
use baton::worker::{Worker, WorkerSetup};
use dpdk::{Burst, Eal, Mempool, RxQueue, TxQueue};

use crate::common::with_eal;
use crate::{SOFTWARE, bytes, packet};

pub const RINGS: &[&str] = &["--lcores=0@0", "--vdev=net_ring0", "--vdev=net_ring1"];

const CLIENT: usize = 0;
const SERVER: usize = 1;
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 10];

/// A SYN of 10.1.0.50:40000 to 10.1.0.100:80, to the virtual MAC, made by scapy.
pub const SYN: &str = "00005e00013302000000013208004500002800014000400626380a010032\
    0a0100649c400050000000000000000050022000deba0000";

pub const CONFIG: &str = r#"
[appliance]
name = "a"
node = 1
[eal]
file_prefix = "a"
[lcores]
master_cpu = 0
worker = [ { cpu = 0 } ]
[[port]]
name = "client"
device = "net_ring0"
addresses = ["10.1.0.2/24"]
[[port]]
name = "server"
device = "net_ring1"
addresses = ["10.2.0.2/24"]
shared_addresses = ["10.2.0.1/24"]
[[pool]]
name = "web"
balance = "round-robin"
server = [ { address = "10.2.0.10:8080" } ]
[[virtual_server]]
name = "www"
address = "10.1.0.100:80"
protocol = "tcp"
pool = "web"
forwarding = "nat"
mirror = { mode = "off" }
[failover]
virtual_router_id = 51
priority = 200
state_dir = "s"
[control]
socket = "a.sock"
"#;

/// The wire's end of a port.
struct Wire {
    tx: TxQueue,
    rx: RxQueue,
    mac: [u8; 6],
}

struct Bench {
    pool: Mempool,
    wires: Vec<Wire>,
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
        let checked = baton::config::load(Path::new("bench.toml"), CONFIG).unwrap_or_else(|errors| {
            panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>())
        });
        let pool = crate::pool(eal);
        let (mut wires, mut rx, mut outboxes) = (Vec::new(), Vec::new(), Vec::new());
        for (config, number) in checked.ports.iter().zip(0..) {
            let open = ports::open(eal, PortId(number), config, ports::Queues::both(2), &pool).unwrap();
            let [rx_own, rx_wire] = open.rx.try_into().unwrap();
            let [tx_wire, tx_own] = open.tx.try_into().unwrap();
            rx.push((open.id, rx_own));
            outboxes.push(Outbox::of_queue(tx_own, open.tx_abilities));
            wires.push(Wire { tx: tx_wire, rx: rx_wire, mac: open.mac });
        }
        let (clock, counters) = (Clock::start(), Arc::new(Counters::default()));
        let (lease, turns) = (Arc::new(Lease::default()), Arc::new(Turns::default()));
        let mut ends = rings::make(eal, 1, 0).unwrap();
        let worker = Worker::<Packet>::new(WorkerSetup {
            id: WorkerId(0),
            workers: 1,
            boot: BootId(1),
            snapshot: Arc::new(Snapshot { generation: 1, checked }),
            link_addresses: wires.iter().map(|wire| wire.mac).collect(),
            toeplitz: Arc::new(Toeplitz::new(&MICROSOFT_KEY).unwrap()),
            balance_secret: [7; 16],
            hash_seed: 5,
            seed: 6,
            boot_parity: None,
            now: clock.now(),
            hold_packets_max: 64,
            fragments_waiting_max: 64,
            counters: Arc::clone(&counters),
            variant: Variant::Sound,
        })
        .expect("memory");
        let world = DpdkIo::new(DpdkIoSetup {
            worker: WorkerId(0),
            pool: pool.clone(),
            clock,
            lease: Arc::clone(&lease),
            counters: Arc::clone(&counters),
            rx,
            outboxes,
            relays: Vec::new(),
            ends: ends.workers.remove(0),
        });
        let lcore = Lcore::new(worker, world, Idler::new(Idle::Poll), Arc::clone(&turns));
        let (liveness, master) = (ends.liveness, ends.master);
        Bench { pool, wires, lcore, liveness, master, lease, clock, turns, counters }
    }

    /// Told to lead, and where the server is.
    fn active(eal: &Eal) -> Bench {
        let mut bench = Bench::new(eal);
        let term = Term { counter: 1, node: NodeId(1) };
        let lead = Command::Role { epoch: 3, role: Role::Active, term };
        bench.liveness.commands[0].push_one(lead).unwrap();
        let hop = NextHop { port: PortId(SERVER as u16), address: "10.2.0.10".parse().unwrap() };
        bench.master.commands[0].push_one(Command::Neighbour { hop, link: Some(SERVER_MAC) }).unwrap();
        bench.lcore.turn();
        bench
    }

    /// A frame arrives at a port, and the worker turns once.
    fn arrive(&mut self, port: usize, frame: &[u8]) {
        let mut burst: ArrayVec<_, 32> = ArrayVec::new();
        burst.push(packet(&self.pool, frame).finish(&SOFTWARE).unwrap());
        assert_eq!(self.wires[port].tx.send(&mut burst), 1);
        self.lcore.turn();
    }

    /// What has left by a port.
    fn left(&mut self, port: usize) -> Vec<Vec<u8>> {
        let mut burst = Burst::<32>::new();
        self.wires[port].rx.receive(&mut burst);
        burst.iter().map(|mbuf| mbuf.head().to_vec()).collect()
    }
}

#[test]
fn a_syn_leaves_for_the_server_only_under_the_lease() {
    with_eal("lcore::a_syn_leaves_for_the_server_only_under_the_lease", RINGS, |eal| {
        let mut bench = Bench::active(&eal);
        let syn = bytes(SYN);
        bench.arrive(CLIENT, &syn);
        assert!(bench.left(SERVER).is_empty(), "there is no lease yet");
        assert_eq!(bench.counters.value(Counter::DropTxLease), 1);

        bench.lease.publish(bench.clock.now() + Duration::from_secs(3600));
        bench.arrive(CLIENT, &syn);
        let left = bench.left(SERVER);
        assert_eq!(left.len(), 1);
        assert_eq!((&left[0][..6], &left[0][6..12]), (&SERVER_MAC[..], &[0, 0, 0x5e, 0, 1, 51][..]));
        assert_eq!((&left[0][30..34], &left[0][36..38]), (&[10, 2, 0, 10][..], &8080u16.to_be_bytes()[..]));
        assert_eq!(bench.counters.value(Counter::TxPackets), 1);

        bench.lease.publish(Instant::ZERO);
        bench.arrive(CLIENT, &syn);
        assert!(bench.left(SERVER).is_empty(), "the lease ended");
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
        assert_eq!(bench.left(SERVER), [out.to_vec()]);

        bench.arrive(CLIENT, &out);
        let heard = bench.liveness.heard[0].pop_one().unwrap();
        assert_eq!((heard.port, &heard.bytes), (PortId(CLIENT as u16), &out));
        assert_eq!(bench.pool.in_use(), 0, "no buffer stays with either");
    });
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
