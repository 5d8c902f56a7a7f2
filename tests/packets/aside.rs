//! Frames of a walk let others pass at a standby (REQ B3, B5): however many are on their way, what packets wait for at the
//! leader is applied and acknowledged first; and what came is applied before the standby does anything else than to follow.

use baton::base::counters::Counter;
use baton::base::ids::{NodeId, Term};
use baton::worker::message::{Command, Role};

use crate::bench::*;
use crate::pair::*;

const FLOWS: u16 = 500;

/// Frames of a walk that a standby without flows has not got yet, and a frame of a flow that began after them. The standby has as many
/// flows as are named first.
fn walked_and_new() -> (Pair, Vec<Sent>, Vec<Sent>, usize) {
    let mut pair = Pair::in_sync();
    for port in 40000..40000 + FLOWS {
        pair.active.handle(CLIENT_PORT, &from_client(port, "10.1.0.101", 80, Some(SYN)).bytes());
    }
    pair.exchange(200);
    pair.standby = Bench::new(2, 0, 1);
    pair.standby.now = pair.active.now;
    pair.standby.know_neighbours();
    pair.standby.command(Command::Role { epoch: 1, role: Role::Standby, term: TERM });
    let (ours, theirs) = sessions();
    pair.active.command(Command::PeerSession { node: NodeId(2), session: ours });
    pair.standby.command(Command::PeerSession { node: NodeId(1), session: theirs });
    // The first frame says that a walk begins.
    pair.exchange(1);
    let turns: Vec<_> = (0..4).map(|_| split(pair.active.poll_after(1)).0).collect();
    let counts: Vec<usize> = turns.iter().map(Vec::len).collect();
    assert!(counts.iter().all(|count| *count <= 1), "one frame of the walk in a turn: {counts:?}");
    let walked: Vec<Sent> = turns.into_iter().flatten().collect();
    assert!(walked.len() >= 3, "{counts:?}");
    let begun = known(&pair);
    pair.active.handle(CLIENT_PORT, &from_client(50000, "10.1.0.100", 80, Some(SYN)).bytes());
    let (new, other) = split(pair.active.poll_after(1));
    assert!(new.len() == 1 && other.is_empty(), "it waits for the peer");
    (pair, walked, new, begun)
}

fn known(pair: &Pair) -> usize {
    pair.standby.worker.flows().table.len()
}

fn hear(pair: &mut Pair, frames: &[Sent]) -> Vec<Sent> {
    frames.iter().flat_map(|frame| pair.standby.handle(MIRROR_PORT, &to(&frame.bytes, 2))).collect()
}

#[test]
fn what_packets_wait_for_passes_a_walk_that_came_before_it() {
    let (mut pair, walked, new, begun) = walked_and_new();
    assert!(hear(&mut pair, &walked).is_empty(), "frames of a walk wait for a turn");
    assert_eq!(known(&pair), begun);
    let answers = hear(&mut pair, &new);
    assert_eq!(answers.len(), 1);
    let released = answers.iter().flat_map(|answer| pair.active.handle(MIRROR_PORT, &to(&answer.bytes, 1)));
    assert_eq!(released.filter(|sent| sent.port == SERVER_PORT).count(), 1, "the packet leaves");
    pair.exchange(200);
    assert_eq!(known(&pair), usize::from(FLOWS) + 1, "and the walk goes on");
}

#[test]
fn frames_of_a_walk_are_applied_one_a_turn_and_before_a_command() {
    let (mut pair, walked, _, begun) = walked_and_new();
    hear(&mut pair, &walked);
    assert!(pair.standby.worker.next_deadline() <= pair.standby.now, "there is something to do");
    let answers = pair.standby.poll_after(1);
    assert_eq!(answers.len(), 1, "one was applied, and is acknowledged");
    let one = known(&pair);
    assert!(one > begun);
    pair.standby.command(Command::Role {
        epoch: 2,
        role: Role::Active,
        term: Term { counter: 9, node: NodeId(2) },
    });
    assert!(known(&pair) > one, "what came before is known to who leads");
}

#[test]
fn a_leader_puts_nothing_aside_and_a_standby_no_more_than_it_has_room_for() {
    let (mut pair, walked, new, begun) = walked_and_new();
    // Damaged ones: nobody verifies a frame before its turn.
    let mut forged = walked[0].bytes.clone();
    *forged.last_mut().expect("a seal") ^= 1;
    let frames = vec![Sent { bytes: forged, ..walked[0].clone() }; 1000];
    hear(&mut pair, &frames);
    let looked_at = pair.standby.count(Counter::MirrorRefused);
    assert!((900..1000).contains(&looked_at), "{looked_at} were looked at as they came, the others wait");
    assert_eq!(known(&pair), begun);
    (0..40).for_each(|_| drop(pair.standby.poll_after(1)));
    assert_eq!(pair.standby.count(Counter::MirrorRefused), 1000, "in some thirty turns");
    // To the leader the same, from the standby: it says that it walks, and is looked at as it comes.
    let mut answer = hear(&mut pair, &new).swap_remove(0).bytes;
    answer[14 + 20 + 8 + 1] |= 2;
    (1..=5).for_each(|count| {
        pair.active.handle(MIRROR_PORT, &to(&answer, 1));
        assert_eq!(pair.active.count(Counter::MirrorRefused), count);
    });
}
