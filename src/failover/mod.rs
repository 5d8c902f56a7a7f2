//! Who leads, who may send, and who must acknowledge: roles, terms, the lease, the in-sync set.
//!
//! Owned by the liveness thread, which does nothing else. In: liveness frames of every
//! port, reports of workers, durable reservations, the operator, `now`. Out ([`Output`]):
//! frames, the lease, roles and in-sync sets for the workers, sessions, announcements,
//! reservations, events. One pure machine, [`Failover`]; call order:
//!
//! ```text
//! handle_frame / handle_report / handle_reserved / handle_operator   as they come
//! handle_broken                                                       when a thread failed
//! handle_keys                                                         when there are other keys
//! handle_services                                                     when the configuration is another one
//! poll(now, progress)                                                 every millisecond
//! poll_output() until None                                            after each of these
//! ```
//!
//! # The invariant
//!
//! > At most one member holds a lease at any instant, as long as between any two of them
//! > that are up one liveness path works both ways (or a third member hears both).
//!
//! It rests on six rules, each with the case that needs it:
//!
//! 1. *A lease runs from a beat.* It ends `lease` after the newest heartbeat that was
//!    handed out to a worker that moves, and a standby waits `takeover_after` > `lease` from the
//!    newest that it heard. (The active dies, or is paused, or the worker that sends its beats is.)
//! 2. *A lapsed lease is never renewed.* It is taken anew ([`Role::Silenced`] → resumed),
//!    after every peer has either answered a beat sent after the lapse without claiming a
//!    higher term, or was silent for `takeover_after`. (A paused process wakes up.)
//! 3. *A higher claim ends a lease at once*, and the lease ends before anything else is
//!    said or done; whoever claims the higher term serves only when nobody is heard any more to
//!    claim a lower one, and all that are heard and might claim too have heard of its claim. (Partitions heal; two decide at once.) Two claims are never equal: a
//!    term holds its node.
//! 4. *A term is taken once*: its counter is durably reserved before, and after a start
//!    every counter reserved before counts as used. (Restarts.)
//! 5. *Silence is judged only by one who listened*: in a round that found the queues
//!    drained, and a gap in one's own polls, or in a worker's rounds, starts the wait again. An
//!    answer counts only if it answers a beat sent after the gap; a goodbye, a resignation or a
//!    new boot only if there was no gap lately. (The standby was paused, not the active.)
//! 6. *A lease never outlasts what a standby grants.* A standby that is heard, but whose
//!    answers show that it hears nothing of this appliance, will take over; so the lease
//!    ends `lease` after the beat that it heard last. What it said counts for four intervals, since of its beats some may be lost.
//!    (All paths cut in one direction.)
//!
//! Losing the mirror port alone takes a member out of the in-sync set and is never a reason
//! to take over: beats still come by the other ports.
//!
//! # Decided here, where the design is silent
//!
//! - The lease runs from the newest *beat*, not from the poll, so it lasts between
//!   `lease − heartbeat_interval` and `lease` from now.
//! - A silenced or installing leader still claims its term: standbys wait for it as for an active one.
//! - A peer's boot id that changes while its old boot was heard within three intervals is taken
//!   for two live processes with one node number: the new one is not believed until the old one is silent.
//! - Several candidates: one that can take a term before one that cannot write its term file; a standby in sync before
//!   one that is not, before one that tracks only some virtual servers, before one that booted fresh (of these too, who tracks everything before who does not); then the healthier, then the higher priority, then the lower node. Each better candidate that is heard adds one `takeover_after`
//!   to the wait (at boot two; with `safety` a better candidate is waited for without end). A standby tells how long ago it heard the leader, so one cut off from the leader alone does not take over.
//! - `safety`: neither a standby nor a booting appliance leads because of silence. It does when it knows:
//!   handed over, the leader's process restarted and all others are heard (one that is not may have heard it too), all peers heard
//!   and none leads, or [`Operator::Promote`].
//! - With a fencing command ([`fence`]) a standby goes by its leader's silence only when that one is fenced, or, with `availability`, when the
//!   command failed. With `safety` it may then lead too. It is degraded, unless a witness knows whether the leader went on without it.
//! - A standby that stood still for `takeover_after` no longer believes to be in sync: it may have been removed meanwhile.
//! - A standby in sync that is heard and does not acknowledge is removed or waited for, as `failover.lagging` says (`membership.rs`).
//! - A process in which a thread failed leaves at once: a standby in sync leads as soon as it hears that, or, when no
//!   frame leaves any more (the first worker failed, or the liveness thread), after the silence.
//! - A handover waits (bounded) until all workers stopped, so not even a burst is sent by two. So does whoever follows a
//!   higher claim: its last word stays its own claim, for which the successor waits, until all workers have
//!   the new role, or `takeover_after − lease` has passed, which is more than the pause bound.
//! - Before it, when the successor has all, workers let packets of services wait ([`Output::Hold`]), still under the lease, and flush
//!   once more: so none is lost with the lease, and the successor knows of all that was sent. It gets them when it is heard to
//!   serve ([`Output::Relay`], `stragglers.rs`).
//! - A session outlives silence: a peer that was paused is heard again at once. Workers' streams do
//!   not: after ten takeover times they are closed, and opened under a new session.
//! - One under maintenance never takes a term, and nobody waits for it, or minds that it is deaf; when it is back in
//!   service it waits as if it had just woken up.
//! - `preempt`: the standby in sync with the higher priority asks, and the active hands over as planned.
//! - Health comes behind being in sync: flows that a standby in sync saves are lost for good if another one leads, and it
//!   hands over as planned when a healthier one is in sync. The rest is in [`health`].
//!
//! - Whoever follows asks for the leader's services, if they are not its own, and its driver goes by them (`services.rs`).
//!
//! - Who tracks only some virtual servers never comes into the in-sync set: there is one group, so who leads serves all of
//!   them. Whoever has everything leads before it, and its own promotion is degraded.
//!
//! Not yet: several groups. VRRP is said in `master/vrrp.rs`; it decides nothing here but with
//! `vrrp = "yield"` (`foreign.rs`), and then only that nobody of the group leads.

