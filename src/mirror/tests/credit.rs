//! A peer that has room for few ends is sent few frames, and one that answers none is seen.

use super::*;
use crate::base::limits::SHARDS;
use crate::mirror::tombstone::GRAVES_MAX;

impl World {
    /// The stream of the leader's that tells of shards of the follower's first worker.
    fn told(&mut self) -> &mut Stream {
        let streams = &mut self.sides[0][0].mirror.peers[0].streams;
        streams.iter_mut().find(|stream| stream.peer_worker == WorkerId(0)).expect("a stream")
    }

    /// The follower's end of it, and the rest of that worker.
    fn remember_ends(&mut self, count: usize) {
        let Worker { mirror, flows } = &mut self.sides[1][0];
        let Mirror { peers, digests, .. } = mirror;
        let stream = peers[0].streams.iter_mut().find(|stream| stream.peer_worker == WorkerId(0));
        let Stream { received, acknowledgement, .. } = stream.expect("a stream");
        let term = Term { counter: 1, node: node(0) };
        let place = Place { sequence: 0, newest: acknowledgement.next, term, is_current: true };
        for port in 0..count {
            let stamp = Stamp { term, version: crate::base::ids::Version(1) };
            let client = Key { src_port: port as u16, dst_port: 9, ..Key::default() };
            let ended = Record::Delete { shard: ShardId(0), stamp, client };
            received.apply(&ended, place, flows, digests, &mut Anything { refuses: false });
        }
    }
}

#[test]
fn with_no_room_for_ends_at_the_peer_one_frame_is_on_its_way_and_all_come_to_be_known() {
    let mut world = World::new(1, Variant::Sound);
    world.follow(1);
    world.settle(0).expect("both alike");
    assert!(usize::from(world.told().credit) > SHARDS / 2, "there is room for most of a window");
    world.remember_ends(GRAVES_MAX);
    world.lossy = false;
    let (mut most, mut turns) = (0, 0);
    // Its frames move the peer's window, and then there is room again.
    while turns < 20_000 && (turns < 100 || world.told().credit == 0) {
        world.change(0);
        world.turn();
        turns += 1;
        if world.told().credit == 0 {
            most = most.max(world.told().in_flight.waiting());
        }
    }
    assert!(most <= 1, "{most} frames were on their way");
    assert!((200..20_000).contains(&turns), "{turns} turns");
    world.settle(0).expect("both alike");
}

/// REQ B5: that a peer is synchronized has to be heard again and again.
#[test]
fn a_stream_that_is_not_answered_is_seen_although_nothing_changes() {
    let mut world = World::new(2, Variant::Sound);
    world.follow(1);
    (0..20).for_each(|_| world.change(0));
    world.settle(0).expect("both alike");
    let silent_for = |world: &World| {
        let progress = world.sides[0][0].mirror.progress().next().expect("a peer");
        progress.oldest_since.map_or(Duration::ZERO, |since| world.now - since)
    };
    assert!(silent_for(&world) < Duration::from_millis(20));
    for _ in 0..5000 {
        world.turn();
        world.link.clear();
    }
    assert!(silent_for(&world) > Duration::from_millis(800), "{:?}", silent_for(&world));
    world.settle(0).expect("both alike");
    assert!(silent_for(&world) < Duration::from_millis(20), "{:?}", silent_for(&world));
}

/// A stream that has parted with all of its shards asks nothing any more, so what it was not answered says nothing of the peer.
#[test]
fn a_stream_without_shards_waits_for_no_answer() {
    let mut world = World::new(3, Variant::Sound);
    world.follow(1);
    (0..20).for_each(|_| world.change(0));
    world.settle(0).expect("both alike");
    (0..20).for_each(|_| world.change(0));
    for _ in 0..50 {
        world.turn();
        world.link.clear();
    }
    assert!(world.told().unanswered_since.is_some());
    let Worker { mirror, flows } = &mut world.sides[0][0];
    let all: Vec<_> = flows.table.iter().map(|(place, flow)| (place, flow.shard)).collect();
    all.iter().for_each(|(place, shard)| mirror.flow_left(world.now, *shard, *place));
    (0..SHARDS as u16).for_each(|shard| drop(mirror.part_with(ShardId(shard))));
    assert_eq!(world.told().unanswered_since, None);
}
