//! Keys change while members run: nobody falls out of sync, as long as each step is done at all before the next.

use super::attacks::told;
use super::world::{Setup, World};
use crate::base::ids::NodeId;
use crate::failover::FailoverEvent;
use crate::failover::keys::{KeysRefused, Proven};
use crate::failover::witness::WitnessVariant;
use crate::seal::credentials::Sealing;
use crate::seal::node::NodeKey;
use crate::seal::{Distrust, Key, KeyRing, Keys};

fn offer(world: &mut World, at: usize, keys: &Keys) -> Result<(), KeysRefused> {
    let now = world.now();
    world.nodes[at].up.as_mut().expect("it is up").failover.handle_keys(now, keys)
}

fn give(world: &mut World, at: usize, keys: &Keys) {
    offer(world, at, keys).expect("no session would end");
}

fn sessions(world: &World) -> Vec<u64> {
    let live = |at: usize| &world.machine(at).failover.peers[0].live;
    (0..2).map(|at| live(at).as_ref().map_or(0, |live| live.session.id())).collect()
}

/// One step, at one after the other: both stay in sync, in the session that they have.
fn step(world: &mut World, leader: usize, keys: [&Keys; 2]) {
    let before = (sessions(world), world.status(leader).term);
    for at in [1 - leader, leader] {
        give(world, at, keys[at]);
        for _ in 0..50 {
            world.run_ms(1);
            assert!(world.status(1 - leader).in_sync, "{}", world.story());
        }
    }
    assert_eq!((sessions(world), world.status(leader).term), before, "{}", world.story());
    for (at, keys) in keys.into_iter().enumerate() {
        let first = keys.with(NodeId(2 - at as u16)).first().name();
        let status = world.status(at).peers[0].key.clone();
        assert_eq!((status.own, status.proven), (first, Proven::Key(first)));
        assert_eq!(status.accepted.len(), keys.with(NodeId(2 - at as u16)).iter().count());
    }
}

/// A new process of the standby comes in sync with who went all the way.
fn restart(world: &mut World, leader: usize) {
    world.kill(1 - leader);
    world.start(1 - leader);
}

#[test]
fn a_key_is_changed_for_another_and_the_session_and_the_in_sync_set_stay() {
    let mut world = World::settled(51, Setup::default());
    let leader = world.leader();
    let rungs = rungs(&world);
    for keys in &rungs {
        step(&mut world, leader, [keys, keys]);
    }
    world.key = rungs[2].ring().first().clone();
    restart(&mut world, leader);
    world.run_ms(500);
    assert!(world.status(1 - leader).in_sync, "{}", world.story());
}

#[test]
fn members_go_from_the_key_file_to_their_own_keys_and_the_session_stays() {
    let mut world = World::settled(52, Setup::default());
    let leader = world.leader();
    let ring = KeyRing::from(world.key.clone());
    let [a, b] = [NodeKey::generate().unwrap(), NodeKey::generate().unwrap()];
    for sealing in [Sealing::ReceiveOnly, Sealing::Permissive, Sealing::Enforce] {
        let pinned = |own, peer: u16, theirs: &NodeKey| {
            Keys::pinned(ring.clone(), sealing, own, &[(NodeId(peer), theirs.public())]).unwrap()
        };
        step(&mut world, leader, [&pinned(&a, 2, &b), &pinned(&b, 1, &a)]);
    }
    // With the key file alone nobody comes in any more.
    restart(&mut world, leader);
    world.run_ms(200);
    assert!(!world.status(1 - leader).in_sync);
    let unproven = |event: &&FailoverEvent| matches!(event, FailoverEvent::PeerUnproven { .. });
    assert!(world.events(leader).into_iter().any(|event| unproven(&event)), "{}", world.story());
}

/// The group's key and another one; the other one first; the other one alone.
fn rungs(world: &World) -> [Keys; 3] {
    let mut ring = KeyRing::from(world.key.clone());
    ring.add(Key::generate().unwrap()).unwrap();
    let added = ring.clone();
    ring.put_first(ring.keys()[1].name()).unwrap();
    let first = ring.clone();
    ring.drop_others().unwrap();
    [added, first, ring].map(Keys::from)
}

