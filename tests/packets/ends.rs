//! Flows that the sweep names, many at a time (REQ C8, E4): those that are idle end, and their ends are told.

use std::collections::HashSet;

use baton::base::counters::Counter;
use baton::base::ids::{NodeId, Term};
use baton::base::rng::Rng;
use baton::base::time::Duration;
use baton::flow::{FlowIndex, Key};
use baton::worker::message::{Command, Role};

use crate::bench::*;
use crate::pair::*;

/// Virtual servers with NAT and full NAT, TCP and UDP, IPv4 and IPv6, mirrored and not.
const SERVERS: [(&str, u16, Option<u8>); 6] = [
    ("10.1.0.100", 80, Some(SYN)),
    ("10.1.0.101", 80, Some(SYN)),
    ("10.1.0.102", 53, None),
    ("10.1.0.103", 80, Some(SYN)),
    ("fd01::100", 80, Some(SYN)),
    ("fd01::101", 80, Some(SYN)),
];

/// Packets from these ports, some at a time: those that are held must find room.
fn begin(pair: &mut Pair, ports: std::ops::Range<u16>) {
    for port in ports {
        let (to, to_port, flags) = SERVERS[usize::from(port) % SERVERS.len()];
        pair.active.handle(CLIENT_PORT, &from_client(port, to, to_port, flags).bytes());
        if port % 30 == 0 {
            pair.exchange(5);
        }
    }
    pair.exchange(50);
}

fn clients(bench: &Bench) -> HashSet<Key> {
    bench.worker.flows().table.iter().map(|(_, flow)| flow.client).collect::<Vec<_>>().into_iter().collect()
}

fn mirrored(bench: &Bench) -> HashSet<Key> {
    let all = bench.worker.flows().table.iter();
    all.filter(|(_, flow)| flow.is_mirrored()).map(|(_, flow)| flow.client).collect()
}

/// Names places in a random order, some of them twice or thrice.
fn name(bench: &mut Bench, places: &[FlowIndex]) {
    let mut rng = Rng::with_seed(4);
    let mut named: Vec<_> = places.iter().chain(&places[..places.len() / 2]).copied().collect();
    named.extend_from_slice(&places[..places.len() / 3]);
    for at in (1..named.len()).rev() {
        named.swap(at, rng.usize(0..=at));
    }
    named.into_iter().for_each(|flow| bench.command(Command::Expire { flow }));
}

#[test]
fn of_many_that_are_named_in_one_turn_the_idle_ones_end_once_each_at_both_members() {
    let mut pair = Pair::in_sync();
    begin(&mut pair, 20_000..20_300);
    // An hour makes all of them idle; then packets come for some, and some are new.
    pair.active.poll_after(3_600_000);
    pair.standby.poll_after(3_600_000);
    let idle = clients(&pair.active);
    begin(&mut pair, 20_100..20_150);
    begin(&mut pair, 20_300..20_350);
    let fresh: HashSet<u16> = (20_100..20_150).chain(20_300..20_350).collect();
    let ends = idle.iter().filter(|client| !fresh.contains(&client.src_port)).count();
    // More places than there are flows, and one beyond the table.
    let places: Vec<_> = (0..400).chain([u32::MAX]).map(FlowIndex).collect();
    name(&mut pair.active, &places);
    pair.exchange(200);
    assert_eq!(pair.active.count(Counter::FlowsExpired), ends as u64);
    let left = clients(&pair.active);
    assert_eq!(left.iter().map(|client| client.src_port).collect::<HashSet<_>>(), fresh);
    assert_eq!(clients(&pair.standby), mirrored(&pair.active));
    let status = pair.active.status();
    assert_eq!((status.departed, status.by_server.iter().map(|of| of.1).sum::<u64>()), (0, 100));
    // Two of six virtual servers do not translate the source.
    let translated = |port: &u16| ![0, 4].contains(&(usize::from(*port) % SERVERS.len()));
    let ports = (20_000..20_300).filter(|port| !fresh.contains(port)).filter(translated).count();
    assert_eq!(status.ports_resting, ports, "a port rests for each flow that ended");
}

#[test]
fn what_is_named_to_a_standby_stays() {
    let mut pair = Pair::in_sync();
    begin(&mut pair, 20_000..20_100);
    let known = clients(&pair.standby);
    assert!(known.len() > 50);
    pair.standby.poll_after(3_600_000);
    name(&mut pair.standby, &(0..100).map(FlowIndex).collect::<Vec<_>>());
    pair.standby.poll_after(0);
    assert_eq!(clients(&pair.standby), known);
}

/// What was said before the role was taken away is heard before.
#[test]
fn flows_that_are_named_before_a_command_end_before_it_is_obeyed() {
    let mut pair = Pair::in_sync();
    begin(&mut pair, 20_000..20_006);
    pair.active.poll_after(3_600_000);
    pair.active.command(Command::Expire { flow: FlowIndex(0) });
    let term = Term { counter: 9, node: NodeId(2) };
    pair.active.command(Command::Role { epoch: 9, role: Role::Standby, term });
    pair.active.command(Command::Expire { flow: FlowIndex(1) });
    pair.active.poll_after(0);
    assert_eq!(pair.active.worker.flows().table.len(), 5);
}

/// A port is not given out again before the standby has acknowledged the end, however long that takes.
#[test]
fn ports_of_ended_flows_rest_until_the_ends_are_acknowledged_and_then_for_their_quarantine() {
    let mut pair = Pair::in_sync();
    let syn = |port| from_client(port, "10.1.0.101", 80, Some(SYN)).bytes();
    (20_000..20_100).for_each(|port| drop(pair.active.handle(CLIENT_PORT, &syn(port))));
    pair.exchange(50);
    pair.active.poll_after(3_600_000);
    name(&mut pair.active, &(0..100).map(FlowIndex).collect::<Vec<_>>());
    drop(pair.active.poll_after(0));
    assert_eq!((pair.active.status().departed, pair.active.status().ports_resting), (100, 100));
    pair.exchange_but(1000, |_, _| false);
    pair.active.now += Duration::from_secs(100);
    assert_eq!(pair.active.status().ports_resting, 100, "nobody has acknowledged");
    pair.standby.now = pair.active.now;
    pair.exchange(500);
    assert_eq!((pair.active.status().departed, pair.active.status().ports_resting), (0, 100));
    pair.active.now += Duration::from_secs(100);
    // Some are cleared away with each look.
    let left = (0..100).map(|_| pair.active.status().ports_resting).min();
    assert_eq!(left, Some(0));
}
