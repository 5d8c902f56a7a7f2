//! Flows that rules left out, when rules, roles or owners change (REQ A8).

use std::sync::Arc;

use baton::base::counters::Counter;
use baton::base::ids::{NodeId, Term};
use baton::base::time::Duration;
use baton::config::checked::{HashMethod, Method};
use baton::config::snapshot::Snapshot;
use baton::worker::Generation;
use baton::worker::message::{Because, Choice, ChoiceAnswer, Command, Event, Role};

use crate::bench::*;
use crate::group::Group;
use crate::pair::*;
use crate::policy::*;
use crate::workers::FULL_NAT;

const YOUNG: &str = "{ mirror = true, duration_min_ms = 2000 }, { mirror = false }";

/// The standby leads, as planned.
fn change_roles(pair: &mut Pair, counter: u64) {
    let (from, to) = (NodeId(1 + counter as u16 % 2), NodeId(2 - counter as u16 % 2));
    let term = Term { counter, node: to };
    pair.standby.command(Command::Role { epoch: counter, role: Role::Active, term });
    pair.active.command(Command::Role { epoch: counter, role: Role::Standby, term });
    std::mem::swap(&mut pair.active, &mut pair.standby);
    pair.exchange(500);
    pair.active.command(Command::InSync { epoch: counter + 10, term, peers: vec![from] });
    pair.active.events();
}

fn configure(bench: &mut Bench, node: u16, rules: &str) {
    let Snapshot { checked, .. } = (*ruled(node, "full", rules)).clone();
    let snapshot = Arc::new(Snapshot { generation: 2, checked });
    bench.command(Command::Configure(Generation::new(snapshot, 1)));
    bench.events();
}

#[test]
fn a_flow_whose_port_another_member_hands_out_is_not_left_out_for_that_member_has_to_know_of_it() {
    let mut pair = Pair::in_sync();
    open(&mut pair, 40000, FULL);
    pair.exchange(20);
    let server = flows(&pair.active)[0].server;
    change_roles(&mut pair, 2);
    open(&mut pair, 40001, FULL);
    open(&mut pair, 40002, NAT);
    pair.exchange(20);
    assert_eq!(choose(&mut pair.active, 40000, Choice::Off), ChoiceAnswer::Needed);
    assert_eq!(
        because(&mut pair.active, 40000),
        (true, Because::VirtualServer, true),
        "nor is that an operator's word"
    );
    let done = ChoiceAnswer::Done { mirrors: false, because: Because::Operator };
    assert_eq!([40001, 40002].map(|port| choose(&mut pair.active, port, Choice::Off)), [done; 2]);
    pair.exchange(20);
    assert_eq!(known(&pair), [40000]);
    // All quarantines are over.
    for bench in [&mut pair.active, &mut pair.standby] {
        bench.now += Duration::from_secs(1000);
    }
    change_roles(&mut pair, 3);
    let (now, flows) = (pair.active.now, pair.active.worker.flows());
    assert!(flows.is_taken(now, &server), "another flow would get its port");
}

#[test]
fn what_rules_left_out_that_are_no_more_is_mirrored_and_what_an_operator_left_out_is_not() {
    let other = "{ mirror = true, duration_min_ms = 3000 }, { mirror = false }";
    for (number, next) in ["", other].into_iter().enumerate() {
        let rules = format!(
            "{{ mirror = false, client_ports = [\"40007\"] }}, {{ mirror = true, payload = \"x\" }}, {YOUNG}"
        );
        let mut pair = pair("full", &rules);
        for port in [40000, 40001, 40007] {
            open(&mut pair, port, FULL);
        }
        choose(&mut pair.active, 40001, Choice::Off);
        pair.exchange(20);
        assert!(known(&pair).is_empty());
        configure(&mut pair.active, 1, next);
        configure(&mut pair.standby, 2, next);
        pair.exchange(50);
        assert_eq!(known(&pair), [40000, 40007], "{next}");
        let why = [Because::VirtualServer, Because::Kept][number];
        assert_eq!(because(&mut pair.active, 40007), (true, why, true));
        assert_eq!(because(&mut pair.active, 40001), (false, Because::Operator, false));
        // Its payload decides nothing any more.
        let packet = Packet { payload: b"x".to_vec(), ..client(40000, FULL, 80, Some(ACK)) };
        pair.active.handle(CLIENT_PORT, &packet.bytes());
        let awaits = |port| is_awaited(&flow_of(&pair.active, port));
        assert_eq!([40000, 40007].map(awaits), [false; 2]);
        // What begins now goes by the rules of now, and the rules of before say nothing when they come back.
        open(&mut pair, 40003, FULL);
        pair.exchange(50);
        assert_eq!(known(&pair).contains(&40003), next.is_empty());
        configure(&mut pair.active, 1, &rules);
        configure(&mut pair.standby, 2, &rules);
        pair.exchange(50);
        assert_eq!(known(&pair), [40000, 40003, 40007], "{next}");
        agree(&mut pair);
    }
}

