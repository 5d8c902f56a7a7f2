//! What one peer knows of the shards that one stream covers, and what it is to
//! be told next: ends first, then changes, then the walk that brings it up to
//! date (REQ A9, B4, B5).
//!
//! A flow is in the dirty queue at most once; what is sent is its newest state
//! at that moment. Memory is bounded by the table: 9 bytes for each place in it,
//! and one queue entry.

use std::collections::VecDeque;

use crate::base::ids::{ShardId, Version};
use crate::base::time::Instant;
use crate::flow::FlowIndex;
use crate::flow::entry::Flow;
use crate::flow::shard::Shard;
use crate::mirror::in_flight::{Fate, Named, Sent};
use crate::mirror::record::{FlowState, Record};
use crate::mirror::tombstone::Tombstones;

/// In the dirty queue.
const QUEUED: u8 = 1;
/// Named by the walk and not yet acknowledged.
const WALKED: u8 = 2;

/// How far the walk over a shard has come.
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
    /// The peer knows every flow of this shard.
    Done,
}

struct ShardSync {
    /// For each place in the table the newest version acknowledged; 0: none.
    acknowledged: Vec<u64>,
    marks: Vec<u8>,
    walk: Walk,
    /// Flows marked [`WALKED`].
    outstanding: u32,
}

#[derive(Clone, Copy)]
struct Dirty {
    shard: ShardId,
    flow: u32,
    since: Instant,
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
    shards: Vec<Option<Box<ShardSync>>>,
    dirty: VecDeque<Dirty>,
    ended: VecDeque<(u32, Instant)>,
    /// Shards whose walk is not done, in order; the first is walked.
    walking: VecDeque<ShardId>,
    known: u64,
}

