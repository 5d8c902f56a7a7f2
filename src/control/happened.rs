//! What `baton events` answers: see [`super::report`].

use serde::{Deserialize, Serialize};

use crate::base::ids::{NodeId, Term};
use crate::failover::{Role, State};

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventReport {
    /// The newest, oldest first.
    pub events: Vec<EventLine>,
}

/// One thing that happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EventLine {
    /// Counts events since the start; a gap: older ones were forgotten.
    pub number: u64,
    /// When, in milliseconds since 1970 (UTC).
    pub unix_ms: u64,
    /// The same in microseconds.
    pub unix_us: u64,
    /// When, in microseconds of a clock of the process that never jumps.
    pub monotonic_us: u64,
    /// Of which kind, in kebab-case: `role`, `state`, `peer`, `mirror`, `worker`, `rival`, `rebalance`, `notify`.
    pub kind: String,
    /// What, in one word; `None`, like all that follows: it is none of the group's affairs.
    pub event: Option<String>,
    /// What the appliance was when the event before happened.
    pub before: Option<StandingLine>,
    /// What it is from then on.
    pub after: Option<StandingLine>,
    /// The term that it leads or follows.
    pub term: Option<Term>,
    /// Why, in one word, if that is known.
    pub cause: Option<String>,
    /// Whom it is about: a peer, or the appliance itself.
    pub node: Option<NodeId>,
    /// `promoted` because of silence: for how long the leader had not been heard, in microseconds.
    pub silence_us: Option<u64>,
    /// `serving`: since the decision to lead, in microseconds.
    pub since_decision_us: Option<u64>,
    /// A sentence.
    pub message: String,
}

/// What an appliance was, or is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingLine {
    /// To its group.
    pub role: Role,
    /// To its operator.
    pub state: State,
}
