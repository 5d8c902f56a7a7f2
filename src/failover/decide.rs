//! Once a millisecond: what does the silence, or what was heard, mean?

use core::cmp::Reverse;

use super::event::{Cause, FailoverEvent, Removal};
use super::fence::Fenced;
use super::heartbeat::Beat;
use super::liveness::Peer;
use super::output::{Output, Progress, all};
use super::role::{Input, Role};
use super::{Failover, Variant};
use crate::base::ids::{NodeId, WorkerId};
use crate::base::time::{Duration, Instant};
use crate::config::checked::Partition;
use crate::seal::Tracked;

/// Beats in a row that acknowledge nothing new, until a standby counts as one that does
/// not hear us. After a pause it says stale things once or twice.
const STALE_ECHOES: u32 = 3;

/// A standby that was heard within so many intervals grants the lease, by what it said last: of its beats, all but one of so
/// many may be lost.
const GRANT_INTERVALS: u64 = 4;

/// Silent takeover times after which a peer's mirror streams are closed.
const LOST_AFTER: u64 = 10;

/// No term is reserved for so long: then it tells the operator that it cannot lead.
const UNABLE_AFTER: Duration = Duration::from_secs(1);

/// A state that no event told is told when it has been another than the one told for so long.
const STATE_SETTLES: Duration = Duration::from_millis(500);

/// How well someone would lead: one that can take a term before one that cannot, in sync before not, before who tracks only
/// some virtual servers, before booted fresh and tracking all, before booted fresh and not, then the one of which less has failed, then the higher priority, then the lower node.
type Fitness = (bool, u8, Reverse<u8>, u8, Reverse<NodeId>);

/// As in [`Failover::fitness`].
fn has(in_sync: bool, tracked: Tracked) -> u8 {
    u8::from(!tracked.is_partial()) + u8::from(in_sync)
}

impl Failover {
    /// Goes one step; called every millisecond.
    pub fn poll(&mut self, now: Instant, progress: Progress) {
        self.heard_until = now;
        self.own_gap = now - self.polled_at;
        self.polled_at = now;
        self.note_progress(now, progress);
        self.lapse(now);
        self.reserve();
        self.note_terms(now);
        self.watch_peers(now);
        self.give_way(now);
        if self.role != Role::Active {
            self.forget_healthier();
        }
        self.want_nothing();
        match self.role {
            Role::Booting => self.decide_booting(now, progress),
            Role::Standby => self.decide_standby(now, progress),
            Role::Installing => self.advance_installed(now),
            Role::Active => self.decide_active(now),
            Role::Quiescing => self.decide_quiescing(now),
            Role::Resigning => self.decide_resigning(now),
            Role::Silenced => self.decide_silenced(now, progress),
            Role::Left => return,
        }
        self.membership(now);
        self.ask_witness(now);
        self.send_hellos(now);
        if now >= self.beat_due && !self.yields(now) {
            self.send_beats(now);
            if self.role == Role::Installing {
                self.advance_installed(now);
            }
        }
        self.announce_again(now);
        self.follow_services(now);
        self.judge_disbelieved(now);
        self.tell_state(now);
    }

    /// Says that the state is another one, when no event has said so for some time: a standby on a busy machine may doubt
    /// for a moment, and again and again, that it is in sync.
    fn tell_state(&mut self, at: Instant) {
        let (was, now) = (self.told.state, self.state());
        if was == now {
            self.state_told_at = at;
        } else if at - self.state_told_at >= STATE_SETTLES {
            self.event(FailoverEvent::StateChanged { was, now });
        }
    }

