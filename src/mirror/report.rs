//! How far each peer is behind.

use crate::base::ids::{NodeId, ShardId, Version, WorkerId};
use crate::base::spans::Spans;
use crate::base::time::{Duration, Instant};
use crate::flow::FlowIndex;
use crate::mirror::Mirror;
use crate::mirror::asking::Agreement;
use crate::mirror::in_flight::Named;
use crate::mirror::statistics::StreamStatistics;
use crate::mirror::stream::Stream;
use crate::mirror::sync::Sync;

/// How far one peer is behind.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The peer.
    pub peer: NodeId,
    /// The session under which it got there.
    pub session: u64,
    /// It was named every flow, and has acknowledged.
    pub walk_done: bool,
    /// Since when the oldest unacknowledged state waits, or the peer has answered nothing of what it was told or asked, or it has
    /// been too long that digests differ.
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
    /// Shards that it is about.
    pub shards: usize,
    /// Shards of which the walk is not done.
    pub shards_to_walk: usize,
    /// Flows that the peer knows.
    pub known: u64,
    /// Flows that the peer refused, in their newest state.
    pub refused: u32,
    /// Frames that the peer takes at once.
    pub credit: u16,
    /// The smoothed round-trip time.
    pub round_trip: Option<Duration>,
    /// How long frames waited to be acknowledged, under this session.
    pub latency: Spans,
    /// Since when the oldest unacknowledged state waits.
    pub oldest_since: Option<Instant>,
    /// Since when the peer has answered nothing of what it was told or asked; `None`: nothing waits for an answer.
    pub unanswered_since: Option<Instant>,
    /// How far digests agree.
    pub agreement: Agreement,
}

impl Mirror {
    /// Whether every one of `members` knows the flow; peers that are not named do not count.
    pub fn is_known_to(&self, members: &[NodeId], shard: ShardId, flow: FlowIndex) -> bool {
        self.all_say(members, shard, |sync| sync.knows(flow))
    }

    /// Whether every one of `members` knows the flow, or refused it: then no packet of it has to wait.
    pub fn is_answered_by(&self, members: &[NodeId], shard: ShardId, flow: FlowIndex) -> bool {
        self.all_say(members, shard, |sync| sync.has_answered(flow))
    }

    /// Whether digests of the shard were found equal with every one of `members` since this change of it, where changes are not
    /// acknowledged.
    pub fn is_confirmed_by(&self, members: &[NodeId], shard: ShardId, changed: Version) -> bool {
        self.all_say(members, shard, |sync| sync.agreed(shard) >= changed)
    }

    fn all_say(&self, members: &[NodeId], shard: ShardId, says: impl Fn(&Sync) -> bool) -> bool {
        self.peers.iter().filter(|peer| members.contains(&peer.node)).all(|peer| {
            let stream = peer.stream_of[usize::from(shard.0)];
            peer.streams.get(usize::from(stream)).is_some_and(|stream| says(&stream.sync))
        })
    }

