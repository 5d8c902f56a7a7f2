use core::net::Ipv4Addr;

use super::*;
use crate::master::samples::{CLIENT, SERVER, THEIRS, checked, ip, macs};
use crate::wire::parse::Trace;

fn answers() -> Answers {
    Answers::new(&checked(), &macs())
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn arp_request(sender: &str, target: &str) -> Vec<u8> {
    let repr = arp::Repr {
        operation: arp::Operation::Request,
        sender_mac: THEIRS,
        sender_ip: v4(sender),
        target_mac: MacAddress::ZERO,
        target_ip: v4(target),
    };
    frames::arp(&Link::new(THEIRS, MacAddress::BROADCAST), &repr)
}

fn solicitation(source: &str, target: &str) -> Vec<u8> {
    let group = ipv6::solicited_node(v6(target));
    let source = v6(source);
    let source_mac = (!source.is_unspecified()).then_some(THEIRS);
    let repr = ndp::Repr::Solicitation { target: v6(target), source_mac };
    frames::ndp(&Link::new(THEIRS, MacAddress::multicast_v6(group)), source, group, &repr)
}

/// An echo request, made from the reply that it shall get.
fn echo(to: MacAddress, source: &str, destination: &str) -> Vec<u8> {
    let mut message = *b"\0\0\0\0\x12\x34\0\x07some data to come back";
    let link = Link::new(THEIRS, to);
    let mut frame = match (ip(source), ip(destination)) {
        (IpAddr::V4(a), IpAddr::V4(b)) => frames::echo_reply_v4(&link, a, b, &message),
        (IpAddr::V6(a), IpAddr::V6(b)) => frames::echo_reply_v6(&link, a, b, &message),
        _ => unreachable!(),
    };
    let at = parse(&frame).unwrap().l4_offset as usize;
    match (ip(source), ip(destination)) {
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mut view = icmpv6::Message::new_unchecked(&mut message[..]);
            view.set_kind(icmpv6::Type::ECHO_REQUEST, 0);
            view.fill_checksum(a, b);
        }
        _ => {
            let mut view = icmp::Message::new_unchecked(&mut message[..]);
            view.set_kind(icmp::Type::ECHO_REQUEST, 0);
            view.fill_checksum();
        }
    }
    frame[at..at + message.len()].copy_from_slice(&message);
    frame
}

/// Puts a frame into VLAN 100 at priority 5.
fn tagged(mut frame: Vec<u8>) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0x00, 0xa0, 100]);
    frame
}

/// The answer as a line: its class and the frame.
fn line(port: PortId, frame: &[u8], active: bool) -> String {
    match answers().handle_packet(port, frame, active) {
        Answer::Send { frame, class } => {
            assert!(frame.len() >= frames::FRAME_LEN_MIN);
            format!("{class:?} {}", Trace(&frame))
        }
        other => panic!("{other:?} to {}", Trace(frame)),
    }
}

const OWN_ARP: &str = "Own 02:00:00:00:01:01 > 02:00:00:00:00:50 arp: arp 10.1.0.2 is at 02:00:00:00:01:01";
const VIRTUAL_ARP: &str =
    "Service 00:00:5e:00:01:33 > 02:00:00:00:00:50 arp: arp 10.1.0.100 is at 00:00:5e:00:01:33";

#[test]
fn an_own_address_answers_arp_from_the_ports_mac_in_any_role() {
    for active in [false, true] {
        assert_eq!(line(CLIENT, &arp_request("10.1.0.50", "10.1.0.2"), active), OWN_ARP);
    }
}

#[test]
fn a_virtual_address_answers_arp_from_the_virtual_mac_only_while_active() {
    let request = arp_request("10.1.0.50", "10.1.0.100");
    assert_eq!(line(CLIENT, &request, true), VIRTUAL_ARP);
    assert_eq!(answers().handle_packet(CLIENT, &request, false), Answer::NotActive);
}

#[test]
fn shared_and_source_nat_addresses_answer_on_their_port_and_on_no_other() {
    for target in ["10.2.0.1", "10.2.0.100"] {
        let request = arp_request("10.2.0.10", target);
        assert!(
            line(SERVER, &request, true).starts_with("Service 00:00:5e:00:01:33 > 02:00:00:00:00:50 arp")
        );
        assert_eq!(answers().handle_packet(CLIENT, &request, true), Answer::NotForUs);
    }
}

#[test]
fn who_is_not_on_the_link_gets_no_answer_but_a_probe_does() {
    let answer = |sender| answers().handle_packet(CLIENT, &arp_request(sender, "10.1.0.2"), true);
    assert_eq!(answer("192.0.2.1"), Answer::OffLink);
    assert!(matches!(answer("0.0.0.0"), Answer::Send { .. }));
    let far = solicitation("2001:db8::1", "fd01::2");
    assert_eq!(answers().handle_packet(CLIENT, &far, true), Answer::OffLink);
}

#[test]
fn addresses_of_others_and_addresses_routed_to_us_get_no_answer() {
    for target in ["10.1.0.51", "192.0.2.80"] {
        let answer = answers().handle_packet(CLIENT, &arp_request("10.1.0.50", target), true);
        assert_eq!(answer, Answer::NotForUs, "{target}");
    }
}

