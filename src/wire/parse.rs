//! The parser of the packet path: one walk over all headers, each length checked
//! once, offsets out. RFC 894, RFC 791, RFC 8200, RFC 9293, RFC 768.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr};

use crate::wire::ethernet::{self, EtherType, Frame};
use crate::wire::fragment::Fragment;
use crate::wire::{IpProtocol, Malformed, arp, be16, icmp, ipv4, ipv6, tcp, udp, vlan, vrrp};

/// What a frame carries, as far as baton tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// ARP, for Ethernet and IPv4, whole.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Local experimental: baton's heartbeats and handshakes.
    Liveness,
    /// Anything else: spanning tree, LLDP, ...
    Other,
}

/// What is noted of a packet beside its offsets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Notes(pub u8);

impl Notes {
    /// The first fragment of a packet: its transport header is all there.
    pub const FRAGMENT_FIRST: Notes = Notes(0x01);
    /// A later fragment: no transport header.
    pub const FRAGMENT_LATER: Notes = Notes(0x02);
    /// IPv4 options, or IPv6 extension headers.
    pub const OPTIONS: Notes = Notes(0x04);
    /// Sent to a group on the link, everyone included.
    pub const MULTICAST: Notes = Notes(0x08);
    /// Sent to everyone on the link.
    pub const BROADCAST: Notes = Notes(0x10);
    /// Has a VLAN tag, of whatever id.
    pub const TAGGED: Notes = Notes(0x20);

    /// Whether all of `notes` are set.
    pub const fn has(self, notes: Notes) -> bool {
        self.0 & notes.0 == notes.0
    }

    const fn with(self, notes: Notes) -> Notes {
        Notes(self.0 | notes.0)
    }
}

/// Where what is in a packet. All that is said to be there is in the bytes that were
/// parsed: the network header with options or extension headers, and (unless it
/// is a later fragment) the fixed transport header of TCP (with options), UDP, ICMP
/// and ICMPv6; so views of them made unchecked at these offsets are safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Where the transport header begins; for later fragments their data; 0 when not IP.
    pub l4_offset: u16,
    /// Length of transport header and payload, by the IP header, in bytes; 0 when not IP.
    pub l4_len: u16,
    /// The VLAN; 0: none.
    pub vlan: u16,
    /// Length of the link header, VLAN tag included: where the network header begins.
    pub l2_len: u8,
    /// Length of the transport header: TCP's with options, 8 for UDP and ICMP, 0 for others.
    pub l4_header_len: u8,
    /// What the frame carries.
    pub network: Network,
    /// What the packet carries; of no meaning when not IP.
    pub protocol: IpProtocol,
    /// What else is noted.
    pub notes: Notes,
}

const _: () = assert!(size_of::<Parsed>() <= 12, "it lies beside a hash and a shard in a note of 32 bytes");

impl Parsed {
    /// Where the network header begins.
    pub const fn l3_offset(&self) -> usize {
        self.l2_len as usize
    }

    /// Length of the network header with options or extension headers, in bytes.
    pub const fn l3_header_len(&self) -> usize {
        (self.l4_offset as usize).saturating_sub(self.l2_len as usize)
    }

    /// Where the packet ends, by its IP header; bytes beyond are padding.
    pub const fn end(&self) -> usize {
        self.l4_offset as usize + self.l4_len as usize
    }

    /// Where the transport header's payload begins.
    pub const fn payload_offset(&self) -> usize {
        self.l4_offset as usize + self.l4_header_len as usize
    }

    /// Length of the transport header's payload, in bytes.
    pub const fn payload_len(&self) -> usize {
        (self.l4_len as usize).saturating_sub(self.l4_header_len as usize)
    }

    /// Whether it is a fragment, the first included.
    pub const fn is_fragment(&self) -> bool {
        self.notes.0 & (Notes::FRAGMENT_FIRST.0 | Notes::FRAGMENT_LATER.0) != 0
    }

    /// Whether both ports are there: TCP or UDP, and not a later fragment.
    pub const fn has_ports(&self) -> bool {
        matches!(self.protocol, IpProtocol::TCP | IpProtocol::UDP) && self.l4_header_len != 0
    }

