//! What one peer knows of the shards that one stream covers, and what it is to
//! be told next: ends first, then changes, then the walk that brings it up to
//! date (REQ A9, B4, B5).
//!
//! A flow is in the dirty queue at most once; what is sent is its newest state
//! at that moment. Memory is bounded: one byte for each place in the table, and a queue of
//! [`DIRTY_MAX`] entries. What finds the queue full keeps its mark, and is looked for when there is room.
//!
//! Beginning anew costs nothing: marks carry the number of the beginning that they belong
//! to, and count for none under another one.

use std::collections::VecDeque;

use crate::base::ids::{ShardId, Version};
use crate::base::memory::{NoMemory, Slab};
use crate::base::time::Instant;
use crate::flow::FlowIndex;
use crate::flow::entry::{Flow, FlowFlags};
use crate::flow::flows::Flows;
use crate::flow::shard::ShardSet;
use crate::mirror::in_flight::{Fate, Named, Sent};
use crate::mirror::record::{self, FlowState, Record};
use crate::mirror::record_v4;
use crate::mirror::tombstone::{Departed, Tombstones};

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
/// Where the number of the beginning stands.
const BEGINNING_SHIFT: u32 = 4;
/// Beginnings are numbered from 1 to this.
const BEGINNINGS: u8 = u8::MAX >> BEGINNING_SHIFT;

/// How far the walk over the table has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Walk {
    /// Flows below this place were named.
    At(u32),
    /// All were named; some are not acknowledged.
    Named,
    /// All are acknowledged; the end of the walk is to be said.
    EndDue,
    /// The end was said and not acknowledged.
    EndSent,
    /// The peer knows every flow.
    Done,
}

#[derive(Clone, Copy)]
struct Dirty {
    flow: u32,
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
    /// The peer refused the flow's state; it is not sent again before it changes.
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
    dirty: VecDeque<Dirty>,
    /// Changes that found the queue full, the place from which to look for them, and since when the oldest waits.
    missed: usize,
    look_at: u32,
    missed_since: Instant,
    older: Older,
    ended: VecDeque<(u32, Instant)>,
    walk: Walk,
    /// Flows marked [`WALKED`].
    outstanding: u32,
    known: u64,
}

impl Sync {
    /// Nothing is known, and there is nothing to tell: of no shard.
    pub fn new(capacity: u32) -> Result<Sync, NoMemory> {
        Ok(Sync {
            marks: Slab::new(capacity as usize)?,
            beginning: 1,
            shards: ShardSet::default(),
            dirty: VecDeque::with_capacity(DIRTY_MAX.min(capacity as usize)),
            missed: 0,
            look_at: 0,
            missed_since: Instant::ZERO,
            older: Older::default(),
            ended: VecDeque::new(),
            walk: Walk::Done,
            outstanding: 0,
            known: 0,
        })
    }

    /// Tells of these shards from now on, and begins anew.
    pub fn begin(&mut self, shards: ShardSet) {
        self.shards = shards;
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
        self.ended.clear();
        // Of no shard there is nothing to name, and no end to say.
        self.walk = if self.shards.is_empty() { Walk::Done } else { Walk::At(0) };
        self.outstanding = 0;
        self.known = 0;
    }

    /// From now on it tells of this shard too, of which the caller says what the peer knows; or of it no longer.
    pub fn tell_of(&mut self, shard: ShardId, tells: bool) {
        self.shards.set(shard, tells);
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
        self.walk == Walk::Done
    }

    /// Shards whose walk is not done: they are walked together.
    pub fn shards_to_walk(&self) -> usize {
        if self.walk_done() { 0 } else { self.shards.len() }
    }

    /// Whether the walk has something to name, or an end to say.
    pub fn has_walk_to_send(&self) -> bool {
        matches!(self.walk, Walk::At(_) | Walk::EndDue)
    }

