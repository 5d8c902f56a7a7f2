//! A connection key in sixteen bytes: what a packet's key is compared with, and what the
//! index hashes.
//!
//! Of an IPv4 key it is the whole key, laid out as its bytes lie in a packet without
//! options, so that the packet path loads it in two words. Of an IPv6 key the ports are
//! whole and both addresses are 64 bits of a keyed hash; whoever compares such images
//! compares the keys too.
//!
//! | bits | IPv4 | IPv6 |
//! |---|---|---|
//! | word 0, 0-7 | 4 | 6 |
//! | word 0, 8-15 | protocol | protocol |
//! | word 0, 16-31 | VLAN | VLAN |
//! | word 0, 32-63 | source address | hash of both addresses, low half |
//! | word 1, 0-31 | destination address | its high half |
//! | word 1, 32-47, 48-63 | source port, destination port | likewise |
//!
//! Addresses and ports are in the packet's byte order, words in the order of a little-endian load.

use zerocopy::FromZeros;

use crate::base::rng::Rng;
use crate::flow::key::{Address, Key};

/// A key's sixteen bytes; all zero: of no key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromZeros)]
pub struct Image(pub u64, pub u64);

/// Where the IPv4 header's bytes of an image begin: at the time to live, behind an
/// Ethernet header without a tag.
pub const V4_OFFSET: usize = 22;

/// The bits of word 0 that a packet's bytes fill with the key; the others hold time to
/// live and checksum there.
const V4_KEY_BITS: u64 = 0xffff_ffff_0000_ff00;

impl Image {
    /// Of the sixteen bytes from the time to live on, in an IPv4 packet without options
    /// and without a VLAN tag.
    #[inline(always)]
    pub const fn of_v4_packet(bytes: &[u8; 16]) -> Image {
        let (low, high) = bytes.split_at(8);
        let (Some(low), Some(high)) = (low.first_chunk(), high.first_chunk()) else { return Image(0, 0) };
        Image((u64::from_le_bytes(*low) & V4_KEY_BITS) | 4, u64::from_le_bytes(*high))
    }

