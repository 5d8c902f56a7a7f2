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
//! | 0x81 | [`Record::Upsert`] | shard 2, term 8, version 6, protocol 1, state 1, families 1, flags 1, vlan 2, ids 12, four addresses with ports, handle: place 4, generation 2 |
//! | 0x82 | [`Record::Delete`] | shard 2, term 8, version 6, protocol 1, families 1, vlan 2, two addresses with ports |
//! | 0x88 | [`Record::Update`] | handle 7, version 6 |
//! | 0x89 | [`Record::End`] | handle 7, version 6 |
//! | 0x83 | [`Record::WalkEnd`] | shards, a bit each, the lowest first 32 |
//! | 0x85 | [`Record::Floor`] | sequence 8 |
//! | 0x87 | [`Record::WalkBegin`] | as 0x83 |
//! | 0x8a | [`Record::Digest`] | shard 2, sum 8, flows 4 |
//! | 0x04 | [`Record::Refused`] | sequence 8, bitmap 8, reason 1 |
//!
//! A handle of 7 bytes is: state 4 bits (of an update; else 0), place 28 bits, shard 1, generation 2.
//!
//! State records name flows by their keys or handles and everything else by stable ids
//! (REQ C6); they carry all that a peer needs to forward the flow (REQ A1).

use core::fmt;

use crate::base::counters::Counter;
use crate::base::ids::{NodeId, PoolId, ServerId, ShardId, Term, Version, VirtualServerId};
use crate::base::limits::SHARDS;
use crate::flow::entry::Stamp;
use crate::flow::key::{Address, Key};
use crate::flow::shard::ShardSet;
use crate::flow::tcp_state::TcpState;
use crate::mirror::digest::Digest;
use crate::mirror::handle::{Handle, PLACES_MAX};

pub(super) const UPSERT: u8 = 0x81;
pub(super) const DELETE: u8 = 0x82;
pub(super) const UPDATE: u8 = 0x88;
pub(super) const END: u8 = 0x89;
const WALK_END: u8 = 0x83;
const FLOOR: u8 = 0x85;
const WALK_BEGIN: u8 = 0x87;
const DIGEST: u8 = 0x8a;
const REFUSED: u8 = 0x04;
const CRITICAL: u8 = 0x80;

/// The flag of an upsert that says that the source is translated too.
pub(super) const FULL_NAT: u8 = 1;
/// The flag of an upsert that says that an operator chose to have the flow mirrored.
pub(super) const CHOSEN: u8 = 2;

/// Bits of a handle's place; above them is room for a state.
pub(super) const PLACE_BITS: u32 = PLACES_MAX.ilog2();
const _: () = assert!(PLACES_MAX.is_power_of_two() && SHARDS <= 1 << 8);
const _: () = {
    let mut at = 0;
    while at < TcpState::ALL.len() {
        assert!(TcpState::ALL[at].number() < 1 << (u32::BITS - PLACE_BITS));
        at += 1;
    }
};

/// Bytes of a record's type and length.
pub const HEADER_LEN: usize = 3;

/// The longest record, header included: an upsert of a flow with IPv6 on both sides.
pub const RECORD_MAX: usize = HEADER_LEN + 2 + 8 + 6 + 1 + 1 + 1 + 1 + 2 + 12 + 4 * 18 + 6;

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
    /// Whether an operator chose to have it mirrored.
    pub chosen: bool,
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
        /// By which it goes from now on; of the same shard.
        handle: Handle,
    },
    /// The flow of this handle is in another state. Its term is the frame's.
    Update {
        /// The flow's.
        handle: Handle,
        /// When it changed: newest wins.
        version: Version,
        /// How far the connection has come.
        tcp: TcpState,
    },
    /// The flow of this handle ended. Its term is the frame's.
    End {
        /// The flow's.
        handle: Handle,
        /// When it ended: newest wins.
        version: Version,
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
        /// Why the first of them was that was not for an unknown handle; if all were for that, that.
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
    /// The receiver knows no flow by this handle: the record is to be said in full.
    UnknownHandle,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::TableFull => "its table is full",
            Refusal::Inconsistent => "the record contradicts itself or a flow that it has",
            Refusal::UnknownService => "its configuration has no such service, or no way to it",
            Refusal::UnknownRecord => "it does not know such records",
            Refusal::Differs => "it has other flows",
            Refusal::UnknownHandle => "it knows no such handle",
        })
    }
}

impl Refusal {
    /// What counts it where the record was refused.
    pub const fn counter(self) -> Counter {
        match self {
            Refusal::TableFull => Counter::MirrorRecordTableFull,
            Refusal::Inconsistent => Counter::MirrorRecordInconsistent,
            Refusal::UnknownService => Counter::MirrorRecordUnknownService,
            Refusal::UnknownRecord => Counter::MirrorRecordUnknown,
            Refusal::Differs => Counter::MirrorDigestDiffers,
            Refusal::UnknownHandle => Counter::MirrorHandleUnknown,
        }
    }