    /// States and ends that wait to be sent.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.dirty.len() + self.missed + self.ended.len()
    }

    /// Since when the oldest of them waits.
    pub fn oldest_since(&self) -> Option<Instant> {
        let dirty = self.dirty.front().map(|dirty| dirty.since);
        let missed = (self.missed > 0).then_some(self.missed_since);
        let older = (self.older.among > 0).then_some(self.older.since);
        let ended = self.ended.front().map(|ended| ended.1);
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

    /// A flow was made or changed.
    pub fn changed(&mut self, now: Instant, flow: FlowIndex) {
        if !self.has(flow.0, QUEUED) {
            self.mark(flow.0, QUEUED, REFUSED);
            self.queue(Dirty { flow: flow.0, since: now }, false);
        }
    }

    fn queue(&mut self, dirty: Dirty, first: bool) {
        if self.dirty.len() >= DIRTY_MAX.min(self.marks.len()) {
            if self.missed == 0 {
                self.missed_since = dirty.since;
            }
            self.missed += 1;
        } else if first {
            self.dirty.push_front(dirty);
            self.older.among += usize::from(self.older.among > 0);
        } else {
            self.dirty.push_back(dirty);
        }
    }

    /// Looks for changes that found the queue full, from where it stopped the last time.
    fn look_for_missed(&mut self) {
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
                self.dirty.push_back(Dirty { flow, since: self.missed_since });
            }
        }
    }

    /// A flow left its place; its end waits at `tombstone`.
    pub fn ended(&mut self, now: Instant, flow: FlowIndex, tombstone: Option<u32>) {
        if self.has(flow.0, KNOWN) {
            self.known -= 1;
        }
        self.unwalk(flow.0);
        self.mark(flow.0, 0, KNOWN | REFUSED);
        if let Some(tombstone) = tombstone {
            self.ended.push_back((tombstone, now));
        }
    }

    /// The end that waits at a tombstone is to be told; its flow was never here.
    pub fn tell_end(&mut self, now: Instant, tombstone: u32) {
        self.ended.push_back((tombstone, now));
    }

    /// The ends at these tombstones are told by another worker.
    pub fn forget_ends(&mut self, tombstones: &[u32]) {
        if !tombstones.is_empty() {
            self.ended.retain(|(tombstone, _)| !tombstones.contains(tombstone));
        }
    }

    /// Writes the next record to send, into room for the longest: its length, and what to remember of it.
    pub fn write_next(
        &mut self,
        now: Instant,
        flows: &Flows,
        tombstones: &Tombstones,
        may_walk: bool,
        out: &mut [u8],
    ) -> Option<(usize, Sent)> {
        while let Some((tombstone, since)) = self.ended.pop_front() {
            if let Some(len) = write_end(tombstones, tombstone, out) {
                return Some((len, Sent { named: Named::Ended { tombstone }, since }));
            }
        }
        if self.missed > 0 {
            self.look_for_missed();
        }
        while let Some(dirty) = self.take_dirty() {
            if let Some(later) = self.dirty.get(AHEAD) {
                self.prefetch(FlowIndex(later.flow));
                flows.table.prefetch_tenant(FlowIndex(later.flow));
            }
            if let Some(next) = self.write_state(flows, dirty, out) {
                return Some(next);
            }
        }
        if may_walk { self.write_walked(now, flows, out) } else { None }
    }

    fn take_dirty(&mut self) -> Option<Dirty> {
        let mut dirty = self.dirty.pop_front()?;
        self.mark(dirty.flow, 0, QUEUED);
        if self.older.among > 0 {
            dirty.since = dirty.since.min(self.older.since);
            // Of those that were missed, nobody knows in which order they are found.
            self.older.among -= usize::from(self.missed == 0);
        }
        Some(dirty)
    }

    fn write_state(&self, flows: &Flows, dirty: Dirty, out: &mut [u8]) -> Option<(usize, Sent)> {
        let (hot, names) = flows.table.named(FlowIndex(dirty.flow))?;
        let shard = hot.shard();
        // The place may have gone to a flow of another stream's shard, which tells of it.
        if !hot.flags().contains(FlowFlags::MIRRORED) || !self.shards.has(shard) {
            return None;
        }
        let named = Named::Flow { shard, flow: dirty.flow, version: names.changed.version };
        let len = if record_v4::write_upsert(hot, &names, out) {
            record_v4::UPSERT_LEN
        } else {
            let flow = flows.table.get(FlowIndex(dirty.flow))?;
            record::write(&Record::Upsert { shard, flow: state(&flow) }, out)?
        };
        Some((len, Sent { named, since: dirty.since }))
    }

    /// The walk: names every flow once.
    fn write_walked(&mut self, now: Instant, flows: &Flows, out: &mut [u8]) -> Option<(usize, Sent)> {
        if let Walk::At(from) = self.walk {
            let end = flows.table.places_end().0.min(from.saturating_add(PLACES_PER_CALL));
            for place in from..end {
                self.walk = Walk::At(place + 1);
                let wanted = flows.table.hot(FlowIndex(place)).is_some_and(|hot| {
                    hot.flags().contains(FlowFlags::MIRRORED) && self.shards.has(hot.shard())
                });
                if wanted
                    && !self.has(place, KNOWN | WALKED)
                    && let Some(next) = self.write_state(flows, Dirty { flow: place, since: now }, out)
                {
                    self.mark(place, WALKED, 0);
                    self.outstanding += 1;
                    return Some(next);
                }
            }
            if end < flows.table.places_end().0 {
                return None; // More in the next call.
            }
            self.walk = if self.outstanding == 0 { Walk::EndDue } else { Walk::Named };
        }
        if self.walk == Walk::EndDue {
            let len = record::write(&Record::WalkEnd { shards: self.shards }, out)?;
            self.walk = Walk::EndSent;
            return Some((len, Sent { named: Named::WalkEnd, since: now }));
        }
        None
    }

    /// Asks for the memory that [`Sync::settle`] will need.
    #[inline]
    pub fn prefetch_settled(&self, sent: &Sent, flows: &Flows, tombstones: &Tombstones) {
        match sent.named {
            Named::Flow { flow, .. } => {
                self.prefetch(FlowIndex(flow));
                flows.table.prefetch_tenant(FlowIndex(flow));
            }
            Named::Ended { tombstone } => tombstones.prefetch(tombstone),
            Named::WalkEnd | Named::Floor { .. } => {}
        }
    }

    /// A sent record was settled.
    pub fn settle(&mut self, sent: Sent, fate: Fate, flows: &Flows) -> Settled {
        match (sent.named, fate) {
            (Named::Flow { shard, flow, version }, fate) => {
                if !current(flows, shard, flow, version) {
                    return Settled::Nothing;
                }
                self.flow_settled(shard, flow, fate, sent.since)
            }
            (Named::Ended { tombstone }, Fate::Applied) => Settled::Ended { tombstone },
            (Named::Ended { tombstone }, Fate::Lost | Fate::Refused) => {
                self.ended.push_front((tombstone, sent.since));
                Settled::Nothing
            }
            (Named::Floor { .. }, _) => Settled::Nothing,
            (Named::WalkEnd, fate) => {
                if self.walk == Walk::EndSent {
                    self.walk = if fate == Fate::Applied { Walk::Done } else { Walk::EndDue };
                }
                Settled::Nothing
            }
        }
    }

    pub(super) fn flow_settled(&mut self, shard: ShardId, flow: u32, fate: Fate, since: Instant) -> Settled {
        let settled = Settled::Known { shard, flow: FlowIndex(flow), since };
        match fate {
            Fate::Applied => {
                let first = !self.has(flow, KNOWN);
                self.known += u64::from(first);
                self.mark(flow, KNOWN, REFUSED);
                self.unwalk(flow);
                if first { settled } else { Settled::Nothing }
            }
            Fate::Refused => {
                self.mark(flow, REFUSED, 0);
                self.unwalk(flow);
                Settled::Refused { shard, flow: FlowIndex(flow) }
            }
            Fate::Lost => {
                // A later state, if there is one, waits or is on its way; saying this again does no harm.
                if !self.has(flow, QUEUED) {
                    self.mark(flow, QUEUED, 0);
                    self.queue(Dirty { flow, since }, true);
                } else if !self.has(flow, KNOWN) {
                    let before = if self.older.among > 0 { self.older.since } else { since };
                    self.older = Older { since: before.min(since), among: self.dirty.len() + self.missed };
                }
                Settled::Nothing
            }
        }
    }

    fn unwalk(&mut self, flow: u32) {
        if self.has(flow, WALKED) {
            self.mark(flow, 0, WALKED);
            self.outstanding -= 1;
            if self.outstanding == 0 && self.walk == Walk::Named {
                self.walk = Walk::EndDue;
            }
        }
    }
}

