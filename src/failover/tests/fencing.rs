//! Standbys that have a silent leader fenced before they go by its silence.

use super::pair::{promoted, sound};
use super::world::{Setup, World};
use crate::config::checked::Partition;
use crate::failover::event::{Cause, FailoverEvent};
use crate::failover::witness::WitnessVariant;
use crate::failover::{Operator, Role};

fn settled(partition: Partition) -> World {
    let world = World::settled(1, Setup { partition, fences: true, ..Setup::default() });
    assert_eq!((world.leader(), world.status(1).in_sync), (0, true), "{}", world.story());
    assert!(world.fencing.is_empty());
    world
}

/// The command of the newest run ends.
fn end(world: &mut World, done: bool) {
    let (at, attempt, _) = *world.fencing.last().expect("somebody is to be fenced");
    let now = world.now();
    world.nodes[at].up.as_mut().expect("it is up").failover.handle_fenced(now, attempt, done);
}

#[test]
fn with_safety_a_standby_leads_on_silence_when_the_leader_is_fenced() {
    let mut world = settled(Partition::Safety);
    world.kill(0);
    world.run_ms(62);
    assert_eq!((world.role(1), world.fencing.len()), (Role::Standby, 1), "{}", world.story());
    assert_eq!(world.fencing[0].2.0, 1, "the leader");
    end(&mut world, true);
    world.run_ms(10);
    assert_eq!(world.leader(), 1, "{}", world.story());
    assert_eq!(promoted(&world, 1), [(Cause::Fenced, true)], "it cannot know whether the leader went on");
    sound(&world);
}

#[test]
fn a_leader_that_went_on_alone_before_it_was_fenced_makes_the_takeover_degraded() {
    for partition in [Partition::Safety, Partition::Availability] {
        let mut world = settled(partition);
        world.cut_all(0, 1);
        world.cut_all(1, 0);
        world.run_ms(500);
        assert_eq!((world.leader(), world.role(1)), (0, Role::Standby), "{}", world.story());
        assert!(world.status(0).members.is_empty() && !world.status(1).in_sync, "{}", world.story());
        world.kill(0);
        end(&mut world, true);
        world.run_ms(10);
        assert_eq!(promoted(&world, 1), [(Cause::Fenced, true)]);
        sound(&world);
    }
}

#[test]
fn a_witness_knows_whether_the_leader_went_on_before_it_was_fenced() {
    for goes_on in [false, true] {
        let witness = Some(WitnessVariant::Sound);
        let mut world = World::settled(1, Setup { fences: true, witness, ..Setup::default() });
        assert_eq!((world.leader(), world.status(1).in_sync), (0, true), "{}", world.story());
        world.cut_all(0, 1);
        world.cut_all(1, 0);
        if goes_on {
            world.run_ms(500);
            assert!(world.fencing.is_empty(), "the witness lets it send: {}", world.story());
            assert_eq!(world.leader(), 0, "{}", world.story());
        }
        world.kill(0);
        world.run_ms(500);
        assert_eq!((world.role(1), world.fencing.len()), (Role::Standby, 1), "{}", world.story());
        end(&mut world, true);
        world.run_ms(100);
        assert_eq!(promoted(&world, 1), [(Cause::Fenced, goes_on)], "{}", world.story());
        // That the leader went on it hears with the grant, which it gets when that one is gone: not before.
        assert!(world.doubles.is_empty() && world.lost.is_empty(), "{}", world.story());
        assert!(goes_on || world.early.is_empty(), "released early: {:?}", world.early.first());
    }
}

#[test]
fn when_fencing_fails_availability_leads_and_safety_waits_and_tries_again() {
    let mut world = settled(Partition::Availability);
    world.kill(0);
    world.run_ms(200);
    assert_eq!((world.role(1), world.fencing.len()), (Role::Standby, 1), "{}", world.story());
    end(&mut world, false);
    world.run_ms(10);
    assert_eq!((world.leader(), promoted(&world, 1)), (1, vec![(Cause::Silence, true)]));

    let mut world = settled(Partition::Safety);
    world.kill(0);
    world.run_ms(200);
    end(&mut world, false);
    world.run_ms(9_900);
    assert_eq!((world.role(1), world.fencing.len()), (Role::Standby, 1), "{}", world.story());
    assert!(world.status(1).waits_for_operator);
    world.run_ms(200);
    assert_eq!(world.fencing.len(), 2, "{}", world.story());
    end(&mut world, true);
    world.run_ms(10);
    assert_eq!(world.leader(), 1, "{}", world.story());
    sound(&world);
}

#[test]
fn a_command_of_which_nothing_is_heard_has_failed() {
    let mut world = settled(Partition::Availability);
    world.kill(0);
    world.run_ms(3_000);
    assert_eq!(world.role(1), Role::Standby, "{}", world.story());
    world.run_ms(200);
    assert_eq!(world.leader(), 1, "{}", world.story());
    let failed = |event: &&FailoverEvent| matches!(event, FailoverEvent::FenceFailed { .. });
    assert_eq!(world.events(1).into_iter().filter(failed).count(), 1);
    // It ends after all: that is of no interest any more.
    end(&mut world, true);
    world.run_ms(10);
    assert_eq!(world.leader(), 1);
}

