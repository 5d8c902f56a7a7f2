//! With `vrrp = "yield"`: another VRRP router of more priority than every member takes service, and gives it back.

use super::pair::{promoted, sound};
use super::world::{Setup, World};
use crate::config::checked::{Partition, VrrpUse};
use crate::failover::event::FailoverEvent;
use crate::failover::{Operator, Refusal, Role, State};

/// A pair of priorities 100 and 150 in which the second one leads.
fn yielding(partition: Partition) -> World {
    let mut world = World::new(41, Setup { vrrp: VrrpUse::Yield, partition, ..Setup::default() });
    world.nodes[1].priority = 150;
    world.start(0);
    world.start(1);
    world.run_ms(3400);
    assert!(world.senders().is_empty(), "it waits as a backup does at its start: {}", world.story());
    world.run_ms(700);
    assert_eq!(world.leader(), 1, "{}", world.story());
    world
}

/// All hear a router of this priority, or hear it no more.
fn hears(world: &mut World, at: usize, priority: u8) {
    let now = world.now();
    world.nodes[at].up.as_mut().unwrap().failover.handle_foreign(now, priority);
}

fn all_hear(world: &mut World, priority: u8) {
    (0..2).for_each(|at| hears(world, at, priority));
}

#[test]
fn a_router_of_more_priority_than_all_members_silences_them_and_when_it_is_gone_the_best_serves_again() {
    for partition in [Partition::Availability, Partition::Safety] {
        let mut world = yielding(partition);
        // What the standby hears of its own leader.
        hears(&mut world, 0, 150);
        hears(&mut world, 1, 120);
        world.run_ms(100);
        assert_eq!((world.leader(), world.status(0).state), (1, State::Synchronized), "{}", world.story());
        all_hear(&mut world, 151);
        world.run_ms(100);
        assert!(world.senders().is_empty(), "{}", world.story());
        assert_eq!([world.status(0).state, world.status(1).state], [State::Yielding; 2]);
        assert_eq!(world.operator(0, Operator::Promote), Err(Refusal::Outranked(151)));
        world.run_ms(1000);
        assert!(world.senders().is_empty(), "{}", world.story());
        world.longest_silence = 0;
        world.silent_for = 0;
        all_hear(&mut world, 0);
        world.run_ms(200);
        assert_eq!((world.leader(), world.role(0)), (1, Role::Standby), "{}", world.story());
        assert!(world.longest_silence < 80_000, "{} us", world.longest_silence);
        world.run_ms(200);
        assert!(world.status(0).in_sync, "{}", world.story());
        assert!(world.events(1).contains(&&FailoverEvent::OutrankedNoMore));
        sound(&world);
    }
}

#[test]
fn members_that_hear_it_go_at_different_times_have_one_leader() {
    for first in [0, 1] {
        let mut world = yielding(Partition::Availability);
        all_hear(&mut world, 255);
        world.run_ms(300);
        hears(&mut world, first, 0);
        world.run_ms(30);
        hears(&mut world, 1 - first, 0);
        world.run_ms(300);
        world.leader();
        sound(&world);
    }
}

#[test]
fn one_alone_yields_too_and_so_does_one_that_has_just_been_silenced() {
    let mut world = yielding(Partition::Availability);
    world.kill(0);
    world.run_ms(200);
    hears(&mut world, 1, 200);
    world.run_ms(20);
    assert!(world.senders().is_empty() && world.role(1) == Role::Standby, "{}", world.story());
    hears(&mut world, 1, 0);
    world.run_ms(100);
    assert_eq!(world.leader(), 1, "{}", world.story());
    world.pause_ms(1, 60);
    world.run_ms(61);
    assert_eq!(world.role(1), Role::Silenced, "{}", world.story());
    hears(&mut world, 1, 200);
    world.run_ms(20);
    assert!(world.senders().is_empty() && world.role(1) == Role::Standby, "{}", world.story());
    sound(&world);
}

#[test]
fn without_that_wish_nobody_yields() {
    let mut world = World::settled(42, Setup::default());
    all_hear(&mut world, 255);
    world.run_ms(100);
    assert_eq!(world.leader(), 0);
    assert_eq!(promoted(&world, 0).len(), 1);
}
