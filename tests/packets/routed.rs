//! Packets of no flow from and to real servers' own addresses: routed past the flows (REQ D10).

use std::net::IpAddr;
use std::sync::Arc;

use baton::base::counters::{Counter, Counters};
use baton::base::ids::{PortId, WorkerId};
use baton::base::io::{Punt, TxClass};
use baton::base::time::Instant;
use baton::config::snapshot::Snapshot;
use baton::distributor::spread::{Distributor, DistributorSetup};
use baton::driver::memory::PlainBuffer;
use baton::traffic::routes::NextHop;
use baton::wire::ipv4;
use baton::worker::Origin;
use baton::worker::message::{Command, Event, Role};

use crate::bench::*;
use crate::pieces::{Host, fragment_of, pieces};

const FAMILIES: [(&str, &str); 2] = [("10.1.0.50", "10.2.0.10"), ("fd01::50", "fd02::10")];
const GRE: u8 = 47;

/// The bench's configuration, which routes to servers.
fn routing() -> Arc<Snapshot> {
    let mut checked = snapshot(1).checked.clone();
    checked.distributor.route_to_servers = true;
    Arc::new(Snapshot { generation: 1, checked })
}

fn active() -> Bench {
    Bench::of(routing(), 0, 1).lead()
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A packet between any two, to the virtual router, with 64 hops.
fn between(from: (&str, u16), to: (&str, u16), flags: Option<u8>) -> Packet {
    let from_mac =
        if from.0.starts_with("10.2") || from.0.starts_with("fd02") { SERVER_MAC } else { CLIENT_MAC };
    let to_mac = if from.0.contains(':') { VIRTUAL_MAC_V6 } else { VIRTUAL_MAC };
    let (from, to) = ((ip(from.0), from.1), (ip(to.0), to.1));
    Packet { from_mac, to_mac, from, to, flags, hops: 64, payload: b"hello".to_vec() }
}

/// A packet of a protocol without ports, with so many bytes of data.
fn bare(from: &str, to: &str, protocol: u8, kind: u8, len: usize) -> Vec<u8> {
    let mut frame = Packet { payload: vec![9; len], ..between((from, 0), (to, 0), None) }.bytes();
    if from.contains(':') {
        frame[20] = protocol;
        frame[54..62].copy_from_slice(&[kind, 0, 1, 2, 3, 4, 5, 6]);
    } else {
        frame[23] = protocol;
        ipv4::Packet::new_unchecked(&mut frame[14..34]).fill_checksum();
        frame[34..42].copy_from_slice(&[kind, 0, 1, 2, 3, 4, 5, 6]);
    }
    frame
}

fn echo(from: &str, to: &str, len: usize) -> Vec<u8> {
    if from.contains(':') { bare(from, to, 58, 128, len) } else { bare(from, to, 1, 8, len) }
}

/// One of each kind.
fn kinds(from: &str, to: &str) -> Vec<Vec<u8>> {
    vec![
        between((from, 4000), (to, 22), Some(SYN)).bytes(),
        between((from, 22), (to, 4000), Some(ACK)).bytes(),
        between((from, 4000), (to, 8080), Some(FIN_ACK)).bytes(),
        between((from, 4000), (to, 161), None).bytes(),
        echo(from, to, 56),
        bare(from, to, GRE, 0, 100),
    ]
}

/// The frame as a router sends it on: to this link address, with one hop less, and nothing else changed.
fn sent_on(frame: &[u8], to_mac: [u8; 6]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&to_mac);
    if frame[12] == 0x86 {
        frame[6..12].copy_from_slice(&VIRTUAL_MAC_V6);
        frame[21] -= 1;
    } else {
        frame[6..12].copy_from_slice(&VIRTUAL_MAC);
        frame[22] -= 1;
        ipv4::Packet::new_unchecked(&mut frame[14..34]).fill_checksum();
    }
    frame
}

#[track_caller]
fn is_sent_on(sent: &[Sent], port: PortId, frame: &[u8], to_mac: [u8; 6]) {
    let [one] = sent else { panic!("one packet, not {}", sent.len()) };
    assert_eq!((one.port, one.class), (port, TxClass::Service));
    assert_eq!(one.bytes, sent_on(frame, to_mac));
}

