//! First packets that come together (REQ C1, C3, C4, E7): each makes its flow, as it would alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use baton::base::counters::Counter;
use baton::base::ids::{NodeId, ServerId, WorkerId};
use baton::base::io::TxClass;
use baton::config::checked::Server;
use baton::config::snapshot::Snapshot;
use baton::flow::key::Address;
use baton::flow::toeplitz::{MICROSOFT_KEY, Toeplitz};
use baton::worker::message::{Command, Role};

use crate::bench::*;

/// Gives the worker all of these in one burst; what left.
fn together(bench: &mut Bench, packets: &[Packet]) -> Vec<Packet> {
    let mut burst: Vec<_> =
        packets.iter().map(|packet| frame_received(CLIENT_PORT, &packet.bytes())).collect();
    bench.worker.handle_burst(bench.now, &mut burst, &mut bench.io);
    let sent = bench.take_sent();
    let of_services = sent.iter().filter(|sent| sent.class == TxClass::Service);
    of_services.map(|sent| Packet::read(&sent.bytes)).collect()
}

fn syn(port: u16, to: &str) -> Packet {
    Packet { payload: vec![0; 6], ..from_client(port, to, 80, Some(SYN)) }
}

fn query(port: u16) -> Packet {
    Packet { payload: vec![0; 18], ..from_client(port, "10.1.0.102", 53, None) }
}

#[test]
fn first_packets_of_one_burst_make_one_flow_each_and_answers_find_them() {
    let mut bench = Bench::active();
    let mut packets = Vec::new();
    for n in 0..50 {
        packets.push(syn(20_000 + n, "10.1.0.101"));
        packets.push(syn(20_000 + n, "10.1.0.103"));
        packets.push(query(20_000 + n));
        // Sent again at once: it belongs to the flow that the first one makes.
        packets.push(syn(20_000 + n, "10.1.0.101"));
        packets.push(syn(20_000 + n, "10.1.0.100"));
    }
    let out = together(&mut bench, &packets);
    assert_eq!(out.len(), packets.len(), "nothing waits: there is no peer");
    assert_eq!(bench.worker.flows().table.len(), 200);
    assert_eq!(bench.count(Counter::FlowsMade), 200);
    let mut ends = HashMap::new();
    for (packet, out) in packets.iter().zip(&out) {
        assert_eq!((out.hops, out.flags, &out.payload), (63, packet.flags, &packet.payload));
        assert_eq!((out.to_mac, out.from_mac, out.to.1), (SERVER_MAC, VIRTUAL_MAC, 8080));
        let known = *ends.entry((packet.from, packet.to)).or_insert(out.from);
        assert_eq!(known, out.from, "one source for all packets of a flow");
    }
    let sources: HashSet<_> = ends.values().collect();
    // TCP and UDP may share a port; the client's own ports at 10.1.0.100 are not translated.
    assert!(sources.len() > 140, "{}", sources.len());
    for (packet, out) in packets.iter().zip(&out) {
        let flags = packet.flags.map(|_| SYN_ACK);
        let back = bench.handle(SERVER_PORT, &Packet { payload: vec![0; 18], ..out.answer(flags) }.bytes());
        let back = only(&back, CLIENT_PORT, TxClass::Service);
        assert_eq!((back.from, back.to), (packet.to, packet.from));
    }
    let flows = bench.worker.flows();
    let counted: Vec<_> = flows.table.iter().map(|(_, flow)| (flow.client.dst_port, flow.packets)).collect();
    let twice = counted.iter().filter(|(_, packets)| *packets == 4).count();
    assert_eq!((twice, counted.iter().map(|(_, packets)| packets).sum::<u64>()), (50, 500));
}

#[test]
fn a_first_packet_that_cannot_be_served_in_a_burst_is_dropped_for_its_own_reason() {
    let mut bench = Bench::active();
    let packets = [
        syn(20_000, "10.1.0.101"),
        Packet { to: ("10.1.0.101".parse().expect("an address"), 81), ..syn(20_001, "10.1.0.101") },
        Packet { to: ("10.3.0.1".parse().expect("an address"), 80), ..syn(20_001, "10.1.0.101") },
        Packet { hops: 1, ..syn(20_002, "10.1.0.101") },
        Packet { flags: Some(ACK), ..syn(20_003, "10.1.0.101") },
        Packet { flags: Some(SYN_ACK), ..syn(20_003, "10.1.0.101") },
        // No route leads back to it.
        Packet { from: ("172.16.0.1".parse().expect("an address"), 5), ..syn(20_004, "10.1.0.101") },
    ];
    assert_eq!(together(&mut bench, &packets).len(), 1);
    let counters = [
        (Counter::DropNoListener, 1),
        (Counter::DropNoFlow, 3),
        (Counter::DropHopsExceeded, 1),
        (Counter::DropNoRoute, 1),
        (Counter::FlowsMade, 1),
    ];
    for (counter, count) in counters {
        assert_eq!(bench.count(counter), count, "{counter:?}");
    }
}