#[test]
fn a_query_in_a_vlan_is_answered_in_it() {
    let Answer::Send { frame, .. } =
        answers().handle_packet(CLIENT, &tagged(arp_request("10.1.0.50", "10.1.0.2")), false)
    else {
        panic!("no answer");
    };
    assert_eq!(frame[12..18], [0x81, 0x00, 0xa0, 100, 0x08, 0x06]);
    let solicitation = tagged(solicitation("fd01::50", "fd01::2"));
    assert!(line(CLIENT, &solicitation, false).contains(" vlan 100: fd01::2 > fd01::50"));
}

#[test]
fn solicitations_are_answered_as_arp_is() {
    let own = solicitation("fd01::50", "fd01::2");
    let expected = "Own 02:00:00:00:01:01 > 02:00:00:00:00:50 ipv6: fd01::2 > fd01::50 icmpv6 hops 255 length 32: \
                    ndp fd01::2 is [RSO] at 02:00:00:00:01:01";
    assert_eq!(line(CLIENT, &own, false), expected);
    let service = solicitation("fe80::50", "fd01::100");
    let expected = "Service 00:00:5e:00:02:33 > 02:00:00:00:00:50 ipv6: fd01::100 > fe80::50 icmpv6 hops 255 \
                    length 32: ndp fd01::100 is [RSO] at 00:00:5e:00:02:33";
    assert_eq!(line(CLIENT, &service, true), expected);
    assert_eq!(answers().handle_packet(CLIENT, &service, false), Answer::NotActive);
}

#[test]
fn a_probe_for_duplicates_is_answered_to_all_nodes() {
    let expected = "Own 02:00:00:00:01:01 > 33:33:00:00:00:01 ipv6: fd01::2 > ff02::1 icmpv6 hops 255 length 32: \
                    ndp fd01::2 is [RO] at 02:00:00:00:01:01";
    assert_eq!(line(CLIENT, &solicitation("::", "fd01::2"), false), expected);
}

#[test]
fn a_solicitation_with_a_wrong_checksum_or_from_afar_is_malformed() {
    let mut frame = solicitation("fd01::50", "fd01::2");
    frame[14 + 40 + 23] ^= 1;
    assert_eq!(answers().handle_packet(CLIENT, &frame, true), Answer::Malformed(Malformed::Checksum));
    let mut frame = solicitation("fd01::50", "fd01::2");
    frame[14 + 7] = 64;
    assert_eq!(answers().handle_packet(CLIENT, &frame, true), Answer::Malformed(Malformed::NdpInvalid));
}

#[test]
fn an_echo_comes_back_with_its_data() {
    for (source, destination) in [("192.0.2.9", "10.1.0.2"), ("2001:db8::9", "fd01::2")] {
        let request = echo(macs()[0], source, destination);
        let Answer::Send { frame, class } = answers().handle_packet(CLIENT, &request, false) else {
            panic!("no answer to {}", Trace(&request));
        };
        assert_eq!(class, TxClass::Own);
        let (asked, told) = (parse(&request).unwrap(), parse(&frame).unwrap());
        let back = (ip(destination), ip(source));
        assert_eq!(told.addresses(&frame), Some(back), "an echo needs no neighbour: it goes back as it came");
        assert_eq!(Frame::new_unchecked(&frame[..]).destination(), THEIRS);
        let data =
            |parsed: &Parsed, frame: &[u8]| frame[usize::from(parsed.l4_offset) + 4..parsed.end()].to_vec();
        assert_eq!(data(&asked, &request), data(&told, &frame));
        assert!(Trace(&frame).to_string().contains("echo reply 4660 7"));
        let message = &frame[usize::from(told.l4_offset)..told.end()];
        let valid = match back {
            (IpAddr::V6(a), IpAddr::V6(b)) => icmpv6::Message::new_unchecked(message).checksum_is_valid(a, b),
            _ => icmp::Message::new_unchecked(message).checksum_is_valid(),
        };
        assert!(valid);
    }
}

#[test]
fn service_addresses_answer_an_echo_only_while_active_also_when_routed_to_us() {
    let virtual_mac = MacAddress::virtual_router_v4(51);
    for (port, destination) in [(CLIENT, "10.1.0.100"), (CLIENT, "192.0.2.80"), (SERVER, "10.2.0.1")] {
        let request = echo(virtual_mac, "192.0.2.9", destination);
        assert!(line(port, &request, true).starts_with("Service 00:00:5e:00:01:33 > 02:00:00:00:00:50"));
        // To the virtual MAC, and this appliance is not the one that has it.
        assert_eq!(answers().handle_packet(port, &request, false), Answer::NotForUs);
        let request = echo(macs()[usize::from(port.0)], "192.0.2.9", destination);
        assert_eq!(answers().handle_packet(port, &request, false), Answer::NotActive);
    }
}

