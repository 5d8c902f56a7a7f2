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
        assert_ne!(leader, partial, "all booted together: {}", world.story());
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

/// As after a power cut: whoever tracks everything serves, whatever the priorities say.
#[test]
fn of_those_that_boot_together_one_that_tracks_everything_leads() {
    for (nodes, partial) in [(2, 0), (2, 1), (3, 0), (3, 2)] {
        for seed in 0..10 {
            let setup = Setup { nodes, partial: Some(partial), ..Setup::default() };
            let mut world = World::new(seed, setup);
            world.nodes[partial].priority = 200;
            let mut order: Vec<usize> = (0..usize::from(nodes)).collect();
            order.rotate_left(seed as usize % usize::from(nodes));
            for at in order {
                world.start(at);
                world.run_ms(seed);
            }
            world.run_ms(400);
            assert_ne!(world.leader(), partial, "seed {seed}: {}", world.story());
        }
    }
}

/// Its file is another one when it comes back.
#[test]
fn a_member_that_comes_back_and_tracks_a_part_only_is_out_of_the_set() {
    let mut world = World::settled(1, Setup { nodes: 3, ..Setup::default() });
    let leader = world.leader();
    let at = (0..3).find(|at| *at != leader).expect("there are three");
    assert!(world.status(at).in_sync);
    world.kill(at);
    world.setup.partial = Some(at);
    world.start(at);
    world.run_ms(1000);
    assert!(world.leader() == leader && !world.status(at).in_sync, "{}", world.story());
    world.setup.partial = None;
    world.kill(at);
    world.start(at);
    world.run_ms(1000);
    assert!(world.leader() == leader && world.status(at).in_sync, "{}", world.story());
}
