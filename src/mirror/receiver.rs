//! The receiving side of one stream: applies state records to the shards of
//! this worker, newest wins (REQ A1, C6).
//!
//! A record is applied before its frame is acknowledged. One that cannot be
//! applied is refused by name, with the reason, in answer to its frame.

use crate::base::ids::ShardId;
use crate::base::memory::{NoMemory, Slab};
use crate::flow::FlowIndex;
use crate::flow::entry::{Flow, FlowFlags, Stamp};
use crate::flow::flows::Flows;
use crate::flow::key::Key;
use crate::flow::shard::ShardSet;
use crate::flow::table::Insert;
use crate::mirror::record::{FlowState, Record, Refusal};
use crate::mirror::tombstone::Graves;

/// What applying records does to the rest of the worker.
pub trait Effects {
    /// Whether the record fits this appliance: its shard is the one of its
    /// keys and owned here, and the configuration has its virtual server.
    fn check(&self, shard: ShardId, flow: &FlowState) -> Result<(), Refusal>;
    /// A flow was made.
    fn made(&mut self, flows: &mut Flows, flow: FlowIndex);
    /// A flow changed in place.
    fn changed(&mut self, flows: &mut Flows, flow: FlowIndex);
    /// A flow was removed from this place.
    fn removed(&mut self, flows: &mut Flows, place: FlowIndex, flow: &Flow);
    /// Whether one more flow can be removed now. Asked where a record removes any number of them.
    fn may_remove(&self) -> bool;
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It made, changed or ended something.
    Done,
    /// Something as new or newer was known already.
    Stale,
    /// It could not be applied.
    Refused(Refusal),
    /// A part of it was applied; the rest when it comes again.
    Later,
}

/// Which flows the current walk has named, and which have ended lately.
pub struct Received {
    graves: Graves,
    /// For each place the walk in which the flow was last named.
    marks: Slab<u8>,
    /// The walk of the sender's that is under way.
    walk: u32,
    /// This receiver's own number for it; 0 marks nothing.
    mark: u8,
    /// Broken on purpose: see [`crate::mirror::Variant::TombstoneDroppedEarly`].
    keeps_graves: bool,
}

impl Received {
    /// Nothing was received.
    pub fn new(capacity: u32, keeps_graves: bool) -> Result<Received, NoMemory> {
        let marks = Slab::new(capacity as usize)?;
        Ok(Received { graves: Graves::default(), marks, walk: 0, mark: 0, keeps_graves })
    }

    /// A new session: its frames are newer than all graves, and its walks are numbered anew.
    pub fn open_session(&mut self) {
        self.graves.clear();
        self.walk = 0;
        self.next_mark();
    }

    /// Every place counts as not named.
    fn next_mark(&mut self) {
        if self.mark == u8::MAX {
            self.marks.fill(0);
            self.mark = 0;
        }
        self.mark += 1;
    }

    /// Whether a frame of walk number `walk` would say that the sender has begun anew
    /// since it was last heard.
    pub fn begins_anew(&self, walk: u32) -> bool {
        self.walk != 0 && walk > self.walk
    }

    /// A frame of the sender's walk number `walk` arrived; the mark of what it names, 0 for
    /// one of an earlier walk.
    pub fn enter_walk(&mut self, walk: u32) -> u8 {
        if walk > self.walk {
            self.walk = walk;
            self.next_mark();
        }
        if walk == self.walk { self.mark } else { 0 }
    }

    /// Frames below `floor` can never arrive any more.
    pub fn pass(&mut self, floor: u64) {
        self.graves.pass(floor);
    }

    /// Graves kept.
    pub fn graves(&self) -> usize {
        self.graves.len()
    }

    /// Applies one record. `newest` is the newest sequence received on the stream.
    pub fn apply(
        &mut self,
        record: &Record,
        mark: u8,
        newest: u64,
        flows: &mut Flows,
        effects: &mut impl Effects,
    ) -> Applied {
        if mark == 0 && !matches!(record, Record::Refused { .. }) {
            // Of an earlier walk: the sender has begun anew and names everything again, so
            // nothing that it counts rests on this record. Applied, it could bring back what
            // the walk's end has removed, or take the mark from what this walk has named.
            return Applied::Stale;
        }
        match record {
            Record::Upsert { shard, flow } => {
                if let Err(reason) = effects.check(*shard, flow) {
                    return Applied::Refused(reason);
                }
                match flows.is_home(*shard).then(|| flows.shard_mut(*shard)).flatten() {
                    Some(home) => home.saw_version(flow.stamp.version),
                    None => return Applied::Refused(Refusal::Inconsistent),
                }
                self.upsert(*shard, flows, flow, mark, effects)
            }
            Record::Delete { shard, stamp, client } => {
                match flows.is_home(*shard).then(|| flows.shard_mut(*shard)).flatten() {
                    Some(home) => home.saw_version(stamp.version),
                    None => return Applied::Refused(Refusal::Inconsistent),
                }
                self.delete(flows, *shard, *stamp, client, newest, effects)
            }
            Record::WalkEnd { shards } => self.walk_end(flows, shards, mark, effects),
            // Both are the stream's matter.
            Record::Floor { .. } | Record::Refused { .. } => Applied::Done,
        }
    }

