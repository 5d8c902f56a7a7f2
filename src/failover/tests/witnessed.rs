//! Groups with a witness: one sender in every partition, and service wherever one is left that may send.

use super::pair::promoted;
use super::world::{Setup, World};
use crate::base::counters::Counter;
use crate::failover::event::{Cause, FailoverEvent, Lapse};
use crate::failover::witness::WitnessVariant;
use crate::failover::{Operator, Refusal, Role, Variant};

fn setup() -> Setup {
    Setup { witness: Some(WitnessVariant::Sound), ..Setup::default() }
}

fn group(nodes: u16) -> World {
    let world = World::settled(1, Setup { nodes, ..setup() });
    assert_eq!((world.leader(), world.status(1).in_sync), (0, true), "{}", world.story());
    world
}

fn pair() -> World {
    group(2)
}

/// One sender, and nobody leads as one in sync without all that was protected. While members do not hear each other a
/// standby may believe to be in sync for longer than the leader waits for it: the witness tells it when it is to lead.
fn sound(world: &World) {
    assert!(world.doubles.is_empty(), "two senders: {:?}\n{}", world.doubles.first(), world.story());
    assert!(world.lost.is_empty(), "lost: {:?}\n{}", world.lost.first(), world.story());
}

/// Nothing passes between any two members.
fn part(world: &mut World) {
    let nodes = world.nodes.len();
    for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))) {
        world.cut_all(from, to);
    }
}

fn events(world: &World, at: usize, wanted: &FailoverEvent) -> usize {
    world.events(at).iter().filter(|event| **event == wanted).count()
}

#[test]
fn a_pair_starts_as_without_a_witness_and_both_know_it() {
    let world = pair();
    for at in 0..2 {
        let witness = world.status(at).witness.expect("it has one");
        assert!(witness.heard && witness.heard_ago_us.is_some_and(|ago| ago < 10_000), "{witness:?}");
        assert_eq!(witness.grants, at == 0, "node {at}");
    }
    assert_eq!(promoted(&world, 0), [(Cause::Boot, false)]);
    let group = &world.witness_status().groups[0];
    assert_eq!((group.holder, group.members.len()), (Some(crate::base::ids::NodeId(1)), 2));
    sound(&world);
}

#[test]
fn in_a_full_partition_the_active_goes_on_and_the_standby_does_not_lead() {
    let mut world = pair();
    part(&mut world);
    world.longest_silence = 0;
    world.run_ms(2000);
    assert_eq!((world.leader(), world.role(1)), (0, Role::Standby), "{}", world.story());
    assert_eq!(world.longest_silence, 0, "{}", world.story());
    let refused = FailoverEvent::WitnessRefuses { holder: crate::base::ids::NodeId(1) };
    assert_eq!(events(&world, 1, &refused), 1, "{}", world.story());
    world.cut.clear();
    world.run_ms(500);
    assert!(world.leader() == 0 && world.status(1).in_sync, "{}", world.story());
    sound(&world);
}

#[test]
fn in_a_full_partition_who_reaches_the_witness_serves() {
    let mut world = pair();
    part(&mut world);
    world.cut_witness(0, true);
    world.run_ms(40);
    world.longest_silence = 0;
    world.run_ms(500);
    assert_eq!((world.leader(), world.role(0)), (1, Role::Silenced), "{}", world.story());
    assert!(world.longest_silence < 40_000, "{} us\n{}", world.longest_silence, world.story());
    let silenced = FailoverEvent::Silenced { lapse: Lapse::Ungranted };
    assert_eq!(events(&world, 0, &silenced), 1, "it says so once\n{}", world.story());
    world.cut.clear();
    world.run_ms(500);
    assert!(world.leader() == 1 && world.status(0).in_sync, "{}", world.story());
    sound(&world);
}

#[test]
fn in_a_full_partition_that_cuts_the_witness_off_too_nobody_serves_until_it_heals() {
    for first in 0..2 {
        let mut world = pair();
        part(&mut world);
        (0..2).for_each(|at| world.cut_witness(at, true));
        world.run_ms(500);
        assert!(world.senders().is_empty() && world.doubles.is_empty(), "{}", world.story());
        // One of them hears the witness again, and leads.
        world.cut_witness(first, false);
        world.run_ms(150);
        assert_eq!(world.leader(), first, "{}", world.story());
        world.cut_witness(1 - first, false);
        world.cut.clear();
        world.run_ms(500);
        assert!(world.leader() == first && world.status(1 - first).in_sync, "{}", world.story());
        sound(&world);
    }
}

#[test]
fn the_loss_of_the_witness_alone_changes_nothing() {
    let mut world = pair();
    world.longest_silence = 0;
    world.kill_witness();
    world.run_ms(1000);
    assert_eq!((world.leader(), world.longest_silence), (0, 0), "{}", world.story());
    assert!(!world.status(0).witness.unwrap().heard);
    assert_eq!(events(&world, 0, &FailoverEvent::WitnessSilent), 1);
    assert_eq!(world.operator(0, Operator::Switchover), Err(Refusal::WitnessSilent));
    world.start_witness();
    world.run_ms(200);
    assert_eq!((world.leader(), world.longest_silence), (0, 0), "{}", world.story());
    assert!(world.status(0).witness.unwrap().grants);
    sound(&world);
}

