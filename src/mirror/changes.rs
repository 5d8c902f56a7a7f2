//! What the worker says of its flows: made, changed, ended.

use crate::base::ids::{ShardId, Version, VirtualServerId};
use crate::base::time::Instant;
use crate::flow::entry::{FlowFlags, Stamp};
use crate::flow::image::Image;
use crate::flow::table::Table;
use crate::flow::{FlowIndex, Key};
use crate::mirror::tombstone::{Buried, Departed, RestingPort};
use crate::mirror::{Mirror, Outcome, Peer, stream_of};

/// A flow that was removed from its place.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// Its shard.
    pub shard: ShardId,
    /// The place.
    pub place: FlowIndex,
    /// Its client key.
    pub client: &'a Key,
    /// The image of that key.
    pub image: Image,
    /// Its source-NAT port, if it had one.
    pub port: RestingPort,
    /// With which version it began.
    pub created: Version,
    /// When it ended.
    pub stamp: Stamp,
}

impl Mirror {
    /// A mirrored flow was made or changed; `urgent`: a packet waits for it.
    #[inline]
    pub fn flow_changed(
        &mut self,
        now: Instant,
        shard: ShardId,
        flow: FlowIndex,
        urgent: bool,
        table: &Table,
    ) {
        if !self.standing.leads {
            return;
        }
        for peer in self.peers.iter_mut().filter(|peer| peer.hears_of(flow, table)) {
            if let Some(stream) = stream_of(peer, shard) {
                stream.sync.changed(now, shard, flow);
                stream.urgent |= urgent;
            }
        }
    }

    /// A mirrored flow is one that peers may know, and has begun again: they are told in full.
    pub fn flow_began_again(&mut self, now: Instant, shard: ShardId, flow: FlowIndex, table: &Table) {
        if !self.standing.leads {
            return;
        }
        for peer in self.peers.iter_mut().filter(|peer| peer.hears_of(flow, table)) {
            if let Some(stream) = stream_of(peer, shard) {
                stream.sync.changed_in_full(now, shard, flow);
            }
        }
    }

    /// Asks for the memory that [`Mirror::flow_ended`] will need.
    #[inline]
    pub fn prefetch(&self, flow: FlowIndex) {
        self.digests.prefetch(flow);
        for stream in self.peers.iter().flat_map(|peer| &peer.streams).filter(|s| !s.sync.is_idle()) {
            stream.sync.prefetch(flow);
        }
    }

    /// The peers that are to hear when a flow of this shard and virtual server ends: bit i is peer i. `None`: it is not known
    /// which one it is of.
    pub fn listeners(&self, shard: ShardId, flags: FlowFlags, of: Option<VirtualServerId>) -> u8 {
        if !self.standing.leads || !flags.contains(FlowFlags::MIRRORED) {
            return 0;
        }
        let hears = |peer: &Peer| {
            let tracks = of.is_none_or(|of| peer.tracked.has(of));
            u8::from(tracks && peer.stream_of[usize::from(shard.0)] != u8::MAX)
        };
        self.peers.iter().enumerate().fold(0, |bits, (i, peer)| bits | hears(peer) << i)
    }

    /// A flow was removed from its place. Tells the `listeners`, which may know it, and
    /// says [`Outcome::Departed`] when all have acknowledged; of no listeners, nothing.
    pub fn flow_ended(&mut self, now: Instant, ended: &Ended<'_>, listeners: u8) {
        let Ended { shard, place, client, image, port, created, stamp } = *ended;
        if listeners == 0 {
            return self.forget(now, shard, place, created, None);
        }
        let RestingPort { image: answers, place: resting } = port;
        let departed = Departed { shard, client: image, answers, resting, stamp, waiting: listeners };
        match self.tombstones.bury(departed, client) {
            Buried::At(tombstone) => {
                self.forget(now, shard, place, created, Some((tombstone, listeners)));
            }
            Buried::Full => {
                // The walk's end tells them instead.
                self.forget(now, shard, place, created, None);
                for peer in 0..self.peers.len() {
                    self.restart(peer);
                }
                self.outcomes.push(Outcome::Departed(port));
            }
        }
    }

    fn forget(
        &mut self,
        now: Instant,
        shard: ShardId,
        place: FlowIndex,
        created: Version,
        buried: Option<(u32, u8)>,
    ) {
        self.flow_is_gone(place);
        for (i, peer) in self.peers.iter_mut().enumerate() {
            if let Some(stream) = stream_of(peer, shard) {
                let told = buried.filter(|(_, listeners)| listeners >> i & 1 == 1);
                let tombstone = told.map(|(tombstone, _)| tombstone);
                stream.sync.ended(now, shard, place, created, tombstone);
            }
        }
    }
}

impl Peer {
    /// Whether it tracks the flow at this place. Of one that does not, nothing waits for it: nor is it looked at again.
    #[inline]
    pub(super) fn hears_of(&self, flow: FlowIndex, table: &Table) -> bool {
        let tracks = || table.named(flow).is_none_or(|(_, names)| self.tracked.has(names.virtual_server));
        !self.tracked.is_partial() || tracks()
    }
}
