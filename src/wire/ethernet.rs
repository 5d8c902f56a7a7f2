//! Ethernet II frames: RFC 894, IEEE 802.3 clause 3; RFC 2464 (IPv6 over
//! Ethernet); RFC 9568 section 7.3 (virtual router MAC addresses).

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use crate::base::limits::PORTS_MAX;
use crate::wire::{Malformed, array};

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 14;

const DESTINATION: Range<usize> = 0..6;
const SOURCE: Range<usize> = 6..12;
const ETHERTYPE: Range<usize> = 12..14;

/// The address of a port on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct MacAddress(pub [u8; 6]);

/// A neighbour's address on the LAN of each own port, by the port's number; `None`: not known there.
pub type PortLinks = [Option<MacAddress>; PORTS_MAX];

impl MacAddress {
    /// Everyone on the link.
    pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);
    /// No address; in ARP: not known.
    pub const ZERO: MacAddress = MacAddress([0; 6]);

    /// The MAC of an IPv4 virtual router (RFC 9568 section 7.3).
    pub const fn virtual_router_v4(virtual_router_id: u8) -> MacAddress {
        MacAddress([0x00, 0x00, 0x5e, 0x00, 0x01, virtual_router_id])
    }

    /// The MAC of an IPv6 virtual router (RFC 9568 section 7.3).
    pub const fn virtual_router_v6(virtual_router_id: u8) -> MacAddress {
        MacAddress([0x00, 0x00, 0x5e, 0x00, 0x02, virtual_router_id])
    }

    /// Where frames to an IPv4 multicast group go (RFC 1112 section 6.4).
    pub const fn multicast_v4(group: Ipv4Addr) -> MacAddress {
        let o = group.octets();
        MacAddress([0x01, 0x00, 0x5e, o[1] & 0x7f, o[2], o[3]])
    }

    /// Where frames to an IPv6 multicast group go (RFC 2464 section 7).
    pub const fn multicast_v6(group: Ipv6Addr) -> MacAddress {
        let o = group.octets();
        MacAddress([0x33, 0x33, o[12], o[13], o[14], o[15]])
    }

    /// Whether it is a group's, broadcast included.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether a port may have it: neither a group's nor all zero.
    pub const fn is_unicast(self) -> bool {
        !self.is_multicast()
            && u64::from_be_bytes([0, 0, self.0[0], self.0[1], self.0[2], self.0[3], self.0[4], self.0[5]])
                != 0
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from(bytes: [u8; 6]) -> MacAddress {
        MacAddress(bytes)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: EtherType = EtherType(0x0800);
    /// ARP.
    pub const ARP: EtherType = EtherType(0x0806);
    /// A VLAN tag follows (IEEE 802.1Q).
    pub const VLAN: EtherType = EtherType(0x8100);
    /// IPv6.
    pub const IPV6: EtherType = EtherType(0x86dd);
    /// A service VLAN tag follows (IEEE 802.1ad).
    pub const SERVICE_VLAN: EtherType = EtherType(0x88a8);
    /// Local experiments (IEEE 802, clause 9.2.3): baton's heartbeats and handshakes.
    pub const LOCAL_EXPERIMENTAL: EtherType = EtherType(0x88b5);
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EtherType::IPV4 => f.write_str("ipv4"),
            EtherType::ARP => f.write_str("arp"),
            EtherType::VLAN => f.write_str("vlan"),
            EtherType::IPV6 => f.write_str("ipv6"),
            EtherType(other) => write!(f, "ethertype {other:#06x}"),
        }
    }
}

view! {
    /// A frame. The check sequence at its end is the port's business.
    Frame
}

impl<T: AsRef<[u8]>> Frame<T> {
    /// A view with a whole header.
    pub fn new_checked(buffer: T) -> Result<Frame<T>, Malformed> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(Malformed::EthernetTruncated);
        }
        Ok(Frame { buffer })
    }

    /// To whom.
    pub fn destination(&self) -> MacAddress {
        MacAddress(array(self.bytes(), DESTINATION.start))
    }

    /// From whom.
    pub fn source(&self) -> MacAddress {
        MacAddress(array(self.bytes(), SOURCE.start))
    }

    /// What it carries; a tag's own type when it is tagged.
    pub fn ethertype(&self) -> EtherType {
        EtherType(self.be16(ETHERTYPE))
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.bytes()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Frame<T> {
    /// Sets to whom.
    pub fn set_destination(&mut self, mac: MacAddress) {
        self.put(DESTINATION, &mac.0);
    }

    /// Sets from whom.
    pub fn set_source(&mut self, mac: MacAddress) {
        self.put(SOURCE, &mac.0);
    }

    /// Sets what it carries.
    pub fn set_ethertype(&mut self, ethertype: EtherType) {
        self.put(ETHERTYPE, &ethertype.0.to_be_bytes());
    }

    /// What follows the header.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Frame<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes().len() < HEADER_LEN {
            return write!(f, "{} bytes", self.bytes().len());
        }
        write!(f, "{} > {} {}", self.source(), self.destination(), self.ethertype())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let mut bytes = [0; 20];
        let mut frame = Frame::new_checked(&mut bytes[..]).unwrap();
        frame.set_destination(MacAddress::BROADCAST);
        frame.set_source(MacAddress([2, 0, 0, 0, 0, 1]));
        frame.set_ethertype(EtherType::ARP);
        frame.payload_mut().fill(7);
        assert_eq!(frame.destination(), MacAddress::BROADCAST);
        assert_eq!(frame.source(), MacAddress([2, 0, 0, 0, 0, 1]));
        assert_eq!(frame.payload(), [7; 6]);
        assert_eq!(frame.to_string(), "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff arp");
    }

    #[test]
    fn thirteen_bytes_are_no_frame() {
        assert_eq!(Frame::new_checked([0; 13]).unwrap_err(), Malformed::EthernetTruncated);
    }

    #[test]
    fn addresses_know_what_they_are() {
        assert!(MacAddress::BROADCAST.is_multicast() && !MacAddress::BROADCAST.is_unicast());
        assert!(!MacAddress::ZERO.is_unicast());
        assert!(MacAddress::virtual_router_v4(51).is_unicast());
        assert_eq!(MacAddress::virtual_router_v6(51).to_string(), "00:00:5e:00:02:33");
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff28, 0x9c5a);
        assert_eq!(MacAddress::multicast_v6(group).to_string(), "33:33:ff:28:9c:5a");
    }
}
