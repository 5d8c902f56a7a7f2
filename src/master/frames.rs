//! Builds the frames that the master sends: ARP, neighbour discovery, echo replies, VRRP.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::ethernet::{self, EtherType, Frame, MacAddress};
use crate::wire::parse::{Network, parse};
use crate::wire::vlan::Tag;
use crate::wire::{IpProtocol, arp, icmp, icmpv6, ipv4, ipv6, ndp, vlan, vrrp};

/// The shortest frame without its check sequence (IEEE 802.3 clause 3.2.7). Shorter
/// ones are padded here: not every port does.
pub const FRAME_LEN_MIN: usize = 60;

/// Hops that our own packets may take (RFC 1700's recommendation).
pub const TTL: u8 = 64;

/// Who speaks to whom on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// From whom.
    pub source: MacAddress,
    /// To whom.
    pub destination: MacAddress,
    /// VLAN id and priority, if tagged.
    pub vlan: Option<(u16, u8)>,
}

impl Link {
    /// Untagged.
    pub const fn new(source: MacAddress, destination: MacAddress) -> Link {
        Link { source, destination, vlan: None }
    }

    fn header_len(&self) -> usize {
        ethernet::HEADER_LEN + if self.vlan.is_some() { vlan::HEADER_LEN } else { 0 }
    }

    /// A frame with this link header and `len` zero bytes behind it, and padding.
    fn frame(&self, ethertype: EtherType, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; (self.header_len() + len).max(FRAME_LEN_MIN)];
        let mut frame = Frame::new_unchecked(&mut bytes[..]);
        frame.set_destination(self.destination);
        frame.set_source(self.source);
        frame.set_ethertype(if self.vlan.is_some() { EtherType::VLAN } else { ethertype });
        if let Some((id, priority)) = self.vlan {
            let mut tag = Tag::new_unchecked(frame.payload_mut());
            tag.set_control(id, priority);
            tag.set_ethertype(ethertype);
        }
        bytes
    }

    fn payload<'a>(&self, bytes: &'a mut [u8], len: usize) -> &'a mut [u8] {
        let at = self.header_len();
        &mut bytes[at..at + len]
    }
}

/// An ARP packet.
pub fn arp(link: &Link, repr: &arp::Repr) -> Vec<u8> {
    let mut bytes = link.frame(EtherType::ARP, arp::LEN);
    repr.emit(&mut arp::Packet::new_unchecked(link.payload(&mut bytes, arp::LEN)));
    bytes
}

/// A neighbour solicitation or advertisement.
pub fn ndp(link: &Link, source: Ipv6Addr, destination: Ipv6Addr, repr: &ndp::Repr) -> Vec<u8> {
    let mut bytes = link.frame(EtherType::IPV6, ipv6::HEADER_LEN + repr.len());
    let packet = link.payload(&mut bytes, ipv6::HEADER_LEN + repr.len());
    let (header, message) = packet.split_at_mut(ipv6::HEADER_LEN);
    ipv6::Repr {
        source,
        destination,
        protocol: IpProtocol::ICMPV6,
        payload_len: message.len() as u16,
        hop_limit: ndp::HOP_LIMIT,
    }
    .emit(&mut ipv6::Packet::new_unchecked(header));
    repr.emit(message, source, destination);
    bytes
}

/// A VRRP advertisement of addresses, all of the source's family, to its group.
pub fn vrrp(
    link: &Link,
    source: IpAddr,
    repr: &vrrp::Repr,
    addresses: &[IpAddr],
    covers: vrrp::Ipv4Checksum,
) -> Vec<u8> {
    let len = vrrp::HEADER_LEN + addresses.len() * vrrp::address_len(source.is_ipv6());
    let (protocol, payload_len) = (IpProtocol::VRRP, len as u16);
    match source {
        IpAddr::V4(source) => {
            let destination = vrrp::GROUP_V4;
            let mut bytes = link.frame(EtherType::IPV4, ipv4::HEADER_LEN + len);
            let packet = link.payload(&mut bytes, ipv4::HEADER_LEN + len);
            let (header, message) = packet.split_at_mut(ipv4::HEADER_LEN);
            ipv4::Repr { source, destination, protocol, payload_len, ttl: vrrp::HOP_LIMIT }
                .emit(&mut ipv4::Packet::new_unchecked(header));
            repr.emit(message, source.into(), destination.into(), addresses, covers);
            bytes
        }
        IpAddr::V6(source) => {
            let destination = vrrp::GROUP_V6;
            let mut bytes = link.frame(EtherType::IPV6, ipv6::HEADER_LEN + len);
            let packet = link.payload(&mut bytes, ipv6::HEADER_LEN + len);
            let (header, message) = packet.split_at_mut(ipv6::HEADER_LEN);
            ipv6::Repr { source, destination, protocol, payload_len, hop_limit: vrrp::HOP_LIMIT }
                .emit(&mut ipv6::Packet::new_unchecked(header));
            repr.emit(message, source.into(), destination.into(), addresses, covers);
            bytes
        }
    }
}

