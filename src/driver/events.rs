//! What happened lately, for `baton events`.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::base::limits::EVENTS_KEPT_MAX;
use crate::control::report::{EventLine, EventReport};

/// The newest events.
#[derive(Debug, Default)]
pub struct EventLog(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<EventLine>,
    number: u64,
}

impl EventLog {
    /// Something happened now.
    pub fn add(&self, kind: &str, message: String) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut kept = self.0.lock();
        kept.number += 1;
        let line = EventLine {
            number: kept.number,
            unix_ms: since_1970.as_millis() as u64,
            kind: kind.to_owned(),
            message,
        };
        if kept.lines.len() == EVENTS_KEPT_MAX {
            kept.lines.pop_front();
        }
        kept.lines.push_back(line);
    }

    /// All that are kept, oldest first.
    pub fn report(&self) -> EventReport {
        EventReport { events: self.0.lock().lines.iter().cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_events_are_kept_and_numbered() {
        let log = EventLog::default();
        for number in 0..EVENTS_KEPT_MAX + 2 {
            log.add("role", format!("event {number}"));
        }
        let events = log.report().events;
        assert_eq!(events.len(), EVENTS_KEPT_MAX);
        assert_eq!((events[0].number, events[0].message.as_str()), (3, "event 2"));
        assert!(events.iter().all(|event| event.kind == "role" && event.unix_ms > 1_600_000_000_000));
    }
}
