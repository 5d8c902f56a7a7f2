//! What one peer knows of the shards that one stream covers, and what it is to
//! be told next: ends and changes, then the walk that brings it up to
//! date (REQ A9, B4, B5); none of them for ever before the others.
//!
//! A flow is in the dirty queue at most once; what is sent is its newest state
//! at that moment. Memory is bounded: one byte for each place in the table, and a queue of
//! [`DIRTY_MAX`] entries. What finds the queue full keeps its mark, and is looked for when there is room.
//!
//! Of each shard it is counted what waits or is on its way: while that is nothing, and no flow of it is refused, the peer's
//! flows of the shard are this appliance's ([`digest`](super::digest)).
//!
//! Beginning anew costs nothing: marks carry the number of the beginning that they belong
//! to, and count for none under another one.

mod maintaining;
mod walking;
mod writing;

use std::collections::VecDeque;

use crate::base::ids::{ShardId, Term, Version};
use crate::base::limits::SHARDS;
use crate::base::memory::{NoMemory, Slab};
use crate::base::time::Instant;
use crate::flow::FlowIndex;
use crate::flow::flows::Flows;
use crate::flow::layout::Hot;
use crate::flow::shard::ShardSet;
use crate::mirror::asking::{Agreement, Asking};
use crate::mirror::handle::Handle;
use crate::mirror::in_flight::{Fate, Named, Sent};
use crate::mirror::said::Said;
use crate::mirror::tombstone::{DEPARTED_MAX, Tombstones};
use crate::mirror::walk::{Due, Walk};
use crate::seal::{Mirroring, Tracked};

pub use self::writing::state;

/// Changes that wait in order. Further ones are found by looking over the marks.
pub const DIRTY_MAX: usize = 1 << 16;

/// Places looked at in one call, by the walk or for changes that found the queue full: so no call takes long.
const PLACES_PER_CALL: u32 = 4096;

/// Changes behind the one that is written for which memory is asked for.
const AHEAD: usize = 8;

/// In the dirty queue, or to be found when there is room in it.
const QUEUED: u8 = 1;
/// Named by the walk and not yet acknowledged.
const WALKED: u8 = 2;
/// The peer has acknowledged the flow in some state.
const KNOWN: u8 = 4;
/// The peer has refused the newest state that it was sent.
const REFUSED: u8 = 8;
/// The peer has acknowledged a record that names the flow and its handle.
const BOUND: u8 = 16;
/// Where the number of the beginning stands.
const BEGINNING_SHIFT: u32 = 5;
/// Beginnings are numbered from 1 to this.
const BEGINNINGS: u8 = u8::MAX >> BEGINNING_SHIFT;

#[derive(Clone, Copy)]
struct Dirty {
    flow: u32,
    /// Of the flow that was there when it was put into the queue.
    shard: ShardId,
    since: Instant,
}

/// An older state was lost while a later one stood in the queue: some entry has waited for longer than it says.
#[derive(Clone, Copy, Default)]
struct Older {
    /// Since then, at most.
    since: Instant,
    /// It is among so many entries at the front.
    among: usize,
}

/// What became of a settled record, for whoever holds packets or ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The peer knows this flow, for the first time; its state had waited since then.
    Known {
        /// Its shard.
        shard: ShardId,
        /// Its place.
        flow: FlowIndex,
        /// Since when it waited.
        since: Instant,
    },
    /// The peer refused the flow's state; it is sent again when it changes, and now and then.
    Refused {
        /// Its shard.
        shard: ShardId,
        /// Its place.
        flow: FlowIndex,
    },
    /// The peer knows that the flow at this tombstone ended.
    Ended {
        /// The tombstone's place.
        tombstone: u32,
    },
    /// The peer's digest of a shard differs: the shard is walked again.
    Differs {
        /// The shard.
        shard: ShardId,
        /// It agreed when it was asked before.
        is_news: bool,
    },
    /// Nothing that anyone waits for.
    Nothing,
}

