//! The records inside a mirror frame: type, length, value.
//!
//! ```text
//!  0        1        2        3
//! +--------+--------+--------+----------------
//! | type   | length (16 bit) | value, `length` bytes
//! +--------+--------+--------+----------------
//! ```
//!
//! All numbers are big-endian. The high bit of the type marks a critical
//! record: a receiver that does not know it refuses it; other unknown records
//! are skipped, so neighbouring versions interoperate (DESIGN "Mirroring").
//!
//! | type | record | value |
//! |---|---|---|
//! | 0x81 | [`Record::Upsert`] | shard 2, term 10, version 8, protocol 1, state 1, families 1, flags 1, vlan 2, ids 12, four addresses with ports |
//! | 0x82 | [`Record::Delete`] | shard 2, term 10, version 8, protocol 1, families 1, vlan 2, two addresses with ports |
//! | 0x83 | [`Record::WalkEnd`] | shards, a bit each, the lowest first 32 |
//! | 0x85 | [`Record::Floor`] | sequence 8 |
//! | 0x87 | [`Record::WalkBegin`] | as 0x83 |
//! | 0x08 | [`Record::Digest`] | shard 2, sum 8, flows 4 |
//! | 0x04 | [`Record::Refused`] | sequence 8, bitmap 8, reason 1 |
//!
//! State records name flows by their keys and everything else by stable ids
//! (REQ C6); they carry all that a peer needs to forward the flow (REQ A1).

use core::fmt;

use crate::base::ids::{NodeId, PoolId, ServerId, ShardId, Term, Version, VirtualServerId};
use crate::flow::entry::Stamp;
use crate::flow::key::{Address, Key};
use crate::flow::shard::ShardSet;
use crate::flow::tcp_state::TcpState;
use crate::mirror::digest::Digest;

pub(super) const UPSERT: u8 = 0x81;
pub(super) const DELETE: u8 = 0x82;
const WALK_END: u8 = 0x83;
const FLOOR: u8 = 0x85;
const WALK_BEGIN: u8 = 0x87;
const DIGEST: u8 = 0x08;
const REFUSED: u8 = 0x04;
const CRITICAL: u8 = 0x80;

/// The flag of an upsert that says that the source is translated too.
pub(super) const FULL_NAT: u8 = 1;

/// Bytes of a record's type and length.
pub const HEADER_LEN: usize = 3;

/// The longest record, header included: an upsert of a flow with IPv6 on both sides.
pub const RECORD_MAX: usize = HEADER_LEN + 2 + 10 + 8 + 1 + 1 + 1 + 1 + 2 + 12 + 4 * 18;

/// Records in one frame at most: a refusal names them by a 64-bit map.
pub const RECORDS_PER_FRAME_MAX: usize = 64;

/// A flow's state, as a peer needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowState {
    /// When it last changed: newest wins.
    pub stamp: Stamp,
    /// As packets from the client carry it.
    pub client: Key,
    /// As packets from the real server carry it.
    pub server: Key,
    /// Its virtual server.
    pub virtual_server: VirtualServerId,
    /// Its pool.
    pub pool: PoolId,
    /// Its real server.
    pub server_id: ServerId,
    /// How far the connection has come.
    pub tcp: TcpState,
    /// Whether the source is translated too.
    pub full_nat: bool,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A flow exists in this state.
    Upsert {
        /// The flow's shard.
        shard: ShardId,
        /// The flow.
        flow: FlowState,
    },
    /// A flow ended.
    Delete {
        /// The flow's shard.
        shard: ShardId,
        /// When it ended: newest wins.
        stamp: Stamp,
        /// The flow's client key.
        client: Key,
    },
    /// Every flow of the shards was named: what was not, and is older, is gone.
    WalkEnd {
        /// The shards.
        shards: ShardSet,
    },
    /// Every flow of the shards is about to be named again, and [`Record::WalkEnd`] will follow: what was named counts no more.
    WalkBegin {
        /// The shards.
        shards: ShardSet,
    },
    /// The receiver has been told of all flows of the shard, and then has this digest of it. If it has not, it refuses the
    /// record with [`Refusal::Differs`].
    Digest {
        /// The shard.
        shard: ShardId,
        /// Of its flows.
        digest: Digest,
    },
    /// Frames of this stream below `sequence` are not to be taken any more: what they said was said again, or is told on
    /// another stream by now.
    Floor {
        /// The lowest one that may be taken.
        sequence: u64,
    },
    /// The frame `sequence` was applied except for the records in `which`.
    Refused {
        /// The refused frame.
        sequence: u64,
        /// Bit i: the frame's record i was refused.
        which: u64,
        /// Why the first of them was.
        reason: Refusal,
    },
}

