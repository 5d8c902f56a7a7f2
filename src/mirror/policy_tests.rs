//! What rules say, and which flows are looked at again.

use super::*;
use crate::config::checked::Cidr;
use crate::flow::Address;
use crate::flow::key::TCP;

const ID: VirtualServerId = VirtualServerId(7);

fn rule(mirror: bool) -> Rule {
    Rule {
        mirror,
        clients: Vec::new(),
        client_ports: Vec::new(),
        server_ports: Vec::new(),
        dscp: 0,
        payload: None,
        duration_min: Duration::ZERO,
        bytes_min: 0,
        packets_min: 0,
        rate_min_kbit: 0,
    }
}

fn client() -> Key {
    let (src, dst) = (Address::v4([192, 0, 2, 9]), Address::v4([10, 1, 0, 100]));
    Key { src, dst, src_port: 40000, dst_port: 80, vlan: 0, protocol: TCP }
}

fn policy(rules: &[Rule]) -> Policy {
    Policy::new(ID, rules).expect("there are rules")
}

fn facts(policy: &Policy, payload: &[u8]) -> Facts {
    policy.facts(Instant::from_millis(5), &client(), 8080, FirstPacket { dscp: 46, payload })
}

fn after(millis: u64, packets: u64, bytes: u64) -> Measures {
    Measures { age: Duration::from_millis(millis), packets, bytes }
}

#[test]
fn the_first_rule_that_holds_decides_and_it_is_known_whether_a_later_look_can_change_that() {
    let old = Rule { duration_min: Duration::from_millis(100), ..rule(true) };
    let many = Rule { packets_min: 5, ..rule(true) };
    let fast = Rule { rate_min_kbit: 8, ..rule(false) };
    let decided = |mirror, rule, is_final| Decision { mirror, rule, is_final };
    let none = after(0, 1, 40);
    for (rules, measures, expected) in [
        (vec![rule(false)], none, decided(false, 1, true)),
        (vec![old.clone(), rule(false)], none, decided(false, 2, false)),
        (vec![old.clone(), rule(false)], after(99, 1, 40), decided(false, 2, false)),
        (vec![old.clone(), rule(false)], after(100, 1, 40), decided(true, 1, true)),
        (vec![many.clone()], none, decided(true, 0, false)),
        (vec![many.clone()], after(0, 5, 40), decided(true, 1, true)),
        (vec![many, old.clone(), rule(false)], after(100, 1, 40), decided(true, 2, false)),
        (vec![fast.clone(), old.clone()], after(1000, 1, 999), decided(true, 2, false)),
        (vec![fast.clone()], after(1000, 1, 1000), decided(false, 1, false)),
        // A burst at the beginning is not a rate.
        (vec![fast.clone()], after(1, 1, 999), decided(true, 0, false)),
        (vec![fast], after(2000, 1, 1999), decided(true, 0, false)),
        (vec![Rule { bytes_min: 41, ..rule(false) }], none, decided(true, 0, false)),
        (vec![Rule { dscp: 1 << 45, ..rule(false) }], none, decided(true, 0, true)),
        (vec![Rule { dscp: 1 << 46, ..rule(false) }, old], none, decided(false, 1, true)),
    ] {
        let policy = policy(&rules);
        assert_eq!(policy.decide(&facts(&policy, b""), &measures), expected, "{rules:?} {measures:?}");
    }
}

#[test]
fn a_rule_holds_when_all_that_it_says_holds() {
    let network = |address: [u8; 4]| Cidr { address: address.into(), prefix_len: 24 };
    let ports = |first, last| vec![Ports { first, last }];
    let all = Rule {
        clients: vec![network([10, 0, 0, 0]), network([192, 0, 2, 0])],
        client_ports: ports(39999, 40000),
        server_ports: ports(8080, 8080),
        dscp: 1 << 46,
        ..rule(false)
    };
    let holds = |rule: &Rule| {
        let policy = policy(core::slice::from_ref(rule));
        policy.decide(&facts(&policy, b""), &Measures::default()).rule == 1
    };
    assert!(holds(&all));
    for lacking in [
        Rule { clients: vec![network([10, 0, 0, 0])], ..all.clone() },
        Rule { client_ports: ports(40001, 50000), ..all.clone() },
        Rule { server_ports: ports(80, 8079), ..all.clone() },
        Rule { dscp: 1 << 10, ..all.clone() },
    ] {
        assert!(!holds(&lacking), "{lacking:?}");
    }
}

