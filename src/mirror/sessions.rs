//! A peer comes and goes: streams under its session, in room that outlives it.

use crate::base::ids::{NodeId, WorkerId};
use crate::flow::shard::{Shard, owner_of};
use crate::mirror::in_flight::InFlight;
use crate::mirror::receiver::Received;
use crate::mirror::stream::{Room, Stream};
use crate::mirror::sync::Sync;
use crate::mirror::{Mirror, Outcome, Variant};
use crate::seal::session::{Session, StreamId};

impl Mirror {
    /// A peer and this appliance have agreed on keys.
    pub fn open_session(&mut self, node: NodeId, session: &Session, shards: &[Option<Box<Shard>>]) {
        let Some(peer) = self.peers.iter().position(|peer| peer.node == node) else { return };
        self.close_session(node);
        let (me, theirs) = (self.setup.worker, session.peer().workers);
        let place = &mut self.peers[peer];
        if place.workers != theirs {
            place.rooms.clear(); // Other shards meet in its streams.
            place.workers = theirs;
        }
        place.boot = Some(session.peer().boot);
        place.session = session.id();
        for worker in (0..theirs).map(WorkerId) {
            let common = |shard: &&Shard| owner_of(shard.id, theirs) == worker;
            let mine = || shards.iter().filter_map(|shard| shard.as_deref());
            if !mine().any(|shard| common(&shard)) {
                continue;
            }
            let number = StreamId::mirror(me.0, worker.0);
            let Ok(sealer) = session.sealer(number) else { continue };
            for shard in mine().filter(common) {
                place.stream_of[usize::from(shard.id.0)] = place.streams.len() as u8;
            }
            self.restarted = true;
            let keeps_graves = self.setup.variant != Variant::TombstoneDroppedEarly;
            let spare = place.rooms.iter().position(|room| room.peer_worker == worker);
            let spare = spare.map(|at| place.rooms.swap_remove(at));
            let opener = session.opener(StreamId::mirror(worker.0, me.0));
            place.streams.push(Stream::open(worker, sealer, opener, spare, || Room {
                peer_worker: worker,
                in_flight: InFlight::default(),
                sync: Sync::new(mine().filter(common)),
                received: Received::new(keeps_graves),
            }));
        }
    }

    /// A peer is gone: nothing waits for it any more.
    pub fn close_session(&mut self, node: NodeId) {
        let Some(peer) = self.peers.iter().position(|peer| peer.node == node) else { return };
        let outcomes = &mut self.outcomes;
        self.tombstones.forget_peer(peer, |_| true, |departed| outcomes.push(Outcome::Departed(departed)));
        let place = &mut self.peers[peer];
        place.boot = None;
        place.rooms.extend(place.streams.drain(..).map(Stream::close));
        place.stream_of.fill(u8::MAX);
        self.late.retain(|late| late.1 != peer);
    }
}
