//! Real scripts: what becomes of each run, and of the thread.

use super::*;
use crate::base::time::Duration;
use crate::config::checked::Hook;

/// Far longer than any of the scripts takes.
const LONG: Duration = Duration::from_secs(60);

fn start(script: &str, timeout: Duration) -> (TrackThread, Arc<EventLog>) {
    let (node, group, clock) = (NodeId(7), GroupId(3), Clock::start());
    let events = Arc::new(EventLog::new(node, clock));
    let arguments = ["-c", script].map(str::to_owned).to_vec();
    let command = Hook { program: "/bin/sh".into(), arguments, timeout };
    let script = TrackScript { command, interval: Duration::from_millis(10), rise: 1, fall: 1 };
    let setup = TrackSetup { script, node, group, clock, events: Arc::clone(&events) };
    (TrackThread::start(setup).unwrap(), events)
}

fn results(thread: &TrackThread, count: usize) -> Vec<bool> {
    let (results, clock) = (thread.results(), Clock::start());
    let mut got = Vec::new();
    while got.len() < count {
        got.extend(results.take());
        assert!(clock.uptime() < LONG, "{got:?}");
        thread::yield_now();
    }
    got
}

fn told(events: &EventLog) -> Vec<String> {
    events.report().events.into_iter().map(|event| event.message).collect()
}

#[test]
fn a_script_is_run_again_and_again_and_what_it_writes_is_nobodys_business() {
    let script = r#"test "$BATON_NODE.$BATON_GROUP" = 7.3 && echo much && echo more >&2"#;
    let (thread, events) = start(script, LONG);
    assert_eq!(results(&thread, 3), [true; 3]);
    assert!(thread.counters().value(Counter::TrackRuns) >= 2);
    drop(thread);
    let told = told(&events);
    assert!(told.len() == 1 && told[0].starts_with("the tracking script ended well after "), "{told:?}");
}

#[test]
fn each_kind_of_failure_is_one_counted_and_said_once() {
    for (script, timeout, counter, words) in [
        ("exit 3", LONG, Counter::TrackFailures, "failed (exit status: 3)"),
        (
            "sleep 1000 & wait",
            Duration::from_millis(50),
            Counter::TrackTimeouts,
            "took too long and was killed",
        ),
        ("kill -9 $$", LONG, Counter::TrackFailures, "failed (signal: 9"),
    ] {
        let (thread, events) = start(script, timeout);
        assert_eq!(results(&thread, 3), [false; 3]);
        assert!(thread.counters().value(counter) >= 2, "{script}");
        drop(thread);
        let told = told(&events);
        assert!(told.len() == 1 && told[0].contains(words), "{told:?}");
    }
}

#[test]
fn a_script_that_hangs_does_not_keep_the_process_from_ending() {
    let (thread, _) = start("sleep 1000", LONG);
    let clock = Clock::start();
    drop(thread);
    assert!(clock.uptime() < LONG);
}
