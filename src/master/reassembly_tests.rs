//! Large echoes to addresses of ours: pieces in, pieces out.

use std::sync::Arc;

use super::*;
use crate::base::io::TxClass;
use crate::base::time::Duration;
use crate::config::snapshot::Snapshot;
use crate::master::frames::{self, Link};
use crate::master::samples::{CLIENT, THEIRS, checked, ip, macs};
use crate::master::{Master, MasterOutput, MasterSetup};
use crate::wire::MacAddress;
use crate::wire::parse::parse;

const NOW: Instant = Instant::from_millis(5000);

type Sent = (Vec<u8>, TxClass);

/// An echo request with so much data, in one frame however long it is.
fn request(to: MacAddress, source: &str, destination: &str, len: usize) -> Vec<u8> {
    let mut message = [&[0, 0, 0, 0, 0x12, 0x34, 0, 7][..], &vec![0xa5; len]].concat();
    let link = Link::new(THEIRS, to);
    match (ip(source), ip(destination)) {
        (core::net::IpAddr::V4(a), core::net::IpAddr::V4(b)) => {
            // Made from the answer that it shall get.
            let mut frame = frames::echo_reply_v4(&link, a, b, &message);
            let mut view = icmp::Message::new_unchecked(&mut message[..]);
            view.set_kind(icmp::Type::ECHO_REQUEST, 0);
            view.fill_checksum();
            frame[34..34 + message.len()].copy_from_slice(&message);
            frame
        }
        (core::net::IpAddr::V6(a), core::net::IpAddr::V6(b)) => {
            let mut frame = frames::echo_reply_v6(&link, a, b, &message);
            let mut view = icmpv6::Message::new_unchecked(&mut message[..]);
            view.set_kind(icmpv6::Type::ECHO_REQUEST, 0);
            view.fill_checksum(a, b);
            frame[54..54 + message.len()].copy_from_slice(&message);
            frame
        }
        _ => unreachable!("one family"),
    }
}

fn master(active: bool) -> Master {
    let snapshot = Arc::new(Snapshot { generation: 1, checked: checked() });
    let link_addresses = macs().iter().map(|mac| mac.0).collect();
    let mut master = Master::new(MasterSetup {
        snapshot,
        link_addresses,
        last_seen: Vec::new(),
        distributors: 0,
        now: NOW,
        seed: 1,
    });
    master.handle_role(NOW, active);
    drained(&mut master);
    master
}

/// Frames that the master sends, and what it counts.
fn drained(master: &mut Master) -> (Vec<Sent>, Vec<(Counter, u64)>) {
    let (mut sent, mut counted) = (Vec::new(), Vec::new());
    while let Some(output) = master.poll_output() {
        match output {
            MasterOutput::Inject { frame, class, .. } => sent.push((frame, class)),
            MasterOutput::Count { counter, packets } => counted.push((counter, packets)),
            MasterOutput::Command { .. }
            | MasterOutput::Redirect(_)
            | MasterOutput::Moved(_)
            | MasterOutput::Health(_)
            | MasterOutput::Rival(_)
            | MasterOutput::VrrpRival(_)
            | MasterOutput::Foreign(_) => {}
        }
    }
    counted.retain(|(_, packets)| *packets > 0);
    (sent, counted)
}

/// What is left of frames once they are put together.
fn whole(pieces: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut reassembly = Reassembly::default();
    let each = pieces.iter().filter_map(|piece| {
        match reassembly.handle(NOW, piece, &parse(piece).expect("a sound packet")) {
            Put::Whole(frame) => Some(frame),
            Put::Waits | Put::Dropped(_) => None,
        }
    });
    each.collect()
}

