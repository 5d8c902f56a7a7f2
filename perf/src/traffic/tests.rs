//! The generator's frames held against baton's parser, and its population counted.

use core::net::IpAddr;
use std::collections::HashMap;

use baton::wire::checksum::Sum;
use baton::wire::ipv4;
use baton::wire::parse::{Network, parse};
use baton::wire::tcp::{Flags, Segment};
use baton::wire::{IpProtocol, MacAddress};

use super::answer::{look, stamp, turn};
use super::connection::{self, Reply};
use super::frame::client_address;
use super::population::{FLOWS_MAX, number, source};
use super::*;

const FLOWS: [u64; 6] = [0, 1, 999, 65_536, 9_999_999, FLOWS_MAX - 1];

fn place(family: Family) -> Place {
    let address: IpAddr = match family {
        Family::V4 => "10.1.0.100".parse().expect("an address"),
        Family::V6 => "fd01::100".parse().expect("an address"),
    };
    Place { from: [2, 0, 0, 0, 0, 1], to: [0, 0, 0x5e, 0, 1, 51], address, port: 53 }
}

fn shapes() -> impl Iterator<Item = Shape> {
    let families = [Family::V4, Family::V6].into_iter();
    families.flat_map(|family| {
        let protocols = [Protocol::Udp, Protocol::Tcp].into_iter();
        protocols.flat_map(move |protocol| {
            [64, 90, 590, 1514].into_iter().map(move |len| Shape { family, protocol, len })
        })
    })
}

/// What baton's parser says of a frame whose checksums must be right.
fn checked(frame: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let parsed = parse(frame).expect("a sound frame");
    assert!(parsed.has_ports(), "{parsed:?}");
    let ends = parsed.addresses(frame).expect("addresses");
    let ports = parsed.ports(frame).expect("ports");
    let l4 = &frame[usize::from(parsed.l4_offset)..parsed.end()];
    let pseudo = match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = ipv4::Packet::new_checked(&frame[parsed.l3_offset()..]).expect("a sound header");
            assert!(header.checksum_is_valid());
            Sum::ZERO.pseudo_v4(from, to, parsed.protocol, l4.len() as u16)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => Sum::ZERO.pseudo_v6(from, to, parsed.protocol, l4.len() as u32),
        ends => panic!("{ends:?}"),
    };
    assert!(pseudo.bytes(l4).is_valid(), "a wrong checksum: {frame:02x?}");
    ((ends.0, ports.0), (ends.1, ports.1))
}

#[test]
fn every_frame_is_what_it_says_and_its_checksums_are_right() {
    for shape in shapes() {
        let (template, place) = (Template::new(shape, &place(shape.family)), place(shape.family));
        let mut stamps = fastrand::Rng::with_seed(3);
        for flow in FLOWS {
            for stamp_in in [0, 1, u64::MAX, stamps.u64(..)] {
                let mut frame = vec![0; template.len()];
                template.write(&mut frame, source(flow), stamp_in);
                assert!(frame.len() == usize::from(shape.len) || shape.len == 64, "{shape:?}");
                let (from, to) = checked(&frame);
                assert_eq!(from, (client_address(shape.family, source(flow).host), source(flow).port));
                assert_eq!(to, (place.address, place.port));
                let seen = look(&frame).expect("a frame of a service");
                assert_eq!((seen.protocol, stamp(&frame, seen)), (shape.protocol, stamp_in));
                assert_eq!(parse(&frame).expect("sound").end(), frame.len(), "no padding is needed");
            }
        }
    }
}

#[test]
fn ipv4_and_udp_at_64_bytes_are_64_bytes() {
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        assert_eq!(Shape { family: Family::V4, protocol, len: 64 }.frame_len(), 64);
    }
}

#[test]
fn a_buffer_that_carried_another_frame_may_be_used_again() {
    let of = |protocol| Template::new(Shape { family: Family::V4, protocol, len: 590 }, &place(Family::V4));
    let mut frame = vec![0; 590];
    of(Protocol::Tcp).write(&mut frame, source(7), u64::MAX);
    of(Protocol::Udp).write(&mut frame, source(8), 5);
    checked(&frame);
}

