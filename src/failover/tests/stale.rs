//! What is old news must not be taken for how things are now.

use super::world::{Setup, World};
use crate::failover::Operator;

#[test]
fn a_goodbye_that_waited_in_a_queue_says_nothing_of_now() {
    for seed in 0..10 {
        let mut world = World::settled(seed, Setup::default());
        let (leader, standby) = (world.leader(), 1 - world.leader());
        world.pause_ms(standby, 1500);
        world.run_ms(20);
        world.operator(leader, Operator::Shutdown).unwrap();
        world.run_ms(800);
        assert!(world.nodes[leader].up.is_none(), "it resigned, and said goodbye");
        world.start(leader);
        world.run_ms(900);
        assert_eq!(world.leader(), leader, "seed {seed}: {}", world.story());
        assert!(world.doubles.is_empty(), "seed {seed}: {:?}\n{}", world.doubles, world.story());
    }
}

#[test]
fn one_that_follows_a_dead_higher_term_serves_only_when_the_live_lower_one_has_yielded() {
    for seed in 0..20 {
        let mut world = World::settled(seed, Setup { nodes: 3, ..Setup::default() });
        // Node 2 starts again, so that its terms are above all those of the others.
        world.kill(1);
        world.run_ms(100);
        world.start(1);
        world.run_ms(300);
        assert_eq!(world.leader(), 0);
        world.pause_ms(0, 400);
        for other in [1, 2] {
            world.cut_all(0, other);
            world.cut_all(other, 0);
        }
        world.run_ms(100);
        assert_eq!(world.leader(), 1, "node 2 leads a higher term, which node 3 follows");
        world.kill(1);
        world.pause_ms(2, 700);
        world.run_ms(10);
        world.cut.clear();
        world.run_ms(390);
        assert_eq!(world.leader(), 0, "node 1 hears nobody and goes on in its lower term");
        world.run_ms(500);
        assert_eq!(world.leader(), 2, "node 3 knows of the higher term: {}", world.story());
        assert!(world.doubles.is_empty(), "seed {seed}: {:?}\n{}", world.doubles, world.story());
    }
}
