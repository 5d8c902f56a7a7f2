//! Fencing: before a standby leads because its leader is silent, a command makes sure that this one sends nothing any more
//! (`failover.fence`): it switches its power or its ports off, and says with its exit status whether it did.
//!
//! It is run when all other waits are over, with a witness the one for its grant too, once for each silence and member; a
//! failure is tried again later, if it is still needed. A leader that is heard meanwhile ends the matter: what the command
//! did then, the leader's silence will tell. A member that is heard after the command said that it was fenced, and did not
//! start anew, is an alarm; terms decide, as ever.
//!
//! That someone was fenced says nothing of later: it may have started again, and have been let to lead, unheard. So what was
//! done counts only while this appliance goes on judging the same silence, and until a command fails.
//!
//! Until it is fenced, a leader may have gone on alone: one that does not hear this standby either lets flows go without
//! it `takeover_after` after it heard it last, that is, at the very time at which this standby may first have it fenced. So
//! whoever goes by fencing leads degraded, but with a witness, which knows whether the leader went on in a higher term.

use super::Failover;
use super::event::FailoverEvent;
use super::liveness::Peer;
use super::members::Members;
use super::output::Output;
use super::role::Role;
use crate::base::ids::NodeId;
use crate::base::time::{Duration, Instant};
use crate::config::checked::Partition;

/// After a failure it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// The driver kills the command in time; so much later its answer is not waited for any more.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Silence that was not judged for so many takeover times is judged anew: a short pause costs one of them.
const UNJUDGED_MAX: u64 = 3;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The command does not run.
    #[default]
    Idle,
    /// It runs.
    Runs {
        /// Someone was heard to lead since, or this appliance did not judge: how it ends says nothing of the silence of now.
        outdated: bool,
    },
    /// It failed then.
    Failed(Instant),
}

/// What is known of the fencing of silent members.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fence {
    state: State,
    /// Numbers the runs.
    attempt: u64,
    /// When the newest run began.
    began_at: Instant,
    whom: NodeId,
    /// The silence that it is about was first judged then: whoever is heard to lead later ends it.
    since: Instant,
    /// It was judged last then.
    judged_at: Instant,
    /// Who was fenced in this silence, and did not start anew as far as is known.
    done: Members,
}

/// Whether a standby may go by the silence of its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fenced {
    /// There is nobody to fence, or no command for it.
    Never,
    /// It is certain that whoever may have led sends nothing any more.
    Done,
    /// It is being found out.
    Waits,
    /// It could not be made certain.
    Failed,
}

/// Who is to be fenced next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspect {
    /// This one.
    Node(NodeId),
    /// One that may be heard in a moment.
    New,
    /// Nobody is.
    Nobody,
}

impl Failover {
    /// So much longer is waited for a better candidate, which may be having the leader fenced.
    pub(super) fn fencing_max(&self) -> Duration {
        self.config.fence.as_ref().map_or(Duration::ZERO, |command| command.timeout + ANSWER_MAX)
    }

    /// The leader is silent: without a witness it may go on alone until it is fenced.
    pub(super) fn doubt(&mut self) {
        if self.config.fence.is_some() && self.witness.is_none() {
            self.leader.doubted = true;
        }
    }

    /// Has the silent leader fenced, if there is a command for it, and says how far that is.
    pub(super) fn fence(&mut self, now: Instant) -> Fenced {
        if self.config.fence.is_none() {
            return Fenced::Never;
        }
        let unjudged = now - self.fence.judged_at;
        self.fence.judged_at = now;
        if unjudged >= self.config.takeover_after * UNJUDGED_MAX {
            self.forget_fencing();
        }
        if self.leader.heard_at.is_some_and(|at| at > self.fence.since) {
            // Another silence.
            self.fence.since = now;
            self.forget_fencing();
            if matches!(self.fence.state, State::Failed(_)) {
                self.fence.state = State::Idle;
            }
        }
        let runs = matches!(self.fence.state, State::Runs { .. });
        if runs && now >= self.fence.began_at + self.fencing_max() {
            self.end_fencing(now, false);
        }
        // Whom the witness lets send is not fenced. What it grants to this one is renewed while the command runs.
        if self.witness.is_some() && !self.may_lead(now) {
            return Fenced::Waits;
        }
        match (self.fence.state, self.suspect(now)) {
            (State::Runs { .. }, Suspect::Node(_) | Suspect::New | Suspect::Nobody) => Fenced::Waits,
            (State::Idle | State::Failed(_), Suspect::New) => Fenced::Waits,
            (State::Idle | State::Failed(_), Suspect::Nobody) if self.fence.done.is_empty() => Fenced::Never,
            (State::Idle | State::Failed(_), Suspect::Nobody) => Fenced::Done,
            (State::Failed(at), Suspect::Node(_)) if now - at < AGAIN_AFTER => Fenced::Failed,
            (State::Idle | State::Failed(_), Suspect::Node(node)) => {
                self.begin_fencing(now, node);
                Fenced::Waits
            }
        }
    }

