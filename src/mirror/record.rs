//! The records inside a mirror frame. There are two kinds, which the second highest bit of the type tells apart:
//!
//! * *Compact*, bit 0x40 set: those that flows need most. How long one is, its first bytes tell. A type that is not in
//!   this list ends the frame, as a record cut short does: a new one needs another version of the frame.
//! * *With a length*, for all else:
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
//! with a length are skipped, so neighbouring versions interoperate (DESIGN "Mirroring").
//!
//! | type | record | behind the type, and the length if it has one |
//! |---|---|---|
//! | 0xc1 | [`Record::Upsert`] | see `record_full` |
//! | 0xc2, 0xc3 | [`Record::Update`] | handle 7, version 5 or 6 |
//! | 0xc4, 0xc5 | [`Record::End`] | handle 7, version 5 or 6 |
//! | 0x82 | [`Record::Delete`] | shard 2, term 8, version 6, protocol 1, families 1, vlan 2, two addresses with ports |
//! | 0x83 | [`Record::WalkEnd`] | shards, a bit each, the lowest first 32 |
//! | 0x85 | [`Record::Floor`] | sequence 8 |
//! | 0x87 | [`Record::WalkBegin`] | as 0x83 |
//! | 0x8a | [`Record::Digest`] | shard 2, sum 8, flows 4 |
//! | 0x04 | [`Record::Refused`] | sequence 8, bitmap 8, reason 1 |
//! | 0x0b | [`Record::Unbound`] | handle 7 |
//!
//! 0x81, 0x88 and 0x89 were upserts, updates and ends in version 2 of the frame. A handle of 7 bytes is: state 4 bits (of an
//! update; else 0), place 28 bits, shard 1, generation 2.
//!
//! State records name flows by their keys or handles and everything else by stable ids
//! (REQ C6); they carry all that a peer needs to forward the flow (REQ A1). What the records of a frame have in common,
//! one of them says for those behind it: [`Said`].

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
use crate::mirror::record_full::{self, SHORT_VERSION_BITS};
use crate::mirror::said::Said;

pub(super) const UPSERT: u8 = 0xc1;
pub(super) const UPDATE: u8 = 0xc2;
pub(super) const END: u8 = 0xc4;
/// Of an update or an end: its version has all of its 48 bits.
pub(super) const LONG: u8 = 1;
const UPDATE_LONG: u8 = UPDATE | LONG;
const END_LONG: u8 = END | LONG;
pub(super) const DELETE: u8 = 0x82;
const WALK_END: u8 = 0x83;
const FLOOR: u8 = 0x85;
const WALK_BEGIN: u8 = 0x87;
const DIGEST: u8 = 0x8a;
const REFUSED: u8 = 0x04;
const UNBOUND: u8 = 0x0b;
const CRITICAL: u8 = 0x80;
const COMPACT: u8 = 0x40;

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

/// Bytes of type and length, where a record has one.
pub const HEADER_LEN: usize = 3;

/// Bytes of an update or an end whose version is not long.
pub(super) const BY_HANDLE_LEN: usize = 1 + 7 + 5;

