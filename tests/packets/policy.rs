//! Which flows are mirrored: rules about first packets, payloads and what flows come to, and an operator's word (REQ A8).

use std::path::Path;
use std::sync::Arc;

use baton::base::counters::Counter;
use baton::base::ids::{NodeId, Term};
use baton::base::io::TxClass;
use baton::config::snapshot::Snapshot;
use baton::flow::{Flow, FlowIndex, Key};
use baton::worker::message::{Because, Choice, ChoiceAnswer, Command, Event, Role};

use crate::bench::*;
use crate::pair::*;

/// NAT, held; full NAT, not held; UDP, held.
pub const NAT: &str = "10.1.0.100";
pub const FULL: &str = "10.1.0.101";
const UDP: &str = "10.1.0.102";

/// The configuration of a node, of which virtual server `name` has these rules.
pub fn ruled(node: u16, name: &str, rules: &str) -> Arc<Snapshot> {
    let file = file(node);
    let at = file.find(&format!("name = \"{name}\"\naddress")).expect("the virtual server");
    let (before, rest) = file.split_at(at);
    let (mirror, behind) = rest.split_once(" }\n").expect("its mirror table");
    let text = format!("{before}{mirror}, rules = [{rules}] }}\n{behind}");
    let checked = baton::config::load(Path::new("bench.toml"), &text).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>())
    });
    Arc::new(Snapshot { generation: 1, checked })
}

/// An active and a standby in sync that have these rules.
pub fn pair(name: &str, rules: &str) -> Pair {
    let mut active = Bench::of(ruled(1, name, rules), 0, 1).lead();
    let mut pair = Pair { standby: Bench::of(ruled(2, name, rules), 0, 1), active: Bench::new(1, 0, 1) };
    active.now = pair.active.now;
    pair.active = active;
    pair.standby.know_neighbours();
    pair.standby.command(Command::Role { epoch: 1, role: Role::Standby, term: TERM });
    pair.join();
    pair
}

/// A packet without payload.
pub fn client(port: u16, to: &str, to_port: u16, flags: Option<u8>) -> Packet {
    Packet { payload: Vec::new(), ..from_client(port, to, to_port, flags) }
}

pub fn open(pair: &mut Pair, port: u16, to: &str) -> Vec<Sent> {
    let sent = pair.active.handle(CLIENT_PORT, &client(port, to, 80, Some(SYN)).bytes());
    split(sent).1
}

pub fn flows(bench: &Bench) -> Vec<Flow> {
    bench.worker.flows().table.iter().map(|(_, flow)| flow).collect()
}

/// Whether the flow's payload is to decide still.
pub fn is_awaited(flow: &Flow) -> bool {
    flow.flags.names().any(|name| name == "awaited")
}

/// The one from this client's port.
pub fn flow_of(bench: &Bench, port: u16) -> Flow {
    flows(bench).into_iter().find(|flow| flow.client.src_port == port).expect("the flow")
}

/// The client's ports of the standby's flows.
pub fn known(pair: &Pair) -> Vec<u16> {
    let mut ports: Vec<u16> = flows(&pair.standby).iter().map(|flow| flow.client.src_port).collect();
    ports.sort_unstable();
    ports
}

fn key_of(bench: &Bench, port: u16) -> Key {
    let of = |flow: &Flow| flow.client.src_port == port;
    flows(bench).into_iter().find(of).expect("the flow").client
}

pub fn choose(bench: &mut Bench, port: u16, choice: Choice) -> ChoiceAnswer {
    let key = key_of(bench, port);
    bench.command(Command::Choose { key, choice });
    let answer = bench.events().into_iter().find_map(|event| match event {
        Event::Chosen(answer) => Some(answer),
        _ => None,
    });
    answer.expect("an answer")
}

/// Why the flow of a client's port is mirrored or not, and whether it counts as protected.
pub fn because(bench: &mut Bench, port: u16) -> (bool, Because, bool) {
    bench.command(Command::Flows { from: FlowIndex(0) });
    let seen = bench.events().into_iter().find_map(|event| match event {
        Event::Flows(slice) => slice.flows.into_iter().find(|seen| seen.flow.client.src_port == port),
        _ => None,
    });
    let seen = seen.expect("the flow");
    (seen.flow.is_mirrored(), seen.because, seen.protected)
}

