//! The receiving side of one stream: applies state records to the shards of
//! this worker, newest wins (REQ A1, C6).
//!
//! A record is applied before its frame is acknowledged. One that cannot be
//! applied is refused by name, with the reason, in answer to its frame.

mod made;
mod naming;

use crate::base::ids::{ShardId, Term, Version};
use crate::base::limits::SHARDS;
use crate::base::memory::{NoMemory, Slab};
use crate::flow::FlowIndex;
use crate::flow::entry::{Flow, FlowFlags, Stamp};
use crate::flow::flows::Flows;
use crate::flow::key::Key;
use crate::flow::layout::Hot;
use crate::flow::shard::ShardSet;
use crate::flow::table::{Insert, Probe};
use crate::flow::{Direction, TcpState};
use crate::mirror::digest::{Digest, Digests};
use crate::mirror::handle::{Handle, Handles};
use crate::mirror::receiver::made::{chosen, made_from};
use crate::mirror::record::{FlowState, Record, Refusal};
use crate::mirror::tombstone::Graves;

/// Places looked at by one end of a walk, so that a full table keeps no worker from its heartbeats: up to 8 bytes each.
const ENDED_PER_CALL: u32 = 1 << 21;

/// What applying records does to the rest of the worker.
pub trait Effects {
    /// Whether the record fits this appliance: its shard is the one of its
    /// keys and owned here, and the configuration has its virtual server.
    fn check(&self, shard: ShardId, flow: &FlowState) -> Result<(), Refusal>;
    /// A flow was made, at this place.
    fn made(&mut self, flows: &mut Flows, place: FlowIndex, flow: &Flow);
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
    /// A part of it was applied; the rest when it comes again: its frame is not acknowledged.
    Later,
}

/// Where a record stands among all that came on its stream.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// In this frame.
    pub sequence: u64,
    /// The newest frame received so far.
    pub newest: u64,
    /// Of this term.
    pub term: Term,
    /// The frame is of the walk that is under way, not of an earlier one.
    pub is_current: bool,
}

/// Which flows the current walk has named, and which have ended lately.
pub struct Received {
    graves: Graves,
    handles: Handles,
    /// For each place the walk in which the flow was last named, by this receiver's own number for it; 0: in none.
    marks: Slab<u8>,
    /// The walk of the sender's that is under way.
    walk: u32,
    /// The last number given to a walk.
    mark: u8,
    /// The sender is to begin anew, and has not: what it asks rests on what it was told before.
    asked_anew: bool,
    /// The number of each shard's last walk.
    walked: [u8; SHARDS],
    /// The last frame that said anything of each shard.
    touched: [u64; SHARDS],
    /// Above the last frame that said where a walk begins again, or ends.
    bracketed: u64,
    /// The shards whose walk's end was applied in part, and the place from which to go on.
    ending: (ShardSet, u32),
    /// [`ENDED_PER_CALL`].
    ended_per_call: u32,
    /// Broken on purpose: see [`crate::mirror::Variant::TombstoneDroppedEarly`].
    keeps_graves: bool,
}

impl Received {
    /// Nothing was received.
    pub fn new(capacity: u32, keeps_graves: bool) -> Result<Received, NoMemory> {
        let marks = Slab::new(capacity as usize)?;
        Ok(Received {
            graves: Graves::default(),
            handles: Handles::new(capacity)?,
            marks,
            walk: 0,
            asked_anew: false,
            mark: 0,
            walked: [0; SHARDS],
            touched: [0; SHARDS],
            bracketed: 0,
            ending: (ShardSet::default(), 0),
            ended_per_call: ENDED_PER_CALL,
            keeps_graves,
        })
    }

    /// Has memory put behind what is kept of each flow.
    pub fn populate(&self) {
        self.handles.populate();
        self.marks.populate();
    }

    /// A new session: its frames are newer than all graves, and its walks are numbered anew.
    pub fn open_session(&mut self) {
        self.graves.clear();
        (self.walk, self.asked_anew) = (0, false);
        self.touched.fill(0);
        self.bracketed = 0;
        self.handles.open_session();
        self.name_nothing();
    }

    /// Frames below `floor` can never arrive any more.
    pub fn pass(&mut self, floor: u64) {
        self.graves.pass(floor);
    }

    /// Ends that can be remembered besides those that are.
    pub fn room(&self) -> usize {
        self.graves.room()
    }

    /// Graves that count.
    pub fn dug(&self) -> usize {
        self.graves.dug()
    }

