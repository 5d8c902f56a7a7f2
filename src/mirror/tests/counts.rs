//! What streams count of what they tell, of what they are told, and of what is asked.

use super::*;

impl World {
    /// What the leader's stream to the follower's first worker has counted: told, and of that applied.
    fn counted(&self) -> (u64, u64) {
        let streams = &self.sides[0][0].mirror.peers[0].streams;
        let stream = streams.iter().find(|stream| stream.peer_worker == WorkerId(0)).expect("a stream");
        (stream.statistics.records_sent, stream.statistics.records_applied)
    }

    /// What the follower has counted as received.
    fn received(&self) -> u64 {
        let streams = self.sides[1].iter().flat_map(|worker| &worker.mirror.peers[0].streams);
        streams.map(|stream| stream.statistics.records_received).sum()
    }
}

#[test]
fn what_a_peer_applied_of_a_frame_that_it_refused_in_part_counts_as_applied() {
    let mut world = World::new(3, Variant::Sound);
    world.follow(1);
    (0..100).for_each(|_| world.change(0));
    world.settle(0).expect("both alike");
    world.lossy = false;
    let [ours, theirs] = &mut world.sides;
    let at_first_worker = |(_, flow): &(FlowIndex, Flow)| owner_of(flow.shard, WORKERS[1]) == WorkerId(0);
    let two: Vec<(FlowIndex, Flow)> = ours[0].flows.table.iter().filter(at_first_worker).take(2).collect();
    let [(first, _), _] = two[..] else { panic!("two flows of the follower's first worker") };
    // The follower knows the handle of one of them no more.
    let Worker { mirror, flows } = &mut theirs[0];
    let client = ours[0].flows.table.get(first).expect("a flow").client;
    let (place, _) = flows.table.lookup(&client).expect("it has it");
    mirror.peers[0].streams.iter_mut().for_each(|stream| stream.received.forget(place));
    let before = world.counted();
    for (place, flow) in two {
        let Worker { mirror, flows } = &mut world.sides[0][0];
        mirror.flow_changed(world.now, flow.shard, place, true, &flows.table);
    }
    world.settle(0).expect("both alike");
    let after = world.counted();
    let (told, applied) = (after.0 - before.0, after.1 - before.1);
    assert_eq!((told, applied), (3, 2), "both by their handles, and one of them again, in full");
}

#[test]
fn questions_count_neither_as_told_nor_as_received() {
    let mut world = World::new(4, Variant::Sound);
    world.follow(1);
    (0..20).for_each(|_| world.change(0));
    world.settle(0).expect("both alike");
    let rounds = |world: &World| -> u64 {
        world.sides[0][0].mirror.streams().iter().map(|status| status.agreement.rounds).sum()
    };
    let (told, received, asked) = (world.counted().0, world.received(), rounds(&world));
    world.settle(0).expect("both alike");
    assert!(rounds(&world) > asked, "it goes on asking");
    assert_eq!((world.counted().0, world.received()), (told, received));
}