    fn upsert(
        &mut self,
        shard: ShardId,
        flows: &mut Flows,
        state: &FlowState,
        mark: u8,
        effects: &mut impl Effects,
    ) -> Applied {
        if self.graves.buries(shard, &state.client, state.stamp) {
            return Applied::Stale;
        }
        if let Some((index, _)) = flows.table.lookup(&state.client) {
            let Some(known) = flows.table.get(index) else {
                return Applied::Refused(Refusal::Inconsistent);
            };
            if known.client != state.client {
                // The key is another flow's server key: never so between sound peers.
                return Applied::Refused(Refusal::Inconsistent);
            }
            if known.shard != shard {
                // Its traffic manager was chosen anew. What this leader has not named was this appliance's own choice; of
                // two that it has named, versions do not tell which is the newer one.
                if self.is_named(index, mark) {
                    return Applied::Refused(Refusal::Inconsistent);
                }
                remove(flows, index, effects);
                return self.make(shard, flows, state, mark, effects);
            }
            // Newest wins among what this leader said. What is here from before, and may be
            // newer because this appliance led then, gives way: the leader's word is the truth.
            if self.is_named(index, mark) && state.stamp <= known.changed {
                return Applied::Stale;
            }
            if known.server == state.server && known.server_id == state.server_id {
                flows.table.update(index, |flow| {
                    // A flow is never older than its newest state, by which peers will know it.
                    flow.created = flow.created.min(state.stamp.version);
                    flow.tcp = state.tcp;
                    flow.changed = state.stamp;
                    flow.flags = flow.flags.with(FlowFlags::FROM_PEER);
                });
                self.name(index, mark);
                effects.changed(flows, index);
                return Applied::Done;
            }
            remove(flows, index, effects);
        }
        self.make(shard, flows, state, mark, effects)
    }

    fn make(
        &mut self,
        shard: ShardId,
        flows: &mut Flows,
        state: &FlowState,
        mark: u8,
        effects: &mut impl Effects,
    ) -> Applied {
        // A port or a client that is used again while the end of its last flow is
        // still on its way: the newer flow wins its key.
        if let Some((index, _)) = flows.table.lookup(&state.server)
            && let Some(changed) = flows.table.changed(index)
        {
            let is_named = self.is_named(index, mark);
            if is_named && flows.table.hot(index).is_some_and(|hot| hot.shard() != shard) {
                // Which of them is the newer one, versions of two shards do not tell.
                return Applied::Refused(Refusal::Inconsistent);
            }
            if is_named && changed >= state.stamp {
                return Applied::Stale;
            }
            remove(flows, index, effects);
        }
        match flows.table.insert(&made_from(shard, state)) {
            Insert::Done(index) => {
                self.name(index, mark);
                effects.made(flows, index);
                Applied::Done
            }
            Insert::Full => Applied::Refused(Refusal::TableFull),
            Insert::ClientKeyTaken | Insert::ServerKeyTaken => Applied::Refused(Refusal::Inconsistent),
        }
    }

    fn delete(
        &mut self,
        flows: &mut Flows,
        shard: ShardId,
        stamp: Stamp,
        client: &Key,
        newest: u64,
        effects: &mut impl Effects,
    ) -> Applied {
        if !self.graves.has_room() {
            return Applied::Refused(Refusal::TableFull);
        }
        if self.keeps_graves {
            self.graves.dig(shard, *client, stamp, newest);
        }
        match flows.table.lookup(client) {
            Some((index, _)) => {
                let known = flows.table.get(index);
                // In another shard the key is a newer flow's, whose versions say nothing of this one.
                let ends =
                    |known: &Flow| known.shard == shard && known.changed < stamp && known.client == *client;
                if !known.as_ref().is_some_and(ends) {
                    return Applied::Stale;
                }
                remove(flows, index, effects);
                Applied::Done
            }
            None => Applied::Stale,
        }
    }

    /// What the walk did not name is gone at the sender.
    fn walk_end(
        &mut self,
        flows: &mut Flows,
        shards: &ShardSet,
        mark: u8,
        effects: &mut impl Effects,
    ) -> Applied {
        if !shards.iter().all(|shard| flows.is_home(shard)) {
            return Applied::Refused(Refusal::Inconsistent);
        }
        for index in (0..flows.table.places_end().0).map(FlowIndex) {
            if !self.is_named(index, mark)
                && flows.table.hot(index).is_some_and(|hot| shards.has(hot.shard()))
            {
                if !effects.may_remove() {
                    return Applied::Later;
                }
                remove(flows, index, effects);
            }
        }
        Applied::Done
    }

    /// Whether the walk of this mark has named the flow at this place.
    fn is_named(&self, index: FlowIndex, mark: u8) -> bool {
        self.marks.get(index.slot()) == Some(&mark)
    }

    fn name(&mut self, index: FlowIndex, mark: u8) {
        if let Some(named) = self.marks.get_mut(index.slot()) {
            *named = mark;
        }
    }
}

fn remove(flows: &mut Flows, index: FlowIndex, effects: &mut impl Effects) {
    if let Some(flow) = flows.table.remove(index) {
        effects.removed(flows, index, &flow);
    }
}

fn made_from(shard: ShardId, state: &FlowState) -> Flow {
    let flags = FlowFlags::MIRRORED.with(FlowFlags::FROM_PEER);
    Flow {
        shard,
        virtual_server: state.virtual_server,
        pool: state.pool,
        server_id: state.server_id,
        flags: if state.full_nat { flags.with(FlowFlags::FULL_NAT) } else { flags },
        created: state.stamp.version,
        changed: state.stamp,
        ..Flow::new(state.client, state.server, state.tcp)
    }
}

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;