#[test]
fn a_leader_that_is_heard_again_is_followed_and_fenced_anew_at_its_next_silence() {
    let mut world = settled(Partition::Safety);
    world.cut_all(0, 1);
    world.cut_all(1, 0);
    world.run_ms(100);
    assert_eq!(world.fencing.len(), 1, "{}", world.story());
    world.cut.clear();
    world.run_ms(200);
    end(&mut world, true);
    world.run_ms(100);
    assert_eq!((world.leader(), world.role(1)), (0, Role::Standby), "{}", world.story());
    world.kill(0);
    world.run_ms(100);
    assert_eq!(
        (world.role(1), world.fencing.len()),
        (Role::Standby, 2),
        "what was done before does not count"
    );
    end(&mut world, true);
    world.run_ms(10);
    assert_eq!(world.leader(), 1, "{}", world.story());
    sound(&world);
}

#[test]
fn nobody_is_fenced_who_resigned_or_started_anew() {
    let mut world = settled(Partition::Safety);
    world.operator(0, Operator::Switchover).expect("a standby is in sync");
    world.run_ms(100);
    assert_eq!((world.leader(), world.fencing.len()), (1, 0), "{}", world.story());
    world.kill(1);
    world.run_ms(10);
    world.start(1);
    world.run_ms(300);
    assert_eq!(world.fencing.len(), 0, "{}", world.story());
    assert_eq!(world.leader(), 0, "{}", world.story());
}

#[test]
fn one_that_is_heard_though_it_was_fenced_is_an_alarm_and_goes_by_terms() {
    let heard = |event: &&FailoverEvent| matches!(event, FailoverEvent::FencedIsHeard { .. });
    let mut world = settled(Partition::Safety);
    world.cut_all(0, 1);
    world.cut_all(1, 0);
    world.run_ms(100);
    end(&mut world, true);
    world.run_ms(100);
    assert_eq!(world.role(1), Role::Active, "{}", world.story());
    assert_eq!(world.events(1).into_iter().filter(heard).count(), 0, "{}", world.story());
    world.cut.clear();
    world.run_ms(200);
    assert_eq!((world.leader(), world.role(0)), (1, Role::Standby), "{}", world.story());
    assert_eq!(world.events(1).into_iter().filter(heard).count(), 1, "{}", world.story());

    let mut world = settled(Partition::Safety);
    world.kill(0);
    world.run_ms(100);
    end(&mut world, true);
    world.run_ms(100);
    world.start(0);
    world.run_ms(300);
    assert_eq!((world.leader(), world.role(0)), (1, Role::Standby), "{}", world.story());
    assert_eq!(world.events(1).into_iter().filter(heard).count(), 0, "it started anew: {}", world.story());
    assert!(world.status(0).in_sync, "{}", world.story());
    sound(&world);
}

#[test]
fn what_was_done_does_not_count_after_a_time_out_of_service() {
    // Whoever was fenced meanwhile starts again, and the operator lets it lead.
    for ended_meanwhile in [true, false] {
        let mut world = settled(Partition::Safety);
        world.kill(0);
        world.run_ms(100);
        assert_eq!(world.fencing.len(), 1, "{}", world.story());
        world.operator(1, Operator::Maintenance { on: true, force: false }).expect("a standby may");
        world.run_ms(20);
        if ended_meanwhile {
            end(&mut world, true);
        }
        world.run_ms(20);
        world.cut_all(0, 1);
        world.cut_all(1, 0);
        world.start(0);
        world.run_ms(400);
        world.operator(0, Operator::Promote).expect("nobody is heard to lead");
        world.run_ms(100);
        assert_eq!(world.leader(), 0, "{}", world.story());
        world.operator(1, Operator::Maintenance { on: false, force: false }).expect("it may");
        world.run_ms(20);
        if !ended_meanwhile {
            end(&mut world, true);
        }
        world.run_ms(100);
        assert_eq!((world.role(1), world.fencing.len()), (Role::Standby, 2), "{}", world.story());
        assert!(world.doubles.is_empty(), "{:?}\n{}", world.doubles.first(), world.story());
    }
}

#[test]
fn what_was_done_while_this_one_slept_does_not_count() {
    let mut world = settled(Partition::Safety);
    world.kill(0);
    world.run_ms(100);
    end(&mut world, true);
    world.pause_ms(1, 200);
    world.cut_all(0, 1);
    world.cut_all(1, 0);
    world.start(0);
    world.run_ms(300);
    assert_eq!((world.role(1), world.fencing.len()), (Role::Standby, 2), "{}", world.story());
}

