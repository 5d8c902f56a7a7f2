//! What the benches of lcores share. Each port is a `net_ring` with two queues that loop back to themselves: what the test
//! sends on queue 0 the appliance receives there, and what the appliance sends on queue 1 the test receives there.

use std::path::Path;
use std::sync::Arc;

use arrayvec::ArrayVec;
use baton::base::counters::Counters;
use baton::base::ids::{BootId, NodeId, PortId, Term, WorkerId};
use baton::base::time::Instant;
use baton::config::snapshot::Snapshot;
use baton::driver::mbuf::Packet;
use baton::driver::outbox::Outbox;
use baton::driver::ports::{self, Queues};
use baton::driver::rings::{LivenessEnds, MasterEnds};
use baton::flow::toeplitz::{MICROSOFT_KEY, Toeplitz};
use baton::mirror::Variant;
use baton::traffic::routes::NextHop;
use baton::worker::message::{Command, Role};
use baton::worker::{Worker, WorkerSetup};
use dpdk::{Burst, Eal, Mempool, RxQueue, TxQueue};

use crate::{SOFTWARE, packet};

pub const RINGS: &[&str] = &["--lcores=0@0", "--vdev=net_ring0", "--vdev=net_ring1"];

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;
pub const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 2, 10];

/// A SYN of 10.1.0.50:40000 to 10.1.0.100:80, to the virtual MAC, made by scapy.
pub const SYN: &str = "00005e00013302000000013208004500002800014000400626380a010032\
    0a0100649c400050000000000000000050022000deba0000";

const CONFIG: &str = r#"
[appliance]
name = "a"
node = 1
[eal]
file_prefix = "a"
[lcores]
master_cpu = 0
worker = [ LCORES ]
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

/// A configuration with these lcores.
pub fn snapshot(lcores: &str) -> Arc<Snapshot> {
    let text = CONFIG.replace("LCORES", lcores);
    let checked = baton::config::load(Path::new("bench.toml"), &text).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>())
    });
    Arc::new(Snapshot { generation: 1, checked })
}

/// The hash of shards.
pub fn toeplitz() -> Arc<Toeplitz> {
    Arc::new(Toeplitz::new(&MICROSOFT_KEY).unwrap())
}

/// The wires' ends of all ports.
pub struct Wires {
    pub pool: Mempool,
    queues: Vec<(TxQueue, RxQueue)>,
    pub macs: Vec<[u8; 6]>,
}

/// The appliance's ends of all ports.
pub struct Near {
    pub rx: Vec<(PortId, RxQueue)>,
    pub outboxes: Vec<Outbox>,
}

impl Wires {
    /// Opens the ports of a configuration.
    pub fn open(eal: &Eal, snapshot: &Snapshot) -> (Wires, Near) {
        let mut wires = Wires { pool: crate::pool(eal), queues: Vec::new(), macs: Vec::new() };
        let mut near = Near { rx: Vec::new(), outboxes: Vec::new() };
        for (config, number) in snapshot.checked.ports.iter().zip(0..) {
            let open = ports::open(eal, PortId(number), config, Queues::both(2), &wires.pool).unwrap();
            let [rx_own, rx_wire] = open.rx.try_into().unwrap();
            let [tx_wire, tx_own] = open.tx.try_into().unwrap();
            near.rx.push((open.id, rx_own));
            near.outboxes.push(Outbox::of_queue(tx_own, open.tx_abilities));
            wires.queues.push((tx_wire, rx_wire));
            wires.macs.push(open.mac);
        }
        (wires, near)
    }

    /// A frame is on its way to a port, which gives it to whoever asks next.
    pub fn put(&mut self, port: usize, frame: &[u8]) {
        let mut burst: ArrayVec<_, 32> = ArrayVec::new();
        burst.push(packet(&self.pool, frame).finish(&SOFTWARE).unwrap());
        assert_eq!(self.queues[port].0.send(&mut burst), 1);
    }

    /// What has left by a port, a burst at most.
    pub fn left(&mut self, port: usize) -> Vec<Vec<u8>> {
        let mut burst = Burst::<32>::new();
        self.queues[port].1.receive(&mut burst);
        burst.iter().map(|mbuf| mbuf.head().to_vec()).collect()
    }

    /// What the only worker is made from.
    pub fn worker(&self, snapshot: &Arc<Snapshot>, now: Instant, counters: &Arc<Counters>) -> Worker<Packet> {
        let setup = WorkerSetup {
            id: WorkerId(0),
            workers: 1,
            boot: BootId(1),
            snapshot: Arc::clone(snapshot),
            link_addresses: self.macs.clone(),
            toeplitz: toeplitz(),
            balance_secret: [7; 16],
            hash_seed: 5,
            seed: 6,
            boot_parity: None,
            now,
            hold_packets_max: 64,
            fragments_waiting_max: 64,
            counters: Arc::clone(counters),
            variant: Variant::Sound,
        };
        Worker::new(setup).expect("memory")
    }
}

/// Tells the only worker to lead, and where the server is.
pub fn lead(liveness: &mut LivenessEnds, master: &mut MasterEnds) {
    let term = Term { counter: 1, node: NodeId(1) };
    let lead = Command::Role { epoch: 3, role: Role::Active, term };
    liveness.commands[0].push_one(lead).unwrap();
    let hop = NextHop { port: PortId(SERVER as u16), address: "10.2.0.10".parse().unwrap() };
    master.commands[0].push_one(Command::Neighbour { hop, link: Some(SERVER_MAC) }).unwrap();
}