impl Sync {
    /// Nothing is known; every shard is to be walked.
    pub fn new<'a>(shards: impl Iterator<Item = &'a Shard>) -> Sync {
        let mut all: Vec<Option<Box<ShardSync>>> = (0..crate::base::limits::SHARDS).map(|_| None).collect();
        let mut walking = VecDeque::with_capacity(all.len());
        let mut places = 0;
        for shard in shards {
            let capacity = shard.capacity() as usize;
            places += capacity;
            walking.push_back(shard.id);
            all[usize::from(shard.id.0)] = Some(Box::new(ShardSync {
                acknowledged: vec![0; capacity],
                marks: vec![0; capacity],
                walk: Walk::At(0),
                outstanding: 0,
            }));
        }
        Sync {
            shards: all,
            dirty: VecDeque::with_capacity(places),
            ended: VecDeque::new(),
            walking,
            known: 0,
        }
    }

    /// Forgets what the peer knows: every shard is to be walked again.
    pub fn restart(&mut self) {
        self.dirty.clear();
        self.ended.clear();
        self.walking.clear();
        self.known = 0;
        for (id, shard) in self.shards.iter_mut().enumerate() {
            if let Some(shard) = shard {
                shard.acknowledged.fill(0);
                shard.marks.fill(0);
                shard.walk = Walk::At(0);
                shard.outstanding = 0;
                self.walking.push_back(ShardId(id as u16));
            }
        }
    }

    /// Flows that the peer knows.
    pub fn known(&self) -> u64 {
        self.known
    }

    /// Whether every shard was walked and the peer has acknowledged each walk's end.
    pub fn walk_done(&self) -> bool {
        self.walking.is_empty()
    }

    /// Shards whose walk is not done.
    pub fn shards_to_walk(&self) -> usize {
        self.walking.len()
    }

    /// Whether the walk has something to name, or an end to say.
    pub fn has_walk_to_send(&self) -> bool {
        self.walking
            .iter()
            .any(|id| self.shard(*id).is_some_and(|shard| matches!(shard.walk, Walk::At(_) | Walk::EndDue)))
    }

    /// States and ends that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.dirty.len() + self.ended.len()
    }

    /// Since when the oldest of them waits.
    pub fn oldest_since(&self) -> Option<Instant> {
        let dirty = self.dirty.front().map(|dirty| dirty.since);
        let ended = self.ended.front().map(|ended| ended.1);
        dirty.into_iter().chain(ended).min()
    }

    /// Whether the peer knows the flow in any state.
    pub fn knows(&self, shard: ShardId, flow: FlowIndex) -> bool {
        self.shard(shard).is_some_and(|shard| shard.acknowledged[flow.0 as usize] != 0)
    }

    /// A flow was made or changed.
    pub fn changed(&mut self, now: Instant, shard: ShardId, flow: FlowIndex) {
        let Some(sync) = &mut self.shards[usize::from(shard.0)] else { return };
        let mark = &mut sync.marks[flow.0 as usize];
        if *mark & QUEUED == 0 {
            *mark |= QUEUED;
            self.dirty.push_back(Dirty { shard, flow: flow.0, since: now });
        }
    }

    /// A flow left its place; its end waits at `tombstone`.
    pub fn ended(&mut self, now: Instant, shard: ShardId, flow: FlowIndex, tombstone: Option<u32>) {
        let Some(sync) = &mut self.shards[usize::from(shard.0)] else { return };
        let place = flow.0 as usize;
        if sync.acknowledged[place] != 0 {
            sync.acknowledged[place] = 0;
            self.known -= 1;
        }
        if sync.marks[place] & WALKED != 0 {
            sync.marks[place] &= !WALKED;
            sync.outstanding -= 1;
            if sync.outstanding == 0 && sync.walk == Walk::Named {
                sync.walk = Walk::EndDue;
            }
        }
        if let Some(tombstone) = tombstone {
            self.ended.push_back((tombstone, now));
        }
    }

    /// The next record to send, and what to remember of it.
    pub fn next(
        &mut self,
        now: Instant,
        shards: &[Option<Box<Shard>>],
        tombstones: &Tombstones,
        may_walk: bool,
    ) -> Option<(Record, Sent)> {
        while let Some((place, since)) = self.ended.pop_front() {
            if let Some(departed) = tombstones.at(place) {
                let record =
                    Record::Delete { shard: departed.shard, stamp: departed.stamp, client: departed.client };
                return Some((record, Sent { named: Named::Ended { tombstone: place }, since }));
            }
        }
        while let Some(dirty) = self.dirty.pop_front() {
            if let Some(sync) = &mut self.shards[usize::from(dirty.shard.0)] {
                sync.marks[dirty.flow as usize] &= !QUEUED;
            }
            if let Some(next) = name(shards, dirty) {
                return Some(next);
            }
        }
        if may_walk { self.next_walked(now, shards) } else { None }
    }

    /// The walk: names the flows of one shard after the other, each once.
    fn next_walked(&mut self, now: Instant, shards: &[Option<Box<Shard>>]) -> Option<(Record, Sent)> {
        for _ in 0..self.walking.len() {
            let id = *self.walking.front()?;
            let (Some(sync), Some(shard)) = (&mut self.shards[usize::from(id.0)], &shards[usize::from(id.0)])
            else {
                self.walking.pop_front();
                continue;
            };
            match sync.walk {
                Walk::At(from) => {
                    let mut next = shard.table.next_occupied(FlowIndex(from));
                    while let Some(index) = next {
                        let place = index.0 as usize;
                        sync.walk = Walk::At(index.0 + 1);
                        let known = sync.acknowledged[place] != 0;
                        let flow = shard.table.get(index);
                        if !known
                            && let Some(flow) = flow.filter(|flow| flow.is_mirrored())
                            && sync.marks[place] & WALKED == 0
                        {
                            sync.marks[place] |= WALKED;
                            sync.outstanding += 1;
                            let record = Record::Upsert { shard: id, flow: state(flow) };
                            let named =
                                Named::Flow { shard: id, flow: index.0, version: flow.changed.version };
                            return Some((record, Sent { named, since: now }));
                        }
                        next = shard.table.next_occupied(FlowIndex(index.0 + 1));
                    }
                    sync.walk = if sync.outstanding == 0 { Walk::EndDue } else { Walk::Named };
                }
                Walk::EndDue => {
                    sync.walk = Walk::EndSent;
                    let named = Named::WalkEnd { shard: id };
                    return Some((Record::WalkEnd { shard: id }, Sent { named, since: now }));
                }
                Walk::Named | Walk::EndSent => self.walking.rotate_left(1),
                Walk::Done => {
                    self.walking.pop_front();
                }
            }
        }
        None
    }

    /// A sent record was settled.
    pub fn settle(&mut self, sent: Sent, fate: Fate, shards: &[Option<Box<Shard>>]) -> Settled {
        match (sent.named, fate) {
            (Named::Flow { shard, flow, version }, Fate::Applied) => {
                self.flow_applied(shard, flow, version, sent.since, shards)
            }
            (Named::Flow { shard, flow, version }, Fate::Lost) => {
                self.flow_lost(shard, flow, version, sent.since, shards);
                Settled::Nothing
            }
            (Named::Flow { shard, flow, version }, Fate::Refused) => {
                if !current(shards, shard, flow, version) {
                    return Settled::Nothing;
                }
                self.unwalk(shard, flow);
                Settled::Refused { shard, flow: FlowIndex(flow) }
            }
            (Named::Ended { tombstone }, Fate::Applied) => Settled::Ended { tombstone },
            (Named::Ended { tombstone }, Fate::Lost | Fate::Refused) => {
                self.ended.push_front((tombstone, sent.since));
                Settled::Nothing
            }
            (Named::WalkEnd { shard }, fate) => {
                if let Some(sync) = &mut self.shards[usize::from(shard.0)]
                    && sync.walk == Walk::EndSent
                {
                    if fate == Fate::Applied {
                        sync.walk = Walk::Done;
                        self.walking.retain(|id| *id != shard);
                    } else {
                        sync.walk = Walk::EndDue;
                    }
                }
                Settled::Nothing
            }
        }
    }

    fn flow_applied(
        &mut self,
        shard: ShardId,
        flow: u32,
        version: Version,
        since: Instant,
        shards: &[Option<Box<Shard>>],
    ) -> Settled {
        if !current(shards, shard, flow, version) {
            return Settled::Nothing;
        }
        let Some(sync) = &mut self.shards[usize::from(shard.0)] else { return Settled::Nothing };
        let known = &mut sync.acknowledged[flow as usize];
        let first = *known == 0;
        *known = (*known).max(version.0);
        if first {
            self.known += 1;
        }
        self.unwalk(shard, flow);
        if first { Settled::Known { shard, flow: FlowIndex(flow), since } } else { Settled::Nothing }
    }

    fn flow_lost(
        &mut self,
        shard: ShardId,
        flow: u32,
        version: Version,
        since: Instant,
        shards: &[Option<Box<Shard>>],
    ) {
        if !current(shards, shard, flow, version) {
            return;
        }
        let Some(sync) = &mut self.shards[usize::from(shard.0)] else { return };
        if sync.acknowledged[flow as usize] >= version.0 {
            return; // A later state has been acknowledged meanwhile.
        }
        let mark = &mut sync.marks[flow as usize];
        if *mark & QUEUED == 0 {
            *mark |= QUEUED;
            self.dirty.push_front(Dirty { shard, flow, since });
        }
    }

    fn unwalk(&mut self, shard: ShardId, flow: u32) {
        let Some(sync) = &mut self.shards[usize::from(shard.0)] else { return };
        if sync.marks[flow as usize] & WALKED != 0 {
            sync.marks[flow as usize] &= !WALKED;
            sync.outstanding -= 1;
            if sync.outstanding == 0 && sync.walk == Walk::Named {
                sync.walk = Walk::EndDue;
            }
        }
    }

    fn shard(&self, shard: ShardId) -> Option<&ShardSync> {
        self.shards.get(usize::from(shard.0))?.as_deref()
    }
}

