//! The aging sweep: looks over the last-seen arrays of all workers, a slice at a
//! time, and names the flows that look expired to their workers, which look
//! again before they remove one (REQ E4, C8).

use crate::base::ids::WorkerId;
use crate::base::time::{Duration, Instant};
use crate::config::checked::Flows;
use crate::flow::FlowIndex;
use crate::flow::aging::{LastSeen, Sweep, Timeouts};

/// Between two slices.
const SLICE_INTERVAL: Duration = Duration::from_millis(10);
/// Slices of a whole round over an array, at most: a round takes a second, whatever its size.
const SLICES: u32 = 100;
/// Places in one slice at least: of a small array all.
const SLICE_PLACES_MIN: u32 = 16_384;
/// Flows of one worker that are named in one slice at most: then the slice ends there.
const NAMED_MAX: usize = 1024;

/// An expired flow, as far as the master can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The worker that owns its shard.
    pub worker: WorkerId,
    /// Its place.
    pub flow: FlowIndex,
}

/// The sweep over all workers' flows.
pub struct AgingSweep {
    workers: Vec<(WorkerId, Sweep)>,
    timeouts: Timeouts,
    due: Instant,
}

impl AgingSweep {
    /// A sweep over these arrays with the configuration's time-outs.
    pub fn new(now: Instant, flows: &Flows, last_seen: Vec<(WorkerId, LastSeen)>) -> AgingSweep {
        let timeouts = Timeouts {
            handshake: flows.tcp_handshake_timeout,
            established: flows.tcp_established_timeout,
            closing: flows.tcp_closing_timeout,
            datagram: flows.udp_timeout,
        };
        let workers = last_seen.into_iter().map(|(worker, seen)| (worker, Sweep::new(seen))).collect();
        AgingSweep { workers, timeouts, due: now + SLICE_INTERVAL }
    }

    /// When the next slice is due.
    pub fn next_deadline(&self) -> Instant {
        self.due
    }

    /// Sweeps a slice of each worker's flows if one is due, and names what looks expired.
    pub fn poll(&mut self, now: Instant, expired: &mut Vec<Expired>) {
        if now < self.due {
            return;
        }
        self.due = now + SLICE_INTERVAL;
        for (worker, sweep) in &mut self.workers {
            let slice = (sweep.places() / SLICES).max(SLICE_PLACES_MIN);
            let named = sweep.next_expired(slice, now, &self.timeouts);
            expired.extend(named.take(NAMED_MAX).map(|flow| Expired { worker: *worker, flow }));
        }
    }
}
