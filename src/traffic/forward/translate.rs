//! Network address and port translation in place, with incremental checksums
//! (RFC 3022 sections 4.1 and 4.2, RFC 1624): a packet of one key becomes one of
//! another, whatever of addresses and ports differs.

use crate::flow::key::{Key, UDP};
use crate::wire::checksum::Delta;
use crate::wire::parse::{Network, Notes, Parsed};
use crate::wire::{ipv4, ipv6, tcp, udp};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translated {
    /// It carries the new key now, and one hop less.
    Done,
    /// Its hops are used up (RFC 1812 section 5.3.1): it is as it was.
    HopsExceeded,
    /// The keys are of different families: it is as it was.
    Families,
}

/// Whether a packet may go on: it has a hop left after this one.
pub fn has_hops(head: &[u8], parsed: &Parsed) -> bool {
    let at = match parsed.network {
        Network::Ipv4 => TTL_V4,
        Network::Ipv6 => HOP_LIMIT_V6,
        Network::Arp | Network::Liveness | Network::Other => return false,
    };
    head.get(parsed.l3_offset() + at).is_some_and(|hops| *hops > 1)
}

const TTL_V4: usize = 8;
const HOP_LIMIT_V6: usize = 7;

/// Rewrites the packet in `head`, which was parsed as `parsed` and has key
/// `old`, so that it has key `new`; of a later fragment the addresses.
pub fn translate(head: &mut [u8], parsed: &Parsed, old: &Key, new: &Key) -> Translated {
    let l4 = usize::from(parsed.l4_offset);
    let mut delta = Delta::NONE.port(old.src_port, new.src_port).port(old.dst_port, new.dst_port);
    match (parsed.network, new.src.v4_octets(), new.dst.v4_octets()) {
        (Network::Ipv4, Some(src), Some(dst)) => {
            let mut packet = ipv4::Packet::new_unchecked(&mut head[parsed.l3_offset()..l4]);
            let ttl = packet.ttl();
            if ttl <= 1 {
                return Translated::HopsExceeded;
            }
            let (src, dst) = (src.into(), dst.into());
            let addresses =
                Delta::NONE.address_v4(packet.source(), src).address_v4(packet.destination(), dst);
            delta = delta.and(addresses);
            let hop = Delta::NONE.word(u16::from(ttl) << 8, u16::from(ttl - 1) << 8);
            let checksum = addresses.and(hop).apply(packet.checksum());
            packet.set_ttl(ttl - 1);
            packet.set_source(src);
            packet.set_destination(dst);
            packet.set_checksum(checksum);
        }
        (Network::Ipv6, None, None) => {
            let mut packet = ipv6::Packet::new_unchecked(&mut head[parsed.l3_offset()..l4]);
            let hops = packet.hop_limit();
            if hops <= 1 {
                return Translated::HopsExceeded;
            }
            let (src, dst) = (new.src.octets().into(), new.dst.octets().into());
            delta = delta.address_v6(packet.source(), src).address_v6(packet.destination(), dst);
            packet.set_hop_limit(hops - 1);
            packet.set_source(src);
            packet.set_destination(dst);
        }
        (Network::Ipv4 | Network::Ipv6, ..) | (Network::Arp | Network::Liveness | Network::Other, ..) => {
            return Translated::Families;
        }
    }
    if parsed.notes.has(Notes::FRAGMENT_LATER) {
        // The rest is in the first fragment, its checksum over the whole datagram (RFC 768, RFC 9293 section 3.1).
        return Translated::Done;
    }
    if new.protocol == UDP {
        let mut datagram = udp::Datagram::new_unchecked(&mut head[l4..]);
        let checksum = delta.apply_udp(datagram.checksum());
        datagram.set_source_port(new.src_port);
        datagram.set_destination_port(new.dst_port);
        datagram.set_checksum(checksum);
    } else {
        let mut segment = tcp::Segment::new_unchecked(&mut head[l4..]);
        let checksum = delta.apply(segment.checksum());
        segment.set_source_port(new.src_port);
        segment.set_destination_port(new.dst_port);
        segment.set_checksum(checksum);
    }
    Translated::Done
}
