//! Receive-side scaling (RSS): a port gives a packet to a receive queue by a hash over some of its fields. The hash's low
//! bits name a bucket of a table, and the bucket a queue.
//!
//! A port is asked at [`Port::configure`]. Drivers differ in what they take there and in what they do later, so what the
//! port really does is read back from the started port, and may be set again. That a driver's hash is Toeplitz's, and what
//! exactly goes into it, DPDK 22.11 does not say.

use core::ffi::c_int;
use core::fmt;
use core::mem::MaybeUninit;
use core::ops::{BitAnd, BitOr, Sub};
use core::sync::atomic::{AtomicU8, Ordering};

use dpdk_sys as sys;

use crate::error::{EINVAL, ENOTSUP, Error, check, clear_errno};
use crate::port::Port;

/// Room for the longest key that DPDK can name, in bytes: its length is one byte.
const KEY_ROOM: usize = 256;
/// A key's bytes where a driver says 0: `rte_ethdev.h` has 40 "as before".
const KEY_DEFAULT: u8 = 40;
/// Buckets in one part of DPDK's table.
const GROUP: usize = 64;

/// Something that a hash may cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Addresses of IP packets without ports, fragments among them.
    OtherIp,
    /// Addresses and ports of TCP over IPv4.
    TcpV4,
    /// Addresses and ports of UDP over IPv4.
    UdpV4,
    /// Addresses and ports of TCP over IPv6.
    TcpV6,
    /// Addresses and ports of UDP over IPv6.
    UdpV6,
    /// Of all that, the source's address and port alone.
    SourceOnly,
    /// Of all that, the destination's address and port alone.
    DestinationOnly,
}

impl Field {
    /// All of them.
    pub const ALL: [Field; 7] = [
        Field::OtherIp,
        Field::TcpV4,
        Field::UdpV4,
        Field::TcpV6,
        Field::UdpV6,
        Field::SourceOnly,
        Field::DestinationOnly,
    ];

    /// DPDK's bits of it.
    const fn bits(self) -> u64 {
        match self {
            Field::OtherIp => sys::DPDK_ETH_RSS_OTHER_IP,
            Field::TcpV4 => sys::DPDK_ETH_RSS_TCP_V4,
            Field::UdpV4 => sys::DPDK_ETH_RSS_UDP_V4,
            Field::TcpV6 => sys::DPDK_ETH_RSS_TCP_V6,
            Field::UdpV6 => sys::DPDK_ETH_RSS_UDP_V6,
            Field::SourceOnly => sys::DPDK_ETH_RSS_SOURCE_ONLY_UPPER << 32,
            Field::DestinationOnly => sys::DPDK_ETH_RSS_DESTINATION_ONLY_UPPER << 32,
        }
    }

    /// Whether these of DPDK's bits stand for it. Drivers divide packets without ports into kinds each in its own way, so
    /// of those bits any will do.
    const fn is_in(self, bits: u64) -> bool {
        match self {
            Field::OtherIp => bits & self.bits() != 0,
            Field::TcpV4
            | Field::UdpV4
            | Field::TcpV6
            | Field::UdpV6
            | Field::SourceOnly
            | Field::DestinationOnly => bits & self.bits() == self.bits(),
        }
    }
}

/// A set of [`Field`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fields(u8);

impl Fields {
    /// Nothing.
    pub const NONE: Fields = Fields(0);

    /// A set of some.
    pub fn of(some: &[Field]) -> Fields {
        some.iter().fold(Fields::NONE, |set, &one| set | one.into())
    }

    /// Whether one is in the set.
    pub const fn contains(self, one: Field) -> bool {
        self.0 & 1 << one as u8 != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn from_dpdk(bits: u64) -> Fields {
        Field::ALL.iter().filter(|one| one.is_in(bits)).fold(Fields::NONE, |set, &one| set | one.into())
    }

    fn to_dpdk(self) -> u64 {
        Field::ALL.iter().filter(|&&one| self.contains(one)).fold(0, |bits, one| bits | one.bits())
    }
}

impl From<Field> for Fields {
    fn from(one: Field) -> Fields {
        Fields(1 << one as u8)
    }
}

impl BitOr for Fields {
    type Output = Fields;

    fn bitor(self, other: Fields) -> Fields {
        Fields(self.0 | other.0)
    }
}

impl BitAnd for Fields {
    type Output = Fields;

    fn bitand(self, other: Fields) -> Fields {
        Fields(self.0 & other.0)
    }
}

impl Sub for Fields {
    type Output = Fields;

    fn sub(self, other: Fields) -> Fields {
        Fields(self.0 & !other.0)
    }
}

/// The key of a hash. It is not printed, since it may be a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Key(pub Vec<u8>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.0.len())
    }
}