    fn note_progress(&mut self, now: Instant, progress: Progress) {
        let deaf_after = self.config.heartbeat_interval * 2;
        let mut deaf = self.own_gap > deaf_after;
        let mut stuck = 0;
        for worker in 0..self.lcores {
            if progress.workers_moved & 1 << worker != 0 {
                self.worker_moved_at[worker] = now;
            }
            // What was not seen while this thread itself stood still is no worker's fault.
            let still = now - self.worker_moved_at[worker];
            deaf |= still > deaf_after;
            let seen = self.worker_moved_at[worker].max(self.woke_at);
            if still > self.lease.length() / 2 && now - seen > self.lease.length() / 2 {
                stuck |= 1 << worker;
            }
        }
        for worker in 0..self.lcores {
            if stuck & !self.worker_stuck & 1 << worker != 0 {
                self.event(FailoverEvent::WorkerStuck { worker: WorkerId(worker as u16) });
            }
        }
        self.worker_stuck = stuck;
        if deaf {
            // Frames come in by the workers: while one stands still, silence means nothing.
            self.listening_since = now;
            self.answers_from = self.sent.newest() + 1;
        }
        if self.own_gap > deaf_after {
            self.woke_at = now;
        }
        // Whoever was not heard for the takeover time may have been removed meanwhile.
        let heard_at = self.leader.heard_directly_at.unwrap_or(self.started_at);
        let out_of_touch = self.own_gap.max(now - heard_at) >= self.config.takeover_after;
        if deaf && !self.role.claims() && out_of_touch {
            self.leader.in_sync = false;
        }
    }

    /// Whether it could take a term, as others are told: whoever waits for one that cannot waits in vain.
    pub(super) fn can_lead(&self) -> bool {
        !self.out_of_service() && self.has_term()
    }

    /// Whether it has a term to take, or soon will: one that boots gets some time for its term file, since disks may be
    /// slower than everything else there.
    pub(super) fn has_term(&self) -> bool {
        self.terms.next().is_some() || self.role == Role::Booting && !self.cannot_lead
    }

    /// Tells the operator when it cannot lead for long.
    fn note_terms(&mut self, now: Instant) {
        if self.terms.next().is_some() {
            self.unable_since = None;
            if core::mem::take(&mut self.cannot_lead) {
                self.event(FailoverEvent::CanLead);
            }
            return;
        }
        let since = *self.unable_since.get_or_insert(now);
        if !self.cannot_lead && now - since >= UNABLE_AFTER {
            self.cannot_lead = true;
            self.event(FailoverEvent::CannotLead);
        }
    }

    fn lapse(&mut self, now: Instant) {
        if self.variant == Variant::SendAfterLease {
            return;
        }
        let lapsed = self.role.serves() && !self.lease.covers(now);
        if lapsed || self.claim_is_old(now) {
            self.apply(now, Input::Lapsed, Cause::Vacant);
        }
    }

    /// It claimed its term, but too long ago to serve on it: it stood still, or a worker did.
    pub(super) fn claim_is_old(&self, now: Instant) -> bool {
        self.variant != Variant::SendAfterLease
            && self.role == Role::Installing
            && self.claimed_at.is_some_and(|claimed_at| now - claimed_at >= self.lease.length())
    }

    /// Someone that is heard still claims a lower term: it has not yet heard that it is outranked.
    pub(super) fn rival_serves(&self, now: Instant) -> bool {
        self.peers.iter().any(|peer| {
            peer.heard_within(now, self.config.takeover_after)
                && peer.said.is_some_and(|said| said.role.claims() && said.term < self.terms.current())
        })
    }

    /// Someone that is heard and might lead has not answered a beat of after this one's promotion. One that cannot hear it
    /// claims a higher term within the takeover time, or does not wait for silence at all.
    pub(super) fn unanswered_candidate(&self, now: Instant) -> bool {
        let waits = now - self.decided_at < self.config.takeover_after;
        waits
            && self.peers.iter().any(|peer| {
                peer.heard_within(now, self.config.takeover_after)
                    && peer.echo() < self.answers_from
                    && peer.said.is_some_and(|said| {
                        matches!(said.role, Role::Booting | Role::Standby) && said.can_lead
                    })
            })
    }

    /// It can take over, and what it did not hear was not said.
    fn listens(&self, progress: Progress) -> bool {
        progress.drained && self.worker_stuck == 0 && !self.out_of_service() && self.terms.next().is_some()
    }

    /// Whether someone leads, as far as is known.
    pub(super) fn leader_lives(&self, now: Instant) -> bool {
        let lately = |at: Instant| now - at < self.config.takeover_after;
        self.leader.gone_at.is_none() && self.leader.heard_at.is_some_and(lately)
    }

