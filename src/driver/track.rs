//! The operator's tracking script (`failover.track_script`, REQ B2): a command that is run again and again, and whose exit
//! status counts for this appliance's health.
//!
//! Owned by a thread of its own, made before the EAL as that of `failover.notify` is, so that neither the master nor the
//! liveness thread ever waits for it. One run at a time; one that takes too long is killed with all that it started, and has
//! failed. What it writes is thrown away. Out: how each run ended, for the master; a sentence when that changes; counters.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use crate::base::counters::{Counter, Counters};
use crate::base::ids::{GroupId, NodeId};
use crate::base::limits::TRACK_RESULTS_MAX;
use crate::base::time::Instant;
use crate::config::checked::TrackScript;
use crate::driver::child::{self, Outcome};
use crate::driver::clock::{Clock, std_duration};
use crate::driver::events::EventLog;
use crate::driver::priority;

/// What the thread is made from.
pub struct TrackSetup {
    /// What is run, and how often.
    pub script: TrackScript,
    /// For whom: its node.
    pub node: NodeId,
    /// And its group.
    pub group: GroupId,
    /// The time.
    pub clock: Clock,
    /// Where it is told how runs end.
    pub events: Arc<EventLog>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// The process ends.
    ends: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Runs that ended, well or not, and that the master has not taken.
    results: VecDeque<bool>,
    ending: bool,
}

/// The master's end.
#[derive(Debug)]
pub struct Results(Arc<Shared>);

impl Results {
    /// How the oldest run ended that was not taken yet, if one did and the thread is not just saying so.
    pub fn take(&self) -> Option<bool> {
        self.0.state.try_lock()?.results.pop_front()
    }
}

/// The thread that runs the script; ends it, and itself, when dropped.
pub struct TrackThread {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl TrackThread {
    /// Starts it. The thread that calls this is not pinned yet.
    pub fn start(setup: TrackSetup) -> io::Result<TrackThread> {
        let (shared, counters) = (Arc::<Shared>::default(), Arc::<Counters>::default());
        let (theirs, counted) = (Arc::clone(&shared), Arc::clone(&counters));
        let thread =
            thread::Builder::new().name("track".into()).spawn(move || run(&setup, &theirs, &counted))?;
        Ok(TrackThread { shared, counters, thread: Some(thread) })
    }

    /// For the thread that judges.
    pub fn results(&self) -> Results {
        Results(Arc::clone(&self.shared))
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

impl Drop for TrackThread {
    fn drop(&mut self) {
        self.shared.state.lock().ending = true;
        self.shared.ends.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn run(setup: &TrackSetup, shared: &Shared, counters: &Counters) {
    // The script inherits it.
    priority::be_ordinary("the thread that runs failover.track_script");
    let TrackSetup { script, node, group, clock, events } = setup;
    let environment = [("BATON_NODE", node.to_string()), ("BATON_GROUP", group.to_string())];
    let mut told = None;
    loop {
        let began = clock.now();
        let kill_at = || match shared.state.lock().ending {
            true => Instant::ZERO,
            false => began + script.command.timeout,
        };
        let outcome = child::run(&script.command, child::Written::ThrownAway, &environment, *clock, kill_at);
        let mut state = shared.state.lock();
        if state.ending {
            return;
        }
        if state.results.len() == TRACK_RESULTS_MAX {
            state.results.pop_front();
        }
        state.results.push_back(outcome.is_good());
        drop(state);
        counters.bump(Counter::TrackRuns);
        match &outcome {
            Outcome::Ended(status) if status.success() => {}
            Outcome::Ended(_) | Outcome::NotStarted(_) => counters.bump(Counter::TrackFailures),
            Outcome::Killed { .. } => counters.bump(Counter::TrackTimeouts),
        }
        let how = outcome.to_string();
        if told.as_ref() != Some(&how) {
            let took = (clock.now() - began).millis();
            let sentence = format!("the tracking script {how} after {took} ms");
            if outcome.is_good() {
                log::info!("{sentence}");
            } else {
                log::warn!("{sentence}");
            }
            events.add("health", sentence);
            told = Some(how);
        }
        let mut state = shared.state.lock();
        let until = std::time::Instant::now() + std_duration(script.interval);
        while !state.ending {
            if shared.ends.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        if state.ending {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
