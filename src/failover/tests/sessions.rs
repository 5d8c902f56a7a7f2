//! When a session begins anew, that nobody falls silent over it, and who may send meanwhile.

use std::sync::Arc;

use super::world::{Setup, World};
use crate::failover::{FailoverEvent, Role};
use crate::seal::Session;

fn session(world: &World, at: usize) -> u64 {
    let live = &world.machine(at).failover.peers[0].live;
    live.as_ref().expect("there is a session").session.id()
}

/// Bug: the leader that kept its role took for known what its peer had acknowledged before it led too.
#[test]
fn after_a_partition_the_one_that_yields_begins_anew_before_it_says_that_it_follows() {
    let mut world = World::settled(3, Setup::default());
    let before = session(&world, 0);
    world.cut_all(0, 1);
    world.cut_all(1, 0);
    world.run_ms(200);
    world.cut.clear();
    let mut said = Vec::new();
    for _ in 0..200 {
        world.run_ms(1);
        if let [leader] = world.senders()[..] {
            let terms = world.status(leader);
            if terms.peers[0].term == Some(terms.term) {
                said.push(session(&world, leader));
            }
        }
    }
    assert!(!said.is_empty() && !said.contains(&before), "{before:x} {said:x?}\n{}", world.story());
    let leader = world.leader();
    assert!(world.status(1 - leader).in_sync);
    assert_eq!(session(&world, 0), session(&world, 1));
}

/// Bug: bridges thought that the virtual MAC was where the one that yielded had sent from last.
#[test]
fn a_leader_announces_itself_again_when_a_peer_that_may_have_served_is_heard_again() {
    let mut world = World::settled(4, Setup::default());
    world.cut_all(0, 1);
    world.cut_all(1, 0);
    world.run_ms(200);
    world.cut.clear();
    let healed_at = world.now_us;
    world.run_ms(700);
    let leader = world.leader() as u16 + 1;
    let again = world.announced.iter().filter(|(at, node)| *at > healed_at && *node == leader);
    assert!(again.count() >= 3, "at once, and twice more: {:?}", world.announced);
}

/// Bug: handshake messages that had waited in a queue left a session that one side alone knew,
/// neither heard the other, and the standby took over from a leader that was well.
#[test]
fn a_session_that_only_one_side_knows_silences_nobody() {
    for one in 0..2 {
        let mut world = World::settled(5, Setup::default());
        let leader = world.leader();
        let (ours, theirs) = (world.machine(one).failover.member, world.machine(1 - one).failover.member);
        let (alone, _) = Session::agree_in_memory(ours, theirs).expect("entropy");
        let now = world.now();
        let machine = world.nodes[one].up.as_mut().expect("it is up");
        machine.failover.establish(now, 0, Arc::new(alone));
        world.run_ms(300);
        assert_eq!(world.leader(), leader);
        let silent = |event: &FailoverEvent| matches!(event, FailoverEvent::PeerSilent { .. });
        assert!(!world.log.iter().any(|(_, _, event)| silent(event)), "{}", world.story());
        assert_eq!(session(&world, 0), session(&world, 1), "{}", world.story());
        assert!(world.status(1 - leader).in_sync);
    }
}

/// Bug: while a standby that had just become deaf had not said so thrice, leases were given that
/// outlasted its wait.
#[test]
fn a_lease_never_outlasts_the_wait_of_a_standby_that_has_just_become_deaf() {
    for seed in 0..100 {
        let mut world = World::settled(seed, Setup::default());
        world.run_ms(seed % 7);
        let leader = world.leader();
        world.cut_all(leader, 1 - leader);
        world.run_ms(120);
        assert!(world.doubles.is_empty(), "seed {seed}: {:?}\n{}", world.doubles, world.story());
        assert_eq!(world.leader(), 1 - leader);
    }
}

/// Bug: a leader that had been cut off took for known what a standby had acknowledged before it followed somebody else: flows
/// that had ended there meanwhile stayed in its table for good.
#[test]
fn a_standby_that_followed_somebody_else_begins_anew_with_a_leader_that_led_on() {
    let mut world = World::settled(6, Setup { nodes: 3, ..Setup::default() });
    let with_third = |world: &World| {
        let live = &world.machine(0).failover.peers[1].live;
        live.as_ref().expect("there is a session").session.id()
    };
    let before = with_third(&world);
    for other in [1, 2] {
        world.cut_all(0, other);
        world.cut_all(other, 0);
    }
    world.run_ms(200);
    assert_eq!((world.status(1).role, world.status(2).term.node.0), (Role::Active, 2), "{}", world.story());
    world.cut.clear();
    world.run_ms(700);
    assert_eq!(world.leader(), 0, "its term was raised twice: {}", world.story());
    assert_ne!(with_third(&world), before);
    assert!(world.status(1).in_sync && world.status(2).in_sync, "{}", world.story());
}
