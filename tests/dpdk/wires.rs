//! What the benches of lcores share. Each port is a `net_ring` whose queues loop back to themselves: what the test sends on
//! the first ones the appliance's receivers receive there, and what its senders send on the others the test receives there.

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

use crate::{SOFTWARE, WISH, packet};

pub const RINGS: &[&str] = &["--lcores=0@0", "--vdev=net_ring0", "--vdev=net_ring1"];

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 1, 50];
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
[flows]
max = 1000
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
    /// By port, and then by receiver and by sender.
    queues: Vec<(Vec<TxQueue>, Vec<RxQueue>)>,
    pub macs: Vec<[u8; 6]>,
}

/// The appliance's ends of all ports: of every receiver, and of every sender.
pub struct Near {
    pub rx: Vec<Vec<(PortId, RxQueue)>>,
    pub outboxes: Vec<Vec<Outbox>>,
}

impl Wires {
    /// Opens the ports of a configuration, for so many lcores that receive and that send.
    pub fn open(eal: &Eal, snapshot: &Snapshot, receivers: usize, senders: usize) -> (Wires, Near) {
        let mut wires = Wires { pool: crate::pool(eal), queues: Vec::new(), macs: Vec::new() };
        let mut near = Near { rx: Vec::new(), outboxes: Vec::new() };
        near.rx.resize_with(receivers, Vec::new);
        near.outboxes.resize_with(senders, Vec::new);
        for (config, number) in snapshot.checked.ports.iter().zip(0..) {
            let queues = Queues::both((receivers + senders) as u16);
            let mut open = ports::open(eal, PortId(number), config, queues, WISH, &wires.pool).unwrap();
            let (rx_wire, tx_own) = (open.rx.split_off(receivers), open.tx.split_off(receivers));
            for (queue, own) in open.rx.into_iter().zip(&mut near.rx) {
                own.push((open.id, queue));
            }
            for (queue, own) in tx_own.into_iter().zip(&mut near.outboxes) {
                own.push(Outbox::of_queue(queue, open.tx_abilities));
            }
            wires.queues.push((open.tx, rx_wire));
            wires.macs.push(open.mac);
        }
        (wires, near)
    }

    /// A frame is on its way to a port, which gives it to whoever is the first to receive and asks next.
    pub fn put(&mut self, port: usize, frame: &[u8]) {
        self.put_for(port, 0, frame);
    }

    /// As [`Wires::put`], for a receiver.
    pub fn put_for(&mut self, port: usize, receiver: usize, frame: &[u8]) {
        let mut burst: ArrayVec<_, 32> = ArrayVec::new();
        burst.push(packet(&self.pool, frame).finish(&SOFTWARE).unwrap());
        assert_eq!(self.queues[port].0[receiver].send(&mut burst), 1);
    }

    /// What the first sender has sent by a port, a burst at most.
    pub fn left(&mut self, port: usize) -> Vec<Vec<u8>> {
        self.left_from(port, 0)
    }

    /// As [`Wires::left`], of a sender.
    pub fn left_from(&mut self, port: usize, sender: usize) -> Vec<Vec<u8>> {
        let mut burst = Burst::<32>::new();
        self.queues[port].1[sender].receive(&mut burst);
        burst.iter().map(|mbuf| mbuf.head().to_vec()).collect()
    }

    /// One of so many workers.
    pub fn worker(
        &self,
        snapshot: &Arc<Snapshot>,
        (id, workers): (u16, u16),
        now: Instant,
        counters: &Arc<Counters>,
    ) -> Worker<Packet> {
        let setup = WorkerSetup {
            id: WorkerId(id),
            workers,
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

/// Tells every worker to lead, and where the client and the server are.
pub fn lead(liveness: &mut LivenessEnds, master: &mut MasterEnds) {
    let term = Term { counter: 1, node: NodeId(1) };
    for commands in &mut liveness.commands {
        commands.push_one(Command::Role { epoch: 3, role: Role::Active, term }).unwrap();
    }
    for (port, address, link) in [(CLIENT, "10.1.0.50", CLIENT_MAC), (SERVER, "10.2.0.10", SERVER_MAC)] {
        let hop = NextHop { port: PortId(port as u16), address: address.parse().unwrap() };
        for commands in &mut master.commands {
            commands.push_one(Command::Neighbour { hop, link: Some(link) }).unwrap();
        }
    }
}
