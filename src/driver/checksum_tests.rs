//! A packet with its checksums wiped out becomes the packet that scapy made.

use super::*;
use crate::wire::fixtures;
use crate::wire::parse::{Network as Kind, Parsed, parse};

/// Everything that has a transport checksum and is no fragment.
const PACKETS: &[&str] = &[
    fixtures::TCP_SYN_V4,
    fixtures::TCP_DATA_V4_PADDED,
    fixtures::TCP_OPTIONS_V4,
    fixtures::UDP_V4,
    fixtures::UDP_V4_VLAN,
    fixtures::ECHO_V4,
    fixtures::TCP_SYN_V6,
    fixtures::UDP_V6,
    fixtures::UDP_V6_EXTENSIONS,
    fixtures::ECHO_V6,
];

/// Where a packet's checksums are: (IPv4 header, transport).
fn fields(parsed: &Parsed) -> (Option<usize>, usize) {
    let ip = (parsed.network == Kind::Ipv4).then_some(parsed.l3_offset() + 10);
    let l4 = match parsed.protocol {
        IpProtocol::TCP => 16,
        IpProtocol::UDP => 6,
        _ => 2,
    };
    (ip, usize::from(parsed.l4_offset) + l4)
}

/// The packet, the same with `fill` in both checksums, and the request to compute them.
fn wiped(hex: &str, fill: u8) -> (Vec<u8>, Vec<u8>, TxMeta) {
    let whole = fixtures::bytes(hex);
    let parsed = parse(&whole).unwrap();
    let mut packet = whole.clone();
    let (ip, l4) = fields(&parsed);
    for at in ip.into_iter().chain([l4]) {
        packet[at..at + 2].fill(fill);
    }
    let tx = TxMeta {
        l2_len: parsed.l2_len,
        l3_len: parsed.l3_header_len() as u16,
        ip_checksum: true,
        l4_checksum: true,
    };
    (whole, packet, tx)
}

fn planned(packet: &[u8], tx: &TxMeta, port: &Capabilities) -> Result<Plan, Unsendable> {
    plan(packet, [], packet.len(), tx, port)
}

#[test]
fn software_makes_every_packet_whole_whatever_was_in_its_fields() {
    for hex in PACKETS {
        for fill in [0, 0xff, 0xa5] {
            let (whole, mut packet, tx) = wiped(hex, fill);
            let plan = planned(&packet, &tx, &Capabilities::NONE).unwrap();
            plan.apply(&mut packet);
            assert_eq!(packet, whole);
            assert!(plan.ask.is_nothing());
        }
    }
}

#[test]
fn later_segments_are_summed_wherever_the_packet_is_cut() {
    for hex in PACKETS {
        let (whole, packet, tx) = wiped(hex, 0);
        let first = fields(&parse(&whole).unwrap()).1 + 2;
        for cut in first..=packet.len() {
            for second in cut..=packet.len() {
                let mut head = packet[..cut].to_vec();
                let tail = [&packet[cut..second], &packet[second..]];
                plan(&head, tail, packet.len(), &tx, &Capabilities::NONE).unwrap().apply(&mut head);
                assert_eq!(head, whole[..cut], "cut at {cut} and {second}");
            }
        }
    }
}

