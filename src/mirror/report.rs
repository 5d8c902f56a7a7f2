//! How far each peer is behind.

use crate::base::ids::{NodeId, WorkerId};
use crate::base::time::{Duration, Instant};
use crate::mirror::Mirror;
use crate::mirror::stream::{Stream, StreamStatistics};

/// How far one peer is behind.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The peer.
    pub peer: NodeId,
    /// The session under which it got there.
    pub session: u64,
    /// It was named every flow, and has acknowledged.
    pub walk_done: bool,
    /// Since when the oldest unacknowledged state waits.
    pub oldest_since: Option<Instant>,
    /// States that wait to be sent.
    pub waiting: usize,
}

/// One mirror stream.
#[derive(Clone, Debug)]
pub struct StreamStatus {
    /// To this peer.
    pub peer: NodeId,
    /// To this worker of it.
    pub worker: WorkerId,
    /// Its counts.
    pub statistics: StreamStatistics,
    /// Frames in flight.
    pub in_flight: usize,
    /// States and ends that wait to be sent.
    pub waiting: usize,
    /// Shards of which the walk is not done.
    pub shards_to_walk: usize,
    /// Flows that the peer knows.
    pub known: u64,
    /// The smoothed round-trip time.
    pub round_trip: Option<Duration>,
    /// Since when the oldest unacknowledged state waits.
    pub oldest_since: Option<Instant>,
}

impl Mirror {
    /// How far each peer with a session is behind.
    pub fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        self.peers.iter().filter(|peer| peer.boot.is_some()).map(|peer| {
            let queued = peer.streams.iter().filter_map(|stream| stream.sync.oldest_since());
            let sent = peer.streams.iter().filter_map(|stream| stream.in_flight.oldest_since());
            Progress {
                peer: peer.node,
                session: peer.session,
                walk_done: peer.complete && peer.streams.iter().all(|stream| stream.sync.walk_done()),
                oldest_since: queued.chain(sent).min(),
                waiting: peer.streams.iter().map(|stream| stream.sync.waiting()).sum(),
            }
        })
    }

    /// Whether a peer has acknowledged everything.
    pub fn is_flushed(&self, node: NodeId) -> bool {
        let flushed = |stream: &Stream| {
            stream.sync.walk_done() && stream.sync.waiting() == 0 && stream.in_flight.waiting() == 0
        };
        // One without a session has acknowledged nothing.
        let peer = self.peers.iter().find(|peer| peer.node == node && peer.boot.is_some());
        peer.is_some_and(|peer| peer.complete && peer.streams.iter().all(flushed))
    }

    /// Flows that the peer of `members` that knows fewest knows; 0 without members.
    pub fn known_to_all(&self, members: &[NodeId]) -> u64 {
        let peers = self.peers.iter().filter(|peer| members.contains(&peer.node));
        peers.map(|peer| peer.streams.iter().map(|stream| stream.sync.known()).sum()).min().unwrap_or(0)
    }

    /// Ended flows whose end some peer has not acknowledged.
    pub fn departed(&self) -> usize {
        self.tombstones.len()
    }

    /// Every stream.
    pub fn streams(&self) -> Vec<StreamStatus> {
        let all = self.peers.iter().flat_map(|peer| peer.streams.iter().map(move |stream| (peer, stream)));
        all.map(|(peer, stream)| StreamStatus {
            peer: peer.node,
            worker: stream.peer_worker,
            statistics: stream.statistics,
            in_flight: stream.in_flight.waiting(),
            waiting: stream.sync.waiting(),
            shards_to_walk: stream.sync.shards_to_walk(),
            known: stream.sync.known(),
            round_trip: stream.in_flight.round_trip(),
            oldest_since: stream.sync.oldest_since().into_iter().chain(stream.in_flight.oldest_since()).min(),
        })
        .collect()
    }
}
