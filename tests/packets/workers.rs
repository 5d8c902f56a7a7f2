//! An appliance of several workers that do everything, of which any receives any packet; with rings between them, for
//! packets and for what they tell each other.

use std::collections::VecDeque;
use std::sync::Arc;

use baton::base::counters::Counter;
use baton::base::ids::{PortId, ShardId, WorkerId};
use baton::base::io::TxClass;
use baton::base::rng::Rng;
use baton::config::checked::{Checked, Method};
use baton::config::snapshot::Snapshot;
use baton::distributor::tell::Told;
use baton::driver::memory::PlainBuffer;
use baton::flow::Key;
use baton::worker::Origin;
use baton::worker::message::{Command, Event, Role};

use crate::bench::*;
use crate::moves::Moves;

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
    /// Shards that move, as tests say.
    pub moves: Moves,
    /// What each has said of other things.
    pub said: Vec<(usize, Event)>,
}

impl Workers {
    /// So many, that all lead, where all virtual servers but the hashed one select by this.
    pub fn new(count: u16, method: Method, edit: impl FnOnce(&mut Checked)) -> Workers {
        let mut workers = Workers::of_node(1, count, method, edit);
        workers.command(&Command::Role { epoch: 1, role: Role::Active, term: TERM });
        workers.benches.iter_mut().for_each(|bench| bench.worker.set_serves(true));
        workers
    }

    /// The same of a node that has no role yet.
    pub fn of_node(node: u16, count: u16, method: Method, edit: impl FnOnce(&mut Checked)) -> Workers {
        let mut checked = snapshot(node).checked.clone();
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
            bench
        };
        Workers {
            benches: (0..count).map(bench).collect(),
            packets: (0..count).map(|_| VecDeque::new()).collect(),
            told: (0..count).map(|_| VecDeque::new()).collect(),
            sent: Vec::new(),
            rng: Rng::with_seed(3),
            moves: Moves::new(count, 0, Vec::new()),
            said: Vec::new(),
        }
    }

    /// All of them hear this.
    pub fn command(&mut self, command: &Command) {
        self.benches.iter_mut().for_each(|bench| bench.command(command.clone()));
    }

    /// A shard goes to another worker, while between any two steps of it something else happens.
    pub fn move_shard(&mut self, shard: ShardId, to: u16, mut meanwhile: impl FnMut(&mut Workers)) {
        self.moves.ask(shard, WorkerId(to));
        self.settle_moves(&mut meanwhile);
    }

    /// Until no shard is on its way.
    pub fn settle_moves(&mut self, mut meanwhile: impl FnMut(&mut Workers)) {
        for _ in 0..1000 {
            if !self.moves.is_busy() {
                return;
            }
            self.moves.turn_now();
            for number in 0..self.benches.len() {
                self.turn(number, Origin::Worker, Vec::new());
            }
            self.settle();
            meanwhile(self);
        }
        panic!("a shard does not come to its new owner");
    }

    /// A frame comes in by this worker, and all is done that follows. What leaves for the ends.
    pub fn handle_at(&mut self, receiver: usize, port: PortId, frame: &[u8]) -> Vec<Sent> {
        self.turn(receiver, Origin::Port, vec![frame_received(port, frame)]);
        self.settle();
        self.take_sent(TxClass::Service)
    }

    /// The same, but what leaves waits to be taken.
    pub fn receive(&mut self, port: PortId, frame: &[u8]) {
        let receiver = self.rng.usize(0..self.benches.len());
        self.turn(receiver, Origin::Port, vec![frame_received(port, frame)]);
        self.settle();
    }

    /// What was sent in this name.
    pub fn take_sent(&mut self, class: TxClass) -> Vec<Sent> {
        let sent = std::mem::take(&mut self.sent);
        let (of_class, others) = sent.into_iter().partition(|sent| sent.class == class);
        self.sent = others;
        of_class
    }

    /// Which worker has a flow of this key; it has to be one at most.
    pub fn holder(&self, key: &Key) -> Option<usize> {
        let has = |bench: &Bench| bench.worker.flows().table.lookup(key).is_some();
        let holders: Vec<usize> = (0..self.benches.len()).filter(|n| has(&self.benches[*n])).collect();
        assert!(holders.len() <= 1, "{key} is with {holders:?}");
        holders.first().copied()
    }

    /// What this worker was told and has not heard: for tests to keep back.
    pub fn unheard(&mut self, number: usize) -> &mut VecDeque<Told> {
        &mut self.told[number]
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
        for command in self.moves.commands[number].drain(..) {
            bench.command(Command::Move(command));
        }
        bench.worker.set_origin(origin);
        bench.worker.handle_burst(bench.now, &mut packets, &mut bench.io);
        bench.worker.poll(bench.now, &mut bench.io);
        for event in bench.events() {
            match event {
                Event::Move(event) => self.moves.said.push_back((WorkerId(number as u16), event)),
                event => self.said.push((number, event)),
            }
        }
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