    /// Whether it is of no key.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether it is a whole IPv4 key.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0 as u8 == 4
    }

    /// The protocol.
    #[inline(always)]
    pub const fn v4_protocol(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Source and destination port of either family as a packet's bytes hold them, read as little-endian words.
    #[inline(always)]
    pub const fn packet_ports(self) -> (u16, u16) {
        ((self.1 >> 32) as u16, (self.1 >> 48) as u16)
    }

    /// The VLAN, which is whole in every image; 0: untagged.
    #[inline(always)]
    pub const fn vlan(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Source and destination as a packet's bytes hold them, read as little-endian words.
    #[inline(always)]
    pub const fn v4_endpoints(self) -> V4Endpoints {
        V4Endpoints {
            src: (self.0 >> 32) as u32,
            dst: self.1 as u32,
            src_port: (self.1 >> 32) as u16,
            dst_port: (self.1 >> 48) as u16,
        }
    }

    /// The key that this is the image of; `None` of IPv6, whose addresses are not in it.
    pub fn v4_key(self) -> Option<Key> {
        let ends = self.v4_endpoints();
        self.is_v4().then(|| Key {
            src: Address::v4(ends.src.to_le_bytes()),
            dst: Address::v4(ends.dst.to_le_bytes()),
            src_port: u16::from_be_bytes(ends.src_port.to_le_bytes()),
            dst_port: u16::from_be_bytes(ends.dst_port.to_le_bytes()),
            vlan: (self.0 >> 16) as u16,
            protocol: (self.0 >> 8) as u8,
        })
    }

    /// The ports in host order, the VLAN and the protocol, which are whole in every image.
    pub const fn rest(self) -> (u16, u16, u16, u8) {
        let (src, dst) = ((self.1 >> 32) as u16, (self.1 >> 48) as u16);
        (
            u16::from_be_bytes(src.to_le_bytes()),
            u16::from_be_bytes(dst.to_le_bytes()),
            (self.0 >> 16) as u16,
            (self.0 >> 8) as u8,
        )
    }
}

/// Endpoints in the packet's byte order, as words of a little-endian load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4Endpoints {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

/// Makes images of keys, and hashes images, with secrets of this process: from outside it
/// cannot be told which keys meet in a bucket.
#[derive(Clone, Debug)]
pub struct Imager {
    secrets: [u64; 8],
}

impl Imager {
    /// With secrets from a seed, which comes from the operating system in production.
    pub fn with_seed(seed: u64) -> Imager {
        let mut rng = Rng::with_seed(seed);
        // Odd, so that no multiplication loses bits to a secret's zeros.
        Imager { secrets: core::array::from_fn(|_| rng.u64(..) | 1) }
    }

    /// The image of a key.
    pub fn of(&self, key: &Key) -> Image {
        let word = u64::from(key.protocol) << 8 | u64::from(key.vlan) << 16;
        let port = |port: u16| u64::from(u16::from_le_bytes(port.to_be_bytes()));
        let ports = port(key.src_port) << 32 | port(key.dst_port) << 48;
        match (key.src.v4_octets(), key.dst.v4_octets()) {
            (Some(src), Some(dst)) => Image(
                word | 4 | u64::from(u32::from_le_bytes(src)) << 32,
                ports | u64::from(u32::from_le_bytes(dst)),
            ),
            _ => {
                let hash = self.addresses(&key.src.octets(), &key.dst.octets());
                Image(word | 6 | hash << 32, ports | hash >> 32)
            }
        }
    }

    /// The image of an IPv6 packet's key: of its protocol, addresses, and the four bytes of its ports.
    #[inline]
    pub fn of_v6_packet(&self, protocol: u8, src: &[u8; 16], dst: &[u8; 16], ports: &[u8; 4]) -> Image {
        let hash = self.addresses(src, dst);
        let ports = u64::from(u32::from_le_bytes(*ports));
        Image(u64::from(protocol) << 8 | 6 | hash << 32, ports << 32 | hash >> 32)
    }

    /// 64 bits of both addresses.
    #[inline(always)]
    fn addresses(&self, src: &[u8; 16], dst: &[u8; 16]) -> u64 {
        let word = |bytes: &[u8; 16], at: usize| {
            bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
        };
        let [.., a, b, c, d] = self.secrets;
        let src = fold(word(src, 0) ^ a, word(src, 8) ^ b);
        let dst = fold(word(dst, 0) ^ c, word(dst, 8) ^ d);
        fold(src ^ b, dst ^ a.rotate_left(32))
    }

    /// The hash of an image, of which the index makes both: the bucket is the upper half of its product with the number of
    /// buckets, so its highest bits say most of it; the tag is its lowest 16 bits, the lowest one of them set.
    #[inline(always)]
    pub fn hash(&self, image: Image) -> u64 {
        let [a, b, c, d, ..] = self.secrets;
        fold(fold(image.0 ^ a, image.1 ^ b) ^ c, d)
    }
}

/// Both halves of a product of 128 bits.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::key::{TCP, UDP};
    use std::collections::HashSet;

    fn v4(n: u32) -> Key {
        Key {
            src: Address::v4(n.to_be_bytes()),
            dst: Address::v4([198, 51, 100, 2]),
            src_port: 40000,
            dst_port: 80,
            vlan: 0,
            protocol: TCP,
        }
    }

    #[test]
    fn an_ipv4_image_is_the_whole_key() {
        let imager = Imager::with_seed(1);
        for key in [v4(7), Key { vlan: 9, ..v4(7) }, Key { protocol: UDP, ..v4(7) }, v4(7).reversed()] {
            assert_eq!(imager.of(&key).v4_key(), Some(key));
            let (src, dst, vlan, protocol) = imager.of(&key).rest();
            assert_eq!((src, dst, vlan, protocol), (key.src_port, key.dst_port, key.vlan, key.protocol));
        }
        assert!(!imager.of(&v4(7)).is_none() && Image::default().is_none());
    }

    #[test]
    fn a_packets_bytes_give_the_image_of_its_key() {
        // Time to live, protocol, checksum, addresses, ports.
        let bytes = [64, TCP, 0xab, 0xcd, 192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 0, 80];
        let key = v4(u32::from_be_bytes([192, 0, 2, 1]));
        assert_eq!(Image::of_v4_packet(&bytes), Imager::with_seed(1).of(&key));

        let (src, dst) = ([0x20; 16], [7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 9]);
        let key = Key { src: Address::v6(src), dst: Address::v6(dst), protocol: UDP, ..key };
        let imager = Imager::with_seed(1);
        assert_eq!(imager.of_v6_packet(UDP, &src, &dst, &[0x9c, 0x40, 0, 80]), imager.of(&key));
        assert_eq!(imager.of(&key).packet_ports(), (0x409c, 0x5000));
    }

    #[test]
    fn ipv6_images_differ_in_every_field_and_by_the_secret() {
        let key = Key {
            src: Address::v6([0x20; 16]),
            dst: Address::v6([0x21; 16]),
            src_port: 1,
            dst_port: 2,
            vlan: 0,
            protocol: TCP,
        };
        let imager = Imager::with_seed(1);
        let others = [
            key,
            key.reversed(),
            Key { src: Address::v6([0x22; 16]), ..key },
            Key { dst: Address::v6([0x22; 16]), ..key },
            Key { src_port: 3, ..key },
            Key { dst_port: 3, ..key },
            Key { vlan: 3, ..key },
            Key { protocol: UDP, ..key },
        ];
        let images: HashSet<(u64, u64)> =
            others.iter().map(|key| imager.of(key)).map(|image| (image.0, image.1)).collect();
        assert_eq!(images.len(), others.len());
        assert_ne!(imager.of(&key), Imager::with_seed(2).of(&key));
        assert_eq!(imager.of(&key).v4_key(), None);
    }

    #[test]
    fn hashes_of_neighbours_spread_over_buckets_and_tags() {
        let imager = Imager::with_seed(3);
        let (mut buckets, mut tags) = (vec![0; 1000], HashSet::new());
        for n in 0..10_000 {
            let hash = imager.hash(imager.of(&v4(n)));
            buckets[(((hash >> 32) * 1000) >> 32) as usize] += 1;
            tags.insert(hash as u16);
        }
        // Ten each on average; Poisson leaves none empty and puts over 30 in none, but once in a million.
        assert!(buckets.iter().all(|n| (1..=30).contains(n)), "{:?}", buckets.iter().max());
        assert!(tags.len() > 8500, "{}", tags.len());
    }

    #[test]
    fn keys_that_collide_in_the_shard_spread_in_the_index() {
        // Ports in steps of 256, from one address: a linear hash would use few buckets.
        let imager = Imager::with_seed(3);
        let hash = |step: u16| imager.hash(imager.of(&Key { src_port: step << 8, ..v4(7) }));
        let high: HashSet<u64> = (0..256).map(|step| hash(step) >> 48).collect();
        assert!(high.len() > 250, "{} of 256", high.len());
    }
}
