//! The in-sync set of a leader: by whom a flow must be acknowledged to be protected.
//!
//! Order is everything. A member comes in: first all workers hold for it, then it acknowledges
//! all that they were told before they did (of a flow that came just then a packet may have left under
//! the acknowledgement of others), only then is it told that it may take over undegraded. A member goes out: first the term rises and
//! the member is told (or is silent for the takeover time, or its process is gone), and
//! the members that stay have heard the new term; only then do workers stop waiting for it.

use super::members::Members;
use crate::base::ids::{NodeId, Term};
use crate::base::time::Instant;

/// A change on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change {
    /// None.
    #[default]
    None,
    /// Workers are being told to hold for this node.
    Admitting {
        /// Who.
        node: NodeId,
        /// Workers that have installed it, a bit each.
        installed: u32,
    },
    /// Members are being told the raised term, in which this node is not a member.
    Removing {
        /// Who.
        node: NodeId,
        /// The raised term.
        term: Term,
        /// Its process is gone: there is nobody to tell.
        gone: bool,
        /// Since when.
        since: Instant,
    },
}

/// The set, as told and as on its way.
#[derive(Clone, Copy, Debug, Default)]
pub struct InSync {
    /// Who is told, in heartbeats, that it is a member.
    pub told: Members,
    /// What is on its way.
    pub change: Change,
    /// The epoch of the newest set that workers were given.
    pub epoch: u64,
}

impl InSync {
    /// Starts over, with nobody; the epoch for that set.
    pub fn clear(&mut self) -> u64 {
        self.told = Members::NONE;
        self.change = Change::None;
        self.next_epoch()
    }

    /// The epoch for a set that is about to be given to workers.
    pub fn next_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch
    }

    /// A worker installed the set of `epoch`.
    pub fn handle_installed(&mut self, worker: u16, epoch: u64) {
        if let Change::Admitting { installed, .. } = &mut self.change
            && epoch == self.epoch
        {
            *installed |= 1u32.checked_shl(worker.into()).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reports_of_the_newest_set_count() {
        let mut set = InSync::default();
        let epoch = set.next_epoch();
        set.change = Change::Admitting { node: NodeId(2), installed: 0 };
        set.handle_installed(1, epoch - 1);
        set.handle_installed(99, epoch);
        assert_eq!(set.change, Change::Admitting { node: NodeId(2), installed: 0 });
        set.handle_installed(1, epoch);
        assert_eq!(set.change, Change::Admitting { node: NodeId(2), installed: 0b10 });
    }
}