/// The answer to an echo request, of which `message` is the whole ICMP message: its
/// identifier, sequence number and data come back (RFC 792). At most 65,515 bytes.
pub fn echo_reply_v4(link: &Link, source: Ipv4Addr, destination: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let mut bytes = link.frame(EtherType::IPV4, ipv4::HEADER_LEN + message.len());
    let packet = link.payload(&mut bytes, ipv4::HEADER_LEN + message.len());
    let (header, reply) = packet.split_at_mut(ipv4::HEADER_LEN);
    let (protocol, payload_len) = (IpProtocol::ICMP, message.len() as u16);
    ipv4::Repr { source, destination, protocol, payload_len, ttl: TTL }
        .emit(&mut ipv4::Packet::new_unchecked(header));
    reply.copy_from_slice(message);
    let mut reply = icmp::Message::new_unchecked(reply);
    reply.set_kind(icmp::Type::ECHO_REPLY, 0);
    reply.fill_checksum();
    bytes
}

/// The answer to an ICMPv6 echo request (RFC 4443 section 4.2); as [`echo_reply_v4`].
pub fn echo_reply_v6(link: &Link, source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut bytes = link.frame(EtherType::IPV6, ipv6::HEADER_LEN + message.len());
    let packet = link.payload(&mut bytes, ipv6::HEADER_LEN + message.len());
    let (header, reply) = packet.split_at_mut(ipv6::HEADER_LEN);
    let (protocol, payload_len) = (IpProtocol::ICMPV6, message.len() as u16);
    ipv6::Repr { source, destination, protocol, payload_len, hop_limit: TTL }
        .emit(&mut ipv6::Packet::new_unchecked(header));
    reply.copy_from_slice(message);
    let mut reply = icmpv6::Message::new_unchecked(reply);
    reply.set_kind(icmpv6::Type::ECHO_REPLY, 0);
    reply.fill_checksum(source, destination);
    bytes
}

/// The fragments in which a frame that was made here leaves by a link of this MTU: itself, if it is not too long. All of
/// them have the identification; of IPv4 its lower half (RFC 791 section 3.2, RFC 8200 section 4.5).
pub fn fragments(frame: Vec<u8>, mtu: u16, identification: u32) -> Vec<Vec<u8>> {
    let Ok(parsed) = parse(&frame) else { return vec![frame] };
    let (l3, l4, end) = (parsed.l3_offset(), usize::from(parsed.l4_offset), parsed.end());
    let is_v4 = match parsed.network {
        Network::Ipv4 => true,
        Network::Ipv6 => false,
        Network::Arp | Network::Liveness | Network::Other => return vec![frame],
    };
    let around = l4 - l3 + if is_v4 { 0 } else { ipv6::FRAGMENT_HEADER_LEN };
    let size = usize::from(mtu).saturating_sub(around) / 8 * 8;
    if end - l3 <= usize::from(mtu) || size == 0 {
        return vec![frame];
    }
    let (head, data) = (&frame[..l4], &frame[l4..end]);
    let piece = |(number, piece): (usize, &[u8])| {
        let (offset, more) = ((number * size) as u16, number * size + piece.len() < data.len());
        let mut bytes = head.to_vec();
        if is_v4 {
            bytes.extend_from_slice(piece);
            let mut packet = ipv4::Packet::new_unchecked(&mut bytes[l3..]);
            packet.set_total_len((around + piece.len()) as u16);
            packet.set_identification(identification as u16);
            packet.set_fragment(false, more, offset);
            packet.fill_checksum();
        } else {
            let [a, b] = (offset | u16::from(more)).to_be_bytes();
            bytes.extend_from_slice(&[parsed.protocol.0, 0, a, b]);
            bytes.extend_from_slice(&identification.to_be_bytes());
            bytes.extend_from_slice(piece);
            let mut packet = ipv6::Packet::new_unchecked(&mut bytes[l3..]);
            packet.set_payload_len((around - ipv6::HEADER_LEN + piece.len()) as u16);
            packet.set_next_header(IpProtocol::FRAGMENT);
        }
        bytes.resize(bytes.len().max(FRAME_LEN_MIN), 0);
        bytes
    };
    data.chunks(size).enumerate().map(piece).collect()
}

/// A frame that says nothing: an XID response of the null service (IEEE 802.2 clause
/// 5.4.1.2.1), to everyone. Bridges learn its source, hosts drop it; access points have
/// long used it to move a station (IEEE 802.11F, "layer 2 update frame").
pub fn link_update(source: MacAddress) -> Vec<u8> {
    // Null DSAP; null SSAP with the response bit; XID; format, classes of service, window.
    const XID: [u8; 6] = [0x00, 0x01, 0xaf, 0x81, 0x01, 0x00];
    let link = Link::new(source, MacAddress::BROADCAST);
    // Below 0x0600 the EtherType field is a length (IEEE 802.3 clause 3.2.6).
    let mut bytes = link.frame(EtherType(XID.len() as u16), XID.len());
    link.payload(&mut bytes, XID.len()).copy_from_slice(&XID);
    bytes
}