#[test]
fn a_step_that_a_peer_cannot_follow_is_refused_and_nothing_ends() {
    for (seed, at_leader) in [(53, true), (54, false)] {
        let mut world = World::settled(seed, Setup::default());
        let leader = world.leader();
        let [at, other] = if at_leader { [leader, 1 - leader] } else { [1 - leader, leader] };
        let [added, first, alone] = rungs(&world);
        let before = (sessions(&world), world.status(leader).term);
        // The other one never took the new key.
        give(&mut world, at, &added);
        give(&mut world, at, &first);
        world.run_ms(50);
        let refused = offer(&mut world, at, &alone).expect_err("the other one proves the old key");
        let old = Proven::Key(world.key.name());
        assert_eq!((refused.node, refused.proven), (NodeId(world.nodes[other].id), old), "{refused}");
        // It would lead alone, and says so in time.
        world.run_ms(2500);
        assert_eq!(told(&world, other, Distrust::OtherKey), 1, "{}", world.story());
        assert_eq!(world.status(other).peers[0].key.proven, Proven::Other);
        assert_eq!(told(&world, at, Distrust::OtherKey), 0);
        assert_eq!((sessions(&world), world.status(leader).term), before, "{}", world.story());
        assert!(world.status(1 - leader).in_sync && world.doubles.is_empty(), "{}", world.story());
        // One rung behind it still proves the old one.
        give(&mut world, other, &added);
        world.run_ms(50);
        offer(&mut world, at, &alone).expect_err("the other one proves the old key still");
        give(&mut world, other, &first);
        world.run_ms(50);
        give(&mut world, at, &alone);
        give(&mut world, other, &alone);
        world.run_ms(500);
        assert_eq!((sessions(&world), world.status(leader).term), before, "{}", world.story());
        assert!(world.status(1 - leader).in_sync && world.leader() == leader, "{}", world.story());
    }
}

#[test]
fn a_proof_that_was_heard_before_its_key_was_known_holds_the_session() {
    let mut world = World::settled(55, Setup::default());
    let leader = world.leader();
    let [_, first, alone] = rungs(&world);
    let before = sessions(&world);
    give(&mut world, 1 - leader, &first);
    world.run_ms(20);
    give(&mut world, leader, &alone);
    world.run_ms(100);
    assert_eq!(sessions(&world), before, "{}", world.story());
    assert!(world.status(1 - leader).in_sync, "{}", world.story());
    assert_eq!(told(&world, leader, Distrust::OtherKey), 0, "its operator was on the way");
}

#[test]
fn the_witness_is_asked_with_the_key_that_comes_first_now() {
    let setup = Setup { witness: Some(WitnessVariant::Sound), ..Setup::default() };
    let mut world = World::settled(57, setup);
    let leader = world.leader();
    let rungs = rungs(&world);
    for keys in &rungs {
        step(&mut world, leader, [keys, keys]);
    }
    // It has the key that is left.
    world.key = rungs[2].ring().first().clone();
    world.start_witness();
    world.run_ms(200);
    for at in 0..2 {
        assert!(world.status(at).witness.expect("there is one").heard, "node {at}: {}", world.story());
    }
    assert_eq!(world.leader(), leader);
}

#[test]
fn a_peer_that_is_not_heard_is_no_hindrance_and_its_session_ends() {
    let mut world = World::settled(56, Setup::default());
    let leader = world.leader();
    let [_, first, alone] = rungs(&world);
    world.kill(1 - leader);
    world.run_ms(20);
    offer(&mut world, leader, &alone).expect_err("it may be alive");
    world.run_ms(180);
    give(&mut world, leader, &alone);
    world.run_ms(10);
    assert_eq!(told(&world, leader, Distrust::KeyGone), 1, "{}", world.story());
    assert!(world.machine(leader).failover.peers[0].live.is_none());
    world.key = first.ring().first().clone();
    world.start(1 - leader);
    world.run_ms(500);
    assert!(world.status(1 - leader).in_sync && world.leader() == leader, "{}", world.story());
}
