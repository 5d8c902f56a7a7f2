//! A standby in sync that is heard and acknowledges nothing more: it goes, or it is waited for.

use super::world::{Setup, World};
use crate::config::checked::Lagging;
use crate::failover::{FailoverEvent, Role};

/// Longer than anything is waited for.
const LONG_MS: u64 = 3000;
/// In so long far more than this many clients come; no more of them are under way when nobody lags.
const MANY: usize = 50;

/// Node 1 leads, the others are in sync, and from now on node 2 acknowledges nothing. Then a client comes.
fn lagging(lagging: Lagging) -> World {
    let mut world = World::settled(1, Setup { nodes: 3, lagging, ..Setup::default() });
    assert!(world.leader() == 0 && world.status(1).in_sync && world.status(2).in_sync, "{}", world.story());
    world.nodes[1].acknowledges_nothing_since = Some(world.now_us);
    world.client_comes(0);
    world
}

fn removals(world: &World) -> usize {
    world.log.iter().filter(|(_, _, event)| matches!(event, FailoverEvent::OutOfSync { .. })).count()
}

#[test]
fn it_goes_and_the_others_are_waited_for_alone() {
    let mut world = lagging(Lagging::Remove);
    world.run_ms(LONG_MS);
    assert!(world.held(0) < MANY && removals(&world) == 1, "{}", world.story());
    assert!(!world.status(1).in_sync && world.status(2).in_sync, "{}", world.story());
    world.kill(0);
    world.run_ms(200);
    assert_eq!(world.role(2), Role::Active, "{}", world.story());
    assert!(world.lost.is_empty(), "{:?}", world.lost);
}

#[test]
fn it_stays_when_it_is_waited_for_and_nothing_goes_without_it() {
    let mut world = lagging(Lagging::Wait);
    world.run_ms(LONG_MS);
    assert!(world.held(0) > MANY && removals(&world) == 0, "{}", world.story());
    assert!(world.status(1).in_sync && world.status(2).in_sync, "{}", world.story());
    world.nodes[1].acknowledges_nothing_since = None;
    world.run_ms(100);
    assert!(world.held(0) < MANY && removals(&world) == 0, "{}", world.story());
}

#[test]
fn it_may_lead_meanwhile_and_nothing_is_lost() {
    let mut world = lagging(Lagging::Wait);
    world.run_ms(LONG_MS);
    world.kill(0);
    world.run_ms(200);
    assert_eq!(world.role(1), Role::Active, "{}", world.story());
    assert!(!world.status(1).degraded && world.lost.is_empty(), "{:?}", world.lost);
}

#[test]
fn it_is_waited_for_no_longer_when_it_is_gone() {
    let mut world = lagging(Lagging::Wait);
    world.run_ms(LONG_MS);
    world.kill(1);
    world.run_ms(200);
    assert!(world.held(0) < MANY && removals(&world) == 1, "{}", world.story());
    assert!(world.status(2).in_sync, "{}", world.story());
}
