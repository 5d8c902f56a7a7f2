//! Packets that come to whoever hands over: when they are relayed, and where to.

use super::pair::{pair, sound};
use super::world::{Setup, World};
use crate::base::ids::NodeId;
use crate::base::limits::PORTS_MAX;
use crate::failover::{FailoverEvent, Operator, Role};
use crate::wire::ethernet::{MacAddress, PortLinks};

/// Of a node, as the world numbers them.
fn links(node: u8) -> PortLinks {
    let mut links = [None; PORTS_MAX];
    (0..2).for_each(|port| links[usize::from(port)] = Some(MacAddress([2, 0, 0, 0, node, port])));
    links
}

fn served_at(world: &World, node: u16) -> u64 {
    let served = |(_, of, event): &&(u64, u16, FailoverEvent)| {
        *of == node && matches!(event, FailoverEvent::Serving { .. })
    };
    world.log.iter().rfind(served).expect("it serves").0
}

#[test]
fn stragglers_are_relayed_once_and_when_the_successor_serves() {
    let mut world = pair();
    world.operator(0, Operator::Switchover).unwrap();
    world.run_ms(500);
    assert_eq!(world.leader(), 1, "{}", world.story());
    let [(at, 1, to)] = world.relayed[..] else { panic!("{:?}", world.relayed) };
    assert_eq!(to, links(2));
    assert!(at >= served_at(&world, 2));
    sound(&world);
}

#[test]
fn nothing_is_relayed_over_a_port_on_which_the_successor_is_not_heard() {
    let mut world = pair();
    world.cut.insert((1, 1, 0));
    world.run_ms(300);
    world.operator(0, Operator::Switchover).unwrap();
    world.run_ms(500);
    let mut expected = links(2);
    expected[1] = None;
    assert_eq!(world.relayed.iter().map(|(_, node, to)| (*node, *to)).collect::<Vec<_>>(), [(1, expected)]);
}

#[test]
fn nobody_relays_after_a_crash_or_to_a_successor_that_dies() {
    let mut world = pair();
    world.kill(0);
    world.run_ms(300);
    assert_eq!((world.leader(), world.relayed.len()), (1, 0));
    for millis in 0..4 {
        let mut world = pair();
        world.operator(0, Operator::Switchover).unwrap();
        world.run_ms(millis);
        world.kill(1);
        world.run_ms(400);
        assert_eq!((world.role(0), world.relayed.len()), (Role::Active, 0), "{millis}: {}", world.story());
        sound(&world);
    }
}

#[test]
fn a_process_that_ends_stays_until_it_has_relayed() {
    let mut world = pair();
    world.operator(0, Operator::Shutdown).unwrap();
    world.run_ms(50);
    assert_eq!(world.leader(), 1, "{}", world.story());
    assert!(world.nodes[0].up.is_some(), "{}", world.story());
    assert_eq!(world.relayed.len(), 1);
    world.run_ms(100);
    assert!(world.nodes[0].up.is_none(), "{}", world.story());
}

#[test]
fn a_third_member_that_is_removed_during_the_last_flush_leaves_the_time_to_flush_anew() {
    let mut world = World::settled(31, Setup { nodes: 3, ..Setup::default() });
    let from = world.leader();
    // From now on standbys are slow, and have not all flows.
    let others = (0..3).filter(|at| *at != from);
    others.clone().for_each(|at| world.nodes[at].acknowledges_nothing_since = Some(world.now_us));
    world.client_comes(from);
    world.operator(from, Operator::Switchover).unwrap();
    let handover = |world: &World| {
        let handover = world.machine(from).failover.handover.as_ref();
        handover.map(|handover| (handover.to.expect("a successor"), handover.holds))
    };
    let (to, false) = handover(&world).expect("it hands over") else { panic!("it flushes first") };
    let successor = world.nodes.iter().position(|node| NodeId(node.id) == to).expect("it is there");
    let now = world.now();
    let failover = &mut world.nodes[from].up.as_mut().expect("it runs").failover;
    failover.hold(now, to);
    let third = failover.peers.iter_mut().find(|peer| peer.node != to).expect("a third one");
    third.overdue = true;
    let third = third.node;
    world.run_ms(60);
    let removed =
        |event: &&FailoverEvent| matches!(event, FailoverEvent::OutOfSync { node, .. } if *node == third);
    assert!(world.events(from).iter().any(removed), "{}", world.story());
    assert_eq!(handover(&world), Some((to, false)));
    assert_eq!(world.role(from), Role::Quiescing, "it serves meanwhile: {}", world.story());
    others.for_each(|at| world.nodes[at].acknowledges_nothing_since = None);
    world.run_ms(500);
    assert_eq!(world.leader(), successor, "{}", world.story());
    let resigned = |event: &&FailoverEvent| matches!(event, FailoverEvent::Resigned { clean: true, .. });
    assert!(world.events(from).iter().any(resigned), "{}", world.story());
    sound(&world);
}
