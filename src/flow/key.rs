//! What tells one flow's packets from another's: the connection key (REQ D1), and
//! the two hashes over it that are not the shard's.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::FromZeros;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

/// An address of either family in 16 bytes; IPv4 as IPv4-mapped IPv6 (RFC 4291
/// section 2.5.5.2). Mapped addresses never occur on the wire of their own right,
/// so an IPv6 packet that carries one has to be dropped before a key is made of it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromZeros)]
pub struct Address([u8; 16]);

impl Address {
    /// `::`, which is no host's address.
    pub const UNSPECIFIED: Address = Address([0; 16]);

    /// An IPv4 address, in the order of the wire.
    pub const fn v4(octets: [u8; 4]) -> Address {
        let mut bytes = [0; 16];
        bytes[10] = 0xff;
        bytes[11] = 0xff;
        bytes[12] = octets[0];
        bytes[13] = octets[1];
        bytes[14] = octets[2];
        bytes[15] = octets[3];
        Address(bytes)
    }

    /// An IPv6 address, in the order of the wire.
    pub const fn v6(octets: [u8; 16]) -> Address {
        Address(octets)
    }

    /// All 16 bytes, an IPv4 address in its mapped form.
    pub const fn octets(self) -> [u8; 16] {
        self.0
    }

    /// Whether it is an IPv4 address.
    pub fn is_v4(self) -> bool {
        // Two words instead of twelve bytes.
        let [zeros, last] = self.words();
        zeros == 0 && last as u32 == u32::from_le_bytes([0, 0, 0xff, 0xff])
    }

    /// Its halves, read as little-endian words.
    fn words(self) -> [u64; 2] {
        let word = |at: usize| self.0[at..].first_chunk().map_or(0, |half| u64::from_le_bytes(*half));
        [word(0), word(8)]
    }

    /// An IPv4 address as a number, its first octet the highest; `None` for IPv6.
    pub fn v4_bits(self) -> Option<u32> {
        self.v4_octets().map(u32::from_be_bytes)
    }

    /// The four bytes of an IPv4 address; `None` for IPv6.
    pub fn v4_octets(self) -> Option<[u8; 4]> {
        self.is_v4().then(|| [self.0[12], self.0[13], self.0[14], self.0[15]])
    }

