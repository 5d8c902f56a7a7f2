//! TCP: RFC 9293 section 3.1 (header), RFC 7323 (window scale, timestamps), RFC 2018 (SACK).

use core::fmt;
use core::ops::{BitOr, Range};

use crate::wire::{Malformed, be16, be32};

/// Length of the header without options, in bytes.
pub const HEADER_LEN: usize = 20;

/// Where the source port is.
pub const SOURCE_PORT: Range<usize> = 0..2;
/// Where the destination port is.
pub const DESTINATION_PORT: Range<usize> = 2..4;
const SEQUENCE: Range<usize> = 4..8;
const ACKNOWLEDGEMENT: Range<usize> = 8..12;
const DATA_OFFSET: usize = 12;
/// Where the flags are.
pub const FLAGS: usize = 13;
const WINDOW: Range<usize> = 14..16;
/// Where the checksum is.
pub const CHECKSUM: Range<usize> = 16..18;
const URGENT: Range<usize> = 18..20;

/// Control bits, as in the header's byte 13.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Flags = Flags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Flags = Flags(0x02);
    /// Reset the connection.
    pub const RST: Flags = Flags(0x04);
    /// Push.
    pub const PSH: Flags = Flags(0x08);
    /// The acknowledgement field counts.
    pub const ACK: Flags = Flags(0x10);
    /// The urgent field counts.
    pub const URG: Flags = Flags(0x20);
    /// Congestion was noticed (RFC 3168).
    pub const ECE: Flags = Flags(0x40);
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: Flags = Flags(0x80);

    /// Whether all of `flags` are set.
    pub const fn has(self, flags: Flags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether the segment opens a connection: SYN without ACK.
    pub const fn is_first_syn(self) -> bool {
        self.has(Flags::SYN) && !self.has(Flags::ACK)
    }

    /// Whether a sender may combine them so: SYN not with FIN or RST, and at least one
    /// of SYN, ACK, RST, FIN.
    pub const fn are_sane(self) -> bool {
        let syn_with_end = self.has(Flags::SYN) && self.0 & (Flags::FIN.0 | Flags::RST.0) != 0;
        !syn_with_end && self.0 & (Flags::SYN.0 | Flags::ACK.0 | Flags::RST.0 | Flags::FIN.0) != 0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = ["F", "S", "R", "P", ".", "U", "E", "W"];
        for (bit, letter) in letters.iter().enumerate() {
            if self.0 & 1 << bit != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

view! {
    /// A segment.
    Segment
}

impl<T: AsRef<[u8]>> Segment<T> {
    /// A view whose header is all there, options included.
    pub fn new_checked(buffer: T) -> Result<Segment<T>, Malformed> {
        let segment = Segment { buffer };
        let len = segment.bytes().len();
        if len < HEADER_LEN {
            return Err(Malformed::TcpTruncated);
        }
        let header_len = segment.header_len();
        if header_len < HEADER_LEN || header_len > len {
            return Err(Malformed::TcpDataOffset);
        }
        Ok(segment)
    }

    /// The port it comes from.
    pub fn source_port(&self) -> u16 {
        self.be16(SOURCE_PORT)
    }

    /// The port it goes to.
    pub fn destination_port(&self) -> u16 {
        self.be16(DESTINATION_PORT)
    }

    /// The number of its first byte.
    pub fn sequence(&self) -> u32 {
        self.be32(SEQUENCE)
    }

    /// The number of the byte that is expected next; counts with [`Flags::ACK`].
    pub fn acknowledgement(&self) -> u32 {
        self.be32(ACKNOWLEDGEMENT)
    }

    /// Length of the header with options, in bytes.
    pub fn header_len(&self) -> usize {
        usize::from(self.bytes()[DATA_OFFSET] >> 4) * 4
    }

    /// Control bits.
    pub fn flags(&self) -> Flags {
        Flags(self.bytes()[FLAGS])
    }

    /// The window, unscaled.
    pub fn window(&self) -> u16 {
        self.be16(WINDOW)
    }

    /// The checksum.
    pub fn checksum(&self) -> u16 {
        self.be16(CHECKSUM)
    }

    /// Where urgent data ends; counts with [`Flags::URG`].
    pub fn urgent(&self) -> u16 {
        self.be16(URGENT)
    }

    /// The options.
    pub fn options(&self) -> Options<'_> {
        Options { rest: &self.bytes()[HEADER_LEN..self.header_len()] }
    }

    /// What follows the header, as far as the buffer reaches.
    pub fn payload(&self) -> &[u8] {
        &self.bytes()[self.header_len()..]
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Segment<T> {
    /// Sets the port it comes from.
    pub fn set_source_port(&mut self, port: u16) {
        self.put(SOURCE_PORT, &port.to_be_bytes());
    }

    /// Sets the port it goes to.
    pub fn set_destination_port(&mut self, port: u16) {
        self.put(DESTINATION_PORT, &port.to_be_bytes());
    }

    /// Sets the number of its first byte.
    pub fn set_sequence(&mut self, value: u32) {
        self.put(SEQUENCE, &value.to_be_bytes());
    }

    /// Sets the number of the byte that is expected next.
    pub fn set_acknowledgement(&mut self, value: u32) {
        self.put(ACKNOWLEDGEMENT, &value.to_be_bytes());
    }

    /// Sets the header's length in bytes (a multiple of 4, at most 60).
    pub fn set_header_len(&mut self, len: usize) {
        self.buffer.as_mut()[DATA_OFFSET] = ((len / 4) as u8) << 4;
    }

    /// Sets the control bits.
    pub fn set_flags(&mut self, flags: Flags) {
        self.buffer.as_mut()[FLAGS] = flags.0;
    }

    /// Sets the window.
    pub fn set_window(&mut self, value: u16) {
        self.put(WINDOW, &value.to_be_bytes());
    }

    /// Sets the checksum.
    pub fn set_checksum(&mut self, value: u16) {
        self.put(CHECKSUM, &value.to_be_bytes());
    }

    /// Sets where urgent data ends.
    pub fn set_urgent(&mut self, value: u16) {
        self.put(URGENT, &value.to_be_bytes());
    }
}

/// An option of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpOption<'a> {
    /// The largest segment the sender takes (RFC 9293 section 3.7.1).
    MaximumSegment(u16),
    /// By how many bits later windows are shifted (RFC 7323 section 2).
    WindowScale(u8),
    /// The sender understands SACK (RFC 2018 section 2).
    SackPermitted,
    /// Ranges received, each two sequence numbers of 4 bytes (RFC 2018 section 3).
    Sack(&'a [u8]),
    /// The sender's clock, and an echo of the receiver's (RFC 7323 section 3).
    Timestamps {
        /// The sender's clock.
        value: u32,
        /// The echo.
        echo: u32,
    },
    /// Another, or one with a wrong length.
    Other {
        /// Its number.
        kind: u8,
        /// Its data.
        data: &'a [u8],
    },
}

/// The options of a header, end and no-operation left out; ends at the first that
/// does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Options<'a> {
    type Item = TcpOption<'a>;

    fn next(&mut self) -> Option<TcpOption<'a>> {
        let (kind, data) = crate::wire::next_option(&mut self.rest)?;
        Some(match (kind, data.len()) {
            (2, 2) => TcpOption::MaximumSegment(be16(data, 0)),
            (3, 1) => TcpOption::WindowScale(data[0]),
            (4, 0) => TcpOption::SackPermitted,
            (5, len) if len % 8 == 0 => TcpOption::Sack(data),
            (8, 8) => TcpOption::Timestamps { value: be32(data, 0), echo: be32(data, 4) },
            (kind, _) => TcpOption::Other { kind, data },
        })
    }
}

impl<T: AsRef<[u8]>> fmt::Display for Segment<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bytes().len() < HEADER_LEN {
            return f.write_str("tcp, cut off");
        }
        write!(f, "tcp {} > {} [{}]", self.source_port(), self.destination_port(), self.flags())?;
        write!(f, " seq {}", self.sequence())?;
        if self.flags().has(Flags::ACK) {
            write!(f, " ack {}", self.acknowledgement())?;
        }
        write!(f, " win {}", self.window())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend(options);
        bytes.extend(*b"data");
        let mut segment = Segment::new_unchecked(&mut bytes[..]);
        segment.set_source_port(40_000);
        segment.set_destination_port(80);
        segment.set_sequence(0xffff_fff0);
        segment.set_acknowledgement(7);
        segment.set_header_len(HEADER_LEN + options.len());
        segment.set_flags(Flags::SYN | Flags::ACK);
        segment.set_window(512);
        segment.set_checksum(0xabcd);
        segment.set_urgent(3);
        bytes
    }

    #[test]
    fn a_segment_is_read_as_it_was_written() {
        let bytes = segment(&[]);
        let segment = Segment::new_checked(&bytes[..]).unwrap();
        assert_eq!((segment.checksum(), segment.urgent(), segment.header_len()), (0xabcd, 3, 20));
        assert_eq!(segment.payload(), b"data");
        assert_eq!(segment.to_string(), "tcp 40000 > 80 [S.] seq 4294967280 ack 7 win 512");
    }

    #[test]
    fn the_options_of_a_linux_syn_are_understood() {
        let options = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8, 1, 3, 3, 7];
        let bytes = segment(&options);
        let segment = Segment::new_checked(&bytes[..]).unwrap();
        let options: Vec<_> = segment.options().collect();
        assert_eq!(
            options,
            [
                TcpOption::MaximumSegment(1460),
                TcpOption::SackPermitted,
                TcpOption::Timestamps { value: 9, echo: 8 },
                TcpOption::WindowScale(7)
            ]
        );
        assert_eq!(segment.payload(), b"data");
    }

    #[test]
    fn malformed_options_end_the_walk() {
        for options in [[8, 10, 0, 0], [2, 0, 0, 0], [2, 1, 0, 0], [1, 1, 1, 8], [0, 2, 2, 2]] {
            let bytes = segment(&options);
            assert_eq!(Segment::new_checked(&bytes[..]).unwrap().options().count(), 0, "{options:?}");
        }
        let bytes = segment(&[2, 3, 9, 0]);
        let found: Vec<_> =
            Segment::new_checked(&bytes[..]).unwrap().options().map(|o| format!("{o:?}")).collect();
        assert_eq!(found, ["Other { kind: 2, data: [9] }"], "a length that is wrong for its kind");
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let mut bytes = segment(&[]);
        assert_eq!(Segment::new_checked(&bytes[..19]).unwrap_err(), Malformed::TcpTruncated);
        bytes[12] = 0x40;
        assert_eq!(Segment::new_checked(&bytes[..]).unwrap_err(), Malformed::TcpDataOffset);
        bytes[12] = 0x70;
        assert_eq!(Segment::new_checked(&bytes[..]).unwrap_err(), Malformed::TcpDataOffset);
    }

    #[test]
    fn flags_that_cannot_be_are_known() {
        assert!(Flags::SYN.are_sane() && Flags::SYN.is_first_syn());
        assert!((Flags::FIN | Flags::ACK).are_sane());
        assert!(!(Flags::SYN | Flags::ACK).is_first_syn());
        assert!(!(Flags::SYN | Flags::FIN).are_sane());
        assert!(!(Flags::SYN | Flags::RST).are_sane());
        assert!(!Flags(0).are_sane() && !Flags::URG.are_sane());
    }
}