/// The longest record: an upsert that says everything, with IPv6 on both sides.
pub const RECORD_MAX: usize = record_full::MAX;

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
    /// What a frame that asks for no acknowledgement said of this handle was refused: no flow is known by it.
    Unbound {
        /// It.
        handle: Handle,
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

/// Writes `record` at the front of `out`, behind what the frame has `said`; the number of bytes written, or
/// `None` when there is no room.
pub fn write(record: &Record, said: &mut Said, out: &mut [u8]) -> Option<usize> {
    let mut w = Writer { out, at: HEADER_LEN };
    let kind = match record {
        Record::Upsert { shard, flow, handle } => {
            return record_full::write((*shard, flow, *handle), said, w.out);
        }
        Record::Update { handle, version, tcp } => {
            return w.by_handle(UPDATE, *handle, tcp.number(), *version);
        }
        Record::End { handle, version } => return w.by_handle(END, *handle, 0, *version),
        Record::Delete { shard, stamp, client } => {
            w.u16(shard.0)?;
            w.term(stamp.term)?;
            w.u48(stamp.version.0)?;
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
        Record::Unbound { handle } => {
            w.handle(*handle, 0)?;
            UNBOUND
        }
    };
    let end = w.at;
    let value_len = (end - HEADER_LEN) as u16;
    out[0] = kind;
    out[1..3].copy_from_slice(&value_len.to_be_bytes());
    Some(end)
}

/// Bytes of the record at the front of `bytes`, which may have fewer; `None`: that is not to be told.
#[inline]
fn len(bytes: &[u8]) -> Option<usize> {
    match *bytes {
        [UPSERT, flags, service, server, ..] => Some(record_full::len(flags, service, server)),
        [UPDATE | END, ..] => Some(BY_HANDLE_LEN),
        [UPDATE_LONG | END_LONG, ..] => Some(BY_HANDLE_LEN + 1),
        [kind, high, low, ..] if kind & COMPACT == 0 => {
            Some(HEADER_LEN + usize::from(u16::from_be_bytes([high, low])))
        }
        _ => None,
    }
}

/// Reads the record at the front of `bytes`, behind what the frame has `said`, and how many bytes it took.
pub fn read(bytes: &[u8], said: &mut Said) -> Result<(Parsed, usize), Truncated> {
    let len = len(bytes).ok_or(Truncated)?;
    let whole = bytes.get(..len).ok_or(Truncated)?;
    let mut r = Reader { bytes: whole.get(HEADER_LEN..).unwrap_or_default() };
    let record = match whole[0] {
        UPSERT => record_full::read(whole, said),
        kind @ (UPDATE | UPDATE_LONG | END | END_LONG) => read_by_handle(kind, whole),
        DELETE => read_delete(&mut r),
        WALK_END => r.shards().map(|shards| Record::WalkEnd { shards }),
        WALK_BEGIN => r.shards().map(|shards| Record::WalkBegin { shards }),
        DIGEST => read_digest(&mut r),
        FLOOR => r.u64().map(|sequence| Record::Floor { sequence }),
        REFUSED => read_refused(&mut r),
        UNBOUND => r.handle().map(|(handle, _)| Record::Unbound { handle }),
        kind if kind & CRITICAL != 0 => return Ok((Parsed::Refused(Refusal::UnknownRecord), len)),
        _ => return Ok((Parsed::Skipped, len)),
    };
    let parsed = match record {
        Some(record) => Parsed::Record(record),
        None => Parsed::Refused(Refusal::Inconsistent),
    };
    Ok((parsed, len))
}

fn read_by_handle(kind: u8, whole: &[u8]) -> Option<Record> {
    let mut r = Reader { bytes: whole.get(1..)? };
    let (handle, state) = r.handle()?;
    let version = Version(if kind & LONG != 0 { r.u48()? } else { r.u40()? });
    match kind & !LONG {
        UPDATE => Some(Record::Update { handle, version, tcp: TcpState::from_number(state)? }),
        _ => Some(Record::End { handle, version }),
    }
}

fn read_delete(r: &mut Reader<'_>) -> Option<Record> {
    let shard = ShardId(r.u16()?);
    let stamp = Stamp { term: r.term()?, version: Version(r.u48()?) };
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

pub(super) struct Writer<'a> {
    pub(super) out: &'a mut [u8],
    pub(super) at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.out.get_mut(self.at..self.at + bytes.len())?.copy_from_slice(bytes);
        self.at += bytes.len();
        Some(())
    }

    pub(super) fn u8(&mut self, n: u8) -> Option<()> {
        self.put(&[n])
    }

    pub(super) fn u16(&mut self, n: u16) -> Option<()> {
        self.put(&n.to_be_bytes())
    }

    pub(super) fn u32(&mut self, n: u32) -> Option<()> {
        self.put(&n.to_be_bytes())
    }

    fn u64(&mut self, n: u64) -> Option<()> {
        self.put(&n.to_be_bytes())
    }

    fn shards(&mut self, shards: &ShardSet) -> Option<()> {
        shards.words().iter().try_for_each(|word| self.put(&word.to_le_bytes()))
    }

    pub(super) fn term(&mut self, term: Term) -> Option<()> {
        self.u48(term.counter)?;
        self.u16(term.node.0)
    }

    /// The lower 40 bits.
    pub(super) fn u40(&mut self, n: u64) -> Option<()> {
        self.put(&n.to_be_bytes()[3..])
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

    /// All of a record that names a flow by its handle.
    fn by_handle(&mut self, kind: u8, handle: Handle, state: u8, version: Version) -> Option<usize> {
        self.at = 0;
        let is_long = version.0 >> SHORT_VERSION_BITS != 0;
        self.u8(if is_long { kind | LONG } else { kind })?;
        self.handle(handle, state)?;
        if is_long {
            self.u48(version.0)?
        } else {
            self.u40(version.0)?
        };
        Some(self.at)
    }

    pub(super) fn address(&mut self, address: &Address) -> Option<()> {
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

pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
}

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[n]| n)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
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

    pub(super) fn term(&mut self) -> Option<Term> {
        Some(Term { counter: self.u48()?, node: NodeId(self.u16()?) })
    }

    pub(super) fn u40(&mut self) -> Option<u64> {
        let (high, low) = (self.u8()?, self.u32()?);
        Some(u64::from(high) << 32 | u64::from(low))
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

    pub(super) fn address(&mut self, v6: bool) -> Option<Address> {
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