/// Whether the flow of which `version` was sent is still at its place: versions
/// rise over all flows of a shard, so a later tenant was created above it.
fn current(shards: &[Option<Box<Shard>>], shard: ShardId, flow: u32, version: Version) -> bool {
    shards[usize::from(shard.0)]
        .as_ref()
        .and_then(|shard| shard.table.get(FlowIndex(flow)))
        .is_some_and(|flow| flow.created.version <= version)
}

fn name(shards: &[Option<Box<Shard>>], dirty: Dirty) -> Option<(Record, Sent)> {
    let shard = shards[usize::from(dirty.shard.0)].as_ref()?;
    let flow = shard.table.get(FlowIndex(dirty.flow)).filter(|flow| flow.is_mirrored())?;
    let named = Named::Flow { shard: dirty.shard, flow: dirty.flow, version: flow.changed.version };
    Some((Record::Upsert { shard: dirty.shard, flow: state(flow) }, Sent { named, since: dirty.since }))
}

/// A flow's state as a peer needs it.
pub fn state(flow: &Flow) -> FlowState {
    FlowState {
        stamp: flow.changed,
        client: flow.client,
        server: flow.server,
        virtual_server: flow.virtual_server,
        pool: flow.pool,
        server_id: flow.server_id,
        tcp: flow.tcp,
        full_nat: flow.is_full_nat(),
    }
}
