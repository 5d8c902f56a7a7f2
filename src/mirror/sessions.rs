//! A peer comes and goes: streams under its session, in room that outlives it.

use crate::base::ids::{NodeId, WorkerId};
use crate::flow::flows::Flows;
use crate::flow::shard::owner_of;
use crate::mirror::record::ShardSet;
use crate::mirror::stream::{Room, Stream};
use crate::mirror::{Mirror, Outcome, Variant};
use crate::seal::session::{Session, StreamId};

impl Mirror {
    /// A peer and this appliance have agreed on keys.
    pub fn open_session(&mut self, node: NodeId, session: &Session, flows: &Flows) {
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
        place.complete = true;
        for worker in (0..theirs).map(WorkerId) {
            let ours = flows.shards().map(|shard| shard.id);
            let common: ShardSet = ours.filter(|shard| owner_of(*shard, theirs) == worker).collect();
            if common.is_empty() {
                continue;
            }
            let number = StreamId::mirror(me.0, worker.0);
            let Ok(sealer) = session.sealer(number) else {
                place.complete = false;
                continue;
            };
            let opener = session.opener(StreamId::mirror(worker.0, me.0));
            let spare = place.rooms.iter().position(|room| room.peer_worker == worker);
            let room = match spare {
                Some(at) => place.rooms.swap_remove(at).again(),
                None => {
                    let keeps_graves = self.setup.variant != Variant::TombstoneDroppedEarly;
                    match Room::new(worker, flows.capacity(), common, keeps_graves) {
                        Ok(room) => room,
                        Err(error) => {
                            // Without this stream the peer never counts as synchronized.
                            log::error!("mirroring to node {node}, worker {worker}: {error}");
                            place.complete = false;
                            continue;
                        }
                    }
                }
            };
            for shard in flows.shards().filter(|shard| common.has(shard.id)) {
                place.stream_of[usize::from(shard.id.0)] = place.streams.len() as u8;
            }
            self.restarted = true;
            place.streams.push(Stream::open(sealer, opener, room));
        }
    }

    /// A peer is gone: nothing waits for it any more.
    pub fn close_session(&mut self, node: NodeId) {
        let Some(peer) = self.peers.iter().position(|peer| peer.node == node) else { return };
        let outcomes = &mut self.outcomes;
        self.tombstones.forget_peer(
            peer,
            |_| true,
            |departed| outcomes.push(Outcome::Departed(departed.port())),
        );
        let place = &mut self.peers[peer];
        place.boot = None;
        place.rooms.extend(place.streams.drain(..).map(Stream::close));
        place.stream_of.fill(u8::MAX);
        self.late.retain(|late| late.1 != peer);
    }
}
