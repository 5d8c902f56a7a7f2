//! What happened lately, for `baton events`.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::base::ids::NodeId;
use crate::base::limits::EVENTS_KEPT_MAX;
use crate::base::time::{Duration, Instant};
use crate::control::report::{EventLine, EventReport, StandingLine};
use crate::driver::clock::Clock;
use crate::failover::{Happened, Standing};

/// The newest events.
#[derive(Debug)]
pub struct EventLog {
    /// Whose events: its own node.
    node: NodeId,
    clock: Clock,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<EventLine>,
    number: u64,
}

impl EventLog {
    /// Nothing has happened yet to this node.
    pub fn new(node: NodeId, clock: Clock) -> EventLog {
        EventLog { node, clock, kept: Mutex::default() }
    }

    /// Something happened now.
    pub fn add(&self, kind: &str, message: String) {
        self.keep(self.clock.now(), EventLine { kind: kind.to_owned(), message, ..EventLine::default() });
    }

    /// Something happened to its role or in its group.
    pub fn add_failover(&self, kind: &str, happened: &Happened) {
        let Happened { event, at, before, after, term, silence, since_decision } = happened;
        let micros = |span: &Option<Duration>| span.map(Duration::micros);
        let line = EventLine {
            kind: kind.to_owned(),
            event: Some(event.name().to_owned()),
            before: Some(standing(*before)),
            after: Some(standing(*after)),
            term: Some(*term),
            cause: event.cause().map(str::to_owned),
            node: Some(event.peer().unwrap_or(self.node)),
            silence_us: micros(silence),
            since_decision_us: micros(since_decision),
            message: event.to_string(),
            ..EventLine::default()
        };
        self.keep(*at, line);
    }

    fn keep(&self, at: Instant, line: EventLine) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_us = (since_1970.as_micros() as u64).saturating_sub((self.clock.now() - at).micros());
        let mut kept = self.kept.lock();
        kept.number += 1;
        let (number, monotonic_us) = (kept.number, at.nanos() / 1000);
        let line = EventLine { number, unix_ms: unix_us / 1000, unix_us, monotonic_us, ..line };
        if kept.lines.len() == EVENTS_KEPT_MAX {
            kept.lines.pop_front();
        }
        kept.lines.push_back(line);
    }

    /// All that are kept, oldest first.
    pub fn report(&self) -> EventReport {
        EventReport { events: self.kept.lock().lines.iter().cloned().collect() }
    }
}

fn standing(Standing { role, state }: Standing) -> StandingLine {
    StandingLine { role, state }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Term;
    use crate::failover::{Cause, FailoverEvent, Role, State};

    #[test]
    fn the_newest_events_are_kept_and_numbered() {
        let log = EventLog::new(NodeId(1), Clock::start());
        for number in 0..EVENTS_KEPT_MAX + 2 {
            log.add("role", format!("event {number}"));
        }
        let events = log.report().events;
        assert_eq!(events.len(), EVENTS_KEPT_MAX);
        assert_eq!((events[0].number, events[0].message.as_str()), (3, "event 2"));
        assert!(events.iter().all(|event| event.kind == "role" && event.unix_ms > 1_600_000_000_000));
    }
    #[test]
    fn what_happened_to_the_role_is_kept_with_when_why_and_for_how_long() {
        let clock = Clock::start();
        let log = EventLog::new(NodeId(7), clock);
        let term = Term { counter: 4, node: NodeId(7) };
        let at = clock.now();
        let happened = Happened {
            event: FailoverEvent::Promoted { term, cause: Cause::Silence, degraded: false },
            at,
            before: Standing { role: Role::Standby, state: State::Synchronized },
            after: Standing { role: Role::Installing, state: State::TakingOver },
            term,
            silence: Some(Duration::from_micros(50_123)),
            since_decision: None,
        };
        std::thread::sleep(core::time::Duration::from_millis(2));
        log.add_failover("role", &happened);
        log.add("notify", "a sentence".to_owned());
        let events = log.report().events;
        let event = &events[0];
        assert_eq!((event.event.as_deref(), event.cause.as_deref()), (Some("promoted"), Some("silence")));
        assert_eq!((event.node, event.term), (Some(NodeId(7)), Some(term)));
        assert_eq!((event.silence_us, event.since_decision_us), (Some(50_123), None));
        assert_eq!(event.monotonic_us, at.nanos() / 1000, "when it happened, not when it was written down");
        assert_eq!(event.unix_ms, event.unix_us / 1000);
        let json = serde_json::to_value(event).unwrap();
        assert_eq!(json["before"], serde_json::json!({"role": "standby", "state": "synchronized"}));
        assert_eq!(json["after"], serde_json::json!({"role": "installing", "state": "taking-over"}));
        assert!(events[1].event.is_none() && events[1].monotonic_us >= event.monotonic_us + 2000);
        assert!(events[1].unix_us >= event.unix_us);
    }
}
