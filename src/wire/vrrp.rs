//! VRRP version 3: RFC 9568, section 5.2 for the message and section 7.1 for what a receiver checks.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use crate::base::limits::VRRP_ADDRESSES_MAX;
use crate::wire::checksum::Sum;
use crate::wire::{IpProtocol, Malformed, array};

/// Length of what stands before the addresses, in bytes.
pub const HEADER_LEN: usize = 8;
/// The TTL or hop limit that proves that no router forwarded it (RFC 9568 sections 5.1.1.3 and 5.1.2.3).
pub const HOP_LIMIT: u8 = 255;
/// To whom it is sent over IPv4 (RFC 9568 section 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// To whom it is sent over IPv6 (RFC 9568 section 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// The priority of a router that ceases to lead (RFC 9568 section 5.2.4).
pub const PRIORITY_RESIGNS: u8 = 0;

const VERSION_TYPE: usize = 0;
const VIRTUAL_ROUTER_ID: usize = 1;
const PRIORITY: usize = 2;
const COUNT: usize = 3;
const INTERVAL: Range<usize> = 4..6;
const CHECKSUM: Range<usize> = 6..8;

const VERSION: u8 = 3;
/// The one type that there is (RFC 9568 section 5.2.2).
const ADVERTISEMENT: u8 = 1;
/// The bits of the interval; the four above them are reserved.
const INTERVAL_BITS: u16 = 0x0fff;

const _: () = assert!(VRRP_ADDRESSES_MAX <= u8::MAX as usize);

/// What the checksum over IPv4 covers: RFC 5798 section 5.2.8 is read in two ways. Over IPv6 there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4Checksum {
    /// The message and a pseudo header: how most programs read RFC 5798.
    PseudoHeader,
    /// The message alone: RFC 9568 section 5.2.8.
    Message,
}

view! {
    /// A message.
    Message
}

impl<T: AsRef<[u8]>> Message<T> {
    /// A view with a whole header; the addresses may be cut off.
    pub fn new_checked(buffer: T) -> Result<Message<T>, Malformed> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(Malformed::VrrpTruncated);
        }
        Ok(Message { buffer })
    }

    /// The protocol's version.
    pub fn version(&self) -> u8 {
        self.bytes()[VERSION_TYPE] >> 4
    }

    /// What kind of message it is; 1: an advertisement.
    pub fn kind(&self) -> u8 {
        self.bytes()[VERSION_TYPE] & 0x0f
    }

    /// Which virtual router it is about.
    pub fn virtual_router_id(&self) -> u8 {
        self.bytes()[VIRTUAL_ROUTER_ID]
    }

    /// The sender's priority.
    pub fn priority(&self) -> u8 {
        self.bytes()[PRIORITY]
    }

    /// How many addresses follow.
    pub fn count(&self) -> u8 {
        self.bytes()[COUNT]
    }

    /// Between two advertisements, in hundredths of a second.
    pub fn interval_cs(&self) -> u16 {
        self.be16(INTERVAL) & INTERVAL_BITS
    }

    /// The checksum.
    pub fn checksum(&self) -> u16 {
        self.be16(CHECKSUM)
    }

    /// How long a message with so many addresses is, in bytes.
    fn whole_len(&self, ipv6: bool) -> usize {
        HEADER_LEN + usize::from(self.count()) * address_len(ipv6)
    }

    /// The addresses, as far as they are there.
    pub fn addresses(&self, ipv6: bool) -> impl Iterator<Item = IpAddr> {
        let end = self.whole_len(ipv6).min(self.bytes().len());
        self.bytes()[HEADER_LEN..end].chunks_exact(address_len(ipv6)).map(move |bytes| match ipv6 {
            false => IpAddr::from(array::<4>(bytes, 0)),
            true => IpAddr::from(array::<16>(bytes, 0)),
        })
    }

    /// Whether the checksum is right, over IPv4 in either reading; the buffer is exactly the message.
    pub fn checksum_is_valid(&self, source: IpAddr, destination: IpAddr) -> bool {
        [Ipv4Checksum::PseudoHeader, Ipv4Checksum::Message]
            .into_iter()
            .any(|covers| self.sum(source, destination, covers).is_valid())
    }

    fn sum(&self, source: IpAddr, destination: IpAddr, covers: Ipv4Checksum) -> Sum {
        let (bytes, protocol) = (self.bytes(), IpProtocol::VRRP);
        let len = bytes.len();
        let pseudo = match (source, destination, covers) {
            (IpAddr::V6(source), IpAddr::V6(destination), _) => {
                Sum::ZERO.pseudo_v6(source, destination, protocol, len as u32)
            }
            (IpAddr::V4(source), IpAddr::V4(destination), Ipv4Checksum::PseudoHeader) => {
                Sum::ZERO.pseudo_v4(source, destination, protocol, len as u16)
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _, _) => Sum::ZERO,
        };
        pseudo.bytes(bytes)
    }
}

