use super::*;
use crate::wire::checksum::Sum;
use crate::wire::fixtures::{self, bytes};
use crate::wire::ndp;

const CLIENT: (IpAddr, IpAddr) =
    (IpAddr::V4(Ipv4Addr::new(10, 1, 0, 50)), IpAddr::V4(Ipv4Addr::new(10, 1, 0, 100)));

fn parsed(hex: &str) -> Parsed {
    parse(&bytes(hex)).unwrap()
}

fn with(hex: &str, change: impl Fn(&mut Vec<u8>)) -> Result<Parsed, Malformed> {
    let mut bytes = bytes(hex);
    change(&mut bytes);
    parse(&bytes)
}

#[test]
fn a_syn_is_found_behind_ethernet_and_ipv4() {
    let head = bytes(fixtures::TCP_SYN_V4);
    let parsed = parse(&head).unwrap();
    assert_eq!((parsed.network, parsed.protocol), (Network::Ipv4, IpProtocol::TCP));
    assert_eq!(
        (parsed.l2_len, parsed.l4_offset, parsed.l4_header_len, parsed.payload_len()),
        (14, 34, 40, 0)
    );
    assert_eq!(parsed.addresses(&head), Some(CLIENT));
    assert_eq!(parsed.ports(&head), Some((40_000, 80)));
    assert_eq!(parsed.notes, Notes::default());
}

#[test]
fn padding_is_not_payload() {
    let parsed = parsed(fixtures::TCP_DATA_V4_PADDED);
    assert_eq!((parsed.payload_len(), parsed.end()), (0, 54));
}

#[test]
fn ipv4_options_move_the_transport_header() {
    let parsed = parsed(fixtures::TCP_OPTIONS_V4);
    assert!(parsed.notes.has(Notes::OPTIONS));
    assert_eq!((parsed.l3_header_len(), parsed.payload_len()), (36, 5));
}

#[test]
fn a_vlan_tag_is_taken_and_a_second_one_refused() {
    let head = bytes(fixtures::UDP_V4_VLAN);
    let parsed = parse(&head).unwrap();
    assert_eq!((parsed.vlan, parsed.l2_len), (100, 18));
    assert!(parsed.notes.has(Notes::TAGGED));
    assert_eq!(parsed.ports(&head), Some((1, 2)));
    assert_eq!(parse(&bytes(fixtures::UDP_V4_QINQ)), Err(Malformed::VlanStacked));
    assert_eq!(
        with(fixtures::UDP_V4, |b| b[12..14].copy_from_slice(&[0x88, 0xa8])),
        Err(Malformed::VlanStacked)
    );
}

#[test]
fn fragments_are_told_apart_and_a_first_one_has_ports() {
    let head = bytes(fixtures::UDP_V4_FRAGMENT_FIRST_HEAD);
    let first = parse_head(&head, 1514).unwrap();
    assert!(first.notes.has(Notes::FRAGMENT_FIRST) && first.has_ports());
    assert_eq!(first.ports(&head), Some((5353, 53)));
    let last = parsed(fixtures::UDP_V4_FRAGMENT_LAST);
    assert!(last.notes.has(Notes::FRAGMENT_LATER) && last.is_fragment() && !last.has_ports());
    assert_eq!(last.ports(&bytes(fixtures::UDP_V4_FRAGMENT_LAST)), None);
}

#[test]
fn fragments_of_ipv6_are_told_apart() {
    let head = bytes(fixtures::UDP_V6_FRAGMENT_FIRST_HEAD);
    let total_len = 14 + 40 + usize::from(be16(&head, 18));
    let first = parse_head(&head, total_len).unwrap();
    assert!(first.notes.has(Notes::FRAGMENT_FIRST));
    assert_eq!(first.ports(&head), Some((5353, 53)));
    let last = parsed(fixtures::UDP_V6_FRAGMENT_LAST);
    assert!(last.notes.has(Notes::FRAGMENT_LATER) && !last.has_ports());
}