#[test]
fn after_the_death_of_the_active_the_standby_leads_in_the_usual_time() {
    for seed in 0..20 {
        let mut world = World::settled(seed, setup());
        world.longest_silence = 0;
        world.kill(0);
        world.run_ms(300);
        assert_eq!(world.leader(), 1, "{}", world.story());
        assert_eq!(promoted(&world, 1), [(Cause::Silence, false)]);
        // As without a witness, which takes 62 ms at most here.
        assert!(world.longest_silence < 68_000, "{} us\n{}", world.longest_silence, world.story());
        sound(&world);
    }
}

#[test]
fn without_peer_and_witness_the_active_falls_silent_and_goes_on_when_the_witness_is_back() {
    let mut world = pair();
    world.kill(1);
    world.run_ms(300);
    assert_eq!(world.leader(), 0, "the witness grants");
    world.kill_witness();
    world.run_ms(100);
    assert_eq!(world.role(0), Role::Silenced, "{}", world.story());
    world.run_ms(2000);
    assert!(world.senders().is_empty(), "{}", world.story());
    world.start_witness();
    world.run_ms(150);
    assert_eq!(world.leader(), 0, "{}", world.story());
    sound(&world);
}

#[test]
fn a_standby_without_the_witness_leads_when_it_is_back_and_not_in_sync_if_that_one_remembers_nothing() {
    let mut world = pair();
    world.kill_witness();
    world.kill(0);
    world.run_ms(1000);
    assert_eq!(world.role(1), Role::Standby, "{}", world.story());
    assert_eq!(world.operator(1, Operator::Promote), Err(Refusal::WitnessGrantsNot));
    world.start_witness();
    world.run_ms(100);
    assert_eq!(world.leader(), 1, "{}", world.story());
    // Whether the leader went on without it, this witness cannot know.
    assert_eq!(promoted(&world, 1), [(Cause::Silence, true)]);
    sound(&world);
}

#[test]
fn who_was_taken_out_of_the_set_is_told_by_the_witness() {
    let mut world = pair();
    part(&mut world);
    world.run_ms(200);
    assert!(world.status(0).members.is_empty() && !world.status(0).members_changing, "{}", world.story());
    // The active dies only now, and the standby has not heard that it is out.
    world.kill(0);
    world.run_ms(200);
    assert_eq!((world.leader(), promoted(&world, 1)), (1, vec![(Cause::Silence, true)]), "{}", world.story());
    sound(&world);
}

#[test]
fn without_the_witness_workers_go_on_waiting_for_who_may_be_let_to_lead() {
    let mut world = pair();
    // The witness grants to the active, which it hears, but its answers do not come: the standby's words keep it serving.
    world.witness.mute_to.insert(0);
    world.cut.extend([(0, 1, 0), (1, 1, 0)]);
    world.run_ms(45);
    assert!(world.senders().is_empty(), "nobody's grant comes to it\n{}", world.story());
    world.run_ms(500);
    assert!(!world.status(0).members.is_empty() || world.status(0).members_changing, "{}", world.story());
    sound(&world);
}

#[test]
fn a_restart_of_the_witness_lets_nobody_send_twice() {
    for seed in 0..20 {
        let mut world = World::settled(seed, setup());
        part(&mut world);
        let before = world.rng.u64(0..60);
        world.run_ms(before);
        world.start_witness();
        let cut = world.rng.bool();
        world.cut_witness(0, cut);
        world.run_ms(300);
        assert_eq!(world.senders().len(), 1, "{}", world.story());
        sound(&world);
    }
}

/// Runs of this setup, of 40, in which two send while nothing passes between them and the witness starts anew.
fn doubles_when_the_witness_restarts(variant: WitnessVariant) -> usize {
    let doubles = |seed| {
        let mut world = World::settled(seed, Setup { witness: Some(variant), ..Setup::default() });
        part(&mut world);
        world.run_ms(100);
        world.start_witness();
        world.run_ms(200);
        usize::from(!world.doubles.is_empty())
    };
    (0..40).map(doubles).sum()
}

#[test]
fn a_witness_that_grants_right_after_its_start_is_caught() {
    assert_eq!(doubles_when_the_witness_restarts(WitnessVariant::Sound), 0);
    assert!(doubles_when_the_witness_restarts(WitnessVariant::GrantsAtOnce) > 0);
}

/// As above, but what the witness says takes long, and then the active's requests do not come to it any more.
fn doubles_when_answers_are_late(variant: Variant) -> usize {
    let doubles = |seed| {
        let mut world = World::settled(seed, Setup { variant, ..setup() });
        part(&mut world);
        world.witness.late_us = 80_000;
        world.run_ms(150);
        world.witness.deaf_to.insert(0);
        world.run_ms(300);
        usize::from(!world.doubles.is_empty())
    };
    (0..40).map(doubles).sum()
}

