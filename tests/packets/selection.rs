//! Each way to select a traffic manager, by packets in and packets out (REQ D2): workers that do everything, of which any
//! receives any packet. Wherever a packet comes in, it reaches its flow, and no two workers hold one.

use std::collections::VecDeque;
use std::sync::Arc;

use baton::base::counters::Counter;
use baton::base::ids::{PortId, WorkerId};
use baton::base::io::TxClass;
use baton::base::rng::Rng;
use baton::config::checked::{Checked, ChosenMethod, Class, HashMethod, Managers, Method};
use baton::config::snapshot::Snapshot;
use baton::distributor::tell::Told;
use baton::driver::memory::PlainBuffer;
use baton::wire::ipv4;
use baton::worker::Origin;
use baton::worker::message::{Command, Role};

use crate::bench::*;

/// A virtual server whose sources are translated, and one whose are not; neither waits for a peer.
const FULL_NAT: &str = "10.1.0.101";
const NAT: &str = "fd01::100";
/// One that keeps the hash of its source.
const HASHED: &str = "10.1.0.103";

/// Workers with rings between them.
struct Workers {
    benches: Vec<Bench>,
    packets: Vec<VecDeque<PlainBuffer>>,
    told: Vec<VecDeque<Told>>,
    sent: Vec<Sent>,
    rng: Rng,
}

impl Workers {
    /// So many, that all lead, where all virtual servers but the hashed one select by this.
    fn new(count: u16, method: Method, edit: impl FnOnce(&mut Checked)) -> Workers {
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

    /// A frame comes in by any worker, and all is done that follows. What leaves for the ends.
    fn handle(&mut self, port: PortId, frame: &[u8]) -> Vec<Sent> {
        let receiver = self.rng.usize(0..self.benches.len());
        self.turn(receiver, Origin::Port, vec![frame_received(port, frame)]);
        self.settle();
        self.sent.drain(..).filter(|sent| sent.class == TxClass::Service).collect()
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            let busy = |n: &usize| !self.packets[*n].is_empty() || !self.told[*n].is_empty();
            let Some(next) = (0..self.benches.len()).find(busy) else { return };
            let packets = self.packets[next].drain(..).collect();
            self.turn(next, Origin::Worker, packets);
        }
        panic!("packets go round in circles");
    }

