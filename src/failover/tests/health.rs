//! Health that counts in who leads: a leader hands over to one in sync that is healthier, for long enough, and not
//! again and again.

use super::pair::{pair, promoted, sound};
use super::world::{HOLD_MS, Setup, World};
use crate::base::counters::Counter;
use crate::failover::event::{Cause, FailoverEvent};
use crate::failover::{Health, Operator, Refusal, Role};

/// A handover takes less, once it begins.
const HANDOVER_MS: u64 = 30;

fn ill(failed: u8) -> Health {
    Health { failed, doubtful: 0 }
}

/// Handovers for the sake of health that a node began.
fn yielded(world: &World, at: usize) -> usize {
    world.events(at).iter().filter(|event| matches!(event, FailoverEvent::LessHealthy { .. })).count()
}

#[test]
fn a_leader_that_is_less_healthy_for_long_enough_hands_over_and_loses_nothing() {
    let mut world = pair();
    world.health(0, ill(1));
    world.run_ms(HOLD_MS - 20);
    assert_eq!(world.leader(), 0, "it may pass");
    world.run_ms(20 + HANDOVER_MS);
    assert_eq!(world.leader(), 1, "{}", world.story());
    assert_eq!(promoted(&world, 1), [(Cause::HandedOver, false)]);
    assert_eq!(world.machine(0).failover.counters().value(Counter::HealthHandovers), 1);
    assert_eq!(world.status(1).peers[0].failed, Some(1));
    world.health(0, Health::WELL);
    world.run_ms(5000);
    assert_eq!(world.leader(), 1, "being as healthy again is no reason to lead");
    assert_eq!((yielded(&world, 0), yielded(&world, 1)), (1, 0));
    sound(&world);
}

#[test]
fn what_passes_before_its_time_moves_nobody() {
    let mut world = pair();
    for _ in 0..10 {
        world.health(0, ill(2));
        world.run_ms(HOLD_MS - 20);
        world.health(0, Health::WELL);
        world.run_ms(20);
    }
    assert_eq!(world.leader(), 0, "{}", world.story());
    assert_eq!(yielded(&world, 0), 0);
    sound(&world);
}

#[test]
fn both_as_ill_keep_the_leader_and_so_does_a_leader_that_is_healthier() {
    let mut world = pair();
    world.health(1, ill(1));
    world.run_ms(5 * HOLD_MS);
    assert_eq!(world.leader(), 0);
    world.health(0, ill(1));
    world.run_ms(5 * HOLD_MS);
    assert_eq!(world.leader(), 0, "{}", world.story());
    world.health(1, Health::WELL);
    world.run_ms(HOLD_MS + HANDOVER_MS);
    assert_eq!(world.leader(), 1, "one of them healed");
    assert_eq!((yielded(&world, 0), yielded(&world, 1)), (1, 0));
    sound(&world);
}

#[test]
fn what_a_standby_doubts_counts_against_it_and_what_a_leader_doubts_does_not() {
    let mut world = pair();
    // A server died that both ask: the leader has just found out, the standby is about to.
    world.health(1, Health { failed: 0, doubtful: 1 });
    world.health(0, ill(1));
    world.run_ms(5 * HOLD_MS);
    assert_eq!(world.leader(), 0, "{}", world.story());
    world.health(1, ill(1));
    world.health(0, Health { failed: 0, doubtful: 2 });
    world.run_ms(5 * HOLD_MS);
    assert_eq!(world.leader(), 0);
    assert_eq!((yielded(&world, 0), yielded(&world, 1)), (0, 0));
    sound(&world);
}

#[test]
fn nobody_hands_over_for_health_to_a_standby_that_is_not_in_sync() {
    let mut world = pair();
    world.nodes[1].acknowledges_nothing_since = Some(world.now_us);
    world.run_ms(1500);
    assert!(!world.status(0).peers[0].in_sync, "{}", world.story());
    world.health(0, ill(3));
    world.run_ms(5 * HOLD_MS);
    assert_eq!(world.leader(), 0, "{}", world.story());
    world.nodes[1].acknowledges_nothing_since = None;
    world.run_ms(2000);
    assert_eq!(world.leader(), 1, "it came in sync: {}", world.story());
    sound(&world);
}

#[test]
fn nobody_hands_over_for_health_to_a_standby_that_cannot_write_its_term_file() {
    let mut world = pair();
    world.disk_full.insert(1);
    // It uses up what it has reserved.
    for _ in 0..3 {
        world.kill(1);
        world.run_ms(100);
        world.start(1);
        world.run_ms(1700);
    }
    assert_eq!(world.status(0).peers[0].can_lead, Some(false), "{}", world.story());
    world.health(0, ill(1));
    world.run_ms(5 * HOLD_MS);
    assert_eq!(world.leader(), 0, "{}", world.story());
    sound(&world);
}

