//! The shard of an address and port (DESIGN "Shard"): a Toeplitz hash, as network
//! cards compute it for receive-side scaling, with a key that all members share.
//!
//! Being linear, it can be solved: [`Toeplitz::ports_of`] names the 256 ports that
//! put an address into a wanted shard. So a source-NAT port is chosen that makes
//! the server's answers meet the client's packets in one shard, without a table.

use core::fmt;

use crate::base::ids::ShardId;
use crate::base::limits::SHARDS;
use crate::flow::key::Address;

/// Shortest key, in bytes: enough for two IPv6 addresses and two ports.
pub const KEY_MIN: usize = 40;

/// Ports of one address in one shard.
pub const PORTS_PER_SHARD: usize = 65536 / SHARDS;

// A shard is the low byte of the hash.
const _: () = assert!(SHARDS == 256);

/// The key from Microsoft's RSS specification. Many cards have it at power-up, so
/// it is the default; being public, it lets a client aim at one shard.
pub const MICROSOFT_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// An IPv6 address and a port.
const INPUT_MAX: usize = 18;

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeakKey {
    /// It has fewer than [`KEY_MIN`] bytes.
    Short {
        /// How many it has.
        len: usize,
    },
    /// The port does not reach every shard: the port's bits have less than full
    /// rank in the hash's low 8 bits, so some shards would have no port at all.
    Rank {
        /// Whether it fails for IPv4 (else for IPv6).
        v4: bool,
    },
}

impl fmt::Display for WeakKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeakKey::Short { len } => write!(f, "the key has {len} bytes, at least {KEY_MIN} are needed"),
            WeakKey::Rank { v4 } => {
                let family = if *v4 { "IPv4" } else { "IPv6" };
                write!(f, "with this key, ports of an {family} address do not reach every shard")
            }
        }
    }
}

impl std::error::Error for WeakKey {}

/// The shard hash, precomputed for one key. 11 KiB: share it by `Arc`.
#[derive(Clone)]
pub struct Toeplitz {
    key: Vec<u8>,
    /// The low 8 bits of what each value of each input byte adds to the hash.
    low: Box<[[u8; 256]; INPUT_MAX]>,
    v4: PortSpace,
    v6: PortSpace,
}

/// The ports of one family, ordered by what they add to the shard.
#[derive(Clone)]
struct PortSpace {
    /// The ports that add nothing, in ascending order.
    kernel: Box<[u16; PORTS_PER_SHARD]>,
    /// For each shard the lowest port that adds it.
    lowest: Box<[u16; SHARDS]>,
}

impl PortSpace {
    /// `None`: some shard has no port.
    fn new(high: &[u8; 256], low: &[u8; 256]) -> Option<PortSpace> {
        let mut kernel = Box::new([0; PORTS_PER_SHARD]);
        let mut kernel_len = 0;
        let mut lowest = Box::new([0; SHARDS]);
        let mut seen = [false; SHARDS];
        for port in 0..=u16::MAX {
            let [h, l] = port.to_be_bytes();
            let shard = usize::from(high[usize::from(h)] ^ low[usize::from(l)]);
            if !seen[shard] {
                seen[shard] = true;
                lowest[shard] = port;
            }
            if shard == 0 {
                // More than PORTS_PER_SHARD means that the rank is not full.
                *kernel.get_mut(kernel_len)? = port;
                kernel_len += 1;
            }
        }
        seen.iter().all(|seen| *seen).then_some(PortSpace { kernel, lowest })
    }
}

impl Toeplitz {
    /// Prepares a key of at least [`KEY_MIN`] bytes; refuses one with which a
    /// source-NAT port could not always be found.
    pub fn new(key: &[u8]) -> Result<Toeplitz, WeakKey> {
        if key.len() < KEY_MIN {
            return Err(WeakKey::Short { len: key.len() });
        }
        let mut low = Box::new([[0; 256]; INPUT_MAX]);
        for (position, values) in low.iter_mut().enumerate() {
            for (value, entry) in (0..=u8::MAX).zip(values.iter_mut()) {
                *entry = (contribution(key, position, value) & 0xff) as u8;
            }
        }
        let v4 = PortSpace::new(&low[4], &low[5]).ok_or(WeakKey::Rank { v4: true })?;
        let v6 = PortSpace::new(&low[16], &low[17]).ok_or(WeakKey::Rank { v4: false })?;
        Ok(Toeplitz { key: key.to_vec(), low, v4, v6 })
    }

