//! The aging sweep: looks over the last-seen arrays of all shards, a slice at a
//! time, and names the flows that look expired to their workers, which look
//! again before they remove one (REQ E4, C8).

use std::collections::VecDeque;

use crate::base::ids::{ShardId, WorkerId};
use crate::base::time::{Duration, Instant};
use crate::config::checked::Flows;
use crate::flow::FlowIndex;
use crate::flow::aging::{LastSeen, Sweep, Timeouts};

/// Between two slices.
const SLICE_INTERVAL: Duration = Duration::from_millis(10);
/// Places in one slice: a million flows are swept in under a second.
const SLICE_PLACES: u32 = 16_384;
/// Flows named in one slice at most; the others are named in the next round.
const NAMED_MAX: usize = 1024;

/// An expired flow, as far as the master can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The worker that owns its shard.
    pub worker: WorkerId,
    /// Its shard.
    pub shard: ShardId,
    /// Its place.
    pub flow: FlowIndex,
}

/// The sweep over all shards.
pub struct AgingSweep {
    shards: VecDeque<(WorkerId, ShardId, u32, Sweep)>,
    timeouts: Timeouts,
    due: Instant,
}

impl AgingSweep {
    /// A sweep over these arrays with the configuration's time-outs.
    pub fn new(now: Instant, flows: &Flows, last_seen: Vec<(WorkerId, ShardId, LastSeen)>) -> AgingSweep {
        let timeouts = Timeouts {
            handshake: flows.tcp_handshake_timeout,
            established: flows.tcp_established_timeout,
            closing: flows.tcp_closing_timeout,
            datagram: flows.udp_timeout,
        };
        let shards = last_seen
            .into_iter()
            .map(|(worker, shard, seen)| (worker, shard, seen.places(), Sweep::new(seen)))
            .collect();
        AgingSweep { shards, timeouts, due: now + SLICE_INTERVAL }
    }

    /// When the next slice is due.
    pub fn next_deadline(&self) -> Instant {
        self.due
    }

    /// Sweeps a slice if one is due, and names what looks expired.
    pub fn poll(&mut self, now: Instant, expired: &mut Vec<Expired>) {
        if now < self.due {
            return;
        }
        self.due = now + SLICE_INTERVAL;
        let mut places = 0;
        for _ in 0..self.shards.len() {
            let Some((worker, shard, len, mut sweep)) = self.shards.pop_front() else { return };
            places += len;
            let named = sweep.next_expired(len, now, &self.timeouts);
            let room = NAMED_MAX.saturating_sub(expired.len());
            expired.extend(named.take(room).map(|flow| Expired { worker, shard, flow }));
            self.shards.push_back((worker, shard, len, sweep));
            if places >= SLICE_PLACES || expired.len() >= NAMED_MAX {
                return;
            }
        }
    }
}
