//! Packets of hosts: built whole, read with every checksum verified.

use std::net::{IpAddr, SocketAddr};

use baton::wire::checksum::Sum;
use baton::wire::ethernet::{EtherType, Frame, MacAddress};
use baton::wire::parse::{Network, Parsed};
use baton::wire::{IpProtocol, ipv4, ipv6, tcp, udp};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// TCP's part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
}

/// A TCP or UDP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// `None`: UDP.
    pub tcp: Option<Header>,
    pub payload: Vec<u8>,
}

impl Packet {
    /// The frame that carries it.
    pub fn frame(&self, from: MacAddress, to: MacAddress) -> Vec<u8> {
        let (protocol, header_len) = match self.tcp {
            Some(_) => (IpProtocol::TCP, tcp::HEADER_LEN),
            None => (IpProtocol::UDP, udp::HEADER_LEN),
        };
        let l4_len = header_len + self.payload.len();
        let ip_len = if self.from.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        let mut bytes = vec![0; 14 + ip_len + l4_len];
        let mut frame = Frame::new_unchecked(&mut bytes[..]);
        frame.set_source(from);
        frame.set_destination(to);
        frame.set_ethertype(if self.from.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 });
        let (ip, l4) = bytes[14..].split_at_mut(ip_len);
        let payload_len = l4_len as u16;
        let sum = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ipv4::Repr { source, destination, protocol, payload_len, ttl: 64 }
                    .emit(&mut ipv4::Packet::new_unchecked(ip));
                Sum::ZERO.pseudo_v4(source, destination, protocol, payload_len)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ipv6::Repr { source, destination, protocol, payload_len, hop_limit: 64 }
                    .emit(&mut ipv6::Packet::new_unchecked(ip));
                Sum::ZERO.pseudo_v6(source, destination, protocol, u32::from(payload_len))
            }
            _ => panic!("a packet between families"),
        };
        l4[header_len..].copy_from_slice(&self.payload);
        let checksum_at = match self.tcp {
            Some(header) => {
                let mut segment = tcp::Segment::new_unchecked(&mut *l4);
                segment.set_sequence(header.seq);
                segment.set_acknowledgement(header.ack);
                segment.set_header_len(tcp::HEADER_LEN);
                segment.set_flags(tcp::Flags(header.flags));
                segment.set_window(0xffff);
                tcp::CHECKSUM
            }
            None => {
                udp::Datagram::new_unchecked(&mut *l4).set_length(payload_len);
                udp::CHECKSUM
            }
        };
        l4[0..2].copy_from_slice(&self.from.port().to_be_bytes());
        l4[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        let checksum = sum.bytes(l4).checksum_udp();
        l4[checksum_at].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Reads a parsed frame; `Err` says which checksum is wrong, `Ok(None)`: neither TCP nor UDP.
    pub fn read(frame: &[u8], parsed: &Parsed) -> Result<Option<Packet>, &'static str> {
        let (Some((from, to)), Some((from_port, to_port))) = (parsed.addresses(frame), parsed.ports(frame))
        else {
            return Ok(None);
        };
        let l4 = &frame[usize::from(parsed.l4_offset)..parsed.end()];
        let sum = match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                if !ipv4::Packet::new_unchecked(&frame[parsed.l3_offset()..]).checksum_is_valid() {
                    return Err("IPv4 header checksum");
                }
                Sum::ZERO.pseudo_v4(from, to, parsed.protocol, parsed.l4_len)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                Sum::ZERO.pseudo_v6(from, to, parsed.protocol, u32::from(parsed.l4_len))
            }
            _ => return Ok(None),
        };
        if !sum.bytes(l4).is_valid() {
            return Err("transport checksum");
        }
        let header = (parsed.protocol == IpProtocol::TCP).then(|| {
            let segment = tcp::Segment::new_unchecked(l4);
            Header { flags: segment.flags().0, seq: segment.sequence(), ack: segment.acknowledgement() }
        });
        Ok(Some(Packet {
            from: SocketAddr::new(from, from_port),
            to: SocketAddr::new(to, to_port),
            tcp: header,
            payload: frame[parsed.payload_offset()..parsed.end()].to_vec(),
        }))
    }
}

/// Whether a parsed frame is IP.
pub fn is_ip(parsed: &Parsed) -> bool {
    matches!(parsed.network, Network::Ipv4 | Network::Ipv6)
}