    /// The key, for the ports' RSS setting.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The whole 32-bit hash of some input, bit by bit as the specification defines
    /// it. Slow; for comparison with what a card says. Input that the key is too
    /// short for (`key.len() - 4` bytes) is not looked at.
    pub fn hash(&self, input: &[u8]) -> u32 {
        let reach = self.key.len() - 4;
        let bytes = input.iter().take(reach).enumerate();
        bytes.fold(0, |hash, (position, value)| hash ^ contribution(&self.key, position, *value))
    }

    /// The shard of an address and port: the low 8 bits of the hash over the address
    /// (4 or 16 bytes) and the port, in the order of the wire.
    pub fn shard_of(&self, address: Address, port: u16) -> ShardId {
        let (of_address, position) = self.of_address(address);
        let [high, low] = port.to_be_bytes();
        let of_port = self.low[position][usize::from(high)] ^ self.low[position + 1][usize::from(low)];
        ShardId(u16::from(of_address ^ of_port))
    }

    /// As [`Toeplitz::shard_of`], of an IPv4 address and a port in the order of the wire.
    #[inline]
    pub fn shard_of_v4(&self, address: [u8; 4], port: [u8; 2]) -> ShardId {
        let ([a, b, c, d], [high, low]) = (address, port);
        let octets = [a, b, c, d, high, low];
        let sum =
            octets.iter().zip(self.low.iter()).fold(0, |sum, (octet, of)| sum ^ of[usize::from(*octet)]);
        ShardId(u16::from(sum))
    }

    /// What an address adds to the shard, and where in the input the port follows.
    fn of_address(&self, address: Address) -> (u8, usize) {
        let octets = address.octets();
        let octets = if address.is_v4() { &octets[12..] } else { &octets[..] };
        let sum = octets
            .iter()
            .zip(self.low.iter())
            .fold(0, |sum, (octet, table)| sum ^ table[usize::from(*octet)]);
        (sum, octets.len())
    }

    /// The 256 ports `p` for which `shard_of(address, p)` is `shard`, ready to be
    /// picked by index. Equal on every member with the same key.
    pub fn ports_of(&self, address: Address, shard: ShardId) -> Ports<'_> {
        let (of_address, position) = self.of_address(address);
        let space = if position == 4 { &self.v4 } else { &self.v6 };
        let wanted = (usize::from(shard.0) ^ usize::from(of_address)) % SHARDS;
        Ports { kernel: &space.kernel, offset: space.lowest[wanted] }
    }
}

impl fmt::Debug for Toeplitz {
    // The key is a secret if the operator chose one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toeplitz").finish_non_exhaustive()
    }
}

/// The ports of one address in one shard.
#[derive(Clone, Copy, Debug)]
pub struct Ports<'a> {
    kernel: &'a [u16; PORTS_PER_SHARD],
    offset: u16,
}

impl<'a> Ports<'a> {
    /// The port at an index; every index gives another one.
    pub fn at(&self, index: u8) -> u16 {
        self.kernel[usize::from(index)] ^ self.offset
    }

    /// The index of a port; `None`: it is not one of them.
    pub fn index_of(&self, port: u16) -> Option<u8> {
        // The kernel is in ascending order.
        self.kernel.binary_search(&(port ^ self.offset)).ok().and_then(|index| u8::try_from(index).ok())
    }

    /// All of them, in the order of their index.
    pub fn iter(&self) -> impl Iterator<Item = u16> + use<'a> {
        let offset = self.offset;
        self.kernel.iter().map(move |port| port ^ offset)
    }
}