#[test]
fn a_lease_that_counts_from_the_witnesss_answer_is_caught() {
    assert_eq!(doubles_when_answers_are_late(Variant::Sound), 0);
    assert!(doubles_when_answers_are_late(Variant::LeaseFromAnswer) > 0);
}

#[test]
fn a_planned_switchover_takes_no_longer_than_giving_back_and_asking() {
    for seed in 0..20 {
        let mut world = World::settled(seed, setup());
        world.longest_silence = 0;
        world.operator(0, Operator::Switchover).expect("a standby is in sync");
        world.run_ms(100);
        assert_eq!(world.leader(), 1, "{}", world.story());
        assert_eq!(promoted(&world, 1), [(Cause::HandedOver, false)]);
        assert!(world.longest_silence < 15_000, "{} us\n{}", world.longest_silence, world.story());
        sound(&world);
    }
}

#[test]
fn an_active_that_panics_gives_back_what_it_was_granted() {
    let mut world = pair();
    world.longest_silence = 0;
    world.panic(0);
    world.run_ms(30);
    assert_eq!(world.leader(), 1, "{}", world.story());
    assert!(world.longest_silence < 20_000, "{} us\n{}", world.longest_silence, world.story());
    sound(&world);
}

#[test]
fn an_active_that_was_paused_goes_on_when_the_witness_still_holds_for_it() {
    let mut world = pair();
    // Longer than the lease, and shorter than what the standby waits.
    world.pause_ms(0, 41);
    world.run_ms(150);
    assert_eq!(world.leader(), 0, "{}", world.story());
    // And even when the standby cannot hear it: it is not let to lead.
    world.cut.extend([(0, 0, 1), (1, 0, 1)]);
    world.pause_ms(0, 41);
    world.run_ms(200);
    assert_eq!(world.senders().len(), 1, "{}", world.story());
    sound(&world);
}

#[test]
fn who_was_led_over_while_it_slept_does_not_go_on_as_if_nothing_had_been() {
    let mut world = pair();
    part(&mut world);
    world.pause_ms(0, 200);
    world.run_ms(150);
    assert_eq!(world.leader(), 1, "{}", world.story());
    world.kill(1);
    world.run_ms(400);
    assert_eq!(world.leader(), 0, "{}", world.story());
    assert!(world.status(0).degraded, "{}", world.story());
    assert!(world.status(0).term > world.status(0).peers[0].term.unwrap_or_default());
    sound(&world);
}

#[test]
fn of_three_a_leader_without_the_witness_needs_both_others() {
    let mut world = group(3);
    world.longest_silence = 0;
    world.kill_witness();
    world.run_ms(300);
    assert_eq!((world.leader(), world.longest_silence), (0, 0), "both grant: {}", world.story());
    // One of them is cut off. It might have the witness on its side.
    for other in 0..2 {
        world.cut_all(2, other);
        world.cut_all(other, 2);
    }
    world.run_ms(300);
    assert!(world.senders().is_empty(), "{}", world.story());
    world.cut.clear();
    world.run_ms(300);
    assert_eq!(world.leader(), 0, "{}", world.story());
    sound(&world);
}

#[test]
fn of_three_that_are_all_apart_the_one_that_leads_goes_on() {
    let mut world = group(3);
    part(&mut world);
    world.longest_silence = 0;
    world.run_ms(1000);
    assert_eq!((world.leader(), world.longest_silence), (0, 0), "{}", world.story());
    world.kill(0);
    world.run_ms(300);
    assert_eq!(world.senders().len(), 1, "{}", world.story());
    sound(&world);
}

#[test]
fn requests_and_answers_of_before_are_of_no_use() {
    let mut world = pair();
    world.kill(0);
    let recorded = core::mem::take(&mut world.witness.recorded);
    world.run_ms(20);
    // Someone keeps saying what the dead active said.
    for _ in 0..80 {
        recorded.iter().rev().take(5).for_each(|request| world.replay_to_witness(0, request.clone()));
        world.run_ms(1);
    }
    assert_eq!(world.leader(), 1, "{}", world.story());
    world.start(0);
    world.run_ms(300);
    assert!(world.status(0).in_sync, "{}", world.story());
    // What the witness answers to its old process, and what it answers twice, is dropped.
    for request in recorded.iter().rev().take(50) {
        world.replay_to_witness(0, request.clone());
    }
    world.run_ms(10);
    assert!(world.machine(0).failover.counters().value(Counter::WitnessStale) > 0);
    sound(&world);
}

#[test]
fn nobody_leads_at_boot_before_the_witness_grants() {
    let mut world = World::new(7, setup());
    (0..2).for_each(|at| world.start(at));
    world.run_ms(800);
    assert!(world.senders().is_empty() && world.role(0) == Role::Booting, "{}", world.story());
    world.start_witness();
    world.run_ms(100);
    // They waited for so long that neither waits for the other one any more.
    assert_eq!(world.senders().len(), 1, "{}", world.story());
    sound(&world);
}
