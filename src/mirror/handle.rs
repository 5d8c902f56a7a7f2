//! Handles: a flow that a peer knows goes by a short name (DESIGN "Mirroring").
//!
//! A record that names a flow in full says under which handle it will be known: its shard, its place in the sender's table, and
//! a part of the version with which it began, since places are used again. Once the peer has acknowledged such a record, under
//! the same beginning of the stream, changes of the flow's state and its end go by the handle. A receiver that knows no such
//! handle, whatever the reason, refuses the record, and the sender says it in full.
//!
//! So nothing has to be agreed about: after a restart, a takeover or a move the sender says each flow in full once more, and
//! whatever the receiver had under its handle gives way. What is left are records that come late. One that names an earlier flow of
//! the place in full is of an earlier frame than what names the present one, and takes nothing from it. One by an earlier flow's
//! handle has another shard or another generation, or comes in a frame that was sent before the present flow was named, or has
//! a version from before it began ([`receiver`](super::receiver)), or finds another flow where its own was, which another stream has
//! put there: it is refused.

use crate::base::ids::{ShardId, Version};
use crate::base::limits::SHARDS;
use crate::base::memory::{NoMemory, Slab};
use crate::flow::FlowIndex;
use crate::flow::table::{CAPACITY_MAX, Table};

/// A flow's short name on one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Its place at the sender, below [`PLACES_MAX`].
    pub place: u32,
    /// Its shard: versions of others say nothing of this flow.
    pub shard: ShardId,
    /// The low bits of the version with which it began.
    pub generation: u16,
}

/// Places that a handle can name: the bits above are used otherwise in a record.
pub const PLACES_MAX: u32 = 1 << 28;
const _: () = assert!(CAPACITY_MAX <= PLACES_MAX);

impl Handle {
    /// Of a flow of this shard and at this place, that began with this version.
    pub const fn new(place: FlowIndex, shard: ShardId, created: Version) -> Handle {
        Handle { place: place.0, shard, generation: created.0 as u16 }
    }
}

/// To which flow of the receiver each handle leads.
pub struct Handles {
    /// For each place at the sender; none: see [`BOUND`]. Where the sender has more of them, some share one here: the
    /// last one that was named has it.
    to: Slab<u64>,
    /// The frame that said so.
    at: Slab<u64>,
    /// For each place here the sender's place, plus one: of that handle alone it is the flow.
    from: Slab<u32>,
    /// Frames of earlier sessions.
    before: u64,
    /// The newest frame of this one that said anything.
    newest: u64,
}

/// This bit says that there is a flow; below it stand its generation, its shard, the low bits of the version with which it began here,
/// and its place here.
const BOUND: u64 = 1 << 63;
const NAME_SHIFT: u32 = 39;
const CREATED_SHIFT: u32 = PLACES_MAX.trailing_zeros();
const _: () = assert!(SHARDS <= 1 << 8 && CREATED_SHIFT < NAME_SHIFT && NAME_SHIFT + 8 + 16 == 63);

/// As in `to`, with no place here.
const fn name(handle: Handle) -> u64 {
    BOUND | (handle.generation as u64) << (NAME_SHIFT + 8) | ((handle.shard.0 as u8) as u64) << NAME_SHIFT
}

/// As in `to`, without its name.
const fn place(here: FlowIndex, created: Version) -> u64 {
    (created.0 << CREATED_SHIFT | (here.0 % PLACES_MAX) as u64) % (1 << NAME_SHIFT)
}

/// The place here that `to` says.
const fn place_in(to: u64) -> FlowIndex {
    FlowIndex((to % PLACES_MAX as u64) as u32)
}

impl Handles {
    /// None is known, for flows at so many places here.
    pub fn new(capacity: u32) -> Result<Handles, NoMemory> {
        let capacity = capacity as usize;
        Ok(Handles {
            to: Slab::new(capacity)?,
            at: Slab::new(capacity)?,
            from: Slab::new(capacity)?,
            before: 0,
            newest: 0,
        })
    }

    /// Has memory put behind all of it.
    pub fn populate(&self) {
        self.to.populate();
        self.at.populate();
        self.from.populate();
    }

    /// Frames are numbered anew: all are later than those before.
    pub fn open_session(&mut self) {
        self.before += self.newest + 1;
        self.newest = 0;
    }

    /// Where in `to` and `at` a place of the sender's stands.
    fn slot(&self, place: u32) -> Option<usize> {
        (place as usize).checked_rem(self.to.len())
    }

    /// What the frame of this sequence named in full is now known under this handle: the flow at this place, which began here with
    /// this version, or, late, none.
    pub fn bind(&mut self, handle: Handle, here: Option<(FlowIndex, Version)>, sequence: u64) {
        let at = self.before + sequence;
        let Some(slot) = self.slot(handle.place).filter(|slot| at >= self.at[*slot]) else { return };
        self.newest = self.newest.max(sequence);
        (self.to[slot], self.at[slot]) = (0, at);
        if let Some((here, created)) = here
            && let Some(from) = self.from.get_mut(here.slot())
        {
            self.to[slot] = name(handle) | place(here, created);
            *from = handle.place + 1;
        }
    }

    /// The flow has left this place.
    pub fn forget(&mut self, here: FlowIndex) {
        if let Some(from) = self.from.get_mut(here.slot()) {
            *from = 0;
        }
    }

    /// Asks for what is known of the handle of a place at the sender.
    #[inline]
    pub fn prefetch(&self, place: u32) {
        if let Some(slot) = self.slot(place) {
            self.to.prefetch_write(slot);
            self.at.prefetch_write(slot);
        }
    }

    /// Where the handle of a place at the sender probably leads, and asks for what says so.
    #[inline]
    pub fn probably(&self, place: u32) -> Option<FlowIndex> {
        let to = self.to[self.slot(place)?];
        let here = (to & BOUND != 0).then_some(place_in(to))?;
        self.from.prefetch(here.slot());
        Some(here)
    }

    /// The flow that is meant in the frame of this sequence. Its sender has heard before that the handle is known.
    pub fn find(&self, handle: Handle, sequence: u64, table: &Table) -> Option<FlowIndex> {
        let slot = self.slot(handle.place)?;
        let to = self.to[slot];
        if to >> NAME_SHIFT != name(handle) >> NAME_SHIFT || self.before + sequence <= self.at[slot] {
            return None;
        }
        let here = place_in(to);
        let (shard, created) = table.tenant(here)?;
        let is_it = self.from.get(here.slot()).is_some_and(|from| *from == handle.place + 1)
            && shard == handle.shard
            && to == name(handle) | place(here, created);
        is_it.then_some(here)
    }
}
