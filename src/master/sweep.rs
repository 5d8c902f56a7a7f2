//! The aging sweep: looks over the last-seen arrays of all workers, a slice at a
//! time, and names the flows that look expired to their workers, which look
//! again before they remove one (REQ E4, C8).

use crate::base::ids::WorkerId;
use crate::base::limits::WORKERS_MAX;
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
/// Flows of one worker that are named in one slice at most: then the slice ends there. A million a second.
const NAMED_MAX: usize = 10_240;

/// An expired flow, as far as the master can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The worker that owns its shard.
    pub worker: WorkerId,
    /// Its place.
    pub flow: FlowIndex,
}

/// Some of the workers.
#[derive(Clone, Copy, Debug, Default)]
struct WorkerSet(u16);

const _: () = assert!(WORKERS_MAX <= u16::BITS as usize);

impl WorkerSet {
    const fn has(self, worker: WorkerId) -> bool {
        self.0 >> (worker.0 % WORKERS_MAX as u16) & 1 == 1
    }

    const fn set(&mut self, worker: WorkerId, has: bool) {
        let bit = 1 << (worker.0 % WORKERS_MAX as u16);
        self.0 = if has { self.0 | bit } else { self.0 & !bit };
    }
}

/// The sweep over all workers' flows.
pub struct AgingSweep {
    workers: Vec<(WorkerId, Sweep)>,
    /// Workers that have not taken what was named to them before.
    crowded: WorkerSet,
    timeouts: Timeouts,
    due: Instant,
}

impl AgingSweep {
    /// A sweep over these arrays with the configuration's time-outs.
    pub fn new(now: Instant, flows: &Flows, last_seen: Vec<(WorkerId, LastSeen)>) -> AgingSweep {
        let timeouts = Timeouts::from(flows);
        let workers = last_seen.into_iter().map(|(worker, seen)| (worker, Sweep::new(seen))).collect();
        AgingSweep { workers, crowded: WorkerSet::default(), timeouts, due: now + SLICE_INTERVAL }
    }

    /// Other time-outs, from the next slice on.
    pub fn set_timeouts(&mut self, flows: &Flows) {
        self.timeouts = Timeouts::from(flows);
    }

    /// When the next slice is due.
    pub fn next_deadline(&self) -> Instant {
        self.due
    }

    /// Commands wait for this worker, or no longer do. While they wait no flow of it is named: so what waits is
    /// bounded by what one slice names.
    pub fn set_crowded(&mut self, worker: WorkerId, crowded: bool) {
        self.crowded.set(worker, crowded);
    }

    /// Sweeps a slice of each worker's flows if one is due, and names what looks expired.
    pub fn poll(&mut self, now: Instant, expired: &mut Vec<Expired>) {
        if now < self.due {
            return;
        }
        self.due = now + SLICE_INTERVAL;
        for (worker, sweep) in self.workers.iter_mut().filter(|(worker, _)| !self.crowded.has(*worker)) {
            let slice = (sweep.places() / SLICES).max(SLICE_PLACES_MIN);
            let named = sweep.next_expired(slice, now, &self.timeouts);
            expired.extend(named.take(NAMED_MAX).map(|flow| Expired { worker: *worker, flow }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::aging::TimeoutClass;

    const PLACES: u32 = 30_000;

    /// A sweep over two workers, all of whose flows are idle.
    fn idle() -> (AgingSweep, [LastSeen; 2]) {
        let arrays = [0, 1].map(|_| LastSeen::new(PLACES).expect("memory"));
        for array in &arrays {
            (0..PLACES).for_each(|n| array.touch(FlowIndex(n), TimeoutClass::Closing, Instant::ZERO));
        }
        let flows = Flows {
            max: 100_000,
            tcp_handshake_timeout: Duration::from_secs(1),
            tcp_established_timeout: Duration::from_secs(1),
            tcp_closing_timeout: Duration::from_secs(1),
            udp_timeout: Duration::from_secs(1),
            port_quarantine: Duration::from_secs(1),
        };
        let workers = arrays.iter().cloned().zip(0..).map(|(array, id)| (WorkerId(id), array)).collect();
        (AgingSweep::new(Instant::ZERO, &flows, workers), arrays)
    }

    fn named(sweep: &mut AgingSweep, at_millis: u64) -> [usize; 2] {
        let mut expired = Vec::new();
        sweep.poll(Instant::from_millis(at_millis), &mut expired);
        [0, 1].map(|id| expired.iter().filter(|expired| expired.worker == WorkerId(id)).count())
    }

    #[test]
    fn a_slice_names_a_bounded_number_of_each_workers_flows_and_the_next_one_goes_on_behind() {
        let (mut sweep, arrays) = idle();
        assert_eq!(named(&mut sweep, 60_000), [NAMED_MAX; 2]);
        assert_eq!(named(&mut sweep, 60_009), [0, 0], "none is due");
        for n in 0..PLACES {
            arrays[1].release(FlowIndex(n));
        }
        assert_eq!(named(&mut sweep, 60_010), [NAMED_MAX, 0]);
        let mut expired = Vec::new();
        sweep.poll(Instant::from_millis(60_020), &mut expired);
        assert_eq!(expired[0].flow, FlowIndex(2 * NAMED_MAX as u32));
    }

    #[test]
    fn no_flow_of_a_worker_is_named_while_its_commands_wait() {
        let (mut sweep, _) = idle();
        sweep.set_crowded(WorkerId(1), true);
        assert_eq!(named(&mut sweep, 60_000), [NAMED_MAX, 0]);
        sweep.set_crowded(WorkerId(0), true);
        assert_eq!(named(&mut sweep, 60_010), [0, 0]);
        sweep.set_crowded(WorkerId(1), false);
        assert_eq!(named(&mut sweep, 60_020), [0, NAMED_MAX]);
    }
}