    fn answered(&self, now: Instant, peer: &Peer) -> bool {
        peer.heard_within(now, self.config.takeover_after) && peer.echo() >= self.answers_from
    }

    /// With `safety`: whoever is not heard may have heard too that the leader is gone, and lead.
    fn others_answer(&self, now: Instant) -> bool {
        let leader = self.terms.current().node;
        self.config.partition == Partition::Availability
            || self.peers.iter().all(|peer| peer.node == leader || self.answered(now, peer))
    }

    /// Silent for the takeover time, in which we listened.
    pub(super) fn silent(&self, now: Instant, peer: &Peer) -> bool {
        now - peer.heard_at.max(self.listening_since) >= self.config.takeover_after
    }

    /// `has`: 2 of who is in sync, 1 of who is not, 0 of who tracks only some virtual servers, so that it comes last of those
    /// that boot too.
    fn fitness(can_lead: bool, role: Role, has: u8, failed: u8, priority: u8, node: NodeId) -> Fitness {
        let class = match role {
            Role::Booting => has.min(1),
            Role::Standby
            | Role::Installing
            | Role::Active
            | Role::Quiescing
            | Role::Resigning
            | Role::Silenced
            | Role::Left => 2 + has,
        };
        (can_lead, class, Reverse(failed), priority, Reverse(node))
    }

    fn fitness_of(peer: &Peer, said: &Beat) -> Fitness {
        let Beat { can_lead, role, in_sync, failed, priority, node, .. } = *said;
        Failover::fitness(can_lead, role, has(in_sync, peer.tracked), failed, priority, node)
    }

    /// How many others that are heard would lead better.
    fn better_candidates(&self, now: Instant) -> u64 {
        let (has, priority) = (has(self.leader.in_sync, self.member.mirroring.tracked), self.config.priority);
        let own = Failover::fitness(self.can_lead(), self.role, has, self.failed(), priority, self.node());
        let better = |peer: &&Peer| {
            peer.heard_within(now, self.config.takeover_after)
                && peer.said.is_some_and(|said| {
                    matches!(said.role, Role::Booting | Role::Standby)
                        && Failover::fitness_of(peer, &said) > own
                })
        };
        self.peers.iter().filter(better).count() as u64
    }

    fn decide_booting(&mut self, now: Instant, progress: Progress) {
        let takeover_after = self.config.takeover_after;
        if self.leader_lives(now) || now < self.vrrp_waits_until() {
            self.vacant_since = None;
            return;
        }
        let all_answered = self.peers.iter().all(|peer| self.answered(now, peer));
        let waited =
            now - self.started_at >= self.config.boot_wait && now - self.listening_since >= takeover_after;
        if waited && !all_answered && self.config.partition == Partition::Safety {
            self.wait_for_operator();
        }
        let enough = all_answered || waited && self.config.partition == Partition::Availability;
        if !enough {
            self.vacant_since = None;
            return;
        }
        let since = *self.vacant_since.get_or_insert(now);
        let better = self.better_candidates(now);
        // That a better one does not lead is silence too. It may itself wait a takeover time first.
        let first = better == 0
            || self.config.partition == Partition::Availability && now - since >= takeover_after * 2 * better;
        if self.listens(progress) && first && self.may_lead(now) {
            let cause = if self.peers.is_empty() { Cause::Alone } else { Cause::Boot };
            self.apply(now, Input::Vacant, cause);
        }
    }