    /// As the standard library's type.
    pub fn ip(self) -> IpAddr {
        match self.v4_octets() {
            Some(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
            None => IpAddr::V6(Ipv6Addr::from(self.0)),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Address {
        Address::v4(ip.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(ip: Ipv6Addr) -> Address {
        Address::v6(ip.octets())
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> IpAddr {
        address.ip()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

/// A connection key, as the packets of one direction carry it. Numbers are in the
/// machine's order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, FromZeros)]
pub struct Key {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Source port; for protocols without ports 0.
    pub src_port: u16,
    /// Destination port; for protocols without ports 0.
    pub dst_port: u16,
    /// VLAN identifier; 0: untagged.
    pub vlan: u16,
    /// IP protocol number.
    pub protocol: u8,
}

impl Key {
    /// The key of the answering direction.
    pub fn reversed(self) -> Key {
        Key { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..self }
    }

    /// A hash that is the same on every member and in every version, for choices
    /// that members must make alike (Maglev). Keyed SipHash-1-3, so that a client
    /// cannot aim at one server. Slower than the index's: for first packets.
    /// To choose by the client's address alone, hash a key that holds nothing else.
    pub fn shared_hash(&self, secret: &[u8; 16]) -> u64 {
        let mut bytes = [0; 39];
        bytes[..16].copy_from_slice(&self.src.0);
        bytes[16..32].copy_from_slice(&self.dst.0);
        bytes[32..34].copy_from_slice(&self.src_port.to_be_bytes());
        bytes[34..36].copy_from_slice(&self.dst_port.to_be_bytes());
        bytes[36..38].copy_from_slice(&self.vlan.to_be_bytes());
        bytes[38] = self.protocol;
        let mut hasher = siphasher::sip::SipHasher13::new_with_key(secret);
        hasher.write(&bytes);
        hasher.finish()
    }
}

// Three wide writes instead of one for each field.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.src.0));
        state.write_u128(u128::from_ne_bytes(self.dst.0));
        let rest = u64::from(self.src_port)
            | u64::from(self.dst_port) << 16
            | u64::from(self.vlan) << 32
            | u64::from(self.protocol) << 48;
        state.write_u64(rest);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            TCP => f.write_str("tcp ")?,
            UDP => f.write_str("udp ")?,
            other => write!(f, "protocol {other} ")?,
        }
        let src = core::net::SocketAddr::new(self.src.ip(), self.src_port);
        let dst = core::net::SocketAddr::new(self.dst.ip(), self.dst_port);
        write!(f, "{src} -> {dst}")?;
        match self.vlan {
            0 => Ok(()),
            vlan => write!(f, " vlan {vlan}"),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const _: () = assert!(size_of::<Key>() == 40);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn key() -> Key {
        Key {
            src: Address::v4([192, 0, 2, 1]),
            dst: Address::v4([198, 51, 100, 2]),
            src_port: 40000,
            dst_port: 80,
            vlan: 0,
            protocol: TCP,
        }
    }

    #[test]
    fn an_address_comes_back_as_it_went_in() {
        for text in ["192.0.2.1", "0.0.0.0", "255.255.255.255", "::", "::1", "2001:db8::1", "::fffe:1.2.3.4"]
        {
            let ip: IpAddr = text.parse().expect("a test address");
            let address = Address::from(ip);
            assert_eq!(address.ip(), ip);
            assert_eq!(address.is_v4(), ip.is_ipv4());
            assert_eq!(address.to_string(), ip.to_string());
        }
        assert_eq!(Address::v4([192, 0, 2, 1]).v4_octets(), Some([192, 0, 2, 1]));
        assert_eq!(Address::UNSPECIFIED.v4_octets(), None);
    }

    #[test]
    fn a_reversed_key_is_the_answers_key() {
        let answer = key().reversed();
        assert_eq!((answer.src, answer.src_port), (key().dst, 80));
        assert_eq!((answer.dst, answer.dst_port), (key().src, 40000));
        assert_eq!(answer.reversed(), key());
    }

    #[test]
    fn keys_print_as_people_write_them() {
        assert_eq!(key().to_string(), "tcp 192.0.2.1:40000 -> 198.51.100.2:80");
        let v6 = Key { src: Address::v6([0; 16]), protocol: UDP, vlan: 7, ..key() };
        assert_eq!(v6.to_string(), "udp [::]:40000 -> 198.51.100.2:80 vlan 7");
        assert_eq!(
            Key { protocol: 132, ..key() }.to_string(),
            "protocol 132 192.0.2.1:40000 -> 198.51.100.2:80"
        );
    }

    /// Every single-field change of a key, and the key itself.
    fn neighbours() -> Vec<Key> {
        vec![
            key(),
            key().reversed(),
            Key { src: Address::v4([192, 0, 2, 3]), ..key() },
            Key { dst: Address::v4([192, 0, 2, 3]), ..key() },
            Key { src_port: 40001, ..key() },
            Key { dst_port: 81, ..key() },
            Key { vlan: 1, ..key() },
            Key { protocol: UDP, ..key() },
        ]
    }

    #[test]
    fn every_field_counts_in_the_shared_hash() {
        let shared: HashSet<u64> = neighbours().iter().map(|k| k.shared_hash(&[7; 16])).collect();
        assert_eq!(shared.len(), neighbours().len());
    }

    #[test]
    fn the_shared_hash_is_pinned_because_members_must_agree() {
        assert_eq!(key().shared_hash(&[7; 16]), SHARED_HASH);
        assert_ne!(key().shared_hash(&[8; 16]), SHARED_HASH);
    }
    const SHARED_HASH: u64 = 12_661_130_492_468_814_340;
}
