//! What an active and a standby worker make of each other's mirror frames.

use baton::base::counters::Counter;
use baton::base::ids::{NodeId, Term};
use baton::base::io::TxClass;
use baton::flow::TcpState;
use baton::seal::Distrust;
use baton::worker::message::{Command, Event, Role};

use crate::bench::*;
use crate::pair::*;

#[test]
fn a_held_syn_leaves_when_the_standby_has_applied_its_flow_and_not_before() {
    let mut pair = Pair::in_sync();
    let syn = from_client(40000, "10.1.0.100", 80, Some(SYN));
    assert!(pair.active.handle(CLIENT_PORT, &syn.bytes()).is_empty(), "it is held");
    assert!(pair.exchange_but(20, |active, _| active).is_empty(), "unacknowledged, it stays");
    assert_eq!(pair.standby.status().flows, 1, "though the standby knows it");
    let sent = pair.exchange(50);
    let out = only(&sent, SERVER_PORT, TxClass::Service);
    assert_eq!(out.from, syn.from);
    assert_eq!(pair.active.status().protected, 1);
}

#[test]
fn a_promoted_standby_translates_as_the_active_did() {
    let mut pair = Pair::in_sync();
    let syn = from_client(40000, "10.1.0.101", 80, Some(SYN));
    let out = only(&pair.active.handle(CLIENT_PORT, &syn.bytes()), SERVER_PORT, TxClass::Service);
    pair.exchange(5);
    let term = Term { counter: 2, node: NodeId(2) };
    pair.standby.command(Command::PeerLost { node: NodeId(1) });
    pair.standby.command(Command::Role { epoch: 2, role: Role::Active, term });
    let answer = out.answer(Some(SYN_ACK));
    let back = only(&pair.standby.handle(SERVER_PORT, &answer.bytes()), CLIENT_PORT, TxClass::Service);
    assert_eq!((back.from, back.to), (syn.to, syn.from));
    let ack = from_client(40000, "10.1.0.101", 80, Some(ACK));
    let on = only(&pair.standby.handle(CLIENT_PORT, &ack.bytes()), SERVER_PORT, TxClass::Service);
    assert_eq!(on.from, out.from, "by the same source-NAT port");
}

#[test]
fn lost_frames_are_made_good_by_the_newest_state() {
    let mut pair = Pair::in_sync();
    let syn = from_client(40000, "10.1.0.101", 80, Some(SYN));
    let out = only(&pair.active.handle(CLIENT_PORT, &syn.bytes()), SERVER_PORT, TxClass::Service);
    pair.exchange_but(5, |active, _| !active);
    pair.active.handle(SERVER_PORT, &out.answer(Some(SYN_ACK)).bytes());
    pair.active.handle(CLIENT_PORT, &from_client(40000, "10.1.0.101", 80, Some(FIN_ACK)).bytes());
    pair.exchange(200);
    let flow = |bench: &Bench| bench.worker.flows().table.iter().next().expect("a flow").1;
    let (ours, theirs) = (flow(&pair.active), flow(&pair.standby));
    assert_eq!((ours.tcp, ours.changed, ours.server), (theirs.tcp, theirs.changed, theirs.server));
}

#[test]
fn a_standby_is_told_of_a_flows_beginning_and_of_its_ends_but_not_of_the_handshake_between() {
    let mut pair = Pair::in_sync();
    let client = |flags| from_client(40000, "10.1.0.101", 80, Some(flags)).bytes();
    let out = only(&pair.active.handle(CLIENT_PORT, &client(SYN)), SERVER_PORT, TxClass::Service);
    pair.exchange(20);
    let told =
        |pair: &mut Pair| pair.active.status().streams.iter().map(|s| s.statistics.records_sent).sum::<u64>();
    let begun = told(&mut pair);
    assert_eq!(the_flow(&pair.standby).tcp, TcpState::Established, "as it would go on with it");
    let server = |flags| out.answer(Some(flags)).bytes();
    let steps = [
        (SERVER_PORT, server(SYN_ACK), TcpState::SynAckSeen, 0),
        (CLIENT_PORT, client(ACK), TcpState::Established, 0),
        (SERVER_PORT, server(FIN_ACK), TcpState::FinFromServer, 1),
        (CLIENT_PORT, client(FIN_ACK), TcpState::Closing, 2),
    ];
    for (port, packet, state, records) in steps {
        pair.active.handle(port, &packet);
        pair.exchange(20);
        assert_eq!((the_flow(&pair.active).tcp, told(&mut pair) - begun), (state, records));
        assert_eq!(the_flow(&pair.standby).tcp, state.after_takeover());
    }
}

