//! IPv6: RFC 8200, RFC 4291 (addresses), RFC 6946 (atomic fragments), RFC 7112
//! (header chains), RFC 5095 (routing header 0).

use core::fmt;
use core::net::Ipv6Addr;
use core::ops::Range;

use crate::base::limits::IPV6_EXTENSIONS_MAX;
use crate::wire::{IpProtocol, MacAddress, Malformed, array, be16, be32};

/// Length of the header without extension headers, in bytes.
pub const HEADER_LEN: usize = 40;

const VERSION_CLASS_LABEL: Range<usize> = 0..4;
const PAYLOAD_LEN: Range<usize> = 4..6;
const NEXT_HEADER: usize = 6;
const HOP_LIMIT: usize = 7;
/// Where the source address is.
pub const SOURCE: Range<usize> = 8..24;
/// Where the destination address is.
pub const DESTINATION: Range<usize> = 24..40;

/// Length of a fragment header, in bytes.
pub const FRAGMENT_HEADER_LEN: usize = 8;

/// All nodes on the link (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group in which a node listens for solicitations of `address` (RFC 4291 section 2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    const PREFIX: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(PREFIX | address.to_bits() & 0x00ff_ffff)
}

/// The link-local address that an interface makes from its link address (RFC 4291 appendix A).
pub const fn link_local(mac: MacAddress) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let [a, b, c, d, e, f] = [a as u16, b as u16, c as u16, d as u16, e as u16, f as u16];
    Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f)
}

view! {
    /// A packet.
    Packet
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view whose header and payload are all there; bytes beyond the payload are padding.
    pub fn new_checked(buffer: T) -> Result<Packet<T>, Malformed> {
        let available = buffer.as_ref().len();
        Packet::new_checked_of(buffer, available)
    }

    /// As [`Packet::new_checked`], when `buffer` is only the start of `available` bytes: the
    /// header is all in `buffer`, the payload not longer than `available` allows.
    pub fn new_checked_of(buffer: T, available: usize) -> Result<Packet<T>, Malformed> {
        let packet = Packet { buffer };
        if packet.bytes().len() < HEADER_LEN {
            return Err(Malformed::Ipv6Truncated);
        }
        if packet.version() != 6 {
            return Err(Malformed::Ipv6Version);
        }
        if HEADER_LEN + usize::from(packet.payload_len()) > available {
            return Err(Malformed::Ipv6PayloadLength);
        }
        Ok(packet)
    }

    /// The version field, 6.
    pub fn version(&self) -> u8 {
        self.bytes()[0] >> 4
    }

    /// Differentiated services and congestion notification.
    pub fn traffic_class(&self) -> u8 {
        (self.be32(VERSION_CLASS_LABEL) >> 20) as u8
    }

    /// The flow label, 20 bits (RFC 6437).
    pub fn flow_label(&self) -> u32 {
        self.be32(VERSION_CLASS_LABEL) & 0x000f_ffff
    }

    /// Length of what follows the header, extension headers included, in bytes.
    pub fn payload_len(&self) -> u16 {
        self.be16(PAYLOAD_LEN)
    }

    /// What follows the header: an extension header, or what it carries.
    pub fn next_header(&self) -> IpProtocol {
        IpProtocol(self.bytes()[NEXT_HEADER])
    }

    /// Hops left.
    pub fn hop_limit(&self) -> u8 {
        self.bytes()[HOP_LIMIT]
    }

    /// From whom.
    pub fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from(array::<16>(self.bytes(), SOURCE.start))
    }

    /// To whom.
    pub fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from(array::<16>(self.bytes(), DESTINATION.start))
    }

    /// What follows the header, as much of it as is in the buffer, without padding.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.bytes();
        &bytes[HEADER_LEN..bytes.len().min(HEADER_LEN + usize::from(self.payload_len()))]
    }

    /// Walks the extension headers.
    pub fn chain(&self) -> Result<Chain, Malformed> {
        let bytes = self.bytes();
        let end = bytes.len().min(HEADER_LEN + usize::from(self.payload_len()));
        walk(&bytes[..end], self.next_header())
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the version to 6, the traffic class and the flow label (its low 20 bits).
    pub fn set_class_and_label(&mut self, traffic_class: u8, flow_label: u32) {
        let word = 6 << 28 | u32::from(traffic_class) << 20 | flow_label & 0x000f_ffff;
        self.put(VERSION_CLASS_LABEL, &word.to_be_bytes());
    }

    /// Sets the length of what follows the header.
    pub fn set_payload_len(&mut self, len: u16) {
        self.put(PAYLOAD_LEN, &len.to_be_bytes());
    }

    /// Sets what follows the header.
    pub fn set_next_header(&mut self, value: IpProtocol) {
        self.buffer.as_mut()[NEXT_HEADER] = value.0;
    }

    /// Sets the hops left.
    pub fn set_hop_limit(&mut self, value: u8) {
        self.buffer.as_mut()[HOP_LIMIT] = value;
    }

    /// Sets from whom.
    pub fn set_source(&mut self, address: Ipv6Addr) {
        self.put(SOURCE, &address.octets());
    }

    /// Sets to whom.
    pub fn set_destination(&mut self, address: Ipv6Addr) {
        self.put(DESTINATION, &address.octets());
    }

    /// What follows the header, as much of it as is in the buffer, without padding.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let end = self.bytes().len().min(HEADER_LEN + usize::from(self.payload_len()));
        &mut self.buffer.as_mut()[HEADER_LEN..end]
    }
}