fn take_over(pair: &mut Pair) {
    let term = Term { counter: 2, node: NodeId(2) };
    pair.standby.command(Command::PeerLost { node: NodeId(1) });
    pair.standby.command(Command::Role { epoch: 2, role: Role::Active, term });
    pair.standby.events();
}

/// All digests agree, over some rounds.
#[track_caller]
pub fn agree(pair: &mut Pair) {
    let rounds = |pair: &mut Pair| pair.active.status().streams[0].agreement.rounds;
    let before = rounds(pair);
    pair.exchange(2000);
    let streams = pair.active.status().streams;
    assert!(streams[0].agreement.rounds > before + 1, "{streams:?}");
    let (found, waits) = (streams[0].statistics.digests_differing, pair.active.status().departed);
    assert_eq!(
        (found, streams[0].agreement.differing, waits),
        (0, 0, 0),
        "digests agree, and every end was heard"
    );
}

#[test]
fn a_short_flow_is_left_out_and_does_not_wait_and_a_long_one_is_mirrored_when_it_is_old_enough() {
    let mut pair = pair("nat", "{ mirror = true, duration_min_ms = 300 }, { mirror = false }");
    let out = open(&mut pair, 40000, NAT);
    assert_eq!(only(&out, SERVER_PORT, TxClass::Service).from.1, 40000, "it waits for nobody");
    pair.exchange(200);
    assert!(known(&pair).is_empty());
    assert_eq!(because(&mut pair.active, 40000), (false, Because::Rule(2), false));
    let status = pair.active.status();
    assert_eq!((status.flows, status.mirrored, status.protected), (1, 0, 0));
    open(&mut pair, 40001, NAT);
    pair.exchange(150);
    assert_eq!(known(&pair), [40000], "the older one");
    assert_eq!(because(&mut pair.active, 40000), (true, Because::Rule(1), true));
    let status = pair.active.status();
    assert_eq!((status.flows, status.mirrored, status.protected), (2, 1, 1));
    agree(&mut pair);
    take_over(&mut pair);
    let ack = client(40000, NAT, 80, Some(ACK));
    only(&pair.standby.handle(CLIENT_PORT, &ack.bytes()), SERVER_PORT, TxClass::Service);
    // However young it is to its new active, it stays mirrored.
    pair.standby.poll_after(100);
    assert!(because(&mut pair.standby, 40000).0);
}

#[test]
fn of_rules_the_first_that_holds_decides_by_network_ports_and_code_point() {
    let rules = "{ mirror = false, clients = [\"10.1.0.48/30\"], client_ports = [\"40000-40001\", \"40007\"] }, \
                 { mirror = true, server_ports = [\"8080\"], client_ports = [\"40002\"] }, \
                 { mirror = false, dscp = [10, 46] }, \
                 { mirror = false, server_ports = [\"9\"] }, { mirror = false, clients = [\"10.2.0.0/16\"] }";
    let mut pair = pair("full", rules);
    for port in 40000..40009 {
        open(&mut pair, port, FULL);
    }
    for (port, dscp) in [(40002, 46u8), (40010, 10), (40011, 46), (40012, 12)] {
        let mut frame = client(port, FULL, 80, Some(SYN)).bytes();
        frame[15] = dscp << 2;
        let sum = u32::from(u16::from_be_bytes([frame[24], frame[25]])) + (0xffff - (u32::from(dscp) << 2));
        let sum = (sum & 0xffff) + (sum >> 16);
        frame[24..26].copy_from_slice(&(sum as u16).to_be_bytes());
        pair.active.handle(CLIENT_PORT, &frame);
    }
    pair.exchange(50);
    assert_eq!(known(&pair), [40002, 40003, 40004, 40005, 40006, 40008, 40012]);
    for (port, why) in [(40000, 1), (40007, 1), (40002, 2), (40010, 3), (40011, 3), (40012, 0)] {
        let why = if why == 0 { Because::NoRule } else { Because::Rule(why) };
        assert_eq!(because(&mut pair.active, port).1, why, "{port}");
    }
    agree(&mut pair);
}