#[test]
fn whatever_a_client_sends_to_a_server_and_a_server_to_a_client_goes_there_as_it_is() {
    let mut bench = active();
    let mut packets = 0;
    for (client, server) in FAMILIES {
        for frame in kinds(client, server) {
            is_sent_on(&bench.handle(CLIENT_PORT, &frame), SERVER_PORT, &frame, SERVER_MAC);
            packets += 1;
        }
        for frame in kinds(server, client) {
            is_sent_on(&bench.handle(SERVER_PORT, &frame), CLIENT_PORT, &frame, CLIENT_MAC);
            packets += 1;
        }
    }
    assert_eq!((bench.count(Counter::Routed), bench.count(Counter::RxPackets)), (packets, packets));
    assert_eq!((bench.status().flows, bench.io.punted.len()), (0, 0));
    assert_eq!(bench.poll_after(1000).len(), 0, "a peer hears nothing of it");
}

#[test]
fn to_the_ports_own_link_address_too_and_back_by_the_port_it_came_by() {
    let mut bench = active();
    for (client, server) in FAMILIES {
        for mut frame in kinds(client, server) {
            frame[..6].copy_from_slice(&OWN_MACS[0]);
            is_sent_on(&bench.handle(CLIENT_PORT, &frame), SERVER_PORT, &frame, SERVER_MAC);
            // By a port of another network.
            frame[..6].copy_from_slice(&OWN_MACS[1]);
            is_sent_on(&bench.handle(SERVER_PORT, &frame), SERVER_PORT, &frame, SERVER_MAC);
        }
    }
}

#[test]
fn unless_configured_nothing_is_routed() {
    let mut bench = Bench::active();
    for (client, server) in FAMILIES {
        for frame in kinds(client, server) {
            assert!(bench.handle(CLIENT_PORT, &frame).is_empty());
        }
        for frame in kinds(server, client) {
            assert!(bench.handle(SERVER_PORT, &frame).is_empty());
        }
    }
    assert_eq!(bench.io.punted.len(), 4, "echo requests");
    let counts = [Counter::DropNoFlow, Counter::DropProtocol, Counter::Routed].map(|what| bench.count(what));
    assert_eq!(counts, [16, 4, 0]);
}

#[test]
fn what_has_no_server_at_either_end_is_not_routed() {
    let mut bench = active();
    for (client, other) in [("10.1.0.50", "10.2.0.11"), ("fd01::50", "fd02::11")] {
        for frame in kinds(client, other) {
            assert!(bench.handle(CLIENT_PORT, &frame).is_empty());
        }
    }
    assert_eq!(bench.count(Counter::Routed), 0);
}

#[test]
fn a_standby_routes_nothing() {
    let mut bench = Bench::of(routing(), 0, 1);
    bench.know_neighbours();
    let mut frames = 0;
    for (client, server) in FAMILIES {
        let datagram = Packet { payload: vec![1; 2000], ..between((client, 5), (server, 6), None) };
        let large = [datagram.bytes(), echo(client, server, 2000)];
        let pieces = large.iter().flat_map(|frame| pieces(frame, 7, 1024));
        for frame in kinds(client, server).into_iter().chain(pieces) {
            assert!(bench.handle(CLIENT_PORT, &frame).is_empty());
            frames += 1;
        }
    }
    assert_eq!((bench.count(Counter::DropStandby), bench.io.punted.len()), (frames, 0));
}

#[test]
fn the_last_hop_is_not_taken() {
    let mut bench = active();
    for (client, server) in FAMILIES {
        let at = if client.contains(':') { 21 } else { 22 };
        for mut frame in kinds(client, server) {
            for hops in [0, 1, 2] {
                frame[at] = hops;
                if at == 22 {
                    ipv4::Packet::new_unchecked(&mut frame[14..34]).fill_checksum();
                }
                let sent = bench.handle(CLIENT_PORT, &frame);
                if hops < 2 {
                    assert!(sent.is_empty());
                } else {
                    is_sent_on(&sent, SERVER_PORT, &frame, SERVER_MAC);
                }
            }
        }
    }
    assert_eq!((bench.count(Counter::DropHopsExceeded), bench.count(Counter::Routed)), (24, 12));
}

