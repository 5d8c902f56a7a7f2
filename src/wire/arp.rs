//! ARP for IPv4 over Ethernet: RFC 826, RFC 5227 (announcements).

use core::fmt;
use core::net::Ipv4Addr;
use core::ops::Range;

use crate::wire::{MacAddress, Malformed, array};

/// Length of a packet, in bytes.
pub const LEN: usize = 28;

const FORMAT: Range<usize> = 0..6;
const OPERATION: Range<usize> = 6..8;
const SENDER_MAC: Range<usize> = 8..14;
const SENDER_IP: Range<usize> = 14..18;
const TARGET_MAC: Range<usize> = 18..24;
const TARGET_IP: Range<usize> = 24..28;

/// Ethernet (1), IPv4 (0x0800), with addresses of 6 and 4 bytes.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// What a packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It asks for the target's MAC.
    Request,
    /// It tells the sender's MAC.
    Reply,
    /// Another; to be ignored.
    Other(u16),
}

view! {
    /// A packet.
    Packet
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// A view of a whole packet for Ethernet and IPv4.
    pub fn new_checked(buffer: T) -> Result<Packet<T>, Malformed> {
        let bytes = buffer.as_ref();
        if bytes.len() < LEN {
            return Err(Malformed::ArpTruncated);
        }
        if bytes[FORMAT] != ETHERNET_IPV4 {
            return Err(Malformed::ArpFormat);
        }
        Ok(Packet { buffer })
    }

    /// What it does.
    pub fn operation(&self) -> Operation {
        match self.be16(OPERATION) {
            1 => Operation::Request,
            2 => Operation::Reply,
            other => Operation::Other(other),
        }
    }

    /// The sender's MAC.
    pub fn sender_mac(&self) -> MacAddress {
        MacAddress(array(self.bytes(), SENDER_MAC.start))
    }

    /// The sender's address; 0.0.0.0 in a probe (RFC 5227 section 2.1.1).
    pub fn sender_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(array(self.bytes(), SENDER_IP.start))
    }

    /// The target's MAC; of no meaning in a request.
    pub fn target_mac(&self) -> MacAddress {
        MacAddress(array(self.bytes(), TARGET_MAC.start))
    }

    /// The target's address.
    pub fn target_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(array(self.bytes(), TARGET_IP.start))
    }

    /// Whether it tells of its sender without being asked: sender and target address are one.
    pub fn is_gratuitous(&self) -> bool {
        self.sender_ip() == self.target_ip()
    }
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// What it does.
    pub operation: Operation,
    /// The sender's MAC.
    pub sender_mac: MacAddress,
    /// The sender's address.
    pub sender_ip: Ipv4Addr,
    /// The target's MAC.
    pub target_mac: MacAddress,
    /// The target's address.
    pub target_ip: Ipv4Addr,
}

impl Repr {
    /// Reads a packet.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Repr {
        Repr {
            operation: packet.operation(),
            sender_mac: packet.sender_mac(),
            sender_ip: packet.sender_ip(),
            target_mac: packet.target_mac(),
            target_ip: packet.target_ip(),
        }
    }

    /// Writes the whole packet; its buffer has at least [`LEN`] bytes.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        let operation = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
            Operation::Other(other) => other,
        };
        packet.put(FORMAT, &ETHERNET_IPV4);
        packet.put(OPERATION, &u16::to_be_bytes(operation));
        packet.put(SENDER_MAC, &self.sender_mac.0);
        packet.put(SENDER_IP, &self.sender_ip.octets());
        packet.put(TARGET_MAC, &self.target_mac.0);
        packet.put(TARGET_IP, &self.target_ip.octets());
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Packet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes().len() < LEN {
            return f.write_str("arp, cut off");
        }
        match self.operation() {
            Operation::Request => write!(f, "arp who has {}? tell {} ", self.target_ip(), self.sender_ip())?,
            Operation::Reply => write!(f, "arp {} is ", self.sender_ip())?,
            Operation::Other(other) => write!(f, "arp operation {other} from {} ", self.sender_ip())?,
        }
        write!(f, "at {}", self.sender_mac())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPR: Repr = Repr {
        operation: Operation::Request,
        sender_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        sender_ip: Ipv4Addr::new(10, 0, 0, 1),
        target_mac: MacAddress::ZERO,
        target_ip: Ipv4Addr::new(10, 0, 0, 2),
    };

    fn bytes(repr: Repr) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        repr.emit(&mut Packet::new_unchecked(&mut bytes[..]));
        bytes
    }

    #[test]
    fn a_packet_is_read_as_it_was_written() {
        for operation in [Operation::Request, Operation::Reply, Operation::Other(9)] {
            let repr = Repr { operation, ..REPR };
            assert_eq!(Repr::parse(&Packet::new_checked(bytes(repr)).unwrap()), repr);
        }
        let packet = Packet::new_checked(bytes(REPR)).unwrap();
        assert_eq!(packet.to_string(), "arp who has 10.0.0.2? tell 10.0.0.1 at 02:00:00:00:00:01");
        assert!(!packet.is_gratuitous());
    }

    #[test]
    fn other_links_and_short_packets_are_refused() {
        assert_eq!(Packet::new_checked([0; 27]).unwrap_err(), Malformed::ArpTruncated);
        for at in 0..6 {
            let mut bytes = bytes(REPR);
            bytes[at] ^= 1;
            assert_eq!(Packet::new_checked(bytes).unwrap_err(), Malformed::ArpFormat, "byte {at}");
        }
    }
}
