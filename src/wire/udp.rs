//! UDP: RFC 768, RFC 8200 section 8.1 (the checksum over IPv6).

use core::fmt;
use core::ops::Range;

use crate::wire::Malformed;

/// Length of the header, in bytes.
pub const HEADER_LEN: usize = 8;

/// Where the source port is.
pub const SOURCE_PORT: Range<usize> = 0..2;
/// Where the destination port is.
pub const DESTINATION_PORT: Range<usize> = 2..4;
const LENGTH: Range<usize> = 4..6;
/// Where the checksum is.
pub const CHECKSUM: Range<usize> = 6..8;

view! {
    /// A datagram.
    Datagram
}

impl<T: AsRef<[u8]>> Datagram<T> {
    /// A view whose header and payload are all there.
    pub fn new_checked(buffer: T) -> Result<Datagram<T>, Malformed> {
        let available = buffer.as_ref().len();
        Datagram::new_checked_of(buffer, available)
    }

    /// As [`Datagram::new_checked`], when `buffer` is only the start of `available` bytes.
    pub fn new_checked_of(buffer: T, available: usize) -> Result<Datagram<T>, Malformed> {
        let datagram = Datagram { buffer };
        if datagram.bytes().len() < HEADER_LEN {
            return Err(Malformed::UdpTruncated);
        }
        let len = usize::from(datagram.length());
        if len < HEADER_LEN || len > available {
            return Err(Malformed::UdpLength);
        }
        Ok(datagram)
    }

    /// The port it comes from.
    pub fn source_port(&self) -> u16 {
        self.be16(SOURCE_PORT)
    }

    /// The port it goes to.
    pub fn destination_port(&self) -> u16 {
        self.be16(DESTINATION_PORT)
    }

    /// Length of header and payload, in bytes.
    pub fn length(&self) -> u16 {
        self.be16(LENGTH)
    }

    /// The checksum; zero: none, which only IPv4 allows.
    pub fn checksum(&self) -> u16 {
        self.be16(CHECKSUM)
    }

    /// The payload, as much of it as is in the buffer.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.bytes();
        &bytes[HEADER_LEN..bytes.len().min(usize::from(self.length())).max(HEADER_LEN)]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Datagram<T> {
    /// Sets the port it comes from.
    pub fn set_source_port(&mut self, port: u16) {
        self.put(SOURCE_PORT, &port.to_be_bytes());
    }

    /// Sets the port it goes to.
    pub fn set_destination_port(&mut self, port: u16) {
        self.put(DESTINATION_PORT, &port.to_be_bytes());
    }

    /// Sets the length of header and payload.
    pub fn set_length(&mut self, len: u16) {
        self.put(LENGTH, &len.to_be_bytes());
    }

    /// Sets the checksum: from [`crate::wire::checksum::Sum::checksum_udp`] or
    /// [`crate::wire::checksum::Delta::apply_udp`].
    pub fn set_checksum(&mut self, value: u16) {
        self.put(CHECKSUM, &value.to_be_bytes());
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Datagram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes().len() < HEADER_LEN {
            return f.write_str("udp, cut off");
        }
        write!(f, "udp {} > {} length {}", self.source_port(), self.destination_port(), self.length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_as_it_was_written() {
        let mut bytes = [0; 12];
        let mut datagram = Datagram::new_unchecked(&mut bytes[..]);
        datagram.set_source_port(5353);
        datagram.set_destination_port(53);
        datagram.set_length(11);
        datagram.set_checksum(0x1234);
        let datagram = Datagram::new_checked(&bytes[..]).unwrap();
        assert_eq!(datagram.checksum(), 0x1234);
        assert_eq!(datagram.payload(), [0; 3], "the twelfth byte is not of the datagram");
        assert_eq!(datagram.to_string(), "udp 5353 > 53 length 11");
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut bytes = [0; 12];
        assert_eq!(Datagram::new_checked(&bytes[..7]).unwrap_err(), Malformed::UdpTruncated);
        assert_eq!(Datagram::new_checked(&bytes[..]).unwrap_err(), Malformed::UdpLength);
        bytes[5] = 13;
        assert_eq!(Datagram::new_checked(&bytes[..]).unwrap_err(), Malformed::UdpLength);
        assert!(Datagram::new_checked_of(&bytes[..], 13).is_ok());
    }
}