/// Why a receiver could not apply a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The receiver's table has no room.
    TableFull,
    /// The record contradicts itself or the shard it names.
    Inconsistent,
    /// The receiver's configuration has no such virtual server or real server.
    UnknownService,
    /// A critical record of a type that the receiver does not know.
    UnknownRecord,
    /// The receiver has other flows of the shard, or has them otherwise.
    Differs,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::TableFull => "its table is full",
            Refusal::Inconsistent => "the record contradicts itself or a flow that it has",
            Refusal::UnknownService => "its configuration has no such service, or no way to it",
            Refusal::UnknownRecord => "it does not know such records",
            Refusal::Differs => "it has other flows",
        })
    }
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Refusal::TableFull => 1,
            Refusal::Inconsistent => 2,
            Refusal::UnknownService => 3,
            Refusal::UnknownRecord => 4,
            Refusal::Differs => 5,
        }
    }

    fn from_code(code: u8) -> Refusal {
        match code {
            1 => Refusal::TableFull,
            3 => Refusal::UnknownService,
            4 => Refusal::UnknownRecord,
            5 => Refusal::Differs,
            _ => Refusal::Inconsistent,
        }
    }
}

/// What stood at a place in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A record.
    Record(Record),
    /// A well-formed record of a type or content that this version does not know, to be skipped.
    Skipped,
    /// A record that must be understood and is not, or whose value makes no sense.
    Refused(Refusal),
}

/// The rest of a frame is not a sequence of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated;

/// Writes `record` at the front of `out`; the number of bytes written, or
/// `None` when there is no room.
pub fn write(record: &Record, out: &mut [u8]) -> Option<usize> {
    let mut w = Writer { out, at: HEADER_LEN };
    let kind = match record {
        Record::Upsert { shard, flow } => {
            w.u16(shard.0)?;
            w.stamp(flow.stamp)?;
            w.u8(flow.client.protocol)?;
            w.u8(flow.tcp.number())?;
            w.u8(families(&[&flow.client.src, &flow.client.dst, &flow.server.src, &flow.server.dst]))?;
            w.u8(if flow.full_nat { FULL_NAT } else { 0 })?;
            w.u16(flow.client.vlan)?;
            w.u32(flow.virtual_server.0)?;
            w.u32(flow.pool.0)?;
            w.u32(flow.server_id.0)?;
            w.endpoints(&flow.client)?;
            w.endpoints(&flow.server)?;
            UPSERT
        }
        Record::Delete { shard, stamp, client } => {
            w.u16(shard.0)?;
            w.stamp(*stamp)?;
            w.u8(client.protocol)?;
            w.u8(families(&[&client.src, &client.dst]))?;
            w.u16(client.vlan)?;
            w.endpoints(client)?;
            DELETE
        }
        Record::WalkEnd { shards } => {
            w.shards(shards)?;
            WALK_END
        }
        Record::WalkBegin { shards } => {
            w.shards(shards)?;
            WALK_BEGIN
        }
        Record::Digest { shard, digest } => {
            w.u16(shard.0)?;
            w.u64(digest.sum)?;
            w.u32(digest.flows)?;
            DIGEST
        }
        Record::Floor { sequence } => {
            w.u64(*sequence)?;
            FLOOR
        }
        Record::Refused { sequence, which, reason } => {
            w.u64(*sequence)?;
            w.u64(*which)?;
            w.u8(reason.code())?;
            REFUSED
        }
    };
    let end = w.at;
    let value_len = (end - HEADER_LEN) as u16;
    out[0] = kind;
    out[1..3].copy_from_slice(&value_len.to_be_bytes());
    Some(end)
}

/// Reads the record at the front of `bytes`, and how many bytes it took.
pub fn read(bytes: &[u8]) -> Result<(Parsed, usize), Truncated> {
    let header = bytes.get(..HEADER_LEN).ok_or(Truncated)?;
    let kind = header[0];
    let len = usize::from(u16::from_be_bytes([header[1], header[2]]));
    let value = bytes.get(HEADER_LEN..HEADER_LEN + len).ok_or(Truncated)?;
    let mut r = Reader { bytes: value };
    let record = match kind {
        UPSERT => read_upsert(&mut r),
        DELETE => read_delete(&mut r),
        WALK_END => r.shards().map(|shards| Record::WalkEnd { shards }),
        WALK_BEGIN => r.shards().map(|shards| Record::WalkBegin { shards }),
        DIGEST => read_digest(&mut r),
        FLOOR => r.u64().map(|sequence| Record::Floor { sequence }),
        REFUSED => read_refused(&mut r),
        _ if kind & CRITICAL != 0 => return Ok((Parsed::Refused(Refusal::UnknownRecord), HEADER_LEN + len)),
        _ => return Ok((Parsed::Skipped, HEADER_LEN + len)),
    };
    let parsed = match record {
        Some(record) => Parsed::Record(record),
        None => Parsed::Refused(Refusal::Inconsistent),
    };
    Ok((parsed, HEADER_LEN + len))
}

