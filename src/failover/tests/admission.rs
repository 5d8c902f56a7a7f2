//! Coming into the in-sync set while clients come.

use super::world::{Setup, World};
use crate::base::ids::NodeId;
use crate::failover::Role;
use crate::failover::insync::Change;

/// Node 1 leads and node 3 is in sync. Node 2 has just been restarted, is reported to have everything, and acknowledges
/// nothing more from the moment in which it is about to be admitted. Then a client comes, just before workers hold for it.
fn admitting(seed: u64) -> World {
    let mut world = World::settled(seed, Setup { nodes: 3, ..Setup::default() });
    assert_eq!(world.leader(), 0, "{}", world.story());
    world.kill(1);
    world.run_ms(100);
    world.start(1);
    for _ in 0..1000 {
        world.turn();
        let change = world.machine(0).failover.insync.change;
        if matches!(change, Change::Admitting { node: NodeId(2), .. }) {
            world.nodes[1].acknowledges_nothing_since = Some(world.now_us);
            world.client_comes(0);
            return world;
        }
    }
    panic!("it is not admitted: {}", world.story());
}

#[test]
fn a_standby_is_told_that_it_is_in_sync_only_with_the_flows_that_only_others_had_acknowledged() {
    for seed in 0..15 {
        for wait_ms in [3, 15, 40] {
            let mut world = admitting(seed);
            world.run_ms(wait_ms);
            assert!(!world.status(1).in_sync, "seed {seed}: {}", world.story());
            world.kill(0);
            world.run_ms(200);
            assert!(world.lost.is_empty(), "seed {seed}: {:?}\n{}", world.lost, world.story());
        }
    }
}

#[test]
fn a_standby_that_acknowledges_no_more_is_not_admitted_and_holds_up_nobody_for_long() {
    let mut world = admitting(1);
    world.run_ms(250);
    let leader = &world.machine(0).failover;
    assert_eq!(leader.insync.change, Change::None, "{}", world.story());
    assert!(!world.status(1).in_sync && world.status(2).in_sync);
    world.nodes[1].acknowledges_nothing_since = None;
    world.run_ms(100);
    assert!(world.status(1).in_sync, "{}", world.story());
    world.kill(0);
    world.run_ms(100);
    assert_eq!(world.role(1), Role::Active, "{}", world.story());
    assert!(world.lost.is_empty(), "{:?}", world.lost);
}