    /// The peers of `members` for which packets of the flow wait.
    pub fn lagging<'a>(
        &'a self,
        members: &'a [NodeId],
        shard: ShardId,
        flow: FlowIndex,
    ) -> impl Iterator<Item = NodeId> + 'a {
        members.iter().copied().filter(move |node| !self.is_answered_by(&[*node], shard, flow))
    }

    /// How far each peer with a session is behind.
    pub fn progress(&self) -> impl Iterator<Item = Progress> + '_ {
        self.peers.iter().filter(|peer| peer.boot.is_some()).map(|peer| {
            let queued = peer.streams.iter().filter_map(|stream| stream.sync.oldest_since());
            let sent = peer.streams.iter().filter_map(|stream| stream.in_flight.oldest_since());
            let unanswered = peer.streams.iter().filter_map(|stream| stream.unanswered_since);
            let overdue = peer.streams.iter().filter_map(|stream| stream.sync.overdue_since());
            Progress {
                peer: peer.node,
                session: peer.session,
                walk_done: peer.complete && peer.streams.iter().all(|stream| stream.sync.walk_done()),
                oldest_since: queued.chain(sent).chain(unanswered).chain(overdue).min(),
                waiting: peer.streams.iter().map(|stream| stream.sync.waiting()).sum(),
            }
        })
    }

    /// Whether a peer has acknowledged everything.
    pub fn is_flushed(&self, node: NodeId) -> bool {
        let flushed = |stream: &Stream| {
            stream.sync.walk_done() && stream.sync.waiting() == 0 && !stream.in_flight.has(Named::is_state)
        };
        // One without a session has acknowledged nothing.
        let peer = self.peers.iter().find(|peer| peer.node == node && peer.boot.is_some());
        peer.is_some_and(|peer| peer.complete && peer.streams.iter().all(flushed))
    }

    /// Records that wait to be sent to a peer.
    pub fn waiting(&self, node: NodeId) -> usize {
        let streams = self.peers.iter().filter(|peer| peer.node == node).flat_map(|peer| &peer.streams);
        streams.map(|stream| stream.sync.waiting()).sum()
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
            shards: stream.sync.shards(),
            shards_to_walk: stream.sync.shards_to_walk(),
            known: stream.sync.known(),
            refused: stream.sync.refused(),
            credit: stream.credit,
            round_trip: stream.in_flight.round_trip(),
            latency: *stream.in_flight.latency(),
            unanswered_since: stream.unanswered_since,
            agreement: stream.sync.agreement(),
            oldest_since: stream.sync.oldest_since().into_iter().chain(stream.in_flight.oldest_since()).min(),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{BootId, GroupId, WorkerId};
    use crate::flow::flows::{Flows, FlowsSetup};
    use crate::mirror::in_flight::Fate;
    use crate::mirror::{MirrorSetup, Variant};
    use crate::seal::member::tests::member;
    use crate::seal::{MemberInfo, Mirroring, Session};

    /// Bug: what one standby refused was let go before the other one knew it.
    #[test]
    fn of_two_standbys_one_that_refuses_a_flow_says_nothing_for_the_other_one() {
        let node = |number| MemberInfo { workers: 1, mirroring: Mirroring::default(), ..member(number) };
        let flows = Flows::new(&FlowsSetup::alone(64)).expect("memory");
        let both = [NodeId(2), NodeId(3)];
        let mut mirror = Mirror::new(MirrorSetup {
            worker: WorkerId(0),
            workers: 1,
            group: GroupId(0),
            boot: BootId(1),
            capacity: 64,
            peers: both.to_vec(),
            walk_rate: 1000,
            maintenance_every: None,
            variant: Variant::Sound,
        })
        .expect("memory");
        for number in [2, 3] {
            let (session, _) = Session::agree_in_memory(node(1), node(number)).expect("entropy");
            mirror.open_session(NodeId(number), &session, &flows);
        }
        let (shard, flow, now) = (ShardId(0), FlowIndex(7), Instant::from_millis(1));
        let settle = |mirror: &mut Mirror, peer: usize, fate| {
            let stream = usize::from(mirror.peers[peer].stream_of[0]);
            mirror.peers[peer].streams[stream].sync.flow_settled(shard, flow.0, Some(0), fate, now);
        };
        settle(&mut mirror, 0, Fate::Refused);
        assert!(!mirror.is_answered_by(&both, shard, flow));
        assert_eq!(mirror.lagging(&both, shard, flow).collect::<Vec<_>>(), [NodeId(3)]);
        settle(&mut mirror, 1, Fate::Applied);
        assert!(mirror.is_answered_by(&both, shard, flow), "nobody is to be waited for any more");
        assert!(!mirror.is_known_to(&both, shard, flow), "it is not protected");
        mirror.peers[0].streams[0].sync.changed(now, shard, flow);
        assert!(!mirror.is_answered_by(&both, shard, flow), "its new state may be taken");
    }
}
