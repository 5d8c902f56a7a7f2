//! A standby that followed somebody else meanwhile.

use super::*;

/// Bug: what it had acknowledged before counted, and its true answer about a digest as a fault, until there was a new session.
#[test]
fn a_leader_that_led_on_counts_on_nothing_of_a_standby_that_followed_somebody_else() {
    for seed in 0..4 {
        let mut world = World::new(seed, Variant::Sound);
        world.follow(1);
        (0..60).for_each(|_| world.change(0));
        world.settle(0).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        world.lossy = false;
        // Node 3 leads it, and ends all flows that the first worker has.
        world.terms += 1;
        let term = Term { counter: world.terms, node: NodeId(3) };
        world.stand(1, Standing { leads: false, term });
        let Worker { mirror, flows } = &mut world.sides[1][0];
        let places: Vec<FlowIndex> = flows.table.iter().map(|(place, _)| place).collect();
        assert!(!places.is_empty(), "seed {seed}");
        for place in places {
            mirror.flow_is_gone(place);
            flows.table.remove(place).expect("a flow");
        }
        for _ in 0..10 {
            world.turn();
            // The two are cut off from each other.
            world.link.clear();
        }
        // The former leader learns of that term, goes above it, and is heard again.
        world.now += Duration::from_secs(1);
        world.lead(0);
        (0..20).for_each(|_| world.turn());
        world.check_known(0).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        world.settle(0).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let found = world.counters.value(Counter::MirrorDigestDiffers);
        assert_eq!((world.differences, found), (0, 0), "seed {seed}");
    }
}

/// A standby that goes on with the same leader under a later term is told nothing again.
#[test]
fn a_later_term_of_the_same_leader_takes_back_nothing() {
    let mut world = World::new(1, Variant::Sound);
    world.follow(1);
    (0..60).for_each(|_| world.change(0));
    world.settle(0).expect("both are equal");
    let known = |world: &World| world.sides[0][0].mirror.known_to_all(&[node(1)]);
    let before = known(&world);
    world.lead(0);
    world.follow(1);
    (0..20).for_each(|_| world.turn());
    assert!(before > 0 && known(&world) == before, "{before} flows were known, and {} are", known(&world));
}
