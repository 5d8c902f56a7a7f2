//! Packets that come while an appliance hands over, and shortly after.

use baton::base::buffer::{Buffer, Handed};
use baton::base::counters::Counter;
use baton::base::ids::{NodeId, Term};
use baton::base::io::TxClass;
use baton::base::limits::{
    PORTS_MAX, STRAGGLERS_GATHERED_MAX, STRAGGLERS_PER_TURN, STRAGGLERS_RELAYED_FOR, STRAGGLERS_WAIT_MAX,
};
use baton::wire::ethernet::MacAddress;
use baton::worker::message::{Command, Event, Role};

use crate::bench::*;
use crate::pair::*;
use crate::pieces::pieces;

const LATER: Term = Term { counter: 2, node: NodeId(2) };
/// The successor's, on the LANs of clients and of servers.
const SUCCESSOR_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 7, 1], [2, 0, 0, 0, 7, 2]];
const HOLD: Command = Command::Hold { peer: NodeId(2) };

fn relay() -> Command {
    let mut links = [None; PORTS_MAX];
    for (link, mac) in links.iter_mut().zip(SUCCESSOR_MACS) {
        *link = Some(MacAddress(mac));
    }
    Command::Relay { links }
}

fn standby(epoch: u64) -> Command {
    Command::Role { epoch, role: Role::Standby, term: LATER }
}

fn active(epoch: u64) -> Command {
    Command::Role { epoch, role: Role::Active, term: TERM }
}

/// A pair with a flow, the client's packets of it, and the packet that the server gets.
fn pair_with_flow() -> (Pair, Packet, Packet) {
    with_flow(Pair::in_sync())
}

fn with_flow(mut pair: Pair) -> (Pair, Packet, Packet) {
    let syn = from_client(40000, "10.1.0.101", 80, Some(SYN));
    let out = only(&pair.active.handle(CLIENT_PORT, &syn.bytes()), SERVER_PORT, TxClass::Service);
    pair.active.handle(SERVER_PORT, &out.answer(Some(SYN_ACK)).bytes());
    pair.exchange(20);
    (pair, from_client(40000, "10.1.0.101", 80, Some(ACK)), out)
}

fn numbered(packet: &Packet, number: u8) -> Packet {
    Packet { payload: vec![number; 8], ..packet.clone() }
}

fn numbers(sent: &[Sent]) -> Vec<u8> {
    sent.iter().map(|sent| Packet::read(&sent.bytes).payload[0]).collect()
}

#[test]
fn what_comes_during_a_handover_reaches_the_successor_in_its_order_and_goes_on_from_there() {
    let (mut pair, ack, out) = pair_with_flow();
    let old = &mut pair.active;
    old.command(HOLD);
    assert!(old.handle(CLIENT_PORT, &numbered(&ack, 0).bytes()).is_empty());
    old.command(standby(2));
    assert!(old.handle(SERVER_PORT, &numbered(&out.answer(Some(ACK)), 1).bytes()).is_empty());
    old.command(standby(3));
    assert!(old.handle(CLIENT_PORT, &numbered(&ack, 2).bytes()).is_empty());
    assert_eq!(old.count(Counter::StragglersHeld), 3);
    old.command(relay());
    // One that comes before the next turn has ended is not sent before those that wait.
    assert!(old.handle(CLIENT_PORT, &numbered(&ack, 3).bytes()).is_empty());
    let mut relayed = old.poll_after(0);
    relayed.extend(old.handle(CLIENT_PORT, &numbered(&ack, 4).bytes()));
    let relayed = split(relayed).1;
    assert_eq!(numbers(&relayed), [0, 1, 2, 3, 4]);
    assert_eq!((old.count(Counter::StragglersRelayed), old.count(Counter::DropStandby)), (5, 0));

    pair.standby.command(Command::Role { epoch: 4, role: Role::Active, term: LATER });
    for frame in &relayed {
        let port = usize::from(frame.port.0);
        assert_eq!(frame.class, TxClass::Own);
        assert_eq!(
            (&frame.bytes[..6], &frame.bytes[6..12]),
            (&SUCCESSOR_MACS[port][..], &OWN_MACS[port][..])
        );
        // The bench's ports have the same addresses at both members.
        let arrives = [&OWN_MACS[port], &frame.bytes[6..]].concat();
        let sent = pair.standby.handle(frame.port, &arrives);
        let on =
            only(&sent, if frame.port == CLIENT_PORT { SERVER_PORT } else { CLIENT_PORT }, TxClass::Service);
        assert_eq!((on.from_mac, on.hops), (VIRTUAL_MAC, 63));
        let to = if frame.port == CLIENT_PORT { out.to } else { ack.from };
        assert_eq!(on.to, to);
    }
}

