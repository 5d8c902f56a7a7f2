//! How far connections have come, said without acknowledgement (REQ B6).

use super::*;

const EVERY: Option<Duration> = Some(Duration::from_millis(40));
/// Turns after which what has changed is said, though it fills no frame.
const GATHERED: usize = 4;

/// A pair, of which the follower knows some flows, and nothing is lost.
fn at_rest(seed: u64) -> World {
    let mut world = World::maintaining(seed, Variant::Sound, EVERY);
    world.follow(1);
    (0..60).for_each(|_| world.change(0));
    world.settle(0).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    world.lossy = false;
    world.differences = 0;
    world
}

/// A step of each connection, and no more.
fn step_all(world: &mut World) {
    for Worker { mirror, flows } in &mut world.sides[0] {
        let all: Vec<_> = flows.table.iter().map(|(place, flow)| (place, flow.shard, flow.tcp)).collect();
        for (place, shard, tcp) in all {
            let stamp = Stamp { term: mirror.standing().term, version: flows.next_version(shard) };
            let tcp =
                if tcp == TcpState::FinFromClient { TcpState::Closing } else { TcpState::FinFromClient };
            flows.table.update(place, |flow| (flow.changed, flow.tcp) = (stamp, tcp));
            mirror.flow_changed(world.now, shard, place, false, &flows.table);
        }
    }
}

fn count(world: &World, side: usize, what: impl Fn(&StreamStatus) -> u64) -> u64 {
    world.sides[side].iter().flat_map(|worker| worker.mirror.streams()).map(|stream| what(&stream)).sum()
}