#[test]
fn an_ended_flow_ends_at_the_standby_and_a_late_frame_does_not_bring_it_back() {
    let mut pair = Pair::in_sync();
    let client = |flags| from_client(40000, "10.1.0.101", 80, Some(flags)).bytes();
    pair.active.handle(CLIENT_PORT, &client(SYN));
    let (late, _) = split(pair.active.poll_after(1));
    assert_eq!(late.len(), 1, "the frame that makes the flow");
    let (place, _) = pair.active.worker.flows().table.iter().next().expect("the flow");
    pair.exchange(200);
    assert_eq!(pair.standby.status().flows, 1);
    pair.active.poll_after(3_600_000);
    pair.active.command(Command::Expire { flow: place });
    pair.exchange(200);
    assert_eq!((pair.active.status().flows, pair.standby.status().flows), (0, 0));
    assert_eq!(pair.active.status().departed, 0, "the end was acknowledged");
    pair.standby.handle(MIRROR_PORT, &to(&late[0].bytes, 2));
    assert_eq!(pair.standby.status().flows, 0);
}

#[test]
fn a_standby_that_joins_later_is_walked_through_every_flow() {
    let mut pair = Pair { active: Bench::active(), standby: Bench::new(2, 0, 1) };
    for port in 40000..40500 {
        pair.active.handle(CLIENT_PORT, &from_client(port, "10.1.0.101", 80, Some(SYN)).bytes());
    }
    pair.standby.know_neighbours();
    pair.standby.command(Command::Role { epoch: 1, role: Role::Standby, term: TERM });
    pair.join();
    pair.exchange(2000);
    assert_eq!(pair.standby.status().flows, 500);
    pair.active.events();
    pair.exchange(11);
    let done = pair.active.events().iter().any(|e| matches!(e, Event::Sync { walk_done: true, .. }));
    assert!(done, "the walk is said to be done");
}

#[test]
fn what_a_walk_does_not_name_is_removed() {
    let mut pair = Pair::in_sync();
    pair.active.handle(CLIENT_PORT, &from_client(40000, "10.1.0.101", 80, Some(SYN)).bytes());
    pair.exchange(50);
    assert_eq!(pair.standby.status().flows, 1);
    // The active loses its state: a new process of the same node, which leads on.
    let mut fresh = Bench::active();
    fresh.now = pair.active.now;
    let term = Term { counter: 3, node: NodeId(1) };
    fresh.command(Command::Role { epoch: 2, role: Role::Active, term });
    pair.active = fresh;
    pair.join();
    pair.exchange(500);
    assert_eq!(pair.standby.status().flows, 0);
}

#[test]
fn records_of_a_lower_term_are_neither_applied_nor_acknowledged() {
    let mut pair = Pair::in_sync();
    let newer = Term { counter: 5, node: NodeId(2) };
    pair.standby.command(Command::Role { epoch: 2, role: Role::Standby, term: newer });
    let syn = from_client(40000, "10.1.0.100", 80, Some(SYN));
    pair.active.handle(CLIENT_PORT, &syn.bytes());
    assert!(pair.exchange(50).is_empty(), "the packet stays held");
    assert_eq!(pair.standby.status().flows, 0);
    assert!(pair.standby.count(Counter::MirrorWrongTerm) > 0);
}

/// What the standby has newly said of frames in the active's name that it did not believe.
fn disbelieved(pair: &mut Pair) -> Vec<(Distrust, u64)> {
    let said = |event: &Event| match event {
        Event::Disbelieved { peer: NodeId(1), what, count } => Some((*what, *count)),
        _ => None,
    };
    pair.standby.events().iter().filter_map(said).collect()
}

#[test]
fn a_forged_frame_is_dropped_counted_and_named() {
    let mut pair = Pair::in_sync();
    pair.active.handle(CLIENT_PORT, &from_client(40000, "10.1.0.101", 80, Some(SYN)).bytes());
    let (frames, _) = split(pair.active.poll_after(1));
    let mut frame = to(&frames[0].bytes, 2);
    let at = frame.len() - 30;
    frame[at] ^= 1;
    pair.standby.handle(MIRROR_PORT, &frame);
    assert_eq!(pair.standby.count(Counter::MirrorRefused), 1);
    assert_eq!(disbelieved(&mut pair), [(Distrust::Forged, 1)]);
    assert_eq!(pair.standby.status().flows, 0);
    pair.standby.handle(MIRROR_PORT, &to(&frames[0].bytes, 2));
    assert_eq!(pair.standby.status().flows, 1);
    pair.standby.handle(MIRROR_PORT, &to(&frames[0].bytes, 2));
    assert_eq!(pair.standby.count(Counter::MirrorRefused), 2, "a replay is refused too");
    // The boot of its sender is another one: a process that has ended.
    let (mut earlier, is_ipv4) = (to(&frames[0].bytes, 2), frames[0].bytes[12..14] == [8, 0]);
    earlier[if is_ipv4 { 42 } else { 62 } + 11] ^= 1;
    pair.standby.handle(MIRROR_PORT, &earlier);
    assert_eq!(pair.standby.count(Counter::MirrorUnknownPeer), 1);
    assert_eq!(disbelieved(&mut pair), [], "a flood of such frames makes no flood of events");
    // By its own clock, whether somebody asks or not.
    drop(pair.standby.poll_after(200));
    assert_eq!(disbelieved(&mut pair), [(Distrust::Replayed, 1), (Distrust::EarlierSession, 1)]);
}

