//! Real commands: what they find, what becomes of them, and what is left of them.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::base::ids::Term;
use crate::failover::{Cause, FailoverEvent, Role, Standing, State};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("baton-notify-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    /// A command of `sh`.
    fn shell(&self, script: &str, timeout: Duration) -> Hook {
        let arguments = ["-c", script, "sh"].map(str::to_owned).into_iter();
        let out = self.0.join("out").display().to_string();
        Hook { program: "/bin/sh".into(), arguments: arguments.chain([out]).collect(), timeout }
    }

    fn out(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("out")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Far longer than any of the commands takes.
const LONG: Duration = Duration::from_secs(60);

fn start(notify: Hook) -> (NotifyThread, Arc<EventLog>) {
    let events = Arc::new(EventLog::new(NodeId(1), Clock::start()));
    let (node, group) = (NodeId(1), GroupId(0));
    let (clock, broken) = (Clock::start(), Arc::default());
    let setup = NotifySetup { notify, node, group, clock, events: Arc::clone(&events), broken };
    (NotifyThread::start(setup).unwrap(), events)
}

fn told(events: &EventLog) -> Vec<String> {
    events
        .report()
        .events
        .into_iter()
        .filter(|event| event.kind == "notify")
        .map(|event| event.message)
        .collect()
}

fn told_as(event: FailoverEvent) -> Happened {
    let standing = Standing { role: Role::Standby, state: State::Synchronizing };
    Happened {
        event,
        at: Instant::ZERO,
        before: standing,
        after: standing,
        term: term(3),
        silence: None,
        since_decision: None,
    }
}

fn term(counter: u64) -> Term {
    Term { counter, node: NodeId(1) }
}

fn takes_over(counter: u64) -> [FailoverEvent; 2] {
    let term = term(counter);
    [
        FailoverEvent::Promoted { term, cause: Cause::Silence, degraded: false },
        FailoverEvent::Serving { term },
    ]
}

fn follows(counter: u64) -> FailoverEvent {
    FailoverEvent::Following { term: term(counter), was: Role::Booting }
}

/// Waits until a file has so many lines.
fn wait_lines(scratch: &Scratch, count: usize) {
    let clock = Clock::start();
    while scratch.out().len() < count {
        assert!(clock.uptime() < LONG, "{:?}", scratch.out());
        thread::yield_now();
    }
}

#[test]
fn the_command_is_told_each_role_in_its_environment_and_what_became_of_it_is_kept() {
    let scratch = Scratch::new("each");
    let script = r#"echo "$BATON_ROLE $BATON_PREVIOUS_ROLE $BATON_TERM $BATON_REASON $BATON_NODE $BATON_GROUP" >> "$1"
        test "$BATON_ROLE" != active"#;
    let (thread, events) = start(scratch.shell(script, LONG));
    let counters = Counters::default();
    let (mut notifier, counted) = (thread.notifier(), thread.counters());
    notifier.handle_event(&told_as(follows(3)), &counters);
    wait_lines(&scratch, 1);
    for event in takes_over(4) {
        notifier.handle_event(&told_as(event), &counters);
    }
    thread.end();
    assert_eq!(scratch.out(), ["standby booting 3.1 leader-heard 1 0", "active standby 4.1 silence 1 0"]);
    let told = told(&events);
    assert!(
        told[0].starts_with("the command for standby (term 3.1, leader-heard) ended well after "),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("the command for active (term 4.1, silence) failed (exit status: 1) after "),
        "{told:?}"
    );
    let value = |counter| counted.value(counter);
    assert_eq!((value(Counter::NotifyRuns), value(Counter::NotifyFailures)), (2, 1));
    assert_eq!(value(Counter::NotifyTimeouts), 0);
}

#[test]
fn a_slow_command_is_run_for_the_newest_role_alone_and_the_skipped_ones_are_said() {
    let scratch = Scratch::new("slow");
    // The first run waits until it is let go.
    let script = r#"echo "$BATON_ROLE" >> "$1"; while test ! -e "$1.go"; do sleep 0.01; done"#;
    let (thread, events) = start(scratch.shell(script, LONG));
    let (mut notifier, counters) = (thread.notifier(), Counters::default());
    notifier.handle_event(&told_as(follows(3)), &counters);
    wait_lines(&scratch, 1);
    for event in takes_over(4) {
        notifier.handle_event(&told_as(event), &counters);
    }
    notifier.handle_event(&told_as(FailoverEvent::Left), &counters);
    fs::write(scratch.0.join("out.go"), "").unwrap();
    thread.end();
    assert_eq!(scratch.out(), ["standby", "left"]);
    let skipped = "the command for active (term 4.1, silence) is skipped: an earlier one still runs";
    assert!(told(&events).iter().any(|sentence| sentence == skipped), "{:?}", told(&events));
    assert_eq!(counters.value(Counter::NotifySkipped), 1);
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_all_that_it_started() {
    let scratch = Scratch::new("long");
    let script = r#"sleep 1000 & echo $! >> "$1"; wait"#;
    let (thread, events) = start(scratch.shell(script, Duration::from_millis(300)));
    let counted = thread.counters();
    thread.notifier().handle_event(&told_as(follows(3)), &Counters::default());
    let clock = Clock::start();
    while counted.value(Counter::NotifyTimeouts) == 0 {
        assert!(clock.uptime() < LONG, "{:?}", told(&events));
        thread::yield_now();
    }
    thread.end();
    assert!(told(&events)[0].contains("took too long and was killed after "), "{:?}", told(&events));
    // Whoever inherits it may not have looked at its end yet: then it is a zombie, and has no command line.
    let child = scratch.out()[0].clone();
    let gone = || fs::read(format!("/proc/{child}/cmdline")).map_or(true, |line| line.is_empty());
    while !gone() {
        assert!(clock.uptime() < LONG, "its child {child} still runs");
        thread::yield_now();
    }
    assert_eq!((counted.value(Counter::NotifyRuns), counted.value(Counter::NotifyFailures)), (1, 0));
}

#[test]
fn a_process_that_ends_waits_for_the_last_command_and_not_for_long() {
    let scratch = Scratch::new("end");
    let script = r#"echo "$BATON_ROLE $BATON_REASON" >> "$1"; test "$BATON_ROLE" = left || sleep 1000"#;
    let (thread, events) = start(scratch.shell(script, LONG));
    thread.notifier().handle_event(&told_as(follows(3)), &Counters::default());
    wait_lines(&scratch, 1);
    // It returns at all: the command before sleeps.
    thread.broken.store(true, Ordering::SeqCst);
    thread.end();
    assert_eq!(scratch.out(), ["standby leader-heard", "left failed"]);
    let told = told(&events);
    assert!(told[0].contains("was killed") && told[1].contains("ended well"), "{told:?}");
}

#[test]
fn a_program_that_is_not_there_is_said_and_counted() {
    let notify = Hook { program: "/nowhere/at/all".into(), arguments: Vec::new(), timeout: LONG };
    let (thread, events) = start(notify);
    let counted = thread.counters();
    thread.notifier().handle_event(&told_as(follows(3)), &Counters::default());
    thread.end();
    assert!(told(&events)[0].contains("could not be started (No such file"), "{:?}", told(&events));
    assert_eq!((counted.value(Counter::NotifyRuns), counted.value(Counter::NotifyFailures)), (1, 1));
}

/// As DPDK opens its devices: without close-on-exec.
#[test]
fn the_command_gets_no_descriptor_but_the_three() {
    let scratch = Scratch::new("descriptors");
    let file = fs::File::create(scratch.0.join("device")).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    let (thread, _) = start(scratch.shell(r#"ls -l /proc/$$/fd >> "$1""#, LONG));
    thread.notifier().handle_event(&told_as(follows(3)), &Counters::default());
    thread.end();
    let all = scratch.out().join("\n");
    assert!(all.contains("/dev/null") && !all.contains("/device"), "{all}");
}
