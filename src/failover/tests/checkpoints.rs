//! Members that are set to other checkpoints.

use super::world::{Setup, World};
use crate::failover::FailoverEvent;

/// REQ B6: it hinders nothing.
#[test]
fn who_is_set_to_other_checkpoints_is_named_once_by_each_and_comes_in_sync() {
    let mut world = World::settled(1, Setup { nodes: 3, periodic: Some(2), ..Setup::default() });
    world.run_ms(500);
    for (at, others) in [(0, vec![2]), (1, vec![2]), (2, vec![0, 1])] {
        let events = world.events(at);
        let named = |event: &&FailoverEvent| {
            if let FailoverEvent::CheckpointsDiffer(node) = event {
                Some(usize::from(node.0) - 1)
            } else {
                None
            }
        };
        let mut named: Vec<_> = events.iter().filter_map(named).collect();
        named.sort_unstable();
        assert_eq!(named, others, "node {}: {}", at + 1, world.story());
        assert!(at == world.leader() || world.status(at).in_sync, "node {}", at + 1);
    }
}