/// What lies at the end of the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// What the packet carries. In a fragment that is not the first: what the
    /// fragmentable part begins with, perhaps an extension header.
    pub protocol: IpProtocol,
    /// Where that begins, in bytes from the start of the IPv6 header.
    pub offset: u16,
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
}

/// A fragment header (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where in the fragmentable part this fragment begins, in bytes.
    pub offset: u16,
    /// Whether fragments after this one follow.
    pub more: bool,
    /// What the fragments of one packet share.
    pub identification: u32,
    /// Where its data begin, right behind the fragment header, in bytes from the start of the IPv6 header.
    pub data_offset: u16,
}

impl Fragment {
    /// A whole packet that carries a fragment header all the same (RFC 6946).
    pub const fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// Walks the extension headers of `packet` (which ends where the payload ends) from
/// `next` on, a bounded number of them.
fn walk(packet: &[u8], mut next: IpProtocol) -> Result<Chain, Malformed> {
    let mut at = HEADER_LEN;
    let mut fragment = None;
    for _ in 0..=IPV6_EXTENSIONS_MAX {
        let len = match next {
            IpProtocol::HOP_BY_HOP if at != HEADER_LEN => return Err(Malformed::Ipv6HopByHopPlace),
            IpProtocol::HOP_BY_HOP | IpProtocol::DESTINATION_OPTIONS | IpProtocol::ROUTING => {
                // RFC 8200 section 4.2: in units of 8 bytes, the first not counted.
                (usize::from(*packet.get(at + 1).ok_or(Malformed::Ipv6ExtensionTruncated)?) + 1) * 8
            }
            // RFC 4302 section 2.2: in units of 4 bytes, minus 2.
            IpProtocol::AUTHENTICATION => {
                (usize::from(*packet.get(at + 1).ok_or(Malformed::Ipv6ExtensionTruncated)?) + 2) * 4
            }
            IpProtocol::FRAGMENT => FRAGMENT_HEADER_LEN,
            protocol => return Ok(Chain { protocol, offset: at as u16, fragment }),
        };
        let header = packet.get(at..at + len).ok_or(Malformed::Ipv6ExtensionTruncated)?;
        if len < 8 {
            return Err(Malformed::Ipv6ExtensionTruncated);
        }
        // RFC 5095 section 3: type 0 with segments left must be discarded.
        if next == IpProtocol::ROUTING && header[2] == 0 && header[3] != 0 {
            return Err(Malformed::Ipv6RoutingType0);
        }
        let here = next;
        next = IpProtocol(header[0]);
        at += len;
        if here == IpProtocol::FRAGMENT {
            let word = be16(header, 2);
            let found = Fragment {
                offset: word & 0xfff8,
                more: word & 1 != 0,
                identification: be32(header, 4),
                data_offset: at as u16,
            };
            fragment = Some(found);
            if found.offset != 0 {
                return Ok(Chain { protocol: next, offset: at as u16, fragment });
            }
        }
    }
    Err(Malformed::Ipv6ExtensionsTooMany)
}

/// A header without extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// From whom.
    pub source: Ipv6Addr,
    /// To whom.
    pub destination: Ipv6Addr,
    /// What it carries.
    pub protocol: IpProtocol,
    /// Length of what it carries, in bytes.
    pub payload_len: u16,
    /// Hops left.
    pub hop_limit: u8,
}

impl Repr {
    /// Writes the header.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.set_class_and_label(0, 0);
        packet.set_payload_len(self.payload_len);
        packet.set_next_header(self.protocol);
        packet.set_hop_limit(self.hop_limit);
        packet.set_source(self.source);
        packet.set_destination(self.destination);
    }
}

