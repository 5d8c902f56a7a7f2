//! Connections whose keys are remembered: what FINs and RSTs do to them, by sequence number (REQ D8).

use baton::base::counters::Counter;
use baton::base::io::TxClass;
use baton::config::checked::{ChosenMethod, Method};
use baton::distributor::shape::Shape;
use baton::flow::Key;
use baton::flow::key::TCP;

use crate::bench::*;
use crate::workers::*;

const CLIENT_AT: u32 = 0xffff_ff00; // Numbers pass zero.
const SERVER_AT: u32 = 77_000;

/// A connection whose numbers tests choose, with a manager that its hash does not lead to.
struct Connection {
    workers: Workers,
    port: u16,
    at_server: Packet,
}

fn frame(packet: &Packet, seq: u32, ack: u32) -> Vec<u8> {
    let mut frame = packet.bytes();
    let at = if packet.to.0.is_ipv4() { 34 } else { 54 };
    frame[at + 4..at + 8].copy_from_slice(&seq.to_be_bytes());
    frame[at + 8..at + 12].copy_from_slice(&ack.to_be_bytes());
    // RFC 1624: what was added to the words is taken from the sum.
    let sum = [seq, ack].iter().flat_map(|word| [word >> 16, word & 0xffff]).sum::<u32>();
    let old = u32::from(!u16::from_be_bytes([frame[at + 16], frame[at + 17]]));
    let mut new = old + sum;
    while new > 0xffff {
        new = (new & 0xffff) + (new >> 16);
    }
    frame[at + 16..at + 18].copy_from_slice(&(!(new as u16)).to_be_bytes());
    frame
}

impl Connection {
    fn open(to: &str) -> Connection {
        let mut connection = Connection::before_its_answer(to);
        connection.server(SYN_ACK, 0, 0, "");
        connection.client(ACK, 1, 1, "");
        connection
    }

    /// The server has got the SYN.
    fn before_its_answer(to: &str) -> Connection {
        let mut workers = Workers::new(3, Method::Chosen(ChosenMethod::RoundRobin), |checked| {
            checked.flows.tcp_closing_timeout = baton::base::time::Duration::from_secs(5);
        });
        for port in 2000.. {
            let syn = Packet { payload: Vec::new(), ..from_client(port, to, 80, Some(SYN)) };
            let sent = workers.handle(CLIENT_PORT, &frame(&syn, CLIENT_AT, 0));
            let at_server = only(&sent, SERVER_PORT, TxClass::Service);
            let hash = toeplitz().shard_of(syn.from.0.into(), port);
            if workers.holder(&key(&syn)) != Some(usize::from(hash.0 % 3)) {
                return Connection { workers, port, at_server };
            }
        }
        panic!("it takes turns");
    }

    fn to(&self) -> String {
        if self.at_server.to.0.is_ipv4() { FULL_NAT.to_owned() } else { NAT.to_owned() }
    }

    /// The client sends: numbers from where each end began.
    fn client(&mut self, flags: u8, seq: u32, ack: u32, payload: &str) -> usize {
        let packet =
            Packet { payload: payload.into(), ..from_client(self.port, &self.to(), 80, Some(flags)) };
        let ack = if flags & ACK != 0 { SERVER_AT.wrapping_add(ack) } else { 0 };
        self.workers.handle(CLIENT_PORT, &frame(&packet, CLIENT_AT.wrapping_add(seq), ack)).len()
    }

    /// And the server.
    fn server(&mut self, flags: u8, seq: u32, ack: u32, payload: &str) -> usize {
        let ack = if flags == SYN_ACK { 1 } else { ack };
        let packet = Packet { payload: payload.into(), ..self.at_server.answer(Some(flags)) };
        let ack = if flags & ACK != 0 { CLIENT_AT.wrapping_add(ack) } else { 0 };
        self.workers.handle(SERVER_PORT, &frame(&packet, SERVER_AT.wrapping_add(seq), ack)).len()
    }

    fn lives(&self) -> bool {
        self.workers.holder(&key(&from_client(self.port, &self.to(), 80, Some(ACK)))).is_some()
    }