#[test]
fn fragments_that_cannot_be_are_refused_with_their_reason() {
    let fragment = |hex, flags: u16| with(hex, |b| b[20..22].copy_from_slice(&flags.to_be_bytes()));
    let last = fixtures::UDP_V4_FRAGMENT_LAST;
    assert_eq!(
        fragment(fixtures::UDP_V4, 0x2000),
        Err(Malformed::FragmentLength),
        "37 bytes, and more follow"
    );
    assert_eq!(fragment(last, 0x1fff), Err(Malformed::FragmentOverrun));
    assert_eq!(
        fragment(fixtures::TCP_SYN_V4, 1),
        Err(Malformed::FragmentTiny),
        "it would overwrite the flags"
    );
    assert_eq!(
        with(fixtures::TCP_SYN_V4, |b| {
            b[16..18].copy_from_slice(&[0, 36]); // 16 bytes of TCP
            b[20..22].copy_from_slice(&[0x20, 0]);
        }),
        Err(Malformed::FragmentTiny)
    );
}

#[test]
fn extension_headers_are_options() {
    let head = bytes(fixtures::UDP_V6_EXTENSIONS);
    let parsed = parse(&head).unwrap();
    assert!(parsed.notes.has(Notes::OPTIONS));
    assert_eq!((parsed.protocol, parsed.payload_len()), (IpProtocol::UDP, 5));
    assert_eq!(parsed.ports(&head), Some((1, 2)));
}

#[test]
fn groups_and_arp_are_noted() {
    let arp = parsed(fixtures::ARP_REQUEST);
    assert!(arp.network == Network::Arp && arp.notes.has(Notes::BROADCAST));
    let solicitation = parsed(fixtures::NEIGHBOUR_SOLICITATION);
    assert!(solicitation.notes.has(Notes::MULTICAST) && !solicitation.notes.has(Notes::BROADCAST));
    assert_eq!(solicitation.protocol, IpProtocol::ICMPV6);
}

#[test]
fn frames_of_other_kinds_are_not_looked_into() {
    let other =
        |ethertype: u16| with(fixtures::UDP_V4, |b| b[12..14].copy_from_slice(&ethertype.to_be_bytes()));
    assert_eq!(other(0x88cc).unwrap().network, Network::Other);
    assert_eq!(other(0x0026).unwrap().network, Network::Other, "a length, as in IEEE 802.3");
    assert_eq!(other(0x88b5).unwrap().network, Network::Liveness);
}

#[test]
fn each_fault_is_refused_with_its_reason() {
    use Malformed::*;
    let (syn, udp, syn6, udp6) =
        (fixtures::TCP_SYN_V4, fixtures::UDP_V4, fixtures::TCP_SYN_V6, fixtures::UDP_V6);
    let set = |hex, at: usize, value: u8| with(hex, |b| b[at] = value).unwrap_err();
    let cut = |hex, len: usize| with(hex, |b| b.truncate(len)).unwrap_err();
    assert_eq!(cut(syn, 13), EthernetTruncated);
    assert_eq!(cut(fixtures::UDP_V4_VLAN, 17), VlanTruncated);
    assert_eq!(cut(fixtures::ARP_REQUEST, 41), ArpTruncated);
    assert_eq!(set(fixtures::ARP_REQUEST, 18, 8), ArpFormat);
    assert_eq!(cut(syn, 33), Ipv4Truncated);
    assert_eq!(set(syn, 14, 0x55), Ipv4Version);
    assert_eq!(set(syn, 14, 0x44), Ipv4HeaderLength);
    assert_eq!(cut(syn, 73), Ipv4TotalLength);
    assert_eq!(set(syn, 26, 224), SourceAddress);
    assert_eq!(set(syn6, 22, 0xff), SourceAddress);
    assert_eq!(cut(syn6, 53), Ipv6Truncated);
    assert_eq!(set(syn6, 14, 0x40), Ipv6Version);
    assert_eq!(cut(syn6, 93), Ipv6PayloadLength);
    assert_eq!(set(fixtures::UDP_V6_EXTENSIONS, 55, 9), Ipv6ExtensionTruncated);
    assert_eq!(set(syn, 17, 39), TcpTruncated);
    assert_eq!(set(syn, 46, 0xb0), TcpDataOffset);
    assert_eq!(set(syn, 47, 0x03), TcpFlags);
    assert_eq!(set(udp, 17, 27), UdpTruncated);
    assert_eq!(set(udp, 39, 7), UdpLength);
    assert_eq!(set(udp, 38, 1), UdpLength);
    assert_eq!(with(udp6, |b| b[60..62].fill(0)).unwrap_err(), UdpChecksumMissing);
    assert_eq!(set(fixtures::ECHO_V4, 17, 27), IcmpTruncated);
    assert_eq!(set(fixtures::ECHO_V6, 19, 7), Icmpv6Truncated);
    assert!(parse(&bytes(fixtures::UDP_V4_NO_CHECKSUM)).is_ok());
}

