//! What an operator asks for, done or refused with a sentence.

use super::pair::{pair, promoted, safe_pair, sound};
use super::world::World;
use crate::failover::event::{Cause, FailoverEvent};
use crate::failover::{Operator, Refusal, Role, State};

#[test]
fn a_switchover_is_refused_with_a_sentence_by_a_standby_and_without_one_in_sync() {
    let mut world = pair();
    let refused = |world: &mut World, at, operator| world.operator(at, operator).unwrap_err().to_string();
    assert_eq!(refused(&mut world, 1, Operator::Switchover), "it is standby: ask the active appliance");
    world.kill(1);
    world.run_ms(100);
    assert_eq!(refused(&mut world, 0, Operator::Switchover), "no standby is in sync");
    assert_eq!(world.leader(), 0);
}

#[test]
fn a_promotion_is_refused_with_a_sentence_by_whoever_leads_and_while_a_leader_is_heard() {
    let mut world = safe_pair();
    let refused = |world: &mut World, at| world.operator(at, Operator::Promote).unwrap_err().to_string();
    assert_eq!(refused(&mut world, 0), "it leads already");
    let heard = "node 1 is heard to lead: hand over there, with `baton switchover`";
    assert_eq!(refused(&mut world, 1), heard);
    world.kill(0);
    assert_eq!(refused(&mut world, 1), heard, "it was, until a moment ago");
    world.run_ms(100);
    world.operator(1, Operator::Promote).unwrap();
    world.run_ms(10);
    assert_eq!(world.leader(), 1);
    world.start(0);
    world.run_ms(300);
    world.operator(1, Operator::Switchover).unwrap();
    world.run_ms(10);
    assert_eq!(world.leader(), 0, "{}", world.story());
    sound(&world);
}

#[test]
fn whoever_has_just_handed_over_is_not_promoted_before_its_successor_had_its_time() {
    let mut world = safe_pair();
    world.operator(0, Operator::Switchover).unwrap();
    // The successor dies with the word of it still under way.
    while world.role(0) != Role::Standby {
        world.run_ms(1);
    }
    world.kill(1);
    assert_eq!(world.operator(0, Operator::Promote), Err(Refusal::JustResigned), "{}", world.story());
}

#[test]
fn in_a_partition_with_safety_the_operator_can_have_two_serve_and_the_promoted_one_stays_when_it_heals() {
    let mut world = safe_pair();
    world.cut_all(0, 1);
    world.cut_all(1, 0);
    world.run_ms(200);
    world.operator(1, Operator::Promote).unwrap();
    world.run_ms(100);
    assert_eq!(world.senders(), [0, 1], "what the operator risks: {}", world.story());
    assert_eq!(promoted(&world, 1), [(Cause::Operator, true)]);
    world.cut.clear();
    world.run_ms(400);
    assert_eq!(world.leader(), 1);
    assert_eq!(world.role(0), Role::Standby);
    assert!(world.status(0).in_sync, "{}", world.story());
}

#[test]
fn who_leaves_without_a_follower_does_so_when_its_workers_have_stopped_or_a_bound_has_passed() {
    for (installs_after_us, stays_ms, gone_by_ms) in [(20_000, 15, 30), (500_000, 95, 110)] {
        let mut world = pair();
        world.kill(1);
        world.run_ms(100);
        world.nodes[0].installs_after_us = installs_after_us;
        world.operator(0, Operator::Shutdown).unwrap();
        world.run_ms(stays_ms);
        assert_eq!(world.role(0), Role::Resigning, "{}", world.story());
        assert!(world.senders().is_empty());
        world.run_ms(gone_by_ms - stays_ms);
        assert!(world.nodes[0].up.is_none(), "{}", world.story());
        let resigned = |event: &&FailoverEvent| match *event {
            FailoverEvent::Resigned { clean, .. } => Some(*clean),
            _ => None,
        };
        let clean: Vec<bool> = world.events(0).iter().filter_map(resigned).collect();
        assert_eq!(clean, [installs_after_us < 100_000]);
    }
}

#[test]
fn a_state_is_told_when_it_lasts_and_not_when_it_is_over_in_a_moment() {
    let mut world = pair();
    let told = |world: &World| -> Vec<State> {
        let now = |event: &&FailoverEvent| match *event {
            FailoverEvent::StateChanged { now, .. } => Some(*now),
            _ => None,
        };
        world.events(1).iter().filter_map(now).collect()
    };
    assert_eq!((told(&world), world.status(1).state), (vec![], State::Synchronized));
    world.run_ms(200);
    assert_eq!(told(&world), [State::Synchronized], "{}", world.story());
    // A gap of its own makes it doubt: what its leader said before is no news any more.
    for _ in 0..20 {
        world.pause_ms(1, 60);
        world.run_ms(61);
        assert_eq!(world.status(1).state, State::Synchronizing, "{}", world.story());
        world.run_ms(40);
        assert_eq!(world.status(1).state, State::Synchronized, "{}", world.story());
    }
    assert_eq!(told(&world), [State::Synchronized], "{}", world.story());
}
