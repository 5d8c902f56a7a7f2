//! What packets wait for is not kept waiting by a walk: nothing of that goes with it, and then a frame of each stream in a turn. And
//! the memory that a member has ready from the start is its streams'.

use super::*;

#[test]
fn a_walk_says_a_short_frame_in_a_turn_and_none_while_what_packets_wait_for_is_said() {
    let mut world = World::new(1, Variant::Sound);
    (0..600).for_each(|_| world.change(0));
    world.renew_session();
    let mut now = world.now;
    let Worker { mirror, flows } = &mut world.sides[0][0];
    let (place, shard) = flows.table.iter().map(|(place, flow)| (place, flow.shard)).next().expect("a flow");
    let mut effects = Anything { refuses: false };
    let mut frames = Vec::new();
    for turn in 0..20 {
        now += Duration::from_millis(1);
        mirror.poll(now, flows, &mut effects);
        // As if all was acknowledged: nothing is kept back for what is on its way.
        mirror.peers[0].streams.iter_mut().for_each(|stream| stream.in_flight.clear());
        if turn % 2 == 1 {
            mirror.flow_changed(now, shard, place, true, &flows.table);
        }
        for may_walk in [false, true] {
            let mut out = [0; FRAME_MAX];
            let before = frames.len();
            while let Some(written) = mirror.write_frame(now, flows, may_walk, &mut out) {
                let header = Header::read(&out).expect("a frame");
                assert_eq!(Header::says_that_it_walks(&out), header.walks);
                assert!(!header.walks || written.len < 1200, "{} bytes", written.len);
                frames.push((turn, header.walks, written.worker));
            }
            let of_turn = &frames[before..];
            if may_walk {
                let streams: ShardSet = of_turn.iter().map(|frame| ShardId(frame.2.0)).collect();
                assert_eq!(streams.len(), of_turn.len(), "one of each stream: {of_turn:?}");
                assert!(of_turn.iter().all(|frame| frame.1), "{of_turn:?}");
            } else {
                let walked = of_turn.iter().any(|frame| frame.1);
                assert!(of_turn.len() == turn % 2 && !walked, "what is new alone: {of_turn:?}");
            }
        }
    }
    let walked = frames.iter().filter(|frame| frame.1).count();
    assert!(walked >= 3, "{walked} frames of the walk, of each stream one");
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