    fn decide_standby(&mut self, now: Instant, progress: Progress) {
        if let Some(handover) = &self.handover
            && now >= handover.until
        {
            self.handover = None;
        }
        if self.leaving {
            if self.handover.is_none() && !self.yields(now) && !self.stragglers.keep(now) {
                self.apply(now, Input::Gone, Cause::Vacant);
            }
            return;
        }
        let takeover_after = self.config.takeover_after;
        if self.out_of_service() {
            self.forget_fencing();
        }
        if !self.listens(progress) {
            return;
        }
        // A goodbye, a resignation or a new boot that waited in a queue while this one stood still
        // says nothing of now: what came after it must have had the time to come in too.
        let fresh_at = self.listening_since + takeover_after;
        let fresh = now >= fresh_at;
        if self.leader.handed_over && fresh {
            if self.may_lead(now) {
                self.apply(now, Input::Vacant, Cause::HandedOver);
            }
            return;
        }
        let better = self.better_candidates(now);
        let others_first = takeover_after * better;
        if let Some(gone_at) = self.leader.gone_at
            && fresh
            && self.others_answer(now)
        {
            let may_wait = self.config.partition == Partition::Availability || others_first == Duration::ZERO;
            // Two that slept together must not both act when they are fresh: the worse one waits from there.
            if may_wait && now >= gone_at.max(fresh_at) + others_first && self.may_lead(now) {
                let left =
                    |peer: &Peer| peer.node == self.terms.current().node && peer.gone == Some(Removal::Left);
                let cause = match self.peers.iter().any(left) {
                    true => Cause::LeaderResigned,
                    false => Cause::LeaderRestarted,
                };
                self.apply(now, Input::Vacant, cause);
            }
            return;
        }
        let since = self.leader.heard_at.unwrap_or(self.started_at).max(self.listening_since);
        if now - since < takeover_after {
            return;
        }
        self.doubt();
        let others_first = (takeover_after + self.fencing_max()) * better;
        if now - since < takeover_after + others_first {
            return;
        }
        let fenced = self.fence(now);
        match (self.config.partition, fenced) {
            (Partition::Availability | Partition::Safety, Fenced::Waits) => {}
            (Partition::Availability | Partition::Safety, Fenced::Done) => {
                if self.may_lead(now) {
                    self.apply(now, Input::Vacant, Cause::Fenced);
                }
            }
            (Partition::Availability, Fenced::Never | Fenced::Failed) => {
                if self.may_lead(now) {
                    self.apply(now, Input::Vacant, Cause::Silence);
                }
            }
            (Partition::Safety, Fenced::Never | Fenced::Failed) => {
                // Silence proves nothing here; only everyone's word does.
                self.leader.in_sync = false;
                if others_first == Duration::ZERO && self.peers.iter().all(|peer| self.answered(now, peer)) {
                    self.apply(now, Input::Vacant, Cause::Vacant);
                } else {
                    self.wait_for_operator();
                }
            }
        }
    }

    fn wait_for_operator(&mut self) {
        if !core::mem::replace(&mut self.waits_for_operator, true) {
            self.event(FailoverEvent::WaitsForOperator);
        }
    }

    fn decide_active(&mut self, now: Instant) {
        if self.leaving {
            self.apply(now, Input::Shutdown, Cause::Vacant);
            return;
        }
        if self.maintenance.on {
            self.maintain(now);
            return;
        }
        let wanted =
            self.successor(now, true).and_then(|node| self.peers.iter().find(|peer| peer.node == node));
        let preempts = wanted
            .filter(|peer| !self.is_less_healthy(peer))
            .and_then(|peer| peer.said)
            .is_some_and(|said| said.preempts && said.can_lead && said.priority > self.config.priority);
        if preempts && self.witness_heard() {
            self.apply(now, Input::OperatorSwitchover, Cause::Vacant);
        } else if self.witness_heard() {
            self.yield_to_healthier(now);
        }
    }

    fn decide_quiescing(&mut self, now: Instant) {
        let Some(handover) = &mut self.handover else { return };
        let heard = self
            .peers
            .iter()
            .any(|peer| Some(peer.node) == handover.to && peer.heard_within(now, self.config.takeover_after));
        if !heard {
            self.apply(now, Input::SuccessorLost, Cause::Vacant);
        } else if handover.flushed == all(self.workers) {
            match handover.to.filter(|_| !handover.holds) {
                Some(peer) => self.hold(now, peer),
                None => self.apply(now, Input::Flushed, Cause::Vacant),
            }
        } else if now >= handover.until {
            handover.clean = false;
            self.apply(now, Input::Flushed, Cause::Vacant);
        }
    }