mod decide;
pub mod distrust;
mod drive;
pub mod event;
mod fence;
pub mod foreign;
pub mod health;
pub mod heartbeat;
pub mod insync;
pub mod keys;
mod lease;
mod liveness;
mod maintenance;
pub mod members;
mod membership;
pub mod output;
mod receive;
pub mod role;
mod services;
pub mod state;
pub mod status;
mod stragglers;
mod talk;
pub mod term;
pub mod witness;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

pub use event::{Cause, FailoverEvent, Happened, Lapse, Removal, Standing};
pub use health::Health;
pub use heartbeat::FrameBytes;
pub use members::Members;
pub use output::{Operator, Output, Progress, Refusal, WorkerReport, WorkerRole};
pub use role::Role;
pub use state::State;
pub use status::FailoverStatus;

use crate::base::counters::Counters;
use crate::base::ids::{BootId, NodeId, PortId, Term};
use crate::base::limits::{FAILOVER_FRAMES_MAX, PORTS_MAX, WORKERS_MAX};
use crate::base::time::{Duration, Instant};
use crate::config::checked;
use crate::seal::{Handshake, KeyRing, Keys, MemberInfo, handshake::Allowance};
use crate::wire::ethernet::MacAddress;
use fence::Fence;
use heartbeat::Beat;
use insync::InSync;
use lease::Lease;
use liveness::{Peer, SentBeats, Synced};
use maintenance::Maintenance;
use output::all;
use role::{Input, Step};
use stragglers::Stragglers;
use term::Terms;
use witness::asking::Asking;

/// A port: one liveness path to each peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSetup {
    /// Its place in the configuration file.
    pub id: PortId,
    /// Its own address, the source of liveness frames.
    pub mac: MacAddress,
    /// It is the dedicated mirror port; only shown.
    pub mirror: bool,
}

/// How sound the rules are. All but `Sound` exist only to prove that checkers see a
/// broken rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// As they should be.
    #[default]
    Sound,
    /// Terms are compared by counter alone: of two claims with equal counters neither yields.
    EqualTermAccepted,
    /// A lease never ends while leading, and nothing silences.
    SendAfterLease,
    /// What the witness grants counts from its answer, not from the request.
    LeaseFromAnswer,
}

