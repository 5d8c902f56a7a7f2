//! Packets that come while an appliance hands over, and shortly after.

use baton::base::counters::Counter;
use baton::base::ids::{NodeId, Term};
use baton::base::io::TxClass;
use baton::base::limits::{PORTS_MAX, STRAGGLERS_RELAYED_FOR, STRAGGLERS_WAIT_MAX};
use baton::wire::ethernet::MacAddress;
use baton::worker::message::{Command, Event, Role};

use crate::bench::*;
use crate::pair::*;

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

/// A pair with a flow, the client's packets of it, and the packet that the server gets.
fn pair_with_flow() -> (Pair, Packet, Packet) {
    let mut pair = Pair::in_sync();
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
    pair.active.command(Command::Role { epoch: 2, role: Role::Active, term: TERM });
    let sent = pair.active.take_sent();
    assert_eq!(numbers(&sent), [0, 1, 2]);
    assert!(sent.iter().all(|sent| (sent.port, sent.class) == (SERVER_PORT, TxClass::Service)));
    only(&pair.active.handle(SERVER_PORT, &out.answer(Some(ACK)).bytes()), CLIENT_PORT, TxClass::Service);
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