/// One stream's share of what a peer knows.
pub struct Sync {
    /// For each place in the table.
    marks: Slab<u8>,
    beginning: u8,
    /// Of these shards.
    shards: ShardSet,
    /// And of flows of these virtual servers alone.
    tracked: Tracked,
    dirty: VecDeque<Dirty>,
    /// Changes that found the queue full, the place from which to look for them, and since when the oldest waits.
    missed: usize,
    look_at: u32,
    missed_since: Instant,
    older: Older,
    ended: VecDeque<Ended>,
    /// Its outstanding flows are those marked [`WALKED`].
    walk: Walk,
    known: u64,
    /// Of each shard: entries in both queues, records on their way, flows marked [`REFUSED`].
    unsettled: Vec<u32>,
    /// Flows marked [`REFUSED`], and the place from which to look for them.
    refused: u32,
    refused_at: u32,
    asking: Asking,
    /// When the walk last looked at as many flows as one call may, and named none.
    looked_in_vain: Option<Instant>,
    /// So many entries at the front of the queue may stand under another shard than their flow's.
    displaced: usize,
    /// Ends said since the last change.
    ends_said: u8,
    /// What the frame that is being written has said.
    pub(super) said: Said,
    /// What changes of a flow whose handle the peer knows is said without asking for an acknowledgement.
    maintains: bool,
    /// Of each shard: what was said of its flows since then, whether it is to be acknowledged or not.
    said_of: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Ended {
    tombstone: u32,
    shard: ShardId,
    /// By which the peer knew the flow.
    handle: Option<Handle>,
    since: Instant,
}

impl Sync {
    /// Nothing is known, and there is nothing to tell: of no shard.
    pub fn new(capacity: u32) -> Result<Sync, NoMemory> {
        Ok(Sync {
            marks: Slab::new(capacity as usize)?,
            beginning: 1,
            shards: ShardSet::default(),
            tracked: Tracked::ALL,
            dirty: VecDeque::with_capacity(DIRTY_MAX.min(capacity as usize)),
            missed: 0,
            look_at: 0,
            missed_since: Instant::ZERO,
            older: Older::default(),
            ended: VecDeque::with_capacity(DEPARTED_MAX),
            walk: Walk::default(),
            known: 0,
            unsettled: vec![0; SHARDS],
            refused: 0,
            refused_at: 0,
            asking: Asking::default(),
            looked_in_vain: None,
            displaced: 0,
            ends_said: 0,
            said: Said::new(Term::NONE),
            maintains: false,
            said_of: vec![0; SHARDS],
        })
    }

    /// Has memory put behind the marks.
    pub fn populate(&self) {
        self.marks.populate();
    }

    /// Tells of these shards from now on, in this way, and begins anew.
    pub fn begin(&mut self, shards: ShardSet, mirroring: Mirroring) {
        (self.shards, self.tracked) = (shards, mirroring.tracked);
        self.restart();
    }

    /// Forgets what the peer knows: every flow is to be walked again.
    pub fn restart(&mut self) {
        self.beginning += 1;
        if self.beginning > BEGINNINGS {
            self.marks.fill(0);
            self.beginning = 1;
        }
        self.dirty.clear();
        self.missed = 0;
        self.older = Older::default();
        (self.displaced, self.ends_said) = (0, 0);
        self.ended.clear();
        self.walk.begin(self.shards);
        self.known = 0;
        self.unsettled.fill(0);
        self.refused = 0;
        self.asking.begin_anew();
    }

    /// From now on it tells of this shard too, of which the caller says what the peer knows; or of it no longer.
    pub fn tell_of(&mut self, shard: ShardId, tells: bool) {
        self.shards.set(shard, tells);
        self.asking.forget(shard);
        if !tells {
            self.walk.leave_out(shard);
            let left = self.dirty.iter().filter(|dirty| dirty.shard == shard).count();
            self.unsettled[usize::from(shard.0)] = left as u32;
        }
    }

    /// Whether nothing of this shard waits, is on its way or is refused: the peer has every flow of it, and no other.
    pub fn is_settled(&self, shard: ShardId) -> bool {
        self.walk.is_done() && self.missed + self.displaced == 0 && self.unsettled[usize::from(shard.0)] == 0
    }