/// How a port is wanted to spread packets over its queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hashing {
    /// What is hashed.
    pub fields: Fields,
    /// By which key.
    pub key: Key,
}

/// What a device can do of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// What it can hash; empty: it has no RSS.
    pub fields: Fields,
    /// Bytes of its key; 0: it does not say, and 40 are usual.
    pub key_bytes: u8,
    /// Buckets of its table; 0: it has none that can be set.
    pub buckets: u16,
}

impl Abilities {
    pub(crate) fn of(raw: &sys::rte_eth_dev_info) -> Abilities {
        Abilities {
            fields: Fields::from_dpdk(raw.flow_type_rss_offloads),
            key_bytes: raw.hash_key_size,
            buckets: raw.reta_size,
        }
    }
}

/// The key that a port was given last. Several drivers keep DPDK's pointer and read the key when the port starts, and some
/// read 40 bytes whatever its length: so it has one place for as long as the port lives, with room behind it.
#[derive(Debug)]
pub(crate) struct KeptKey([AtomicU8; KEY_ROOM]);

impl KeptKey {
    pub(crate) const fn new() -> KeptKey {
        KeptKey([const { AtomicU8::new(0) }; KEY_ROOM])
    }

    /// Puts a key there; `None`: it is too long for DPDK to name.
    fn keep(&self, key: &Key) -> Option<(*mut u8, u8)> {
        let len = u8::try_from(key.0.len()).ok()?;
        let bytes = key.0.iter().chain(core::iter::repeat(&0));
        self.0.iter().zip(bytes).for_each(|(place, byte)| place.store(*byte, Ordering::Relaxed));
        Some((self.0[0].as_ptr(), len))
    }

    /// Asks for as much of what is wanted as the device offers: more than that makes DPDK refuse the whole
    /// configuration, and so does, in later releases, a key whose length is not the device's. Without any of it the port
    /// gets no RSS mode, which some drivers refuse. Returns what was asked for.
    pub(crate) fn ask(
        &self,
        conf: &mut sys::rte_eth_conf,
        wanted: &Hashing,
        raw: &sys::rte_eth_dev_info,
    ) -> Fields {
        let ends = Fields::of(&[Field::SourceOnly, Field::DestinationOnly]);
        let asked = wanted.fields & Abilities::of(raw).fields;
        if (asked - ends).is_empty() {
            return Fields::NONE;
        }
        conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
        let rss = &mut conf.rx_adv_conf.rss_conf;
        rss.rss_hf = asked.to_dpdk() & raw.flow_type_rss_offloads;
        if !wanted.key.0.is_empty()
            && wanted.key.0.len() == usize::from(raw.hash_key_size)
            && let Some((bytes, len)) = self.keep(&wanted.key)
        {
            (rss.rss_key, rss.rss_key_len) = (bytes, len);
        }
        asked
    }
}

/// Functions of a started port. Most drivers do them on a stopped one too, some do not.
impl Port {
    /// What the port says that it hashes, and by which key.
    pub fn rss_hash(&self) -> Result<Hashing, Error> {
        let len = match self.raw_info()?.hash_key_size {
            0 => KEY_DEFAULT,
            len => len,
        };
        let mut key = [0; KEY_ROOM];
        // SAFETY: all zero is a value of the struct.
        let mut raw: sys::rte_eth_rss_conf = unsafe { MaybeUninit::zeroed().assume_init() };
        (raw.rss_key, raw.rss_key_len) = (key.as_mut_ptr(), len);
        // SAFETY: the port is open; the key's room, which lives for the call, holds any key that a driver has.
        let returned = unsafe { sys::rte_eth_dev_rss_hash_conf_get(self.id(), &mut raw) };
        self.rss_checked("read the hash of", returned)?;
        Ok(Hashing { fields: Fields::from_dpdk(raw.rss_hf), key: Key(key[..usize::from(len)].to_vec()) })
    }

    /// Has the port hash something else, or by another key; of the fields only those that it offers.
    pub fn set_rss_hash(&mut self, wanted: &Hashing) -> Result<(), Error> {
        let what = "set the hash of";
        let offered = self.raw_info()?.flow_type_rss_offloads;
        let Some((bytes, len)) = self.kept_key().keep(&wanted.key) else {
            let reason = format!("a key of {} bytes", wanted.key.0.len());
            return Err(Error::own(self.what(what), EINVAL, reason));
        };
        // SAFETY: all zero is a value of the struct.
        let mut raw: sys::rte_eth_rss_conf = unsafe { MaybeUninit::zeroed().assume_init() };
        raw.rss_hf = wanted.fields.to_dpdk() & offered;
        if len > 0 {
            (raw.rss_key, raw.rss_key_len) = (bytes, len);
        }
        clear_errno();
        // SAFETY: the port is open; the key stays where it is for as long as the port lives, and is longer than
        // what any driver reads.
        let returned = unsafe { sys::rte_eth_dev_rss_hash_update(self.id(), &mut raw) };
        self.rss_checked(what, returned)
    }