#[test]
fn a_flow_has_its_packets_first() {
    let mut bench = active();
    let asked = from_client(5000, "fd01::100", 80, Some(SYN));
    let at_server = only(&bench.handle(CLIENT_PORT, &asked.bytes()), SERVER_PORT, TxClass::Service);
    let answer = at_server.answer(Some(SYN_ACK));
    let at_client = only(&bench.handle(SERVER_PORT, &answer.bytes()), CLIENT_PORT, TxClass::Service);
    assert_eq!((at_client.from, at_client.to), (asked.to, asked.from));
    assert_eq!(bench.count(Counter::Routed), 0);
    // To another port of the client it is not the flow's.
    let other = Packet { to: (answer.to.0, 5001), ..answer }.bytes();
    is_sent_on(&bench.handle(SERVER_PORT, &other), CLIENT_PORT, &other, CLIENT_MAC);
    assert_eq!(bench.count(Counter::Routed), 1);
}

/// Addresses of the appliance: what becomes of a datagram to each.
const OURS: [(&str, Counter); 7] = [
    ("10.1.0.21", Counter::DropNoListener),
    ("10.2.0.21", Counter::DropNoListener),
    ("fd02::21", Counter::DropNoListener),
    ("10.2.0.1", Counter::DropNoListener),
    ("10.1.0.100", Counter::DropNoListener),
    ("10.2.0.100", Counter::DropNoListener),
    ("fd02::100", Counter::DropNoListener),
];

#[test]
fn what_is_for_the_appliance_itself_is_not_routed() {
    let mut bench = active();
    for (number, (to, counter)) in (1..).zip(OURS) {
        let server = if to.contains(':') { "fd02::10" } else { "10.2.0.10" };
        let frame = between((server, 9), (to, 9), Some(ACK)).bytes();
        assert!(bench.handle(SERVER_PORT, &frame).is_empty());
        assert_eq!(bench.count(counter), number, "{to}");
        assert!(bench.handle(SERVER_PORT, &echo(server, to, 56)).is_empty());
        assert_eq!(bench.io.punted.pop().map(|(to, _)| to), Some(Punt::Master), "{to}");
    }
    assert_eq!(bench.count(Counter::Routed), 0);
}

#[test]
fn a_packet_with_an_address_of_ours_as_its_source_is_not_routed() {
    let mut bench = active();
    for from in ["10.1.0.21", "10.2.0.1", "10.1.0.100", "10.2.0.100"] {
        for frame in kinds(from, "10.2.0.10") {
            assert!(bench.handle(CLIENT_PORT, &frame).is_empty(), "{from}");
        }
    }
    assert_eq!(bench.count(Counter::Routed), 0);
}

#[test]
fn what_is_of_one_link_alone_stays_there() {
    let mut bench = active();
    // A server asks for a router's address: of its own global one, unicast.
    bench.handle(SERVER_PORT, &bare("fd02::10", "fe80::1", 58, 135, 24));
    bench.handle(SERVER_PORT, &bare("fd02::10", "fd01::50", 58, 136, 24));
    bench.handle(SERVER_PORT, &echo("fd02::10", "fe80::1", 56));
    assert_eq!(std::mem::take(&mut bench.io.punted).len(), 3);
    for (from, to) in [
        ("10.2.0.10", "169.254.0.1"),
        ("169.254.0.1", "10.2.0.10"),
        ("10.2.0.10", "255.255.255.255"),
        ("10.2.0.10", "224.0.0.5"),
        ("10.2.0.10", "0.0.0.0"),
        ("10.2.0.10", "127.0.0.1"),
        ("fd02::10", "fe80::1"),
        ("fe80::1", "fd02::10"),
        ("fd02::10", "::1"),
        ("fd02::10", "ff02::1"),
    ] {
        bench.handle(SERVER_PORT, &between((from, 1), (to, 2), None).bytes());
        bench.handle(SERVER_PORT, &bare(from, to, GRE, 0, 40));
    }
    // To a whole link, or to one of its VLANs.
    let mut group = between(("10.1.0.50", 1), ("10.2.0.10", 2), None).bytes();
    group[..6].copy_from_slice(&[0xff; 6]);
    let mut group_echo = echo("10.1.0.50", "10.2.0.10", 56);
    group_echo[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 1]);
    for mut frame in kinds("10.1.0.50", "10.2.0.10") {
        frame.splice(12..12, [0x81, 0, 0, 7]);
        bench.handle(CLIENT_PORT, &frame);
    }
    bench.handle(CLIENT_PORT, &group);
    bench.handle(CLIENT_PORT, &group_echo);
    assert_eq!((bench.count(Counter::Routed), bench.take_sent().len()), (0, 0));
}

