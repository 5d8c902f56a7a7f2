//! A packet's buffer, as the pure rooms see it: an mbuf on a real port, plain
//! memory in tests and in the simulator. Monomorphized, never dynamic.

use crate::base::ids::{PortId, ShardId};

/// What the port found out about a received packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RxMeta {
    /// The port it came in by.
    pub port: PortId,
    /// What the port says of the IPv4 header checksum.
    pub ip_checksum: ChecksumStatus,
    /// What the port says of the TCP or UDP checksum.
    pub l4_checksum: ChecksumStatus,
}

/// What a port can say of a checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumStatus {
    /// It did not look: software must, where it matters.
    #[default]
    Unknown,
    /// It verified it.
    Good,
    /// It found it wrong.
    Bad,
}

/// What is asked of the port for a packet to be sent. The driver asks the port,
/// or computes in software what the port cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxMeta {
    /// Length of the link header, VLAN tags included, in bytes.
    pub l2_len: u8,
    /// Length of the IP header with options or extension headers, in bytes.
    pub l3_len: u16,
    /// Compute the IPv4 header checksum.
    pub ip_checksum: bool,
    /// Compute the TCP or UDP checksum over the whole payload.
    pub l4_checksum: bool,
}

/// What an lcore says to another of a packet that it hands over to it: a signal in band (REQ D3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handed {
    /// Nothing: it goes by its hash, and what nobody knows is chosen for at its home.
    #[default]
    Plain,
    /// It is of this shard, whatever its hash says: the connection store knows, or the key's home distributor chose.
    Shard(ShardId),
    /// It is of a flow of this shard, of which the connection store knows. It begins none.
    Known(ShardId),
    /// It is no packet: behind it come no more packets of this shard from the lcore that handed it over.
    Marker(ShardId),
}

impl Handed {
    const SHARD: u32 = 1 << 16;
    const MARKER: u32 = 3 << 16;
    const KNOWN: u32 = 4 << 16;

    /// As a number, to be kept with a packet.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        match self {
            Handed::Plain => 0,
            Handed::Shard(shard) => Handed::SHARD | shard.0 as u32,
            Handed::Known(shard) => Handed::KNOWN | shard.0 as u32,
            Handed::Marker(shard) => Handed::MARKER | shard.0 as u32,
        }
    }

    /// Of a number that [`Handed::bits`] made.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Handed {
        let shard = ShardId(bits as u16);
        match bits & (7 << 16) {
            Handed::SHARD => Handed::Shard(shard),
            Handed::KNOWN => Handed::Known(shard),
            Handed::MARKER => Handed::Marker(shard),
            _ => Handed::Plain,
        }
    }
}

/// There is no room for that many bytes. The buffer is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// A packet's buffer. The first segment holds all headers; later segments, if
/// any, are payload that is never looked at.
pub trait Buffer: Sized {
    /// The bytes of the first segment.
    fn head(&self) -> &[u8];
    /// The bytes of the first segment, to be rewritten in place.
    fn head_mut(&mut self) -> &mut [u8];
    /// The length of the packet over all segments, in bytes.
    fn total_len(&self) -> usize;
    /// Grows the packet at the front by `len` bytes of unspecified content.
    fn prepend(&mut self, len: usize) -> Result<(), NoRoom>;
    /// Cuts `len` bytes off the front of the first segment.
    fn trim_front(&mut self, len: usize) -> Result<(), NoRoom>;
    /// Makes a one-segment packet `len` bytes long; new bytes have unspecified content.
    fn set_len(&mut self, len: usize) -> Result<(), NoRoom>;
    /// What the port found out when it received this packet.
    fn rx(&self) -> RxMeta;
    /// What it found out about both checksums: `Bad` if one is wrong, else what it says of the IPv4 header's.
    #[inline(always)]
    fn rx_checksums(&self) -> ChecksumStatus {
        let rx = self.rx();
        if rx.l4_checksum == ChecksumStatus::Bad { ChecksumStatus::Bad } else { rx.ip_checksum }
    }
    /// Keeps with the packet what is said of it to the lcore that it is handed over to.
    fn set_handed(&mut self, handed: Handed);
    /// What was said of the packet by the lcore that handed it over; of a packet that came by a port: anything.
    fn handed(&self) -> Handed;
    /// Asks the port for work when this packet is sent.
    fn set_tx(&mut self, tx: TxMeta);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_packet_comes_back_from_its_number() {
        let shards = [0, 1, 255, u16::MAX].map(ShardId);
        let of_shards = shards.iter().copied();
        let of_shards = of_shards.flat_map(|s| [Handed::Shard(s), Handed::Known(s), Handed::Marker(s)]);
        for handed in of_shards.chain([Handed::Plain]) {
            assert_eq!(Handed::from_bits(handed.bits()), handed);
        }
    }
}
