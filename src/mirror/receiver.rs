//! The receiving side of one stream: applies state records to the shards of
//! this worker, newest wins (REQ A1, C6).
//!
//! A record is applied before its frame is acknowledged. One that cannot be
//! applied is refused by name, with the reason, in answer to its frame.

use crate::base::ids::ShardId;
use crate::flow::FlowIndex;
use crate::flow::entry::{Flow, FlowFlags, Stamp};
use crate::flow::key::Key;
use crate::flow::shard::Shard;
use crate::flow::table::Insert;
use crate::mirror::record::{FlowState, Record, Refusal};
use crate::mirror::tombstone::Graves;

/// What applying records does to the rest of the worker.
pub trait Effects {
    /// Whether the record fits this appliance: its shard is the one of its
    /// keys and owned here, and the configuration has its virtual server.
    fn check(&self, shard: ShardId, flow: &FlowState) -> Result<(), Refusal>;
    /// A flow was made.
    fn made(&mut self, shard: &mut Shard, flow: FlowIndex);
    /// A flow changed in place.
    fn changed(&mut self, shard: &mut Shard, flow: FlowIndex);
    /// A flow was removed from this place.
    fn removed(&mut self, shard: &mut Shard, place: FlowIndex, flow: &Flow);
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
}

/// Which flows the current walk has named, and which have ended lately.
pub struct Received {
    graves: Graves,
    /// For each shard and place the walk in which the flow was last named.
    marks: Vec<Vec<u32>>,
    /// The walk of the sender's that is under way.
    walk: u32,
    /// This receiver's own number for it; 0 marks nothing.
    mark: u32,
    /// Broken on purpose: see [`crate::mirror::Variant::TombstoneDroppedEarly`].
    keeps_graves: bool,
}

impl Received {
    /// Nothing was received.
    pub fn new(keeps_graves: bool) -> Received {
        Received {
            graves: Graves::default(),
            marks: (0..crate::base::limits::SHARDS).map(|_| Vec::new()).collect(),
            walk: 0,
            mark: 0,
            keeps_graves,
        }
    }

    /// A new session: its frames are newer than all graves, and its walks are numbered anew.
    pub fn open_session(&mut self) {
        self.graves.clear();
        self.walk = 0;
        self.mark += 1;
    }

    /// Whether a frame of walk number `walk` would say that the sender has begun anew
    /// since it was last heard.
    pub fn begins_anew(&self, walk: u32) -> bool {
        self.walk != 0 && walk > self.walk
    }