/// Length of an address, in bytes.
pub const fn address_len(ipv6: bool) -> usize {
    if ipv6 { 16 } else { 4 }
}

/// How many addresses fit into one message, in a packet of at most `mtu` bytes whose network header has `header_len`. The
/// RFC knows no second message: what does not fit is not named.
pub const fn addresses_max(mtu: u16, header_len: usize, ipv6: bool) -> usize {
    let fit = (mtu as usize).saturating_sub(header_len + HEADER_LEN) / address_len(ipv6);
    if fit < VRRP_ADDRESSES_MAX { fit } else { VRRP_ADDRESSES_MAX }
}

/// An advertisement, but for its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// Which virtual router it is about.
    pub virtual_router_id: u8,
    /// The sender's priority; 0: it ceases to lead.
    pub priority: u8,
    /// Between two advertisements, in hundredths of a second, at most 4,095.
    pub interval_cs: u16,
}

impl Repr {
    /// Reads an advertisement, of which `message` is all that the packet around it carries; checks what RFC 9568 section
    /// 7.1 tells every receiver to check, in its order.
    pub fn parse(
        message: &[u8],
        source: IpAddr,
        destination: IpAddr,
        hop_limit: u8,
    ) -> Result<Repr, Malformed> {
        if hop_limit != HOP_LIMIT {
            return Err(Malformed::VrrpHopLimit);
        }
        let view = Message::new_checked(message)?;
        if view.version() != VERSION {
            return Err(Malformed::VrrpVersion);
        }
        if view.kind() != ADVERTISEMENT {
            return Err(Malformed::VrrpType);
        }
        if message.len() < view.whole_len(source.is_ipv6()) {
            return Err(Malformed::VrrpTruncated);
        }
        if !view.checksum_is_valid(source, destination) {
            return Err(Malformed::VrrpChecksum);
        }
        // Section 5.2.5.
        if view.count() == 0 {
            return Err(Malformed::VrrpCount);
        }
        Ok(Repr {
            virtual_router_id: view.virtual_router_id(),
            priority: view.priority(),
            interval_cs: view.interval_cs(),
        })
    }

