//! Moves the in-sync set of a leader: who comes in, who goes out, in the order that
//! `insync` gives the reasons for.

use super::Failover;
use super::drive::FLUSH_MAX;
use super::event::{FailoverEvent, Removal};
use super::insync::Change;
use super::liveness::{Peer, Synced};
use super::members::Members;
use super::output::{Output, WorkerRole, all};
use super::role::Role;
use crate::base::ids::{NodeId, Term, WorkerId};
use crate::base::limits::ADMIT_UNACKED_MAX;
use crate::base::time::{Duration, Instant};
use crate::config::checked::{Lagging, Partition};

/// One that was removed because it was too slow comes back in this much later at the earliest.
const READMIT_AFTER: Duration = Duration::from_millis(500);
/// A report counts for so long.
const REPORT_LIFE: Duration = Duration::from_millis(100);
/// A member goes out when its oldest unacknowledged change is older, even if no packet is held for it; unless it is to be
/// waited for.
const REMOVE_UNACKED_MAX: Duration = Duration::from_secs(1);

impl Failover {
    pub(super) fn handle_synced(&mut self, worker: WorkerId, peer: NodeId, session: u64, synced: Synced) {
        let Some(peer) = self.peers.iter_mut().find(|other| other.node == peer) else { return };
        let current = peer.open && peer.live.as_ref().is_some_and(|live| live.session.id() == session);
        let worker = usize::from(worker.0);
        if current && worker < self.workers {
            peer.synced[worker] = Some(synced);
        }
    }

    pub(super) fn membership(&mut self, now: Instant) {
        if !self.role.serves() {
            return;
        }
        match self.insync.change {
            Change::None => {
                let out = self.insync.told.iter().find_map(|node| Some((node, self.to_remove(now, node)?)));
                if let Some((node, removal)) = out {
                    self.remove(now, node, removal);
                } else if self.role == Role::Active
                    && let Some(node) =
                        self.peers.iter().find(|peer| self.admissible(now, peer)).map(|peer| peer.node)
                {
                    self.peers.iter_mut().filter(|peer| peer.node == node).for_each(|peer| peer.gone = None);
                    self.insync.change = Change::Admitting { node, installed: 0 };
                    self.give_workers(self.insync.told.with(node));
                }
            }
            Change::Admitting { node, installed } => {
                let fit = self.peers.iter().any(|peer| peer.node == node && self.admissible(now, peer));
                if !fit {
                    self.insync.change = Change::None;
                    self.give_workers(self.insync.told);
                } else if installed == all(self.workers) && self.settled(node) {
                    self.insync.change = Change::None;
                    self.insync.told.insert(node);
                    self.beat_due = now;
                    self.event(FailoverEvent::InSync { node, term: self.terms.current() });
                }
            }
            Change::Removing { node, term, gone, since } => {
                if self.removal_known(now, node, term, gone, since) {
                    self.insync.change = Change::None;
                    self.give_workers(self.insync.told);
                }
            }
        }
    }

    fn give_workers(&mut self, members: Members) {
        let (epoch, term) = (self.insync.next_epoch(), self.terms.current());
        self.emit(Output::InSync { epoch, term, members });
    }

    /// A standby of our term that has everything, at all workers.
    fn admissible(&self, now: Instant, peer: &Peer) -> bool {
        let current = |synced: &Option<Synced>| {
            synced.is_some_and(|synced| {
                now - synced.at < REPORT_LIFE && synced.walk_done && synced.oldest_unacked < ADMIT_UNACKED_MAX
            })
        };
        peer.open
            // It does not have every flow, and never will.
            && !peer.is_partial()
            && !self.insync.told.contains(peer.node)
            && !peer.overdue
            && now >= peer.admit_after
            && peer.heard_within(now, self.config.takeover_after)
            && peer.said.is_some_and(|said| said.role == Role::Standby && said.term == self.terms.current())
            && peer.synced[..self.workers].iter().all(current)
    }

    /// It has acknowledged all that was made known before workers held for it: what they let go without it too.
    fn settled(&self, node: NodeId) -> bool {
        let epoch = self.insync.epoch;
        let settled = |synced: &Option<Synced>| synced.is_some_and(|synced| synced.settled == epoch);
        self.peers.iter().any(|peer| peer.node == node && peer.synced[..self.workers].iter().all(settled))
    }

    fn to_remove(&self, now: Instant, node: NodeId) -> Option<Removal> {
        let peer = self.peers.iter().find(|peer| peer.node == node)?;
        let behind =
            |synced: &Option<Synced>| synced.is_some_and(|synced| synced.oldest_unacked > REMOVE_UNACKED_MAX);
        // It followed somebody else meanwhile, as it says until there is a new session: see `part_ways`.
        let strayed =
            peer.said.is_some_and(|said| said.role == Role::Standby && said.term.node != self.node());
        if peer.gone.is_some() {
            peer.gone
        } else if self.silent(now, peer) || strayed {
            Some(Removal::Silent)
        } else {
            let lags = peer.overdue || peer.synced.iter().any(behind);
            (lags && self.config.lagging == Lagging::Remove).then_some(Removal::Overdue)
        }
    }

    /// Raises the term without the member, and begins to tell.
    fn remove(&mut self, now: Instant, node: NodeId, removal: Removal) {
        // Without a reserved term it is tried again at the next poll; held packets wait.
        let Some(term) = self.terms.take() else { return };
        self.insync.told.remove(node);
        let gone = matches!(removal, Removal::Restarted | Removal::Left);
        self.insync.change = Change::Removing { node, term, gone, since: now };
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == node) {
            peer.forget_sync();
            peer.gone = None;
            peer.admit_after = if removal == Removal::Overdue { now + READMIT_AFTER } else { now };
        }
        self.install(WorkerRole::Active);
        if let Some(handover) = &mut self.handover
            && let Some(peer) = handover.to
        {
            // Workers serve again, until they have flushed.
            (handover.holds, handover.flushed) = (false, 0);
            handover.until = handover.until.max(now + FLUSH_MAX);
            self.emit(Output::Quiesce { peer });
        }
        self.event(FailoverEvent::OutOfSync { node, removal, term });
        self.reserve();
        self.beat_due = now;
        self.ask_now(now);
        if self.removal_known(now, node, term, gone, now) {
            self.insync.change = Change::None;
            self.give_workers(self.insync.told);
        }
    }

    /// The removed member, and all that stay, know the raised term or cannot be told.
    fn removal_known(&self, now: Instant, node: NodeId, term: Term, gone: bool, since: Instant) -> bool {
        let takeover_after = self.config.takeover_after;
        // In `safety` a standby that hears nothing no longer takes itself for a member after this.
        let forgets = self.config.partition == Partition::Safety && now - since >= takeover_after * 2;
        // Even whom we do not hear may hear us: it gets the chance to hear the new term.
        let told = now - since >= self.config.heartbeat_interval * 2;
        // And whom the witness could let lead must not be one that is taken for in sync.
        let witnessed = self.witness_knows(term);
        self.peers.iter().all(|peer| {
            let concerned = peer.node == node || self.insync.told.contains(peer.node);
            let excused = peer.node == node && (gone || peer.gone.is_some() || forgets);
            let knows = peer.said.is_some_and(|said| said.term >= term);
            let unreachable = told && self.silent(now, peer) && (peer.node != node || witnessed);
            !concerned || excused || knows || unreachable
        })
    }
}
