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
    let role = |begins: &str| {
        events["events"].as_array().into_iter().flatten().find_map(|event| {
            let at = event_unix_us(event)?;
            let message = event["message"].as_str()?;
            // A time in whole milliseconds is up to one too early.
            let after = at + 999 >= since_unix_us;
            (event["kind"] == "role" && after && message.starts_with(begins)).then_some(at)
        })
    };
    let (leads, serves) = (role("leads term")?, role("serves in term")?);
    Some(Takeover {
        decided: Duration::from_micros(leads.saturating_sub(since_unix_us)),
        installed: Duration::from_micros(serves.saturating_sub(leads)),
    })
}

/// When an event was, in microseconds since 1970; as exact as the appliance tells it.
pub fn event_unix_us(event: &Value) -> Option<u64> {
    event["unix_us"].as_u64().or_else(|| Some(event["unix_ms"].as_u64()? * 1000))
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
        let event = |at: u64, message: &str| json!({"unix_ms": at, "kind": "role", "message": message});
        let events = json!({"events": [
            event(900, "leads term 1.2: nobody leads"),
            event(901, "serves in term 1.2"),
            event(1050, "leads term 2.1: the leader is silent"),
            event(1052, "serves in term 2.1"),
        ]});
        let takeover = takeover_in(&events, 1_000_000).expect("there is one");
        assert_eq!(takeover.decided, Duration::from_millis(50));
        assert_eq!(takeover.installed, Duration::from_millis(2));
        assert!(takeover_in(&events, 2_000_000).is_none());
        let exact = json!({"unix_us": 1_050_123, "unix_ms": 1050});
        assert_eq!(event_unix_us(&exact), Some(1_050_123));
    }
}
