//! Somebody on the LAN who speaks in a member's name: nothing comes of it but that it is counted and named.

use super::world::{Setup, World};
use crate::base::counters::Counter;
use crate::base::ids::{PortId, Term};
use crate::failover::heartbeat::{Beat, FrameBytes, beat_frame, beat_parts_mut};
use crate::failover::output::WorkerReport;
use crate::failover::{FailoverEvent, Operator, Role};
use crate::seal::{Distrust, Session, StreamId};
use crate::wire::ethernet::MacAddress;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 9, 9]);

/// How often a node said that it does not believe what it heard, for this reason.
pub(super) fn told(world: &World, at: usize, why: Distrust) -> usize {
    let is_it =
        |event: &&&FailoverEvent| matches!(event, FailoverEvent::Disbelieved { what, .. } if *what == why);
    world.events(at).iter().filter(is_it).count()
}

fn give(world: &mut World, at: usize, frame: &[u8]) {
    let now = world.now();
    let machine = world.nodes[at].up.as_mut().expect("it is up");
    machine.failover.handle_frame(now, PortId(0), &mut frame.to_vec());
}

/// What the first peer of a node says last, with other words.
fn said_otherwise(world: &World, at: usize, change: impl FnOnce(&mut Beat)) -> Beat {
    let mut beat = world.machine(at).failover.peers[0].said.expect("it was heard");
    change(&mut beat);
    beat
}

/// A beat from the first peer of a node, sealed by whoever has this session, and named after the one that both have.
fn sealed(world: &World, at: usize, by: &Session, beat: &Beat) -> FrameBytes {
    let failover = &world.machine(at).failover;
    let id = failover.peers[0].live.as_ref().expect("a session").session.id();
    let (from, to) = (failover.peers[0].node, failover.member.node);
    // A port that none has, so that no frame of it came before.
    let stream = StreamId::heartbeat(7);
    let mut frame = beat_frame(MAC, from, to, id, stream, &beat.encode());
    let (header, content) = beat_parts_mut(&mut frame);
    by.sealer(stream).expect("it is new").seal_in_place(header, content).expect("there is room");
    frame
}

fn unharmed(world: &mut World, leader: usize, term: Term) {
    world.run_ms(100);
    assert_eq!((world.leader(), world.status(leader).term), (leader, term), "{}", world.story());
    assert!(world.status(1 - leader).in_sync && world.doubles.is_empty());
}

#[test]
fn a_claim_to_a_higher_term_that_is_sealed_with_another_key_or_changed_is_named_and_changes_nothing() {
    let mut world = World::settled(41, Setup::default());
    let leader = world.leader();
    let before = world.status(leader).term;
    let promoted = |beat: &mut Beat| {
        (beat.role, beat.term.counter, beat.beat) = (Role::Active, before.counter + 100, beat.beat + 100);
    };
    let claim = said_otherwise(&world, leader, promoted);
    let (ours, theirs) = (world.machine(leader).failover.member, world.machine(1 - leader).failover.member);
    let (stranger, _) = Session::agree_in_memory(theirs, ours).expect("entropy");
    let forged = sealed(&world, leader, &stranger, &claim);
    for _ in 0..50 {
        give(&mut world, leader, &forged);
    }
    let live = &world.machine(1 - leader).failover.peers[0].live;
    let right = std::sync::Arc::clone(&live.as_ref().expect("a session").session);
    let mut changed = sealed(&world, leader, &right, &claim);
    for at in 14..changed.len() {
        changed[at] ^= 1;
        give(&mut world, leader, &changed);
        changed[at] ^= 1;
    }
    world.run_ms(1);
    assert_eq!(told(&world, leader, Distrust::Forged), 1, "once in ten seconds: {}", world.story());
    let status = world.status(leader).peers[0].disbelieved.clone().expect("it is said");
    let words = format!("in the name of node {} are refused", world.nodes[1 - leader].id);
    assert!(status.newest.to_string().contains(&words), "{status:?}");
    assert!(
        status.count > 50 && world.machine(leader).failover.counters().value(Counter::LivenessForged) > 50
    );
    unharmed(&mut world, leader, before);
    // With the right key, and unchanged, it is the promotion that it says: what protects is the seal alone.
    give(&mut world, leader, &changed);
    world.run_ms(1);
    assert_ne!(world.role(leader), Role::Active, "{}", world.story());
}