    /// Source and destination address, of `head` that was parsed.
    pub fn addresses(&self, head: &[u8]) -> Option<(IpAddr, IpAddr)> {
        let packet = head.get(self.l3_offset()..)?;
        match self.network {
            Network::Ipv4 => {
                let packet = ipv4::Packet::new_unchecked(packet.get(..ipv4::HEADER_LEN)?);
                Some((packet.source().into(), packet.destination().into()))
            }
            Network::Ipv6 => {
                let packet = ipv6::Packet::new_unchecked(packet.get(..ipv6::HEADER_LEN)?);
                Some((packet.source().into(), packet.destination().into()))
            }
            Network::Arp | Network::Liveness | Network::Other => None,
        }
    }

    /// Source and destination port, of `head` that was parsed.
    pub fn ports(&self, head: &[u8]) -> Option<(u16, u16)> {
        let l4 = head.get(usize::from(self.l4_offset)..).filter(|l4| self.has_ports() && l4.len() >= 4)?;
        Some((be16(l4, 0), be16(l4, 2)))
    }
}

/// Parses a packet that is all in `head`.
pub fn parse(head: &[u8]) -> Result<Parsed, Malformed> {
    parse_head(head, head.len())
}

/// Parses the first segment `head` of a packet that is `total_len` bytes long over
/// all its segments.
pub fn parse_head(head: &[u8], total_len: usize) -> Result<Parsed, Malformed> {
    let frame = Frame::new_checked(head)?;
    let mut notes = Notes::default();
    let destination = frame.destination();
    if destination.is_multicast() {
        notes = notes.with(Notes::MULTICAST);
        if destination == ethernet::MacAddress::BROADCAST {
            notes = notes.with(Notes::BROADCAST);
        }
    }
    let mut l2_len = ethernet::HEADER_LEN;
    let mut ethertype = frame.ethertype();
    let mut vlan = 0;
    if ethertype == EtherType::VLAN {
        let tag = vlan::Tag::new_checked(frame.payload())?;
        (vlan, ethertype) = (tag.id(), tag.ethertype());
        l2_len += vlan::HEADER_LEN;
        notes = notes.with(Notes::TAGGED);
    }
    let bytes = &head[l2_len..];
    let available = total_len.max(head.len()) - l2_len;
    let mut parsed = Parsed {
        l4_offset: 0,
        l4_len: 0,
        vlan,
        l2_len: l2_len as u8,
        l4_header_len: 0,
        network: Network::Other,
        protocol: IpProtocol::default(),
        notes,
    };
    match ethertype {
        EtherType::IPV4 => ip_v4(&mut parsed, bytes, available)?,
        EtherType::IPV6 => ip_v6(&mut parsed, bytes, available)?,
        EtherType::ARP => {
            arp::Packet::new_checked(bytes)?;
            parsed.network = Network::Arp;
        }
        EtherType::LOCAL_EXPERIMENTAL => parsed.network = Network::Liveness,
        EtherType::VLAN | EtherType::SERVICE_VLAN => return Err(Malformed::VlanStacked),
        EtherType(_) => {}
    }
    Ok(parsed)
}

fn ip_v4(parsed: &mut Parsed, bytes: &[u8], available: usize) -> Result<(), Malformed> {
    let packet = ipv4::Packet::new_checked_of(bytes, available)?;
    if !ipv4::may_be_source(packet.source()) {
        return Err(Malformed::SourceAddress);
    }
    let header_len = packet.header_len();
    parsed.network = Network::Ipv4;
    parsed.protocol = packet.protocol();
    parsed.l4_offset = parsed.l2_len as u16 + header_len as u16;
    parsed.l4_len = packet.total_len() - header_len as u16;
    if header_len > ipv4::HEADER_LEN {
        parsed.notes = parsed.notes.with(Notes::OPTIONS);
    }
    if packet.is_fragment() {
        let found = Fragment::of_v4(&packet);
        fragment(parsed, &found, header_len)?;
    }
    transport(parsed, &bytes[header_len..])
}