#[test]
fn an_answer_is_the_frame_turned_around() {
    for shape in shapes() {
        let template = Template::new(shape, &place(shape.family));
        let mut frame = vec![0; template.len()];
        template.write(&mut frame, source(77), 42);
        let (from, to) = checked(&frame);
        let seen = look(&frame).expect("a frame of a service");
        turn(&mut frame, seen);
        assert_eq!(checked(&frame), (to, from));
        assert_eq!(frame[..6], [2, 0, 0, 0, 0, 1]);
        assert_eq!(stamp(&frame, seen), 42);
    }
}

#[test]
fn what_is_not_a_service_frame_is_left_alone() {
    let ours: IpAddr = "10.2.0.10".parse().expect("an address");
    for frame in [&[][..], &[0; 13], &neighbour::ask(MacAddress([2; 6]), ours, ours)] {
        assert_eq!(look(frame), None);
    }
}

#[test]
fn a_flow_and_its_number_belong_together() {
    for flow in FLOWS {
        assert_eq!(number(source(flow)), flow);
    }
    let ends: std::collections::HashSet<Source> = (0..200_000).map(source).collect();
    assert_eq!(ends.len(), 200_000);
}

#[test]
fn a_uniform_population_has_its_size_and_no_favourites() {
    let mut draw = Draw::new(1000, Spread::Uniform, 0.0, 5);
    let mut counts = HashMap::<u64, u32>::new();
    (0..1_000_000).for_each(|_| *counts.entry(draw.next_flow()).or_default() += 1);
    assert_eq!((counts.len(), draw.begun()), (1000, 0));
    let (least, most) = (counts.values().min().copied(), counts.values().max().copied());
    // 1000 each on average; the standard deviation is 32.
    assert!(least > Some(800) && most < Some(1200), "{least:?} {most:?}");
}

#[test]
fn a_large_population_is_reached_as_far_as_its_ends() {
    let mut draw = Draw::new(10_000_000, Spread::Uniform, 0.0, 6);
    let mut tenths = [0u32; 10];
    (0..100_000).for_each(|_| tenths[(draw.next_flow() / 1_000_000) as usize] += 1);
    assert!(tenths.iter().all(|&count| (9_000..11_000).contains(&count)), "{tenths:?}");
}

#[test]
fn a_zipf_population_follows_the_law() {
    let mut draw = Draw::new(1_000_000, Spread::Zipf, 0.0, 7);
    let mut counts = HashMap::<u64, u32>::new();
    let draws = 1_000_000;
    (0..draws).for_each(|_| *counts.entry(draw.next_flow()).or_default() += 1);
    assert!(counts.keys().all(|&flow| flow < 1_000_000));
    // The share of rank r is 1/r over the harmonic number of a million, 14.39.
    for rank in [1u32, 2, 10, 100] {
        let expected = f64::from(draws) / 14.39 / f64::from(rank);
        let found = f64::from(counts[&u64::from(rank - 1)]);
        assert!((found / expected - 1.0).abs() < 0.2, "rank {rank}: {found}, not {expected}");
    }
}

#[test]
fn new_flows_have_their_share_and_take_the_place_of_the_oldest() {
    for spread in [Spread::Uniform, Spread::Zipf] {
        let mut draw = Draw::new(1000, spread, 0.1, 8);
        let mut fresh = 0;
        // Each of the first ones once, as when an appliance is made to know them.
        let mut seen: std::collections::HashSet<u64> = (0..1000).map(|place| draw.holder(place)).collect();
        for _ in 0..100_000 {
            fresh += u32::from(seen.insert(draw.next_flow()));
        }
        assert_eq!(u64::from(fresh), draw.begun(), "{spread:?}: only what begins is new");
        assert!((9_000..11_000).contains(&fresh), "{spread:?}: {fresh}");
        let holders: std::collections::HashSet<u64> = (0..1000).map(|place| draw.holder(place)).collect();
        assert_eq!(holders.len(), 1000);
        // The last thousand that began are those that hold the places.
        assert!(holders.iter().all(|&flow| flow + 1000 >= 1000 + draw.begun()), "{spread:?}");
    }
}