    /// Asks for what is known of the handle of a place at the sender.
    #[inline]
    pub fn prefetch(&self, handle: u32) {
        self.handles.prefetch(handle);
    }

    /// The flow that the handle of a place at the sender probably leads to.
    #[inline]
    pub fn place_of(&self, handle: u32) -> Option<FlowIndex> {
        self.handles.probably(handle)
    }

    /// The flow at a place has left it, by no record.
    pub fn forget(&mut self, place: FlowIndex) {
        self.handles.forget(place);
    }

    /// Applies one record, which stands there.
    pub fn apply(
        &mut self,
        record: &Record,
        place: Place,
        flows: &mut Flows,
        digests: &mut Digests,
        effects: &mut impl Effects,
    ) -> Applied {
        if !place.is_current && !matches!(record, Record::Refused { .. }) {
            // Of an earlier walk: the sender has begun anew and names everything again, so
            // nothing that it counts rests on this record. Applied, it could bring back what
            // the walk's end has removed, or take the mark from what this walk has named.
            return Applied::Stale;
        }
        match record {
            Record::Upsert { shard, flow, handle } => {
                if let Err(reason) = effects.check(*shard, flow) {
                    self.keep(*shard, flow, place, flows);
                    return Applied::Refused(reason);
                }
                match flows.is_home(*shard).then(|| flows.shard_mut(*shard)).flatten() {
                    Some(home) => home.saw_version(flow.stamp.version),
                    None => return Applied::Refused(Refusal::Inconsistent),
                }
                self.touch(*shard, place);
                // Both keys are hashed here and nowhere else.
                let probes = [flows.table.probe(&flow.client), flows.table.probe(&flow.server)];
                let (applied, at) = self.upsert(*shard, flows, (flow, &probes), place, digests, effects);
                // Where nothing was applied, what is here may be as new.
                let at = at.or_else(|| match flows.table.lookup_probed(&probes[0], &flow.client) {
                    Some((at, Direction::FromClient)) => Some(at),
                    Some((_, Direction::FromServer)) | None => None,
                });
                self.bind(*handle, (*shard, flow.stamp.version), at, place, flows);
                applied
            }
            Record::Update { handle, version, tcp } => {
                let Some((index, stamp)) = self.meant(*handle, *version, place, flows) else {
                    return Applied::Refused(Refusal::UnknownHandle);
                };
                self.update(index, stamp, *tcp, flows, digests, effects)
            }
            Record::End { handle, version } => {
                let meant = self.meant(*handle, *version, place, flows);
                let Some((stamp, flow)) =
                    meant.and_then(|(index, stamp)| Some((stamp, flows.table.get(index)?)))
                else {
                    return Applied::Refused(Refusal::UnknownHandle);
                };
                let named = (handle.shard, stamp, &flow.client);
                self.delete(flows, named, place.newest, digests, effects)
            }
            Record::Delete { shard, stamp, client } => {
                match flows.is_home(*shard).then(|| flows.shard_mut(*shard)).flatten() {
                    Some(home) => home.saw_version(stamp.version),
                    None => return Applied::Refused(Refusal::Inconsistent),
                }
                self.touch(*shard, place);
                self.delete(flows, (*shard, *stamp, client), place.newest, digests, effects)
            }
            Record::WalkBegin { shards } | Record::WalkEnd { shards }
                if !shards.iter().all(|shard| flows.is_home(shard)) =>
            {
                Applied::Refused(Refusal::Inconsistent)
            }
            // One that was taken for lost, and said again: a begin would take back what was named since, and
            // an end remove it.
            Record::WalkBegin { .. } | Record::WalkEnd { .. } if place.sequence < self.bracketed => {
                Applied::Stale
            }
            Record::WalkBegin { shards } => {
                self.bracketed = place.sequence + 1;
                shards.iter().for_each(|shard| self.touch(shard, place));
                self.name_nothing_of(shards, digests);
                Applied::Done
            }
            Record::WalkEnd { shards } => {
                shards.iter().for_each(|shard| self.touch(shard, place));
                let applied = self.walk_end(flows, shards, digests, effects);
                if applied == Applied::Done {
                    self.bracketed = place.sequence + 1;
                }
                applied
            }
            Record::Digest { shard, digest } => self.compare(*shard, digest, place, digests),
            // They are the stream's matter.
            Record::Floor { .. } | Record::Refused { .. } | Record::Unbound { .. } => Applied::Done,
        }
    }