#[test]
fn a_recorded_promotion_sent_again_is_named_also_when_its_session_is_over() {
    let mut world = World::settled(42, Setup::default());
    let leader = world.leader();
    world.recorded = Some(Vec::new());
    for (from, to) in [(leader, 1 - leader), (1 - leader, leader)] {
        world.operator(from, Operator::Switchover).expect("it hands over");
        world.run_ms(300);
        assert_eq!(world.leader(), to, "{}", world.story());
    }
    let recorded = world.recorded.take().expect("frames");
    let old: Vec<_> = recorded.into_iter().filter(|(from, _, _)| *from == 1 - leader).collect();
    let before = world.status(leader).term;
    for (_, _, frame) in &old {
        give(&mut world, leader, frame);
    }
    world.run_ms(1);
    assert_eq!((told(&world, leader, Distrust::Replayed), told(&world, leader, Distrust::Forged)), (1, 0));
    unharmed(&mut world, leader, before);

    world.kill(1 - leader);
    world.start(1 - leader);
    world.run_ms(1500);
    let before = world.status(leader).term;
    for (_, _, frame) in &old {
        give(&mut world, leader, frame);
    }
    world.run_ms(1);
    assert_eq!(told(&world, leader, Distrust::EarlierSession), 1, "{}", world.story());
    unharmed(&mut world, leader, before);
}

#[test]
fn a_restart_and_a_network_that_doubles_frames_now_and_then_make_nobody_cry() {
    let mut world = World::settled(43, Setup::default());
    let leader = world.leader();
    world.recorded = Some(Vec::new());
    world.run_ms(30);
    let doubled: Vec<_> =
        world.recorded.take().expect("frames").into_iter().filter(|(from, _, _)| *from != leader).collect();
    for (_, _, frame) in doubled.iter().take(10) {
        give(&mut world, leader, frame);
    }
    world.kill(1 - leader);
    world.start(1 - leader);
    world.run_ms(2000);
    for at in 0..2 {
        assert!(Distrust::ALL.iter().all(|why| told(&world, at, *why) == 0), "{}", world.story());
        assert!(world.status(at).peers[0].disbelieved.is_none());
    }
}

#[test]
fn a_claim_to_a_term_that_is_over_is_named() {
    let mut world = World::settled(44, Setup::default());
    let (leader, standby) = (world.leader(), 1 - world.leader());
    let term = world.status(leader).term;
    let claim = said_otherwise(&world, standby, |beat| {
        (beat.role, beat.term.counter, beat.beat) = (Role::Active, 0, beat.beat + 1);
    });
    let live = &world.machine(leader).failover.peers[0].live;
    let session = std::sync::Arc::clone(&live.as_ref().expect("a session").session);
    let frame = sealed(&world, standby, &session, &claim);
    give(&mut world, standby, &frame);
    world.run_ms(1);
    assert_eq!(told(&world, standby, Distrust::OldTerm), 1, "{}", world.story());
    unharmed(&mut world, leader, term);
}

#[test]
fn what_workers_refuse_on_the_mirrors_streams_is_named_too() {
    let mut world = World::settled(45, Setup::default());
    let leader = world.leader();
    world.run_ms(1500);
    let (now, peer) = (world.now(), world.machine(leader).failover.peers[0].node);
    let machine = world.nodes[leader].up.as_mut().expect("it is up");
    machine.failover.handle_report(now, WorkerReport::Disbelieved { peer, what: Distrust::Forged, count: 7 });
    world.run_ms(990);
    assert_eq!(told(&world, leader, Distrust::Forged), 0, "another session may begin");
    world.run_ms(20);
    assert_eq!(told(&world, leader, Distrust::Forged), 1, "{}", world.story());
    let status = world.status(leader).peers[0].disbelieved.clone().expect("it is said");
    assert_eq!(status.count, 7);
    assert!(status.newest.to_string().starts_with("mirror frames in the name of node "), "{status:?}");
}

#[test]
fn what_workers_refuse_while_one_session_follows_another_makes_nobody_cry() {
    let mut world = World::settled(46, Setup::default());
    let leader = world.leader();
    world.run_ms(1500);
    let peer = world.machine(leader).failover.peers[0].node;
    let report = |world: &mut World| {
        let now = world.now();
        for what in [Distrust::Forged, Distrust::Replayed, Distrust::EarlierSession] {
            let machine = world.nodes[leader].up.as_mut().expect("it is up");
            machine.failover.handle_report(now, WorkerReport::Disbelieved { peer, what, count: 50 });
        }
        world.run_ms(1);
    };
    // Before the new one is known here, and when it is new.
    report(&mut world);
    world.kill(1 - leader);
    world.start(1 - leader);
    world.run_ms(200);
    report(&mut world);
    world.run_ms(3000);
    assert!(Distrust::ALL.iter().all(|why| told(&world, leader, *why) == 0), "{}", world.story());
    report(&mut world);
    world.run_ms(1100);
    let said =
        [Distrust::Forged, Distrust::Replayed, Distrust::EarlierSession].map(|why| told(&world, leader, why));
    assert_eq!(said, [1, 1, 1], "{}", world.story());
}