#[test]
fn packets_wait_for_a_neighbour_that_is_asked_for() {
    let mut bench = active();
    let frame = between(("10.2.0.10", 1), ("10.1.0.77", 2), None).bytes();
    assert!(bench.handle(SERVER_PORT, &frame).is_empty());
    let hop = NextHop { port: CLIENT_PORT, address: ip("10.1.0.77") };
    let asked = bench
        .events()
        .iter()
        .filter(|event| matches!(event, Event::Resolve { hop: of } if *of == hop))
        .count();
    assert_eq!(asked, 1);
    let link = [2, 0, 0, 0, 1, 77];
    bench.command(Command::Neighbour { hop, link: Some(link) });
    is_sent_on(&bench.take_sent(), CLIENT_PORT, &frame, link);
    is_sent_on(&bench.handle(SERVER_PORT, &frame), CLIENT_PORT, &frame, link);
}

#[test]
fn nothing_is_routed_where_no_route_leads_or_the_members_are_among_themselves() {
    let mut bench = active();
    for (number, to) in (1..).zip(["192.0.2.1", "10.9.0.2"]) {
        assert!(bench.handle(SERVER_PORT, &between(("10.2.0.10", 1), (to, 7300), None).bytes()).is_empty());
        assert!(bench.handle(SERVER_PORT, &echo("10.2.0.10", to, 56)).is_empty());
        assert_eq!(bench.count(Counter::DropNoRoute), 2 * number);
    }
}

#[test]
fn what_is_larger_than_the_next_link_carries_is_dropped() {
    let mut bench = active();
    for (client, server) in FAMILIES {
        let head = if client.contains(':') { 48 } else { 28 };
        for (len, fits) in [(1500 - head, true), (1501 - head, false)] {
            let datagram = Packet { payload: vec![1; len], ..between((client, 5), (server, 6), None) };
            for frame in [datagram.bytes(), echo(client, server, len)] {
                assert_eq!(bench.handle(CLIENT_PORT, &frame).len(), usize::from(fits));
            }
        }
    }
    assert_eq!((bench.count(Counter::DropTooLarge), bench.count(Counter::Routed)), (4, 4));
}

#[test]
fn fragments_go_the_same_way_and_are_whole_at_the_other_end() {
    for (client, server) in FAMILIES {
        for (from, to, port, out, mac) in [
            (client, server, CLIENT_PORT, SERVER_PORT, SERVER_MAC),
            (server, client, SERVER_PORT, CLIENT_PORT, CLIENT_MAC),
        ] {
            let mut bench = active();
            let payload: Vec<u8> = (0..4000).map(|at| (at / 7) as u8).collect();
            let datagram = Packet { payload, ..between((from, 5), (to, 6), None) };
            for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
                let there = pieces(&datagram.bytes(), 0xabc, 1024);
                let sent: Vec<_> = order.iter().flat_map(|at| bench.handle(port, &there[*at])).collect();
                let mut host = Host::default();
                let whole: Vec<_> = sent.iter().filter_map(|sent| host.came(&sent.bytes)).collect();
                let read = Packet::read(&whole[0]);
                assert_eq!((read.from, read.to, read.hops), (datagram.from, datagram.to, 63));
                assert_eq!(read.payload, datagram.payload);
                assert!(sent.iter().all(|sent| sent.port == out && sent.bytes[..6] == mac));
            }
            // No flow can have these, so none of them waits for another.
            for whole in [echo(from, to, 4000), bare(from, to, GRE, 0, 4000)] {
                for piece in pieces(&whole, 0xdef, 1024).iter().rev() {
                    is_sent_on(&bench.handle(port, piece), out, piece, mac);
                }
            }
            assert_eq!((bench.count(Counter::Routed), bench.io.punted.len()), (20, 0));
        }
    }
}