#[test]
fn the_last_flush_is_over_when_the_peer_has_all_that_flows_went_through_before() {
    let (mut pair, _, out) = pair_with_flow();
    let flushed = |bench: &mut Bench| bench.events().iter().any(|e| matches!(e, Event::Flushed { .. }));
    pair.active.handle(SERVER_PORT, &out.answer(Some(FIN_ACK)).bytes());
    pair.active.command(HOLD);
    pair.exchange_but(20, |active, _| active);
    assert!(!flushed(&mut pair.active), "not acknowledged");
    pair.exchange(200);
    assert!(flushed(&mut pair.active));
}

#[test]
fn no_frame_is_relayed_twice() {
    let (mut pair, ack, _) = pair_with_flow();
    let relayed = Packet { to_mac: OWN_MACS[0], ..ack.clone() }.bytes();
    pair.active.command(HOLD);
    assert!(pair.active.handle(CLIENT_PORT, &relayed).is_empty());
    pair.active.command(standby(2));
    pair.active.command(relay());
    assert!(split(pair.active.poll_after(1)).1.is_empty());
    assert!(pair.active.handle(CLIENT_PORT, &relayed).is_empty());
    assert_eq!((pair.active.count(Counter::DropStandby), pair.active.count(Counter::StragglersHeld)), (2, 0));
}

#[test]
fn no_more_wait_than_there_is_room_for_and_none_for_longer_than_allowed() {
    let (mut pair, ack, _) = pair_with_flow();
    pair.active.command(HOLD);
    pair.active.command(standby(2));
    for number in 0..40 {
        pair.active.handle(CLIENT_PORT, &numbered(&ack, number).bytes());
    }
    let counts = |bench: &Bench| {
        [Counter::StragglersHeld, Counter::DropStragglersFull, Counter::DropStragglersTimeout]
            .map(|counter| bench.count(counter))
    };
    assert_eq!(counts(&pair.active), [32, 8, 0]);
    assert!(pair.active.worker.next_deadline() <= pair.active.now + STRAGGLERS_WAIT_MAX);
    pair.active.poll_after(STRAGGLERS_WAIT_MAX.micros() / 1000);
    assert_eq!(counts(&pair.active), [32, 8, 32]);
    pair.active.handle(CLIENT_PORT, &ack.bytes());
    assert_eq!((counts(&pair.active), pair.active.count(Counter::DropStandby)), ([32, 8, 32], 1));
}

#[test]
fn what_comes_long_after_a_handover_is_dropped_as_by_any_standby() {
    let (mut pair, ack, _) = pair_with_flow();
    pair.active.command(HOLD);
    pair.active.command(standby(2));
    pair.active.command(relay());
    pair.active.poll_after(STRAGGLERS_RELAYED_FOR.micros() / 1000 - 1);
    only(&pair.active.handle(CLIENT_PORT, &ack.bytes()), CLIENT_PORT, TxClass::Own);
    pair.active.poll_after(1);
    assert!(pair.active.handle(CLIENT_PORT, &ack.bytes()).is_empty());
    assert_eq!(pair.active.count(Counter::DropStandby), 1);
}

#[test]
fn a_handover_that_is_called_off_loses_nothing() {
    let (mut pair, ack, out) = pair_with_flow();
    pair.active.command(HOLD);
    for number in 0..3 {
        assert!(pair.active.handle(CLIENT_PORT, &numbered(&ack, number).bytes()).is_empty());
    }
    pair.active.command(active(2));
    // Behind those that wait: they leave in the turn's end.
    assert!(pair.active.handle(CLIENT_PORT, &numbered(&ack, 3).bytes()).is_empty());
    let sent = split(pair.active.poll_after(0)).1;
    assert_eq!(numbers(&sent), [0, 1, 2, 3]);
    assert!(sent.iter().all(|sent| (sent.port, sent.class) == (SERVER_PORT, TxClass::Service)));
    only(&pair.active.handle(SERVER_PORT, &out.answer(Some(ACK)).bytes()), CLIENT_PORT, TxClass::Service);
}