    /// Its keys, as every lcore knows them.
    fn keys(&self) -> Vec<usize> {
        let mine = |bench: &Bench| {
            let store = bench.worker.placer_store().expect("a store");
            let ours = |known: &baton::distributor::store::Known| {
                known.shape == Shape::Full
                    && (known.key.src_port == self.port || known.key.dst_port == self.port)
            };
            store.entries(bench.now, 0, store.capacity()).filter(ours).count()
        };
        self.workers.benches.iter().map(mine).collect()
    }
}

fn key(packet: &Packet) -> Key {
    let (src, dst) = (packet.from.0.into(), packet.to.0.into());
    Key { src, dst, src_port: packet.from.1, dst_port: packet.to.1, vlan: 0, protocol: TCP }
}

#[test]
fn a_reset_outside_the_window_goes_on_and_changes_nothing() {
    for to in [FULL_NAT, NAT] {
        let mut connection = Connection::open(to);
        let keys = connection.keys();
        assert!(keys.iter().all(|count| *count == keys[0] && *count > 0), "{keys:?}");
        for blind in [300_000, 0x8000_0000, u32::MAX - 9] {
            assert_eq!(connection.client(RST, blind, 0, ""), 1, "its receiver judges it");
            assert_eq!(connection.server(RST, blind, 0, ""), 1);
        }
        assert_eq!(connection.workers.count(Counter::ResetsOutside), 6);
        assert!(connection.lives());
        assert_eq!(connection.keys(), keys);
        // Not even its time to live is shorter.
        connection.workers.pass(6000);
        assert_eq!(connection.client(ACK, 1, 1, "more"), 1);
        assert!(connection.lives());
    }
}

#[test]
fn a_reset_of_an_end_that_was_not_seen_goes_on_and_changes_nothing() {
    let mut connection = Connection::before_its_answer(NAT);
    let keys = connection.keys();
    // It acknowledges nothing, so it is not the server's answer to the SYN.
    assert_eq!(connection.server(RST, 5, 0, ""), 1);
    assert_eq!(connection.workers.count(Counter::ResetsOutside), 1);
    assert!(connection.lives());
    assert_eq!(connection.keys(), keys);
    connection.server(SYN_ACK, 0, 0, "");
    assert_eq!(connection.client(ACK, 1, 1, "asked"), 1);
}

#[test]
fn a_reset_inside_the_window_ends_the_flow_and_its_keys() {
    for (to, by_client) in [(FULL_NAT, true), (FULL_NAT, false), (NAT, true), (NAT, false)] {
        let mut connection = Connection::open(to);
        connection.client(ACK, 1, 1, "asked");
        connection.server(ACK, 1, 6, "answered");
        let sent =
            if by_client { connection.client(RST, 6, 0, "") } else { connection.server(RST, 9, 0, "") };
        assert_eq!(sent, 1, "the other end hears of it");
        assert!(!connection.lives());
        assert_eq!(connection.keys(), [0, 0, 0]);
        assert_eq!(connection.workers.count(Counter::ResetsOutside), 0);
    }
}

#[test]
fn keys_age_when_both_ends_have_closed_in_sequence_and_not_before() {
    for to in [FULL_NAT, NAT] {
        let mut connection = Connection::open(to);
        let held = connection.keys();
        connection.client(ACK, 1, 1, "asked");
        connection.server(ACK, 1, 6, "answered");
        // Forged: far outside.
        connection.client(FIN_ACK, 0x4000_0000, 9, "");
        connection.server(FIN_ACK, 0x4000_0000, 6, "");
        assert_eq!(connection.workers.count(Counter::FinsOutside), 2);
        let closing = |connection: &Connection| {
            let states = connection.workers.benches.iter().map(|bench| {
                let store = bench.worker.placer_store().expect("a store");
                let ours = |known: &baton::distributor::store::Known| {
                    known.key.src_port == connection.port || known.key.dst_port == connection.port
                };
                let all = store.entries(bench.now, 0, store.capacity()).filter(ours);
                all.filter(|known| known.left.is_some()).count()
            });
            states.collect::<Vec<_>>()
        };
        connection.client(FIN_ACK, 6, 9, "");
        connection.server(FIN_ACK, 9, 7, "");
        assert_eq!(closing(&connection), [0, 0, 0], "the last FIN is not acknowledged");
        connection.client(ACK, 7, 10, "");
        assert_eq!(closing(&connection), held, "{to}: all of them age");
        assert!(connection.lives(), "for what is sent again");
    }
}