/// Whether the flow of which `version` was sent is still at its place: versions
/// rise over all flows of a shard, so a later tenant was created above it.
fn current(flows: &Flows, shard: ShardId, flow: u32, version: Version) -> bool {
    flows.table.tenant(FlowIndex(flow)).is_some_and(|(of, created)| of == shard && created <= version)
}

/// Writes the end that waits at a tombstone, if it still does; its length.
fn write_end(tombstones: &Tombstones, tombstone: u32, out: &mut [u8]) -> Option<usize> {
    let Departed { shard, stamp, client, .. } = *tombstones.at(tombstone)?;
    if record_v4::write_delete(shard, stamp, client, out) {
        return Some(record_v4::DELETE_LEN);
    }
    record::write(&Record::Delete { shard, stamp, client: tombstones.client(tombstone)? }, out)
}

/// A flow's state as a peer needs it: as it is to go on with it.
pub fn state(flow: &Flow) -> FlowState {
    FlowState {
        stamp: flow.changed,
        client: flow.client,
        server: flow.server,
        virtual_server: flow.virtual_server,
        pool: flow.pool,
        server_id: flow.server_id,
        tcp: flow.tcp.after_takeover(),
        full_nat: flow.is_full_nat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lose(sync: &mut Sync, flow: u32, since: Instant) {
        assert_eq!(sync.flow_settled(ShardId(0), flow, Fate::Lost, since), Settled::Nothing);
    }

    #[test]
    fn a_flow_whose_first_state_is_lost_while_a_later_one_is_queued_has_waited_since_the_first() {
        let at = Instant::from_millis;
        let mut sync = Sync::new(16).expect("memory");
        sync.changed(at(1), FlowIndex(3));
        sync.changed(at(2), FlowIndex(4));
        assert_eq!(sync.take_dirty().map(|dirty| dirty.flow), Some(3));
        assert_eq!(sync.take_dirty().map(|dirty| dirty.flow), Some(4));
        sync.changed(at(5), FlowIndex(3));
        lose(&mut sync, 3, at(1));
        assert_eq!(sync.oldest_since(), Some(at(1)));
        // The other one is sent again first.
        lose(&mut sync, 4, at(2));
        sync.changed(at(6), FlowIndex(5));
        let sent: Vec<_> = core::iter::from_fn(|| sync.take_dirty()).map(|d| (d.flow, d.since)).collect();
        assert_eq!(sent, [(4, at(1)), (3, at(1)), (5, at(6))]);
        assert_eq!(sync.oldest_since(), None);
    }

    #[test]
    fn a_later_state_of_a_flow_that_the_peer_knows_waits_only_since_it_came() {
        let at = Instant::from_millis;
        let mut sync = Sync::new(16).expect("memory");
        sync.flow_settled(ShardId(0), 3, Fate::Applied, at(1));
        sync.changed(at(5), FlowIndex(3));
        lose(&mut sync, 3, at(2));
        assert_eq!(sync.oldest_since(), Some(at(5)));
    }
}