#[test]
fn pieces_fit_the_link_and_make_the_whole_again_in_any_order() {
    for (source, destination) in [("10.1.0.50", "10.1.0.2"), ("fd01::50", "fd01::2")] {
        for len in [1473, 2000, 20_000, 65_000] {
            let frame = request(macs()[0], source, destination, len);
            let mut pieces = frames::fragments(frame.clone(), 1500, 77);
            assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= 1514), "{len}");
            let identification = |piece: &Vec<u8>| {
                Fragment::of(piece, &parse(piece).expect("a sound packet")).map(|of| of.identification)
            };
            assert!(pieces.iter().all(|piece| identification(piece) == Some(77)));
            for order in 0..3 {
                match order {
                    0 => {}
                    1 => pieces.reverse(),
                    _ => crate::base::rng::Rng::with_seed(3).shuffle(&mut pieces),
                }
                let mut again = whole(&pieces);
                assert_eq!(again.len(), 1, "{destination}, {len}");
                let mut again = again.remove(0);
                if let Ok(core::net::IpAddr::V4(_)) = source.parse() {
                    // What every packet of ours says that is not in pieces.
                    let mut packet = ipv4::Packet::new_unchecked(&mut again[14..]);
                    packet.set_identification(0);
                    packet.set_fragment(true, false, 0);
                    packet.fill_checksum();
                }
                assert_eq!(again, frame, "{destination}, {len}");
            }
        }
    }
}

#[test]
fn what_fits_the_link_stays_as_it_is() {
    for destination in ["10.1.0.2", "fd01::2"] {
        let source = if destination.contains(':') { "fd01::50" } else { "10.1.0.50" };
        let around = if destination.contains(':') { 48 } else { 28 };
        let frame = request(macs()[0], source, destination, 1500 - around);
        assert_eq!(frames::fragments(frame.clone(), 1500, 77), [frame]);
    }
}

#[test]
fn a_large_echo_to_each_kind_of_address_is_answered_in_pieces() {
    let virtual_mac = [MacAddress::virtual_router_v4(51), MacAddress::virtual_router_v6(51)];
    for (to, source, destination, class) in [
        (macs()[0], "10.1.0.50", "10.1.0.2", TxClass::Own),
        (macs()[0], "fd01::50", "fd01::2", TxClass::Own),
        (virtual_mac[0], "10.1.0.50", "10.1.0.100", TxClass::Service),
        (virtual_mac[0], "10.1.0.50", "10.2.0.1", TxClass::Service),
        (virtual_mac[1], "fd01::50", "fd01::100", TxClass::Service),
    ] {
        let mut master = master(true);
        let pieces = frames::fragments(request(to, source, destination, 20_000), 1500, 9);
        for piece in &pieces {
            assert!(drained(&mut master).0.is_empty(), "no answer before the request is whole");
            master.handle_punt(NOW, CLIENT, piece);
        }
        let (sent, counted) = drained(&mut master);
        assert!(sent.iter().all(|(frame, of)| *of == class && frame.len() <= 1514), "{destination}");
        let sent: Vec<Vec<u8>> = sent.into_iter().map(|(frame, _)| frame).collect();
        assert_eq!((sent.len(), counted), (pieces.len(), Vec::new()));
        // The answer is put together by turning it into a request, as which alone it is taken.
        let reply = &sent[0];
        let parsed = parse(reply).expect("a sound packet");
        let (from, back) = parsed.addresses(reply).expect("an IP packet");
        assert_eq!((from, back), (ip(destination), ip(source)));
        let mut asked = sent;
        asked[0][usize::from(parsed.l4_offset)] = if from.is_ipv4() { 8 } else { 128 };
        let whole = whole(&asked);
        let data = &whole[0][whole[0].len() - 20_000..];
        assert!(data.iter().all(|byte| *byte == 0xa5));
    }
}

#[test]
fn a_standby_answers_for_its_own_addresses_only() {
    for (destination, expected) in [("10.1.0.2", 2), ("10.1.0.100", 0), ("10.1.0.50", 0)] {
        let mut master = master(false);
        for piece in frames::fragments(request(macs()[0], "10.1.0.60", destination, 2000), 1500, 9) {
            master.handle_punt(NOW, CLIENT, &piece);
        }
        assert_eq!(drained(&mut master).0.len(), expected, "{destination}");
    }
}