    /// Who was fenced may have been let to lead since, unheard.
    pub(super) fn forget_fencing(&mut self) {
        self.fence.done = Members::NONE;
        if matches!(self.fence.state, State::Runs { .. }) {
            self.fence.state = State::Runs { outdated: true };
        }
    }

    /// A member has started anew: what fenced its last process says nothing of this one.
    pub(super) fn forget_fenced(&mut self, node: NodeId) {
        self.fence.done.remove(node);
    }

    /// Who is to be fenced next: the leader; with `safety`, or when it is heard and does not lead any more, whoever
    /// else is silent, since it may have taken over.
    fn suspect(&self, now: Instant) -> Suspect {
        let leader = self.terms.current().node;
        let safety = self.config.partition == Partition::Safety;
        // With `safety` not even one that left is excused: it may have come back unheard.
        let excused = |peer: &Peer| !safety && peer.said.is_some_and(|said| said.role == Role::Left);
        // Of one that has just begun a session nothing was heard under it yet.
        let new = |peer: &&Peer| {
            peer.opened_at != Instant::ZERO && now - peer.opened_at < self.config.takeover_after
        };
        let silent = |peer: &&Peer| self.silent(now, peer) && !excused(peer);
        let open = |peer: &&Peer| silent(peer) && !self.fence.done.contains(peer.node);
        let leads = |peer: &&Peer| peer.node == leader;
        let led = self.peers.iter().filter(silent).any(|peer| leads(&peer));
        let asked = |peer: &&Peer| open(peer) && (leads(peer) || !led || safety);
        let known = |peer: &&Peer| asked(peer) && !new(peer);
        let first = self.peers.iter().filter(leads).find(known);
        match first.or_else(|| self.peers.iter().find(known)) {
            Some(peer) => Suspect::Node(peer.node),
            None if self.peers.iter().any(|peer| asked(&peer)) => Suspect::New,
            None => Suspect::Nobody,
        }
    }

    fn begin_fencing(&mut self, now: Instant, node: NodeId) {
        let term = self.terms.current();
        self.fence.attempt += 1;
        (self.fence.state, self.fence.began_at, self.fence.whom) =
            (State::Runs { outdated: false }, now, node);
        self.event(FailoverEvent::Fencing { node });
        self.emit(Output::Fence { attempt: self.fence.attempt, node, term, at: now });
    }

    /// The command of [`Output::Fence`] has ended; `done`: it fenced whom it was to.
    pub fn handle_fenced(&mut self, now: Instant, attempt: u64, done: bool) {
        if attempt == self.fence.attempt && matches!(self.fence.state, State::Runs { .. }) {
            self.end_fencing(now, done);
        }
    }

    fn end_fencing(&mut self, now: Instant, done: bool) {
        let (node, outdated) = (self.fence.whom, self.fence.state == State::Runs { outdated: true });
        self.fence.state = if done || outdated { State::Idle } else { State::Failed(now) };
        if done {
            // What it sends from now on in this boot, it sends though it was fenced.
            let answers_from = self.sent.newest() + 1;
            let peer = self.peers.iter_mut().find(|peer| peer.node == node);
            peer.into_iter().for_each(|peer| peer.fenced = Some(answers_from));
            if !outdated {
                self.fence.done.insert(node);
            }
        } else {
            // Until it is tried again, whoever was fenced before may be back.
            self.fence.done = Members::NONE;
        }
        self.event(if done { FailoverEvent::Fenced { node } } else { FailoverEvent::FenceFailed { node } });
    }

    /// Something was heard of a member: it must not have been fenced, or else have started anew.
    pub(super) fn note_fenced_is_heard(&mut self, peer_at: usize) {
        let peer = &mut self.peers[peer_at];
        if peer.fenced.is_some_and(|answers_from| peer.echo() >= answers_from) {
            peer.fenced = None;
            let node = peer.node;
            self.fence.done.remove(node);
            self.event(FailoverEvent::FencedIsHeard { node });
        }
    }
}
