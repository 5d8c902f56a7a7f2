//! Groups under random faults: who sends, is one; what was protected, is not lost; and
//! when the faults end, someone leads and everyone is in sync.
//!
//! `BATON_FAILOVER_SEEDS=N` runs N seeds of each, `BATON_FAILOVER_FROM=S` from seed S on.

use super::world::{Setup, World};
use crate::config::checked::Partition;
use crate::failover::witness::WitnessVariant;
use crate::failover::{Operator, Role, Variant};

/// What may happen in a run.
#[derive(Clone, Copy, PartialEq)]
enum Faults {
    /// Anything but a full partition: between any two, one port works both ways.
    Connected,
    /// Full partitions too. With a witness, it is lost too, starts anew, is cut off, or answers late.
    Partitions,
}

/// After a full partition heals, or a process wakes up in one, one leader must have yielded after this.
const HEAL_MS: u64 = 120;

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let from = number("BATON_FAILOVER_FROM").unwrap_or(0);
    from..from + number("BATON_FAILOVER_SEEDS").unwrap_or(150)
}

/// One run; the error says what was violated, and tells its story.
fn run(seed: u64, setup: Setup, faults: Faults) -> Result<(), String> {
    let partition = setup.partition;
    let nodes = usize::from(setup.nodes);
    let mut world = World::settled(seed, setup);
    if world.rng.bool() {
        // A boot race instead of a settled start.
        for at in 0..nodes {
            world.kill(at);
        }
        for at in 0..nodes {
            world.start(at);
            let wait = world.rng.u64(0..400);
            world.run_ms(wait);
        }
    }
    let witness = world.setup.witness.is_some();
    let mut partitioned_until = 0;
    for _ in 0..14 {
        let at = world.rng.usize(0..nodes);
        let other = (at + world.rng.usize(1..nodes)) % nodes;
        match world.rng.u8(0..if witness { 17 } else { 13 }) {
            0 | 1 => world.kill(at),
            2..=4 => {
                if world.nodes[at].up.is_none() {
                    world.start(at);
                }
            }
            5 => {
                world.kill(at);
                let wait = world.rng.u64(0..30);
                world.run_ms(wait);
                world.start(at);
            }
            6 | 7 => {
                let longest = if world.rng.bool() { 80 } else { 1200 };
                let millis = world.rng.u64(1..longest);
                world.pause_ms(at, millis);
            }
            8 => world.nodes[at].stuck_until = world.now_us + world.rng.u64(1..300) * 1000,
            9 => {
                // One port, in one or both directions.
                world.cut.clear();
                let port = world.rng.usize(0..2);
                world.cut.insert((port, at, other));
                if world.rng.bool() {
                    world.cut.insert((port, other, at));
                }
            }
            10 => {
                world.cut.clear();
                if faults == Faults::Partitions {
                    world.cut_all(at, other);
                    if world.rng.u8(0..4) > 0 {
                        world.cut_all(other, at);
                    }
                }
            }
            11 => {
                if world.nodes[at].up.is_some() {
                    let operator = if world.rng.bool() { Operator::Switchover } else { Operator::Shutdown };
                    // Refused or not: whatever it answers must be safe.
                    let _ = world.operator(at, operator);
                }
            }
            13 => {
                if world.rng.bool() {
                    world.start_witness();
                } else {
                    world.kill_witness();
                }
            }
            14 => world.witness.late_us = world.rng.u64(0..80_000),
            15 => {
                let (cut, one_way) = (world.rng.bool(), world.rng.bool());
                world.cut_witness(at, cut);
                if cut && one_way {
                    world.witness.deaf_to.clear();
                }
            }
            _ => world.cut.clear(),
        }
        let wait = world.rng.u64(1..220);
        for _ in 0..wait {
            let both_serve = partition == Partition::Availability && !witness;
            if faults == Faults::Partitions && both_serve && fully_cut(&world) {
                partitioned_until = world.now_us + HEAL_MS * 1000;
            }
            world.run_ms(1);
            if world.now_us <= partitioned_until {
                world.doubles.clear();
            }
            if faults == Faults::Partitions {
                if !witness {
                    // A partition and a crash are two failures: what is lost then is not promised.
                    world.lost.clear();
                }
                world.early.clear();
            }
            check(seed, &world)?;
        }
    }
    // All is repaired.
    world.cut.clear();
    if witness {
        world.witness.late_us = 0;
        world.start_witness();
    }
    for at in 0..nodes {
        world.cut_witness(at, false);
        world.nodes[at].paused_until = 0;
        world.nodes[at].stuck_until = 0;
        if world.nodes[at].up.is_none() {
            world.start(at);
        }
    }
    if !witness && (fully_cut(&world) || world.now_us <= partitioned_until) {
        world.run_ms(HEAL_MS);
        world.doubles.clear();
        world.lost.clear();
    }
    world.run_ms(900);
    if faults == Faults::Partitions {
        world.early.clear();
    }
    check(seed, &world)?;
    if world.senders().len() != 1 {
        return fail(seed, &world, "when all was repaired, not one sends");
    }
    let leader = world.leader();
    for at in (0..nodes).filter(|at| *at != leader) {
        let leaves = world.nodes[at].up.is_none() || world.status(at).leaving || world.status(leader).leaving;
        if !leaves && (world.role(at) != Role::Standby || !world.status(at).in_sync) {
            return fail(seed, &world, "when all was repaired, a standby is not in sync");
        }
    }
    Ok(())
}

