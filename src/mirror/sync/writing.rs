//! What changed or ended, as it is said.

use crate::base::time::Instant;
use crate::flow::FlowIndex;
use crate::flow::entry::{Flow, FlowFlags};
use crate::flow::flows::Flows;
use crate::mirror::digest::Digests;
use crate::mirror::handle::Handle;
use crate::mirror::in_flight::{Named, Sent};
use crate::mirror::record::{self, FlowState, Record};
use crate::mirror::record_v4;
use crate::mirror::said::Said;
use crate::mirror::sync::{AHEAD, BOUND, Dirty, Ended, QUEUED, Sync, WALKED};
use crate::mirror::tombstone::{Departed, Tombstones};

/// Ends that go before a change that waits. A flow that begins with the keys of one that ended is known to be the later
/// one by its version, whichever comes first.
const ENDS_IN_A_ROW: u8 = 3;

impl Sync {
    /// Writes the next record that does not belong to a walk, into room for the longest: its length, and what to remember
    /// of it.
    pub fn write_next(
        &mut self,
        flows: &Flows,
        tombstones: &Tombstones,
        digests: &mut Digests,
        out: &mut [u8],
    ) -> Option<(usize, Sent)> {
        // However many end at once, those that begin, for which packets may wait, have a share.
        if (self.ends_said < ENDS_IN_A_ROW || self.dirty.is_empty())
            && let Some(next) = self.write_waiting_end(tombstones, out)
        {
            self.ends_said = self.ends_said.saturating_add(1);
            return Some(next);
        }
        self.ends_said = 0;
        if self.missed > 0 {
            self.look_for_missed(flows);
        }
        while let Some(dirty) = self.take_dirty() {
            if let Some(later) = self.dirty.get(AHEAD) {
                self.prefetch(FlowIndex(later.flow));
                digests.prefetch(FlowIndex(later.flow));
                flows.table.prefetch_tenant(FlowIndex(later.flow));
            }
            if let Some(next) = self.write_state(false, flows, digests, (dirty.flow, dirty.since), out) {
                return Some(next);
            }
        }
        self.write_waiting_end(tombstones, out)
    }

    fn write_waiting_end(&mut self, tombstones: &Tombstones, out: &mut [u8]) -> Option<(usize, Sent)> {
        while let Some(Ended { tombstone, shard, handle, since }) = self.ended.pop_front() {
            if let Some(len) = write_end(&mut self.said, tombstones, (tombstone, handle), out) {
                // It waited, and is on its way.
                self.speaks_of(shard);
                return Some((len, Sent { named: Named::Ended { shard, tombstone }, since }));
            }
            self.unsettled[usize::from(shard.0)] -= 1;
        }
        None
    }

    pub(super) fn take_dirty(&mut self) -> Option<Dirty> {
        let mut dirty = self.dirty.pop_front()?;
        self.mark(dirty.flow, 0, QUEUED);
        self.unsettled[usize::from(dirty.shard.0)] -= 1;
        // Of those that were missed, nobody knows in which order they are found.
        self.displaced = self.displaced.saturating_sub(usize::from(self.missed == 0));
        if self.older.among > 0 {
            dirty.since = dirty.since.min(self.older.since);
            self.older.among -= usize::from(self.missed == 0);
        }
        Some(dirty)
    }

    /// The newest state of a flow: in full, or by its handle if the peer knows it, the flow changed in the frame's term, and it is
    /// not for a walk.
    pub(super) fn write_state(
        &mut self,
        is_walked: bool,
        flows: &Flows,
        digests: &mut Digests,
        (flow, since): (u32, Instant),
        out: &mut [u8],
    ) -> Option<(usize, Sent)> {
        let place = FlowIndex(flow);
        let (hot, names) = flows.table.named(place)?;
        let shard = hot.shard();
        // The place may have gone to a flow of another stream's shard, which tells of it.
        if !hot.flags().contains(FlowFlags::MIRRORED) || !self.shards.has(shard) {
            return None;
        }
        if !self.tracked.has(names.virtual_server) {
            return None;
        }
        let handle = Handle::new(place, shard, flows.table.tenant(place)?.1);
        // One that a walk is about to name is named.
        let may_shorten = !is_walked
            && self.said.term == names.changed.term
            && self.has(flow, BOUND)
            && !self.has(flow, WALKED);
        let short = if may_shorten { record_v4::write_update(hot, &names, handle, out) } else { None };
        let in_full = short.is_none().then(|| self.walk.round());
        let named = Named::Flow { shard, flow, version: names.changed.version, in_full };
        let said = &mut self.said;
        let len = match short.or_else(|| record_v4::write_upsert(hot, &names, handle, said, out)) {
            Some(len) => len,
            None => {
                let flow = state(&flows.table.get(place)?);
                record::write(&Record::Upsert { shard, flow, handle }, said, out)?
            }
        };
        digests.note_named(&flows.table, place, hot, &names);
        self.unsettled[usize::from(shard.0)] += 1;
        self.speaks_of(shard);
        Some((len, Sent { named, since }))
    }
}

/// Writes the end that waits at a tombstone, if it still does; its length.
fn write_end(
    said: &mut Said,
    tombstones: &Tombstones,
    (tombstone, handle): (u32, Option<Handle>),
    out: &mut [u8],
) -> Option<usize> {
    let Departed { shard, stamp, client, .. } = *tombstones.at(tombstone)?;
    if let Some(handle) = handle.filter(|_| stamp.term == said.term) {
        return record::write(&Record::End { handle, version: stamp.version }, said, out);
    }
    if record_v4::write_delete(shard, stamp, client, out) {
        return Some(record_v4::DELETE_LEN);
    }
    record::write(&Record::Delete { shard, stamp, client: tombstones.client(tombstone)? }, said, out)
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
        chosen: flow.flags.contains(FlowFlags::CHOSEN),
    }
}
