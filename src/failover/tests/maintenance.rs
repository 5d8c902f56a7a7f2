//! One that its operator took out of service never leads, and nobody waits for it.

use super::pair::{pair, promoted, sound};
use super::world::{Setup, World};
use crate::base::ids::NodeId;
use crate::failover::event::{Cause, FailoverEvent};
use crate::failover::{Operator, Refusal, Role};

const ON: Operator = Operator::Maintenance { on: true, force: false };
const FORCED: Operator = Operator::Maintenance { on: true, force: true };
const OFF: Operator = Operator::Maintenance { on: false, force: false };

fn three() -> World {
    World::settled(31, Setup { nodes: 3, ..Setup::default() })
}

#[test]
fn an_active_hands_over_as_planned_and_stays_a_standby_in_sync_that_nothing_promotes() {
    let mut world = pair();
    world.longest_silence = 0;
    world.operator(0, ON).unwrap();
    world.run_ms(30);
    assert_eq!((world.leader(), world.role(0)), (1, Role::Standby), "{}", world.story());
    assert_eq!(promoted(&world, 1).last(), Some(&(Cause::HandedOver, false)));
    assert!(world.longest_silence < 20_000, "{} us", world.longest_silence);
    world.run_ms(300);
    assert!(world.status(0).in_sync && world.status(0).maintenance, "{}", world.story());
    assert_eq!(world.status(1).peers[0].maintenance, Some(true));
    let said = FailoverEvent::PeerMaintenance { node: NodeId(1), on: true };
    assert!(world.events(1).contains(&&said));
    assert_eq!(world.operator(1, Operator::Switchover), Err(Refusal::PeerUnderMaintenance(NodeId(1))));
    assert_eq!(world.operator(0, Operator::Promote), Err(Refusal::UnderMaintenance));
    world.kill(1);
    world.run_ms(500);
    assert!(world.senders().is_empty(), "{}", world.story());
    assert_eq!(world.operator(0, Operator::Promote), Err(Refusal::UnderMaintenance));
    world.operator(0, OFF).unwrap();
    world.run_ms(49);
    assert!(world.senders().is_empty(), "silence counts from the end of maintenance: {}", world.story());
    world.run_ms(20);
    assert_eq!(world.leader(), 0, "{}", world.story());
    sound(&world);
}

#[test]
fn it_does_not_lead_when_the_leader_leaves_or_starts_again() {
    let mut world = pair();
    world.operator(1, ON).unwrap();
    world.kill(0);
    world.start(0);
    world.run_ms(600);
    assert_eq!(world.leader(), 0, "a fresh boot leads: {}", world.story());
    assert!(promoted(&world, 1).is_empty());
    world.operator(0, Operator::Shutdown).unwrap();
    world.run_ms(500);
    assert!(world.senders().is_empty() && promoted(&world, 1).is_empty(), "{}", world.story());
    sound(&world);
}

#[test]
fn the_other_standby_does_not_wait_for_it_and_is_the_one_to_be_handed_to() {
    let mut world = three();
    let first = world.leader();
    let out = if first == 1 { 2 } else { 1 };
    let other = 3 - first - out;
    world.operator(out, ON).unwrap();
    world.run_ms(20);
    world.operator(first, Operator::Switchover).unwrap();
    world.run_ms(400);
    assert_eq!(world.leader(), other, "{}", world.story());
    world.operator(first, ON).unwrap();
    world.run_ms(20);
    world.operator(first, OFF).unwrap();
    world.run_ms(300);
    world.longest_silence = 0;
    world.kill(other);
    world.run_ms(300);
    assert_eq!(world.leader(), first, "{}", world.story());
    assert!(world.longest_silence < 80_000, "{} us", world.longest_silence);
    sound(&world);
}

#[test]
fn an_active_without_one_in_sync_refuses_unless_it_is_forced_and_then_nobody_serves() {
    let mut world = pair();
    world.kill(1);
    world.run_ms(100);
    assert_eq!(world.operator(0, ON), Err(Refusal::NoneInSync));
    assert!(!world.status(0).maintenance && world.leader() == 0);
    world.operator(0, FORCED).unwrap();
    world.run_ms(200);
    assert!(world.senders().is_empty(), "{}", world.story());
    assert_eq!(world.role(0), Role::Standby);
    world.start(1);
    world.run_ms(1000);
    assert_eq!(world.leader(), 1, "who is started then leads: {}", world.story());
    assert!(world.status(0).in_sync);
    sound(&world);
}

#[test]
fn it_is_called_off_when_the_successor_is_lost_on_the_way() {
    let mut world = pair();
    world.client_comes(0);
    world.kill(1);
    world.operator(0, ON).unwrap();
    world.run_ms(5);
    assert_eq!(world.role(0), Role::Quiescing, "{}", world.story());
    world.run_ms(200);
    assert_eq!(world.leader(), 0, "{}", world.story());
    assert!(!world.status(0).maintenance);
    assert!(world.events(0).contains(&&FailoverEvent::MaintenanceCalledOff));
    sound(&world);
}

#[test]
fn one_that_starts_so_waits_for_the_operator_and_the_others_lead_without_it() {
    let mut world = World::new(32, Setup::default());
    world.nodes[0].maintenance = true;
    world.nodes[0].priority = 200;
    world.start(0);
    world.run_ms(1000);
    assert!(world.senders().is_empty(), "{}", world.story());
    world.start(1);
    world.run_ms(400);
    assert_eq!(world.leader(), 1, "{}", world.story());
    assert_eq!(world.role(0), Role::Standby);
    world.kill(1);
    world.run_ms(300);
    assert!(world.senders().is_empty());
    world.operator(0, OFF).unwrap();
    world.run_ms(100);
    assert_eq!(world.leader(), 0);
    sound(&world);
}

#[test]
fn one_that_is_deaf_does_not_end_the_lease_of_a_leader_that_hears_it() {
    let mut world = pair();
    world.operator(1, ON).unwrap();
    world.run_ms(20);
    world.cut_all(0, 1);
    world.longest_silence = 0;
    world.run_ms(400);
    assert_eq!((world.leader(), world.longest_silence), (0, 0), "{}", world.story());
    // Silenced for another reason, it is not held back by it either.
    world.pause_ms(0, 60);
    world.run_ms(300);
    assert_eq!(world.leader(), 0, "{}", world.story());
    // Back in service it takes over, and the leader has fallen silent before.
    world.operator(1, OFF).unwrap();
    world.run_ms(300);
    assert_eq!(
        promoted(&world, 1).last().map(|(cause, _)| *cause),
        Some(Cause::Silence),
        "{}",
        world.story()
    );
    sound(&world);
}