#[test]
fn an_icmp_error_quotes_the_packet_it_is_about() {
    let head = bytes(fixtures::FRAGMENTATION_NEEDED);
    let outer = parse(&head).unwrap();
    let quoted = parse_quoted(outer.network, &head[outer.payload_offset()..outer.end()]).unwrap();
    assert_eq!((quoted.destination, quoted.source), CLIENT);
    assert_eq!((quoted.ports, quoted.protocol, quoted.l4_offset), ((80, 40_000), IpProtocol::TCP, 20));
    let head = bytes(fixtures::PACKET_TOO_BIG);
    let outer = parse(&head).unwrap();
    let quoted = parse_quoted(outer.network, &head[outer.payload_offset()..outer.end()]).unwrap();
    assert_eq!((quoted.ports, quoted.l4_offset), ((80, 40_000), 40));
    let short = &head[outer.payload_offset()..outer.payload_offset() + 47];
    assert_eq!(parse_quoted(Network::Ipv6, short), Err(Malformed::TcpTruncated));
}

#[test]
fn the_checksums_of_every_sample_are_right_and_are_seen_to_be_wrong_when_a_bit_flips() {
    for hex in fixtures::ALL {
        let mut head = bytes(hex);
        let Ok(parsed) = parse(&head) else { continue };
        if parsed.l4_header_len == 0
            || parsed.protocol == IpProtocol::UDP && be16(&head, usize::from(parsed.l4_offset) + 6) == 0
        {
            continue;
        }
        let right = |head: &[u8]| {
            let sum = match parsed.addresses(head).unwrap() {
                (IpAddr::V4(_), IpAddr::V4(_)) if parsed.protocol == IpProtocol::ICMP => Sum::ZERO,
                (IpAddr::V4(a), IpAddr::V4(b)) => Sum::ZERO.pseudo_v4(a, b, parsed.protocol, parsed.l4_len),
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    Sum::ZERO.pseudo_v6(a, b, parsed.protocol, u32::from(parsed.l4_len))
                }
                _ => unreachable!(),
            };
            sum.bytes(&head[usize::from(parsed.l4_offset)..parsed.end()]).is_valid()
        };
        assert!(right(&head), "{}", Trace(&head));
        head[parsed.end() - 1] ^= 1;
        assert!(!right(&head));
    }
}

#[test]
fn traces_name_every_header() {
    assert_eq!(
        Trace(&bytes(fixtures::TCP_SYN_V6)).to_string(),
        "02:00:00:00:00:01 > 02:00:00:00:00:02 ipv6: fd01::50 > fd01::100 tcp hops 64 length 40: \
         tcp 40000 > 80 [S] seq 1 win 8192, 0 bytes"
    );
    assert_eq!(
        Trace(&bytes(fixtures::UDP_V4_VLAN)).to_string(),
        "02:00:00:00:00:01 > 02:00:00:00:00:02 vlan 100: 10.1.0.50 > 10.1.0.100 udp ttl 64 length 33: \
         udp 1 > 2 length 13"
    );
    assert!(
        Trace(&bytes(fixtures::NEIGHBOUR_ADVERTISEMENT))
            .to_string()
            .ends_with("ndp fd01::50 is [SO] at 02:00:00:00:00:01")
    );
    assert!(Trace(&bytes(fixtures::UDP_V4_QINQ)).to_string().contains("More than one VLAN tag"));
}