#[test]
fn many_that_waited_for_a_handover_that_is_called_off_leave_in_several_turns_and_in_their_order() {
    let mut bench = Bench::with_room(snapshot(1), 0, 1, 4096).lead();
    let query = from_client(40000, "10.1.0.102", 53, None);
    let numbered = |number: u16| Packet { payload: number.to_be_bytes().repeat(9), ..query.clone() }.bytes();
    assert_eq!(bench.handle(CLIENT_PORT, &numbered(0)).len(), 1);
    bench.command(HOLD);
    (1..1000).for_each(|number| assert!(bench.handle(CLIENT_PORT, &numbered(number)).is_empty()));
    bench.command(active(2));
    let (mut next, mut turns, mut seen) = (1000, 0, Vec::new());
    while seen.len() < 1099 {
        // More comes in each turn, while some wait still.
        for _ in 0..if turns < 5 { 20 } else { 0 } {
            seen.extend(bench.handle(CLIENT_PORT, &numbered(next)));
            next += 1;
        }
        let sent = bench.poll_after(0);
        assert!(sent.len() <= STRAGGLERS_PER_TURN + 20, "{} in one turn", sent.len());
        seen.extend(sent);
        turns += 1;
        assert!(turns < 10, "it comes to an end");
    }
    let numbers = seen.iter().map(|sent| Packet::read(&sent.bytes).payload);
    assert!(numbers.eq((1..next).map(|number| number.to_be_bytes().repeat(9))), "in order");
    assert_eq!(turns, 5);
    assert_eq!(bench.handle(CLIENT_PORT, &numbered(next)).len(), 1, "nothing waits any more");
    assert!(bench.worker.next_deadline() > bench.now);
}

#[test]
fn nothing_is_flushed_while_some_of_what_waited_is_still_to_be_handled() {
    let (mut pair, ack, _) = with_flow(Pair::of(Bench::with_room(snapshot(1), 0, 1, 4096).lead()));
    let old = &mut pair.active;
    old.command(HOLD);
    (0..=STRAGGLERS_PER_TURN).for_each(|_| assert!(old.handle(CLIENT_PORT, &ack.bytes()).is_empty()));
    old.command(active(2));
    old.command(Command::Quiesce { peer: NodeId(2) });
    old.events();
    // There is nothing that the peer lacks.
    let mut turn = || {
        let sent = split(old.poll_after(0)).1.len();
        (sent, old.events().iter().any(|event| matches!(event, Event::Flushed { .. })))
    };
    assert_eq!([turn(), turn()], [(STRAGGLERS_PER_TURN, false), (1, true)]);
}

#[test]
fn what_would_have_begun_a_flow_reaches_the_successor_with_all_others() {
    let (mut pair, ack, _) = pair_with_flow();
    let old = &mut pair.active;
    old.command(Command::Quiesce { peer: NodeId(2) });
    let begins = numbered(&from_client(40001, "10.1.0.102", 53, None), 0);
    assert!(old.handle(CLIENT_PORT, &begins.bytes()).is_empty());
    only(&old.handle(CLIENT_PORT, &numbered(&ack, 1).bytes()), SERVER_PORT, TxClass::Service);
    // It waits from here on.
    let waited = STRAGGLERS_WAIT_MAX.micros() / 1000 - 1;
    old.poll_after(waited);
    old.command(HOLD);
    assert!(old.handle(CLIENT_PORT, &numbered(&ack, 2).bytes()).is_empty());
    old.poll_after(waited);
    old.command(standby(2));
    old.command(relay());
    let relayed = split(old.poll_after(0)).1;
    assert_eq!(numbers(&relayed), [0, 2]);
    assert_eq!((old.count(Counter::DropQuiescing), old.count(Counter::DropStragglersTimeout)), (0, 0));
}