    /// Flows that the peer refused, in their newest state.
    pub fn refused(&self) -> u32 {
        self.refused
    }

    /// How far digests agree.
    pub fn agreement(&self) -> Agreement {
        self.asking.agreement()
    }

    /// Of how many shards it tells.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Whether it tells of any shard.
    pub fn is_idle(&self) -> bool {
        self.shards.is_empty()
    }

    /// The peer knows this flow, which came with its shard from another worker, in the newest state of all.
    pub fn came_known(&mut self, flow: FlowIndex) {
        self.known += u64::from(!self.has(flow.0, KNOWN));
        self.mark(flow.0, KNOWN, 0);
    }

    /// Whether a change of the flow waits to be sent.
    pub fn is_queued(&self, flow: FlowIndex) -> bool {
        self.has(flow.0, QUEUED)
    }

    /// Flows that the peer knows.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// Whether every flow was walked and the peer has acknowledged the walk's end.
    pub fn walk_done(&self) -> bool {
        self.walk.is_done()
    }

    /// Shards whose walk is not done: they are walked together.
    pub fn shards_to_walk(&self) -> usize {
        self.walk.left()
    }

    /// Whether the walk has something to name, or an end to say, and did not look in vain at this time.
    pub fn has_walk_to_send(&self, now: Instant) -> bool {
        self.walk.due() != Due::Nothing && self.looked_in_vain != Some(now)
    }

    /// When the peer is to be asked for digests; `None`: not before it is up to date.
    pub fn asks_at(&self) -> Option<Instant> {
        (self.walk.is_done() && !self.is_idle()).then(|| self.asking.due_at())
    }

    /// States and ends that wait to be sent.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.dirty.len() + self.missed + self.ended.len()
    }

    /// Entries in the queue of changes, and in that of ends.
    pub(super) fn queued(&self) -> (usize, usize) {
        (self.dirty.len(), self.ended.len())
    }

    /// Since when the oldest of them waits.
    pub fn oldest_since(&self) -> Option<Instant> {
        let dirty = self.dirty.front().map(|dirty| dirty.since);
        let missed = (self.missed > 0).then_some(self.missed_since);
        let older = (self.older.among > 0).then_some(self.older.since);
        let ended = self.ended.front().map(|ended| ended.since);
        dirty.into_iter().chain(missed).chain(older).chain(ended).min()
    }

    /// Whether the peer knows the flow in any state.
    pub fn knows(&self, flow: FlowIndex) -> bool {
        self.has(flow.0, KNOWN)
    }

    /// Whether the peer knows the flow in any state, or has refused its newest one: no packet waits for it then.
    pub fn has_answered(&self, flow: FlowIndex) -> bool {
        self.has(flow.0, KNOWN | REFUSED)
    }

    /// Asks for the line of a flow's marks.
    #[inline(always)]
    pub fn prefetch(&self, flow: FlowIndex) {
        self.marks.prefetch_write(flow.slot());
    }

    fn has(&self, flow: u32, mark: u8) -> bool {
        self.marks
            .get(flow as usize)
            .is_some_and(|marks| marks >> BEGINNING_SHIFT == self.beginning && marks & mark != 0)
    }

    /// Sets and clears marks of a flow.
    fn mark(&mut self, flow: u32, set: u8, clear: u8) {
        if let Some(marks) = self.marks.get_mut(flow as usize) {
            if *marks >> BEGINNING_SHIFT != self.beginning {
                *marks = self.beginning << BEGINNING_SHIFT;
            }
            *marks = (*marks | set) & !clear;
        }
    }

    /// A flow of this shard was made or changed.
    pub fn changed(&mut self, now: Instant, shard: ShardId, flow: FlowIndex) {
        if !self.has(flow.0, QUEUED) {
            self.accept(shard, flow.0);
            self.mark(flow.0, QUEUED, 0);
            self.queue(Dirty { flow: flow.0, shard, since: now }, false);
        }
    }

