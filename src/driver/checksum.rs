//! What a packet asks of its port ([`TxMeta`]), done: by the port where it can, with
//! the fields prepared as ports want them; in software where not. RFC 1071, RFC 768,
//! RFC 8200 section 8.1.
//!
//! It takes two steps, so that the later segments of a packet can be read while its
//! first one is not yet written: [`plan`] reads, [`Plan::apply`] writes.
//!
//! An IPv6 routing header with segments left is not looked at: the destination that
//! stands in the IPv6 header is taken for the final one.

use core::fmt;

use crate::base::buffer::TxMeta;
use crate::base::counters::Counter;
use crate::wire::checksum::Sum;
use crate::wire::{IpProtocol, icmp, ipv4, ipv6, tcp, udp};

/// Which checksums a port computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// That of the IPv4 header.
    pub ip: bool,
    /// TCP's.
    pub tcp: bool,
    /// UDP's.
    pub udp: bool,
    /// Longest link header that it can be told of, in bytes.
    pub l2_len_max: u8,
    /// Longest IP header that it can be told of, in bytes.
    pub l3_len_max: u16,
}

impl Capabilities {
    /// A port that computes nothing.
    pub const NONE: Capabilities =
        Capabilities { ip: false, tcp: false, udp: false, l2_len_max: 0, l3_len_max: 0 };

    /// A port that computes all of it.
    pub const ALL: Capabilities =
        Capabilities { ip: true, tcp: true, udp: true, l2_len_max: u8::MAX, l3_len_max: u16::MAX };
}

/// Why a packet cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// The lengths in the request or in the headers do not fit the packet.
    Headers,
    /// A transport checksum was asked for a fragment.
    Fragment,
    /// A transport checksum was asked for a protocol that has none, or none that is known.
    Protocol,
    /// The port sends one segment only, and the packet does not fit in one.
    Segments,
}

impl Unsendable {
    /// Under what it is counted.
    pub const fn counter(self) -> Counter {
        match self {
            Unsendable::Headers => Counter::DropTxHeaders,
            Unsendable::Fragment => Counter::DropTxFragment,
            Unsendable::Protocol => Counter::DropTxProtocol,
            Unsendable::Segments => Counter::DropTxSegments,
        }
    }
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unsendable::Headers => "the packet's headers are not as long as the request says",
            Unsendable::Fragment => "a fragment has no transport checksum of its own",
            Unsendable::Protocol => "the packet's protocol has no checksum that is known",
            Unsendable::Segments => "the packet does not fit in the one segment that the port sends",
        })
    }
}

/// A protocol whose checksum a port can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What is left for the port to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// The packet is IPv6.
    pub ipv6: bool,
    /// Compute the IPv4 header checksum, whose field holds zero.
    pub ip: bool,
    /// Compute the transport checksum, whose field holds the pseudo header's sum.
    pub l4: Option<L4>,
}

impl Ask {
    /// Whether nothing is left to do.
    pub const fn is_nothing(&self) -> bool {
        !self.ip && self.l4.is_none()
    }
}

/// What is to be written into a packet's head before it goes to the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    ip: Option<Write>,
    l4: Option<Write>,
    /// What is left for the port.
    pub ask: Ask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Write {
    at: usize,
    value: u16,
}

impl Plan {
    /// Writes into the head that the plan was made for.
    pub fn apply(&self, head: &mut [u8]) {
        for write in [self.ip, self.l4].into_iter().flatten() {
            if let Some(field) = head.get_mut(write.at..write.at + 2) {
                field.copy_from_slice(&write.value.to_be_bytes());
            }
        }
    }
}

/// Where what is, by the IP header.
struct Network {
    ipv6: bool,
    protocol: IpProtocol,
    fragment: bool,
    /// Sum of the pseudo header's addresses.
    source_destination: Addresses,
    /// Transport header and payload, in bytes.
    l4_len: usize,
}

enum Addresses {
    V4(core::net::Ipv4Addr, core::net::Ipv4Addr),
    V6(core::net::Ipv6Addr, core::net::Ipv6Addr),
}

impl Addresses {
    fn pseudo(&self, protocol: IpProtocol, len: usize) -> Sum {
        match *self {
            Addresses::V4(source, destination) => {
                Sum::ZERO.pseudo_v4(source, destination, protocol, len as u16)
            }
            Addresses::V6(source, destination) => {
                Sum::ZERO.pseudo_v6(source, destination, protocol, len as u32)
            }
        }
    }
}