#[test]
fn what_is_no_echo_request_is_given_up() {
    let mut master = master(true);
    let mut pieces = frames::fragments(request(macs()[0], "fd01::50", "fd01::2", 4000), 1500, 9);
    let at = usize::from(parse(&pieces[0]).expect("a sound packet").l4_offset);
    pieces[0][at] = icmpv6::Type::NEIGHBOUR_SOLICITATION.0;
    for at in [1, 0, 2] {
        master.handle_punt(NOW, CLIENT, &pieces[at]);
    }
    let (sent, counted) = drained(&mut master);
    let given_up = (Counter::DropFragmentGivenUp, 1);
    assert_eq!((sent.len(), counted), (0, vec![given_up, (Counter::DropFragmentIcmp, 1), given_up]));
}

#[test]
fn overlaps_duplicates_and_contradictions_are_dropped_for_their_reason() {
    let pieces = frames::fragments(request(macs()[0], "10.1.0.50", "10.1.0.2", 6000), 1500, 9);
    let others = frames::fragments(request(macs()[0], "10.1.0.50", "10.1.0.2", 6000), 1000, 9);
    for (wrong, counter) in [
        (&pieces[0], Counter::DropFragmentDuplicate),
        (&others[1], Counter::DropFragmentOverlap),
        (
            &frames::fragments(request(macs()[0], "10.1.0.50", "10.1.0.2", 60), 28, 9)[8],
            Counter::DropFragmentOverlap,
        ),
    ] {
        let mut reassembly = Reassembly::default();
        let mut put = |piece: &[u8]| reassembly.handle(NOW, piece, &parse(piece).expect("a sound packet"));
        assert_eq!(put(&pieces[0]), Put::Waits);
        assert_eq!(put(wrong), Put::Dropped(counter));
    }
}

#[test]
fn few_are_put_together_at_a_time_and_the_oldest_gives_way() {
    let mut reassembly = Reassembly::default();
    let mut now = NOW;
    let first = |source: u8, identification: u32| {
        let frame = request(macs()[0], &format!("10.1.0.{source}"), "10.1.0.2", 3000);
        frames::fragments(frame, 1500, identification)
    };
    let mut put = |reassembly: &mut Reassembly, piece: &[u8]| {
        now += Duration::from_millis(1);
        reassembly.handle(now, piece, &parse(piece).expect("a sound packet"))
    };
    let dropped = |reassembly: &mut Reassembly| -> Vec<_> {
        core::iter::from_fn(|| reassembly.poll_dropped()).collect()
    };
    for identification in 0..=ECHOES_REASSEMBLED_PER_SOURCE_MAX as u32 {
        assert_eq!(put(&mut reassembly, &first(50, identification)[0]), Put::Waits);
    }
    assert_eq!(dropped(&mut reassembly), [(Counter::DropFragmentsWaitingOfSource, 1)]);
    for source in 100..100 + ECHOES_REASSEMBLED_MAX as u8 {
        assert_eq!(put(&mut reassembly, &first(source, 1)[0]), Put::Waits);
    }
    let gone = dropped(&mut reassembly);
    assert_eq!(gone, [(Counter::DropFragmentsWaiting, 1); ECHOES_REASSEMBLED_PER_SOURCE_MAX]);
    // The newest is still there, and whole in the end.
    let newest = first(100 + ECHOES_REASSEMBLED_MAX as u8 - 1, 1);
    assert_eq!(put(&mut reassembly, &newest[2]), Put::Waits);
    assert!(matches!(put(&mut reassembly, &newest[1]), Put::Whole(_)));
    let deadline = reassembly.next_deadline();
    reassembly.expire(deadline);
    assert_eq!(dropped(&mut reassembly), [(Counter::DropFragmentTimeout, 1)]);
    reassembly.expire(deadline + FRAGMENT_TIMEOUT);
    assert_eq!(dropped(&mut reassembly).len(), ECHOES_REASSEMBLED_MAX - 2);
    assert_eq!(reassembly.next_deadline(), Instant::FAR_FUTURE);
}
