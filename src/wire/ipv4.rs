//! IPv4: RFC 791, RFC 1122 section 3.2, RFC 6864 (identification), RFC 1858 (fragments).

use core::fmt;
use core::net::Ipv4Addr;
use core::ops::Range;

use crate::wire::checksum::{Sum, checksum};
use crate::wire::{IpProtocol, Malformed, array};

/// Length of the header without options, in bytes.
pub const HEADER_LEN: usize = 20;

const VERSION_IHL: usize = 0;
const TRAFFIC_CLASS: usize = 1;
const TOTAL_LEN: Range<usize> = 2..4;
const IDENTIFICATION: Range<usize> = 4..6;
const FRAGMENT: Range<usize> = 6..8;
const TTL: usize = 8;
const PROTOCOL: usize = 9;
/// Where the header's checksum is.
pub const CHECKSUM: Range<usize> = 10..12;
/// Where the source address is.
pub const SOURCE: Range<usize> = 12..16;
/// Where the destination address is.
pub const DESTINATION: Range<usize> = 16..20;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

view! {
    /// A packet.
    Packet
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view whose header and payload are all there; bytes beyond total length are padding.
    pub fn new_checked(buffer: T) -> Result<Packet<T>, Malformed> {
        let available = buffer.as_ref().len();
        Packet::new_checked_of(buffer, available)
    }

    /// As [`Packet::new_checked`], when `buffer` is only the start of `available` bytes: the
    /// header is all in `buffer`, the payload not longer than `available` allows.
    pub fn new_checked_of(buffer: T, available: usize) -> Result<Packet<T>, Malformed> {
        let packet = Packet { buffer };
        let len = packet.bytes().len();
        if len < HEADER_LEN {
            return Err(Malformed::Ipv4Truncated);
        }
        if packet.version() != 4 {
            return Err(Malformed::Ipv4Version);
        }
        let header_len = packet.header_len();
        if header_len < HEADER_LEN || header_len > len {
            return Err(Malformed::Ipv4HeaderLength);
        }
        let total_len = packet.total_len() as usize;
        if total_len < header_len || total_len > available {
            return Err(Malformed::Ipv4TotalLength);
        }
        Ok(packet)
    }

    /// The version field, 4.
    pub fn version(&self) -> u8 {
        self.bytes()[VERSION_IHL] >> 4
    }

    /// Length of the header with options, in bytes.
    pub fn header_len(&self) -> usize {
        usize::from(self.bytes()[VERSION_IHL] & 0x0f) * 4
    }

    /// Differentiated services and congestion notification (RFC 2474, RFC 3168).
    pub fn traffic_class(&self) -> u8 {
        self.bytes()[TRAFFIC_CLASS]
    }

    /// Length of header and payload, in bytes.
    pub fn total_len(&self) -> u16 {
        self.be16(TOTAL_LEN)
    }

    /// What the fragments of one packet share.
    pub fn identification(&self) -> u16 {
        self.be16(IDENTIFICATION)
    }

    /// Whether no router may fragment it.
    pub fn dont_fragment(&self) -> bool {
        self.be16(FRAGMENT) & DONT_FRAGMENT != 0
    }

    /// Whether fragments after this one follow.
    pub fn more_fragments(&self) -> bool {
        self.be16(FRAGMENT) & MORE_FRAGMENTS != 0
    }

    /// Where in the whole payload this fragment begins, in bytes.
    pub fn fragment_offset(&self) -> u16 {
        (self.be16(FRAGMENT) & OFFSET_MASK) << 3
    }

    /// Whether it is a fragment, the first included.
    pub fn is_fragment(&self) -> bool {
        self.be16(FRAGMENT) & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }

    /// Hops left.
    pub fn ttl(&self) -> u8 {
        self.bytes()[TTL]
    }

    /// What it carries.
    pub fn protocol(&self) -> IpProtocol {
        IpProtocol(self.bytes()[PROTOCOL])
    }

    /// The header's checksum.
    pub fn checksum(&self) -> u16 {
        self.be16(CHECKSUM)
    }

    /// Whether the header's checksum is right.
    pub fn checksum_is_valid(&self) -> bool {
        Sum::ZERO.bytes(&self.bytes()[..self.header_len()]).is_valid()
    }

    /// From whom.
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from(array(self.bytes(), SOURCE.start))
    }

    /// To whom.
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from(array(self.bytes(), DESTINATION.start))
    }

    /// The options, padding included.
    pub fn options(&self) -> Options<'_> {
        Options { rest: &self.bytes()[HEADER_LEN..self.header_len()] }
    }

    /// The payload, as much of it as is in the buffer, without padding.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.bytes();
        &bytes[self.header_len()..bytes.len().min(self.total_len() as usize)]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the version to 4 and the header's length in bytes (a multiple of 4, at most 60).
    pub fn set_header_len(&mut self, len: usize) {
        self.buffer.as_mut()[VERSION_IHL] = 0x40 | (len / 4) as u8 & 0x0f;
    }

    /// Sets differentiated services and congestion notification.
    pub fn set_traffic_class(&mut self, value: u8) {
        self.buffer.as_mut()[TRAFFIC_CLASS] = value;
    }

    /// Sets the length of header and payload.
    pub fn set_total_len(&mut self, len: u16) {
        self.put(TOTAL_LEN, &len.to_be_bytes());
    }

    /// Sets the identification.
    pub fn set_identification(&mut self, value: u16) {
        self.put(IDENTIFICATION, &value.to_be_bytes());
    }

    /// Sets what says of fragments: `offset` in bytes, a multiple of 8.
    pub fn set_fragment(&mut self, dont_fragment: bool, more_fragments: bool, offset: u16) {
        let flags = u16::from(dont_fragment) << 14 | u16::from(more_fragments) << 13;
        self.put(FRAGMENT, &(flags | offset >> 3).to_be_bytes());
    }

    /// Sets the hops left.
    pub fn set_ttl(&mut self, value: u8) {
        self.buffer.as_mut()[TTL] = value;
    }

    /// Sets what it carries.
    pub fn set_protocol(&mut self, value: IpProtocol) {
        self.buffer.as_mut()[PROTOCOL] = value.0;
    }

    /// Sets the header's checksum.
    pub fn set_checksum(&mut self, value: u16) {
        self.put(CHECKSUM, &value.to_be_bytes());
    }

    /// Computes and sets the header's checksum.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let value = checksum(&self.bytes()[..self.header_len()]);
        self.set_checksum(value);
    }

    /// Sets from whom.
    pub fn set_source(&mut self, address: Ipv4Addr) {
        self.put(SOURCE, &address.octets());
    }

    /// Sets to whom.
    pub fn set_destination(&mut self, address: Ipv4Addr) {
        self.put(DESTINATION, &address.octets());
    }

    /// The payload, as much of it as is in the buffer, without padding.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.header_len(), self.bytes().len().min(self.total_len() as usize));
        &mut self.buffer.as_mut()[start..end]
    }
}

