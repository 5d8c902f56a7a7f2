//! Frames of the measuring traffic: Ethernet, IPv4, TCP or UDP, and a tag by which a packet is
//! known again wherever it comes out. Written and read without baton's own code, so that a
//! mistake there is seen here.

use core::net::Ipv4Addr;

/// Bytes of the Ethernet and IPv4 headers.
const L3_END: usize = 14 + 20;
/// Bytes of a TCP header without options.
const TCP_LEN: usize = 20;
/// Bytes of a UDP header.
const UDP_LEN: usize = 8;
/// Bytes of the tag, at the payload's begin.
const TAG_LEN: usize = 8;

/// The shortest frame that has room for a tag.
pub const FRAME_MIN: usize = L3_END + TCP_LEN + TAG_LEN;

/// TCP's flags.
pub mod flags {
    /// FIN
    pub const FIN: u8 = 0x01;
    /// SYN
    pub const SYN: u8 = 0x02;
    /// RST
    pub const RST: u8 = 0x04;
    /// PSH
    pub const PSH: u8 = 0x08;
    /// ACK
    pub const ACK: u8 = 0x10;
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
}

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// To this link address.
    pub to_mac: [u8; 6],
    /// From this link address.
    pub from_mac: [u8; 6],
    /// From.
    pub from: Endpoint,
    /// To.
    pub to: Endpoint,
    /// TCP flags; `None`: UDP.
    pub flags: Option<u8>,
    /// Hops that are left.
    pub ttl: u8,
    /// Which packet it is.
    pub tag: u64,
}

impl Frame {
    /// Writes the frame with right checksums. What is behind [`FRAME_MIN`] is taken for zeros and not
    /// touched: ports write packets past the processor's inner caches, and the generator must not
    /// fill those with what nobody looks at.
    ///
    /// # Panics
    /// When `out` is shorter than [`FRAME_MIN`].
    pub fn write(&self, out: &mut [u8]) {
        self.write_head(out, out.len());
    }

