//! Moments in which two might serve, or in which bridges believe that the wrong one does.

use super::world::{Setup, World};
use crate::failover::{FailoverEvent, Role};

fn pair(seed: u64) -> World {
    let world = World::settled(seed, Setup::default());
    assert_eq!((world.leader(), world.status(1).in_sync), (0, true), "{}", world.story());
    world
}

#[test]
fn beats_that_wait_for_a_worker_lengthen_no_lease() {
    for seed in 0..60 {
        let mut world = pair(seed);
        // The standby takes over while the worker that sends the beats stands still, and then it goes on.
        world.nodes[0].stuck_until = world.now_us + 40_000 + seed * 500;
        world.run_ms(150);
        assert!(world.doubles.is_empty(), "{:?}\n{}", world.doubles, world.story());
    }
}

#[test]
fn a_leader_announces_again_as_soon_as_a_rival_yields() {
    let mut world = pair(1);
    // Nothing of the leader comes through: the other one leads, until its worker stands still; then both do.
    world.cut.extend([(0, 0, 1), (1, 0, 1)]);
    world.run_ms(150);
    assert_eq!(world.role(1), Role::Active, "{}", world.story());
    world.nodes[1].stuck_until = world.now_us + 90_000;
    for _ in 0..600 {
        world.run_ms(1);
        let claims = |at| world.role(at) == Role::Active;
        if claims(0) && claims(1) {
            break;
        }
    }
    assert_eq!((world.role(0), world.role(1)), (Role::Active, Role::Active), "{}", world.story());
    world.run_ms(120);
    world.cut.clear();
    world.run_ms(60);
    assert_eq!(world.role(1), Role::Standby, "{}", world.story());
    let followed = |(_, node, event): &&(u64, u16, FailoverEvent)| {
        *node == 2 && matches!(event, FailoverEvent::Following { .. })
    };
    let yielded = world.log.iter().rfind(followed).map(|(at, ..)| *at).expect("it follows");
    let announced = world.announced.iter().filter(|(_, node)| *node == 1).map(|(at, _)| *at);
    let after = announced.filter(|at| *at >= yielded).min();
    assert!(after.is_some_and(|at| at < yielded + 20_000), "{after:?} {yielded}\n{}", world.story());
}
