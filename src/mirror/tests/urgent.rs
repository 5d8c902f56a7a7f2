//! What packets wait for is not kept waiting by a walk, and a walk goes on however much that is. And the memory that a member has
//! ready from the start is its streams'.

use super::*;

/// Flows of a walk that fit into a frame here.
const WALKED: u32 = 4;

/// Lengths of frames that the leader writes about shard 0, each with one change that a packet waits for, while a walk goes on.
fn lengths(count: usize) -> Vec<usize> {
    let mut world = World::new(1, Variant::Sound);
    (0..200).for_each(|_| world.change(0));
    world.renew_session();
    let now = world.now;
    let Worker { mirror, flows } = &mut world.sides[0][0];
    let shard = ShardId(0);
    let index = flows.table.iter().find(|(_, flow)| flow.shard == shard).map(|(index, _)| index);
    let sender = Sender {
        group: mirror.setup.group,
        boot: mirror.setup.boot,
        term: mirror.standing.term,
        generation: 0,
        leads: true,
        flows,
        tombstones: &mirror.tombstones,
        arriving: ShardSet::default(),
    };
    let stream = &mut mirror.peers[0].streams[0];
    let write = |_| {
        stream.sync.changed(now, shard, index.expect("a flow"));
        stream.urgent = true;
        let (mut budget, mut out) = (WALKED, [0; FRAME_MAX]);
        let len = stream.write_frame(now, &sender, &mut mirror.digests, &mut budget, &mut out);
        // As if it was acknowledged: the next one is not kept back.
        stream.in_flight.clear();
        len.expect("a frame")
    };
    (0..count).map(write).collect()
}

#[test]
fn a_frame_that_packets_wait_for_has_nothing_of_a_walk_in_it_but_each_fourth() {
    let lengths = lengths(24);
    let short = lengths[0];
    let long: Vec<usize> = (0..24).filter(|at| lengths[*at] != short).collect();
    // In its first three turns over the table the walk names who had packets lately: nobody.
    assert_eq!(long, [15, 19, 23], "{lengths:?}");
    assert!(lengths[15] > 2 * short - header::HEADER_LEN - crate::seal::frame::TAG_LEN, "{lengths:?}");
}

#[test]
fn the_memory_that_is_ready_from_the_start_is_taken_by_the_first_session() {
    let mut world = World::new(1, Variant::Sound);
    let Worker { mirror, flows } = &mut world.sides[0][0];
    mirror.close_session(node(1));
    mirror.peers[0].rooms.clear();
    mirror.populate(flows);
    assert_eq!(mirror.peers[0].rooms.len(), 1);
    world.renew_session();
    let peer = &world.sides[0][0].mirror.peers[0];
    assert!(peer.rooms.is_empty() && peer.complete && peer.streams.len() == 3);
    (0..200).for_each(|_| world.change(0));
    world.follow(1);
    world.settle(0).expect("both alike");
}
