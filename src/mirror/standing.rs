//! Who leads, and so whose word counts: streams begin anew when that changes.

use crate::base::ids::{ShardId, Term};
use crate::mirror::{Mirror, Outcome, Standing};

impl Mirror {
    /// The role changed. A new leader brings every peer up to date from the
    /// start; one that no longer leads forgets what it wanted to say.
    pub fn set_standing(&mut self, standing: Standing) {
        let began = standing.leads && !self.standing.leads;
        let ended = !standing.leads && self.standing.leads;
        if !began && !ended {
            self.follow(standing.term);
        }
        if standing.leads {
            self.maintains_since(standing.term, began);
        }
        self.standing = standing;
        if began || ended {
            self.late.clear();
            for peer in 0..self.peers.len() {
                self.restart(peer);
            }
        }
    }

    /// A standby goes by this term from now on. If that is another node's than before, nobody else's word counts any more: who led
    /// before, and leads again without having heard of it, sees by the number of this worker's walk that it is to name all flows
    /// again.
    pub(super) fn follow(&mut self, term: Term) {
        let before = self.standing.term.node;
        if self.standing.leads || term.node == before || self.standing.term == Term::NONE {
            return;
        }
        for peer in 0..self.peers.len() {
            if self.peers[peer].node != term.node {
                self.ask_all_of(peer);
            }
        }
    }

    pub(super) fn restart(&mut self, peer: usize) {
        for stream in 0..self.peers[peer].streams.len() {
            self.restart_stream(peer, stream);
        }
    }

    /// What this worker refused while it did not know a service, it can take by now: whoever leads is to name all flows again.
    /// It hears that by the number of this worker's walk.
    pub fn ask_for_all(&mut self) {
        (0..self.peers.len()).for_each(|peer| self.ask_all_of(peer));
    }

    fn ask_all_of(&mut self, peer: usize) {
        self.restart(peer);
        for stream in &mut self.peers[peer].streams {
            // They are of the walk before.
            stream.refusals.clear();
            stream.acknowledgement_due = true;
        }
    }

    /// The walk's end tells of the ends that were not acknowledged.
    pub(super) fn restart_stream(&mut self, peer: usize, stream: usize) {
        let (outcomes, place) = (&mut self.outcomes, &mut self.peers[peer]);
        let of_stream = |shard: ShardId| usize::from(place.stream_of[usize::from(shard.0)]) == stream;
        self.tombstones
            .forget_peer(peer, of_stream, |departed| outcomes.push(Outcome::Departed(departed.port())));
        place.streams[stream].restart();
        if !self.standing.leads {
            place.streams[stream].received.ask_anew();
        }
        self.restarted = true;
        self.restarts += 1;
    }

    /// Whether a peer's streams began anew since this was last asked: changes that waited to
    /// be sent now wait for the walk, unless they are said again.
    pub fn take_restarted(&mut self) -> bool {
        std::mem::take(&mut self.restarted)
    }
}