    /// The queue of each bucket.
    pub fn rss_table(&self) -> Result<Vec<u16>, Error> {
        let what = "read the RSS table of";
        let buckets = self.raw_info()?.reta_size;
        if buckets == 0 {
            return Err(Error::own(self.what(what), ENOTSUP, "it has none that can be read"));
        }
        let mut groups = groups(&vec![0; usize::from(buckets)]);
        clear_errno();
        // SAFETY: the port is open; the groups hold as many buckets as the device has.
        let returned = unsafe { sys::rte_eth_dev_rss_reta_query(self.id(), groups.as_mut_ptr(), buckets) };
        self.rss_checked(what, returned)?;
        let table = groups.iter().flat_map(|group| group.reta);
        Ok(table.take(usize::from(buckets)).collect())
    }

    /// Sets the queue of each bucket, of as many as [`Abilities::buckets`] of [`Port::info`] says now.
    pub fn set_rss_table(&mut self, queues: &[u16]) -> Result<(), Error> {
        let what = "set the RSS table of";
        let buckets = self.raw_info()?.reta_size;
        if buckets == 0 {
            return Err(Error::own(self.what(what), ENOTSUP, "it has none that can be set"));
        }
        if queues.len() != usize::from(buckets) {
            let reason = format!("it has {buckets} buckets, not {}", queues.len());
            return Err(Error::own(self.what(what), EINVAL, reason));
        }
        let mut groups = groups(queues);
        clear_errno();
        // SAFETY: as above.
        let returned = unsafe { sys::rte_eth_dev_rss_reta_update(self.id(), groups.as_mut_ptr(), buckets) };
        self.rss_checked(what, returned)
    }

    fn rss_checked(&self, what: &str, returned: c_int) -> Result<(), Error> {
        check(&self.what(what), returned).map(|_| ())
    }
}

/// A table in DPDK's parts, with all of its buckets named.
fn groups(queues: &[u16]) -> Vec<sys::rte_eth_rss_reta_entry64> {
    let group = |part: &[u16]| {
        // SAFETY: all zero is a value of the struct.
        let mut group: sys::rte_eth_rss_reta_entry64 = unsafe { MaybeUninit::zeroed().assume_init() };
        group.mask = u64::MAX >> (GROUP - part.len());
        group.reta[..part.len()].copy_from_slice(part);
        group
    };
    queues.chunks(GROUP).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_cut_into_groups_with_a_bit_for_each_bucket() {
        let queues: Vec<u16> = (0..130).collect();
        let groups = groups(&queues);
        let masks: Vec<u64> = groups.iter().map(|group| group.mask).collect();
        assert_eq!(masks, [u64::MAX, u64::MAX, 3]);
        assert_eq!((groups[1].reta[0], groups[2].reta[1], groups[2].reta[2]), (64, 129, 0));
    }

    #[test]
    fn a_port_that_takes_the_source_of_addresses_alone_is_none_that_takes_the_source() {
        let both = Field::SourceOnly.bits();
        let half = both & (both - 1);
        assert!(half != 0 && half != both);
        assert!(Fields::from_dpdk(both).contains(Field::SourceOnly));
        assert!(!Fields::from_dpdk(half).contains(Field::SourceOnly));
        // Drivers name but some of the kinds of packets without ports.
        let bit = 1 << Field::OtherIp.bits().trailing_zeros();
        assert_eq!(Fields::from_dpdk(bit), Field::OtherIp.into());
    }

    #[test]
    fn no_two_fields_share_a_bit() {
        for (place, one) in Field::ALL.iter().enumerate() {
            assert_eq!(Fields::from_dpdk(one.bits()), (*one).into());
            assert!(Field::ALL[..place].iter().all(|other| other.bits() & one.bits() == 0), "{one:?}");
        }
    }

    #[test]
    fn a_key_is_kept_with_zeros_behind_it_and_not_printed() {
        let kept = KeptKey::new();
        kept.keep(&Key(vec![0xab; 255])).unwrap();
        assert_eq!(kept.keep(&Key(vec![7, 8])).map(|(_, len)| len), Some(2));
        let bytes: Vec<u8> = kept.0.iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        assert!(bytes[..2] == [7, 8] && bytes[2..].iter().all(|byte| *byte == 0));
        assert_eq!(kept.keep(&Key(vec![0; 256])), None);
        assert_eq!(format!("{:?}", Key(vec![7, 8])), "Key(2 bytes)");
    }
}