/// All that a [`Failover`] needs to know from the start.
pub struct FailoverSetup {
    /// What this member says of itself; group, node and boot are in it.
    pub member: MemberInfo,
    /// The other members, from the configuration.
    pub peers: Vec<NodeId>,
    /// Every port.
    pub ports: Vec<PortSetup>,
    /// Priority and timers.
    pub config: checked::Failover,
    /// What it proves itself with, and what it accepts of peers.
    pub keys: Keys,
    /// The highest counter that was ever reserved, from the state file; `Term::NONE` at the very first start.
    pub reserved: Term,
    /// Workers of this appliance that hold flows: they take roles, and say how far peers are.
    pub workers: usize,
    /// All its worker lcores, those that hold flows first. The others only receive and pass on, liveness frames too: so
    /// every one of them has to make progress.
    pub lcores: usize,
    /// Counters of the liveness thread.
    pub counters: Arc<Counters>,
    /// Which rules are broken: none, outside of tests.
    pub variant: Variant,
}

/// What is known of the leader that is followed, or whether anyone leads at all.
#[derive(Clone, Copy, Debug, Default)]
struct Leader {
    /// The newest proof that someone leads: heard directly, or by another standby.
    heard_at: Option<Instant>,
    /// The same, directly.
    heard_directly_at: Option<Instant>,
    /// Its process is known to be gone since then.
    gone_at: Option<Instant>,
    /// It resigned and named this appliance.
    handed_over: bool,
    /// It said that this appliance is in sync.
    in_sync: bool,
    /// It was silent for so long that it may have gone on without this appliance since.
    doubted: bool,
    /// The process of the witness that was known when it said so last.
    witness: Option<BootId>,
}

/// A handover on its way.
#[derive(Clone, Copy, Debug)]
struct Handover {
    /// To whom; nobody, when nobody is heard and the process ends.
    to: Option<NodeId>,
    /// Workers that flushed, a bit each.
    flushed: u32,
    /// They flush a second time, and handle no more packets of services.
    holds: bool,
    /// The present stage (flushing, the same while holding, stopping, waiting for the successor) lasts at most until then.
    until: Instant,
    /// Everything went in time so far.
    clean: bool,
    /// The resignation was made: it is in the beats now.
    resigned: bool,
}

/// The machine. See the room's documentation for the call order.
pub struct Failover {
    member: MemberInfo,
    config: checked::Failover,
    ring: KeyRing,
    variant: Variant,
    workers: usize,
    lcores: usize,
    ports: Vec<Port>,
    peers: Vec<Peer>,
    counters: Arc<Counters>,
    out: VecDeque<Output>,
    frames_waiting: usize,

    role: Role,
    terms: Terms,
    lease: Lease,
    witness: Option<Asking>,
    fence: Fence,
    leader: Leader,
    insync: InSync,
    handover: Option<Handover>,
    stragglers: Stragglers,
    /// The claim that is being taken in, while it is.
    heard_claim: Option<Beat>,
    leaving: bool,
    maintenance: Maintenance,
    /// The highest priority with which another VRRP router advertises the group's virtual router; 0: none does.
    foreign_priority: u8,
    /// It gives way to that one.
    outranked: bool,
    /// It had to take over without being in sync; cleared when it follows again.
    degraded: bool,
    /// It led, and follows: it says so when all workers have stopped, or then.
    yields_by: Instant,

    role_epoch: u64,
    installed: u32,
    announce_stage: usize,
    announce_at: Instant,
    announced_at: Instant,

    started_at: Instant,
    polled_at: Instant,
    /// Between the newest two polls.
    own_gap: Duration,
    /// The end of the newest gap that was too long.
    woke_at: Instant,
    /// Silence counts from here at the earliest: the end of the newest gap, own or a worker's.
    listening_since: Instant,
    /// Answers count from this beat on: the first after the newest own gap or lapse.
    answers_from: u64,
    silenced_at: Instant,
    /// Since when a booting appliance could lead, but for better ones.
    vacant_since: Option<Instant>,
    waits_for_operator: bool,
    /// Since when no counter is reserved that it may use.
    unable_since: Option<Instant>,
    /// That has been so for long, and was told.
    cannot_lead: bool,
    /// Of what the operator tracks.
    health: Health,
    damping: health::Damping,
    services: services::Services,

    sent: SentBeats,
    beat_due: Instant,
    /// The newest beat that was handed out in the present role's claim; none yet: `None`.
    claimed_at: Option<Instant>,
    worker_moved_at: [Instant; WORKERS_MAX],
    worker_stuck: u32,

    /// The time of the newest call.
    heard_until: Instant,
    /// What the newest event said that it is.
    told: Standing,
    /// When it last was what the newest event said.
    state_told_at: Instant,
    /// When it decided to lead the term that it installs.
    decided_at: Instant,

    promotions: u64,
    takeovers: u64,
}

