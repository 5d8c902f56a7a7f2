//! The command that fences a silent leader (`failover.fence`, REQ B2): one run at a time, in a thread of its own, since it may take
//! seconds. In: whom to fence. Out: whether it did, by its exit status. An order that it comes to too late is not run: nobody
//! waits for it any more, and who was silent then may lead by now.
//!
//! As the thread of [`notify`](crate::driver::notify), it is made before the EAL pins the process's first one, and the command
//! inherits what is ordinary.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::base::counters::{Counter, Counters};
use crate::base::ids::{GroupId, NodeId, Term};
use crate::base::time::{Duration, Instant};
use crate::config::checked::Hook;
use crate::driver::child;
use crate::driver::clock::Clock;
use crate::driver::events::EventLog;
use crate::driver::priority;

/// What is asked of the thread.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Numbers the orders.
    pub attempt: u64,
    /// Whom to fence.
    pub node: NodeId,
    /// The term that this appliance followed.
    pub term: Term,
    /// When it was ordered: the command has to have ended `timeout` after that.
    pub at: Instant,
}

/// What the thread is made from.
pub struct FenceSetup {
    /// What is run.
    pub fence: Hook,
    /// For whom: its node.
    pub node: NodeId,
    /// And its group.
    pub group: GroupId,
    /// The time.
    pub clock: Clock,
    /// Where runs are told.
    pub events: Arc<EventLog>,
}

/// The liveness thread's end: nothing here waits.
#[derive(Debug)]
pub struct Fencer {
    orders: Sender<Order>,
    answers: Receiver<(u64, bool)>,
}

impl Fencer {
    /// Has a member fenced.
    pub fn ask(&self, order: Order) {
        // The thread may have panicked: then nobody answers, which counts as a failure in time.
        let _ = self.orders.send(order);
    }

    /// Which attempt has ended, and whether it did what it was to.
    pub fn answer(&self) -> Option<(u64, bool)> {
        self.answers.try_recv().ok()
    }
}

/// The thread. It ends when the [`Fencer`] is gone and the command that runs has ended; the process does not wait for it.
pub struct FenceThread {
    counters: Arc<Counters>,
}

impl FenceThread {
    /// Starts it. The thread that calls this is not pinned yet.
    pub fn start(setup: FenceSetup) -> io::Result<(FenceThread, Fencer)> {
        let (orders, ordered) = channel::<Order>();
        let (answers, answered) = channel();
        let counters = Arc::<Counters>::default();
        let counted = Arc::clone(&counters);
        let run = move || {
            priority::be_ordinary("the thread that runs failover.fence");
            for order in ordered {
                let done = run_one(&setup, order, &counted);
                if answers.send((order.attempt, done)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("fence".into()).spawn(run)?;
        Ok((FenceThread { counters }, Fencer { orders, answers: answered }))
    }

    /// What it counts.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }
}

fn run_one(setup: &FenceSetup, order: Order, counters: &Counters) -> bool {
    let FenceSetup { fence, node, group, clock, events } = setup;
    let environment = [
        ("BATON_FENCE_NODE", order.node.to_string()),
        ("BATON_FENCE_TERM", order.term.to_string()),
        ("BATON_NODE", node.to_string()),
        ("BATON_GROUP", group.to_string()),
    ];
    let (began, kill_at) = (clock.now(), order.at + fence.timeout);
    if began >= kill_at {
        counters.bump(Counter::FenceFailures);
        let late = began - order.at;
        let sentence = format!(
            "the command that fences node {} was not run: it was ordered {} ms ago",
            order.node,
            late.millis()
        );
        log::warn!("{sentence}");
        events.add("fence", sentence);
        return false;
    }
    counters.bump(Counter::FenceRuns);
    let outcome = child::run(fence, child::Written::Inherited, &environment, *clock, || kill_at);
    let good = outcome.is_good();
    if !good {
        counters.bump(Counter::FenceFailures);
    }
    let took: Duration = clock.now() - began;
    let sentence =
        format!("the command that fences node {} {outcome} after {} ms", order.node, took.millis());
    if good {
        log::info!("{sentence}");
    } else {
        log::warn!("{sentence}");
    }
    events.add("fence", sentence);
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fenced(script: &str, timeout: Duration) -> (bool, String, Arc<Counters>) {
        fenced_after(Duration::ZERO, script, timeout)
    }

    /// The thread comes to the order so late.
    fn fenced_after(late: Duration, script: &str, timeout: Duration) -> (bool, String, Arc<Counters>) {
        let clock = Clock::start();
        let events = Arc::new(EventLog::new(NodeId(1), clock));
        let fence =
            Hook { program: "/bin/sh".into(), arguments: vec!["-c".to_owned(), script.to_owned()], timeout };
        let setup =
            FenceSetup { fence, node: NodeId(1), group: GroupId(0), clock, events: Arc::clone(&events) };
        let (thread, fencer) = FenceThread::start(setup).unwrap();
        // A clock begins with a second, so there is a time before its start.
        let at = Instant::from_nanos(clock.now().nanos() - late.nanos());
        fencer.ask(Order { attempt: 7, node: NodeId(2), term: Term { counter: 5, node: NodeId(2) }, at });
        let until: Instant = clock.now() + Duration::from_secs(60);
        loop {
            assert!(clock.now() < until, "no answer");
            if let Some((attempt, done)) = fencer.answer() {
                assert_eq!(attempt, 7);
                let told = events.report().events.last().unwrap().message.clone();
                return (done, told, thread.counters());
            }
            thread::yield_now();
        }
    }

    #[test]
    fn the_commands_exit_status_says_whether_it_fenced() {
        let right = "test \"$BATON_FENCE_NODE $BATON_FENCE_TERM $BATON_NODE $BATON_GROUP\" = \"2 5.2 1 0\"";
        let (done, told, counters) = fenced(right, Duration::from_secs(60));
        assert!(done && told.contains("the command that fences node 2 ended well"), "{told}");
        assert_eq!((counters.value(Counter::FenceRuns), counters.value(Counter::FenceFailures)), (1, 0));
        let (done, told, counters) = fenced("exit 3", Duration::from_secs(60));
        assert!(!done && told.contains("failed"), "{told}");
        assert_eq!(counters.value(Counter::FenceFailures), 1);
    }

    #[test]
    fn a_command_that_takes_too_long_has_failed() {
        let (done, told, _) = fenced("sleep 1000", Duration::from_millis(50));
        assert!(!done && told.contains("was killed"), "{told}");
    }

    #[test]
    fn an_order_that_nobody_waits_for_any_more_is_not_run() {
        let mark = std::env::temp_dir().join(format!("baton-fence-late-{}", std::process::id()));
        let script = format!("touch {}", mark.display());
        let (done, told, counters) =
            fenced_after(Duration::from_millis(50), &script, Duration::from_millis(50));
        let ran = std::fs::remove_file(&mark).is_ok();
        assert!(!done && !ran && told.contains("was not run"), "{told}");
        assert_eq!((counters.value(Counter::FenceRuns), counters.value(Counter::FenceFailures)), (0, 1));
    }
}