#[test]
fn a_whole_connection_has_nine_sound_packets_and_opens_and_closes() {
    for family in [Family::V4, Family::V6] {
        let template = connection::template(family, &place(family));
        let mut first = vec![0; template.len()];
        connection::open(&template, &mut first, source(12_345));
        let (mut wire, mut said, mut done) =
            (std::collections::VecDeque::from([(first, true)]), vec![], false);
        let flags = |frame: &[u8]| {
            let parsed = parse(frame).expect("a sound frame");
            Segment::new_checked(&frame[usize::from(parsed.l4_offset)..parsed.end()])
                .expect("sound")
                .flags()
                .0
        };
        while let Some((mut frame, to_server)) = wire.pop_front() {
            checked(&frame);
            said.push((to_server, flags(&frame)));
            let seen = look(&frame).expect("a frame of a service");
            let reply = if to_server {
                connection::serve(&mut frame, seen)
            } else {
                connection::ask(&mut frame, seen, true)
            };
            match reply {
                Reply::Nothing => continue,
                Reply::One => wire.push_back((frame, !to_server)),
                Reply::Two { second } => {
                    let mut next = vec![0; frame.len()];
                    second.follow(&frame, &mut next, seen);
                    wire.extend([(frame, !to_server), (next, !to_server)]);
                }
                Reply::Last => {
                    done = true;
                    wire.push_back((frame, !to_server));
                }
            }
        }
        let [syn, ack, push, fin] = [0x02, 0x10, 0x08, 0x01];
        assert!(done);
        assert_eq!(said.len() as u64, connection::PACKETS);
        assert_eq!(
            said,
            [
                (true, syn),
                (false, syn | ack),
                (true, ack),
                (true, push | ack),
                (false, push | ack),
                (true, ack),
                (true, fin | ack),
                (false, fin | ack),
                (true, ack),
            ]
        );
        assert!(Flags(syn).is_first_syn());
    }
}

#[test]
fn sequence_numbers_of_a_connection_follow_each_other() {
    let template = connection::template(Family::V4, &place(Family::V4));
    let mut frame = vec![0; template.len()];
    connection::open(&template, &mut frame, source(1));
    let numbers = |frame: &[u8]| {
        let segment = Segment::new_checked(&frame[34..54]).expect("sound");
        (segment.sequence(), segment.acknowledgement())
    };
    let seen = look(&frame).expect("a frame of a service");
    let (client, _) = numbers(&frame);
    assert_eq!(connection::serve(&mut frame, seen), Reply::One);
    let (server, acknowledged) = numbers(&frame);
    assert_eq!(acknowledged, client + 1);
    let Reply::Two { second } = connection::ask(&mut frame, seen, true) else { panic!("no request") };
    assert_eq!(numbers(&frame), (client + 1, server + 1));
    let mut request = vec![0; frame.len()];
    second.follow(&frame, &mut request, seen);
    assert_eq!(numbers(&request), (client + 1, server + 1));
    assert_eq!(connection::serve(&mut request, seen), Reply::One);
    assert_eq!(numbers(&request), (server + 1, client + 1 + connection::DATA as u32));
    let Reply::Two { second } = connection::ask(&mut request, seen, true) else { panic!("no end") };
    let mut end = vec![0; frame.len()];
    second.follow(&request, &mut end, seen);
    assert_eq!(numbers(&end), (client + 1 + connection::DATA as u32, server + 1 + connection::DATA as u32));
}

#[test]
fn neighbours_are_asked_and_answered() {
    let (appliance, generator) = (MacAddress([2, 0, 0, 0, 0, 9]), MacAddress([2, 0, 0, 0, 0, 1]));
    for (ours, theirs) in [("10.2.0.10", "10.2.0.2"), ("fd02::10", "fd02::2")] {
        let ours: IpAddr = ours.parse().expect("an address");
        let theirs: IpAddr = theirs.parse().expect("an address");
        let question = neighbour::ask(appliance, theirs, ours);
        assert!(question.len() <= neighbour::FRAME_MAX);
        let heard = neighbour::hear(&question, generator, |address| address == ours);
        let neighbour::Heard::Asked(answer) = heard else { panic!("{heard:?}") };
        assert_eq!(
            neighbour::hear(&answer, appliance, |address| address == theirs),
            neighbour::Heard::Told(ours, generator)
        );
        let parsed = parse(&answer).expect("a sound frame");
        assert!(parsed.network == Network::Arp || parsed.protocol == IpProtocol::ICMPV6);
        let not_ours = neighbour::hear(&question, generator, |_| false);
        assert!(!matches!(not_ours, neighbour::Heard::Asked(_)), "{not_ours:?}");
    }
}

#[test]
fn the_mix_of_lengths_is_the_usual_one() {
    let round = sizes::Size::Imix.round();
    let count = |len| round.iter().filter(|&&one| one == len).count();
    assert_eq!((count(64), count(590), count(1514)), (7, 4, 1));
}
