//! A member that tracks certain virtual servers only (REQ B8).

use super::world::{Setup, World};
use crate::failover::{FailoverEvent, Role};

fn three(partial: usize) -> World {
    let setup = Setup { nodes: 3, partial: Some(partial), ..Setup::default() };
    World::settled(1, setup)
}

#[test]
fn who_tracks_a_part_only_is_never_in_sync_and_does_not_lead_while_another_one_can() {
    for partial in 0..3 {
        let mut world = three(partial);
        let leader = world.leader();
        let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        for at in &others {
            assert_eq!(world.status(*at).in_sync, *at != partial, "node {} of {partial}", at + 1);
        }
        world.kill(leader);
        world.run_ms(500);
        let next = world.leader();
        assert_ne!(next, partial, "one that has everything leads");
        let degraded =
            |event: &&FailoverEvent| matches!(event, FailoverEvent::Promoted { degraded: true, .. });
        assert!(!world.events(next).iter().any(degraded), "{}", world.story());
    }
}

#[test]
fn who_tracks_a_part_only_leads_degraded_when_nobody_else_can() {
    let mut world = three(2);
    let leader = world.leader();
    assert_ne!(leader, 2);
    world.kill(leader);
    world.run_ms(500);
    let next = world.leader();
    world.kill(next);
    world.run_ms(500);
    assert_eq!(world.role(2), Role::Active);
    assert!(world.status(2).degraded);
}

/// The other one has the lower number, and would lead otherwise.
#[test]
fn of_two_that_are_not_in_sync_the_one_that_tracks_everything_leads() {
    let mut world = three(1);
    let (leader, full) = (0, 2);
    assert_eq!(world.leader(), leader);
    // Its mirror acknowledges nothing: it leaves the in-sync set.
    world.nodes[full].acknowledges_nothing_since = Some(world.now_us);
    world.client_comes(leader);
    world.run_ms(400);
    assert!(!world.status(full).in_sync && world.leader() == leader, "{}", world.story());
    world.kill(leader);
    world.run_ms(1000);
    assert_eq!(world.leader(), full, "{}", world.story());
}