fn ip_v6(parsed: &mut Parsed, bytes: &[u8], available: usize) -> Result<(), Malformed> {
    let packet = ipv6::Packet::new_checked_of(bytes, available)?;
    if !ipv6::may_be_source(packet.source()) {
        return Err(Malformed::SourceAddress);
    }
    let chain = packet.chain()?;
    parsed.network = Network::Ipv6;
    parsed.protocol = chain.protocol;
    parsed.l4_offset = parsed.l2_len as u16 + chain.offset;
    parsed.l4_len = packet.payload_len() - (chain.offset - ipv6::HEADER_LEN as u16);
    if usize::from(chain.offset) > ipv6::HEADER_LEN {
        parsed.notes = parsed.notes.with(Notes::OPTIONS);
    }
    if let Some(header) = chain.fragment.filter(|fragment| !fragment.is_atomic()) {
        let found = Fragment::of_v6(&packet, &header);
        fragment(
            parsed,
            &found,
            usize::from(header.data_offset) - ipv6::HEADER_LEN - ipv6::FRAGMENT_HEADER_LEN,
        )?;
    }
    transport(parsed, &bytes[usize::from(chain.offset)..])
}

/// `around`: bytes of headers that count with the data in the length of the whole packet.
fn fragment(parsed: &mut Parsed, found: &Fragment, around: usize) -> Result<(), Malformed> {
    // RFC 791 section 3.2 and RFC 8200 section 4.5: units of 8 bytes, but for the last one. One without data is of
    // no use, and hosts drop it.
    if found.len == 0 || found.more && found.len % 8 != 0 {
        return Err(Malformed::FragmentLength);
    }
    // RFC 791 section 3.1: the total length, header included; RFC 8200 section 4.5: the payload length.
    if around + usize::from(found.offset) + usize::from(found.len) > usize::from(u16::MAX) {
        return Err(Malformed::FragmentOverrun);
    }
    // RFC 1858 section 3.2.2: a fragment at 8 could overwrite the flags of the first one.
    if found.offset == 8 && parsed.protocol == IpProtocol::TCP {
        return Err(Malformed::FragmentTiny);
    }
    let which = if found.offset == 0 { Notes::FRAGMENT_FIRST } else { Notes::FRAGMENT_LATER };
    parsed.notes = parsed.notes.with(which);
    Ok(())
}

/// `bytes` begin at the transport header and may reach beyond the packet's end, into
/// padding, or end before it, where the first segment does.
fn transport(parsed: &mut Parsed, bytes: &[u8]) -> Result<(), Malformed> {
    if parsed.notes.has(Notes::FRAGMENT_LATER) {
        return Ok(());
    }
    let len = usize::from(parsed.l4_len);
    let bytes = &bytes[..bytes.len().min(len)];
    let first = parsed.notes.has(Notes::FRAGMENT_FIRST);
    let tiny = |malformed| if first { Malformed::FragmentTiny } else { malformed };
    let header_len = match (parsed.protocol, parsed.network) {
        (IpProtocol::TCP, _) => {
            let segment = tcp::Segment::new_checked(bytes).map_err(tiny)?;
            if !segment.flags().are_sane() {
                return Err(Malformed::TcpFlags);
            }
            segment.header_len()
        }
        (IpProtocol::UDP, network) => {
            // The length of a first fragment is that of the whole datagram.
            let available = if first { usize::from(u16::MAX) } else { len };
            let datagram =
                udp::Datagram::new_checked_of(bytes, available).map_err(|malformed| match malformed {
                    Malformed::UdpTruncated => tiny(malformed),
                    other => other,
                })?;
            if network == Network::Ipv6 && datagram.checksum() == 0 {
                return Err(Malformed::UdpChecksumMissing);
            }
            udp::HEADER_LEN
        }
        (IpProtocol::ICMP, Network::Ipv4) if bytes.len() < icmp::HEADER_LEN => {
            return Err(tiny(Malformed::IcmpTruncated));
        }
        (IpProtocol::ICMPV6, Network::Ipv6) if bytes.len() < icmp::HEADER_LEN => {
            return Err(tiny(Malformed::Icmpv6Truncated));
        }
        (IpProtocol::ICMP, Network::Ipv4) | (IpProtocol::ICMPV6, Network::Ipv6) => icmp::HEADER_LEN,
        _ => 0,
    };
    parsed.l4_header_len = header_len as u8;
    Ok(())
}

