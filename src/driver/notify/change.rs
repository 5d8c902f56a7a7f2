//! Which of the things that happen are changes of role that the command is told of.

use core::fmt;

use crate::base::ids::Term;
use crate::failover::{FailoverEvent, Role, State};

/// A role that begins: active, standby, silenced or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// From now on.
    pub role: Role,
    /// What that comes to, at first: a standby is synchronized later.
    pub state: State,
    /// The term that it leads or follows, or did last.
    pub term: Term,
    /// Why, in one word.
    pub reason: &'static str,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (term {}, {})", self.role, self.term, self.reason)
    }
}

/// What the command knows, once it has been told all.
#[derive(Debug)]
pub struct Changes {
    role: Role,
    term: Term,
    /// Why the term that is being installed was taken.
    taken: &'static str,
    /// Why it resigns, if it does.
    resigns: &'static str,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { role: Role::Booting, term: Term::NONE, taken: "resumed", resigns: "resigned" }
    }
}

impl Changes {
    /// Something happened; the change, if it is one. While it installs a term the appliance serves nobody, and while it
    /// hands over it still serves: neither is a change. `state`: what it is from now on. `failed`: a thread of this process
    /// has.
    pub fn handle_event(&mut self, event: &FailoverEvent, state: State, failed: bool) -> Option<Change> {
        use FailoverEvent as E;
        let (role, reason) = match event {
            E::Promoted { cause, .. } => {
                self.taken = cause.word();
                return None;
            }
            E::Resumed { .. } => {
                self.taken = "resumed";
                return None;
            }
            E::LessHealthy { .. } => {
                self.resigns = "less-healthy";
                return None;
            }
            E::Serving { term } => {
                self.term = *term;
                self.resigns = "resigned";
                (Role::Active, self.taken)
            }
            E::Following { term, .. } => {
                self.term = *term;
                (Role::Standby, "leader-heard")
            }
            E::Resigned { term, .. } => {
                self.term = *term;
                (Role::Standby, self.resigns)
            }
            E::Silenced { lapse } => (Role::Silenced, lapse.word()),
            E::Left => (Role::Left, if failed { "failed" } else { "shutdown" }),
            E::RivalSeen { .. }
            | E::HandingOver { .. }
            | E::PeerHeard { .. }
            | E::PeerSilent { .. }
            | E::PeerRestarted { .. }
            | E::PeerLeft { .. }
            | E::PeerRefused { .. }
            | E::PeerUnproven { .. }
            | E::Disbelieved { .. }
            | E::DuplicateNode { .. }
            | E::InSync { .. }
            | E::OutOfSync { .. }
            | E::WorkerStuck { .. }
            | E::WaitsForOperator
            | E::Fencing { .. }
            | E::Fenced { .. }
            | E::FenceFailed { .. }
            | E::FencedIsHeard { .. }
            | E::WitnessHeard { .. }
            | E::WitnessSilent
            | E::WitnessRefuses { .. }
            | E::WitnessTooShort { .. }
            | E::CannotLead
            | E::CanLead
            | E::CheckpointsDiffer(_)
            | E::Outranked { .. }
            | E::OutrankedNoMore
            | E::StateChanged { .. }
            | E::MaintenanceOn
            | E::MaintenanceOff
            | E::MaintenanceCalledOff
            | E::PeerMaintenance { .. } => return None,
        };
        if role == self.role {
            return None;
        }
        self.role = role;
        Some(Change { role, state, term: self.term, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{NodeId, WorkerId};
    use crate::failover::{Cause, Lapse};

    fn term(counter: u64) -> Term {
        Term { counter, node: NodeId(1) }
    }

    fn told(events: &[FailoverEvent]) -> Vec<String> {
        let mut changes = Changes::default();
        events
            .iter()
            .filter_map(|event| changes.handle_event(event, State::Synchronizing, false))
            .map(|change| change.to_string())
            .collect()
    }

    #[test]
    fn a_life_is_told_role_by_role() {
        use FailoverEvent as E;
        let life = [
            E::Following { term: term(3), was: Role::Booting },
            E::PeerSilent { node: NodeId(2) },
            E::Promoted { term: term(4), cause: Cause::Silence, degraded: false },
            E::Serving { term: term(4) },
            E::OutOfSync { node: NodeId(2), removal: crate::failover::Removal::Silent, term: term(5) },
            E::Silenced { lapse: Lapse::Paused },
            E::Resumed { term: term(5) },
            E::Serving { term: term(5) },
            E::HandingOver { to: NodeId(2) },
            E::Resigned { term: term(5), to: Some(NodeId(2)), clean: true },
            E::Following { term: term(6), was: Role::Standby },
            E::Left,
        ];
        let words = [
            "standby (term 3.1, leader-heard)",
            "active (term 4.1, silence)",
            "silenced (term 4.1, paused)",
            "active (term 5.1, resumed)",
            "standby (term 5.1, resigned)",
            "left (term 6.1, shutdown)",
        ];
        assert_eq!(told(&life), words);
    }

    #[test]
    fn who_hands_over_to_a_healthier_one_says_so_and_the_next_handover_has_its_own_reason() {
        use FailoverEvent as E;
        let hands_over = |counter| {
            [
                E::HandingOver { to: NodeId(2) },
                E::Resigned { term: term(counter), to: Some(NodeId(2)), clean: true },
                E::Promoted { term: term(counter + 2), cause: Cause::HandedOver, degraded: false },
                E::Serving { term: term(counter + 2) },
            ]
        };
        let mut events = vec![E::Serving { term: term(3) }];
        events.push(E::LessHealthy { node: NodeId(2), failed: 1, theirs: 0 });
        events.extend(hands_over(3));
        events.extend(hands_over(5));
        let words = [
            "active (term 3.1, resumed)",
            "standby (term 3.1, less-healthy)",
            "active (term 5.1, handed-over)",
            "standby (term 5.1, resigned)",
            "active (term 7.1, handed-over)",
        ];
        assert_eq!(told(&events), words);
    }

    #[test]
    fn who_takes_a_term_and_does_not_serve_in_it_has_changed_nothing() {
        use FailoverEvent as E;
        let events = [
            E::Following { term: term(3), was: Role::Booting },
            E::Promoted { term: term(4), cause: Cause::Vacant, degraded: false },
            E::Following { term: term(5), was: Role::Installing },
            E::WorkerStuck { worker: WorkerId(0) },
        ];
        assert_eq!(told(&events), ["standby (term 3.1, leader-heard)"]);
    }

    #[test]
    fn who_leaves_since_a_thread_failed_says_so() {
        let change = Changes::default().handle_event(&FailoverEvent::Left, State::Left, true);
        assert_eq!(change.map(|change| change.reason), Some("failed"));
    }

    #[test]
    fn who_leaves_before_any_term_has_none() {
        assert_eq!(told(&[FailoverEvent::Left]), ["left (term 0.0, shutdown)"]);
    }
}