#[test]
fn what_was_noted_counts_no_more_when_another_one_led_meanwhile() {
    let mut pair = pair("full", "{ mirror = true, duration_min_ms = 100 }, { mirror = false }");
    open(&mut pair, 40000, FULL);
    pair.exchange(200);
    assert_eq!(because(&mut pair.active, 40000), (true, Because::Rule(1), true));
    change_roles(&mut pair, 2);
    assert_eq!(because(&mut pair.active, 40000), (true, Because::Kept, true));
    change_roles(&mut pair, 3);
    assert_eq!(because(&mut pair.active, 40000), (true, Because::Kept, true));
    open(&mut pair, 40001, FULL);
    pair.exchange(50);
    assert_eq!(because(&mut pair.active, 40001), (false, Because::Rule(2), false));
    assert_eq!(known(&pair), [40000]);
    // Back before it was told anything: what it left out is its own still.
    for (epoch, role) in [(20, Role::Standby), (21, Role::Active)] {
        let term = Term { counter: epoch, node: NodeId(1) };
        pair.active.command(Command::Role { epoch, role, term });
    }
    pair.exchange(500);
    assert_eq!(known(&pair), [40000, 40001], "no rule says that it is left out");
}

#[test]
fn before_a_planned_handover_all_that_rules_left_out_is_mirrored_and_when_it_is_called_off_is_left_out_again()
{
    let rules = "{ mirror = false, client_ports = [\"40000\"] }, { mirror = true, duration_min_ms = 2000000 }, \
                 { mirror = false }";
    let mut pair = pair("full", rules);
    for port in 40000..40010 {
        open(&mut pair, port, FULL);
    }
    choose(&mut pair.active, 40009, Choice::Off);
    pair.exchange(20);
    assert!(known(&pair).is_empty());
    let is_flushed = |pair: &mut Pair| {
        let events = pair.active.events();
        events.iter().any(|event| matches!(event, Event::Flushed { .. }))
    };
    pair.active.command(Command::Quiesce { peer: NodeId(2) });
    pair.exchange_but(5, |_, _| false);
    assert!(!is_flushed(&mut pair), "the peer knows none of them");
    pair.exchange(100);
    assert!(is_flushed(&mut pair));
    assert_eq!(known(&pair), Vec::from_iter(40000..40009), "all but what the operator chose");
    assert_eq!(because(&mut pair.active, 40000), (true, Because::Kept, true));
    pair.active.command(Command::Role { epoch: 5, role: Role::Active, term: TERM });
    pair.exchange(500);
    assert_eq!(known(&pair).len(), 9, "not at once");
    pair.exchange(1000);
    assert!(known(&pair).is_empty());
    assert_eq!(because(&mut pair.active, 40000), (false, Because::Rule(1), false));
    agree(&mut pair);
}

#[test]
fn a_flow_at_the_threshold_of_a_rate_is_not_ended_and_begun_with_every_packet() {
    let mut pair = pair("full", "{ mirror = false, rate_min_kbps = 8 }");
    open(&mut pair, 40000, FULL);
    let packet = Packet { payload: vec![7; 20], ..client(40000, FULL, 80, Some(ACK)) };
    for millis in 0..5000u64 {
        // 8 kbit/s are a byte in a millisecond.
        if flows(&pair.active)[0].bytes < millis.max(1000) {
            pair.active.handle(CLIENT_PORT, &packet.bytes());
        }
        pair.exchange(1);
    }
    let [on, off] = [Counter::FlowsTakenUp, Counter::FlowsLeftOut].map(|counter| pair.active.count(counter));
    assert!((1..6).contains(&off) && on <= off, "{on} {off}");
}

#[test]
fn no_payload_is_awaited_that_would_decide_nothing() {
    let rules = "{ mirror = false, client_ports = [\"40000\"] }, { mirror = false, payload = \"x\" }";
    let mut pair = pair("full", rules);
    let mut awaits = |port| {
        open(&mut pair, port, FULL);
        is_awaited(&flow_of(&pair.active, port))
    };
    assert_eq!([40000, 40001].map(&mut awaits), [false, true]);
}

/// What a worker knows of flows goes with them: that peers were told of one, so that its port waits for them.
#[test]
fn a_flow_that_was_left_out_moves_to_another_worker_with_all_that_is_known_of_it() {
    let mut group = Group::in_sync([2, 1], Method::Hash(HashMethod::Source), |_, _| {});
    let leader = group.leader();
    leader.open(FULL_NAT, 40000);
    group.exchange(50);
    assert_eq!(group.standby().flows(), [1]);
    let leader = group.leader();
    let from = leader.flows().iter().position(|flows| *flows == 1).expect("the flow's worker");
    let flow = flows(&leader.benches[from])[0];
    leader.benches[from].command(Command::Choose { key: flow.client, choice: Choice::Off });
    // The peer hears nothing of it.
    let to = 1 - from;
    leader.move_shard(flow.shard, to as u16, |_| ());
    let moved = flows(&leader.benches[to]);
    assert_eq!(moved.len(), 1);
    assert!(!moved[0].is_mirrored() && moved[0].flags.names().any(|name| name == "chosen"));
    let bench = &mut leader.benches[to];
    bench.now += Duration::from_secs(10_000);
    let (place, _) = bench.worker.flows().table.iter().next().expect("the flow");
    bench.command(Command::Expire { flow: place });
    bench.poll_after(1);
    assert!(flows(bench).is_empty());
    bench.now += Duration::from_secs(1000);
    assert_eq!(bench.status().ports_resting, 1, "the peer may have the flow still");
}