#[test]
fn the_clients_first_payload_decides_when_it_comes_and_not_what_comes_behind() {
    let mut pair = pair("full", "{ mirror = true, payload = \"SSH-\", payload_at = 0 }, { mirror = false }");
    let say = |pair: &mut Pair, port, text: &str| {
        let packet = Packet { payload: text.as_bytes().to_vec(), ..client(port, FULL, 80, Some(ACK)) };
        let sent = pair.active.handle(CLIENT_PORT, &packet.bytes());
        only(&split(sent).1, SERVER_PORT, TxClass::Service);
    };
    for port in 40000..40003 {
        let out = only(&open(&mut pair, port, FULL), SERVER_PORT, TxClass::Service);
        // The server may speak first.
        pair.active.handle(SERVER_PORT, &out.answer(Some(SYN_ACK)).bytes());
        say(&mut pair, port, "");
    }
    pair.exchange(50);
    assert!(known(&pair).is_empty());
    say(&mut pair, 40000, "SSH-2.0-client");
    say(&mut pair, 40001, " SSH-");
    say(&mut pair, 40001, "SSH-");
    pair.exchange(50);
    assert_eq!(known(&pair), [40000]);
    assert_eq!(because(&mut pair.active, 40000), (true, Because::Rule(1), true));
    assert_eq!(because(&mut pair.active, 40001), (false, Because::Rule(2), false));
    // Nobody waits for ever.
    for _ in 0..40 {
        say(&mut pair, 40002, "");
    }
    say(&mut pair, 40002, "SSH-2.0-late");
    pair.exchange(50);
    assert_eq!(known(&pair), [40000]);
    assert!(!flows(&pair.active).iter().any(is_awaited), "their packets go the fast way");
    agree(&mut pair);
}

#[test]
fn the_payload_of_a_first_datagram_decides_at_once() {
    let mut pair = pair("udp", "{ mirror = false, payload = \"hex:00010000\" }");
    for (port, payload) in
        [(40000, &b"\x12\x34\x00\x01\x00\x00"[..]), (40001, b"\x12\x34\x00\x02"), (40002, b"")]
    {
        let packet = Packet { payload: payload.to_vec(), ..client(port, UDP, 53, None) };
        let sent = split(pair.active.handle(CLIENT_PORT, &packet.bytes())).1;
        assert_eq!(sent.len(), usize::from(port == 40000), "what is mirrored waits, what is not does not");
    }
    pair.exchange(50);
    assert_eq!(known(&pair), [40001, 40002]);
    let late = Packet { payload: b"\x00\x01\x00\x00".to_vec(), ..client(40002, UDP, 53, None) };
    pair.active.handle(CLIENT_PORT, &late.bytes());
    pair.exchange(50);
    assert_eq!(known(&pair), [40001], "its first payload came in its second packet");
    agree(&mut pair);
}

#[test]
fn bytes_packets_and_rate_are_looked_at_again_and_again() {
    let rules = "{ mirror = false, rate_min_kbps = 8 }, { mirror = true, packets_min = 4, bytes_min = 200 }, \
                 { mirror = false }";
    let mut pair = pair("full", rules);
    open(&mut pair, 40000, FULL);
    let more = |pair: &mut Pair, packets: u32, bytes: usize| {
        let packet = Packet { payload: vec![7; bytes], ..client(40000, FULL, 80, Some(ACK)) };
        for _ in 0..packets {
            pair.active.handle(CLIENT_PORT, &packet.bytes());
        }
        pair.exchange(1000);
    };
    more(&mut pair, 2, 40);
    assert_eq!(because(&mut pair.active, 40000).1, Because::Rule(3), "200 bytes, three packets");
    more(&mut pair, 1, 0);
    assert_eq!(because(&mut pair.active, 40000), (true, Because::Rule(2), true));
    // In three seconds 3000 bytes: 8 kbit/s.
    more(&mut pair, 10, 1000);
    assert_eq!(because(&mut pair.active, 40000), (false, Because::Rule(1), false));
    assert!(known(&pair).is_empty());
    for _ in 0..10 {
        more(&mut pair, 0, 0);
    }
    assert_eq!(because(&mut pair.active, 40000), (true, Because::Rule(2), true), "it has become slow");
    assert_eq!(known(&pair), [40000]);
    let counted = [Counter::FlowsTakenUp, Counter::FlowsLeftOut].map(|counter| pair.active.count(counter));
    assert_eq!(counted, [2, 1]);
    agree(&mut pair);
}