    /// As [`Sync::changed`], of what the peer is to be told in full.
    pub fn changed_in_full(&mut self, now: Instant, shard: ShardId, flow: FlowIndex) {
        self.mark(flow.0, 0, BOUND);
        self.changed(now, shard, flow);
    }

    /// A flow is not refused, or no longer.
    #[inline]
    fn accept(&mut self, shard: ShardId, flow: u32) {
        if self.has(flow, REFUSED) {
            self.mark(flow, 0, REFUSED);
            self.unsettled[usize::from(shard.0)] -= 1;
            self.refused -= 1;
        }
    }

    fn queue(&mut self, dirty: Dirty, first: bool) {
        if self.dirty.len() >= DIRTY_MAX.min(self.marks.len()) {
            if self.missed == 0 {
                self.missed_since = dirty.since;
            }
            self.missed += 1;
            return;
        }
        self.unsettled[usize::from(dirty.shard.0)] += 1;
        if first {
            self.dirty.push_front(dirty);
            self.older.among += usize::from(self.older.among > 0);
            self.displaced += usize::from(self.displaced > 0);
        } else {
            self.dirty.push_back(dirty);
        }
    }

    /// Looks for changes that found the queue full, from where it stopped the last time.
    fn look_for_missed(&mut self, flows: &Flows) {
        let end = self.marks.len() as u32;
        // What stands in the queue has its mark too: to be found again it must not be in it.
        if !self.dirty.is_empty() {
            return;
        }
        for _ in 0..PLACES_PER_CALL.min(end) {
            if self.missed == 0 {
                return;
            }
            let flow = self.look_at;
            self.look_at = if flow + 1 == end { 0 } else { flow + 1 };
            if self.has(flow, QUEUED) {
                self.missed -= 1;
                match flows.table.hot(FlowIndex(flow)).map(Hot::shard) {
                    Some(shard) => {
                        self.unsettled[usize::from(shard.0)] += 1;
                        self.dirty.push_back(Dirty { flow, shard, since: self.missed_since });
                    }
                    None => self.mark(flow, 0, QUEUED),
                }
            }
        }
    }

    /// A flow of this shard, which began with this version, left its place; its end waits at `tombstone`.
    pub fn ended(
        &mut self,
        now: Instant,
        shard: ShardId,
        flow: FlowIndex,
        created: Version,
        tombstone: Option<u32>,
    ) {
        if self.has(flow.0, KNOWN) {
            self.known -= 1;
        }
        self.unwalk(flow.0, Some(self.walk.round()));
        self.accept(shard, flow.0);
        if self.has(flow.0, QUEUED) {
            // Its entry is found where it stands by nobody, and may come to be another flow's, of another shard.
            self.displaced = self.dirty.len() + self.missed;
        }
        let handle = self.has(flow.0, BOUND).then(|| Handle::new(flow, shard, created));
        self.mark(flow.0, 0, KNOWN | BOUND);
        if let Some(tombstone) = tombstone {
            self.unsettled[usize::from(shard.0)] += 1;
            self.ended.push_back(Ended { tombstone, shard, handle, since: now });
        }
    }

    /// The end that waits at a tombstone is to be told; its flow was never here.
    pub fn tell_end(&mut self, now: Instant, shard: ShardId, tombstone: u32) {
        self.unsettled[usize::from(shard.0)] += 1;
        self.ended.push_back(Ended { tombstone, shard, handle: None, since: now });
    }

    /// The ends at these tombstones are told by another worker.
    pub fn forget_ends(&mut self, tombstones: &[u32]) {
        let Sync { ended, unsettled, .. } = self;
        ended.retain(|of| {
            let stays = !tombstones.contains(&of.tombstone);
            unsettled[usize::from(of.shard.0)] -= u32::from(!stays);
            stays
        });
    }