#[test]
fn the_healthiest_of_those_in_sync_is_handed_over_to() {
    let mut world = World::settled(5, Setup { nodes: 3, ..Setup::default() });
    assert_eq!(world.leader(), 0);
    world.health(0, ill(3));
    world.health(1, ill(2));
    world.run_ms(HOLD_MS + HANDOVER_MS);
    assert_eq!(world.leader(), 2, "{}", world.story());
    sound(&world);
}

#[test]
fn a_dead_leader_is_followed_by_the_healthier_standby_in_sync_and_by_any_if_there_is_no_other() {
    let mut world = World::settled(6, Setup { nodes: 3, ..Setup::default() });
    world.health(1, ill(1));
    world.run_ms(20);
    world.kill(0);
    world.run_ms(150);
    assert_eq!(world.leader(), 2, "{}", world.story());
    world.kill(2);
    world.run_ms(150);
    assert_eq!(world.leader(), 1, "it serves as well as it can: {}", world.story());
    sound(&world);
}

#[test]
fn an_ill_standby_in_sync_follows_a_dead_leader_before_a_healthy_one_that_lacks_flows() {
    let mut world = World::settled(7, Setup { nodes: 3, ..Setup::default() });
    world.nodes[2].acknowledges_nothing_since = Some(world.now_us);
    world.run_ms(1500);
    world.health(1, ill(1));
    world.run_ms(20);
    world.kill(0);
    world.run_ms(150);
    assert_eq!(world.leader(), 1, "{}", world.story());
    world.nodes[2].acknowledges_nothing_since = None;
    world.run_ms(2000);
    assert_eq!(world.leader(), 2, "and hands over when that one has them: {}", world.story());
    sound(&world);
}

#[test]
fn a_higher_priority_does_not_take_the_lead_back_while_it_is_less_healthy() {
    let mut world = World::new(8, Setup { preempt: true, ..Setup::default() });
    world.nodes[0].priority = 200;
    (0..2).for_each(|at| world.start(at));
    world.run_ms(400);
    assert_eq!(world.leader(), 0);
    world.health(0, ill(1));
    world.run_ms(HOLD_MS + 3000);
    assert_eq!(world.leader(), 1, "{}", world.story());
    assert_eq!(promoted(&world, 1).len(), 1);
    world.health(0, Health::WELL);
    world.run_ms(500);
    assert_eq!(world.leader(), 0, "and takes it when it is as healthy: {}", world.story());
    sound(&world);
}

#[test]
fn illness_that_follows_the_lead_moves_it_less_and_less_often() {
    let mut world = pair();
    // Whoever leads is ill, and heals when it does not: each time the other one looks better.
    let mut moves = Vec::new();
    let mut leader = 0;
    let begin = world.now_us;
    while world.now_us - begin < 20_000_000 {
        world.run_ms(10);
        for at in 0..2 {
            let leads = world.role(at).claims();
            world.health(at, if leads { ill(1) } else { Health::WELL });
            if leads && at != leader {
                leader = at;
                moves.push(world.now_us);
            }
        }
    }
    let gaps: Vec<u64> = moves.windows(2).map(|pair| (pair[1] - pair[0]) / 1000).collect();
    assert!(gaps[0] >= HOLD_MS && gaps.windows(3).all(|three| three[2] > three[0]), "{gaps:?}");
    // Without damping there would be one in each HOLD_MS.
    assert!(moves.len() < 16, "{gaps:?}");
    sound(&world);
}

#[test]
fn the_operator_is_told_that_the_standby_is_less_healthy() {
    let mut world = pair();
    world.health(1, ill(1));
    world.run_ms(20);
    let refused = world.operator(0, Operator::Switchover).unwrap_err();
    assert_eq!(refused, Refusal::LessHealthy(crate::base::ids::NodeId(2)));
    world.operator(0, Operator::Shutdown).unwrap();
    world.run_ms(100);
    assert_eq!(world.leader(), 1, "who leaves hands over all the same");
    sound(&world);
}

#[test]
fn one_that_boots_ill_leaves_the_lead_to_a_healthy_one_and_leads_when_it_is_alone() {
    let mut world = World::new(9, Setup::default());
    world.nodes[0].priority = 200;
    (0..2).for_each(|at| world.start(at));
    world.health(0, ill(1));
    world.run_ms(400);
    assert_eq!(world.leader(), 1, "{}", world.story());
    world.kill(1);
    world.run_ms(150);
    assert_eq!((world.leader(), world.role(0)), (0, Role::Active));
    sound(&world);
}
