//! ICMPv6: RFC 4443, RFC 8201 (path MTU). Neighbour discovery is in `ndp`.

use core::fmt;
use core::net::Ipv6Addr;
use core::ops::Range;

use crate::wire::checksum::Sum;
use crate::wire::{IpProtocol, Malformed};

/// Length of the header: type, code, checksum, and four bytes by type.
pub const HEADER_LEN: usize = 8;

const TYPE: usize = 0;
const CODE: usize = 1;
/// Where the checksum is.
pub const CHECKSUM: Range<usize> = 2..4;
const IDENTIFIER: Range<usize> = 4..6;
const SEQUENCE: Range<usize> = 6..8;
const MTU: Range<usize> = 4..8;

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Type(pub u8);

impl Type {
    /// The destination cannot be reached.
    pub const UNREACHABLE: Type = Type(1);
    /// The packet is larger than the next link's MTU.
    pub const PACKET_TOO_BIG: Type = Type(2);
    /// The hops were used up, or reassembly took too long.
    pub const TIME_EXCEEDED: Type = Type(3);
    /// A header field is wrong.
    pub const PARAMETER_PROBLEM: Type = Type(4);
    /// An echo.
    pub const ECHO_REQUEST: Type = Type(128);
    /// An echo's answer.
    pub const ECHO_REPLY: Type = Type(129);
    /// RFC 4861 section 4.1.
    pub const ROUTER_SOLICITATION: Type = Type(133);
    /// RFC 4861 section 4.2.
    pub const ROUTER_ADVERTISEMENT: Type = Type(134);
    /// RFC 4861 section 4.3.
    pub const NEIGHBOUR_SOLICITATION: Type = Type(135);
    /// RFC 4861 section 4.4.
    pub const NEIGHBOUR_ADVERTISEMENT: Type = Type(136);
    /// RFC 4861 section 4.5.
    pub const REDIRECT: Type = Type(137);

    /// Whether it is about another packet, whose start it quotes (RFC 4443 section 2.1).
    pub const fn is_error(self) -> bool {
        self.0 < 128
    }
}

view! {
    /// A message.
    Message
}

impl<T: AsRef<[u8]>> Message<T> {
    /// A view with a whole header.
    pub fn new_checked(buffer: T) -> Result<Message<T>, Malformed> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(Malformed::Icmpv6Truncated);
        }
        Ok(Message { buffer })
    }

    /// Its type.
    pub fn kind(&self) -> Type {
        Type(self.bytes()[TYPE])
    }

    /// Its code, by type.
    pub fn code(&self) -> u8 {
        self.bytes()[CODE]
    }

    /// The checksum.
    pub fn checksum(&self) -> u16 {
        self.be16(CHECKSUM)
    }

    /// Whether the checksum is right (RFC 4443 section 2.3); the buffer is exactly the message.
    pub fn checksum_is_valid(&self, source: Ipv6Addr, destination: Ipv6Addr) -> bool {
        self.sum(source, destination).is_valid()
    }

    fn sum(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Sum {
        let bytes = self.bytes();
        Sum::ZERO.pseudo_v6(source, destination, IpProtocol::ICMPV6, bytes.len() as u32).bytes(bytes)
    }

    /// Of an echo: whose it is.
    pub fn identifier(&self) -> u16 {
        self.be16(IDENTIFIER)
    }

    /// Of an echo: which it is.
    pub fn sequence(&self) -> u16 {
        self.be16(SEQUENCE)
    }

    /// Of "packet too big": the next link's MTU.
    pub fn mtu(&self) -> u32 {
        self.be32(MTU)
    }

    /// What follows the header: an echo's data, the packet an error is about.
    pub fn payload(&self) -> &[u8] {
        &self.bytes()[HEADER_LEN..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Message<T> {
    /// Sets type and code.
    pub fn set_kind(&mut self, kind: Type, code: u8) {
        self.put(TYPE..CODE + 1, &[kind.0, code]);
    }

    /// Sets the checksum.
    pub fn set_checksum(&mut self, value: u16) {
        self.put(CHECKSUM, &value.to_be_bytes());
    }

    /// Sets an echo's identifier and sequence number.
    pub fn set_echo(&mut self, identifier: u16, sequence: u16) {
        self.put(IDENTIFIER, &identifier.to_be_bytes());
        self.put(SEQUENCE, &sequence.to_be_bytes());
    }

    /// Sets the next link's MTU.
    pub fn set_mtu(&mut self, mtu: u32) {
        self.put(MTU, &mtu.to_be_bytes());
    }

    /// Computes and sets the checksum; the buffer is exactly the message.
    pub fn fill_checksum(&mut self, source: Ipv6Addr, destination: Ipv6Addr) {
        self.set_checksum(0);
        let value = self.sum(source, destination).checksum();
        self.set_checksum(value);
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes().len() < HEADER_LEN {
            return f.write_str("icmpv6, cut off");
        }
        match self.kind() {
            Type::ECHO_REQUEST => write!(f, "icmpv6 echo {} {}", self.identifier(), self.sequence()),
            Type::ECHO_REPLY => write!(f, "icmpv6 echo reply {} {}", self.identifier(), self.sequence()),
            Type::PACKET_TOO_BIG => write!(f, "icmpv6 packet too big, mtu {}", self.mtu()),
            Type::NEIGHBOUR_SOLICITATION | Type::NEIGHBOUR_ADVERTISEMENT => {
                match crate::wire::ndp::Repr::parse(self) {
                    Ok(repr) => write!(f, "{repr}"),
                    Err(malformed) => write!(f, "ndp: {malformed}"),
                }
            }
            Type(kind) => write!(f, "icmpv6 type {kind} code {}", self.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_read_as_it_was_written() {
        let (a, b) = ("fd01::1".parse().unwrap(), "fd01::2".parse().unwrap());
        let mut bytes = *b"\0\0\0\0\0\0\0\0data!";
        let mut message = Message::new_unchecked(&mut bytes[..]);
        message.set_kind(Type::ECHO_REQUEST, 0);
        message.set_echo(7, 9);
        message.fill_checksum(a, b);
        assert!(message.checksum_is_valid(a, b));
        assert!(!message.checksum_is_valid(a, "fd01::3".parse().unwrap()), "the addresses are covered");
        assert_eq!(message.to_string(), "icmpv6 echo 7 9");
        assert_eq!(message.payload(), b"data!");
        assert_eq!(Message::new_checked(&bytes[..7]).unwrap_err(), Malformed::Icmpv6Truncated);
    }

    #[test]
    fn a_path_mtu_is_read_as_it_was_written() {
        let mut bytes = [0; 8];
        let mut message = Message::new_unchecked(&mut bytes[..]);
        message.set_kind(Type::PACKET_TOO_BIG, 0);
        message.set_mtu(1280);
        assert!(message.kind().is_error() && !Type::ECHO_REQUEST.is_error());
        assert_eq!(message.to_string(), "icmpv6 packet too big, mtu 1280");
    }
}