/// Finds out what to write and what to ask for. `head` is the first segment, with
/// all headers; `tail` the later ones; `total_len` the length of all together.
pub fn plan<'a>(
    head: &[u8],
    tail: impl IntoIterator<Item = &'a [u8]>,
    total_len: usize,
    tx: &TxMeta,
    port: &Capabilities,
) -> Result<Plan, Unsendable> {
    if !tx.ip_checksum && !tx.l4_checksum {
        return Ok(Plan::default());
    }
    let (l2_len, l3_len) = (usize::from(tx.l2_len), usize::from(tx.l3_len));
    let bytes = head.get(l2_len..).ok_or(Unsendable::Headers)?;
    let network = network(bytes, total_len.saturating_sub(l2_len), l3_len)?;
    // A port that cannot be told where the headers are computes nothing.
    let told = tx.l2_len <= port.l2_len_max && tx.l3_len <= port.l3_len_max;

    let mut plan = Plan { ask: Ask { ipv6: network.ipv6, ip: false, l4: None }, ..Plan::default() };
    if tx.ip_checksum && !network.ipv6 {
        plan.ask.ip = told && port.ip;
        let value = if plan.ask.ip { 0 } else { header_checksum(&bytes[..l3_len]) };
        plan.ip = Some(Write { at: l2_len + ipv4::CHECKSUM.start, value });
    }
    if tx.l4_checksum {
        let l4 = &bytes[l3_len..];
        let (write, asked) = transport(&network, l4, tail, told, port)?;
        plan.l4 = Some(Write { at: l2_len + l3_len + write.at, value: write.value });
        plan.ask.l4 = asked;
    }
    Ok(plan)
}

/// `bytes` begin at the IP header, and are the start of `available`.
fn network(bytes: &[u8], available: usize, l3_len: usize) -> Result<Network, Unsendable> {
    let bad = |_| Unsendable::Headers;
    let network = match bytes.first().map(|first| first >> 4) {
        Some(4) => {
            let packet = ipv4::Packet::new_checked_of(bytes, available).map_err(bad)?;
            if packet.header_len() != l3_len {
                return Err(Unsendable::Headers);
            }
            Network {
                ipv6: false,
                protocol: packet.protocol(),
                fragment: packet.is_fragment(),
                source_destination: Addresses::V4(packet.source(), packet.destination()),
                l4_len: usize::from(packet.total_len()) - l3_len,
            }
        }
        Some(6) => {
            let packet = ipv6::Packet::new_checked_of(bytes, available).map_err(bad)?;
            let chain = packet.chain().map_err(bad)?;
            if usize::from(chain.offset) != l3_len {
                return Err(Unsendable::Headers);
            }
            Network {
                ipv6: true,
                protocol: chain.protocol,
                fragment: chain.fragment.is_some_and(|fragment| !fragment.is_atomic()),
                source_destination: Addresses::V6(packet.source(), packet.destination()),
                // The chain's end lies within the payload.
                l4_len: (ipv6::HEADER_LEN + usize::from(packet.payload_len())).saturating_sub(l3_len),
            }
        }
        _ => return Err(Unsendable::Headers),
    };
    Ok(network)
}

fn header_checksum(header: &[u8]) -> u16 {
    let (before, after) = (&header[..ipv4::CHECKSUM.start], &header[ipv4::CHECKSUM.end..]);
    Sum::ZERO.bytes(before).bytes(after).checksum()
}

/// What to write at which offset of the transport header, and what to ask for.
fn transport<'a>(
    network: &Network,
    l4: &[u8],
    tail: impl IntoIterator<Item = &'a [u8]>,
    told: bool,
    port: &Capabilities,
) -> Result<(Write, Option<L4>), Unsendable> {
    if network.fragment {
        return Err(Unsendable::Fragment);
    }
    let (at, by_port, with_pseudo) = match (network.protocol, network.ipv6) {
        (IpProtocol::TCP, _) => (tcp::CHECKSUM.start, Some(L4::Tcp).filter(|_| port.tcp), true),
        (IpProtocol::UDP, _) => (udp::CHECKSUM.start, Some(L4::Udp).filter(|_| port.udp), true),
        (IpProtocol::ICMP, false) => (icmp::CHECKSUM.start, None, false),
        (IpProtocol::ICMPV6, true) => (icmp::CHECKSUM.start, None, true),
        _ => return Err(Unsendable::Protocol),
    };
    if l4.len().min(network.l4_len) < at + 2 {
        return Err(Unsendable::Headers);
    }
    // RFC 768: the datagram's own length counts. Ports go by the IP header's.
    let len = match network.protocol {
        IpProtocol::UDP => usize::from(u16::from_be_bytes([l4[4], l4[5]])),
        _ => network.l4_len,
    };
    if len > network.l4_len || len < at + 2 {
        return Err(Unsendable::Headers);
    }
    let pseudo =
        if with_pseudo { network.source_destination.pseudo(network.protocol, len) } else { Sum::ZERO };
    if let Some(by_port) = by_port.filter(|_| told && len == network.l4_len) {
        return Ok((Write { at, value: pseudo.folded() }, Some(by_port)));
    }

    let in_head = &l4[..l4.len().min(len)];
    let mut sum = pseudo.bytes(&in_head[..at]).bytes(&in_head[at + 2..]);
    let mut left = len - in_head.len();
    for segment in tail {
        let segment = &segment[..segment.len().min(left)];
        sum = sum.bytes(segment);
        left -= segment.len();
    }
    if left > 0 {
        return Err(Unsendable::Headers);
    }
    let value = if network.protocol == IpProtocol::UDP { sum.checksum_udp() } else { sum.checksum() };
    Ok((Write { at, value }, None))
}

#[cfg(test)]
#[path = "checksum_tests.rs"]
mod tests;
