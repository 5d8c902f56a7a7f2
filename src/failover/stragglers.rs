//! Packets of services that come to an appliance that has handed over (REQ B2, C8): until the successor serves, workers let
//! them wait; then they relay them, and for a moment what still comes.
//!
//! Only a planned handover, or the shutdown of one that claims its term, has stragglers (what workers do:
//! `worker/stragglers.rs`): who crashes, or gives way to a higher claim, relays nothing.

use super::Failover;
use super::heartbeat::Beat;
use super::output::Output;
use crate::base::ids::NodeId;
use crate::base::limits::{STRAGGLERS_STAY, STRAGGLERS_WAIT_MAX};
use crate::base::time::Instant;
use crate::wire::ethernet::PortLinks;

/// How far the relaying is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stragglers {
    /// None are expected.
    #[default]
    None,
    /// Workers let them wait; a successor that is heard to serve before this gets them.
    Wait { until: Instant },
    /// They are relayed; a process that ends stays until then.
    Relayed { until: Instant },
}

impl Stragglers {
    /// The lease has ended because of a planned handover.
    pub(super) fn wait(&mut self, now: Instant) {
        *self = Stragglers::Wait { until: now + STRAGGLERS_WAIT_MAX };
    }

    /// Whether they keep a process from ending.
    pub(super) fn keep(self, now: Instant) -> bool {
        match self {
            Stragglers::None => false,
            Stragglers::Wait { until } | Stragglers::Relayed { until } => now < until,
        }
    }
}

impl Failover {
    /// The leader that is followed was heard: if it is the successor, and serves, it gets what waits.
    pub(super) fn relay_stragglers(&mut self, now: Instant, claim: &Beat) {
        match self.stragglers {
            Stragglers::Wait { until } if now < until => {
                if claim.role.serves() {
                    self.stragglers = Stragglers::Relayed { until: now + STRAGGLERS_STAY };
                    let links = self.links(now, claim.node);
                    self.emit(Output::Relay { links });
                }
            }
            Stragglers::Wait { .. } => self.stragglers = Stragglers::None,
            Stragglers::None | Stragglers::Relayed { .. } => {}
        }
    }

    /// The link addresses that a peer was lately heard from.
    fn links(&self, now: Instant, node: NodeId) -> PortLinks {
        let mut links = PortLinks::default();
        if let Some(peer) = self.peers.iter().find(|peer| peer.node == node) {
            for (at, link) in links.iter_mut().enumerate() {
                let is_fresh = now - peer.heard_by[at] < self.config.takeover_after;
                *link = peer.links[at].filter(|_| is_fresh);
            }
        }
        links
    }
}
