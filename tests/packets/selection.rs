//! Each way to select a traffic manager, by packets in and packets out (REQ D2): workers that do everything, of which any
//! receives any packet. Wherever a packet comes in, it reaches its flow, and no two workers hold one.

use baton::base::counters::Counter;
use baton::base::ids::WorkerId;
use baton::base::io::TxClass;
use baton::config::checked::{Checked, ChosenMethod, Class, HashMethod, Managers, Method};
use baton::wire::ipv4;

use crate::bench::*;
use crate::workers::*;

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

/// A connection of each worker, with packets that come in by one port of which one worker alone has the queue: it hands over
/// what the others' are.
fn one_receives(workers: &mut Workers, receiver: usize, rounds: usize, each: &[(u16, usize, usize)]) {
    for _ in 0..rounds {
        for (port, sound, strays) in each {
            for _ in 0..*sound {
                let packet = from_client(*port, HASHED, 80, Some(ACK));
                assert_eq!(workers.handle_at(receiver, CLIENT_PORT, &packet.bytes()).len(), 1);
            }
            for _ in 0..*strays {
                let stray = from_client(*port, HASHED, 81, Some(ACK));
                assert_eq!(workers.handle_at(receiver, CLIENT_PORT, &stray.bytes()).len(), 0);
            }
        }
        workers.pass(10);
    }
}

#[test]
fn packets_that_a_worker_hands_over_do_not_count_for_its_packet_rate() {
    let mut workers = Workers::new(3, chosen(ChosenMethod::PacketRate), |_| {});
    let ports: Vec<_> = workers.fill(1, 10).into_iter().map(|port| (port, 1, 0)).collect();
    one_receives(&mut workers, 0, 100, &ports);
    let before = workers.flows();
    workers.open_many(FULL_NAT, 2000..2012);
    let gained = workers.gained(&before);
    assert_eq!(gained[1], 0, "{gained:?}");
    about(&gained, &[6, 0, 6], 4);
}

#[test]
fn packets_that_a_worker_hands_over_do_not_count_for_its_completion_rate() {
    let mut workers = Workers::new(3, chosen(ChosenMethod::CompletionRate), |_| {});
    let ports = [0, 1, 2].map(|worker| workers.fill(worker, 1)[0]);
    // The last one drops all of its own, which are few of those that come in by it; the second one the smallest part.
    one_receives(&mut workers, 2, 100, &[(ports[0], 10, 5), (ports[1], 20, 5), (ports[2], 0, 5)]);
    let before = workers.flows();
    workers.open_many(FULL_NAT, 2000..2040);
    assert_eq!(workers.gained(&before), [0, 40, 0]);
}

#[test]
fn first_packets_that_are_sent_count_for_the_completion_rate_as_others_do() {
    let mut workers = Workers::new(3, chosen(ChosenMethod::CompletionRate), |_| {});
    // Where keys are remembered, every first packet goes the general way.
    workers.open_many(FULL_NAT, 2000..2010);
    let ports = [1, 2].map(|worker| workers.fill(worker, 1)[0]);
    one_receives(&mut workers, 0, 100, &[(ports[0], 10, 5), (ports[1], 10, 5)]);
    workers.fill(0, 300);
    workers.pass(20);
    let before = workers.flows();
    workers.open_many(FULL_NAT, 3000..3040);
    assert_eq!(workers.gained(&before), [40, 0, 0]);
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
