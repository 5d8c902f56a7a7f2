//! Whoever follows gets its leader's services, whatever is lost of them, and goes by no others.

use std::sync::Arc;

use super::world::{Setup, World};
use crate::base::counters::Counter;
use crate::base::ids::NodeId;
use crate::config::mirrored::Edition;
use crate::failover::{Operator, Role};

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

/// Bug: what was given once was never given again, also when its leader led anew.
#[test]
fn whoever_led_meanwhile_by_other_services_goes_back_to_those_of_its_leader() {
    let mut world = World::settled(8, Setup::default());
    let first = world.leader();
    let second = 1 - first;
    let edition = go_by(&mut world, first, 2, &text(700, 1));
    world.run_ms(300);
    assert_eq!(take_all(&mut world), [(second, NodeId(first as u16 + 1), edition)]);
    world.run_ms(300);
    world.operator(first, Operator::Switchover).expect("a standby is in sync");
    world.run_ms(1000);
    assert_eq!(world.leader(), second);
    // It is asked to reload, and the lead goes back before the other one has got that.
    go_by(&mut world, second, 3, &text(800, 2));
    world.operator(second, Operator::Switchover).expect("a standby is in sync");
    world.run_ms(1000);
    assert_eq!(world.leader(), first);
    let given = take_all(&mut world);
    assert_eq!(given.last(), Some(&(second, NodeId(first as u16 + 1), edition)), "{given:?}");
    world.run_ms(100);
    assert_eq!([first, second].map(|at| world.status(at).edition), [edition; 2]);
}

/// What every driver does with what it was given: whoever leads takes nobody's services.
fn drive(world: &mut World) {
    for (at, from, edition, text) in core::mem::take(&mut world.services) {
        assert_eq!(Edition::of(edition.generation, &text), edition, "what node {from} told is whole");
        if let Some(up) = world.nodes[at].up.as_mut()
            && !up.failover.role().claims()
        {
            up.failover.handle_services(edition, text.into());
        }
    }
}

/// It starts with the services of its own file.
fn start_with_file(world: &mut World, at: usize) {
    world.start(at);
    go_by(world, at, 1, &text(200, at as u8));
}

#[test]
fn whatever_befalls_a_group_whose_leaders_reload_in_the_end_all_go_by_what_its_leader_goes_by() {
    for seed in 0..40 {
        let nodes = 2 + (seed % 2) as usize;
        let loss_percent = [0, 5, 15][(seed % 3) as usize];
        let mut world = World::settled(seed, Setup { nodes: nodes as u16, loss_percent, ..Setup::default() });
        for at in 0..nodes {
            go_by(&mut world, at, 1, &text(200, at as u8));
        }
        let mut generation = 1;
        for step in 0..30 {
            let at = world.rng.usize(0..nodes);
            match world.rng.u8(0..8) {
                0 => world.kill(at),
                1 if world.nodes[at].up.is_none() => start_with_file(&mut world, at),
                2 => {
                    let millis = world.rng.u64(1..200);
                    world.pause_ms(at, millis);
                }
                3 => {
                    let other = (at + 1) % nodes;
                    let port = world.rng.usize(0..2);
                    world.cut = [(port, at, other)].into();
                }
                4 if world.nodes[at].up.is_some() => {
                    let _ = world.operator(at, Operator::Switchover);
                }
                _ => {
                    if world.nodes[at].up.is_some() && world.role(at) == Role::Active {
                        generation += 1;
                        let len = world.rng.usize(1..9000);
                        go_by(&mut world, at, generation, &text(len, step));
                    }
                }
            }
            for _ in 0..world.rng.u64(1..150) {
                world.run_ms(1);
                if world.rng.bool() {
                    drive(&mut world);
                }
            }
        }
        world.cut.clear();
        for at in 0..nodes {
            world.nodes[at].paused_until = 0;
            if world.nodes[at].up.is_none() {
                start_with_file(&mut world, at);
            }
        }
        for _ in 0..2000 {
            world.run_ms(1);
            drive(&mut world);
        }
        let leader = world.leader();
        let editions: Vec<Edition> = (0..nodes).map(|at| world.status(at).edition).collect();
        assert!(editions.iter().all(|edition| *edition == editions[leader]), "seed {seed}: {editions:?}");
    }
}