    fn decide_resigning(&mut self, now: Instant) {
        let over = self.handover.as_ref().is_none_or(|handover| now >= handover.until);
        if over && !self.all_installed() {
            if let Some(handover) = &mut self.handover {
                handover.clean = false;
            }
            self.apply(now, Input::Installed, Cause::Vacant);
        } else {
            self.advance_installed(now);
        }
    }

    fn decide_silenced(&mut self, now: Instant, progress: Progress) {
        if !progress.drained || self.worker_stuck != 0 {
            return;
        }
        let certain = |peer: &Peer| {
            // Not even one that left is excused: it may have come back while this one stood still.
            let quiet_since = peer.heard_at.max(self.silenced_at).max(self.listening_since);
            if now - quiet_since >= self.config.takeover_after {
                return true;
            }
            let Some(said) = peer.said else { return false };
            // A higher claim would have made us follow; a higher term that is no claim is news of one.
            if said.term > self.terms.current() {
                return false;
            }
            let answered = self.answered(now, peer)
                && self.sent.at(peer.echo()).is_some_and(|sent_at| now - sent_at < self.lease.length());
            // In `safety` a standby that cannot hear us does not take over either.
            // Nor does one under maintenance.
            let harmless = (self.config.partition == Partition::Safety || said.maintenance)
                && now - self.silenced_at.max(self.listening_since) >= self.config.takeover_after;
            answered || harmless
        };
        let sure = match &self.witness {
            None => self.peers.iter().all(certain),
            Some(_) => now < self.licence() && (self.witness_reassures() || self.peers.iter().all(certain)),
        };
        if sure {
            self.apply(now, Input::Regained, Cause::Vacant);
        }
    }

    /// Until when standbys that are heard, but do not hear us, let us send (rule 6).
    pub(super) fn granted_by_standbys(&self) -> Instant {
        if self.config.partition == Partition::Safety {
            return Instant::FAR_FUTURE;
        }
        let now = self.polled_at;
        let grant = |peer: &Peer| {
            let said = peer.said?;
            let interval = self.config.heartbeat_interval;
            // Far less than what is left of a grant, so that one that dies takes no lease along.
            let lately = (interval * GRANT_INTERVALS).min(self.config.takeover_after / 2).max(interval * 2);
            let grants = peer.heard_within(now, lately)
                && said.role == Role::Standby
                && !said.maintenance
                && said.term <= self.terms.current();
            let heard_of = self.sent.at(said.echo);
            if !grants {
                None
            } else if peer.stale_echoes >= STALE_ECHOES {
                Some(heard_of.map_or(Instant::ZERO, |sent_at| sent_at + self.lease.length()))
            } else {
                // It may be deaf already without having said so thrice: no lease outlasts its wait.
                Some(heard_of? + (self.config.takeover_after - interval))
            }
        };
        self.peers.iter().filter_map(grant).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// Who would lead best of those that follow us.
    pub(super) fn successor(&self, now: Instant, in_sync: bool) -> Option<NodeId> {
        let follows = |peer: &&Peer| {
            peer.heard_within(now, self.config.takeover_after)
                && peer
                    .said
                    .is_some_and(|said| said.role == Role::Standby && said.term == self.terms.current())
                && (!in_sync || self.insync.told.contains(peer.node))
        };
        let best = self.peers.iter().filter(follows).filter_map(|peer| Some((peer, peer.said?)));
        best.max_by_key(|(peer, said)| Failover::fitness_of(peer, said)).map(|(peer, _)| peer.node)
    }

    /// Notes who fell silent, and closes the streams of those that stay so.
    fn watch_peers(&mut self, now: Instant) {
        for at in 0..self.peers.len() {
            let peer = &self.peers[at];
            let node = peer.node;
            if peer.present && self.silent(now, peer) {
                self.peers[at].present = false;
                self.event(FailoverEvent::PeerSilent { node });
            }
            let peer = &mut self.peers[at];
            let quiet_since = peer.heard_at.max(self.listening_since).max(peer.opened_at);
            if peer.open && now - quiet_since >= self.config.takeover_after * LOST_AFTER {
                peer.open = false;
                peer.forget_sync();
                self.emit(Output::PeerLost { node });
            }
        }
    }
}