    /// From now on the flow that a record names in full goes by this handle.
    fn bind(
        &mut self,
        handle: Handle,
        (shard, version): (ShardId, Version),
        at: Option<FlowIndex>,
        place: Place,
        flows: &Flows,
    ) {
        // Whatever is known of it now is as new, or newer; but a flow that began later is another one of the same client.
        let here = at.and_then(|index| {
            let (of, created) = flows.table.tenant(index)?;
            (of == shard && created <= version).then_some((index, created))
        });
        self.handles.bind(handle, here, place.sequence);
    }

    /// What is here of a flow that was refused stays, rather than nothing.
    fn keep(&mut self, shard: ShardId, state: &FlowState, place: Place, flows: &Flows) {
        if let Some((index, Direction::FromClient)) = flows.table.lookup(&state.client)
            && let Some(known) = flows.table.get(index)
            && known.shard == shard
            && is_same_but_for_state(&known, state)
        {
            self.name(index, shard, place);
        }
    }

    /// The flow that is meant by its handle, and when it came to what a record of this version says of it.
    fn meant(
        &mut self,
        handle: Handle,
        version: Version,
        place: Place,
        flows: &mut Flows,
    ) -> Option<(FlowIndex, Stamp)> {
        let stamp = Stamp { term: place.term, version }.kept()?;
        let index = self.handles.find(handle, place.sequence, &flows.table)?;
        // What was said before it began is about an earlier one.
        flows.table.tenant(index).filter(|(_, created)| *created <= version)?;
        flows.shard_mut(handle.shard)?.saw_version(version);
        self.touch(handle.shard, place);
        Some((index, stamp))
    }

    fn touch(&mut self, shard: ShardId, place: Place) {
        if let Some(touched) = self.touched.get_mut(usize::from(shard.0)) {
            *touched = (*touched).max(place.sequence);
        }
    }

    /// Holds what is here of a shard against the sender's digest; of one that is older than what is here there is nothing
    /// to say.
    fn compare(&self, shard: ShardId, digest: &Digest, place: Place, digests: &Digests) -> Applied {
        if self.asked_anew {
            return Applied::Stale;
        }
        match self.touched.get(usize::from(shard.0)) {
            Some(touched) if *touched <= place.sequence && digests.of(shard) != *digest => {
                Applied::Refused(Refusal::Differs)
            }
            Some(touched) if *touched <= place.sequence => Applied::Done,
            Some(_) | None => Applied::Stale,
        }
    }

    /// A flow that was named before is in another state. Only what names it in full counts for a walk that began since.
    fn update(
        &mut self,
        index: FlowIndex,
        stamp: Stamp,
        tcp: TcpState,
        flows: &mut Flows,
        digests: &mut Digests,
        effects: &mut impl Effects,
    ) -> Applied {
        if flows.table.changed(index).is_none_or(|known| stamp <= known) {
            return Applied::Stale;
        }
        flows.table.update(index, |flow| {
            (flow.tcp, flow.changed) = (tcp, stamp);
            flow.flags = flow.flags.with(FlowFlags::FROM_PEER);
        });
        digests.note(&flows.table, index);
        effects.changed(flows, index);
        Applied::Done
    }

    /// With the place of the flow, if it was applied.
    fn upsert(
        &mut self,
        shard: ShardId,
        flows: &mut Flows,
        (state, probes): (&FlowState, &[Probe; 2]),
        place: Place,
        digests: &mut Digests,
        effects: &mut impl Effects,
    ) -> (Applied, Option<FlowIndex>) {
        let stale = (Applied::Stale, None);
        if self.graves.buries(shard, &state.client, state.stamp) {
            return stale;
        }
        if let Some((index, _)) = flows.table.lookup_probed(&probes[0], &state.client) {
            let Some(known) = flows.table.get(index) else {
                return refused(Refusal::Inconsistent);
            };
            if known.client != state.client {
                // The key is another flow's server key: never so between sound peers.
                return refused(Refusal::Inconsistent);
            }
            if known.shard != shard {
                // Its traffic manager was chosen anew. What this leader has not named was this appliance's own choice; of
                // two that it has named, versions do not tell which is the newer one.
                if self.is_named(index, known.shard) {
                    return refused(Refusal::Inconsistent);
                }
                self.remove(flows, index, digests, effects);
                return self.make(shard, flows, (state, probes), place, digests, effects);
            }
            // Newest wins among what this leader said. What is here from before, and may be
            // newer because this appliance led then, gives way: the leader's word is the truth.
            // So does what may be wrong, from where a walk begins again; but not to what was said before that.
            let is_late = place.sequence < self.bracketed;
            if (is_late || self.is_named(index, shard)) && state.stamp <= known.changed {
                return stale;
            }
            if is_same_but_for_state(&known, state) {
                flows.table.update(index, |flow| {
                    // A flow is never older than its newest state, by which peers will know it.
                    flow.created = flow.created.min(state.stamp.version);
                    flow.tcp = state.tcp;
                    flow.changed = state.stamp;
                    flow.flags = chosen(flow.flags.with(FlowFlags::FROM_PEER), state);
                });
                self.name(index, shard, place);
                digests.note(&flows.table, index);
                effects.changed(flows, index);
                return (Applied::Done, Some(index));
            }
            self.remove(flows, index, digests, effects);
        }
        self.make(shard, flows, (state, probes), place, digests, effects)
    }