#[test]
fn what_would_begin_a_flow_while_all_is_flushed_waits_in_its_order_and_begins_it_when_that_is_called_off() {
    let mut bench = Bench::active();
    assert_eq!(together(&mut bench, &[syn(20_000, "10.1.0.101")]).len(), 1);
    bench.command(Command::Quiesce { peer: NodeId(2) });
    let begins_none = Packet { flags: Some(ACK), ..syn(20_003, "10.1.0.101") };
    let known = Packet { flags: Some(ACK), ..syn(20_000, "10.1.0.101") };
    let packets = [syn(20_005, "10.1.0.101"), query(20_005), query(20_005), begins_none, known];
    assert_eq!(together(&mut bench, &packets).len(), 1, "the known flow's");
    assert_eq!((bench.count(Counter::StragglersHeld), bench.count(Counter::DropNoFlow)), (3, 1));
    assert_eq!(bench.worker.flows().table.len(), 1);
    bench.command(Command::Role { epoch: 2, role: Role::Active, term: TERM });
    let sent: Vec<_> = bench.poll_after(0).iter().map(|sent| Packet::read(&sent.bytes)).collect();
    assert_eq!(sent.iter().map(|sent| sent.flags).collect::<Vec<_>>(), [Some(SYN), None, None]);
    assert_eq!((bench.worker.flows().table.len(), bench.count(Counter::DropQuiescing)), (3, 0));
}

#[test]
fn a_shard_without_free_ports_refuses_flows_and_gives_out_none_twice() {
    let mut bench = Bench::active();
    let toeplitz = Toeplitz::new(&MICROSOFT_KEY).expect("a good key");
    let client = Address::v4([10, 1, 0, 50]);
    let shard = toeplitz.shard_of(client, 1024);
    let of_shard = (1024..=u16::MAX).filter(|port| toeplitz.shard_of(client, *port) == shard);
    let packets: Vec<_> = of_shard.map(|port| syn(port, "10.1.0.103")).collect();
    let nat = Address::v4([10, 2, 0, 100]);
    let own = toeplitz.ports_of(nat, shard).iter().enumerate();
    let own = own.filter(|(index, port)| index % 2 == 0 && *port >= 1024).count();
    assert!(packets.len() > own && own > 100, "{} packets, {own} ports", packets.len());
    let out = together(&mut bench, &packets);
    assert_eq!((out.len(), bench.count(Counter::DropPortsExhausted)), (own, (packets.len() - own) as u64));
    let ports: HashSet<_> = out.iter().map(|out| out.from).collect();
    assert_eq!(ports.len(), own);
}

#[test]
fn first_packets_of_another_workers_shards_are_handed_over_and_make_no_flow_here() {
    let mut bench = Bench::new(1, 0, 2).lead();
    let toeplitz = Toeplitz::new(&MICROSOFT_KEY).expect("a good key");
    let client = Address::v4([10, 1, 0, 50]);
    let packets: Vec<_> = (0..100).map(|n| syn(20_000 + n, "10.1.0.103")).collect();
    let ours = packets.iter().filter(|packet| toeplitz.shard_of(client, packet.from.1).0 % 2 == 0).count();
    let out = together(&mut bench, &packets);
    assert!((20..80).contains(&ours), "{ours} of 100");
    assert_eq!((out.len(), bench.worker.flows().table.len()), (ours, ours));
    let handed: Vec<_> = bench.io.handed.iter().map(|(to, _)| *to).collect();
    assert_eq!(handed, vec![WorkerId(1); 100 - ours]);
}

#[test]
fn servers_take_turns_over_bursts_as_over_packets() {
    let Snapshot { generation, mut checked } = (*snapshot(1)).clone();
    let servers = &mut checked.pools[0].servers;
    let [one] = &servers[..] else { panic!("one server") };
    let address = "10.2.0.11".parse().expect("an address");
    servers.push(Server { id: ServerId(99), address, ..one.clone() });
    let mut bench = Bench::of(Arc::new(Snapshot { generation, checked }), 0, 1).lead();
    // Of a burst's flows nothing is decided again with the next burst's.
    let mut port = 20_000;
    for burst in [1, 1, 3, 2, 64, 1, 1] {
        let packets: Vec<_> = (port..port + burst).map(|port| syn(port, "10.1.0.103")).collect();
        port += burst;
        together(&mut bench, &packets);
    }
    let table = &bench.worker.flows().table;
    let chosen: BTreeMap<u16, _> =
        table.iter().map(|(_, flow)| (flow.client.src_port, flow.server.src)).collect();
    let turns = [10, 11].map(|last| Address::v4([10, 2, 0, last]));
    let expected = (20_000..port).zip(turns.into_iter().cycle()).collect();
    assert_eq!(chosen, expected);
}

#[test]
fn places_that_flows_have_left_are_used_again() {
    let mut bench = Bench::active();
    for round in 0..5 {
        let packets: Vec<_> = (0..200).map(|n| query(20_000 + 200 * round + n)).collect();
        assert_eq!(together(&mut bench, &packets).len(), 200);
        assert_eq!(bench.worker.flows().table.places_end().0, 200, "round {round}");
        let there: Vec<_> = bench.worker.flows().table.iter().map(|(place, _)| place).collect();
        bench.now += baton::base::time::Duration::from_secs(3600);
        for flow in there {
            bench.command(Command::Expire { flow });
        }
        assert!(bench.poll_after(0).is_empty() && bench.worker.flows().table.is_empty());
    }
}
