//! A lone active worker: translation, first packets, drops.

use baton::base::counters::Counter;
use baton::base::io::{Punt, TxClass};
use baton::traffic::routes::NextHop;
use baton::wire::ipv4;
use baton::worker::message::{Command, Event, Role};

use crate::bench::*;

fn address(text: &str, port: u16) -> (std::net::IpAddr, u16) {
    (text.parse().expect("an address"), port)
}

#[test]
fn nat_translates_the_destination_there_and_the_source_back() {
    let mut bench = Bench::active();
    let syn = from_client(40000, "10.1.0.100", 80, Some(SYN));
    let out = only(&bench.handle(CLIENT_PORT, &syn.bytes()), SERVER_PORT, TxClass::Service);
    assert_eq!((out.from, out.to), (syn.from, address("10.2.0.10", 8080)));
    assert_eq!((out.from_mac, out.to_mac, out.hops), (VIRTUAL_MAC, SERVER_MAC, 63));
    assert_eq!(out.payload, syn.payload);
    let answer = out.answer(Some(SYN_ACK));
    let back = only(&bench.handle(SERVER_PORT, &answer.bytes()), CLIENT_PORT, TxClass::Service);
    assert_eq!((back.from, back.to), (syn.to, syn.from));
    assert_eq!((back.from_mac, back.to_mac), (VIRTUAL_MAC, CLIENT_MAC));
}

#[test]
fn full_nat_translates_both_ends_and_its_port_brings_the_answer_to_the_same_shard() {
    let mut bench = Bench::active();
    for port in 40000..40200 {
        let syn = from_client(port, "10.1.0.101", 80, Some(SYN));
        let out = only(&bench.handle(CLIENT_PORT, &syn.bytes()), SERVER_PORT, TxClass::Service);
        assert_eq!((out.from.0, out.to), (address("10.2.0.100", 0).0, address("10.2.0.10", 8080)));
        let answer = out.answer(Some(SYN_ACK));
        let back = only(&bench.handle(SERVER_PORT, &answer.bytes()), CLIENT_PORT, TxClass::Service);
        assert_eq!((back.from, back.to), (syn.to, syn.from));
    }
    assert_eq!(bench.count(Counter::FlowsMade), 200);
    assert_eq!(bench.status().flows, 200);
}

#[test]
fn ipv6_is_translated_as_ipv4_is() {
    let mut bench = Bench::active();
    let syn = from_client(40000, "fd01::100", 80, Some(SYN));
    let out = only(&bench.handle(CLIENT_PORT, &syn.bytes()), SERVER_PORT, TxClass::Service);
    assert_eq!((out.from, out.to, out.hops), (syn.from, address("fd02::10", 8080), 63));
    assert_eq!((out.from_mac, out.to_mac), (VIRTUAL_MAC_V6, SERVER_MAC));
    let back =
        only(&bench.handle(SERVER_PORT, &out.answer(Some(SYN_ACK)).bytes()), CLIENT_PORT, TxClass::Service);
    assert_eq!((back.from, back.to), (syn.to, syn.from));
}

#[test]
fn udp_needs_no_handshake_and_may_go_without_a_checksum() {
    let mut bench = Bench::active();
    let query = from_client(5353, "10.1.0.102", 53, None);
    let out = only(&bench.handle(CLIENT_PORT, &query.bytes()), SERVER_PORT, TxClass::Service);
    assert_eq!(out.to, address("10.2.0.10", 8080));
    let mut bare = query.bytes();
    bare[40..42].copy_from_slice(&[0, 0]);
    let sent = bench.handle(CLIENT_PORT, &bare);
    assert_eq!(sent[0].bytes[40..42], [0, 0], "no checksum stays no checksum");
    assert_eq!(bench.count(Counter::FlowsMade), 1);
}

#[test]
fn a_packet_in_the_middle_of_an_unknown_connection_is_dropped_and_not_reset() {
    let mut bench = Bench::active();
    for flags in [ACK, SYN_ACK, RST, FIN_ACK] {
        let packet = from_client(40000, "10.1.0.100", 80, Some(flags));
        assert!(bench.handle(CLIENT_PORT, &packet.bytes()).is_empty());
    }
    assert_eq!(bench.count(Counter::DropNoFlow), 4);
}

#[test]
fn each_packet_that_cannot_be_served_is_dropped_for_its_own_reason() {
    let mut bench = Bench::active();
    let closed = from_client(40000, "10.1.0.100", 81, Some(SYN));
    let foreign = Packet { to_mac: [2, 9, 9, 9, 9, 9], ..from_client(40000, "10.1.0.100", 80, Some(SYN)) };
    let tired = Packet { hops: 1, ..from_client(40001, "10.1.0.100", 80, Some(SYN)) };
    let far = Packet { from: address("192.0.2.1", 40000), ..from_client(1, "10.1.0.100", 80, Some(SYN)) };
    let mut ping = from_client(40000, "10.2.0.77", 53, None).bytes();
    (ping[21], ping[23]) = (8, 1); // a later fragment of ICMP
    ipv4::Packet::new_unchecked(&mut ping[14..]).fill_checksum();
    let mut broken = from_client(40002, "10.1.0.100", 80, Some(SYN)).bytes();
    broken[24] ^= 0x55; // the header's checksum
    let own = from_client(40000, "10.1.0.21", 80, Some(SYN));
    for (frame, counter) in [
        (closed.bytes(), Counter::DropNoListener),
        (foreign.bytes(), Counter::DropOtherHost),
        (tired.bytes(), Counter::DropHopsExceeded),
        (far.bytes(), Counter::DropNoRoute),
        (own.bytes(), Counter::DropNoListener),
        (ping, Counter::DropFragmentIcmp),
        (broken, Counter::DropChecksum),
        (vec![0; 9], Counter::DropEthernetTruncated),
    ] {
        let before = bench.count(counter);
        assert!(bench.handle(CLIENT_PORT, &frame).is_empty(), "{counter:?}");
        assert_eq!(bench.count(counter), before + 1, "{counter:?}");
    }
}