    /// As [`Frame::write`], of a frame of `len` bytes of which the first are in `out`.
    ///
    /// # Panics
    /// As there.
    pub fn write_head(&self, out: &mut [u8], len: usize) {
        let l4 = if self.flags.is_some() { TCP_LEN } else { UDP_LEN };
        out[0..6].copy_from_slice(&self.to_mac);
        out[6..12].copy_from_slice(&self.from_mac);
        out[12..14].copy_from_slice(&[0x08, 0x00]);
        let ip = &mut out[14..L3_END];
        ip[0..2].copy_from_slice(&[0x45, 0]);
        ip[2..4].copy_from_slice(&((len - 14) as u16).to_be_bytes());
        // No identification, not to be fragmented.
        ip[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
        ip[8] = self.ttl;
        ip[9] = if self.flags.is_some() { 6 } else { 17 };
        ip[10..12].fill(0);
        ip[12..16].copy_from_slice(&self.from.address.octets());
        ip[16..20].copy_from_slice(&self.to.address.octets());
        let sum = !folded(sum_of(ip));
        ip[10..12].copy_from_slice(&sum.to_be_bytes());

        let segment = &mut out[L3_END..];
        segment[0..2].copy_from_slice(&self.from.port.to_be_bytes());
        segment[2..4].copy_from_slice(&self.to.port.to_be_bytes());
        match self.flags {
            Some(flags) => {
                segment[4..12].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
                segment[12..14].copy_from_slice(&[5 << 4, flags]);
                segment[14..20].copy_from_slice(&[0x20, 0, 0, 0, 0, 0]);
            }
            None => {
                segment[4..6].copy_from_slice(&((len - L3_END) as u16).to_be_bytes());
                segment[6..8].fill(0);
            }
        }
        segment[l4..l4 + TAG_LEN].copy_from_slice(&self.tag.to_be_bytes());
        segment[l4 + TAG_LEN..FRAME_MIN - L3_END].fill(0);
        // Zeros do not change a sum.
        let sum = sum_of(&segment[..l4 + TAG_LEN]) + self.pseudo(len - L3_END);
        let checksum = match !folded(sum) {
            0 if self.flags.is_none() => 0xffff,
            sum => sum,
        };
        let at = if self.flags.is_some() { 16 } else { 6 };
        segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    /// The sum of the pseudo-header (RFC 9293 section 3.1, RFC 768).
    fn pseudo(&self, l4_len: usize) -> u64 {
        let protocol = if self.flags.is_some() { 6 } else { 17 };
        sum_of(&self.from.address.octets()) + sum_of(&self.to.address.octets()) + protocol + l4_len as u64
    }

    /// Reads a frame of this kind; `None`: it is none. Checksums are not looked at.
    pub fn read(bytes: &[u8]) -> Option<Frame> {
        if bytes.len() < L3_END + UDP_LEN + TAG_LEN || bytes[12..15] != [0x08, 0x00, 0x45] {
            return None;
        }
        let (l4, flags) = match bytes[23] {
            6 if bytes.len() >= FRAME_MIN => (TCP_LEN, Some(bytes[47])),
            17 => (UDP_LEN, None),
            _ => return None,
        };
        let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let address = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
        let tag = bytes.get(L3_END + l4..L3_END + l4 + TAG_LEN)?;
        Some(Frame {
            to_mac: bytes[0..6].try_into().ok()?,
            from_mac: bytes[6..12].try_into().ok()?,
            from: Endpoint { address: address(26), port: port(34) },
            to: Endpoint { address: address(30), port: port(36) },
            flags,
            ttl: bytes[22],
            tag: u64::from_be_bytes(tag.try_into().ok()?),
        })
    }

    /// Whether the lengths and both checksums of a frame that [`Frame::read`] gave are right.
    pub fn is_sound(&self, bytes: &[u8]) -> bool {
        let total = usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
        let segment = &bytes[L3_END..];
        let udp_len = usize::from(u16::from_be_bytes([segment[4], segment[5]]));
        total + 14 == bytes.len()
            && (self.flags.is_some() || udp_len == segment.len())
            && folded(sum_of(&bytes[14..L3_END])) == 0xffff
            && folded(sum_of(segment) + self.pseudo(segment.len())) == 0xffff
    }
}

/// The sum of 16-bit words, not folded (RFC 1071).
fn sum_of(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |last| u64::from(*last) << 8);
    words.map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u64>() + odd
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(flags: Option<u8>) -> Frame {
        Frame {
            to_mac: [2, 0, 0, 0, 0, 1],
            from_mac: [2, 0, 0, 0, 0, 2],
            from: Endpoint { address: Ipv4Addr::new(16, 1, 2, 3), port: 40000 },
            to: Endpoint { address: Ipv4Addr::new(10, 1, 0, 100), port: 80 },
            flags,
            ttl: 64,
            tag: 0x0123_4567_89ab_cdef,
        }
    }

    #[test]
    fn a_frame_says_what_was_written_and_baton_reads_it_too() {
        for flags in [Some(flags::SYN), None] {
            for len in [FRAME_MIN, 64, 590, 1514] {
                let mut bytes = vec![0; len];
                frame(flags).write(&mut bytes);
                let read = Frame::read(&bytes).expect("a frame");
                assert_eq!(read, frame(flags));
                assert!(read.is_sound(&bytes));
                let parsed = baton::wire::parse::parse(&bytes).expect("a packet");
                assert_eq!((parsed.ports(&bytes), parsed.end()), (Some((40000, 80)), len));
            }
        }
    }

    #[test]
    fn a_wrong_bit_is_seen() {
        let mut bytes = vec![0; 64];
        frame(None).write(&mut bytes);
        for at in [16, 26, 34, 39, 63] {
            let mut wrong = bytes.clone();
            wrong[at] ^= 4;
            let read = Frame::read(&wrong).expect("still a frame");
            assert!(!read.is_sound(&wrong), "byte {at}");
        }
        assert_eq!(Frame::read(&bytes[..40]), None);
    }
}