/// Options of a header, each as its kind and data; ends at the first that is malformed.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        crate::wire::next_option(&mut self.rest)
    }
}

/// A header without options, of a whole packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// From whom.
    pub source: Ipv4Addr,
    /// To whom.
    pub destination: Ipv4Addr,
    /// What it carries.
    pub protocol: IpProtocol,
    /// Length of what it carries, in bytes, at most 65,515.
    pub payload_len: u16,
    /// Hops left.
    pub ttl: u8,
}

impl Repr {
    /// Writes the header, with its checksum. "Don't fragment" is set, so the
    /// identification may be zero (RFC 6864 section 4.1).
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.set_header_len(HEADER_LEN);
        packet.set_traffic_class(0);
        packet.set_total_len(self.payload_len.saturating_add(HEADER_LEN as u16));
        packet.set_identification(0);
        packet.set_fragment(true, false, 0);
        packet.set_ttl(self.ttl);
        packet.set_protocol(self.protocol);
        packet.set_source(self.source);
        packet.set_destination(self.destination);
        packet.fill_checksum();
    }
}

/// Whether a packet may come from this address: not from a group, and not from
/// everyone (RFC 1122 section 3.2.1.3). "This host" (0.0.0.0) may, as DHCP does.
pub const fn may_be_source(address: Ipv4Addr) -> bool {
    !address.is_multicast() && !address.is_broadcast()
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes().len() < HEADER_LEN {
            return f.write_str("ipv4, cut off");
        }
        write!(f, "{} > {} {} ttl {}", self.source(), self.destination(), self.protocol(), self.ttl())?;
        if self.is_fragment() {
            let more = if self.more_fragments() { "+" } else { "" };
            write!(f, " fragment {:#06x}@{}{more}", self.identification(), self.fragment_offset())?;
        }
        write!(f, " length {}", self.total_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPR: Repr = Repr {
        source: Ipv4Addr::new(10, 0, 0, 1),
        destination: Ipv4Addr::new(10, 0, 0, 2),
        protocol: IpProtocol::UDP,
        payload_len: 8,
        ttl: 64,
    };

    fn packet() -> [u8; 28] {
        let mut bytes = [0; 28];
        REPR.emit(&mut Packet::new_unchecked(&mut bytes[..]));
        bytes
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let bytes = packet();
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        assert!(packet.checksum_is_valid() && packet.dont_fragment() && !packet.is_fragment());
        assert_eq!((packet.source(), packet.destination()), (REPR.source, REPR.destination));
        assert_eq!(packet.payload(), [0; 8]);
        assert_eq!(packet.to_string(), "10.0.0.1 > 10.0.0.2 udp ttl 64 length 28");
    }

    #[test]
    fn a_flipped_bit_breaks_the_checksum() {
        let mut bytes = packet();
        bytes[15] ^= 0x10;
        assert!(!Packet::new_checked(&bytes[..]).unwrap().checksum_is_valid());
    }

    #[test]
    fn each_wrong_length_is_refused_with_its_reason() {
        let bytes = packet();
        let refused = |change: fn(&mut [u8; 28]), len: usize| {
            let mut bytes = bytes;
            change(&mut bytes);
            Packet::new_checked(&bytes[..len]).unwrap_err()
        };
        assert_eq!(refused(|_| (), 19), Malformed::Ipv4Truncated);
        assert_eq!(refused(|_| (), 27), Malformed::Ipv4TotalLength);
        assert_eq!(refused(|b| b[0] = 0x65, 28), Malformed::Ipv4Version);
        assert_eq!(refused(|b| b[0] = 0x44, 28), Malformed::Ipv4HeaderLength);
        assert_eq!(refused(|b| b[0] = 0x48, 28), Malformed::Ipv4HeaderLength);
        assert_eq!(refused(|b| b[3] = 19, 28), Malformed::Ipv4TotalLength);
        assert!(Packet::new_checked_of(&bytes[..20], 28).is_ok());
    }

    #[test]
    fn fragments_say_where_they_belong() {
        let mut bytes = packet();
        let mut packet = Packet::new_unchecked(&mut bytes[..]);
        packet.set_fragment(false, true, 1480);
        packet.set_identification(0xbeef);
        assert!(packet.is_fragment() && packet.more_fragments() && !packet.dont_fragment());
        assert_eq!(packet.fragment_offset(), 1480);
        assert_eq!(packet.to_string(), "10.0.0.1 > 10.0.0.2 udp ttl 64 fragment 0xbeef@1480+ length 28");
    }

    #[test]
    fn options_are_walked_and_end_at_a_malformed_one() {
        let mut bytes = packet();
        let mut view = Packet::new_unchecked(&mut bytes[..]);
        view.set_header_len(28);
        // No-op, router alert (RFC 2113), then one that claims more than there is.
        view.put(20..28, &[1, 148, 4, 0, 0, 7, 99, 0]);
        let packet = Packet::new_checked(&bytes[..]).unwrap();
        let options: Vec<_> = packet.options().collect();
        assert_eq!(options, [(148, &[0u8, 0][..])]);
    }
}
