//! Bursts (REQ E7): whatever is mixed in one, each packet of it goes on as it would alone, in order.

use baton::base::counters::Counter;
use baton::base::io::TxClass;
use baton::base::limits::BURST_MAX;
use baton::base::rng::Rng;
use baton::driver::memory::PlainBuffer;
use baton::wire::ipv4;

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
    assert!(bench.count(Counter::DropHopsExceeded) > 0 && bench.count(Counter::DropFragment) > 0);
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