/// The start of a packet that an ICMP error quotes (RFC 792, RFC 4443 section 3):
/// whatever was cut off, these fields are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// From whom it was.
    pub source: IpAddr,
    /// To whom it was.
    pub destination: IpAddr,
    /// What it carries.
    pub protocol: IpProtocol,
    /// Where its transport header begins, in bytes from the start of the quoted packet.
    pub l4_offset: u16,
    /// Source and destination port of TCP and UDP; identifier of an echo, twice.
    pub ports: (u16, u16),
}

/// Parses a packet quoted in an ICMP error: IPv4 in ICMP, IPv6 in ICMPv6. It needs the
/// headers up to the ports (RFC 792: the first 8 bytes after the IP header are there).
pub fn parse_quoted(network: Network, bytes: &[u8]) -> Result<Quoted, Malformed> {
    let (source, destination, protocol, l4_offset) = match network {
        Network::Ipv4 => {
            let packet = ipv4::Packet::new_checked_of(bytes, usize::MAX)?;
            if packet.fragment_offset() != 0 {
                return Err(Malformed::FragmentTiny);
            }
            let (from, to): (Ipv4Addr, Ipv4Addr) = (packet.source(), packet.destination());
            (IpAddr::V4(from), IpAddr::V4(to), packet.protocol(), packet.header_len() as u16)
        }
        Network::Ipv6 => {
            let packet = ipv6::Packet::new_checked_of(bytes, usize::MAX)?;
            let chain = packet.chain()?;
            if chain.fragment.is_some_and(|fragment| fragment.offset != 0) {
                return Err(Malformed::FragmentTiny);
            }
            (packet.source().into(), packet.destination().into(), chain.protocol, chain.offset)
        }
        Network::Arp | Network::Liveness | Network::Other => return Err(Malformed::IcmpTruncated),
    };
    let l4 = bytes.get(usize::from(l4_offset)..).unwrap_or_default();
    let ports = match protocol {
        IpProtocol::TCP if l4.len() < 8 => return Err(Malformed::TcpTruncated),
        IpProtocol::UDP if l4.len() < 8 => return Err(Malformed::UdpTruncated),
        IpProtocol::TCP | IpProtocol::UDP => (be16(l4, 0), be16(l4, 2)),
        IpProtocol::ICMP | IpProtocol::ICMPV6 if l4.len() < 8 => return Err(Malformed::IcmpTruncated),
        IpProtocol::ICMP | IpProtocol::ICMPV6 => (be16(l4, 4), be16(l4, 4)),
        _ => (0, 0),
    };
    Ok(Quoted { source, destination, protocol, l4_offset, ports })
}

/// A frame as one line for traces: every header that is there.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a>(pub &'a [u8]);

impl fmt::Display for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.0;
        write!(f, "{}", Frame::new_unchecked(head))?;
        let parsed = match parse(head) {
            Ok(parsed) => parsed,
            Err(malformed) => return write!(f, ": {malformed}"),
        };
        if parsed.notes.has(Notes::TAGGED) {
            write!(f, " {}", parsed.vlan)?;
        }
        let l3 = &head[parsed.l3_offset()..];
        match parsed.network {
            Network::Arp => return write!(f, ": {}", arp::Packet::new_unchecked(l3)),
            Network::Ipv4 => write!(f, ": {}", ipv4::Packet::new_unchecked(l3))?,
            Network::Ipv6 => write!(f, ": {}", ipv6::Packet::new_unchecked(l3))?,
            Network::Liveness | Network::Other => return write!(f, " length {}", head.len()),
        }
        if parsed.l4_header_len == 0 && (parsed.protocol != IpProtocol::VRRP || parsed.is_fragment()) {
            return Ok(());
        }
        let l4 = head.get(usize::from(parsed.l4_offset)..parsed.end()).unwrap_or_default();
        match parsed.protocol {
            IpProtocol::TCP => {
                write!(f, ": {}, {} bytes", tcp::Segment::new_unchecked(l4), parsed.payload_len())
            }
            IpProtocol::UDP => write!(f, ": {}", udp::Datagram::new_unchecked(l4)),
            IpProtocol::ICMP => write!(f, ": {}", icmp::Message::new_unchecked(l4)),
            IpProtocol::ICMPV6 => write!(f, ": {}", crate::wire::icmpv6::Message::new_unchecked(l4)),
            IpProtocol::VRRP => write!(f, ": {}", vrrp::Message::new_unchecked(l4)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