#[test]
fn a_payload_is_awaited_and_looked_at_once_and_not_beyond_its_first_bytes() {
    let pattern = |bytes: &[u8], at| Some(Pattern { bytes: bytes.to_vec(), at });
    let with = |payload| policy(&[Rule { payload, ..rule(false) }]);
    let begins = with(pattern(b"SSH", Some(0)));
    let mut waits = facts(&begins, b"");
    assert!(waits.awaits_payload() && !begins.decide(&waits, &Measures::default()).is_final);
    begins.note_payload(&mut waits, b"SSH-2.0");
    assert!(!waits.awaits_payload());
    assert_eq!(begins.decide(&waits, &Measures::default()).rule, 1);
    begins.note_payload(&mut waits, b"GET /");
    assert_eq!(begins.decide(&waits, &Measures::default()).rule, 1, "it was looked at");
    let mut given_up = facts(&begins, b"");
    given_up.give_up_payload();
    assert!(begins.decide(&given_up, &Measures::default()).is_final);
    let last = PAYLOAD_LOOKED_AT - 1;
    let text = [&[b'x'; PAYLOAD_LOOKED_AT - 1][..], b"yz"].concat();
    for (payload, holds) in [
        (pattern(b"y", None), true),
        (pattern(b"y", Some(last)), true),
        (pattern(b"y", Some(last - 1)), false),
        (pattern(b"yz", None), false),
        (pattern(b"z", None), false),
        (pattern(b"xx", Some(last - 2)), true),
    ] {
        let policy = with(payload.clone());
        let decision = policy.decide(&facts(&policy, &text), &Measures::default());
        assert_eq!((decision.rule == 1, decision.is_final), (holds, true), "{payload:?}");
    }
}

#[test]
fn facts_count_for_the_flow_for_which_they_were_noted_alone() {
    let policy = policy(&[rule(false)]);
    let mut chosen = Chosen::new(4).expect("memory");
    let (place, shard) = (FlowIndex(2), ShardId(9));
    assert_eq!(chosen.of(place, ShardId(0), Version(0)), None, "nothing was noted");
    let known = facts(&policy, b"").named(shard, Version(5));
    chosen.put(place, known);
    chosen.put(FlowIndex(4), known); // There is no such place.
    assert_eq!(chosen.of(place, shard, Version(5)), Some(known));
    for (shard, version) in [(ShardId(8), Version(5)), (shard, Version(6))] {
        assert_eq!(chosen.of(place, shard, version), None);
        chosen.renamed(place, shard, version, Version(9));
    }
    chosen.renamed(place, shard, Version(5), Version(7));
    assert_eq!((chosen.of(place, shard, Version(5)), chosen.of(place, shard, Version(6))), (None, None));
    assert!(!chosen.of(place, shard, Version(7)).expect("they went along").was_told());
    chosen.note_told(place, shard, Version(7));
    let told = chosen.of(place, shard, Version(7)).expect("they are still there");
    assert!(told.was_told() && told.fingerprint() == policy.fingerprint());
    chosen.note_told(FlowIndex(1), shard, Version(3));
    assert!(chosen.of(FlowIndex(1), shard, Version(3)).expect("they are new").was_told());
}

#[test]
fn each_place_is_looked_at_once_a_round_as_time_passes_and_no_more_when_all_is_decided() {
    let waits = policy(&[Rule { packets_min: 5, ..rule(false) }]);
    let (end, shard) = (3000u32, ShardId(1));
    let mut chosen = Chosen::new(end).expect("memory");
    for place in [0, 7, 1500, 2999] {
        let mut facts = facts(&waits, b"").named(shard, Version(1));
        facts.decided(waits.decide(&facts, &Measures::default()));
        chosen.put(FlowIndex(place), facts);
    }
    let look = |chosen: &mut Chosen, now: u64| -> Vec<u32> {
        let now = Instant::from_millis(now);
        chosen.begin_turn(now, end);
        let next = || chosen.next(now, end, |of| (of == waits.fingerprint()).then_some(&waits));
        std::iter::from_fn(next).map(|(place, _)| place.0).collect()
    };
    assert_eq!(look(&mut chosen, 1), [0, 7]);
    assert!(look(&mut chosen, 1).is_empty(), "no time has passed");
    assert_eq!(look(&mut chosen, 2), [1500]);
    assert_eq!(look(&mut chosen, 3), [2999, 0, 7]);
    assert_eq!(look(&mut chosen, 100).len(), 4, "never more than a round");
    chosen.close(FlowIndex(7));
    assert_eq!(look(&mut chosen, 200).len(), 3);
    // What is not gone on with in one turn is in the next one, though no time passes between.
    chosen.begin_turn(Instant::from_millis(300), end);
    let policy_of = |of| (of == waits.fingerprint()).then_some(&waits);
    assert!(chosen.next(Instant::from_millis(300), end, policy_of).is_some());
    assert_eq!(look(&mut chosen, 300).len(), 2);
}