/// Workers, and perhaps a distributor before them.
struct Divided {
    workers: Vec<Bench>,
    distributor: Option<(Distributor, MemoryIo, Arc<Counters>)>,
}

impl Divided {
    fn new(count: u16, distributes: bool) -> Divided {
        let snapshot = routing();
        let workers = (0..count).map(|id| Bench::of(Arc::clone(&snapshot), id, count).lead()).collect();
        let distributor = distributes.then(|| {
            let counters = Arc::new(Counters::default());
            let setup = DistributorSetup {
                snapshot,
                workers: count,
                link_addresses: OWN_MACS.to_vec(),
                toeplitz: toeplitz(),
                me: WorkerId(count),
                hash_seed: 5,
                now: Instant::ZERO,
                counters: Arc::clone(&counters),
            };
            (Distributor::new(setup).expect("memory"), MemoryIo::default(), counters)
        });
        Divided { workers, distributor }
    }

    /// A frame comes to the distributor, else to this worker. Which worker sent what, and how often it changed hands.
    fn handle(&mut self, receiver: usize, port: PortId, frame: &[u8]) -> (Vec<(usize, Sent)>, usize) {
        let mut burst = vec![frame_received(port, frame)];
        let mut handed = match &mut self.distributor {
            Some((distributor, io, _)) => {
                distributor.handle_burst(Instant::ZERO, &mut burst, io);
                assert!(io.sent.is_empty(), "it owns no queue to send by");
                std::mem::take(&mut io.handed)
            }
            None => self.turn(receiver, Origin::Port, burst),
        };
        let (mut hands, mut origin) =
            (0, if self.distributor.is_some() { Origin::Distributor } else { Origin::Worker });
        while !handed.is_empty() {
            hands += 1;
            assert!(hands < 5, "packets go round in circles");
            handed = handed
                .into_iter()
                .flat_map(|(to, packet)| self.turn(usize::from(to.0), origin, vec![packet]))
                .collect();
            origin = Origin::Worker;
        }
        let sent = self.workers.iter_mut().enumerate();
        (
            sent.flat_map(|(at, bench)| bench.take_sent().into_iter().map(move |sent| (at, sent))).collect(),
            hands,
        )
    }

    fn turn(
        &mut self,
        at: usize,
        origin: Origin,
        mut burst: Vec<PlainBuffer>,
    ) -> Vec<(WorkerId, PlainBuffer)> {
        let bench = &mut self.workers[at];
        bench.worker.set_origin(origin);
        bench.worker.handle_burst(bench.now, &mut burst, &mut bench.io);
        std::mem::take(&mut bench.io.handed)
    }

    fn count(&self, counter: Counter) -> u64 {
        let workers = self.workers.iter().map(|bench| bench.count(counter)).sum::<u64>();
        workers + self.distributor.as_ref().map_or(0, |(_, _, counters)| counters.value(counter))
    }

    fn punted(&mut self) -> usize {
        let workers = self.workers.iter_mut().map(|bench| &mut bench.io);
        let all = workers.chain(self.distributor.iter_mut().map(|(_, io, _)| io));
        all.map(|io| std::mem::take(&mut io.punted).len()).sum()
    }
}