/// Everything that may be read of a packet that was parsed, is read.
fn read_all(head: &[u8]) {
    let _ = Trace(head).to_string();
    let Ok(parsed) = parse(head) else { return };
    assert!(parsed.l3_offset() <= head.len());
    if !matches!(parsed.network, Network::Ipv4 | Network::Ipv6) {
        return;
    }
    assert!(parsed.end() <= head.len(), "what is said to be there is there");
    assert!(parsed.payload_offset() <= parsed.end());
    assert!(parsed.addresses(head).is_some());
    assert_eq!(parsed.ports(head).is_some(), parsed.has_ports());
    let l3 = &head[parsed.l3_offset()..];
    let l4 = &head[usize::from(parsed.l4_offset)..parsed.end()];
    if parsed.network == Network::Ipv4 {
        let packet = ipv4::Packet::new_unchecked(l3);
        assert!(packet.options().count() <= 40);
        assert_eq!(packet.payload(), l4);
        packet.checksum_is_valid();
    }
    let _ = parse_quoted(parsed.network, &head[parsed.payload_offset()..parsed.end()]);
    let _ = parse_quoted(parsed.network, l3);
    if parsed.l4_header_len == 0 {
        return;
    }
    match parsed.protocol {
        IpProtocol::TCP => {
            let segment = tcp::Segment::new_unchecked(l4);
            assert!(segment.options().count() <= 40);
            assert_eq!(segment.payload().len(), parsed.payload_len());
        }
        IpProtocol::UDP => {
            udp::Datagram::new_unchecked(l4).payload();
        }
        IpProtocol::ICMPV6 => {
            let message = crate::wire::icmpv6::Message::new_unchecked(l4);
            if let Ok(repr) = ndp::Repr::parse(&message) {
                let _ = ndp::check_packet(&ipv6::Packet::new_unchecked(l3), l4, &repr);
            }
        }
        _ => {}
    }
}

#[test]
fn no_bytes_whatever_make_the_parser_panic() {
    let samples: Vec<Vec<u8>> = fixtures::ALL.iter().map(|hex| bytes(hex)).collect();
    let mut rng = fastrand::Rng::with_seed(4861);
    for _ in 0..200_000 {
        let mut packet = if rng.u8(..) < 32 {
            (0..rng.usize(0..128)).map(|_| rng.u8(..)).collect()
        } else {
            samples[rng.usize(..samples.len())].clone()
        };
        for _ in 0..rng.usize(0..4) {
            if packet.is_empty() {
                break;
            }
            // Mostly headers, where it matters.
            let reach = if rng.bool() { 80 } else { usize::MAX };
            let at = rng.usize(..packet.len().min(reach));
            match rng.u8(..4) {
                0 => packet[at] ^= 1 << rng.u8(..8),
                1 => packet[at] = [0, 1, 0x7f, 0x80, 0xff, 44, 60, 43][rng.usize(..8)],
                2 => packet[at] = rng.u8(..),
                _ => packet.truncate(at),
            }
        }
        read_all(&packet);
        // And as the first segment of a longer packet.
        let _ = parse_head(&packet, packet.len() + rng.usize(..2000));
    }
}

#[test]
fn every_prefix_of_every_sample_is_parsed_or_refused() {
    for hex in fixtures::ALL {
        let packet = bytes(hex);
        for len in 0..=packet.len() {
            read_all(&packet[..len]);
        }
    }
}
