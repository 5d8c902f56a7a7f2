//! Bursts (REQ E7): whatever is mixed in one, each packet of it goes on as it would alone, in order.

use baton::base::buffer::{ChecksumStatus, RxMeta};
use baton::base::counters::Counter;
use baton::base::ids::PortId;
use baton::base::io::TxClass;
use baton::base::limits::BURST_MAX;
use baton::base::rng::Rng;
use baton::driver::memory::PlainBuffer;
use baton::flow::FlowIndex;
use baton::wire::ipv4;
use baton::worker::message::{Command, Event};

use crate::bench::*;

/// As Ethernet carries it: never shorter than 60 bytes.
fn padded(packet: &Packet) -> Vec<u8> {
    let mut frame = packet.bytes();
    frame.resize(frame.len().max(60), 0);
    frame
}

/// A datagram or a segment of flow `n`.
fn of_flow(n: u16, flags: u8) -> Packet {
    match n % 2 {
        0 => from_client(20_000 + n, "10.1.0.102", 53, None),
        _ => from_client(20_000 + n, "10.1.0.101", 80, Some(flags)),
    }
}

#[test]
fn a_mixed_burst_goes_on_packet_by_packet_and_in_order() {
    let mut bench = Bench::active();
    let mut rng = Rng::with_seed(17);
    let mut there = Vec::new();
    for n in 0..64 {
        let out = only(&bench.handle(CLIENT_PORT, &padded(&of_flow(n, SYN))), SERVER_PORT, TxClass::Service);
        if let Some(_syn) = out.flags {
            only(
                &bench.handle(SERVER_PORT, &padded(&out.answer(Some(SYN_ACK)))),
                CLIENT_PORT,
                TxClass::Service,
            );
        }
        there.push(out);
    }
    for round in 0..200 {
        let (mut burst, mut expected) = (Vec::<PlainBuffer>::new(), Vec::new());
        for _ in 0..rng.usize(1..2 * BURST_MAX + 9) {
            let n = rng.u16(0..64);
            let payload: Vec<u8> = (0..rng.usize(0..90)).map(|_| rng.u8(..)).collect();
            let hops = rng.u8(0..4);
            let of_client = Packet { hops, payload, ..of_flow(n, [ACK, ACK, ACK | 8, SYN][rng.usize(0..4)]) };
            // To servers as the first packet of the flow went there; to clients as the answer comes back.
            let (port, packet, as_before) = if rng.bool() {
                (CLIENT_PORT, of_client, there[usize::from(n)].clone())
            } else {
                let answer = there[usize::from(n)].answer(of_client.flags.map(|_| ACK));
                let back = of_flow(n, ACK).answer(None);
                (SERVER_PORT, Packet { hops, payload: of_client.payload, ..answer }, back)
            };
            // Some without the padding, some broken, some of no flow.
            let mut frame = if rng.u8(0..8) == 0 { packet.bytes() } else { padded(&packet) };
            match rng.u8(0..16) {
                0 => frame[24] ^= 0x55,
                1 => frame = padded(&from_client(60_000 + n, "10.1.0.101", 80, Some(ACK))),
                2 => {
                    frame[21] = 8; // a later fragment
                    ipv4::Packet::new_unchecked(&mut frame[14..]).fill_checksum();
                }
                _ if hops > 1 => {
                    expected.push((as_before.from, as_before.to, packet.flags, hops - 1, packet.payload))
                }
                _ => {}
            }
            burst.push(frame_received(port, &frame));
        }
        bench.worker.handle_burst(bench.now, &mut burst, &mut bench.io);
        let sent: Vec<_> = bench
            .take_sent()
            .iter()
            .map(|sent| Packet::read(&sent.bytes))
            .map(|out| (out.from, out.to, out.flags, out.hops, out.payload))
            .collect();
        assert_eq!(sent, expected, "round {round}");
    }
    assert!(bench.count(Counter::DropChecksum) > 0 && bench.count(Counter::DropNoFlow) > 0);
    // All of one identification: what overlaps is dropped, and nothing else goes on without a first one.
    let fragments = bench.count(Counter::DropFragmentOverlap);
    assert!(bench.count(Counter::DropHopsExceeded) > 0 && fragments > 0);
}

#[test]
fn a_datagram_without_a_checksum_goes_on_without_one() {
    let mut bench = Bench::active();
    let query = from_client(5353, "10.1.0.102", 53, None);
    only(&bench.handle(CLIENT_PORT, &padded(&query)), SERVER_PORT, TxClass::Service);
    for _ in 0..2 {
        let mut frame = padded(&query);
        frame[40..42].fill(0);
        let sent = bench.handle(CLIENT_PORT, &frame);
        assert_eq!((sent.len(), &sent[0].bytes[40..42]), (1, &[0, 0][..]));
    }
}