#[test]
fn a_standby_answers_an_echo_that_the_active_forwarded_to_it() {
    let mut request = echo(macs()[0], "10.2.0.10", "10.1.0.2");
    request[6..12].copy_from_slice(&MacAddress::virtual_router_v4(51).0);
    assert!(line(CLIENT, &request, false).starts_with("Own 02:00:00:00:01:01 > 00:00:5e:00:01:33"));
}

fn packet_to(frame: &mut [u8], to: &str) {
    let IpAddr::V4(to) = ip(to) else { panic!("an IPv4 address") };
    let mut packet = ipv4::Packet::new_unchecked(&mut frame[14..]);
    packet.set_destination(to);
    packet.fill_checksum();
}

#[test]
fn echoes_to_groups_and_fragments_and_broken_ones_get_no_answer() {
    let refused = |frame: &[u8]| answers().handle_packet(CLIENT, frame, true);
    assert_eq!(refused(&echo(MacAddress::BROADCAST, "10.1.0.50", "10.1.0.2")), Answer::NotForUs);
    assert_eq!(refused(&echo(THEIRS, "10.1.0.50", "10.1.0.2")), Answer::NotForUs, "a frame for another host");
    assert_eq!(
        refused(&echo(macs()[0], "10.1.0.100", "10.1.0.2")),
        Answer::NotForUs,
        "from an address of ours"
    );
    let mut wrong = echo(macs()[0], "10.1.0.50", "10.1.0.2");
    wrong[50] ^= 1;
    assert_eq!(refused(&wrong), Answer::Malformed(Malformed::Checksum));
    let mut fragment = echo(macs()[0], "10.1.0.50", "10.1.0.2");
    let mut packet = ipv4::Packet::new_unchecked(&mut fragment[14..]);
    packet.set_fragment(false, false, 64);
    packet.fill_checksum();
    assert_eq!(refused(&fragment), Answer::Fragment, "to be put together first");
    packet_to(&mut fragment, "10.1.0.50");
    assert_eq!(refused(&fragment), Answer::NotForUs, "nobody's fragment");
}

#[test]
fn neighbour_discovery_with_a_fragment_header_is_none() {
    let whole = solicitation("fd01::50", "fd01::100");
    let mut wrapped = [&whole[..54], &[58, 0, 0, 0, 0, 0, 0, 1], &whole[54..]].concat();
    wrapped[20] = IpProtocol::FRAGMENT.0;
    wrapped[19] += 8;
    assert!(matches!(answers().handle_packet(CLIENT, &whole, true), Answer::Send { .. }));
    assert_eq!(answers().handle_packet(CLIENT, &wrapped, true), Answer::Malformed(Malformed::NdpInvalid));
}

#[test]
fn whoever_claims_an_address_of_ours_is_named() {
    let gratuitous = arp_request("10.1.0.100", "10.1.0.100");
    let rival = Answer::Rival { address: Some(ip("10.1.0.100")), mac: THEIRS };
    assert_eq!(answers().handle_packet(CLIENT, &gratuitous, true), rival);
    let repr = ndp::Repr::Advertisement {
        router: false,
        solicited: false,
        overrides: true,
        target: v6("fd01::2"),
        target_mac: Some(THEIRS),
    };
    let link = Link::new(THEIRS, MacAddress::multicast_v6(ipv6::ALL_NODES));
    let frame = frames::ndp(&link, v6("fd01::50"), ipv6::ALL_NODES, &repr);
    let rival = Answer::Rival { address: Some(ip("fd01::2")), mac: THEIRS };
    assert_eq!(answers().handle_packet(CLIENT, &frame, true), rival);
}

#[test]
fn announcements_of_the_active_are_no_rival_to_a_standby_but_to_another_active() {
    for (port, frame) in crate::master::announce::announcements(&checked()) {
        let standby = answers().handle_packet(port, &frame, false);
        assert!(matches!(standby, Answer::NotActive | Answer::NotForUs), "{standby:?}");
        let active = answers().handle_packet(port, &frame, true);
        assert!(matches!(active, Answer::Rival { address: None, .. }), "{active:?}");
    }
}

#[test]
fn no_bytes_whatever_make_it_panic() {
    let samples = [
        arp_request("10.1.0.50", "10.1.0.100"),
        solicitation("fd01::50", "fd01::100"),
        echo(macs()[0], "10.1.0.50", "10.1.0.2"),
        echo(macs()[0], "fd01::50", "fd01::2"),
        tagged(arp_request("10.1.0.50", "10.1.0.2")),
    ];
    let (answers, mut rng) = (answers(), crate::base::rng::Rng::with_seed(7));
    for _ in 0..50_000 {
        let mut frame = samples[rng.usize(..samples.len())].clone();
        for _ in 0..rng.usize(..5) {
            let at = rng.usize(..frame.len());
            frame[at] = if rng.bool() { rng.u8(..) } else { frame[at] ^ 1 << rng.u8(..8) };
        }
        frame.truncate(rng.usize(..frame.len() * 4));
        if let Answer::Send { frame, .. } = answers.handle_packet(CLIENT, &frame, rng.bool()) {
            parse(&frame).unwrap();
        }
    }
}
