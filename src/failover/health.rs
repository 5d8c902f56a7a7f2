//! Health that counts in who leads (REQ B2, C11): how many of the things that the operator tracks have failed.
//!
//! An active appliance that is less healthy than a standby in sync hands over to it as planned, so that nothing is lost;
//! one that is dead is followed whatever its health was. Both as ill: nobody moves, since the other one would serve no
//! better. What keeps the lead from going back and forth:
//!
//! - the difference has to last for `track_hold`, and for twice as long after each handover for this reason, up to
//!   [`DOUBLINGS_MAX`] times, until no more of them are made for eight times that;
//! - of what is in doubt (a server that has not answered its newest question, a script that failed once) a leader thinks
//!   well and a standby thinks ill: when a server dies that both ask, neither takes the other one for healthier because it
//!   finds out a little later.

use super::Failover;
use super::event::{Cause, FailoverEvent};
use super::liveness::Peer;
use super::role::Input;
use crate::base::counters::Counter;
use crate::base::time::{Duration, Instant};

/// The wait before the next handover doubles so often at most.
const DOUBLINGS_MAX: u32 = 6;
/// After so many times that wait without another handover, the wait is what it was at first.
const CALM: u64 = 8;

/// How well an appliance could serve, in tracked things; what is not counted is well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// So many have failed.
    pub failed: u8,
    /// So many more may have.
    pub doubtful: u8,
}

impl Health {
    /// All is well.
    pub const WELL: Health = Health { failed: 0, doubtful: 0 };
}

/// Keeps handovers for the sake of health apart.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Damping {
    /// A standby in sync is healthier, since then.
    since: Option<Instant>,
    /// The newest handover for this reason, and how often the wait has doubled.
    handed_over_at: Option<Instant>,
    doublings: u32,
}

impl Damping {
    /// How long a difference has to last now.
    fn wait(&mut self, now: Instant, hold: Duration) -> Duration {
        let wait = hold * (1 << self.doublings);
        if self.handed_over_at.is_some_and(|at| now - at >= wait * CALM) {
            self.handed_over_at = None;
            self.doublings = 0;
        }
        hold * (1 << self.doublings)
    }

    /// Whether the difference has lasted long enough.
    fn is_due(&mut self, now: Instant, hold: Duration, healthier: bool) -> bool {
        if !healthier {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let due = now - since >= self.wait(now, hold);
        if due {
            self.since = None;
            self.doublings = match self.handed_over_at.replace(now) {
                Some(_) => (self.doublings + 1).min(DOUBLINGS_MAX),
                None => 1,
            };
        }
        due
    }
}

impl Failover {
    /// How the things are that the operator tracks; said as often as anyone likes.
    pub fn handle_health(&mut self, health: Health) {
        if self.health != health {
            self.health = health;
            // Others compare it with theirs.
            self.beat_due = self.polled_at;
        }
    }

    /// Tracked things that have failed, as it says to others.
    pub(super) fn failed(&self) -> u8 {
        let Health { failed, doubtful } = self.health;
        if self.role.claims() { failed } else { failed.saturating_add(doubtful) }
    }

    /// Whether a peer says that it is less healthy than this appliance.
    pub(super) fn is_less_healthy(&self, peer: &Peer) -> bool {
        peer.said.is_some_and(|said| said.failed > self.failed())
    }

    /// Hands over to a standby in sync that has been healthier for long enough.
    pub(super) fn yield_to_healthier(&mut self, now: Instant) {
        let best = self.successor(now, true);
        let best = self.peers.iter().filter(|peer| Some(peer.node) == best).find_map(|peer| peer.said);
        let healthier = best.filter(|said| said.can_lead && said.failed < self.failed());
        if self.damping.is_due(now, self.config.track.hold, healthier.is_some())
            && let Some(said) = healthier
        {
            self.counters.bump(Counter::HealthHandovers);
            let (failed, theirs) = (self.failed(), said.failed);
            self.event(FailoverEvent::LessHealthy { node: said.node, failed, theirs });
            self.apply(now, Input::OperatorSwitchover, Cause::Vacant);
        }
    }

    /// Whoever does not lead compares nothing.
    pub(super) fn forget_healthier(&mut self) {
        self.damping.since = None;
    }
}