fn read_upsert(r: &mut Reader<'_>) -> Option<Record> {
    let shard = ShardId(r.u16()?);
    let stamp = r.stamp()?.kept()?;
    let protocol = r.u8()?;
    let tcp = TcpState::from_number(r.u8()?)?;
    let families = r.u8()?;
    let flags = r.u8()?;
    let vlan = r.u16()?;
    let virtual_server = VirtualServerId(r.u32()?);
    let pool = PoolId(r.u32()?);
    let server_id = ServerId(r.u32()?);
    let client = r.key(families, protocol, vlan)?;
    let server = r.key(families >> 2, protocol, 0)?;
    let full_nat = flags & FULL_NAT != 0;
    Some(Record::Upsert {
        shard,
        flow: FlowState { stamp, client, server, virtual_server, pool, server_id, tcp, full_nat },
    })
}

fn read_delete(r: &mut Reader<'_>) -> Option<Record> {
    let shard = ShardId(r.u16()?);
    let stamp = r.stamp()?.kept()?;
    let protocol = r.u8()?;
    let families = r.u8()?;
    let vlan = r.u16()?;
    let client = r.key(families, protocol, vlan)?;
    Some(Record::Delete { shard, stamp, client })
}

fn read_digest(r: &mut Reader<'_>) -> Option<Record> {
    let shard = ShardId(r.u16()?);
    let digest = Digest { sum: r.u64()?, flows: r.u32()? };
    Some(Record::Digest { shard, digest })
}

fn read_refused(r: &mut Reader<'_>) -> Option<Record> {
    let sequence = r.u64()?;
    let which = r.u64()?;
    let reason = Refusal::from_code(r.u8()?);
    Some(Record::Refused { sequence, which, reason })
}