#[test]
fn what_would_begin_flows_leaves_room_for_packets_of_flows_and_waits_no_longer_than_allowed() {
    let (mut pair, ack, _) = pair_with_flow();
    let old = &mut pair.active;
    let begins = |port| from_client(port, "10.1.0.102", 53, None).bytes();
    old.command(Command::Quiesce { peer: NodeId(2) });
    let relayed = Packet { to_mac: OWN_MACS[0], ..from_client(40_100, "10.1.0.102", 53, None) };
    assert!(old.handle(CLIENT_PORT, &relayed.bytes()).is_empty());
    assert_eq!((old.count(Counter::StragglersHeld), old.count(Counter::DropQuiescing)), (0, 1));
    (41_000..41_020).for_each(|port| assert!(old.handle(CLIENT_PORT, &begins(port)).is_empty()));
    assert_eq!((old.count(Counter::StragglersHeld), old.count(Counter::DropQuiescing)), (16, 5));
    old.command(HOLD);
    (0..16).for_each(|number| assert!(old.handle(CLIENT_PORT, &numbered(&ack, number).bytes()).is_empty()));
    assert_eq!((old.count(Counter::StragglersHeld), old.count(Counter::DropStragglersFull)), (32, 0));

    // A flush that nobody ends: this appliance lost its lease meanwhile, say.
    let mut bench = Bench::active();
    bench.command(Command::Quiesce { peer: NodeId(2) });
    assert!(bench.handle(CLIENT_PORT, &begins(41_000)).is_empty());
    bench.poll_after(STRAGGLERS_GATHERED_MAX.micros() / 1000);
    assert_eq!(bench.count(Counter::DropStragglersTimeout), 1);
    assert!(bench.handle(CLIENT_PORT, &begins(41_000)).is_empty());
    assert_eq!(bench.count(Counter::DropQuiescing), 1);
    bench.command(active(2));
    assert_eq!(bench.handle(CLIENT_PORT, &begins(41_000)).len(), 1);
}

#[test]
fn a_handover_that_is_begun_anew_while_packets_wait_flushes_them_too() {
    let (mut pair, ack, out) = pair_with_flow();
    let flushed = |bench: &mut Bench| bench.events().iter().any(|e| matches!(e, Event::Flushed { .. }));
    let old = &mut pair.active;
    old.command(HOLD);
    assert!(old.handle(SERVER_PORT, &numbered(&out.answer(Some(FIN_ACK)), 0).bytes()).is_empty());
    let begins = numbered(&from_client(40001, "10.1.0.102", 53, None), 1);
    assert!(old.handle(CLIENT_PORT, &begins.bytes()).is_empty());
    old.command(active(2));
    old.command(Command::Quiesce { peer: NodeId(2) });
    assert!(old.events().iter().all(|event| !matches!(event, Event::Flushed { .. })));
    let sent = split(old.poll_after(0)).1;
    assert_eq!(numbers(&sent), [0], "the flow that the other one begins is not protected yet");
    assert_eq!(old.worker.flows().table.len(), 2);
    assert!(!flushed(old), "what the first one changed is not acknowledged");
    assert!(old.handle(CLIENT_PORT, &numbered(&begins, 2).bytes()).is_empty());
    let another = from_client(40002, "10.1.0.102", 53, None);
    assert!(old.handle(CLIENT_PORT, &another.bytes()).is_empty(), "it waits again");
    assert_eq!(numbers(&pair.exchange(200)), [1, 2]);
    assert!(flushed(&mut pair.active));
    // And it may come to waiting while some wait still.
    pair.active.command(HOLD);
    assert!(pair.active.handle(CLIENT_PORT, &numbered(&ack, 3).bytes()).is_empty());
    pair.active.command(active(3));
    pair.active.command(HOLD);
    assert!(split(pair.active.poll_after(0)).1.is_empty());
    pair.active.command(standby(4));
    pair.active.command(relay());
    assert_eq!(split(pair.active.poll_after(0)).1.len(), 2);
}

