//! An appliance of several workers that do everything, of which any receives any packet; with rings between them, for
//! packets and for what they tell each other.

use std::collections::VecDeque;
use std::sync::Arc;

use baton::base::counters::Counter;
use baton::base::ids::PortId;
use baton::base::io::TxClass;
use baton::base::rng::Rng;
use baton::config::checked::{Checked, Method};
use baton::config::snapshot::Snapshot;
use baton::distributor::tell::Told;
use baton::driver::memory::PlainBuffer;
use baton::flow::Key;
use baton::worker::Origin;
use baton::worker::message::{Command, Role};

use crate::bench::*;

/// A virtual server whose sources are translated, and one whose are not; neither waits for a peer.
pub const FULL_NAT: &str = "10.1.0.101";
pub const NAT: &str = "fd01::100";
/// One that keeps the hash of its source.
pub const HASHED: &str = "10.1.0.103";

/// Workers with rings between them.
pub struct Workers {
    pub benches: Vec<Bench>,
    packets: Vec<VecDeque<PlainBuffer>>,
    told: Vec<VecDeque<Told>>,
    sent: Vec<Sent>,
    rng: Rng,
}

impl Workers {
    /// So many, that all lead, where all virtual servers but the hashed one select by this.
    pub fn new(count: u16, method: Method, edit: impl FnOnce(&mut Checked)) -> Workers {
        let mut checked = snapshot(1).checked.clone();
        checked.lcores.workers = vec![checked.lcores.workers[0].clone(); usize::from(count)];
        for server in &mut checked.virtual_servers {
            server.select = if server.name == "alone" { server.select } else { method };
        }
        checked.distributor.max_keys = 10_000;
        checked.distributor.remembers = true;
        edit(&mut checked);
        let snapshot = Arc::new(Snapshot { generation: 1, checked });
        let bench = |id| {
            let mut bench = Bench::of(Arc::clone(&snapshot), id, count);
            bench.know_neighbours();
            bench.command(Command::Role { epoch: 1, role: Role::Active, term: TERM });
            bench.worker.set_serves(true);
            bench
        };
        Workers {
            benches: (0..count).map(bench).collect(),
            packets: (0..count).map(|_| VecDeque::new()).collect(),
            told: (0..count).map(|_| VecDeque::new()).collect(),
            sent: Vec::new(),
            rng: Rng::with_seed(3),
        }
    }

    /// A frame comes in by this worker, and all is done that follows. What leaves for the ends.
    pub fn handle_at(&mut self, receiver: usize, port: PortId, frame: &[u8]) -> Vec<Sent> {
        self.turn(receiver, Origin::Port, vec![frame_received(port, frame)]);
        self.settle();
        self.sent.drain(..).filter(|sent| sent.class == TxClass::Service).collect()
    }

    /// Which worker has a flow of this key; it has to be one at most.
    pub fn holder(&self, key: &Key) -> Option<usize> {
        let has = |bench: &Bench| bench.worker.flows().table.lookup(key).is_some();
        let holders: Vec<usize> = (0..self.benches.len()).filter(|n| has(&self.benches[*n])).collect();
        assert!(holders.len() <= 1, "{key} is with {holders:?}");
        holders.first().copied()
    }

    /// Every lcore hears this.
    pub fn tell_all(&mut self, told: Told) {
        self.told.iter_mut().for_each(|ring| ring.push_back(told));
        self.settle();
    }

    /// A frame comes in by any worker, and all is done that follows. What leaves for the ends.
    pub fn handle(&mut self, port: PortId, frame: &[u8]) -> Vec<Sent> {
        let receiver = self.rng.usize(0..self.benches.len());
        self.handle_at(receiver, port, frame)
    }

    pub fn settle(&mut self) {
        for _ in 0..1000 {
            let busy = |n: &usize| !self.packets[*n].is_empty() || !self.told[*n].is_empty();
            let Some(next) = (0..self.benches.len()).find(busy) else { return };
            let packets = self.packets[next].drain(..).collect();
            self.turn(next, Origin::Worker, packets);
        }
        panic!("packets go round in circles");
    }

    pub fn turn(&mut self, number: usize, origin: Origin, mut packets: Vec<PlainBuffer>) {
        let bench = &mut self.benches[number];
        for told in self.told[number].drain(..) {
            bench.worker.hear(bench.now, &told);
        }
        bench.worker.set_origin(origin);
        bench.worker.handle_burst(bench.now, &mut packets, &mut bench.io);
        bench.worker.poll(bench.now, &mut bench.io);
        self.sent.extend(bench.take_sent());
        for told in std::mem::take(&mut bench.io.told) {
            for (_, ring) in self.told.iter_mut().enumerate().filter(|(other, _)| *other != number) {
                ring.push_back(told);
            }
        }
        for (to, packet) in std::mem::take(&mut bench.io.handed) {
            self.packets[usize::from(to.0)].push_back(packet);
        }
    }

    /// Time goes by for all, who report their loads.
    pub fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 10 {
            for number in 0..self.benches.len() {
                let sent = self.benches[number].poll_after(10);
                self.sent.extend(sent);
                self.turn(number, Origin::Worker, Vec::new());
            }
            self.settle();
        }
        self.sent.clear();
    }

    /// A client's port opens a connection: the packet that the server gets.
    pub fn open(&mut self, to: &str, port: u16) -> Packet {
        let sent = self.handle(CLIENT_PORT, &from_client(port, to, 80, Some(SYN)).bytes());
        only(&sent, SERVER_PORT, TxClass::Service)
    }

    pub fn open_many(&mut self, to: &str, ports: std::ops::Range<u16>) -> Vec<Packet> {
        ports.map(|port| self.open(to, port)).collect()
    }

    /// How many flows each holds.
    pub fn flows(&mut self) -> Vec<u64> {
        self.benches.iter_mut().map(|bench| bench.status().flows).collect()
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.benches.iter().map(|bench| bench.count(counter)).sum()
    }

    /// How many more each holds than before.
    pub fn gained(&mut self, before: &[u64]) -> Vec<u64> {
        self.flows().iter().zip(before).map(|(now, before)| now - before).collect()
    }

    /// Connections whose hash is of a shard of this worker, opened through the virtual server that goes by it.
    pub fn fill(&mut self, worker: u16, count: usize) -> Vec<u16> {
        let workers = self.benches.len() as u16;
        let client: std::net::IpAddr = "10.1.0.50".parse().expect("an address");
        let is_its = |port: &u16| toeplitz().shard_of(client.into(), *port).0 % workers == worker;
        let ports: Vec<u16> = (30_000..).filter(is_its).take(count).collect();
        for port in &ports {
            self.open(HASHED, *port);
        }
        ports
    }
}