#[test]
fn a_lossy_link_role_changes_and_new_sessions_leave_both_tables_equal() {
    for seed in 0..24 {
        let world = World::maintaining(seed, Variant::Sound, EVERY);
        world.run(false).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn shards_go_from_worker_to_worker_with_all_that_may_have_been_lost() {
    for seed in 0..24 {
        let world = World::maintaining(seed, Variant::Sound, EVERY);
        world.run(true).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn a_step_of_a_connection_is_not_acknowledged_and_is_said_in_each_round() {
    let mut world = at_rest(1);
    let flows = world.flows(0).len() as u64;
    let checkpoints = |world: &World| count(world, 0, |stream| stream.statistics.checkpoints_sent);
    let before = (checkpoints(&world), count(&world, 0, |stream| stream.statistics.records_applied));
    step_all(&mut world);
    (0..GATHERED).for_each(|_| world.turn());
    assert_eq!(checkpoints(&world), before.0 + flows, "all at once");
    let in_flight = |named: &in_flight::Named| named.is_state();
    assert!(!world.sides[0][0].mirror.peers[0].streams.iter().any(|stream| stream.in_flight.has(in_flight)));
    world.turn();
    assert_eq!(world.flows(0), world.flows(1));
    // Fewer than these are said with a question, and acknowledged with it.
    let asked = checkpoints(&world);
    (0..1000).for_each(|_| world.turn());
    let again = checkpoints(&world) - asked
        + (count(&world, 0, |stream| stream.statistics.records_applied) - before.1);
    assert!((flows * 4..=flows * 6).contains(&again), "{again} of {flows} flows in 200 ms, of 40 ms each");
    assert_eq!((world.differences, count(&world, 0, |stream| stream.statistics.records_lost)), (0, 0));
}

#[test]
fn what_was_in_a_lost_frame_comes_again_and_no_shard_is_walked_for_it() {
    for seed in 0..8 {
        let mut world = at_rest(seed);
        step_all(&mut world);
        let mut lost = 0;
        for _ in 0..GATHERED {
            world.turn();
            lost += world.link.drain(..).count();
        }
        assert!(lost > 0);
        assert_ne!(world.flows(0), world.flows(1));
        for _ in 0..600 {
            world.turn();
            world.check_known(0).expect("what is confirmed");
        }
        assert_eq!(world.flows(0), world.flows(1));
        assert_eq!(world.differences, 0, "seed {seed}");
        let late = |since: Option<Instant>| since.map_or(Duration::ZERO, |since| world.now - since);
        let progress = world.sides[0][0].mirror.progress().next().expect("a peer");
        assert!(late(progress.oldest_since) < Duration::from_millis(20));
    }
}

/// As it is where its table is smaller than the leader's, and handles share their places.
#[test]
fn a_handle_that_the_peer_has_forgotten_is_told_of_and_the_flow_named_in_full() {
    let mut world = at_rest(3);
    for Worker { mirror, flows } in &mut world.sides[1] {
        let places: Vec<_> = flows.table.iter().map(|(place, _)| place).collect();
        let streams = mirror.peers.iter_mut().flat_map(|peer| &mut peer.streams);
        streams.for_each(|stream| places.iter().for_each(|place| stream.received.forget(*place)));
    }
    step_all(&mut world);
    (0..40).for_each(|_| world.turn());
    assert_eq!((world.flows(0), world.differences), (world.flows(1), 0));
    let unknown = world.counters.value(Counter::MirrorHandleUnknown);
    let before = count(&world, 0, |stream| stream.statistics.checkpoints_sent);
    step_all(&mut world);
    (0..4).for_each(|_| world.turn());
    assert_eq!(world.flows(0), world.flows(1));
    let by_handle = count(&world, 0, |stream| stream.statistics.checkpoints_sent) - before;
    assert_eq!(world.counters.value(Counter::MirrorHandleUnknown), unknown);
    assert!(unknown > 0 && by_handle >= world.flows(0).len() as u64, "{by_handle} by their handles again");
}

/// It stays as it was: the flow is not protected, and all others are.
#[test]
fn a_flow_that_the_peer_refuses_is_told_of_with_its_reason_and_takes_nobody_out() {
    let mut world = at_rest(4);
    let before = world.flows(1).len();
    world.refuses = true;
    while world.flows(0).len() < before + 3 {
        world.change(0);
    }
    for _ in 0..20_000 {
        world.turn();
        let progress = world.sides[0][0].mirror.progress().next().expect("a peer");
        let late = progress.oldest_since.map_or(Duration::ZERO, |since| world.now - since);
        assert!(progress.walk_done && late < Duration::from_millis(20), "{late:?}");
    }
    assert!(count(&world, 0, |stream| stream.refused.into()) > 0);
    let reasons: Vec<_> = world.sides[0][0].mirror.streams();
    assert!(reasons.iter().any(|stream| stream.statistics.refusal == Some(Refusal::TableFull)));
    world.refuses = false;
    world.settle(0).expect("all is told");
}

/// What waits for a shard to be quiet waits no longer than for what was said before.
#[test]
fn rounds_pass_over_shards_that_are_about_to_leave() {
    let mut world = at_rest(6);
    let sent = |world: &World| count(world, 0, |stream| stream.statistics.checkpoints_sent);
    let all: ShardSet = (0..SHARDS_USED).map(ShardId).collect();
    for (passes_over, says) in [(all, false), (ShardSet::default(), true)] {
        world.sides[0][0].mirror.pass_over(passes_over);
        (0..20).for_each(|_| world.turn());
        let before = sent(&world);
        (0..500).for_each(|_| world.turn());
        assert_eq!(sent(&world) > before, says);
    }
}

/// Before a shard moves, nothing of it that was given up may still come; then its packets wait, and nothing of it is on its way.
#[test]
fn a_shard_whose_connections_take_steps_all_the_time_can_be_moved() {
    let mut world = at_rest(5);
    for shard in (0..SHARDS_USED).map(ShardId) {
        let shards = [shard].into_iter().collect();
        for _ in 0..500 {
            step_all(&mut world);
            world.turn();
            assert!(!world.sides[0][0].mirror.may_have_strays(&shards), "{shard}: it would not begin");
        }
        let quiet = (0..10).position(|_| {
            world.turn();
            world.sides[0][0].mirror.is_quiet(&shards)
        });
        assert!(quiet.is_some(), "{shard}");
    }
}
