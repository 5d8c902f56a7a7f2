//! A thread of a process panics: the process resigns before it ends.

use super::pair::{pair, promoted, safe_pair, sound};
use super::world::{Setup, World};
use crate::failover::event::{Cause, FailoverEvent, Removal};
use crate::failover::{Operator, Role};

#[test]
fn an_active_that_panics_resigns_and_is_succeeded_without_waiting_for_its_silence() {
    for mut world in [pair(), safe_pair()] {
        world.longest_silence = 0;
        world.panic(0);
        world.run_ms(20);
        assert_eq!(world.leader(), 1, "{}", world.story());
        assert!(world.nodes[0].up.is_none(), "it may exit");
        assert_eq!(promoted(&world, 1), [(Cause::LeaderResigned, false)]);
        assert!(world.longest_silence < 15_000, "{} us", world.longest_silence);
        sound(&world);
    }
}

#[test]
fn when_the_worker_that_sends_its_frames_panicked_silence_tells() {
    let mut world = pair();
    world.nodes[0].stuck_until = u64::MAX;
    world.panic(0);
    world.run_ms(20);
    assert!(world.nodes[0].up.is_none() && world.senders().is_empty(), "{}", world.story());
    world.run_ms(50);
    assert_eq!(world.leader(), 1);
    assert_eq!(promoted(&world, 1), [(Cause::Silence, false)]);
    sound(&world);
}

#[test]
fn a_standby_that_panics_leaves_the_in_sync_set_at_once_and_comes_back() {
    let mut world = pair();
    world.panic(1);
    world.run_ms(10);
    let left =
        |event: &&FailoverEvent| matches!(event, FailoverEvent::OutOfSync { removal: Removal::Left, .. });
    assert!(world.events(0).iter().any(left), "{}", world.story());
    world.start(1);
    world.run_ms(300);
    assert!(world.status(1).in_sync);
    assert_eq!(world.leader(), 0);
    sound(&world);
}

#[test]
fn a_panic_at_any_moment_of_a_handover_ends_with_the_other_one_serving() {
    for millis in 0..15 {
        for at in 0..2 {
            let mut world = pair();
            world.operator(0, Operator::Switchover).unwrap();
            world.run_ms(millis);
            world.panic(at);
            world.run_ms(300);
            assert_eq!(world.leader(), 1 - at, "{at} panics after {millis} ms: {}", world.story());
            sound(&world);
        }
    }
}

#[test]
fn of_two_standbys_the_better_one_succeeds_an_active_that_panics() {
    let mut world = World::new(11, Setup { nodes: 3, ..Setup::default() });
    world.nodes[2].priority = 200;
    (0..3).for_each(|at| world.start(at));
    world.run_ms(500);
    let active = world.leader();
    world.panic(active);
    world.run_ms(300);
    let successor = if active == 2 { 0 } else { 2 };
    assert_eq!(world.leader(), successor, "{}", world.story());
    let led: usize = (0..3).map(|at| promoted(&world, at).len()).sum();
    assert_eq!(led, 2, "nobody else tried: {}", world.story());
    sound(&world);
}

#[test]
fn one_that_panics_while_it_boots_or_is_silenced_says_goodbye_too() {
    let mut world = World::new(12, Setup::default());
    world.start(0);
    world.run_ms(5);
    assert_eq!(world.role(0), Role::Booting);
    world.panic(0);
    world.run_ms(2);
    assert!(world.nodes[0].up.is_none());

    let mut world = pair();
    world.cut_all(1, 0);
    world.pause_ms(0, 40);
    world.run_ms(43);
    assert_eq!(world.role(0), Role::Silenced, "{}", world.story());
    world.panic(0);
    world.run_ms(15);
    assert_eq!(world.leader(), 1);
    assert_eq!(promoted(&world, 1), [(Cause::LeaderResigned, false)]);
    sound(&world);
}