    /// Writes an advertisement of addresses, all of one family, with its checksum, into exactly as many bytes as it has.
    pub fn emit(
        &self,
        bytes: &mut [u8],
        source: IpAddr,
        destination: IpAddr,
        addresses: &[IpAddr],
        covers: Ipv4Checksum,
    ) {
        bytes[VERSION_TYPE] = VERSION << 4 | ADVERTISEMENT;
        bytes[VIRTUAL_ROUTER_ID] = self.virtual_router_id;
        bytes[PRIORITY] = self.priority;
        bytes[COUNT] = addresses.len() as u8;
        bytes[INTERVAL].copy_from_slice(&(self.interval_cs & INTERVAL_BITS).to_be_bytes());
        bytes[CHECKSUM].fill(0);
        let places = bytes[HEADER_LEN..].chunks_exact_mut(address_len(source.is_ipv6()));
        for (place, address) in places.zip(addresses) {
            match address {
                IpAddr::V4(address) => place.copy_from_slice(&address.octets()),
                IpAddr::V6(address) => place.copy_from_slice(&address.octets()),
            }
        }
        let checksum = Message::new_unchecked(&*bytes).sum(source, destination, covers).checksum();
        bytes[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes().len() < HEADER_LEN {
            return f.write_str("vrrp, cut off");
        }
        write!(
            f,
            "vrrp {} router {} priority {} ",
            self.version(),
            self.virtual_router_id(),
            self.priority()
        )?;
        write!(f, "each {} cs, {} addresses", self.interval_cs(), self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fixtures::{VRRP_V4, VRRP_V6, bytes};
    use crate::wire::parse::{Trace, parse};

    const REPR: Repr = Repr { virtual_router_id: 51, priority: 200, interval_cs: 100 };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn v4() -> (IpAddr, IpAddr, Vec<IpAddr>) {
        (ip("10.1.0.2"), GROUP_V4.into(), vec![ip("10.1.0.100"), ip("10.1.0.101")])
    }

    fn v6() -> (IpAddr, IpAddr, Vec<IpAddr>) {
        (ip("fe80::1"), GROUP_V6.into(), vec![ip("fe80::200:5eff:fe00:233"), ip("fd01::100")])
    }

    fn emitted(repr: Repr, packet: &(IpAddr, IpAddr, Vec<IpAddr>), covers: Ipv4Checksum) -> Vec<u8> {
        let (source, destination, addresses) = packet;
        let mut bytes = vec![0xff; HEADER_LEN + addresses.len() * address_len(source.is_ipv6())];
        repr.emit(&mut bytes, *source, *destination, addresses, covers);
        bytes
    }

    /// A message of the IPv4 sample, changed, and with a checksum that is right again.
    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<Repr, Malformed> {
        let (source, destination, _) = v4();
        let mut bytes = emitted(REPR, &v4(), Ipv4Checksum::PseudoHeader);
        change(&mut bytes);
        bytes[CHECKSUM].fill(0);
        let sum = Message::new_unchecked(&bytes[..]).sum(source, destination, Ipv4Checksum::PseudoHeader);
        bytes[CHECKSUM].copy_from_slice(&sum.checksum().to_be_bytes());
        Repr::parse(&bytes, source, destination, HOP_LIMIT)
    }

    #[test]
    fn messages_are_as_scapy_makes_them() {
        for (fixture, packet) in [(VRRP_V4, v4()), (VRRP_V6, v6())] {
            let frame = bytes(fixture);
            let parsed = parse(&frame).unwrap();
            let message = &frame[usize::from(parsed.l4_offset)..parsed.end()];
            assert_eq!(emitted(REPR, &packet, Ipv4Checksum::PseudoHeader), message);
            assert_eq!(Repr::parse(message, packet.0, packet.1, HOP_LIMIT), Ok(REPR));
            let view = Message::new_checked(message).unwrap();
            assert_eq!(view.addresses(packet.0.is_ipv6()).collect::<Vec<_>>(), packet.2);
        }
        assert_eq!(
            Trace(&bytes(VRRP_V4)).to_string().rsplit(": ").next(),
            Some("vrrp 3 router 51 priority 200 each 100 cs, 2 addresses")
        );
    }

    /// RFC 9568 section 5.2.8: over IPv4 the message alone, over IPv6 with a pseudo header.
    #[test]
    fn both_readings_of_the_checksum_over_ipv4_are_accepted_and_one_over_ipv6() {
        let both = [Ipv4Checksum::PseudoHeader, Ipv4Checksum::Message];
        let [a, b] = both.map(|covers| emitted(REPR, &v4(), covers));
        assert_ne!(a, b);
        for message in [a, b] {
            assert_eq!(Repr::parse(&message, v4().0, v4().1, HOP_LIMIT), Ok(REPR));
        }
        let [a, b] = both.map(|covers| emitted(REPR, &v6(), covers));
        assert_eq!(a, b);
        let alone = crate::wire::checksum::checksum(&[&a[..6], &[0, 0], &a[8..]].concat());
        let message = [&a[..6], &alone.to_be_bytes(), &a[8..]].concat();
        assert_eq!(Repr::parse(&message, v6().0, v6().1, HOP_LIMIT), Err(Malformed::VrrpChecksum));
    }

    #[test]
    fn each_check_of_section_7_1_has_its_reason() {
        let (source, destination, _) = v4();
        let good = emitted(REPR, &v4(), Ipv4Checksum::Message);
        let parse = |message: &[u8], hops| Repr::parse(message, source, destination, hops);
        assert_eq!(parse(&good, 254), Err(Malformed::VrrpHopLimit));
        for len in 0..good.len() {
            assert_eq!(parse(&good[..len], HOP_LIMIT), Err(Malformed::VrrpTruncated), "{len} bytes");
        }
        for at in 2..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let expected = if at == COUNT { Malformed::VrrpTruncated } else { Malformed::VrrpChecksum };
            assert_eq!(parse(&bad, HOP_LIMIT), Err(expected), "byte {at}");
        }
        assert_eq!(changed(|bytes| bytes[VERSION_TYPE] = 0x21), Err(Malformed::VrrpVersion));
        assert_eq!(changed(|bytes| bytes[VERSION_TYPE] = 0x32), Err(Malformed::VrrpType));
        assert_eq!(changed(|bytes| bytes[COUNT] = 0), Err(Malformed::VrrpCount));
        // Reserved bits are no part of the interval; what follows the addresses is summed, and nothing else.
        assert_eq!(changed(|bytes| bytes[INTERVAL.start] |= 0xf0), Ok(REPR));
        assert_eq!(changed(|bytes| bytes.extend([1, 2])), Ok(REPR));
    }

    #[test]
    fn as_many_addresses_as_the_count_and_the_packet_hold() {
        assert_eq!(addresses_max(1500, 20, false), 255);
        assert_eq!(addresses_max(1500, 40, true), 90);
        assert_eq!(addresses_max(9000, 40, true), 255);
        assert_eq!(addresses_max(20, 40, true), 0);
    }
}