/// Of the newest report: the in-sync set's epoch before which the standby has everything.
fn settled(pair: &mut Pair) -> u64 {
    let of = |event: &Event| match event {
        Event::Sync { settled, .. } => Some(*settled),
        _ => None,
    };
    pair.active.events().iter().filter_map(of).next_back().expect("a report")
}

#[test]
fn a_report_says_whether_the_peer_has_all_that_was_there_before_the_newest_set() {
    let mut pair = Pair::in_sync();
    pair.exchange(40);
    assert_eq!(settled(&mut pair), 2);
    pair.active.command(Command::InSync { epoch: 3, term: TERM, peers: vec![] });
    pair.exchange(40);
    assert_eq!(settled(&mut pair), 3);
    // Let go under the acknowledgement of nobody, and told to the peer in vain.
    let syn = from_client(40000, "10.1.0.101", 80, Some(SYN));
    let sent = pair.active.handle(CLIENT_PORT, &syn.bytes());
    let out = only(&split(sent).1, SERVER_PORT, TxClass::Service);
    pair.exchange_but(1, |_, _| false);
    pair.active.command(Command::InSync { epoch: 4, term: TERM, peers: vec![NodeId(2)] });
    pair.exchange_but(40, |_, _| false);
    assert_eq!(settled(&mut pair), 0);
    // A later state of it changes nothing.
    pair.active.handle(SERVER_PORT, &out.answer(Some(SYN_ACK)).bytes());
    pair.exchange_but(40, |_, _| false);
    assert_eq!(settled(&mut pair), 0);
    pair.exchange(400);
    assert_eq!(settled(&mut pair), 4);
}

#[test]
fn an_overdue_packet_names_the_peer_and_leaves_when_the_peer_leaves_the_set() {
    let mut pair = Pair::in_sync();
    pair.active.handle(CLIENT_PORT, &from_client(40000, "10.1.0.100", 80, Some(SYN)).bytes());
    pair.exchange_but(1000, |_, _| false);
    let overdue = pair.active.events().iter().any(|e| matches!(e, Event::HoldOverdue { peer: NodeId(2) }));
    assert!(overdue);
    assert!(pair.active.count(Counter::HoldTimeouts) > 0);
    let term = Term { counter: 2, node: NodeId(1) };
    pair.active.command(Command::InSync { epoch: 3, term, peers: vec![] });
    only(&split(pair.active.take_sent()).1, SERVER_PORT, TxClass::Service);
}

impl Pair {
    /// Both change roles; the session stays.
    fn change_roles(&mut self) {
        let term = Term { counter: 7, node: NodeId(2) };
        self.active.command(Command::Role { epoch: 5, role: Role::Standby, term });
        self.standby.command(Command::Role { epoch: 5, role: Role::Active, term });
        std::mem::swap(&mut self.active, &mut self.standby);
        let now = self.active.now.max(self.standby.now);
        (self.active.now, self.standby.now) = (now, now);
    }
}

fn the_flow(bench: &Bench) -> baton::flow::Flow {
    bench.worker.flows().table.iter().next().expect("a flow").1
}

#[test]
fn a_former_active_keeps_a_flow_whose_last_change_it_told_nobody() {
    let mut pair = Pair::in_sync();
    let syn = from_client(40000, "10.1.0.101", 80, Some(SYN));
    let out = only(&pair.active.handle(CLIENT_PORT, &syn.bytes()), SERVER_PORT, TxClass::Service);
    pair.active.handle(SERVER_PORT, &out.answer(Some(SYN_ACK)).bytes());
    pair.exchange(20);
    // The server's end changes the flow, and the active stands still before it can say so.
    pair.active.handle(SERVER_PORT, &out.answer(Some(FIN_ACK)).bytes());
    assert!(the_flow(&pair.active).changed > the_flow(&pair.standby).changed);
    pair.change_roles();
    pair.exchange(500);
    assert_eq!((pair.active.status().flows, pair.standby.status().flows), (1, 1));
    let (leads, follows) = (the_flow(&pair.active), the_flow(&pair.standby));
    assert_eq!((leads.changed, leads.tcp, leads.server), (follows.changed, follows.tcp, follows.server));
    pair.active.command(Command::InSync { epoch: 6, term: leads.changed.term, peers: vec![NodeId(1)] });
    assert_eq!(pair.active.status().protected, 1);
}

