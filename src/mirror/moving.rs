//! Shards that go from one worker of this appliance to another one while it leads, or after (REQ E1): what peers know of
//! their flows goes along.
//!
//! A peer hears of a shard from one worker after the other, on two streams that keep no order between them. So the old one
//! lets go only when nothing of the shard is on its way, and the peer takes nothing any more that was taken for lost
//! ([`Mirror::is_quiet`]); then, at one moment, it reads what each peer knows of each flow ([`Mirror::standing_of`]) and says
//! nothing more of the shard ([`Mirror::part_with`]). That knowledge holds at the new worker if neither stream has begun anew
//! meanwhile ([`Mirror::bonds`]). Else the new one brings the peer up to date from the start, which is never wrong.

use crate::base::ids::{BootId, ShardId, Version};
use crate::base::time::Instant;
use crate::flow::FlowIndex;
use crate::flow::entry::{FlowFlags, Stamp};
use crate::flow::image::{Image, Imager};
use crate::flow::key::Key;
use crate::flow::layout::Hot;
use crate::flow::resting::RestingPlace;
use crate::flow::shard::{ShardSet, owner_of};
use crate::flow::table::Table;
use crate::mirror::in_flight::Named;
use crate::mirror::tombstone::{Buried, Departed};
use crate::mirror::{Mirror, Outcome, Peer, Variant, stream_of};

/// What peers know of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Bit i: peer i knows the flow, in some state.
    pub flow: u8,
    /// Bit i: and not in its newest one.
    pub behind: u8,
}

/// Under which session a peer was told of a shard; `None`: it was not told all there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bond {
    boot: BootId,
    session: u64,
}

/// An end that some peer has not acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct MovedEnd {
    /// The flow's shard.
    pub shard: ShardId,
    /// Its client key.
    pub client: Key,
    /// The image of its server key.
    pub answers: Image,
    /// Whether its source-NAT port waits with it.
    pub rests: bool,
    /// When it ended.
    pub stamp: Stamp,
}

impl Mirror {
    /// Whether a peer has yet to be told of flows. One of which a stream could not be had is told of none on it: it stays
    /// behind, and hinders nobody.
    pub fn is_walking(&self) -> bool {
        let streams = || self.peers.iter().flat_map(|peer| &peer.streams);
        self.standing.leads && streams().any(|stream| !stream.sync.walk_done())
    }

    /// Whether a frame about these shards that was taken for lost may still come to a peer. If so, the peer is told to take
    /// none that is so old ([`Record::Floor`](super::record::Record::Floor)): asked again later, this says whether it knows.
    pub fn may_have_strays(&mut self, shards: &ShardSet) -> bool {
        if !self.standing.leads || self.setup.variant == Variant::StraysLetIn {
            return false; // What it said as a leader nobody takes any more.
        }
        let mut any = false;
        for Peer { streams, stream_of, .. } in &mut self.peers {
            for (at, stream) in streams.iter_mut().enumerate() {
                if concerns(stream_of, at, shards) {
                    any |= stream.shut_out_strays();
                }
            }
        }
        any
    }

    /// Whether nothing of these shards is on its way to any peer.
    pub fn is_quiet(&mut self, shards: &ShardSet) -> bool {
        if self.may_have_strays(shards) {
            return false;
        }
        let named = |named: &Named| self.is_about(named, shards);
        !self.peers.iter().any(|peer| {
            let streams = peer.streams.iter().enumerate();
            streams
                .filter(|(at, _)| concerns(&peer.stream_of, *at, shards))
                .any(|(_, stream)| stream.in_flight.has(named))
        })
    }

    fn is_about(&self, named: &Named, shards: &ShardSet) -> bool {
        // These name every shard of a walk.
        let is_of_walk = matches!(named, Named::WalkBegin | Named::WalkEnd);
        // Questions too: one that comes after another worker has told of the shard would seem to find a difference.
        is_of_walk || named.shard().is_some_and(|shard| shards.has(shard))
    }

    /// Under which session each peer was told of a shard, for the worker to which it goes.
    pub fn bonds(&self, shard: ShardId) -> Vec<Option<Bond>> {
        let bond = |peer: &Peer| {
            let stream = peer.streams.get(usize::from(peer.stream_of[usize::from(shard.0)]))?;
            let boot = peer.boot.filter(|_| self.standing.leads && stream.sync.walk_done())?;
            Some(Bond { boot, session: peer.session })
        };
        self.peers.iter().map(bond).collect()
    }

    /// What the peers know of a flow, of whose shard nothing is on its way, as `is_quiet` says, or something may be.
    pub fn standing_of(&self, shard: ShardId, flow: FlowIndex, is_quiet: bool) -> Known {
        let mut known = Known::default();
        for (i, peer) in self.peers.iter().enumerate() {
            let stream = peer.streams.get(usize::from(peer.stream_of[usize::from(shard.0)]));
            let Some(stream) = stream.filter(|stream| stream.sync.knows(flow)) else { continue };
            known.flow |= 1 << i;
            let behind = !is_quiet || stream.sync.is_queued(flow) || stream.sync.may_be_behind(flow);
            known.behind |= u8::from(behind) << i;
        }
        known
    }

    /// A flow has left its place: its shard goes to another worker.
    pub fn flow_left(&mut self, now: Instant, shard: ShardId, place: FlowIndex) {
        self.flow_is_gone(place);
        for peer in &mut self.peers {
            if let Some(stream) = stream_of(peer, shard) {
                stream.sync.ended(now, shard, place, Version(0), None);
            }
        }
    }

