//! Maintenance: the operator takes an appliance out of service. If it leads, it hands over as planned; from then on it
//! is a standby that keeps up with the leader's flows and never leads, whatever it hears or does not hear, until the
//! operator puts it back. It says so in its beats, so that nobody waits for it.
//!
//! It does not outlast the process: `failover.maintenance = true` in the configuration file does.

use super::Failover;
use super::event::{Cause, FailoverEvent};
use super::output::Refusal;
use super::role::{self, Input, Step};
use crate::base::ids::NodeId;
use crate::base::time::Instant;

/// Whether the appliance is out of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Maintenance {
    /// It is, or is about to be: it may not take a term.
    pub(super) on: bool,
    /// It stops serving whether anybody can follow or not.
    pub(super) forced: bool,
    /// How often that changed, since the start.
    pub(super) changes: u64,
}

impl Failover {
    /// Takes it out of service, or says why not. `force`: nobody need be in sync.
    pub(super) fn start_maintenance(&mut self, now: Instant, force: bool) -> Result<(), Refusal> {
        match role::step(self.role, Input::Maintenance) {
            Step::Refuse(reason) => return Err(Refusal::Role(reason)),
            Step::Quiesce if !force => {
                self.able_successor(now)?;
            }
            _ => {}
        }
        self.set_maintenance(now, true, FailoverEvent::MaintenanceOn);
        self.maintenance.forced = force;
        self.apply(now, Input::Maintenance, Cause::Operator);
        Ok(())
    }

    /// Puts it back into service.
    pub(super) fn end_maintenance(&mut self, now: Instant) {
        // The leader did not mind that this one was deaf: silence counts from here.
        self.listening_since = now;
        self.set_maintenance(now, false, FailoverEvent::MaintenanceOff);
    }

    fn set_maintenance(&mut self, now: Instant, on: bool, event: FailoverEvent) {
        if self.maintenance.on != on {
            self.maintenance.on = on;
            self.maintenance.changes += 1;
            self.event(event);
        }
        self.beat_due = now;
    }

    /// Out of service, but active: hands over, if somebody can take over still.
    pub(super) fn maintain(&mut self, now: Instant) {
        if self.maintenance.forced || self.able_successor(now).is_ok() {
            self.apply(now, Input::Maintenance, Cause::Operator);
        } else {
            self.set_maintenance(now, false, FailoverEvent::MaintenanceCalledOff);
        }
    }

    /// Who would lead best of those in sync, or why nobody can.
    pub(super) fn able_successor(&self, now: Instant) -> Result<NodeId, Refusal> {
        let node = self.successor(now, true).ok_or(Refusal::NoneInSync)?;
        let said = self.peers.iter().find(|peer| peer.node == node).and_then(|peer| peer.said);
        match said {
            Some(said) if said.maintenance => Err(Refusal::PeerUnderMaintenance(node)),
            Some(said) if !said.can_lead => Err(Refusal::CannotLead(node)),
            Some(_) | None if !self.witness_heard() => Err(Refusal::WitnessSilent),
            Some(_) | None => Ok(node),
        }
    }
}