#[test]
fn what_was_noted_under_other_rules_or_before_this_one_led_again_is_looked_at_once_though_it_was_closed() {
    let rules = policy(&[Rule { packets_min: 5, ..rule(false) }]);
    let (end, shard) = (3000u32, ShardId(1));
    let look = |chosen: &mut Chosen, now: u64, are_known: bool| -> Vec<u32> {
        let now = Instant::from_millis(now);
        chosen.begin_turn(now, end);
        let next = || chosen.next(now, end, |_| are_known.then_some(&rules));
        std::iter::from_fn(next).map(|(place, _)| place.0).collect()
    };
    for is_other_era in [false, true] {
        let mut chosen = Chosen::new(end).expect("memory");
        chosen.look_at_all();
        assert!(!chosen.looks_at_all(), "there is nothing");
        for place in [0, 7, 2999] {
            chosen.put(FlowIndex(place), facts(&rules, b"").named(shard, Version(1)));
        }
        chosen.note_told(FlowIndex(7), shard, Version(1));
        assert!(look(&mut chosen, 10, false).is_empty(), "they are closed");
        if is_other_era {
            chosen.begin_era();
            assert_eq!(chosen.of(FlowIndex(7), shard, Version(1)), None, "it may be another flow's");
        } else {
            chosen.look_at_all();
        }
        let found = look(&mut chosen, 20, is_other_era);
        assert_eq!(found, [0, 7, 2999]);
        assert_eq!(look(&mut chosen, 30, is_other_era), found, "until it is done");
        found.iter().for_each(|place| chosen.forget_rules(FlowIndex(*place)));
        for now in [40, 50, 60] {
            assert!(look(&mut chosen, now, is_other_era).is_empty());
        }
        assert!(!chosen.looks_at_all());
        let told = chosen.of(FlowIndex(7), shard, Version(1)).is_some_and(|facts| facts.was_told());
        assert_eq!(told, !is_other_era, "its port is to wait still");
    }
}

#[test]
fn what_is_put_off_is_looked_at_until_it_is_done_and_what_was_taken_up_lately_is_known() {
    let policy = policy(&[Rule { duration_min: Duration::from_millis(100), ..rule(true) }, rule(false)]);
    let (place, shard) = (FlowIndex(1), ShardId(1));
    let mut chosen = Chosen::new(4).expect("memory");
    let mut known = facts(&policy, b"").named(shard, Version(1));
    known.decided(policy.decide(&known, &Measures::default()));
    assert!(policy.holds_still(&known, &after(99, 9, 9)) && !policy.holds_still(&known, &after(100, 9, 9)));
    assert_eq!([0, 1, 2].map(|rule| policy.mirrors(rule)), [true, true, false]);
    known.put_off();
    chosen.put(place, known);
    for now in [6, 7] {
        let now = Instant::from_millis(now);
        chosen.begin_turn(now, 4);
        assert!(chosen.next(now, 4, |_| Some(&policy)).is_some());
    }
    let lately = |chosen: &Chosen, now| {
        chosen.of(place, shard, Version(1)).expect("facts").was_taken_up_lately(Instant::from_millis(now))
    };
    assert!(!lately(&chosen, 6));
    // It began at 5 ms.
    for at in [5, 70_000] {
        chosen.note_taken_up(Instant::from_millis(at), place, shard, Version(1));
        assert!(lately(&chosen, at) && lately(&chosen, at + 999) && !lately(&chosen, at + 1002));
    }
}

#[test]
fn of_rules_about_age_alone_no_flow_is_looked_at_before_its_time() {
    let old = Rule { duration_min: Duration::from_millis(100), ..rule(true) };
    let policy = policy(&[old, rule(false)]);
    let mut chosen = Chosen::new(4).expect("memory");
    let mut facts = facts(&policy, b"").named(ShardId(1), Version(1));
    facts.decided(policy.decide(&facts, &Measures::default()));
    chosen.put(FlowIndex(1), facts);
    for (now, is_due) in [(50, false), (104, false), (105, true), (106, true)] {
        let now = Instant::from_millis(now);
        chosen.begin_turn(now, 4);
        assert_eq!(chosen.next(now, 4, |_| Some(&policy)).is_some(), is_due, "{now}");
    }
}