#[test]
fn a_flow_that_comes_back_to_its_first_owner_is_taken_for_established() {
    let mut pair = Pair::in_sync();
    let syn = from_client(40000, "10.1.0.101", 80, Some(SYN));
    pair.active.handle(CLIENT_PORT, &syn.bytes());
    pair.exchange(20);
    pair.change_roles();
    pair.exchange(500);
    // What the second one sees of the handshake is lost with it.
    let term = Term { counter: 9, node: NodeId(1) };
    pair.standby.command(Command::Role { epoch: 9, role: Role::Active, term });
    let ack = from_client(40000, "10.1.0.101", 80, Some(ACK));
    only(&pair.standby.handle(CLIENT_PORT, &ack.bytes()), SERVER_PORT, TxClass::Service);
    assert_eq!(the_flow(&pair.standby).tcp, TcpState::Established);
}

#[test]
fn a_first_packet_that_finds_no_room_to_wait_makes_no_flow_and_its_repetition_waits() {
    let mut pair = Pair::in_sync();
    let syn = |port| from_client(port, "10.1.0.100", 80, Some(SYN)).bytes();
    for port in 40000..40065 {
        assert!(pair.active.handle(CLIENT_PORT, &syn(port)).is_empty());
    }
    assert_eq!(pair.active.count(Counter::DropHoldFull), 1);
    assert_eq!(pair.active.status().flows, 64);
    assert_eq!(pair.exchange(20).len(), 64);
    assert!(pair.active.handle(CLIENT_PORT, &syn(40064)).is_empty(), "unknown to the standby, it waits");
    assert_eq!(pair.exchange(20).len(), 1);
}

#[test]
fn a_first_packet_without_hops_makes_no_flow_that_a_later_one_could_use_unprotected() {
    let mut pair = Pair::in_sync();
    let syn = from_client(40000, "10.1.0.100", 80, Some(SYN));
    let tired = Packet { hops: 1, ..syn.clone() };
    assert!(pair.active.handle(CLIENT_PORT, &tired.bytes()).is_empty());
    assert_eq!(pair.active.count(Counter::DropHopsExceeded), 1);
    assert!(pair.active.handle(CLIENT_PORT, &syn.bytes()).is_empty(), "it waits");
}

#[test]
fn nothing_is_flushed_to_a_peer_without_a_session() {
    let mut pair = Pair::in_sync();
    let flushed = |bench: &mut Bench| bench.events().iter().any(|e| matches!(e, Event::Flushed { .. }));
    pair.active.handle(CLIENT_PORT, &from_client(40000, "10.1.0.101", 80, Some(SYN)).bytes());
    pair.active.command(Command::Quiesce { peer: NodeId(2) });
    pair.active.command(Command::PeerLost { node: NodeId(2) });
    pair.active.poll_after(1);
    assert!(!flushed(&mut pair.active));
    pair.join();
    pair.active.command(Command::Quiesce { peer: NodeId(2) });
    pair.exchange(500);
    assert!(flushed(&mut pair.active));
}

#[test]
fn a_held_packet_does_not_wait_for_the_walk_of_a_new_session() {
    let mut pair = Pair::in_sync();
    for port in 40000..42000 {
        pair.active.handle(CLIENT_PORT, &from_client(port, "10.1.0.101", 80, Some(SYN)).bytes());
    }
    pair.exchange(200);
    pair.active.handle(CLIENT_PORT, &from_client(40000, "10.1.0.100", 80, Some(SYN)).bytes());
    let (ours, theirs) = sessions();
    pair.active.command(Command::PeerSession { node: NodeId(2), session: ours });
    pair.standby.command(Command::PeerSession { node: NodeId(1), session: theirs });
    assert_eq!(pair.exchange(2).len(), 1);
}

#[test]
fn packets_for_a_neighbour_that_does_not_answer_are_dropped_and_counted() {
    let mut bench = Bench::new(1, 0, 1);
    bench.command(Command::Role { epoch: 1, role: Role::Active, term: TERM });
    bench.handle(CLIENT_PORT, &from_client(40000, "10.1.0.100", 80, Some(SYN)).bytes());
    let address = "10.2.0.10".parse().expect("an address");
    let hop = baton::traffic::routes::NextHop { port: SERVER_PORT, address };
    bench.command(Command::Neighbour { hop, link: None });
    assert_eq!(bench.count(Counter::DropNeighbour), 1);
    bench.command(Command::Neighbour { hop, link: Some(SERVER_MAC) });
    assert!(bench.take_sent().is_empty());
}