    fn turn(&mut self, number: usize, origin: Origin, mut packets: Vec<PlainBuffer>) {
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
    fn pass(&mut self, millis: u64) {
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
    fn open(&mut self, to: &str, port: u16) -> Packet {
        let sent = self.handle(CLIENT_PORT, &from_client(port, to, 80, Some(SYN)).bytes());
        only(&sent, SERVER_PORT, TxClass::Service)
    }

    fn open_many(&mut self, to: &str, ports: std::ops::Range<u16>) -> Vec<Packet> {
        ports.map(|port| self.open(to, port)).collect()
    }

    /// How many flows each holds.
    fn flows(&mut self) -> Vec<u64> {
        self.benches.iter_mut().map(|bench| bench.status().flows).collect()
    }

    fn count(&self, counter: Counter) -> u64 {
        self.benches.iter().map(|bench| bench.count(counter)).sum()
    }

    /// How many more each holds than before.
    fn gained(&mut self, before: &[u64]) -> Vec<u64> {
        self.flows().iter().zip(before).map(|(now, before)| now - before).collect()
    }

    /// Connections whose hash is of a shard of this worker, opened through the virtual server that goes by it.
    fn fill(&mut self, worker: u16, count: usize) -> Vec<u16> {
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

const fn chosen(method: ChosenMethod) -> Method {
    Method::Chosen(method)
}

/// Whether each is within `off` of what is expected.
#[track_caller]
fn about(counts: &[u64], expected: &[u64], off: u64) {
    let near = counts.iter().zip(expected).all(|(count, expected)| count.abs_diff(*expected) <= off);
    assert!(near && counts.len() == expected.len(), "{counts:?}, and {expected:?} were expected");
}

#[test]
fn whatever_selects_both_directions_of_a_flow_reach_it_wherever_they_come_in() {
    for method in Method::ALL {
        for to in [FULL_NAT, NAT] {
            let mut workers = Workers::new(3, method, |_| {});
            let asked = workers.open_many(to, 2000..2090);
            let flows = workers.flows();
            assert_eq!(flows.iter().sum::<u64>(), 90, "{method:?}: {flows:?}");
            for (port, at_server) in (2000..).zip(&asked) {
                let sent = workers.handle(SERVER_PORT, &at_server.answer(Some(SYN_ACK)).bytes());
                let at_client = only(&sent, CLIENT_PORT, TxClass::Service);
                assert_eq!((at_client.to.1, at_client.from.1), (port, 80), "{method:?}");
                let sent = workers.handle(CLIENT_PORT, &from_client(port, to, 80, Some(ACK)).bytes());
                assert_eq!(only(&sent, SERVER_PORT, TxClass::Service).from, at_server.from, "{method:?}");
            }
            assert_eq!(workers.flows(), flows, "{method:?}: no packet began a second flow");
            assert_eq!(workers.count(Counter::DropNoFlow), 0, "{method:?}");
        }
    }
}

#[test]
fn hashes_send_together_what_they_say() {
    let spread = |hash, to, count: u16| {
        let mut workers = Workers::new(3, Method::Hash(hash), |_| {});
        workers.open_many(to, 2000..2000 + count);
        let all = workers.flows();
        all.into_iter().filter(|flows| *flows > 0).collect::<Vec<u64>>()
    };
    for to in [FULL_NAT, NAT] {
        // One shard has few source-NAT ports.
        assert_eq!(spread(HashMethod::SourceAddress, to, 100), [100], "one client");
        assert_eq!(spread(HashMethod::Destination, to, 100), [100], "one virtual server");
        for hash in [HashMethod::Source, HashMethod::Key] {
            about(&spread(hash, to, 300), &[100; 3], 40);
        }
    }
}

#[test]
fn round_robin_takes_turns() {
    let mut workers = Workers::new(3, chosen(ChosenMethod::RoundRobin), |_| {});
    workers.open_many(FULL_NAT, 2000..2300);
    // Each worker chooses for the keys that are at home with it, so each one's turns may be off by one.
    about(&workers.flows(), &[100; 3], 3);
}

#[test]
fn a_static_ratio_is_kept() {
    let ratio = |checked: &mut Checked| checked.distributor.ratio = vec![1, 0, 3];
    let mut workers = Workers::new(3, chosen(ChosenMethod::StaticRatio), ratio);
    workers.open_many(FULL_NAT, 2000..2400);
    let flows = workers.flows();
    about(&flows, &[100, 0, 300], 6);
    assert_eq!(flows[1], 0);
}

#[test]
fn a_dynamic_ratio_follows_idle_time() {
    let mut workers = Workers::new(3, chosen(ChosenMethod::DynamicRatio), |_| {});
    workers.benches[1].worker.set_busy(1000);
    workers.pass(1000);
    workers.open_many(FULL_NAT, 2000..2300);
    about(&workers.flows(), &[150, 0, 150], 6);
}

#[test]
fn least_connections_fills_up_who_has_few() {
    let mut workers = Workers::new(3, chosen(ChosenMethod::LeastConnections), |_| {});
    workers.fill(0, 60);
    workers.fill(2, 30);
    workers.pass(20);
    assert_eq!(workers.flows(), [60, 0, 30]);
    for port in 2000..2090 {
        workers.open(FULL_NAT, port);
        workers.pass(10);
    }
    about(&workers.flows(), &[60; 3], 2);
}

#[test]
fn packet_rate_prefers_the_quiet() {
    let mut workers = Workers::new(3, chosen(ChosenMethod::PacketRate), |_| {});
    let ports = workers.fill(1, 10);
    for _ in 0..100 {
        for port in &ports {
            workers.handle(CLIENT_PORT, &from_client(*port, HASHED, 80, Some(ACK)).bytes());
        }
        workers.pass(10);
    }
    let before = workers.flows();
    workers.open_many(FULL_NAT, 2000..2012);
    let gained = workers.gained(&before);
    // More would bring the others up to its rate.
    assert_eq!(gained[1], 0, "{gained:?}");
    about(&gained, &[6, 0, 6], 4);
}

#[test]
fn completion_rate_prefers_who_drops_least() {
    let mut workers = Workers::new(3, chosen(ChosenMethod::CompletionRate), |_| {});
    let ports = workers.fill(2, 50);
    for _ in 0..50 {
        for port in &ports[..5] {
            // Where nobody listens: the worker of its hash drops it.
            let stray = from_client(*port, HASHED, 81, Some(ACK));
            assert_eq!(workers.handle(CLIENT_PORT, &stray.bytes()).len(), 0);
        }
        workers.pass(10);
    }
    let before = workers.flows();
    workers.open_many(FULL_NAT, 2000..2040);
    let gained = workers.gained(&before);
    assert_eq!(gained[2], 0, "{gained:?}");
}

/// With this DSCP.
fn marked(packet: &Packet, dscp: u8) -> Vec<u8> {
    let mut frame = packet.bytes();
    if packet.to.0.is_ipv4() {
        frame[15] = dscp << 2;
        ipv4::Packet::new_unchecked(&mut frame[14..34]).fill_checksum();
    } else {
        let class = dscp << 2;
        frame[14] = 0x60 | class >> 4;
        frame[15] = class << 4;
    }
    frame
}

#[test]
fn a_class_of_packets_has_its_managers() {
    for to in [FULL_NAT, NAT] {
        let classes = |checked: &mut Checked| {
            let managers = [WorkerId(1), WorkerId(2)].into_iter().collect::<Managers>();
            checked.distributor.classes = vec![Class { dscp: vec![46, 34], managers }];
        };
        let mut workers = Workers::new(4, chosen(ChosenMethod::QualityOfService), classes);
        for port in 2000..2100 {
            let dscp = if port % 2 == 0 { 46 } else { 34 };
            let frame = marked(&from_client(port, to, 80, Some(SYN)), dscp);
            only(&workers.handle(CLIENT_PORT, &frame), SERVER_PORT, TxClass::Service);
        }
        about(&workers.flows(), &[0, 50, 50, 0], 4);
        assert_eq!(workers.flows()[0] + workers.flows()[3], 0);
        // What is in no class goes to who has the fewest connections of all.
        workers.pass(20);
        workers.open_many(to, 3000..3040);
        about(&workers.flows(), &[20, 50, 50, 20], 4);
    }
}

#[test]
fn a_ports_zone_has_its_managers() {
    let zones = |checked: &mut Checked| {
        for (worker, zone) in checked.lcores.workers.iter_mut().zip(["left", "right", "left", "right"]) {
            worker.zone = Some(zone.into());
        }
        checked.ports[usize::from(CLIENT_PORT.0)].zone = Some("right".into());
    };
    let mut workers = Workers::new(4, chosen(ChosenMethod::Topology), zones);
    workers.open_many(FULL_NAT, 2000..2100);
    about(&workers.flows(), &[0, 50, 0, 50], 4);
    assert_eq!(workers.flows()[0] + workers.flows()[2], 0);
}
