//! What a device can do for the software, by name.

use core::fmt;
use core::ops::{BitAnd, BitOr, Sub};

use dpdk_sys as sys;

macro_rules! offloads {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $direction:ident, $bit:expr;)*) => {
        /// One thing that a device can do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Offload {
            $($(#[$doc])* $name,)*
        }

        impl Offload {
            /// All of them.
            pub const ALL: &[Offload] = &[$(Offload::$name),*];

            const fn name(self) -> &'static str {
                match self { $(Offload::$name => $text,)* }
            }

            /// DPDK's bit: (receive, transmit).
            const fn to_dpdk(self) -> (u64, u64) {
                match self { $(Offload::$name => offloads!(@$direction $bit),)* }
            }
        }
    };
    (@rx $bit:expr) => { ($bit, 0) };
    (@tx $bit:expr) => { (0, $bit) };
}

offloads! {
    /// Verify IPv4 header checksums of received packets.
    RxIpChecksum = "rx-ip-checksum", rx, sys::DPDK_ETH_RX_OFFLOAD_IPV4_CKSUM;
    /// Verify TCP checksums of received packets.
    RxTcpChecksum = "rx-tcp-checksum", rx, sys::DPDK_ETH_RX_OFFLOAD_TCP_CKSUM;
    /// Verify UDP checksums of received packets.
    RxUdpChecksum = "rx-udp-checksum", rx, sys::DPDK_ETH_RX_OFFLOAD_UDP_CKSUM;
    /// Receive packets into several segments.
    RxScatter = "rx-scatter", rx, sys::DPDK_ETH_RX_OFFLOAD_SCATTER;
    /// Compute IPv4 header checksums of sent packets.
    TxIpChecksum = "tx-ip-checksum", tx, sys::DPDK_ETH_TX_OFFLOAD_IPV4_CKSUM;
    /// Compute TCP checksums of sent packets.
    TxTcpChecksum = "tx-tcp-checksum", tx, sys::DPDK_ETH_TX_OFFLOAD_TCP_CKSUM;
    /// Compute UDP checksums of sent packets.
    TxUdpChecksum = "tx-udp-checksum", tx, sys::DPDK_ETH_TX_OFFLOAD_UDP_CKSUM;
    /// Send packets of several segments.
    TxMultiSegment = "tx-multi-segment", tx, sys::DPDK_ETH_TX_OFFLOAD_MULTI_SEGS;
}

/// A set of [`Offload`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads(u32);

impl Offloads {
    /// Nothing.
    pub const NONE: Offloads = Offloads(0);

    /// A set of some.
    pub fn of(some: &[Offload]) -> Offloads {
        some.iter().fold(Offloads::NONE, |set, &one| set | one.into())
    }

    /// All that there are.
    pub fn all() -> Offloads {
        Offloads::of(Offload::ALL)
    }

    /// Whether one is in the set.
    pub const fn contains(self, one: Offload) -> bool {
        self.0 & 1 << one as u32 != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those in the set.
    pub fn iter(self) -> impl Iterator<Item = Offload> {
        Offload::ALL.iter().copied().filter(move |&one| self.contains(one))
    }

    pub(crate) fn from_dpdk(rx: u64, tx: u64) -> Offloads {
        Offload::ALL.iter().fold(Offloads::NONE, |set, &one| {
            let (rx_bit, tx_bit) = one.to_dpdk();
            if rx & rx_bit != 0 || tx & tx_bit != 0 { set | one.into() } else { set }
        })
    }

    pub(crate) fn to_dpdk(self) -> (u64, u64) {
        self.iter()
            .map(Offload::to_dpdk)
            .fold((0, 0), |(rx, tx), (rx_bit, tx_bit)| (rx | rx_bit, tx | tx_bit))
    }
}

impl From<Offload> for Offloads {
    fn from(one: Offload) -> Offloads {
        Offloads(1 << one as u32)
    }
}

impl BitOr for Offloads {
    type Output = Offloads;

    fn bitor(self, other: Offloads) -> Offloads {
        Offloads(self.0 | other.0)
    }
}

impl BitAnd for Offloads {
    type Output = Offloads;

    fn bitand(self, other: Offloads) -> Offloads {
        Offloads(self.0 & other.0)
    }
}

impl Sub for Offloads {
    type Output = Offloads;

    fn sub(self, other: Offloads) -> Offloads {
        Offloads(self.0 & !other.0)
    }
}

impl fmt::Display for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (place, one) in self.iter().enumerate() {
            if place > 0 {
                f.write_str(" ")?;
            }
            f.write_str(one.name())?;
        }
        Ok(())
    }
}