    fn make(
        &mut self,
        shard: ShardId,
        flows: &mut Flows,
        (state, probes): (&FlowState, &[Probe; 2]),
        place: Place,
        digests: &mut Digests,
        effects: &mut impl Effects,
    ) -> (Applied, Option<FlowIndex>) {
        let stale = (Applied::Stale, None);
        // A port or a client that is used again while the end of its last flow is
        // still on its way: the newer flow wins its key.
        if let Some((index, _)) = flows.table.lookup_probed(&probes[1], &state.server)
            && let Some(changed) = flows.table.changed(index)
        {
            let known = flows.table.hot(index).map_or(shard, Hot::shard);
            let is_named = self.is_named(index, known);
            if is_named && known != shard {
                // Which of them is the newer one, versions of two shards do not tell.
                return refused(Refusal::Inconsistent);
            }
            if is_named && changed >= state.stamp {
                return stale;
            }
            self.remove(flows, index, digests, effects);
        }
        let flow = made_from(shard, state);
        match flows.table.insert_free(&flow, probes) {
            Insert::Done(index) => {
                self.name(index, shard, place);
                digests.note(&flows.table, index);
                effects.made(flows, index, &flow);
                (Applied::Done, Some(index))
            }
            Insert::Full => refused(Refusal::TableFull),
            Insert::ClientKeyTaken | Insert::ServerKeyTaken => refused(Refusal::Inconsistent),
        }
    }

    fn delete(
        &mut self,
        flows: &mut Flows,
        (shard, stamp, client): (ShardId, Stamp, &Key),
        newest: u64,
        digests: &mut Digests,
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
                self.remove(flows, index, digests, effects);
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
        digests: &mut Digests,
        effects: &mut impl Effects,
    ) -> Applied {
        // All of a bracket have the same number. It is looked at first, and then at the shard's: both are much less memory
        // than the flows themselves.
        let mut numbers = shards.iter().filter_map(|shard| self.walked.get(usize::from(shard.0)).copied());
        let number = numbers.next();
        let number = number.filter(|number| numbers.all(|other| other == *number));
        let (of, from) = self.ending;
        let from = if of == *shards { from } else { 0 };
        self.ending = (*shards, from);
        let end = flows.table.places_end().0;
        let until = end.min(from.saturating_add(self.ended_per_call));
        for index in (from..until).map(FlowIndex) {
            self.ending.1 = index.0;
            if number.is_some() && self.marks.get(index.slot()).copied() == number
                || digests.shard_at(index).is_some_and(|shard| !shards.has(shard))
            {
                continue;
            }
            let Some(shard) = flows.table.hot(index).map(Hot::shard) else { continue };
            if shards.has(shard) && !self.is_named(index, shard) {
                if !effects.may_remove() {
                    return Applied::Later;
                }
                self.remove(flows, index, digests, effects);
            }
        }
        self.ending.1 = if until < end { until } else { 0 };
        if until < end { Applied::Later } else { Applied::Done }
    }

    fn remove(
        &mut self,
        flows: &mut Flows,
        index: FlowIndex,
        digests: &mut Digests,
        effects: &mut impl Effects,
    ) {
        digests.forget(index);
        self.handles.forget(index);
        if let Some(flow) = flows.table.remove(index) {
            effects.removed(flows, index, &flow);
        }
    }
}

fn refused(why: Refusal) -> (Applied, Option<FlowIndex>) {
    (Applied::Refused(why), None)
}

/// Whether a flow is the one of a record, in whatever state. One that was not mirrored counts for no digest: it is made anew.
fn is_same_but_for_state(known: &Flow, state: &FlowState) -> bool {
    known.is_mirrored()
        && known.server == state.server
        && known.server_id == state.server_id
        && known.virtual_server == state.virtual_server
        && known.pool == state.pool
        && known.is_full_nat() == state.full_nat
}

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;