#[test]
fn who_leads_again_after_its_successor_died_drops_what_waited_and_changes_no_flow() {
    let (mut pair, _, out) = pair_with_flow();
    let old = &mut pair.active;
    old.command(HOLD);
    old.command(standby(2));
    assert!(old.handle(SERVER_PORT, &out.answer(Some(FIN_ACK)).bytes()).is_empty());
    let before: Vec<_> = old.worker.flows().table.iter().collect();
    old.command(active(3));
    assert!(split(old.poll_after(0)).1.is_empty());
    assert_eq!(old.count(Counter::DropStragglersTimeout), 1);
    assert_eq!(old.worker.flows().table.iter().collect::<Vec<_>>(), before);
    assert_eq!(old.handle(SERVER_PORT, &out.answer(Some(ACK)).bytes()).len(), 1);
}

#[test]
fn who_follows_another_one_while_packets_wait_to_be_handled_drops_them() {
    let (mut pair, ack, _) = pair_with_flow();
    let old = &mut pair.active;
    old.command(HOLD);
    assert!(old.handle(CLIENT_PORT, &ack.bytes()).is_empty());
    old.command(active(2));
    old.command(standby(3));
    assert!(split(old.poll_after(0)).1.is_empty());
    assert!(old.handle(CLIENT_PORT, &ack.bytes()).is_empty());
    assert_eq!(old.count(Counter::DropStandby), 2);
}

#[test]
fn a_fragment_from_a_port_is_not_taken_for_another_workers_after_it_waited() {
    let query = Packet { payload: vec![7; 2000], ..from_client(5353, "10.1.0.102", 53, None) };
    // Ports and a protocol where another worker would write them.
    let query = Packet { from_mac: [0x14, 0xe9, 0, 53, 17, 0], ..query };
    let mut wrong = 0;
    for id in 0..2 {
        let mut bench = Bench::new(1, id, 2).lead();
        let piece = &pieces(&query.bytes(), 0xabc, 1024)[0];
        bench.handle(CLIENT_PORT, piece);
        // It was handed over as it came: this worker is not the designated one.
        let is_designated = !bench.io.handed.iter().any(|(_, packet)| packet.head() == &piece[..]);
        if is_designated {
            continue;
        }
        wrong += 1;
        bench.io.handed.clear();
        bench.command(HOLD);
        bench.handle(CLIENT_PORT, piece);
        bench.command(active(2));
        assert!(bench.poll_after(0).is_empty());
        let [(to, handed)] = &bench.io.handed[..] else { panic!("{} handed over", bench.io.handed.len()) };
        assert_eq!((to.0, handed.head()), (1 - id, &piece[..]));
        assert_eq!((handed.handed(), bench.worker.flows().table.len()), (Handed::Plain, 0));
    }
    assert_eq!(wrong, 1);
}

#[test]
fn who_gives_way_without_handing_over_relays_nothing() {
    let (mut pair, ack, _) = pair_with_flow();
    pair.active.command(standby(2));
    assert!(pair.active.handle(CLIENT_PORT, &ack.bytes()).is_empty());
    assert_eq!((pair.active.count(Counter::DropStandby), pair.active.count(Counter::StragglersHeld)), (1, 0));
}

#[test]
fn who_serves_relays_nothing() {
    let (mut pair, ack, _) = pair_with_flow();
    pair.active.command(relay());
    only(&pair.active.handle(CLIENT_PORT, &ack.bytes()), SERVER_PORT, TxClass::Service);
}

#[test]
fn a_handover_before_all_was_flushed_has_stragglers_too() {
    let (mut pair, ack, _) = pair_with_flow();
    pair.active.command(Command::Quiesce { peer: NodeId(2) });
    pair.active.command(standby(2));
    assert!(pair.active.handle(CLIENT_PORT, &ack.bytes()).is_empty());
    pair.active.command(relay());
    only(&split(pair.active.poll_after(1)).1, CLIENT_PORT, TxClass::Own);
}

#[test]
fn nothing_is_relayed_to_a_lan_on_which_the_successor_is_not_heard() {
    let (mut pair, ack, _) = pair_with_flow();
    pair.active.command(HOLD);
    pair.active.handle(CLIENT_PORT, &ack.bytes());
    pair.active.command(standby(2));
    pair.active.command(Command::Relay { links: [None; PORTS_MAX] });
    assert!(split(pair.active.poll_after(1)).1.is_empty());
    assert_eq!(pair.active.count(Counter::DropStandby), 1);
}