struct Port {
    setup: PortSetup,
    allowance: Allowance,
    quiet_until: Instant,
}

impl Failover {
    /// A booting appliance. `setup.ports` holds at most `PORTS_MAX` ports and
    /// `setup.lcores` is at most `WORKERS_MAX`, as the configuration check sees to;
    /// what is beyond them is left out.
    pub fn new(setup: FailoverSetup, now: Instant) -> Failover {
        let FailoverSetup {
            member,
            peers,
            ports,
            config,
            keys,
            reserved,
            workers,
            lcores,
            counters,
            variant,
        } = setup;
        let peers = peers
            .into_iter()
            .map(|node| Peer::new(node, Handshake::new(keys.with(node), member, node)))
            .collect();
        let ports = ports
            .into_iter()
            .filter(|port| usize::from(port.id.0) < PORTS_MAX)
            .map(|setup| Port { setup, allowance: Allowance::new(now), quiet_until: now })
            .collect();
        let maintenance = Maintenance { on: config.maintenance, ..Maintenance::default() };
        let mut failover = Failover {
            terms: Terms::new(member.node, reserved),
            lease: Lease::new(config.lease),
            fence: Fence::default(),
            witness: config.witness.map(|_| Asking::new(keys.ring(), member.boot, now)),
            member,
            config,
            ring: keys.ring().clone(),
            variant,
            workers: workers.min(WORKERS_MAX),
            lcores: lcores.min(WORKERS_MAX),
            ports,
            peers,
            counters,
            out: VecDeque::new(),
            frames_waiting: 0,
            role: Role::Booting,
            leader: Leader::default(),
            insync: InSync::default(),
            handover: None,
            stragglers: Stragglers::default(),
            heard_claim: None,
            leaving: false,
            maintenance,
            foreign_priority: 0,
            outranked: false,
            degraded: false,
            yields_by: Instant::ZERO,
            role_epoch: 0,
            installed: 0,
            announce_stage: 0,
            announce_at: Instant::FAR_FUTURE,
            announced_at: Instant::ZERO,
            started_at: now,
            polled_at: now,
            own_gap: Duration::ZERO,
            woke_at: now,
            listening_since: now,
            answers_from: 1,
            silenced_at: now,
            vacant_since: None,
            waits_for_operator: false,
            unable_since: None,
            cannot_lead: false,
            health: Health::WELL,
            damping: health::Damping::default(),
            services: services::Services::default(),
            sent: SentBeats::new(),
            beat_due: now,
            claimed_at: None,
            worker_moved_at: [now; WORKERS_MAX],
            worker_stuck: 0,
            heard_until: now,
            told: Standing { role: Role::Booting, state: State::Booting },
            state_told_at: now,
            decided_at: now,
            promotions: 0,
            takeovers: 0,
        };
        failover.emit(Output::Lease { until: Instant::ZERO });
        failover.install(WorkerRole::Standby);
        failover.reserve();
        failover
    }

    /// Handles a report of a worker.
    pub fn handle_report(&mut self, now: Instant, report: WorkerReport) {
        self.heard_until = now;
        match report {
            WorkerReport::Installed { worker, epoch } => {
                if epoch == self.role_epoch && usize::from(worker.0) < self.workers {
                    self.installed |= 1 << worker.0;
                    self.advance_installed(now);
                }
            }
            WorkerReport::InSyncInstalled { worker, epoch } => {
                self.insync.handle_installed(worker.0, epoch);
            }
            WorkerReport::Sync { worker, peer, session, walk_done, oldest_unacked, dirty, settled } => {
                let synced = Synced { at: now, walk_done, oldest_unacked, dirty, settled };
                self.handle_synced(worker, peer, session, synced);
            }
            WorkerReport::HoldOverdue { peer, .. } => {
                if self.insync.told.contains(peer)
                    && let Some(peer) = self.peers.iter_mut().find(|other| other.node == peer)
                {
                    peer.overdue = true;
                }
            }
            WorkerReport::Disbelieved { peer, what, count } => {
                self.handle_disbelieved(now, peer, what, count);
            }
            WorkerReport::Flushed { worker, peer } => {
                if let Some(handover) = &mut self.handover
                    && handover.to == Some(peer)
                    && usize::from(worker.0) < self.workers
                {
                    handover.flushed |= 1 << worker.0;
                }
            }
        }
    }

    /// Counters up to `counter` are durably reserved.
    pub fn handle_reserved(&mut self, counter: u64) {
        self.terms.handle_reserved(counter);
    }

