//! Does what a step of the role table says. In each step the lease ends before
//! anything else is said or done, and begins after everything else is.

use super::event::{Cause, FailoverEvent, Lapse};
use super::heartbeat::Beat;
use super::output::{Output, WorkerRole};
use super::role::{self, Input, Role, Step};
use super::witness::asking::Asking;
use super::{Failover, Handover, Leader, Variant};
use crate::base::ids::{NodeId, Term};
use crate::base::limits::STRAGGLERS_GATHERED_MAX;
use crate::base::time::{Duration, Instant};

/// Workers get this long to flush to a successor; then it is handed over without.
pub(super) const FLUSH_MAX: Duration = Duration::from_millis(500);
const _: () = assert!(
    FLUSH_MAX.nanos() < STRAGGLERS_GATHERED_MAX.nanos(),
    "what would begin flows waits until all else does"
);
/// And so long to do so once more, while packets wait.
const LAST_FLUSH_MAX: Duration = Duration::from_millis(20);
/// Workers get this long to stop before the successor is named; the lease ended before.
const STOP_MAX: Duration = Duration::from_millis(100);

/// When to announce again, after the first time.
const ANNOUNCE_AGAIN: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];
/// The worker that sends the beats, on every port.
const SENDER: usize = 0;
/// Between two announcements because of a rival.
const ANNOUNCE_RIVAL: Duration = Duration::from_millis(100);

impl Failover {
    pub(super) fn apply(&mut self, now: Instant, input: Input, cause: Cause) {
        match role::step(self.role, input) {
            Step::Stay | Step::Refuse(_) => {}
            Step::Follow => {
                if let Some(claim) = self.heard_claim {
                    self.follow(now, &claim);
                }
            }
            Step::Lead => self.lead(now, cause),
            Step::Serve => self.serve(now),
            Step::Alarm => {
                if let Some(claim) = self.heard_claim {
                    self.alarm(now, &claim);
                }
            }
            Step::Silence => self.silence(now),
            Step::Resume => self.resume(now),
            Step::Quiesce => self.quiesce(now),
            Step::Abandon => self.abandon(now),
            Step::Withdraw => self.withdraw(now),
            Step::Resign => self.resign(now),
            Step::Leave => self.leave(now),
        }
    }

    /// It may lead undegraded, as far as it knows.
    pub(super) fn believes_in_sync(&self) -> bool {
        self.leader.in_sync && !self.leader.doubted
    }

    fn end_lease(&mut self) {
        self.lease.end();
        self.announce_at = Instant::FAR_FUTURE;
        self.emit(Output::Lease { until: Instant::ZERO });
    }

    /// Follows the claim, or hears from the leader that it follows already.
    fn follow(&mut self, now: Instant, claim: &Beat) {
        let (was, before) = (self.role, self.terms.current());
        if was.claims() {
            self.end_lease();
            self.part_ways(claim.node, before);
            // The configuration check sees to it that this is longer than the pause bound.
            self.yields_by = now + (self.config.takeover_after - self.config.lease);
        } else if before.node != claim.node && before.node != self.node() && self.has_followed(claim.node) {
            // Somebody else was followed meanwhile, and this one may have led on without hearing of it.
            self.part_ways(claim.node, before);
        }
        let mut leader = self.leader;
        if was != Role::Standby || before != claim.term {
            self.terms.follow(claim.term);
            self.role = Role::Standby;
            leader = Leader::default();
            self.degraded = false;
            self.handover = None;
            self.claimed_at = None;
            self.vacant_since = None;
            self.waits_for_operator = false;
            self.insync.clear();
            self.install(WorkerRole::Standby);
            self.reserve();
            self.beat_due = now;
            if was != Role::Standby || before.node != claim.term.node {
                self.event(FailoverEvent::Following { term: claim.term, was });
            }
        }
        // Of a beat that waited in a queue while this one stood still, the set may be long outdated.
        let parted = self.note_followed(claim.node);
        let in_sync = claim.members.contains(self.node()) && claim.echo >= self.answers_from && !parted;
        if in_sync != leader.in_sync || claim.role == Role::Silenced {
            // It waits to hear that we know.
            self.beat_due = now;
        }
        self.leader = Leader {
            heard_at: Some(now).max(leader.heard_at),
            heard_directly_at: Some(now),
            gone_at: None,
            handed_over: false,
            in_sync,
            doubted: false,
            witness: self.witness.as_ref().filter(|_| in_sync).and_then(Asking::boot),
        };
        self.relay_stragglers(now, claim);
        if self.leaving && !was.claims() && !self.stragglers.keep(now) {
            self.apply(now, Input::Gone, Cause::Vacant);
        }
    }

    /// It has ended its lease, but some worker may have looked at it before and not yet sent: nothing is said
    /// meanwhile, so that whoever hears us waits as for a leader.
    pub(super) fn yields(&self, now: Instant) -> bool {
        now < self.yields_by && !self.all_installed()
    }