    /// Asks for the memory that [`Sync::settle`] will need.
    #[inline]
    pub fn prefetch_settled(&self, sent: &Sent, flows: &Flows, tombstones: &Tombstones) {
        match sent.named {
            Named::Flow { flow, .. } => {
                self.prefetch(FlowIndex(flow));
                flows.table.prefetch_tenant(FlowIndex(flow));
            }
            Named::Ended { tombstone, .. } => tombstones.prefetch(tombstone),
            Named::WalkBegin
            | Named::WalkEnd
            | Named::Digest { .. }
            | Named::Floor { .. }
            | Named::Nothing => {}
        }
    }

    /// A sent record was settled.
    pub fn settle(&mut self, sent: Sent, fate: Fate, flows: &Flows) -> Settled {
        match (sent.named, fate) {
            (Named::Flow { shard, flow, version, in_full }, fate) => {
                self.unsettled[usize::from(shard.0)] -= 1;
                if !current(flows, shard, flow, version) {
                    return Settled::Nothing;
                }
                self.flow_settled(shard, flow, in_full, fate, sent.since)
            }
            (Named::Ended { shard, tombstone }, Fate::Applied) => {
                self.unsettled[usize::from(shard.0)] -= 1;
                Settled::Ended { tombstone }
            }
            (Named::Ended { shard, tombstone }, Fate::Lost | Fate::Refused) => {
                self.ended.push_front(Ended { tombstone, shard, handle: None, since: sent.since });
                Settled::Nothing
            }
            (Named::Floor { .. } | Named::Nothing, _) => Settled::Nothing,
            (Named::WalkBegin, fate) => {
                self.walk.begin_settled(fate);
                Settled::Nothing
            }
            (Named::WalkEnd, fate) => {
                let over = self.walk.end_settled(fate);
                over.iter().for_each(|shards| self.asking.told(shards));
                Settled::Nothing
            }
            (Named::Digest { shard, version, said }, fate) => {
                self.answered(shard, (sent.since, version), said, fate, flows)
            }
        }
    }

    pub(super) fn flow_settled(
        &mut self,
        shard: ShardId,
        flow: u32,
        in_full: Option<u8>,
        fate: Fate,
        since: Instant,
    ) -> Settled {
        let settled = Settled::Known { shard, flow: FlowIndex(flow), since };
        match fate {
            Fate::Applied => {
                let first = !self.has(flow, KNOWN);
                self.known += u64::from(first);
                self.accept(shard, flow);
                self.mark(flow, KNOWN, 0);
                if in_full.is_some() {
                    self.mark(flow, BOUND, 0);
                }
                self.unwalk(flow, in_full);
                if first { settled } else { Settled::Nothing }
            }
            // It is the handle that is not known.
            Fate::Refused if in_full.is_none() => {
                self.mark(flow, 0, BOUND);
                self.changed(since, shard, FlowIndex(flow));
                Settled::Nothing
            }
            Fate::Refused => {
                if !self.has(flow, REFUSED) {
                    self.unsettled[usize::from(shard.0)] += 1;
                    self.refused += 1;
                }
                // It may have an older state, or nothing.
                self.known -= u64::from(self.has(flow, KNOWN));
                self.mark(flow, REFUSED, KNOWN | BOUND);
                self.unwalk(flow, in_full);
                Settled::Refused { shard, flow: FlowIndex(flow) }
            }
            Fate::Lost => {
                // A later state, if there is one, waits or is on its way; saying this again does no harm.
                if !self.has(flow, QUEUED) {
                    self.mark(flow, QUEUED, 0);
                    self.queue(Dirty { flow, shard, since }, true);
                } else if !self.has(flow, KNOWN) {
                    let before = if self.older.among > 0 { self.older.since } else { since };
                    self.older = Older { since: before.min(since), among: self.dirty.len() + self.missed };
                }
                Settled::Nothing
            }
        }
    }
}

/// Whether the flow of which `version` was sent is still at its place: versions
/// rise over all flows of a shard, so a later tenant was created above it.
fn current(flows: &Flows, shard: ShardId, flow: u32, version: Version) -> bool {
    flows.table.tenant(FlowIndex(flow)).is_some_and(|(of, created)| of == shard && created <= version)
}

#[cfg(test)]
mod tests;