#[test]
fn one_that_has_just_begun_a_session_is_waited_for() {
    let mut world = settled(Partition::Safety);
    world.cut_all(0, 1);
    world.run_ms(45);
    assert_eq!((world.role(1), world.fencing.len()), (Role::Standby, 0), "{}", world.story());
    let now = world.now();
    let failover = &mut world.nodes[1].up.as_mut().expect("it is up").failover;
    failover.peers[0].opened_at = now;
    world.run_ms(30);
    assert_eq!((world.role(1), world.fencing.len()), (Role::Standby, 0), "{}", world.story());
    assert!(!world.status(1).waits_for_operator, "{}", world.story());
    world.run_ms(30);
    assert_eq!(world.fencing.len(), 1, "it is silent still: {}", world.story());
}

#[test]
fn one_command_runs_at_a_time_however_often_the_leader_falls_silent() {
    let mut world = settled(Partition::Safety);
    for _ in 0..5 {
        world.cut_all(0, 1);
        world.cut_all(1, 0);
        world.run_ms(100);
        world.cut.clear();
        world.run_ms(50);
    }
    assert_eq!(world.fencing.len(), 1, "{}", world.story());
    world.kill(0);
    world.run_ms(100);
    assert_eq!(world.fencing.len(), 1, "the first one still runs");
    end(&mut world, true);
    world.run_ms(10);
    assert_eq!((world.role(1), world.fencing.len()), (Role::Standby, 2), "it was run for another silence");
    end(&mut world, true);
    world.run_ms(10);
    assert_eq!(world.leader(), 1, "{}", world.story());
    sound(&world);
}

fn settled_three(partition: Partition) -> World {
    let world = World::settled(1, Setup { nodes: 3, partition, fences: true, ..Setup::default() });
    assert_eq!(world.leader(), 0, "{}", world.story());
    assert!(world.status(1).in_sync && world.status(2).in_sync, "{}", world.story());
    world
}

#[test]
fn of_two_standbys_the_better_one_fences_and_the_other_waits_for_it() {
    let mut world = settled_three(Partition::Safety);
    world.kill(0);
    world.run_ms(2_000);
    assert_eq!(world.fencing.len(), 1, "{}", world.story());
    assert_eq!((world.fencing[0].0, world.fencing[0].2.0), (1, 1), "{}", world.story());
    end(&mut world, true);
    world.run_ms(50);
    assert_eq!((world.leader(), world.role(2)), (1, Role::Standby), "{}", world.story());
    sound(&world);
}

/// The third one leads when all of these were fenced, one after the other, and not before.
fn leads_when_fenced(world: &mut World, whom: &[u16]) {
    for _ in whom {
        world.run_ms(100);
        assert_eq!(world.role(2), Role::Standby, "{}", world.story());
        end(world, true);
    }
    world.run_ms(10);
    assert_eq!(world.leader(), 2, "{}", world.story());
    assert_eq!(world.fencing.iter().map(|(_, _, node)| node.0).collect::<Vec<_>>(), whom);
}

#[test]
fn with_safety_whoever_is_silent_is_fenced_since_it_may_have_taken_over() {
    for (partition, whom) in [(Partition::Safety, vec![1, 2]), (Partition::Availability, vec![1])] {
        let mut world = settled_three(partition);
        world.kill(1);
        world.run_ms(500);
        world.kill(0);
        leads_when_fenced(&mut world, &whom);
        sound(&world);
    }
}

#[test]
fn with_safety_not_even_one_that_left_is_excused() {
    for (partition, whom) in [(Partition::Safety, vec![1, 2]), (Partition::Availability, vec![1])] {
        let mut world = settled_three(partition);
        world.operator(1, Operator::Shutdown).expect("it may");
        world.run_ms(500);
        world.kill(0);
        leads_when_fenced(&mut world, &whom);
    }
}

#[test]
fn when_one_cannot_be_fenced_all_are_fenced_again() {
    let mut world = settled_three(Partition::Safety);
    world.kill(1);
    world.run_ms(500);
    world.kill(0);
    for done in [true, false] {
        world.run_ms(100);
        end(&mut world, done);
    }
    world.run_ms(10_100);
    for _ in 0..2 {
        assert_eq!(world.role(2), Role::Standby, "{}", world.story());
        end(&mut world, true);
        world.run_ms(100);
    }
    assert_eq!(world.leader(), 2, "{}", world.story());
    assert_eq!(world.fencing.iter().map(|(_, _, node)| node.0).collect::<Vec<_>>(), [1, 2, 1, 2]);
    sound(&world);
}

#[test]
fn one_that_resigned_and_is_heard_is_not_fenced_but_its_silent_successor_is() {
    let mut world = settled_three(Partition::Safety);
    world.operator(0, Operator::Switchover).expect("a standby is in sync");
    for _ in 0..200 {
        if world.role(0) == Role::Standby {
            break;
        }
        world.run_ms(1);
    }
    world.kill(1);
    world.run_ms(4_000);
    assert!(!world.fencing.is_empty(), "{}", world.story());
    assert!(world.fencing.iter().all(|(_, _, node)| node.0 == 2), "{:?}", world.fencing);
}
