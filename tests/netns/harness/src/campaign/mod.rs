//! What a pair promises, tried on real kernels, clients and servers: one round of each campaign.
//!
//! `scripts/campaign` runs them many times over and measures; `tests/netns` runs short versions. A round returns
//! what it measured and the sentences about what was violated: none of them, and the promise was kept.
//! Times are measured, never judged.

pub mod dns;
pub mod failover;
pub mod faults;
pub mod hold;
pub mod kills;
pub mod outage;
pub mod planned;
pub mod roles;
pub mod saturated;
pub mod senders;
pub mod three;

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::stage::Stage;

/// How a campaign ended.
#[derive(Clone, Debug, Default)]
pub struct Violations(Vec<String>);

impl Violations {
    /// None yet.
    pub const fn new() -> Violations {
        Violations(Vec::new())
    }

    /// Something required was not so.
    pub fn add(&mut self, sentence: impl Into<String>) {
        self.0.push(sentence.into());
    }

    /// Something required was not so, unless `holds`.
    pub fn require(&mut self, holds: bool, sentence: impl FnOnce() -> String) {
        if !holds {
            self.add(sentence());
        }
    }

    /// Those of a part, too.
    pub fn append(&mut self, other: Violations) {
        self.0.extend(other.0);
    }

    /// Whether everything was as required.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sentences.
    pub fn sentences(&self) -> &[String] {
        &self.0
    }

    /// Nothing, or an error that tells all of them.
    pub fn judge(&self) -> Result<()> {
        anyhow::ensure!(self.is_empty(), "violated:\n  {}", self.0.join("\n  "));
        Ok(())
    }
}

/// Runs a part; when it fails, what both appliances say is kept.
pub fn with_evidence<T>(stage: &mut Stage, part: impl FnOnce(&mut Stage) -> Result<T>) -> Result<T> {
    let result = part(stage);
    if let Err(error) = &result {
        stage.failed(&format!("{error:#}"))?;
    }
    result
}

/// When an appliance took over after an instant, from what `baton events --json` printed.
#[derive(Clone, Copy, Debug)]
pub struct Takeover {
    /// From that instant until it decided to lead.
    pub decided: Duration,
    /// From then until all workers served.
    pub installed: Duration,
}

/// The first takeover at or after `since_unix_us`.
pub fn takeover_in(events: &Value, since_unix_us: u64) -> Option<Takeover> {
    let first = |name: &str| {
        events["events"].as_array().into_iter().flatten().find(|event| {
            let later = event["unix_us"].as_u64().is_some_and(|at| at >= since_unix_us);
            event["event"] == name && later
        })
    };
    let (promoted, serving) = (first("promoted")?, first("serving")?);
    Some(Takeover {
        decided: Duration::from_micros(promoted["unix_us"].as_u64()? - since_unix_us),
        installed: Duration::from_micros(serving["since_decision_us"].as_u64()?),
    })
}

/// When an event was, in microseconds since 1970.
pub fn event_unix_us(event: &Value) -> Option<u64> {
    event["unix_us"].as_u64()
}

/// Now, on the clock of events, in microseconds.
pub fn unix_us() -> u64 {
    (crate::analysis::capture_clock() * 1e6) as u64
}

/// Now, on the clock of events, in milliseconds.
pub fn unix_ms() -> u64 {
    unix_us() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_takeovers_times_are_read_from_the_events() {
        let event = |at: u64, name: &str, since: Option<u64>| json!({"unix_us": at, "kind": "role", "event": name, "since_decision_us": since});
        let events = json!({"events": [
            event(900_000, "promoted", None),
            event(901_000, "serving", Some(1000)),
            json!({"unix_us": 1_040_000, "kind": "notify", "event": null}),
            event(1_050_300, "promoted", None),
            event(1_052_000, "serving", Some(1650)),
        ]});
        let takeover = takeover_in(&events, 1_000_000).expect("there is one");
        assert_eq!(takeover.decided, Duration::from_micros(50_300));
        assert_eq!(takeover.installed, Duration::from_micros(1650));
        assert!(takeover_in(&events, 2_000_000).is_none());
    }
}