fn fully_cut(world: &World) -> bool {
    world.cut.len() > 1
        && world.cut.iter().any(|(_, from, to)| (0..2).all(|port| world.cut.contains(&(port, *from, *to))))
}

fn check(seed: u64, world: &World) -> Result<(), String> {
    if let Some((at, who)) = world.doubles.first() {
        return fail(seed, world, &format!("at {at} nodes {who:?} send"));
    }
    if let Some((at, who, count)) = world.lost.first() {
        return fail(
            seed,
            world,
            &format!("at {at} node {who} leads undegraded without {count} protected flows"),
        );
    }
    if let Some((at, node)) = world.early.first() {
        return fail(
            seed,
            world,
            &format!("at {at} a flow is released without node {node}, which believes to be in sync"),
        );
    }
    Ok(())
}

fn fail(seed: u64, world: &World, what: &str) -> Result<(), String> {
    Err(format!("seed {seed}: {what}\n{}", world.story()))
}

/// Seeds that violate the promise, at most three of them told.
fn violations(setup: impl Fn(u64) -> Setup, faults: Faults) -> Vec<String> {
    seeds().filter_map(|seed| run(seed, setup(seed), faults).err()).take(3).collect()
}

fn none(violations: &[String]) {
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

fn loss(seed: u64) -> u8 {
    [0, 0, 5, 15][(seed % 4) as usize]
}

#[test]
fn a_pair_that_stays_connected_has_one_sender_and_loses_nothing_protected() {
    none(&violations(|seed| Setup { loss_percent: loss(seed), ..Setup::default() }, Faults::Connected));
}

#[test]
fn three_that_stay_connected_have_one_sender_and_lose_nothing_protected() {
    none(&violations(
        |seed| Setup { nodes: 3, loss_percent: loss(seed), ..Setup::default() },
        Faults::Connected,
    ));
}

#[test]
fn a_pair_with_preemption_has_one_sender_and_loses_nothing_protected() {
    none(&violations(|seed| Setup { preempt: seed % 2 == 0, ..Setup::default() }, Faults::Connected));
}

#[test]
fn a_pair_that_was_partitioned_has_one_sender_when_it_heals() {
    none(&violations(|_| Setup::default(), Faults::Partitions));
}

#[test]
fn a_pair_with_safety_has_one_sender_even_while_partitioned() {
    let setup = |_| Setup { partition: Partition::Safety, ..Setup::default() };
    let found: Vec<String> = seeds()
        .filter_map(|seed| run(seed, setup(seed), Faults::Partitions).err())
        // Nobody may lead in the end where only the operator could tell who should.
        .filter(|story| !story.contains("when all was repaired"))
        .take(3)
        .collect();
    none(&found);
}

fn witnessed(nodes: u16, seed: u64) -> Setup {
    Setup {
        nodes,
        witness: Some(WitnessVariant::Sound),
        loss_percent: loss(seed),
        preempt: seed % 3 == 0,
        ..Setup::default()
    }
}

#[test]
fn a_pair_with_a_witness_has_one_sender_even_while_partitioned_and_when_the_witness_is_lost_or_new() {
    none(&violations(|seed| witnessed(2, seed), Faults::Partitions));
}

#[test]
fn three_with_a_witness_have_one_sender_even_while_partitioned_and_when_the_witness_is_lost_or_new() {
    none(&violations(|seed| witnessed(3, seed), Faults::Partitions));
}

#[test]
fn a_witness_that_grants_to_all_is_caught() {
    let setup = |seed| Setup { witness: Some(WitnessVariant::GrantsToAll), ..witnessed(2, seed) };
    let found = violations(setup, Faults::Partitions);
    assert!(found.iter().any(|story| story.contains("send\n")), "{found:?}");
}

#[test]
fn comparing_counters_alone_is_caught() {
    let setup = |_| Setup { variant: Variant::EqualTermAccepted, ..Setup::default() };
    let found = violations(setup, Faults::Partitions);
    assert!(found.iter().any(|story| story.contains("send\n")), "{found:?}");
}

#[test]
fn sending_after_the_lease_is_caught() {
    let setup = |_| Setup { variant: Variant::SendAfterLease, ..Setup::default() };
    let found = violations(setup, Faults::Connected);
    assert!(found.iter().any(|story| story.contains("send\n")), "{found:?}");
}