/// Two workers alike: one takes bursts, in stages, the other the same packets one by one.
struct Twins {
    staged: Bench,
    singly: Bench,
    rng: Rng,
}

impl Twins {
    fn new(seed: u64) -> Twins {
        Twins { staged: Bench::active(), singly: Bench::active(), rng: Rng::with_seed(seed) }
    }

    /// Gives both the same packets; what left is the same, in order.
    fn handle(&mut self, burst: &[PlainBuffer]) -> Vec<Sent> {
        self.staged.worker.handle_burst(self.staged.now, &mut burst.to_vec(), &mut self.staged.io);
        for packet in burst.iter().cloned() {
            self.singly.worker.handle_packet(self.singly.now, packet, &mut self.singly.io);
        }
        let [staged, singly] = [&mut self.staged, &mut self.singly].map(Bench::take_sent);
        for (n, (one, other)) in staged.iter().zip(&singly).enumerate() {
            assert_eq!(
                (one.port, one.class, &one.bytes),
                (other.port, other.class, &other.bytes),
                "packet {n}"
            );
        }
        assert_eq!(staged.len(), singly.len());
        assert_eq!(self.staged.io.punted, self.singly.io.punted);
        for counter in Counter::ALL.iter().filter(|counter| **counter != Counter::RxPackets) {
            assert_eq!(self.staged.count(*counter), self.singly.count(*counter), "{}", counter.name());
        }
        staged
    }

    /// All that either knows of its flows: states, packets, bytes, when each was last seen.
    fn flows(&mut self) -> [Vec<String>; 2] {
        [&mut self.staged, &mut self.singly].map(|bench| {
            bench.command(Command::Flows { from: FlowIndex(0) });
            let slices = bench.events().into_iter().filter_map(|event| match event {
                Event::Flows(slice) => Some(format!("{slice:?}")),
                _ => None,
            });
            slices.collect()
        })
    }

    /// A packet of a flow or nearly: anything of it may be wrong.
    fn draw(&mut self, forth: &Packet, there: &Packet) -> PlainBuffer {
        let rng = &mut self.rng;
        let usual = rng.u8(0..4) != 0;
        let hops = if usual { 64 } else { rng.u8(0..4) };
        let flags = [ACK, ACK | 8, ACK, SYN, SYN_ACK, FIN_ACK, RST, RST | ACK, 0, SYN | 1, 0xff];
        let flags = if usual { ACK } else { flags[rng.usize(..flags.len())] };
        let payload: Vec<u8> = (0..rng.usize(0..140)).map(|_| rng.u8(..)).collect();
        let (port, base) = match rng.bool() {
            true => (CLIENT_PORT, forth.clone()),
            false => (SERVER_PORT, there.answer(there.flags)),
        };
        let packet = Packet { hops, payload, flags: base.flags.map(|_| flags), ..base };
        let mut frame = packet.bytes();
        if rng.u8(0..4) != 0 {
            frame.resize(frame.len().max(60), 0);
        }
        let status =
            [ChecksumStatus::Unknown, ChecksumStatus::Good, ChecksumStatus::Unknown, ChecksumStatus::Bad];
        let mut rx = RxMeta { port, ..RxMeta::default() };
        if !usual {
            (rx.ip_checksum, rx.l4_checksum) = (status[rng.usize(..4)], status[rng.usize(..4)]);
            let headers = frame.len().min(80);
            match rng.u8(0..10) {
                0 => frame[..6].copy_from_slice(&[VIRTUAL_MAC, VIRTUAL_MAC_V6, OWN_MACS[1]][rng.usize(..3)]),
                // Also the length, the protocol, ports, TCP's header length, checksums.
                1..=3 => frame[rng.usize(..headers)] = rng.u8(..),
                4 => frame[rng.usize(12..headers)] ^= 1 << rng.u8(0..8),
                5 => frame.truncate(rng.usize(14..frame.len())),
                6 => rx.port = PortId(rng.u16(0..3)),
                7 => {
                    // Whatever the transport's checksum is, also none.
                    let at = checksum_at(&packet);
                    frame[at..at + 2]
                        .copy_from_slice(&[[0, 0], [0xff, 0xff], [rng.u8(..), rng.u8(..)]][rng.usize(..3)]);
                }
                _ => {}
            }
            if frame[12..14] == [8, 0] && frame.len() > 34 && frame[14] == 0x45 && rng.bool() {
                ipv4::Packet::new_unchecked(&mut frame[14..]).fill_checksum();
            }
        }
        // Ports give the headers in the first segment, and what follows perhaps in others.
        let head =
            frame.len() - if rng.bool() { 0 } else { rng.usize(0..frame.len().saturating_sub(128).max(1)) };
        let (head, tail) = frame.split_at(head);
        PlainBuffer::from_segments(head, tail).received(rx)
    }
}