#[test]
fn an_operators_word_goes_before_all_rules_and_goes_with_the_flow_to_who_takes_over() {
    let rules = "{ mirror = true, duration_min_ms = 200 }, { mirror = false }";
    let mut pair = pair("full", rules);
    open(&mut pair, 40000, FULL);
    open(&mut pair, 40001, FULL);
    let done = |mirrors| ChoiceAnswer::Done { mirrors, because: Because::Operator };
    assert_eq!(choose(&mut pair.active, 40000, Choice::On), done(true));
    assert_eq!(choose(&mut pair.active, 40001, Choice::Off), done(false));
    pair.exchange(50);
    assert_eq!(known(&pair), [40000], "young as it is");
    pair.exchange(500);
    assert_eq!(known(&pair), [40000], "the other one is old enough, but not wanted");
    assert_eq!(because(&mut pair.active, 40001), (false, Because::Operator, false));
    let rule = ChoiceAnswer::Done { mirrors: true, because: Because::Rule(1) };
    assert_eq!(choose(&mut pair.active, 40001, Choice::Auto), rule);
    pair.exchange(50);
    assert_eq!(known(&pair), [40000, 40001]);
    agree(&mut pair);
    // One that is mirrored anyway is told again, for who takes over to know.
    open(&mut pair, 40002, NAT);
    pair.exchange(50);
    assert_eq!(choose(&mut pair.active, 40002, Choice::On), done(true));
    agree(&mut pair);
    assert_eq!(pair.standby.count(Counter::MirrorHandleUnknown), 0, "in full, as its handle is another one");
    take_over(&mut pair);
    assert_eq!(because(&mut pair.standby, 40000), (true, Because::Operator, false));
    assert_eq!(because(&mut pair.standby, 40001), (true, Because::Kept, false));
    assert_eq!(because(&mut pair.standby, 40002), (true, Because::Operator, false));
    let all = ChoiceAnswer::Done { mirrors: true, because: Because::VirtualServer };
    assert_eq!(choose(&mut pair.standby, 40002, Choice::Auto), all);
}

#[test]
fn a_flow_that_is_switched_off_and_on_again_and_again_is_known_as_the_last_word_says_whatever_is_lost() {
    let mut pair = Pair::in_sync();
    let out = only(&open(&mut pair, 40000, FULL), SERVER_PORT, TxClass::Service);
    pair.exchange(20);
    let mut count = 0u64;
    for round in 0..60u64 {
        let choice = if round % 2 == 0 { Choice::Off } else { Choice::On };
        choose(&mut pair.active, 40000, choice);
        // Some frames of either are lost, and some words follow others before they are sent.
        let turns = [0, 1, 30][round as usize % 3];
        pair.exchange_but(turns, |_, _| {
            count += 1;
            count % 3 != 0
        });
        let known = known(&pair).len();
        if pair.active.status().protected == 1 {
            assert_eq!(known, 1, "round {round}: what counts as protected is known");
        }
    }
    agree_but_for_losses(&mut pair);
    assert_eq!(known(&pair), [40000]);
    choose(&mut pair.active, 40000, Choice::Off);
    agree_but_for_losses(&mut pair);
    assert!(known(&pair).is_empty());
    // The flow has lived on, by the same source-NAT port.
    let back = split(pair.active.handle(SERVER_PORT, &out.answer(Some(SYN_ACK)).bytes())).1;
    assert_eq!(only(&back, CLIENT_PORT, TxClass::Service).to.1, 40000);
}

