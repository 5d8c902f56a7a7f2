//! A peer that tracks certain virtual servers only (REQ B8), and one that has yet to hear of older flows (REQ B9).

use super::*;
use crate::seal::session::StreamId;

fn only(ids: &[u32]) -> Tracked {
    let ids: Vec<_> = ids.iter().map(|id| VirtualServerId(*id)).collect();
    Tracked::only(&ids).expect("few enough")
}

impl World {
    /// Of which side 1 tracks only these, under a new session.
    fn tracking(mut self, tracked: Tracked) -> World {
        self.tracked[1] = tracked;
        self.renew_session();
        self
    }
}

/// Its flows end up the same as the leader's of those virtual servers, and their digests agree; and when it leads, the other
/// one has all of its flows.
#[test]
fn a_peer_that_tracks_some_virtual_servers_has_their_flows_and_no_others() {
    for (seed, tracked) in (0..40).zip([only(&[1]), only(&[0, 2])].into_iter().cycle()) {
        for moves in [false, true] {
            let world = World::new(seed, Variant::Sound).tracking(tracked);
            world.run(moves).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        }
    }
}

/// As when its file is another one after a restart.
#[test]
fn a_peer_that_tracks_others_in_its_next_session_has_those() {
    let mut world = World::new(7, Variant::Sound).tracking(only(&[1]));
    world.follow(1);
    for tracked in [only(&[1]), only(&[2]), Tracked::ALL, only(&[0, 1])] {
        world = world.tracking(tracked);
        for _ in 0..200 {
            world.change(0);
            world.turn();
        }
        assert!(
            world.flows(0).values().any(|(_, flow)| !tracked.has(flow.virtual_server))
                || !tracked.is_partial()
        );
        world.settle(0).unwrap_or_else(|why| panic!("{tracked:?}: {why}"));
        assert_eq!(world.differences, 0, "{tracked:?}");
    }
}

/// A difference is found in what it tracks.
#[test]
fn damage_to_what_a_partial_peer_tracks_is_found_and_mended() {
    let mut world = World::new(3, Variant::Sound).tracking(only(&[1]));
    world.follow(1);
    for _ in 0..200 {
        world.change(0);
        world.turn();
    }
    world.settle(0).expect("it has all that it tracks");
    let damaged = world.sides[1].iter_mut().find_map(|worker| {
        let (place, _) = worker.flows.table.iter().next()?;
        worker.flows.table.update(place, |flow| flow.changed.version.0 += 1);
        Some(place)
    });
    assert!(damaged.is_some());
    world.settle(0).expect("it was told again");
    assert!(world.differences > 0);
}

/// REQ B9: a flow that begins is tracked from its start, whatever of the older ones is known; of an older one nothing is
/// made until a record says all of it.
#[test]
fn a_peer_tracks_new_flows_at_once_and_older_ones_when_it_has_their_context() {
    let mut world = World::new(5, Variant::Sound);
    world.lossy = false;
    world.follow(1);
    // The leader's flows from before, of which no walk says anything yet.
    for worker in &mut world.sides[0] {
        worker.mirror.setup.walk_rate = 0;
        (worker.mirror.walk_tokens, worker.mirror.walk_refilled) = (0, Instant::from_millis(1 << 40));
    }
    (0..100).for_each(|_| world.change(0));
    let older = world.flows(0);
    assert!(older.len() > 5);
    world.renew_session();
    (0..100).for_each(|_| world.turn());
    assert!(world.flows(1).is_empty(), "{:?}", world.flows(1).keys());
    (0..20).for_each(|_| world.change(0));
    (0..100).for_each(|_| world.turn());
    let (ours, theirs) = (world.flows(0), world.flows(1));
    let changed = ours.iter().filter(|(client, flow)| older.get(client) != Some(flow));
    assert_eq!(theirs, changed.map(|(client, flow)| (*client, *flow)).collect());
    assert!(!theirs.is_empty() && theirs.len() < ours.len());
    world.check_known(0).expect("what is said to be known");
    for worker in &mut world.sides[0] {
        worker.mirror.setup.walk_rate = 100_000;
        worker.mirror.walk_refilled = world.now;
    }
    world.settle(0).expect("the walk brings the rest");
}

/// Flows begin and end at its places while it follows, and nothing of that is told to the partial peer.
#[test]
fn whoever_leads_again_has_the_right_digests_of_a_part_whatever_ended_meanwhile() {
    for (seed, tracked) in (0..6).zip([only(&[1]), only(&[0, 2])].into_iter().cycle()) {
        let mut world = World::new(seed, Variant::Sound).tracking(tracked);
        for worker in world.sides.iter_mut().flatten() {
            worker.mirror.digests.audit_nothing();
        }
        world.follow(1);
        for leader in [0, 1, 0, 1, 0] {
            world.lead(leader);
            world.follow(1 - leader);
            world.lossy = false;
            for _ in 0..150 {
                (0..3).for_each(|_| world.change(leader));
                world.turn();
            }
            world.settle(leader).unwrap_or_else(|why| panic!("seed {seed}, led by {leader}: {why}"));
            assert_eq!(world.differences, 0, "seed {seed}, led by {leader}");
        }
    }
}

/// More often than parts can be told apart without a look at all places.
#[test]
fn a_peer_that_tracks_something_else_each_time_has_right_digests_every_time() {
    let mut world = World::new(11, Variant::Sound);
    for worker in world.sides.iter_mut().flatten() {
        worker.mirror.digests.audit_nothing();
    }
    world.follow(1);
    for round in 0..20 {
        world = world.tracking([only(&[1]), only(&[0, 2]), only(&[2]), only(&[0])][round % 4]);
        world.lossy = false;
        for _ in 0..20 {
            (0..3).for_each(|_| world.change(0));
            world.turn();
        }
        world.settle(0).unwrap_or_else(|why| panic!("round {round}: {why}"));
        assert_eq!(world.differences, 0, "round {round}");
    }
}

/// A change of a flow that it does not track waits nowhere.
#[test]
fn nothing_waits_for_a_peer_that_does_not_track_it() {
    let mut world = World::new(4, Variant::Sound).tracking(only(&[99]));
    world.follow(1);
    for _ in 0..200 {
        world.change(0);
        let waiting: usize = world.sides[0].iter().map(|worker| worker.mirror.waiting(node(1))).sum();
        assert_eq!(waiting, 0);
        let departed: usize = world.sides[0].iter().map(|worker| worker.mirror.departed()).sum();
        assert_eq!(departed, 0, "nor does a port");
    }
    assert!(!world.flows(0).is_empty());
    world.settle(0).expect("it has all that it tracks: nothing");
}

/// As when there was no memory for its streams: it is not there, and shards can be moved.
#[test]
fn a_peer_of_which_no_stream_could_be_had_hinders_no_move() {
    let mut world = World::new(6, Variant::Sound);
    world.follow(1);
    (0..50).for_each(|_| world.change(0));
    let [session, _] = world.sessions();
    for worker in &mut world.sides[0] {
        for theirs in 0..WORKERS[1] {
            let number = StreamId::mirror(worker.mirror.setup.worker.0, theirs);
            assert!(session.sealer(number).is_ok(), "nobody has it");
        }
        worker.mirror.open_session(node(1), &session, &worker.flows);
        assert!(!worker.mirror.is_walking());
        assert_eq!(worker.mirror.progress().count(), 0);
        assert!(!worker.mirror.is_flushed(node(1)), "it has nothing");
    }
    world.renew_session();
    assert!(world.sides[0].iter().any(|worker| worker.mirror.is_walking()), "it is there again");
    world.settle(0).expect("it has all");
}
