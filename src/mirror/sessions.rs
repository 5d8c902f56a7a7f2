//! A peer comes and goes: streams under its session, in room that outlives it. There is one to every worker of the peer,
//! also to those that are home to none of this worker's shards: any shard may come to this worker
//! ([`moving`](super::moving)).

use arrayvec::ArrayVec;

use crate::base::ids::{NodeId, ShardId, WorkerId};
use crate::base::limits::MEMBERS_MAX;
use crate::flow::flows::Flows;
use crate::flow::shard::{ShardSet, owner_of};
use crate::mirror::stream::{Room, Stream};
use crate::mirror::{Mirror, Outcome, Peer, Variant};
use crate::seal::session::{Session, StreamId};

impl Mirror {
    /// Takes the memory that the streams to peers' workers of this one's number will need, and has pages put behind it: these
    /// tell of all shards of this worker, where a peer has as many workers. So no frame of a walk waits for pages, which
    /// takes up to a millisecond each. Before the first packet; what cannot be had is asked for again with the session.
    pub fn populate(&mut self, flows: &Flows) {
        let (worker, keeps_graves) = (self.setup.worker, self.keeps_graves());
        self.digests.populate();
        for peer in &mut self.peers {
            if let Ok(room) = Room::new(worker, flows.capacity(), keeps_graves) {
                room.populate();
                peer.rooms.push(room);
            }
        }
    }

    fn keeps_graves(&self) -> bool {
        self.setup.variant != Variant::TombstoneDroppedEarly
    }

    /// A peer and this appliance have agreed on keys.
    pub fn open_session(&mut self, node: NodeId, session: &Session, flows: &Flows) {
        let Some(peer) = self.peers.iter().position(|peer| peer.node == node) else { return };
        self.close_session(node);
        let (me, theirs, keeps_graves) = (self.setup.worker, session.peer().workers, self.keeps_graves());
        let place = &mut self.peers[peer];
        place.workers = theirs;
        place.boot = Some(session.peer().boot);
        place.session = session.id();
        place.complete = true;
        // What is kept of its part goes on while it is away.
        place.tracked = session.peer().mirroring.tracked;
        let tracked: ArrayVec<_, MEMBERS_MAX> = self.peers.iter().map(|peer| peer.tracked).collect();
        self.digests.track(&tracked);
        let place = &mut self.peers[peer];
        for worker in (0..theirs).map(WorkerId) {
            let common: ShardSet =
                flows.owned().iter().filter(|shard| owner_of(*shard, theirs) == worker).collect();
            let number = StreamId::mirror(me.0, worker.0);
            let Ok(sealer) = session.sealer(number) else {
                place.complete = false;
                continue;
            };
            let opener = session.opener(StreamId::mirror(worker.0, me.0));
            let spare = place.rooms.iter().position(|room| room.peer_worker == worker);
            let room = match spare {
                Some(at) => place.rooms.swap_remove(at).again(),
                None => match Room::new(worker, flows.capacity(), keeps_graves) {
                    Ok(room) => room,
                    Err(error) => {
                        // Without this stream the peer never counts as synchronized.
                        log::error!("mirroring to node {node}, worker {worker}: {error}");
                        place.complete = false;
                        continue;
                    }
                },
            };
            for shard in common.iter() {
                place.stream_of[usize::from(shard.0)] = place.streams.len() as u8;
            }
            self.restarted = true;
            self.restarts += 1;
            let (mirroring, patience) = (session.peer().mirroring, self.round.patience());
            place.streams.push(Stream::open(sealer, opener, room, common, mirroring, patience));
        }
        if place.streams.is_empty() {
            // There is nobody to tell, so nothing waits for it.
            place.boot = None;
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

/// The stream that tells of a shard.
pub(super) fn stream_of(peer: &mut Peer, shard: ShardId) -> Option<&mut Stream> {
    let stream = *peer.stream_of.get(usize::from(shard.0))?;
    peer.streams.get_mut(usize::from(stream))
}