/// Where a packet's transport checksum is.
fn checksum_at(packet: &Packet) -> usize {
    let v6 = 20 * usize::from(packet.from.0.is_ipv6());
    v6 + if packet.flags.is_some() { 50 } else { 40 }
}

/// Services of each family, protocol and way of forwarding, by turns.
fn of_any_flow(n: u16, flags: u8) -> Packet {
    match n % 6 {
        0 => from_client(20_000 + n, "10.1.0.102", 53, None),
        1 => from_client(20_000 + n, "10.1.0.101", 80, Some(flags)),
        2 => from_client(20_000 + n, "10.1.0.100", 80, Some(flags)),
        3 => from_client(20_000 + n, "fd01::102", 53, None),
        4 => from_client(20_000 + n, "fd01::101", 80, Some(flags)),
        _ => from_client(20_000 + n, "fd01::100", 80, Some(flags)),
    }
}

#[test]
fn a_burst_in_stages_is_the_same_to_the_bit_as_packets_one_by_one() {
    for seed in 0..4 {
        let mut twins = Twins::new(seed);
        let mut there = Vec::new();
        for n in 0..96 {
            let first = frame_received(CLIENT_PORT, &of_any_flow(n, SYN).bytes());
            let out = only(&twins.handle(&[first]), SERVER_PORT, TxClass::Service);
            let answer = frame_received(SERVER_PORT, &out.answer(out.flags.map(|_| SYN_ACK)).bytes());
            let back = twins.handle(&[answer]);
            let ack = frame_received(CLIENT_PORT, &of_any_flow(n, ACK).bytes());
            let again = twins.handle(&[ack]);
            assert_eq!((back.len(), again.len()), (1, 1));
            there.push(out);
        }
        let mut carried = 0;
        for round in 0..300 {
            let burst: Vec<PlainBuffer> = (0..twins.rng.usize(1..2 * BURST_MAX + 9))
                .map(|_| {
                    let n = twins.rng.u16(0..96);
                    let answered = there[usize::from(n)].clone();
                    twins.draw(&of_any_flow(n, ACK), &answered)
                })
                .collect();
            carried += twins.handle(&burst).len();
            if round % 10 == 0 {
                let [staged, singly] = twins.flows();
                assert!(!staged.is_empty());
                assert_eq!(staged, singly, "round {round}");
                for bench in [&mut twins.staged, &mut twins.singly] {
                    bench.poll_after(70);
                }
            }
        }
        assert!(carried > 10_000, "{carried}");
    }
}

#[test]
fn transport_checksums_that_come_to_zero_are_the_same_in_stages() {
    let mut twins = Twins::new(1);
    for n in 0..6 {
        let first = frame_received(CLIENT_PORT, &of_any_flow(n, SYN).bytes());
        let out = only(&twins.handle(&[first]), SERVER_PORT, TxClass::Service);
        let answer = frame_received(SERVER_PORT, &out.answer(out.flags.map(|_| SYN_ACK)).bytes());
        twins.handle(&[answer]);
        let packet = of_any_flow(n, ACK);
        let (frame, at) = (packet.bytes(), checksum_at(&packet));
        let field = |bytes: &[u8]| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let sent = twins.handle(&[frame_received(CLIENT_PORT, &frame)]);
        // In ones' complement the field changes by the same amount in every packet.
        let change = (u32::from(field(&frame)) + 0xffff - u32::from(field(&sent[0].bytes))) % 0xffff;
        let mut outcomes = Vec::new();
        for into in [0, 1, 0xfffe, 0xffff, change, change + 1, (change + 0xfffe) % 0xffff] {
            let mut frame = frame.clone();
            frame[at..at + 2].copy_from_slice(&(into as u16).to_be_bytes());
            let sent = twins.handle(&[frame_received(CLIENT_PORT, &frame)]);
            outcomes.extend(sent.first().map(|sent| field(&sent.bytes)));
        }
        let zero = if packet.flags.is_some() { 0 } else { 0xffff };
        assert!(outcomes.contains(&zero), "{n}: {outcomes:x?}");
    }
}
