//! One whose term file cannot be written: it stands by, and nobody waits for it to lead.

use super::pair::{promoted, sound};
use super::world::{Setup, World};
use crate::failover::event::{Cause, FailoverEvent};
use crate::failover::{Operator, Refusal, Role};

/// Members of equal priority, of which one cannot reserve terms, long after their start.
fn settled(nodes: u16, full: usize) -> World {
    let mut world = World::new(21, Setup { nodes, ..Setup::default() });
    world.disk_full.insert(full);
    (0..world.nodes.len()).for_each(|at| world.start(at));
    world.run_ms(1500);
    world
}

#[test]
fn the_worse_placed_of_two_standbys_does_not_wait_for_one_that_cannot_lead() {
    let mut world = settled(3, 1);
    assert_eq!(world.leader(), 0, "{}", world.story());
    assert!(world.status(1).in_sync && world.status(2).in_sync);
    assert_eq!(world.status(2).peers[1].can_lead, Some(false));
    world.longest_silence = 0;
    world.kill(0);
    world.run_ms(300);
    assert_eq!(world.leader(), 2, "{}", world.story());
    // With one that is merely better placed it is twice the takeover time.
    assert!(world.longest_silence < 80_000, "{} us", world.longest_silence);
    assert_eq!(promoted(&world, 2), [(Cause::Silence, false)]);
    assert_eq!(world.role(1), Role::Standby);
    sound(&world);
}

#[test]
fn it_stands_by_and_says_so_and_leads_once_it_can() {
    let mut world = settled(2, 1);
    assert_eq!(world.role(1), Role::Standby);
    assert!(world.status(1).in_sync && !world.status(1).can_lead);
    let said = |world: &World, wanted: &FailoverEvent| world.events(1).contains(&wanted);
    assert!(said(&world, &FailoverEvent::CannotLead) && !said(&world, &FailoverEvent::CanLead));
    assert!(world.status(0).can_lead);
    world.kill(0);
    world.run_ms(300);
    assert!(world.senders().is_empty());
    let up = world.nodes[1].up.as_mut().unwrap();
    up.failover.handle_reserved(64);
    world.run_ms(10);
    assert_eq!(world.leader(), 1, "{}", world.story());
    assert!(world.status(1).can_lead && said(&world, &FailoverEvent::CanLead));
    sound(&world);
}

#[test]
fn nobody_hands_over_to_it() {
    let mut world = settled(2, 1);
    assert_eq!(
        world.operator(0, Operator::Switchover),
        Err(Refusal::CannotLead(crate::base::ids::NodeId(2)))
    );
    world.run_ms(50);
    assert_eq!(world.leader(), 0);

    let mut world = settled(3, 1);
    world.operator(0, Operator::Switchover).unwrap();
    world.run_ms(100);
    assert_eq!(world.leader(), 2, "the other one is asked: {}", world.story());
    sound(&world);
}

#[test]
fn the_higher_priority_does_not_take_the_lead_back_while_it_cannot() {
    let mut world = World::new(22, Setup { preempt: true, ..Setup::default() });
    world.nodes[1].priority = 200;
    world.disk_full.insert(1);
    world.start(0);
    world.start(1);
    world.run_ms(2000);
    assert_eq!(world.leader(), 0, "{}", world.story());
    assert!(!world.events(0).iter().any(|event| matches!(event, FailoverEvent::HandingOver { .. })));
    sound(&world);
}