    /// A flow is gone from its place, and no record has ended it.
    pub fn flow_is_gone(&mut self, place: FlowIndex) {
        self.digests.forget(place);
        if !self.standing.leads {
            // While it leads no handle counts: who leads after it names each flow in full before it uses one.
            let streams = self.peers.iter_mut().flat_map(|peer| &mut peer.streams);
            streams.for_each(|stream| stream.received.forget(place));
        }
    }

    /// Another worker speaks of this shard from now on: its ends that some peer has not acknowledged, for that worker to
    /// tell. All of its flows have left.
    pub fn part_with(&mut self, shard: ShardId) -> Vec<MovedEnd> {
        let about: Vec<u32> = self.tombstones.of_shard(shard).collect();
        let of_shard = |named: &Named| named.shard() == Some(shard);
        for peer in &mut self.peers {
            if let Some(stream) = stream_of(peer, shard) {
                stream.in_flight.forget(of_shard);
                stream.sync.forget_ends(&about);
                stream.sync.tell_of(shard, false);
                if stream.sync.is_idle() {
                    stream.unanswered_since = None; // It asks nothing any more, so nobody will answer.
                }
            }
            peer.stream_of[usize::from(shard.0)] = u8::MAX;
        }
        let moved = |place: &u32| {
            let departed = *self.tombstones.at(*place)?;
            Some(MovedEnd {
                shard,
                client: self.tombstones.client(*place)?,
                answers: departed.answers,
                rests: departed.resting != RestingPlace::NONE,
                stamp: departed.stamp,
            })
        };
        let ends = about.iter().filter_map(moved).collect();
        let ports = about.iter().filter_map(|place| self.tombstones.at(*place)).map(Departed::port);
        // They wait there now; a quarantine here does no harm.
        self.outcomes.extend(ports.map(Outcome::Departed));
        self.tombstones.forget(&about);
        ends
    }

    /// This worker speaks of the shard from now on. Until [`Mirror::arrived`] its flows are on their way here.
    pub fn adopt(&mut self, shard: ShardId) {
        self.arriving.set(shard, true);
        for peer in &mut self.peers {
            let worker = owner_of(shard, peer.workers.max(1));
            let at = peer.streams.iter().position(|stream| stream.peer_worker == worker);
            if let Some(at) = at {
                peer.stream_of[usize::from(shard.0)] = at as u8;
                peer.streams[at].sync.tell_of(shard, true);
            }
        }
    }

    /// All flows of these shards have come.
    pub fn arrived(&mut self, shards: &ShardSet) {
        self.arriving = self.arriving.without(shards);
    }

    /// Which peers' knowledge of a shard that comes with these bonds holds here: bit i is peer i.
    pub fn holding(&self, shard: ShardId, bonds: &[Option<Bond>]) -> u8 {
        let ours = self.bonds(shard);
        let holds = |(ours, theirs): (&Option<Bond>, &Option<Bond>)| ours.is_some() && ours == theirs;
        ours.iter().zip(bonds).enumerate().fold(0, |bits, (i, pair)| bits | u8::from(holds(pair)) << i)
    }

    /// Peers of which the knowledge does not hold are brought up to date from the start.
    pub fn begin_anew(&mut self, shard: ShardId, holding: u8) {
        for peer in (0..self.peers.len()).filter(|peer| holding >> peer & 1 == 0) {
            let stream = usize::from(self.peers[peer].stream_of[usize::from(shard.0)]);
            if stream < self.peers[peer].streams.len() {
                self.restart_stream(peer, stream);
            }
        }
    }

    /// A flow came with its shard to this place: those of `holding` know it as `known` says; the rest is told.
    pub fn flow_came(
        &mut self,
        now: Instant,
        shard: ShardId,
        place: FlowIndex,
        table: &Table,
        known: Known,
        holding: u8,
    ) {
        // It counts as it is; to whom that is news, it will be told.
        self.digests.note(table, place);
        let is_mirrored = |hot: &Hot| hot.flags().contains(FlowFlags::MIRRORED);
        if !self.standing.leads || !table.hot(place).is_some_and(is_mirrored) {
            return;
        }
        for (i, peer) in self.peers.iter_mut().enumerate() {
            let hears_of = peer.hears_of(place, table);
            let Some(stream) = stream_of(peer, shard).filter(|_| hears_of) else { continue };
            let is_known = (known.flow & holding) >> i & 1 == 1;
            if is_known {
                stream.sync.came_known(place);
            }
            if !is_known || known.behind >> i & 1 == 1 {
                stream.sync.changed(now, shard, place);
            }
        }
    }

    /// An end came with its shard: whether peers are told, and its port, at this place, waits for that.
    pub fn end_came(&mut self, now: Instant, end: &MovedEnd, imager: &Imager, resting: RestingPlace) -> bool {
        let waiting = self.listeners(end.shard, FlowFlags::MIRRORED, None);
        if waiting == 0 {
            return false;
        }
        let departed = Departed {
            client: imager.of(&end.client),
            answers: end.answers,
            stamp: end.stamp,
            resting,
            shard: end.shard,
            waiting,
        };
        match self.tombstones.bury(departed, &end.client) {
            Buried::At(tombstone) => {
                for peer in &mut self.peers {
                    if let Some(stream) = stream_of(peer, end.shard) {
                        stream.sync.tell_end(now, end.shard, tombstone);
                    }
                }
                true
            }
            Buried::Full => {
                // The walk's end tells them instead.
                (0..self.peers.len()).for_each(|peer| self.restart(peer));
                false
            }
        }
    }

    /// How often a stream of this worker began anew.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }
}

/// Whether the stream at this place of a peer tells of any of these shards.
fn concerns(stream_of: &[u8], stream: usize, shards: &ShardSet) -> bool {
    shards.iter().any(|shard| usize::from(stream_of[usize::from(shard.0)]) == stream)
}
