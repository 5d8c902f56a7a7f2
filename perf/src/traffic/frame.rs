//! Frames from a client to the virtual server, written from a template.
//!
//! The payload is zero but for its first eight bytes, the stamp. Only the beginning of a
//! frame is written: the buffer's bytes behind it must be zero already, which they are in a
//! buffer that has only carried such frames.
//!
//! RFC 1071 (checksums), RFC 768 (UDP's zero).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::traffic::{Family, Protocol, Source};

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Bytes of a frame that are written at most: all headers and the stamp.
pub const HEAD_MAX: usize = 96;
/// Bytes of the stamp.
pub const STAMP: usize = 8;

/// The first 96 bits of every IPv6 client.
pub const CLIENTS_V6: u128 = 0xfd64 << 112;

/// What a template's frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// IPv4 or IPv6.
    pub family: Family,
    /// UDP or TCP (a segment in the middle of a connection).
    pub protocol: Protocol,
    /// Wanted length in bytes, without the frame check sequence.
    pub len: u16,
}

impl Shape {
    /// Where the transport header begins.
    pub const fn l4_offset(self) -> usize {
        match self.family {
            Family::V4 => ETHERNET + 20,
            Family::V6 => ETHERNET + 40,
        }
    }

    /// Where the payload, with the stamp in front, begins.
    pub const fn stamp_offset(self) -> usize {
        self.l4_offset()
            + match self.protocol {
                Protocol::Udp => 8,
                Protocol::Tcp => 20,
            }
    }

    /// The length: as wanted, or the least that holds the headers and a stamp.
    pub const fn frame_len(self) -> usize {
        let least = self.stamp_offset() + STAMP;
        if self.len as usize > least { self.len as usize } else { least }
    }

    const fn ip_protocol(self) -> u8 {
        match self.protocol {
            Protocol::Udp => 17,
            Protocol::Tcp => 6,
        }
    }
}

/// Where frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The generator's address on the link.
    pub from: [u8; 6],
    /// The appliance's.
    pub to: [u8; 6],
    /// The virtual server's address, of the family of the shape.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// The client's address.
pub fn client_address(family: Family, host: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(host).into(),
        Family::V6 => Ipv6Addr::from_bits(CLIENTS_V6 | u128::from(host)).into(),
    }
}

/// A frame that lacks its client's address and port.
#[derive(Clone, Debug)]
pub struct Template {
    head: [u8; HEAD_MAX],
    head_len: usize,
    shape: Shape,
    /// Sums of 16-bit words, not folded, with zero where the client's fields and the
    /// checksums go: of the IPv4 header, and of the transport header and pseudo header.
    ip_sum: u64,
    l4_sum: u64,
    host_at: usize,
}

impl Template {
    /// A template.
    ///
    /// # Panics
    /// When the address is not of the shape's family.
    pub fn new(shape: Shape, place: &Place) -> Template {
        let mut head = [0; HEAD_MAX];
        head[..6].copy_from_slice(&place.to);
        head[6..12].copy_from_slice(&place.from);
        let (l4, len) = (shape.l4_offset(), shape.frame_len());
        let l4_len = len - l4;
        let host_at = match (shape.family, place.address) {
            (Family::V4, IpAddr::V4(address)) => {
                head[12..14].copy_from_slice(&[0x08, 0x00]);
                head[14] = 0x45;
                head[16..18].copy_from_slice(&((len - ETHERNET) as u16).to_be_bytes());
                head[20] = 0x40; // do not fragment
                head[22] = 64;
                head[23] = shape.ip_protocol();
                head[30..34].copy_from_slice(&address.octets());
                26
            }
            (Family::V6, IpAddr::V6(address)) => {
                head[12..14].copy_from_slice(&[0x86, 0xdd]);
                head[14] = 0x60;
                head[18..20].copy_from_slice(&(l4_len as u16).to_be_bytes());
                head[20] = shape.ip_protocol();
                head[21] = 64;
                head[22..38].copy_from_slice(&CLIENTS_V6.to_be_bytes());
                head[38..54].copy_from_slice(&address.octets());
                34
            }
            _ => panic!("a virtual address of the other family"),
        };
        head[l4 + 2..l4 + 4].copy_from_slice(&place.port.to_be_bytes());
        match shape.protocol {
            Protocol::Udp => head[l4 + 4..l4 + 6].copy_from_slice(&(l4_len as u16).to_be_bytes()),
            Protocol::Tcp => {
                head[l4 + 4..l4 + 12].copy_from_slice(&[0, 0, 0x10, 1, 0, 0, 0x20, 1]);
                head[l4 + 12..l4 + 16].copy_from_slice(&[0x50, ACK | PUSH, 0xff, 0xff]);
            }
        }
        let addresses = match shape.family {
            Family::V4 => sum(&head[26..34]),
            Family::V6 => sum(&head[22..54]),
        };
        let ip_sum = if shape.family == Family::V4 { sum(&head[ETHERNET..l4]) } else { 0 };
        let l4_sum =
            addresses + u64::from(shape.ip_protocol()) + l4_len as u64 + sum(&head[l4..shape.stamp_offset()]);
        Template { head, head_len: len.min(HEAD_MAX), shape, ip_sum, l4_sum, host_at }
    }

    /// What its frames are.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Their length.
    #[inline]
    pub fn len(&self) -> usize {
        self.shape.frame_len()
    }

    /// Never: a frame has headers.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes a frame's beginning into `out`, which is [`Template::len`] bytes long.
    ///
    /// # Panics
    /// When `out` is shorter than that beginning.
    #[inline]
    pub fn write(&self, out: &mut [u8], source: Source, stamp: u64) {
        if self.head_len == 64 {
            // The usual case, without a call.
            out[..64].copy_from_slice(&self.head[..64]);
        } else {
            out[..self.head_len].copy_from_slice(&self.head[..self.head_len]);
        }
        let (l4, stamp_at) = (self.shape.l4_offset(), self.shape.stamp_offset());
        let host = u64::from(source.host >> 16) + u64::from(source.host & 0xffff);
        out[self.host_at..self.host_at + 4].copy_from_slice(&source.host.to_be_bytes());
        if self.shape.family == Family::V4 {
            out[24..26].copy_from_slice(&checksum(self.ip_sum + host).to_be_bytes());
        }
        out[l4..l4 + 2].copy_from_slice(&source.port.to_be_bytes());
        out[stamp_at..stamp_at + STAMP].copy_from_slice(&stamp.to_be_bytes());
        let l4_sum = self.l4_sum + host + u64::from(source.port) + (stamp >> 32) + (stamp & 0xffff_ffff);
        match self.shape.protocol {
            Protocol::Udp => {
                let checksum = match checksum(l4_sum) {
                    0 => 0xffff, // zero says that there is none
                    checksum => checksum,
                };
                out[l4 + 6..l4 + 8].copy_from_slice(&checksum.to_be_bytes());
            }
            Protocol::Tcp => out[l4 + 16..l4 + 18].copy_from_slice(&checksum(l4_sum).to_be_bytes()),
        }
    }
}

/// Acknowledgement field significant.
pub const ACK: u8 = 0x10;
/// Push.
pub const PUSH: u8 = 0x08;
/// Synchronize sequence numbers.
pub const SYN: u8 = 0x02;
/// No more data.
pub const FIN: u8 = 0x01;
/// Reset.
pub const RST: u8 = 0x04;

/// The sum of 16-bit words. An odd last byte counts as a word's first.
pub fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0))).sum()
}

/// The checksum of a sum of 16- or 32-bit words.
#[inline]
pub const fn checksum(mut sum: u64) -> u16 {
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    !(sum as u16)
}