    /// A frame of the sender's walk number `walk` arrived; the mark of what it names, 0 for
    /// one of an earlier walk.
    pub fn enter_walk(&mut self, walk: u32) -> u32 {
        if walk > self.walk {
            self.walk = walk;
            self.mark += 1;
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
        mark: u32,
        newest: u64,
        shards: &mut [Option<Box<Shard>>],
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
                match shards.get_mut(usize::from(shard.0)).and_then(Option::as_deref_mut) {
                    Some(shard) => self.upsert(shard, flow, mark, effects),
                    None => Applied::Refused(Refusal::Inconsistent),
                }
            }
            Record::Delete { shard, stamp, client } => {
                match shards.get_mut(usize::from(shard.0)).and_then(Option::as_deref_mut) {
                    Some(shard) => self.delete(shard, *stamp, client, newest, effects),
                    None => Applied::Refused(Refusal::Inconsistent),
                }
            }
            Record::WalkEnd { shard } => {
                match shards.get_mut(usize::from(shard.0)).and_then(Option::as_deref_mut) {
                    Some(shard) => self.walk_end(shard, mark, effects),
                    None => Applied::Refused(Refusal::Inconsistent),
                }
            }
            Record::Refused { .. } => Applied::Done, // For the sender's side.
        }
    }

    fn upsert(
        &mut self,
        shard: &mut Shard,
        state: &FlowState,
        mark: u32,
        effects: &mut impl Effects,
    ) -> Applied {
        shard.saw_version(state.stamp.version);
        if self.graves.buries(&state.client, state.stamp) {
            return Applied::Stale;
        }
        if let Some((index, _)) = shard.table.lookup(&state.client) {
            let Some(known) = shard.table.get(index) else {
                return Applied::Refused(Refusal::Inconsistent);
            };
            if known.client != state.client {
                // The key is another flow's server key: never so between sound peers.
                return Applied::Refused(Refusal::Inconsistent);
            }
            // Newest wins among what this leader said. What is here from before, and may be
            // newer because this appliance led then, gives way: the leader's word is the truth.
            if self.is_named(shard.id, index, mark) && state.stamp <= known.changed {
                return Applied::Stale;
            }
            if known.server == state.server && known.server_id == state.server_id {
                if let Some(flow) = shard.table.get_mut(index) {
                    if state.stamp.version < flow.created.version {
                        // A flow is never older than its newest state, by which peers will know it.
                        flow.created = state.stamp;
                    }
                    flow.tcp = state.tcp;
                    flow.changed = state.stamp;
                    flow.flags = flow.flags.with(FlowFlags::FROM_PEER);
                }
                self.name(shard, index, mark);
                effects.changed(shard, index);
                return Applied::Done;
            }
            remove(shard, index, effects);
        }
        self.make(shard, state, mark, effects)
    }

    fn make(
        &mut self,
        shard: &mut Shard,
        state: &FlowState,
        mark: u32,
        effects: &mut impl Effects,
    ) -> Applied {
        // A port or a client that is used again while the end of its last flow is
        // still on its way: the newer flow wins its key.
        if let Some((index, _)) = shard.table.lookup(&state.server)
            && let Some(known) = shard.table.get(index)
        {
            if self.is_named(shard.id, index, mark) && known.changed >= state.stamp {
                return Applied::Stale;
            }
            remove(shard, index, effects);
        }
        match shard.table.insert(made_from(state)) {
            Insert::Done(index) => {
                self.name(shard, index, mark);
                effects.made(shard, index);
                Applied::Done
            }
            Insert::Full => Applied::Refused(Refusal::TableFull),
            Insert::ClientKeyTaken | Insert::ServerKeyTaken => Applied::Refused(Refusal::Inconsistent),
        }
    }

    fn delete(
        &mut self,
        shard: &mut Shard,
        stamp: Stamp,
        client: &Key,
        newest: u64,
        effects: &mut impl Effects,
    ) -> Applied {
        shard.saw_version(stamp.version);
        if !self.graves.has_room() {
            return Applied::Refused(Refusal::TableFull);
        }
        if self.keeps_graves {
            self.graves.dig(*client, stamp, newest);
        }
        match shard.table.lookup(client) {
            Some((index, _)) => {
                let known = shard.table.get(index);
                if known.is_none_or(|known| known.changed >= stamp || known.client != *client) {
                    return Applied::Stale;
                }
                remove(shard, index, effects);
                Applied::Done
            }
            None => Applied::Stale,
        }
    }

    /// What the walk did not name is gone at the sender.
    fn walk_end(&mut self, shard: &mut Shard, mark: u32, effects: &mut impl Effects) -> Applied {
        let mut next = shard.table.next_occupied(FlowIndex(0));
        while let Some(index) = next {
            if !self.is_named(shard.id, index, mark) {
                remove(shard, index, effects);
            }
            next = shard.table.next_occupied(FlowIndex(index.0 + 1));
        }
        Applied::Done
    }

    /// Whether the walk of this mark has named the flow at this place.
    fn is_named(&self, shard: ShardId, index: FlowIndex, mark: u32) -> bool {
        self.marks[usize::from(shard.0)].get(index.slot()) == Some(&mark)
    }

    fn name(&mut self, shard: &Shard, index: FlowIndex, mark: u32) {
        let marks = &mut self.marks[usize::from(shard.id.0)];
        if marks.is_empty() {
            marks.resize(shard.capacity() as usize, 0);
        }
        marks[index.0 as usize] = mark;
    }
}

fn remove(shard: &mut Shard, index: FlowIndex, effects: &mut impl Effects) {
    if let Some(flow) = shard.table.remove(index) {
        effects.removed(shard, index, &flow);
    }
}

fn made_from(state: &FlowState) -> Flow {
    let flags = FlowFlags::MIRRORED.with(FlowFlags::FROM_PEER);
    Flow {
        virtual_server: state.virtual_server,
        pool: state.pool,
        server_id: state.server_id,
        flags: if state.full_nat { flags.with(FlowFlags::FULL_NAT) } else { flags },
        created: state.stamp,
        changed: state.stamp,
        ..Flow::new(state.client, state.server, state.tcp)
    }
}
