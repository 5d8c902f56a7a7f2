//! The operator's command that is run at every change of role (`failover.notify`, REQ B2).
//!
//! Owned by a thread of its own, so that no other one waits for a command: the master hands in what happened
//! ([`Notifier`]), the thread runs one command after the other (`child`). In: what the liveness thread said. Out:
//! processes, the log, events, counters.
//!
//! - [`change`]: which event is a change that the command is told of;
//! - [`queue`]: what is run next. Both know neither clock nor process.
//!
//! The thread is made before the EAL is started, and the command inherits what the thread has: the CPUs that the operator
//! gave the process, not the master's one, and ordinary scheduling. It gets no descriptor of DPDK's.

mod change;
mod queue;

use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use crate::base::counters::{Counter, Counters};
use crate::base::ids::{GroupId, NodeId};
use crate::base::time::{Duration, Instant};
use crate::config::checked::Hook;
use crate::driver::child::{self, Outcome, Written};
use crate::driver::clock::Clock;
use crate::driver::events::EventLog;
use crate::driver::notify::change::Changes;
use crate::driver::notify::queue::{Queue, Run};
use crate::driver::priority;
use crate::failover::Happened;

/// When the process ends, so long the command that runs is waited for, and then the last one. After that it is killed.
const END_MAX: Duration = Duration::from_secs(1);

/// What the thread is made from.
pub struct NotifySetup {
    /// What is run.
    pub notify: Hook,
    /// For whom: its node.
    pub node: NodeId,
    /// And its group.
    pub group: GroupId,
    /// The time.
    pub clock: Clock,
    /// Where runs are told.
    pub events: Arc<EventLog>,
    /// A thread of this process failed.
    pub broken: Arc<AtomicBool>,
}

/// What both threads hold.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something came.
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    /// Since when the process ends.
    ending: Option<Instant>,
}

impl Shared {
    /// What is to be run next; waits for it. `None`: the process ends, and nothing is left to run.
    fn next(&self) -> Option<Run> {
        let mut state = self.state.lock();
        loop {
            if let Some(run) = state.queue.take() {
                return Some(run);
            }
            if state.ending.is_some() {
                return None;
            }
            self.came.wait(&mut state);
        }
    }

    /// When a run that began then is to be killed.
    fn kill_at(&self, began: Instant, timeout: Duration) -> Instant {
        let end = self.state.lock().ending.map(|since| since.max(began) + END_MAX);
        end.unwrap_or(Instant::FAR_FUTURE).min(began + timeout)
    }
}

/// The master's end: takes what happened.
#[derive(Debug)]
pub struct Notifier {
    shared: Arc<Shared>,
    changes: Changes,
    events: Arc<EventLog>,
    broken: Arc<AtomicBool>,
}

impl Notifier {
    /// Something happened. Does not wait for a command; `counters` are the calling thread's own.
    pub fn handle_event(&mut self, happened: &Happened, counters: &Counters) {
        let failed = self.broken.load(Ordering::SeqCst);
        let Some(change) = self.changes.handle_event(&happened.event, happened.after.state, failed) else {
            return;
        };
        let skipped = self.shared.state.lock().queue.put(change);
        self.shared.came.notify_one();
        if let Some(skipped) = skipped {
            counters.bump(Counter::NotifySkipped);
            let sentence = format!("the command for {skipped} is skipped: an earlier one still runs");
            log::warn!("{sentence}");
            self.events.add("notify", sentence);
        }
    }
}

/// The thread that runs the command. Dropped without [`NotifyThread::end`], it ends when nothing is left to run.
pub struct NotifyThread {
    shared: Arc<Shared>,
    events: Arc<EventLog>,
    broken: Arc<AtomicBool>,
    clock: Clock,
    /// The thread's own.
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl NotifyThread {
    /// Starts it. The thread that calls this is not pinned yet.
    pub fn start(setup: NotifySetup) -> io::Result<NotifyThread> {
        let (shared, counters) = (Arc::<Shared>::default(), Arc::<Counters>::default());
        let (events, broken, clock) = (Arc::clone(&setup.events), Arc::clone(&setup.broken), setup.clock);
        let (theirs, counted) = (Arc::clone(&shared), Arc::clone(&counters));
        let thread =
            thread::Builder::new().name("notify".into()).spawn(move || run(&setup, &theirs, &counted))?;
        Ok(NotifyThread { shared, events, broken, clock, counters, thread: Some(thread) })
    }

    /// For the thread that hears what happens.
    pub fn notifier(&self) -> Notifier {
        Notifier {
            shared: Arc::clone(&self.shared),
            changes: Changes::default(),
            events: Arc::clone(&self.events),
            broken: Arc::clone(&self.broken),
        }
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// The process ends: waits until the command knows, twice [`END_MAX`] at most. After a failure of a thread it may be that
    /// nobody has said that the appliance left.
    pub fn end(self) {
        if self.broken.load(Ordering::SeqCst) {
            // What waited is no longer so.
            let _ = self.shared.state.lock().queue.put_failed();
        }
    }
}

impl Drop for NotifyThread {
    fn drop(&mut self) {
        self.shared.state.lock().ending = Some(self.clock.now());
        self.shared.came.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported when it happened.
            let _ = thread.join();
        }
    }
}

fn run(setup: &NotifySetup, shared: &Shared, counters: &Counters) {
    // The command inherits it.
    priority::be_ordinary("the thread that runs failover.notify");
    let NotifySetup { notify, node, group, clock, events, .. } = setup;
    while let Some(run) = shared.next() {
        let began = clock.now();
        counters.bump(Counter::NotifyRuns);
        let environment = run.environment(*node, *group);
        let outcome = child::run(notify, Written::Inherited, &environment, *clock, || {
            shared.kill_at(began, notify.timeout)
        });
        match &outcome {
            Outcome::Ended(status) if status.success() => {}
            Outcome::Ended(_) | Outcome::NotStarted(_) => counters.bump(Counter::NotifyFailures),
            Outcome::Killed { .. } => counters.bump(Counter::NotifyTimeouts),
        }
        let sentence =
            format!("the command for {} {outcome} after {} ms", run.change, (clock.now() - began).millis());
        if outcome.is_good() {
            log::info!("{sentence}");
        } else {
            log::warn!("{sentence}");
        }
        events.add("notify", sentence);
    }
}

#[cfg(test)]
mod tests;