    fn has_followed(&self, node: NodeId) -> bool {
        self.peers.iter().any(|peer| peer.node == node && peer.followed)
    }

    /// It is followed from now on; whether it has yet to begin anew with this appliance.
    fn note_followed(&mut self, node: NodeId) -> bool {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == node) else { return false };
        peer.followed = true;
        peer.diverged.is_some()
    }

    /// Both led, or the other one did and somebody else was followed, so the tables differ in ways that the other one cannot
    /// know of: it is to begin anew, under a new session.
    fn part_ways(&mut self, node: NodeId, led: Term) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == node) else { return };
        peer.diverged = Some(led);
        peer.forget_sync();
        if core::mem::take(&mut peer.open) {
            self.emit(Output::PeerLost { node });
        }
    }

    /// Takes the next term; the caller made sure that there is one.
    fn lead(&mut self, now: Instant, cause: Cause) {
        let outdated = self.outdated();
        let Some(term) = self.terms.take() else { return };
        let was_standby = self.role == Role::Standby;
        let silent = matches!(cause, Cause::Silence | Cause::Fenced);
        let silence = self.leader.heard_at.filter(|_| silent).map(|heard_at| now - heard_at);
        self.decided_at = now;
        self.degraded = was_standby && !self.believes_in_sync() || outdated && self.role == Role::Silenced;
        self.role = Role::Installing;
        self.yields_by = Instant::ZERO;
        self.leader = Leader::default();
        self.handover = None;
        self.claimed_at = None;
        self.vacant_since = None;
        self.waits_for_operator = false;
        self.promotions += 1;
        self.takeovers += u64::from(was_standby);
        let promoted = FailoverEvent::Promoted { term, cause, degraded: self.degraded };
        self.event_with(promoted, silence, None);
        self.install(WorkerRole::Active);
        let epoch = self.insync.clear();
        self.emit(Output::InSync { epoch, term, members: self.insync.told });
        for peer in &mut self.peers {
            peer.gone = None;
            peer.forget_sync();
        }
        self.forget_grants(now);
        self.reserve();
        if cause != Cause::HandedOver {
            // Another one that is heard may decide the same just now: it has to have heard the claim.
            self.answers_from = self.sent.newest() + 1;
        }
        self.beat_due = now;
    }

    /// Looks whether the workers have all that the role waits for.
    pub(super) fn advance_installed(&mut self, now: Instant) {
        // A leader serves only after its claim was handed out, whoever is heard to claim less has yielded, and whoever might
        // claim just now has heard of it. And, with a witness, when somebody lets it send.
        let granted = self.witness.is_none() || now < self.licence();
        let told = self.claimed_at.is_some() && !self.rival_serves(now) && !self.unanswered_candidate(now);
        let claimed = self.role != Role::Installing || told && granted;
        if self.claim_is_old(now) {
            self.apply(now, Input::Lapsed, Cause::Vacant);
        } else if self.all_installed() && claimed {
            self.apply(now, Input::Installed, Cause::Vacant);
        }
    }

    fn serve(&mut self, now: Instant) {
        let Some(claimed_at) = self.claimed_at else { return };
        self.role = Role::Active;
        self.beat_due = now;
        let serving = FailoverEvent::Serving { term: self.terms.current() };
        self.event_with(serving, None, Some(now - self.decided_at));
        self.grant(claimed_at);
        self.announce_from(now);
    }

    /// Announces now and a few times more: whoever else sent from these addresses may have the
    /// last word before it falls silent.
    pub(super) fn announce_from(&mut self, now: Instant) {
        self.announce(now);
        self.announce_stage = 0;
        self.announce_at = now + ANNOUNCE_AGAIN[0];
    }

    /// The lease runs from a beat that was handed out at `beat_at`, or, when the worker that is to send it has not been
    /// seen to move since, from when it was: the beat waits for it, and standbys heard the one before at best.
    pub(super) fn grant(&mut self, beat_at: Instant) {
        let beat_at = beat_at.min(self.worker_moved_at[SENDER]);
        let until = match self.variant {
            Variant::Sound | Variant::EqualTermAccepted | Variant::LeaseFromAnswer => {
                self.lease.renew(beat_at, self.licence())
            }
            Variant::SendAfterLease => Instant::FAR_FUTURE,
        };
        self.emit(Output::Lease { until });
    }

    fn announce(&mut self, now: Instant) {
        self.announced_at = now;
        self.emit(Output::Announce { epoch: self.role_epoch });
    }

    pub(super) fn announce_again(&mut self, now: Instant) {
        if now < self.announce_at || !self.role.serves() {
            return;
        }
        self.announce(now);
        self.announce_stage += 1;
        self.announce_at = match ANNOUNCE_AGAIN.get(self.announce_stage) {
            Some(after) => now + (*after - ANNOUNCE_AGAIN[self.announce_stage - 1]),
            None => Instant::FAR_FUTURE,
        };
    }

    fn alarm(&mut self, now: Instant, claim: &Beat) {
        if now - self.announced_at < ANNOUNCE_RIVAL {
            return;
        }
        self.tell_disbelieved(
            now,
            claim.node,
            FailoverEvent::RivalSeen { node: claim.node, term: claim.term },
        );
        if self.role.serves() {
            self.announce_from(now);
        } else {
            self.announced_at = now;
        }
        // The rival yields when it hears us.
        self.beat_due = now;
    }

    fn silence(&mut self, now: Instant) {
        self.end_lease();
        let lapse = if self.own_gap > self.lease.length() {
            Lapse::Paused
        } else if self.worker_stuck != 0 {
            Lapse::WorkersStuck
        } else if self.witness.is_some() {
            Lapse::Ungranted
        } else {
            Lapse::Unheard
        };
        self.role = Role::Silenced;
        self.silenced_at = now;
        self.answers_from = self.sent.newest() + 1;
        self.claimed_at = None;
        self.handover = None;
        self.beat_due = now;
        self.event(FailoverEvent::Silenced { lapse });
    }

    fn resume(&mut self, now: Instant) {
        if self.outdated() && self.terms.next().is_some() {
            self.lead(now, Cause::Vacant);
            return;
        }
        self.role = Role::Installing;
        self.decided_at = now;
        self.claimed_at = None;
        self.install(WorkerRole::Active);
        self.beat_due = now;
        self.event(FailoverEvent::Resumed { term: self.terms.current() });
    }

    fn quiesce(&mut self, now: Instant) {
        let insists = self.leaving || self.outranked || self.maintenance.on && self.maintenance.forced;
        let to = self.successor(now, true).or_else(|| self.successor(now, false).filter(|_| insists));
        let Some(peer) = to else {
            if insists {
                self.withdraw(now);
            }
            return;
        };
        self.hand_over_to(now, to, FLUSH_MAX);
        self.role = Role::Quiescing;
        self.beat_due = now;
        self.event(FailoverEvent::HandingOver { to: peer });
        self.emit(Output::Quiesce { peer });
    }

    /// The successor knows nearly all: from now on workers let packets wait, so that none is sent without the lease, and
    /// none changes a flow of which the successor does not hear.
    pub(super) fn hold(&mut self, now: Instant, peer: NodeId) {
        if let Some(handover) = &mut self.handover {
            (handover.holds, handover.flushed) = (true, 0);
            handover.until = now + LAST_FLUSH_MAX;
            self.emit(Output::Hold { peer });
        }
    }

    fn hand_over_to(&mut self, now: Instant, to: Option<NodeId>, bound: Duration) {
        self.handover =
            Some(Handover { to, flushed: 0, until: now + bound, clean: true, holds: false, resigned: false });
    }

    /// The successor is not heard any more: serve on.
    fn abandon(&mut self, now: Instant) {
        self.role = Role::Active;
        self.handover = None;
        self.beat_due = now;
        self.install(WorkerRole::Active);
    }

    fn withdraw(&mut self, now: Instant) {
        self.end_lease();
        match &mut self.handover {
            Some(handover) => handover.until = now + STOP_MAX,
            None => {
                let to = self.successor(now, false);
                self.hand_over_to(now, to, STOP_MAX);
            }
        }
        self.role = Role::Resigning;
        if self.handover.as_ref().is_some_and(|handover| handover.to.is_some()) {
            self.stragglers.wait(now);
        }
        self.claimed_at = None;
        self.install(WorkerRole::Standby);
        self.beat_due = now;
    }

    fn resign(&mut self, now: Instant) {
        self.role = Role::Standby;
        self.claimed_at = None;
        self.insync.clear();
        // Nobody is fresher than the one that led: should the successor fail, it may lead again, but
        // only after the successor had one takeover time more than anyone who follows a silent leader.
        let takeover_after = self.config.takeover_after;
        self.leader = Leader { heard_at: Some(now + takeover_after), in_sync: true, ..Leader::default() };
        let wait = takeover_after * 2;
        if let Some(handover) = &mut self.handover {
            handover.resigned = true;
            handover.until = now + wait;
            let (to, clean) = (handover.to, handover.clean);
            self.event(FailoverEvent::Resigned { term: self.terms.current(), to, clean });
            if to.is_none() && self.leaving {
                self.leave(now);
                return;
            }
        }
        self.beat_due = now;
    }

    fn leave(&mut self, now: Instant) {
        if self.role.claims() {
            self.end_lease();
        }
        self.role = Role::Left;
        self.send_beats(now);
        self.event(FailoverEvent::Left);
        self.emit(Output::MayExit);
    }
}