    fn code(self) -> u8 {
        match self {
            Refusal::TableFull => 1,
            Refusal::Inconsistent => 2,
            Refusal::UnknownService => 3,
            Refusal::UnknownRecord => 4,
            Refusal::Differs => 5,
            Refusal::UnknownHandle => 6,
        }
    }

    fn from_code(code: u8) -> Refusal {
        match code {
            1 => Refusal::TableFull,
            3 => Refusal::UnknownService,
            4 => Refusal::UnknownRecord,
            5 => Refusal::Differs,
            6 => Refusal::UnknownHandle,
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
        Record::Upsert { shard, flow, handle } => {
            w.u16(shard.0)?;
            w.stamp(flow.stamp)?;
            w.u8(flow.client.protocol)?;
            w.u8(flow.tcp.number())?;
            w.u8(families(&[&flow.client.src, &flow.client.dst, &flow.server.src, &flow.server.dst]))?;
            w.u8(if flow.full_nat { FULL_NAT } else { 0 } | if flow.chosen { CHOSEN } else { 0 })?;
            w.u16(flow.client.vlan)?;
            w.u32(flow.virtual_server.0)?;
            w.u32(flow.pool.0)?;
            w.u32(flow.server_id.0)?;
            w.endpoints(&flow.client)?;
            w.endpoints(&flow.server)?;
            w.u32(handle.place)?;
            w.u16(handle.generation)?;
            UPSERT
        }
        Record::Update { handle, version, tcp } => {
            w.handle(*handle, tcp.number())?;
            w.u48(version.0)?;
            UPDATE
        }
        Record::End { handle, version } => {
            w.handle(*handle, 0)?;
            w.u48(version.0)?;
            END
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

/// The bytes of the record at the front of `bytes`, and what is behind it; `None`: there is none.
#[inline]
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [_, high, low, ..] = bytes else { return None };
    bytes.split_at_checked(HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low])))
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
        UPDATE => read_update(&mut r),
        END => read_end(&mut r),
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
    let stamp = r.stamp()?;
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
    let (full_nat, chosen) = (flags & FULL_NAT != 0, flags & CHOSEN != 0);
    let handle = Handle { place: r.u32()?, shard, generation: r.u16()? };
    if handle.place >= PLACES_MAX {
        return None;
    }
    Some(Record::Upsert {
        handle,
        shard,
        flow: FlowState { stamp, client, server, virtual_server, pool, server_id, tcp, full_nat, chosen },
    })
}

fn read_delete(r: &mut Reader<'_>) -> Option<Record> {
    let shard = ShardId(r.u16()?);
    let stamp = r.stamp()?;
    let protocol = r.u8()?;
    let families = r.u8()?;
    let vlan = r.u16()?;
    let client = r.key(families, protocol, vlan)?;
    Some(Record::Delete { shard, stamp, client })
}

fn read_update(r: &mut Reader<'_>) -> Option<Record> {
    let ((handle, state), version) = (r.handle()?, Version(r.u48()?));
    Some(Record::Update { handle, version, tcp: TcpState::from_number(state)? })
}

fn read_end(r: &mut Reader<'_>) -> Option<Record> {
    Some(Record::End { handle: r.handle()?.0, version: Version(r.u48()?) })
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
        self.u48(stamp.term.counter)?;
        self.u16(stamp.term.node.0)?;
        self.u48(stamp.version.0)
    }

    /// Of a number that a flow in the table can keep: see [`STAMP_MAX`](crate::flow::layout::STAMP_MAX).
    fn u48(&mut self, n: u64) -> Option<()> {
        self.put(&n.to_be_bytes()[2..])
    }

    fn handle(&mut self, handle: Handle, state: u8) -> Option<()> {
        self.u32(u32::from(state) << PLACE_BITS | handle.place)?;
        self.u8(handle.shard.0 as u8)?;
        self.u16(handle.generation)
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
        let counter = self.u48()?;
        let node = NodeId(self.u16()?);
        let version = Version(self.u48()?);
        Some(Stamp { term: Term { counter, node }, version })
    }

    fn u48(&mut self) -> Option<u64> {
        let (high, low) = (self.u16()?, self.u32()?);
        Some(u64::from(high) << 32 | u64::from(low))
    }

    /// And the state that stands above its place.
    fn handle(&mut self) -> Option<(Handle, u8)> {
        let place = self.u32()?;
        let shard = ShardId(self.u8()?.into());
        let handle = Handle { place: place % PLACES_MAX, shard, generation: self.u16()? };
        Some((handle, (place >> PLACE_BITS) as u8))
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
#[path = "record_tests.rs"]
mod tests;
