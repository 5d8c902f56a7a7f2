//! Whoever follows gets its leader's services, whatever is lost of them, and goes by no others.

use std::sync::Arc;

use super::world::{Setup, World};
use crate::base::counters::Counter;
use crate::base::ids::NodeId;
use crate::config::mirrored::Edition;

/// A text of so many bytes, none like the other's neighbour.
fn text(len: usize, salt: u8) -> Arc<[u8]> {
    (0..len).map(|at| (at as u8).wrapping_mul(31) ^ salt).collect()
}

/// The appliance goes by this.
fn go_by(world: &mut World, at: usize, generation: u64, text: &Arc<[u8]>) -> Edition {
    let edition = Edition::of(generation, text);
    let up = world.nodes[at].up.as_mut().expect("it is up");
    up.failover.handle_services(edition, Arc::clone(text));
    edition
}

/// Whoever was given services goes by them, as a driver does.
fn take_all(world: &mut World) -> Vec<(usize, NodeId, Edition)> {
    let given = core::mem::take(&mut world.services);
    let take = |(at, from, edition, text): (usize, NodeId, Edition, Vec<u8>)| {
        let up = world.nodes[at].up.as_mut().expect("it is up");
        up.failover.handle_services(edition, text.into());
        (at, from, edition)
    };
    given.into_iter().map(take).collect()
}

#[test]
fn a_standby_gets_what_its_leader_goes_by_once_and_says_that_it_does_too() {
    for len in [1, 68, 69, 16 * 68, 20_000] {
        let mut world = World::settled(1, Setup::default());
        let (leader, wanted) = (world.leader(), text(len, 1));
        let standby = 1 - leader;
        go_by(&mut world, standby, 9, &text(50, 2));
        let edition = go_by(&mut world, leader, 3, &wanted);
        world.run_ms(300);
        let [(at, from, of, told)] = &world.services[..] else { panic!("{} times", world.services.len()) };
        assert_eq!((*at, *from, *of), (standby, NodeId(leader as u16 + 1), edition));
        assert_eq!(told[..], wanted[..], "{len} bytes");
        // It does not go by it yet.
        assert_ne!(world.status(leader).peers[0].edition, Some(edition));
        take_all(&mut world);
        world.run_ms(50);
        assert_eq!(world.status(leader).peers[0].edition, Some(edition));
        assert_eq!((world.status(standby).edition, world.services.len()), (edition, 0));
    }
}

#[test]
fn pieces_that_are_lost_are_asked_for_again_and_a_newer_edition_takes_the_place_of_an_older() {
    for seed in 0..20 {
        let mut world = World::settled(seed, Setup::default());
        world.setup.loss_percent = 20;
        let leader = world.leader();
        go_by(&mut world, leader, 2, &text(30_000, 1));
        world.run_ms(20);
        let edition = go_by(&mut world, leader, 3, &text(3000, 2));
        world.run_ms(5000);
        let given = take_all(&mut world);
        assert_eq!(given.last().map(|(_, _, of)| *of), Some(edition), "seed {seed}: {given:?}");
    }
}

#[test]
fn all_standbys_get_them_and_so_does_who_leads_next_and_comes_back() {
    let mut world = World::settled(5, Setup { nodes: 3, ..Setup::default() });
    let leader = world.leader();
    let edition = go_by(&mut world, leader, 2, &text(5000, 1));
    world.run_ms(500);
    assert_eq!(take_all(&mut world).len(), 2);
    world.run_ms(50);
    world.kill(leader);
    world.run_ms(500);
    let next = world.leader();
    assert_eq!(world.status(next).edition, edition);
    // What led comes back with its own file's.
    world.start(leader);
    go_by(&mut world, leader, 1, &text(400, 3));
    world.run_ms(1000);
    assert_eq!(take_all(&mut world), [(leader, NodeId(next as u16 + 1), edition)]);
}

#[test]
fn services_that_a_standby_cannot_take_are_given_once_and_a_leader_takes_nobodys() {
    let mut world = World::settled(6, Setup::default());
    let leader = world.leader();
    let ours = go_by(&mut world, leader, 2, &text(500, 1));
    let theirs = go_by(&mut world, 1 - leader, 1, &text(400, 2));
    world.run_ms(2000);
    let given: Vec<_> = world.services.drain(..).map(|(at, ..)| at).collect();
    assert_eq!(given, [1 - leader]);
    assert_eq!((world.status(leader).edition, world.status(1 - leader).edition), (ours, theirs));
}

#[test]
fn words_of_strangers_and_old_ones_change_nothing() {
    let mut world = World::settled(7, Setup::default());
    let leader = world.leader();
    world.recorded = Some(Vec::new());
    let edition = go_by(&mut world, leader, 2, &text(2000, 1));
    world.run_ms(300);
    assert_eq!(take_all(&mut world).len(), 1);
    let frames = world.recorded.take().unwrap_or_default();
    let words: Vec<_> = frames.into_iter().filter(|(_, _, frame)| frame[17] == 4).collect();
    assert!(words.len() >= 30, "{}", words.len());
    let now = world.now();
    let standby = 1 - leader;
    let count = |world: &World, counter| world.machine(standby).failover.counters().value(counter);
    let before = [Counter::LivenessReplayed, Counter::LivenessForged].map(|counter| count(&world, counter));
    for (from, port, frame) in words {
        if from != leader {
            continue;
        }
        let up = world.nodes[standby].up.as_mut().expect("it is up");
        let port = crate::base::ids::PortId(port as u16);
        up.failover.handle_frame(now, port, &mut frame.clone());
        // As if it was a newer one, whose content is another.
        for at in [41, 60] {
            let mut changed = frame.clone();
            changed[41] ^= 0x80;
            changed[at] ^= 0x01;
            up.failover.handle_frame(now, port, &mut changed);
        }
        for len in 0..frame.len() {
            up.failover.handle_frame(now, port, &mut frame[..len].to_vec());
        }
    }
    world.run_ms(100);
    assert!(world.services.is_empty());
    assert_eq!(world.status(standby).edition, edition);
    assert!(count(&world, Counter::LivenessReplayed) > before[0]);
    assert!(count(&world, Counter::LivenessForged) > before[1]);
}
