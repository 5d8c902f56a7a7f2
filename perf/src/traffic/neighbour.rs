//! What a neighbour says: it answers for the clients' gateway and for the real servers, and
//! asks for the virtual address. RFC 826, RFC 4861.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use baton::wire::arp::{self, Operation};
use baton::wire::ethernet::{self, EtherType, Frame};
use baton::wire::icmpv6::Message;
use baton::wire::parse::{Network, parse};
use baton::wire::{IpProtocol, MacAddress, ipv6, ndp};

/// Frames for the appliance. At most this long.
pub const FRAME_MAX: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + ndp::LEN_WITH_MAC;

/// What a received frame means to a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody asks for an address of ours: the answer.
    Asked(Vec<u8>),
    /// An address is at this link address.
    Told(IpAddr, MacAddress),
    /// Nothing.
    Nothing,
}

/// Understands a frame. `own` is our link address; `ours` says which addresses are.
pub fn hear(frame: &[u8], own: MacAddress, ours: impl Fn(IpAddr) -> bool) -> Heard {
    let Ok(parsed) = parse(frame) else { return Heard::Nothing };
    let body = &frame[parsed.l3_offset()..];
    match parsed.network {
        Network::Arp => {
            let Ok(packet) = arp::Packet::new_checked(body) else { return Heard::Nothing };
            let heard = arp::Repr::parse(&packet);
            match heard.operation {
                Operation::Request if ours(heard.target_ip.into()) => Heard::Asked(arp_frame(
                    heard.sender_mac,
                    &arp::Repr {
                        operation: Operation::Reply,
                        sender_mac: own,
                        sender_ip: heard.target_ip,
                        target_mac: heard.sender_mac,
                        target_ip: heard.sender_ip,
                    },
                )),
                _ => Heard::Told(heard.sender_ip.into(), heard.sender_mac),
            }
        }
        Network::Ipv6 if parsed.protocol == IpProtocol::ICMPV6 => {
            let packet = ipv6::Packet::new_unchecked(body);
            let Some(bytes) = frame.get(usize::from(parsed.l4_offset)..parsed.end()) else {
                return Heard::Nothing;
            };
            let Ok(message) = Message::new_checked(bytes) else { return Heard::Nothing };
            match ndp::Repr::parse(&message) {
                Ok(ndp::Repr::Solicitation { target, source_mac: Some(mac) }) if ours(target.into()) => {
                    let answer = ndp::Repr::Advertisement {
                        router: false,
                        solicited: true,
                        overrides: true,
                        target,
                        target_mac: Some(own),
                    };
                    Heard::Asked(ndp_frame(own, mac, target, packet.source(), &answer))
                }
                Ok(ndp::Repr::Advertisement { target, target_mac: Some(mac), .. }) => {
                    Heard::Told(target.into(), mac)
                }
                _ => Heard::Nothing,
            }
        }
        _ => Heard::Nothing,
    }
}

/// A frame that asks for an address in the name of another one.
pub fn ask(own: MacAddress, from: IpAddr, wanted: IpAddr) -> Vec<u8> {
    match (from, wanted) {
        (IpAddr::V4(sender_ip), IpAddr::V4(target_ip)) => arp_frame(
            MacAddress::BROADCAST,
            &arp::Repr {
                operation: Operation::Request,
                sender_mac: own,
                sender_ip,
                target_mac: MacAddress::ZERO,
                target_ip,
            },
        ),
        (from, wanted) => {
            let (from, wanted) = (as_v6(from), as_v6(wanted));
            // RFC 4291 section 2.7.1: the solicited-node group.
            let group = Ipv6Addr::from_bits(0xff02 << 112 | 0x1_ff00_0000 | wanted.to_bits() & 0xff_ffff);
            let message = ndp::Repr::Solicitation { target: wanted, source_mac: Some(own) };
            ndp_frame(own, MacAddress::multicast_v6(group), from, group, &message)
        }
    }
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4),
        IpAddr::V6(v6) => v6,
    }
}

fn arp_frame(to: MacAddress, repr: &arp::Repr) -> Vec<u8> {
    let mut bytes = vec![0; ethernet::HEADER_LEN + arp::LEN];
    header(&mut bytes, repr.sender_mac, to, EtherType::ARP);
    repr.emit(&mut arp::Packet::new_unchecked(&mut bytes[ethernet::HEADER_LEN..]));
    bytes
}

fn ndp_frame(own: MacAddress, to: MacAddress, from: Ipv6Addr, dst: Ipv6Addr, repr: &ndp::Repr) -> Vec<u8> {
    let l4 = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
    let mut bytes = vec![0; l4 + repr.len()];
    header(&mut bytes, own, to, EtherType::IPV6);
    let packet = &mut bytes[ethernet::HEADER_LEN..l4];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(repr.len() as u16).to_be_bytes());
    packet[6] = IpProtocol::ICMPV6.0;
    packet[7] = ndp::HOP_LIMIT;
    packet[8..24].copy_from_slice(&from.octets());
    packet[24..40].copy_from_slice(&dst.octets());
    repr.emit(&mut bytes[l4..], from, dst);
    bytes
}

fn header(bytes: &mut [u8], from: MacAddress, to: MacAddress, ethertype: EtherType) {
    let mut frame = Frame::new_unchecked(bytes);
    frame.set_destination(to);
    frame.set_source(from);
    frame.set_ethertype(ethertype);
}