#[test]
fn a_standby_forwards_nothing_but_punts_to_its_own_master() {
    let mut bench = Bench::new(1, 0, 1);
    bench.know_neighbours();
    let syn = from_client(40000, "10.1.0.100", 80, Some(SYN));
    assert!(bench.handle(CLIENT_PORT, &syn.bytes()).is_empty());
    assert_eq!(bench.count(Counter::DropStandby), 1);
    let arp = [
        &[0xff; 6][..],
        &CLIENT_MAC,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &CLIENT_MAC,
        &[10, 1, 0, 50],
        &[0; 6],
        &[10, 1, 0, 21],
    ]
    .concat();
    assert!(bench.handle(CLIENT_PORT, &arp).is_empty());
    assert_eq!(bench.io.punted, vec![(Punt::Master, arp)]);
}

#[test]
fn packets_wait_for_a_neighbour_and_leave_when_it_is_known() {
    let mut bench = Bench::new(1, 0, 1);
    bench.command(Command::Role { epoch: 1, role: Role::Active, term: TERM });
    let syn = from_client(40000, "10.1.0.100", 80, Some(SYN));
    assert!(bench.handle(CLIENT_PORT, &syn.bytes()).is_empty());
    let hop = NextHop { port: SERVER_PORT, address: address("10.2.0.10", 0).0 };
    let asked = bench.events().iter().any(|event| matches!(event, Event::Resolve { hop: h } if *h == hop));
    assert!(asked, "the master is asked for the server");
    bench.command(Command::Neighbour { hop, link: Some(SERVER_MAC) });
    let out = only(&bench.take_sent(), SERVER_PORT, TxClass::Service);
    assert_eq!(out.to_mac, SERVER_MAC);
}

#[test]
fn a_new_connection_from_the_ports_of_an_ended_one_is_a_new_flow() {
    let mut bench = Bench::active();
    let client = |flags| from_client(40000, "10.1.0.101", 80, Some(flags));
    let out = only(&bench.handle(CLIENT_PORT, &client(SYN).bytes()), SERVER_PORT, TxClass::Service);
    bench.handle(SERVER_PORT, &out.answer(Some(SYN_ACK)).bytes());
    bench.handle(CLIENT_PORT, &client(ACK).bytes());
    bench.handle(CLIENT_PORT, &client(FIN_ACK).bytes());
    bench.handle(SERVER_PORT, &out.answer(Some(FIN_ACK)).bytes());
    let again = only(&bench.handle(CLIENT_PORT, &client(SYN).bytes()), SERVER_PORT, TxClass::Service);
    assert_ne!(again.from.1, out.from.1, "the port of the ended flow rests");
    assert_eq!(bench.count(Counter::FlowsReopened), 1);
    assert_eq!(bench.status().flows, 1);
}

#[test]
fn idle_flows_leave_when_the_sweep_names_them_and_the_worker_agrees() {
    let mut bench = Bench::active();
    let syn = from_client(40000, "10.1.0.100", 80, Some(SYN));
    bench.handle(CLIENT_PORT, &syn.bytes());
    let (place, _) = bench.worker.flows().table.iter().next().expect("the flow");
    bench.command(Command::Expire { flow: place });
    assert_eq!(bench.status().flows, 1, "it is fresh");
    bench.poll_after(3_600_000);
    bench.command(Command::Expire { flow: place });
    assert_eq!(bench.status().flows, 0);
    assert_eq!(bench.count(Counter::FlowsExpired), 1);
}

#[test]
fn a_packet_of_another_workers_shard_is_handed_over_and_served_there() {
    let mut workers = [Bench::new(1, 0, 2), Bench::new(1, 1, 2)];
    for bench in &mut workers {
        bench.know_neighbours();
        bench.command(Command::Role { epoch: 1, role: Role::Active, term: TERM });
    }
    let mut handed = 0;
    for port in 40000..40064 {
        let syn = from_client(port, "10.1.0.100", 80, Some(SYN));
        let mut sent = workers[0].handle(CLIENT_PORT, &syn.bytes());
        for (to, packet) in std::mem::take(&mut workers[0].io.handed) {
            assert_eq!(to.0, 1);
            handed += 1;
            let other = &mut workers[1];
            other.worker.handle_burst(other.now, &mut vec![packet], &mut other.io);
            assert!(other.io.handed.is_empty(), "it is not handed back");
            sent.extend(other.take_sent());
        }
        only(&sent, SERVER_PORT, TxClass::Service);
    }
    assert!((10..=54).contains(&handed), "about half: {handed}");
}