/// What a port does: sums from the transport header to the packet's end by its IP
/// header, whatever the field holds, and writes the complement there.
fn port_computes(packet: &mut [u8], ask: &Ask) {
    let parsed = parse(packet).unwrap();
    let (ip, l4) = fields(&parsed);
    if ask.ip {
        let header = parsed.l3_offset()..usize::from(parsed.l4_offset);
        let sum = crate::wire::checksum::checksum(&packet[header]);
        packet[ip.unwrap()..][..2].copy_from_slice(&sum.to_be_bytes());
    }
    if let Some(protocol) = ask.l4 {
        let sum = Sum::ZERO.bytes(&packet[usize::from(parsed.l4_offset)..parsed.end()]);
        let sum = if protocol == L4::Udp { sum.checksum_udp() } else { sum.checksum() };
        packet[l4..l4 + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

#[test]
fn a_port_that_computes_finds_the_fields_prepared() {
    for hex in PACKETS {
        let (whole, mut packet, tx) = wiped(hex, 0xa5);
        let plan = planned(&packet, &tx, &Capabilities::ALL).unwrap();
        plan.apply(&mut packet);
        let parsed = parse(&whole).unwrap();
        assert_eq!(plan.ask.ipv6, parsed.network == Kind::Ipv6);
        assert_eq!(plan.ask.ip, parsed.network == Kind::Ipv4);
        let expected = match parsed.protocol {
            IpProtocol::TCP => Some(L4::Tcp),
            IpProtocol::UDP => Some(L4::Udp),
            _ => None, // no port computes ICMP's
        };
        assert_eq!(plan.ask.l4, expected);
        port_computes(&mut packet, &plan.ask);
        assert_eq!(packet, whole);
    }
}

#[test]
fn what_a_port_lacks_is_done_for_it_and_only_that() {
    let (whole, packet, tx) = wiped(fixtures::UDP_V4, 0);
    let tcp_only = Capabilities { udp: false, ..Capabilities::ALL };
    let ip_lacks = Capabilities { ip: false, ..Capabilities::ALL };
    let short = Capabilities { l3_len_max: 19, ..Capabilities::ALL };
    for (port, ip, l4) in [(tcp_only, true, None), (ip_lacks, false, Some(L4::Udp)), (short, false, None)] {
        let mut packet = packet.clone();
        let plan = planned(&packet, &tx, &port).unwrap();
        assert_eq!((plan.ask.ip, plan.ask.l4), (ip, l4));
        plan.apply(&mut packet);
        port_computes(&mut packet, &plan.ask);
        assert_eq!(packet, whole);
    }
}

#[test]
fn what_is_not_asked_is_not_touched() {
    let (_, packet, tx) = wiped(fixtures::TCP_SYN_V4, 0xa5);
    for (ip, l4) in [(false, false), (true, false), (false, true)] {
        let tx = TxMeta { ip_checksum: ip, l4_checksum: l4, ..tx };
        let mut sent = packet.clone();
        planned(&sent, &tx, &Capabilities::NONE).unwrap().apply(&mut sent);
        assert_eq!(sent[24..26] != packet[24..26], ip);
        assert_eq!(sent[50..52] != packet[50..52], l4);
    }
    // Nothing asked: not even looked at.
    assert_eq!(planned(&[], &TxMeta::default(), &Capabilities::NONE), Ok(Plan::default()));
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
    let (_, mut packet, tx) = wiped(fixtures::UDP_V4_NO_CHECKSUM, 0);
    // Find a payload whose sum is all ones, so that its complement is zero.
    let end = packet.len();
    planned(&packet, &tx, &Capabilities::NONE).unwrap().apply(&mut packet);
    let checksum = u16::from_be_bytes([packet[40], packet[41]]);
    let payload = u16::from_be_bytes([packet[42], packet[43]]);
    let sum = u32::from(payload) + u32::from(checksum);
    let balanced = (sum & 0xffff) as u16 + (sum >> 16) as u16;
    packet[42..44].copy_from_slice(&balanced.to_be_bytes());
    planned(&packet, &tx, &Capabilities::NONE).unwrap().apply(&mut packet);
    assert_eq!(packet[40..42], [0xff, 0xff]);
    assert_eq!(packet.len(), end);
}

#[test]
fn a_datagram_shorter_than_its_packet_is_summed_by_its_own_length() {
    let (whole, mut packet, mut tx) = wiped(fixtures::UDP_V4, 0);
    // Four more bytes in the IP packet that are not the datagram's.
    packet.extend([1, 2, 3, 4]);
    packet[16..18].copy_from_slice(&61u16.to_be_bytes());
    tx.ip_checksum = false;
    let plan = planned(&packet, &tx, &Capabilities::ALL).unwrap();
    assert!(plan.ask.is_nothing(), "a port would go by the IP header");
    plan.apply(&mut packet);
    assert_eq!(packet[40..42], whole[40..42]);
}

#[test]
fn requests_that_do_not_fit_the_packet_are_refused() {
    for hex in PACKETS {
        let (_, packet, tx) = wiped(hex, 0xa5);
        let refused = |tx: TxMeta, packet: &[u8]| planned(packet, &tx, &Capabilities::NONE).unwrap_err();
        assert_eq!(refused(TxMeta { l3_len: tx.l3_len + 4, ..tx }, &packet), Unsendable::Headers);
        assert_eq!(refused(TxMeta { l2_len: tx.l2_len + 2, ..tx }, &packet), Unsendable::Headers);
        assert_eq!(refused(TxMeta { l2_len: 255, ..tx }, &packet), Unsendable::Headers);
        let end = parse(&packet).unwrap().end();
        for len in 0..end {
            assert_eq!(refused(tx, &packet[..len]), Unsendable::Headers, "cut to {len}");
        }
        // The total length promises bytes that no segment has.
        let l4 = usize::from(parse(&packet).unwrap().l4_offset);
        if end > l4 + 20 {
            let short = plan(&packet[..l4 + 20], [], packet.len(), &tx, &Capabilities::NONE);
            assert_eq!(short, Err(Unsendable::Headers));
        }
    }
}

#[test]
fn fragments_and_unknown_protocols_are_refused_a_transport_checksum() {
    let (_, mut packet, tx) = wiped(fixtures::TCP_SYN_V4, 0);
    packet[20] = 0x20;
    assert_eq!(planned(&packet, &tx, &Capabilities::ALL), Err(Unsendable::Fragment));
    let header_only = TxMeta { l4_checksum: false, ..tx };
    assert!(planned(&packet, &header_only, &Capabilities::NONE).is_ok(), "its header has one");
    packet[20] = 0;
    packet[23] = 47;
    assert_eq!(planned(&packet, &tx, &Capabilities::ALL), Err(Unsendable::Protocol));
}

#[test]
fn no_bytes_panic() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..100_000 {
        let (_, mut packet, mut tx) = wiped(PACKETS[rng.usize(..PACKETS.len())], 0);
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..packet.len());
            packet[at] = rng.u8(..);
        }
        packet.truncate(rng.usize(..=packet.len()));
        if rng.bool() {
            tx.l2_len = rng.u8(..);
            tx.l3_len = rng.u16(..200);
        }
        let cut = rng.usize(..=packet.len());
        let (head, tail) = packet.split_at_mut(cut);
        let tail: &[u8] = tail;
        let total = rng.usize(..200);
        for port in [Capabilities::NONE, Capabilities::ALL] {
            if let Ok(plan) = plan(head, [tail], total, &tx, &port) {
                plan.apply(head);
            }
        }
    }
}