#[test]
fn an_acknowledgement_of_before_says_nothing_of_a_flow_that_was_left_out_and_taken_up_again() {
    let mut pair = Pair::in_sync();
    open(&mut pair, 40000, FULL);
    pair.exchange(20);
    // What it says of this comes late.
    choose(&mut pair.active, 40000, Choice::On);
    let mut late = Vec::new();
    let keep = |late: &mut Vec<Sent>, is_actives: bool, frame: &Sent| {
        if !is_actives {
            late.push(frame.clone());
        }
        is_actives
    };
    pair.exchange_but(2, |is_actives, frame| keep(&mut late, is_actives, frame));
    assert!(!late.is_empty(), "it was acknowledged");
    choose(&mut pair.active, 40000, Choice::Off);
    pair.exchange_but(2, |is_actives, _| is_actives);
    assert!(known(&pair).is_empty());
    choose(&mut pair.active, 40000, Choice::On);
    for frame in late {
        pair.active.handle(MIRROR_PORT, &to(&frame.bytes, 1));
    }
    assert_eq!((pair.active.status().protected, known(&pair).len()), (0, 0), "nobody knows it");
    agree_but_for_losses(&mut pair);
    assert_eq!((pair.active.status().protected, known(&pair).len()), (1, 1));
}

#[track_caller]
fn agree_but_for_losses(pair: &mut Pair) {
    pair.exchange(3000);
    let status = pair.active.status();
    assert_eq!(
        (status.streams[0].agreement.differing, status.departed, status.streams[0].waiting),
        (0, 0, 0)
    );
    assert_eq!(status.streams[0].statistics.digests_differing, 0);
}

#[test]
fn the_port_of_a_flow_that_was_left_out_and_ended_rests_until_the_peers_have_heard() {
    let mut pair = Pair::in_sync();
    open(&mut pair, 40000, FULL);
    pair.exchange(20);
    choose(&mut pair.active, 40000, Choice::Off);
    assert_eq!(pair.active.status().ports_resting, 0, "the flow has it");
    let (place, _) = pair.active.worker.flows().table.iter().next().expect("the flow");
    // Nothing reaches the peer, not even what says that it is left out, and the quarantine passes.
    pair.exchange_but(5, |_, _| false);
    pair.active.now += baton::base::time::Duration::from_secs(10_000);
    pair.active.command(Command::Expire { flow: place });
    pair.exchange_but(5, |_, _| false);
    pair.active.now += baton::base::time::Duration::from_secs(1000);
    let status = pair.active.status();
    assert_eq!((status.flows, status.ports_resting), (0, 1), "the peer may still have the flow");
    pair.standby.now = pair.active.now;
    pair.exchange(2000);
    assert!(known(&pair).is_empty());
    pair.active.now += baton::base::time::Duration::from_secs(1000);
    assert_eq!(pair.active.status().ports_resting, 0);
}

#[test]
fn a_held_packet_leaves_when_its_flow_is_not_to_be_mirrored() {
    let mut pair = Pair::in_sync();
    assert!(open(&mut pair, 40000, NAT).is_empty(), "it waits");
    choose(&mut pair.active, 40000, Choice::Off);
    let sent = split(pair.active.take_sent()).1;
    assert_eq!(only(&sent, SERVER_PORT, TxClass::Service).from.1, 40000);
    let ack = split(pair.active.handle(CLIENT_PORT, &client(40000, NAT, 80, Some(ACK)).bytes())).1;
    assert_eq!(ack.len(), 1, "and those behind it");
    assert_eq!(pair.active.status().held, 0);
}

#[test]
fn who_cannot_do_what_an_operator_wants_says_why() {
    let mut pair = Pair::in_sync();
    open(&mut pair, 40000, FULL);
    pair.exchange(20);
    assert_eq!(choose(&mut pair.standby, 40000, Choice::Off), ChoiceAnswer::Standby);
    assert_eq!(known(&pair), [40000]);
    let key = Key { src_port: 40001, ..key_of(&pair.active, 40000) };
    let server = flows(&pair.active)[0].server;
    for key in [key, server] {
        pair.active.command(Command::Choose { key, choice: Choice::On });
        let said = pair
            .active
            .events()
            .into_iter()
            .any(|event| matches!(event, Event::Chosen(ChoiceAnswer::Unknown)));
        assert!(said);
    }
}