#[test]
fn several_workers_route_each_pair_of_hosts_at_one_of_them_wherever_packets_come_in() {
    for distributes in [false, true] {
        let mut divided = Divided::new(3, distributes);
        let mut senders = [0; 3];
        for (client, server) in FAMILIES {
            for last in 60..90 {
                let client = client.replace("50", &last.to_string());
                let mut frames = kinds(&client, server);
                let mut by_pair = Vec::new();
                frames.extend(pieces(&echo(&client, server, 3000), 7, 1024));
                for frame in frames {
                    let by: Vec<usize> = (0..3)
                        .map(|receiver| {
                            let (sent, hands) = divided.handle(receiver, CLIENT_PORT, &frame);
                            let [(by, sent)] = &sent[..] else { panic!("one packet, not {}", sent.len()) };
                            is_sent_on(std::slice::from_ref(sent), SERVER_PORT, &frame, SERVER_MAC);
                            assert!(hands <= 1);
                            *by
                        })
                        .collect();
                    assert!(by.iter().all(|one| *one == by[0]), "one worker, whichever received it");
                    let protocol = if client.contains(':') { frame[20] } else { frame[23] };
                    if !matches!(protocol, 6 | 17) {
                        by_pair.push(by[0]);
                    }
                    senders[by[0]] += 1;
                }
                assert!(by_pair.len() > 2 && by_pair.iter().all(|one| *one == by_pair[0]), "{by_pair:?}");
            }
        }
        assert!(senders.iter().all(|count| *count > 100), "{senders:?}");
        assert_eq!(divided.punted(), 0);
    }
}

#[test]
fn datagrams_in_fragments_are_routed_through_several_workers() {
    for distributes in [false, true] {
        for (client, server) in FAMILIES {
            let mut divided = Divided::new(3, distributes);
            let mut host = Host::default();
            let mut whole = 0;
            for port in 6000..6040 {
                let datagram =
                    Packet { payload: vec![port as u8; 3000], ..between((client, port), (server, 6), None) };
                for (at, piece) in pieces(&datagram.bytes(), u32::from(port), 1024).iter().enumerate().rev() {
                    let (sent, hands) = divided.handle(at, CLIENT_PORT, piece);
                    assert!(hands <= 2);
                    for (_, sent) in sent {
                        assert!(fragment_of(&sent.bytes).len > 0);
                        let Some(came) = host.came(&sent.bytes) else { continue };
                        let read = Packet::read(&came);
                        assert_eq!((read.from, read.to, read.hops), (datagram.from, datagram.to, 63));
                        assert_eq!(read.payload, datagram.payload);
                        whole += 1;
                    }
                }
            }
            assert_eq!((whole, host.waiting(), divided.count(Counter::Routed)), (40, 0, 120));
        }
    }
}

#[test]
fn what_is_for_the_appliance_itself_stays_with_it_whichever_lcore_receives_it() {
    for distributes in [false, true] {
        let mut divided = Divided::new(2, distributes);
        for (number, (to, counter)) in (1..).zip(OURS) {
            let server = if to.contains(':') { "fd02::10" } else { "10.2.0.10" };
            let datagram = between((server, 9), (to, 9), None);
            for receiver in 0..2 {
                assert!(divided.handle(receiver, SERVER_PORT, &datagram.bytes()).0.is_empty());
                assert!(divided.handle(receiver, SERVER_PORT, &echo(server, to, 56)).0.is_empty());
                for piece in pieces(&echo(server, to, 3000), 7, 1024) {
                    assert!(divided.handle(receiver, SERVER_PORT, &piece).0.is_empty());
                }
            }
            assert_eq!((divided.count(counter), divided.punted()), (2 * number, 8), "{to}");
        }
        assert_eq!(divided.count(Counter::Routed), 0);
    }
}

#[test]
fn a_standby_of_divided_roles_routes_nothing() {
    let mut divided = Divided::new(2, true);
    for bench in &mut divided.workers {
        bench.command(Command::Role { epoch: 2, role: Role::Standby, term: TERM });
    }
    let frames: Vec<_> = FAMILIES.iter().flat_map(|(client, server)| kinds(client, server)).collect();
    for frame in &frames {
        assert!(divided.handle(0, CLIENT_PORT, frame).0.is_empty());
    }
    assert_eq!((divided.count(Counter::DropStandby), divided.punted()), (frames.len() as u64, 0));
}