/// Bit i: address i is IPv6.
fn families(addresses: &[&Address]) -> u8 {
    addresses.iter().enumerate().fold(0, |bits, (i, a)| bits | (u8::from(!a.is_v4()) << i))
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.out.get_mut(self.at..self.at + bytes.len())?.copy_from_slice(bytes);
        self.at += bytes.len();
        Some(())
    }

    fn u8(&mut self, n: u8) -> Option<()> {
        self.put(&[n])
    }

    fn u16(&mut self, n: u16) -> Option<()> {
        self.put(&n.to_be_bytes())
    }

    fn u32(&mut self, n: u32) -> Option<()> {
        self.put(&n.to_be_bytes())
    }

    fn u64(&mut self, n: u64) -> Option<()> {
        self.put(&n.to_be_bytes())
    }

    fn shards(&mut self, shards: &ShardSet) -> Option<()> {
        shards.words().iter().try_for_each(|word| self.put(&word.to_le_bytes()))
    }

    fn stamp(&mut self, stamp: Stamp) -> Option<()> {
        self.u64(stamp.term.counter)?;
        self.u16(stamp.term.node.0)?;
        self.u64(stamp.version.0)
    }

    fn address(&mut self, address: &Address) -> Option<()> {
        match address.v4_octets() {
            Some(octets) => self.put(&octets),
            None => self.put(&address.octets()),
        }
    }

    fn endpoints(&mut self, key: &Key) -> Option<()> {
        self.address(&key.src)?;
        self.u16(key.src_port)?;
        self.address(&key.dst)?;
        self.u16(key.dst_port)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[n]| n)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn shards(&mut self) -> Option<ShardSet> {
        let mut words = ShardSet::default().words();
        for word in &mut words {
            *word = u64::from_le_bytes(self.take()?);
        }
        Some(ShardSet::from_words(words))
    }

    fn stamp(&mut self) -> Option<Stamp> {
        let counter = self.u64()?;
        let node = NodeId(self.u16()?);
        let version = Version(self.u64()?);
        Some(Stamp { term: Term { counter, node }, version })
    }

    fn address(&mut self, v6: bool) -> Option<Address> {
        if v6 { self.take().map(Address::v6) } else { self.take().map(Address::v4) }
    }

    fn key(&mut self, families: u8, protocol: u8, vlan: u16) -> Option<Key> {
        let src = self.address(families & 1 != 0)?;
        let src_port = self.u16()?;
        let dst = self.address(families & 2 != 0)?;
        let dst_port = self.u16()?;
        Some(Key { src, dst, src_port, dst_port, protocol, vlan })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::flow::key::{TCP, UDP};
    use crate::flow::layout::STAMP_MAX;

    fn address(rng: &mut Rng, v6: bool) -> Address {
        if v6 { Address::v6([rng.u8(0x20..0x30); 16]) } else { Address::v4(rng.u32(..).to_be_bytes()) }
    }

    fn key(rng: &mut Rng, protocol: u8, vlan: u16) -> Key {
        let (src, dst) = (rng.bool(), rng.bool());
        Key {
            src: address(rng, src),
            dst: address(rng, dst),
            src_port: rng.u16(..),
            dst_port: rng.u16(..),
            protocol,
            vlan,
        }
    }

    fn records(rng: &mut Rng) -> [Record; 7] {
        let protocol = if rng.bool() { TCP } else { UDP };
        let term = Term { counter: rng.u64(0..=STAMP_MAX), node: NodeId(rng.u16(..)) };
        let stamp = Stamp { term, version: Version(rng.u64(0..=STAMP_MAX)) };
        let shard = ShardId(rng.u16(0..256));
        let vlan = rng.u16(0..4096);
        let client = key(rng, protocol, vlan);
        let flow = FlowState {
            stamp,
            client,
            server: key(rng, protocol, 0),
            virtual_server: VirtualServerId(rng.u32(..)),
            pool: PoolId(rng.u32(..)),
            server_id: ServerId(rng.u32(..)),
            tcp: TcpState::ALL[rng.usize(0..TcpState::ALL.len())],
            full_nat: rng.bool(),
        };
        let reasons = [
            Refusal::TableFull,
            Refusal::Inconsistent,
            Refusal::UnknownService,
            Refusal::UnknownRecord,
            Refusal::Differs,
        ];
        let reason = reasons[rng.usize(0..reasons.len())];
        [
            Record::Upsert { shard, flow },
            Record::Delete { shard, stamp, client },
            Record::WalkEnd { shards: [shard, ShardId(rng.u16(0..256))].into_iter().collect() },
            Record::WalkBegin { shards: [shard, ShardId(rng.u16(0..256))].into_iter().collect() },
            Record::Digest { shard, digest: Digest { sum: rng.u64(..), flows: rng.u32(..) } },
            Record::Floor { sequence: rng.u64(..) },
            Record::Refused { sequence: rng.u64(..), which: rng.u64(..), reason },
        ]
    }

    fn written(record: &Record) -> Vec<u8> {
        let mut bytes = vec![0; RECORD_MAX];
        let len = write(record, &mut bytes).expect("room for the longest");
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn every_record_is_read_as_it_was_written_and_not_a_byte_more() {
        for seed in 0..500 {
            for record in records(&mut Rng::with_seed(seed)) {
                let mut bytes = written(&record);
                let len = bytes.len();
                bytes.extend([0xff; 9]);
                assert_eq!(read(&bytes), Ok((Parsed::Record(record), len)), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_record_without_room_is_not_written_and_one_cut_short_is_not_read() {
        for record in records(&mut Rng::with_seed(7)) {
            let bytes = written(&record);
            for len in 0..bytes.len() {
                assert_eq!(write(&record, &mut vec![0; len]), None, "{record:?} in {len} bytes");
                assert_eq!(read(&bytes[..len]), Err(Truncated), "{record:?} cut to {len} bytes");
            }
        }
    }

    #[test]
    fn a_value_shorter_than_its_record_is_refused_and_a_longer_one_read() {
        for record in records(&mut Rng::with_seed(8)) {
            let mut bytes = written(&record);
            let len = bytes.len();
            bytes[2] -= 1;
            assert_eq!(read(&bytes), Ok((Parsed::Refused(Refusal::Inconsistent), len - 1)));
            // A later version adds to the end of a value.
            bytes[2] += 2;
            bytes.push(0);
            assert_eq!(read(&bytes), Ok((Parsed::Record(record), len + 1)));
        }
    }

    #[test]
    fn an_unknown_record_is_skipped_unless_it_is_critical() {
        assert_eq!(read(&[0x05, 0, 2, 9, 9, 1]), Ok((Parsed::Skipped, 5)));
        assert_eq!(read(&[0x86, 0, 2, 9, 9, 1]), Ok((Parsed::Refused(Refusal::UnknownRecord), 5)));
        assert_eq!(read(&[0x05, 0, 3, 9, 9]), Err(Truncated));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_reading_goes_on() {
        let mut rng = Rng::with_seed(9);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect();
            if bytes.len() > 3 && rng.bool() {
                bytes[0] = [UPSERT, DELETE, WALK_END, WALK_BEGIN, DIGEST, REFUSED][rng.usize(0..6)];
                (bytes[1], bytes[2]) = (0, rng.u8(0..140));
            }
            let mut at = 0;
            while let Ok((_, len)) = read(&bytes[at..]) {
                assert!(len >= HEADER_LEN);
                at += len;
            }
            assert!(at <= bytes.len());
        }
    }
}