    /// Does what an operator asks, or says why not.
    pub fn handle_operator(&mut self, now: Instant, operator: Operator) -> Result<(), Refusal> {
        self.heard_until = now;
        let input = match operator {
            Operator::Switchover => Input::OperatorSwitchover,
            Operator::Promote => Input::OperatorPromote,
            Operator::Shutdown => Input::Shutdown,
            Operator::Maintenance { on: true, force } => return self.start_maintenance(now, force),
            Operator::Maintenance { on: false, .. } => {
                self.end_maintenance(now);
                return Ok(());
            }
        };
        match role::step(self.role, input) {
            Step::Refuse(reason) => return Err(Refusal::Role(reason)),
            Step::Quiesce if operator == Operator::Switchover => {
                let node = self.able_successor(now)?;
                if self.peers.iter().any(|peer| peer.node == node && self.is_less_healthy(peer)) {
                    return Err(Refusal::LessHealthy(node));
                }
            }
            Step::Lead if self.maintenance.on => return Err(Refusal::UnderMaintenance),
            Step::Lead if self.outranked => return Err(Refusal::Outranked(self.foreign_priority)),
            Step::Lead if self.leader_lives(now) => {
                let leader = self.terms.current().node;
                let resigned = leader == self.node();
                return Err(if resigned { Refusal::JustResigned } else { Refusal::LeaderHeard(leader) });
            }
            Step::Lead if self.terms.next().is_none() => return Err(Refusal::NoTerm),
            Step::Lead if self.witness.is_some() && !self.witness_grants(now) => {
                return Err(Refusal::WitnessGrantsNot);
            }
            _ => {}
        }
        if operator == Operator::Shutdown {
            self.leaving = true;
        }
        self.apply(now, input, event::Cause::Operator);
        Ok(())
    }

    /// A thread of this process failed, and the driver has seen to it that nothing is sent for the service any more:
    /// leaves the group and says so, without waiting for workers, which may have failed themselves.
    pub fn handle_broken(&mut self, now: Instant) {
        self.heard_until = now;
        self.leaving = true;
        let first = self.role != Role::Left;
        self.apply(now, Input::Broken, event::Cause::Vacant);
        if first {
            self.give_back(now);
        }
    }

    /// The next thing to do, in order; `None`: all is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.out.pop_front();
        if matches!(output, Some(Output::SendFrame { .. })) {
            self.frames_waiting -= 1;
        }
        output
    }

    /// When [`Failover::poll`] is to be called at the latest.
    pub fn next_deadline(&self) -> Instant {
        self.beat_due.min(self.polled_at + POLL_INTERVAL)
    }

    /// The present role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The term that is led or followed.
    pub fn term(&self) -> Term {
        self.terms.current()
    }

    /// Its counters.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn node(&self) -> NodeId {
        self.member.node
    }

    fn emit(&mut self, output: Output) {
        if matches!(output, Output::SendFrame { .. }) {
            if self.frames_waiting == FAILOVER_FRAMES_MAX {
                self.counters.bump(crate::base::counters::Counter::LivenessTxFull);
                return;
            }
            self.frames_waiting += 1;
        }
        self.out.push_back(output);
    }

    fn event(&mut self, event: FailoverEvent) {
        self.event_with(event, None, None);
    }

    fn event_with(
        &mut self,
        event: FailoverEvent,
        silence: Option<Duration>,
        since_decision: Option<Duration>,
    ) {
        let (at, after, term) = (self.heard_until, self.standing(), self.terms.current());
        let before = core::mem::replace(&mut self.told, after);
        self.emit(Output::Event(Happened { event, at, before, after, term, silence, since_decision }));
    }

    /// What it is, for the operator.
    fn standing(&self) -> Standing {
        Standing { role: self.role, state: self.state() }
    }

    fn install(&mut self, role: WorkerRole) {
        self.role_epoch += 1;
        self.installed = 0;
        let (epoch, term) = (self.role_epoch, self.terms.current());
        self.emit(Output::Role { epoch, role, term });
    }

    fn all_installed(&self) -> bool {
        self.installed == all(self.workers)
    }

    fn reserve(&mut self) {
        if let Some(counter) = self.terms.ask() {
            self.emit(Output::ReserveTerm { counter });
        }
    }
}

/// Between two polls, at most.
pub const POLL_INTERVAL: Duration = Duration::from_millis(1);