/// Whether a packet may come from this address: not from a group (RFC 4291 section 2.7).
pub const fn may_be_source(address: Ipv6Addr) -> bool {
    !address.is_multicast()
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes().len() < HEADER_LEN {
            return f.write_str("ipv6, cut off");
        }
        write!(f, "{} > {} ", self.source(), self.destination())?;
        match self.chain() {
            Ok(chain) => {
                write!(f, "{}", chain.protocol)?;
                if let Some(fragment) = chain.fragment {
                    let more = if fragment.more { "+" } else { "" };
                    write!(f, " fragment {:#010x}@{}{more}", fragment.identification, fragment.offset)?;
                }
            }
            Err(malformed) => write!(f, "({malformed})")?,
        }
        write!(f, " hops {} length {}", self.hop_limit(), self.payload_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(next: IpProtocol, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        let repr = Repr {
            source: Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1),
            destination: Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2),
            protocol: next,
            payload_len: payload.len() as u16,
            hop_limit: 64,
        };
        repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
        bytes.extend(payload);
        bytes
    }

    fn chain(next: IpProtocol, payload: &[u8]) -> Result<Chain, Malformed> {
        Packet::new_checked(&packet(next, payload)[..])?.chain()
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let mut bytes = packet(IpProtocol::TCP, &[0; 20]);
        Packet::new_unchecked(&mut bytes[..]).set_class_and_label(0xb8, 0xabcde);
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        assert_eq!((packet.version(), packet.traffic_class(), packet.flow_label()), (6, 0xb8, 0xabcde));
        assert_eq!(packet.payload().len(), 20);
        assert_eq!(packet.to_string(), "fd01::1 > fd01::2 tcp hops 64 length 20");
    }

    #[test]
    fn wrong_lengths_and_versions_are_refused() {
        let mut bytes = packet(IpProtocol::TCP, &[0; 20]);
        assert_eq!(Packet::new_checked(&bytes[..39]).unwrap_err(), Malformed::Ipv6Truncated);
        assert_eq!(Packet::new_checked(&bytes[..59]).unwrap_err(), Malformed::Ipv6PayloadLength);
        assert!(Packet::new_checked_of(&bytes[..40], 60).is_ok());
        bytes[0] = 0x45;
        assert_eq!(Packet::new_checked(&bytes[..]).unwrap_err(), Malformed::Ipv6Version);
    }

    #[test]
    fn extension_headers_are_walked_to_what_is_carried() {
        let mut payload = vec![60, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop
        payload.extend([43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // destination options
        payload.extend([51, 0, 4, 1, 0, 0, 0, 0]); // routing, type 4
        payload.extend([6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // authentication
        let found = chain(IpProtocol::HOP_BY_HOP, &payload).unwrap();
        assert_eq!(found, Chain { protocol: IpProtocol::TCP, offset: 40 + 8 + 16 + 8 + 12, fragment: None });
    }

    #[test]
    fn a_later_fragment_ends_the_walk() {
        let fragment = [60, 0, 0x05, 0xa9, 0xde, 0xad, 0xbe, 0xef, 0xff, 0xff];
        let found = chain(IpProtocol::FRAGMENT, &fragment).unwrap();
        assert_eq!((found.protocol, found.offset), (IpProtocol::DESTINATION_OPTIONS, 48));
        let (offset, identification) = (1448, 0xdead_beef);
        assert_eq!(found.fragment, Some(Fragment { offset, more: true, identification, data_offset: 48 }));
    }

    #[test]
    fn a_first_fragment_is_walked_further() {
        let fragment = [17, 0, 0, 1, 0, 0, 0, 1];
        let found = chain(IpProtocol::FRAGMENT, &fragment).unwrap();
        assert_eq!((found.protocol, found.offset), (IpProtocol::UDP, 48));
        let atomic = chain(IpProtocol::FRAGMENT, &[17, 0, 0, 0, 0, 0, 0, 1]).unwrap();
        assert!(atomic.fragment.unwrap().is_atomic());
    }

    #[test]
    fn bad_chains_are_refused_with_their_reason() {
        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let mut many: Vec<u8> = options(60).repeat(IPV6_EXTENSIONS_MAX);
        many.extend(options(6));
        assert_eq!(chain(IpProtocol::DESTINATION_OPTIONS, &many), Err(Malformed::Ipv6ExtensionsTooMany));
        assert!(chain(IpProtocol::DESTINATION_OPTIONS, &many[8..]).is_ok());
        assert_eq!(
            chain(IpProtocol::DESTINATION_OPTIONS, &options(0)),
            Err(Malformed::Ipv6HopByHopPlace),
            "hop-by-hop options second"
        );
        assert_eq!(
            chain(IpProtocol::HOP_BY_HOP, &[6, 1, 0, 0, 0, 0, 0, 0]),
            Err(Malformed::Ipv6ExtensionTruncated)
        );
        assert_eq!(chain(IpProtocol::HOP_BY_HOP, &[]), Err(Malformed::Ipv6ExtensionTruncated));
        assert_eq!(chain(IpProtocol::FRAGMENT, &[6, 0, 0, 0]), Err(Malformed::Ipv6ExtensionTruncated));
        assert_eq!(chain(IpProtocol::ROUTING, &[6, 0, 0, 1, 0, 0, 0, 0]), Err(Malformed::Ipv6RoutingType0));
        assert!(chain(IpProtocol::ROUTING, &[6, 0, 0, 0, 0, 0, 0, 0]).is_ok());
    }

    #[test]
    fn a_solicited_node_group_holds_the_last_24_bits() {
        let address = "4037::1:800:200e:8c6c".parse().unwrap();
        assert_eq!(solicited_node(address).to_string(), "ff02::1:ff0e:8c6c");
    }
}
