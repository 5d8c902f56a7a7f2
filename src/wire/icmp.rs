//! ICMP: RFC 792, RFC 1122 section 3.2.2, RFC 1191 (path MTU).

use core::fmt;
use core::ops::Range;

use crate::wire::checksum::{Sum, checksum};
use crate::wire::{Malformed, be16};

/// Length of the header: type, code, checksum, and four bytes by type.
pub const HEADER_LEN: usize = 8;

const TYPE: usize = 0;
const CODE: usize = 1;
/// Where the checksum is.
pub const CHECKSUM: Range<usize> = 2..4;
const IDENTIFIER: Range<usize> = 4..6;
const SEQUENCE: Range<usize> = 6..8;
const MTU: Range<usize> = 6..8;

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Type(pub u8);

impl Type {
    /// An echo's answer.
    pub const ECHO_REPLY: Type = Type(0);
    /// The destination cannot be reached; code 4: fragmentation needed.
    pub const UNREACHABLE: Type = Type(3);
    /// Use another gateway.
    pub const REDIRECT: Type = Type(5);
    /// An echo.
    pub const ECHO_REQUEST: Type = Type(8);
    /// The hops were used up, or reassembly took too long.
    pub const TIME_EXCEEDED: Type = Type(11);
    /// A header field is wrong.
    pub const PARAMETER_PROBLEM: Type = Type(12);

    /// Whether it is about another packet, whose start it quotes (RFC 1122 section 3.2.2).
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            Type::UNREACHABLE | Type(4) | Type::REDIRECT | Type::TIME_EXCEEDED | Type::PARAMETER_PROBLEM
        )
    }
}

/// The code of "unreachable" that says: fragmentation needed, but forbidden.
pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;

view! {
    /// A message.
    Message
}

impl<T: AsRef<[u8]>> Message<T> {
    /// A view with a whole header.
    pub fn new_checked(buffer: T) -> Result<Message<T>, Malformed> {
        if buffer.as_ref().len() < HEADER_LEN {
            return Err(Malformed::IcmpTruncated);
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

    /// Whether the checksum is right; the buffer is exactly the message.
    pub fn checksum_is_valid(&self) -> bool {
        Sum::ZERO.bytes(self.bytes()).is_valid()
    }

    /// Of an echo: whose it is.
    pub fn identifier(&self) -> u16 {
        self.be16(IDENTIFIER)
    }

    /// Of an echo: which it is.
    pub fn sequence(&self) -> u16 {
        self.be16(SEQUENCE)
    }

    /// Of "fragmentation needed": the next hop's MTU; 0: unknown (RFC 1191 section 4).
    pub fn next_hop_mtu(&self) -> u16 {
        self.be16(MTU)
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

    /// Sets the next hop's MTU.
    pub fn set_next_hop_mtu(&mut self, mtu: u16) {
        self.put(IDENTIFIER, &[0, 0]);
        self.put(MTU, &mtu.to_be_bytes());
    }

    /// Computes and sets the checksum; the buffer is exactly the message.
    pub fn fill_checksum(&mut self) {
        self.set_checksum(0);
        let value = checksum(self.bytes());
        self.set_checksum(value);
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Message<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes().len() < HEADER_LEN {
            return f.write_str("icmp, cut off");
        }
        match self.kind() {
            Type::ECHO_REQUEST => write!(f, "icmp echo {} {}", self.identifier(), self.sequence()),
            Type::ECHO_REPLY => write!(f, "icmp echo reply {} {}", self.identifier(), self.sequence()),
            Type::UNREACHABLE if self.code() == CODE_FRAGMENTATION_NEEDED => {
                write!(f, "icmp fragmentation needed, mtu {}", be16(self.bytes(), MTU.start))
            }
            Type(kind) => write!(f, "icmp type {kind} code {}", self.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_read_as_it_was_written() {
        let mut bytes = *b"\0\0\0\0\0\0\0\0data!";
        let mut message = Message::new_unchecked(&mut bytes[..]);
        message.set_kind(Type::ECHO_REQUEST, 0);
        message.set_echo(7, 9);
        message.fill_checksum();
        assert!(message.checksum_is_valid());
        assert_eq!(message.to_string(), "icmp echo 7 9");
        assert_eq!(message.payload(), b"data!");
        bytes[9] ^= 1;
        assert!(!Message::new_checked(&bytes[..]).unwrap().checksum_is_valid());
        assert_eq!(Message::new_checked(&bytes[..7]).unwrap_err(), Malformed::IcmpTruncated);
    }

    #[test]
    fn a_path_mtu_is_read_as_it_was_written() {
        let mut bytes = [0xff; 8];
        let mut message = Message::new_unchecked(&mut bytes[..]);
        message.set_kind(Type::UNREACHABLE, CODE_FRAGMENTATION_NEEDED);
        message.set_next_hop_mtu(1400);
        assert_eq!(message.next_hop_mtu(), 1400);
        assert!(message.kind().is_error() && !Type::ECHO_REPLY.is_error());
        assert_eq!(message.to_string(), "icmp fragmentation needed, mtu 1400");
    }
}
