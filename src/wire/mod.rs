//! Packet headers: views over bytes, and the parser of the packet path.
//!
//! Owned by no thread: nothing here keeps state. In: bytes, which an attacker
//! may have chosen. Out: fields, or a [`Malformed`] reason; and bytes written by
//! setters and `emit`. No function of this room allocates or, given a view made by
//! `new_checked`, panics.
//!
//! A file per protocol, one shape: field ranges, an unchecked view `Packet<T>` whose
//! `new_checked` makes every field method safe, a small validated `Repr` where
//! useful, `Display` for traces, tests.
//!
//! Not here yet: tunnels (GUE, IP in IP), a second VLAN tag.

/// A view over bytes: its constructors, and access to the bytes for its methods.
macro_rules! view {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<T: AsRef<[u8]>> {
            buffer: T,
        }

        impl<T: AsRef<[u8]>> $name<T> {
            /// A view without any check: its field methods panic when bytes are missing.
            /// For buffers that the caller made or that `parse` went through.
            pub const fn new_unchecked(buffer: T) -> $name<T> {
                $name { buffer }
            }

            /// The buffer.
            pub fn into_inner(self) -> T {
                self.buffer
            }

            fn bytes(&self) -> &[u8] {
                self.buffer.as_ref()
            }

            #[allow(dead_code)]
            fn be16(&self, field: core::ops::Range<usize>) -> u16 {
                crate::wire::be16(self.bytes(), field.start)
            }

            #[allow(dead_code)]
            fn be32(&self, field: core::ops::Range<usize>) -> u32 {
                crate::wire::be32(self.bytes(), field.start)
            }
        }

        impl<T: AsRef<[u8]> + AsMut<[u8]>> $name<T> {
            #[allow(dead_code)]
            fn put(&mut self, field: core::ops::Range<usize>, value: &[u8]) {
                self.buffer.as_mut()[field].copy_from_slice(value);
            }
        }
    };
}

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod fragment;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
mod malformed;
pub mod ndp;
pub mod parse;
pub mod tcp;
pub mod udp;
pub mod vlan;
pub mod vrrp;

pub use ethernet::{EtherType, MacAddress};
pub use malformed::Malformed;

use core::fmt;

/// A transport protocol's number, as in IPv4's protocol and IPv6's next header field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct IpProtocol(pub u8);

impl IpProtocol {
    /// IPv6 hop-by-hop options, RFC 8200 section 4.3.
    pub const HOP_BY_HOP: IpProtocol = IpProtocol(0);
    /// ICMP, RFC 792.
    pub const ICMP: IpProtocol = IpProtocol(1);
    /// IPv4 in IP, RFC 2003.
    pub const IPV4: IpProtocol = IpProtocol(4);
    /// TCP, RFC 9293.
    pub const TCP: IpProtocol = IpProtocol(6);
    /// UDP, RFC 768.
    pub const UDP: IpProtocol = IpProtocol(17);
    /// IPv6 in IP, RFC 2473.
    pub const IPV6: IpProtocol = IpProtocol(41);
    /// IPv6 routing header, RFC 8200 section 4.4.
    pub const ROUTING: IpProtocol = IpProtocol(43);
    /// IPv6 fragment header, RFC 8200 section 4.5.
    pub const FRAGMENT: IpProtocol = IpProtocol(44);
    /// Authentication header, RFC 4302.
    pub const AUTHENTICATION: IpProtocol = IpProtocol(51);
    /// ICMPv6, RFC 4443.
    pub const ICMPV6: IpProtocol = IpProtocol(58);
    /// IPv6: nothing follows, RFC 8200 section 4.7.
    pub const NO_NEXT_HEADER: IpProtocol = IpProtocol(59);
    /// IPv6 destination options, RFC 8200 section 4.6.
    pub const DESTINATION_OPTIONS: IpProtocol = IpProtocol(60);
    /// VRRP, RFC 9568.
    pub const VRRP: IpProtocol = IpProtocol(112);

    /// Whether it is an IPv6 extension header, behind which the protocol is found (RFC 8200 section 4).
    pub const fn is_extension(self) -> bool {
        matches!(
            self,
            IpProtocol::HOP_BY_HOP
                | IpProtocol::ROUTING
                | IpProtocol::FRAGMENT
                | IpProtocol::AUTHENTICATION
                | IpProtocol::DESTINATION_OPTIONS
        )
    }
}

impl fmt::Display for IpProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            IpProtocol::ICMP => f.write_str("icmp"),
            IpProtocol::TCP => f.write_str("tcp"),
            IpProtocol::UDP => f.write_str("udp"),
            IpProtocol::ICMPV6 => f.write_str("icmpv6"),
            IpProtocol::VRRP => f.write_str("vrrp"),
            IpProtocol(other) => write!(f, "protocol {other}"),
        }
    }
}

/// The 16-bit number at `at`. Panics when it is not there.
fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The 32-bit number at `at`. Panics when it is not there.
fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The `N` bytes at `at`. Panics when they are not there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// Takes the next option off a list as IPv4 and TCP have it: its kind and data. End
/// (0) and what does not fit end the list; no-operation (1) is skipped.
fn next_option<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    loop {
        match **rest {
            [] | [0, ..] => return None,
            [1, ref after @ ..] => *rest = after,
            [kind, len, ..] => {
                let option = rest.get(2..usize::from(len))?;
                *rest = &rest[usize::from(len)..];
                return Some((kind, option));
            }
            [_] => return None,
        }
    }
}

#[cfg(test)]
pub(crate) mod fixtures;