/// What one input byte adds to the hash: for each of its bits that is set, the
/// 32 bits of the key that begin at that bit's place.
fn contribution(key: &[u8], position: usize, value: u8) -> u32 {
    // Five bytes of the key hold the eight windows of 32 bits.
    let window = key[position..].iter().chain(core::iter::repeat(&0)).take(5);
    let window = window.fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut sum = 0;
    for bit in 0..8 {
        if value & (0x80 >> bit) != 0 {
            sum ^= (window >> (8 - bit)) as u32;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use core::net::{IpAddr, SocketAddr};

    /// "Verifying the RSS Hash Calculation", Windows network driver documentation:
    /// destination, source, hash over addresses, hash over addresses and ports.
    const VECTORS: [(&str, &str, u32, u32); 8] = [
        ("161.142.100.80:1766", "66.9.149.187:2794", 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83:4739", "199.92.111.2:14230", 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184:38024", "24.19.198.95:12898", 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6:2217", "38.27.205.30:48228", 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2:1303", "153.39.163.191:44251", 0x5d18_09c5, 0x10e8_28a2),
        ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x2cc1_8cd5, 0x4020_7d3d),
        ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0x0f0c_461c, 0xdde5_1bbf),
        (
            "[fe80::200:f8ff:fe21:67cf]:38024",
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    fn bytes_of(ip: IpAddr) -> Vec<u8> {
        match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }
    }

    fn microsoft() -> Toeplitz {
        Toeplitz::new(&MICROSOFT_KEY).expect("the published key is a good one")
    }

    #[test]
    fn the_hash_is_the_one_that_the_rss_specification_publishes() {
        for (destination, source, addresses, all) in VECTORS {
            let destination: SocketAddr = destination.parse().expect("a test address");
            let source: SocketAddr = source.parse().expect("a test address");
            let mut input = bytes_of(source.ip());
            input.extend(bytes_of(destination.ip()));
            assert_eq!(microsoft().hash(&input), addresses, "{source} {destination}");
            input.extend(source.port().to_be_bytes());
            input.extend(destination.port().to_be_bytes());
            assert_eq!(microsoft().hash(&input), all, "{source} {destination} with ports");
        }
    }

    /// Some addresses of both families.
    fn addresses(rng: &mut Rng, count: usize) -> Vec<Address> {
        (0..count)
            .map(|n| {
                if n % 2 == 0 {
                    Address::v4(rng.u32(..).to_be_bytes())
                } else {
                    Address::v6(rng.u128(..).to_be_bytes())
                }
            })
            .collect()
    }

    #[test]
    fn a_shard_is_the_low_byte_of_the_hash_over_address_and_port() {
        let mut rng = Rng::with_seed(1);
        let toeplitz = microsoft();
        for address in addresses(&mut rng, 1000) {
            let port = rng.u16(..);
            let mut input = bytes_of(address.ip());
            input.extend(port.to_be_bytes());
            let expected = ShardId((toeplitz.hash(&input) & 0xff) as u16);
            assert_eq!(toeplitz.shard_of(address, port), expected);
        }
    }

    #[test]
    fn every_shard_has_exactly_256_ports_of_any_address() {
        let mut rng = Rng::with_seed(2);
        let toeplitz = microsoft();
        for address in addresses(&mut rng, 4) {
            let mut shard_of_port = vec![None; 65536];
            for shard in (0..SHARDS as u16).map(ShardId) {
                let ports = toeplitz.ports_of(address, shard);
                assert_eq!(ports.iter().count(), PORTS_PER_SHARD);
                for (index, port) in (0..=u8::MAX).zip(ports.iter()) {
                    assert_eq!(ports.at(index), port);
                    assert_eq!(ports.index_of(port), Some(index));
                    assert_eq!(
                        ports.index_of(port ^ 1).is_some(),
                        toeplitz.shard_of(address, port ^ 1) == shard
                    );
                    assert_eq!(toeplitz.shard_of(address, port), shard);
                    assert_eq!(shard_of_port[usize::from(port)].replace(shard), None, "named twice");
                }
            }
            assert!(shard_of_port.iter().all(Option::is_some));
        }
    }

    #[test]
    fn weak_keys_are_refused_with_the_reason() {
        assert_eq!(Toeplitz::new(&[0x6d; 39]).err(), Some(WeakKey::Short { len: 39 }));
        assert_eq!(Toeplitz::new(&[0; 40]).err(), Some(WeakKey::Rank { v4: true }));
        // Every bit adds the same: the rank is 1.
        assert_eq!(Toeplitz::new(&[0xff; 40]).err(), Some(WeakKey::Rank { v4: true }));
        // IPv4 ports use the key's bits 56 to 78, IPv6 ports its bits 152 to 174.
        let mut key = MICROSOFT_KEY;
        key[19..22].fill(0);
        assert_eq!(Toeplitz::new(&key).err(), Some(WeakKey::Rank { v4: false }));
        assert!(Toeplitz::new(&key).unwrap_err().to_string().contains("IPv6"));
    }

    #[test]
    fn most_random_keys_are_good_and_longer_ones_do_no_harm() {
        let mut rng = Rng::with_seed(3);
        let mut good = 0;
        for _ in 0..50 {
            let mut key = [0; 52];
            rng.fill(&mut key);
            good += usize::from(Toeplitz::new(&key).is_ok());
        }
        assert!(good > 40, "{good} of 50");
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", microsoft()), "Toeplitz { .. }");
    }
}
