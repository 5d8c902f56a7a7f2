//! Other keys while the appliance runs: sessions go on if their peer proves one that is left. Keys with which the session of a
//! peer that is heard would end are refused: two members that do not hear each other would both lead.

use core::fmt;

use arrayvec::ArrayVec;
use serde::Serialize;

use super::Failover;
use super::event::FailoverEvent;
use super::liveness::Peer;
use super::output::Output;
use super::role::Role;
use crate::base::ids::NodeId;
use crate::base::limits::CREDENTIALS_MAX;
use crate::base::time::{Duration, Instant};
use crate::seal::key::KeyName;
use crate::seal::{Credentials, Distrust, Keys, Session};

/// One that proves a key that is not accepted here is told of after this: its operator may be at the next member by then.
const PROOF_SETTLES: Duration = Duration::from_secs(1);

/// What a peer's newest beat proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proven {
    /// Nothing was heard under a session.
    Nothing,
    /// It does not say, so it is of an earlier version.
    Unsaid,
    /// A key that is not accepted here.
    Other,
    /// This one.
    Key(KeyName),
}

/// What both sides of a session prove to each other in every beat.
#[derive(Clone)]
pub struct Proofs {
    own: u32,
    accepted: ArrayVec<(KeyName, u32), CREDENTIALS_MAX>,
    /// What the peer's newest beat says.
    heard: Option<u32>,
    agreed: KeyName,
    /// Since when it proves what is not accepted here, and whether that was told.
    other: Option<(Instant, bool)>,
}

/// The same, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyStatus {
    /// What this appliance proves.
    pub own: KeyName,
    /// All that it accepts.
    pub accepted: Vec<KeyName>,
    /// What the peer proves.
    pub proven: Proven,
}

/// Keys were refused: the session with this peer, which is heard or in sync, would end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysRefused {
    /// The peer.
    pub node: NodeId,
    /// What it proves, as this appliance knows keys now.
    pub proven: Proven,
}

impl fmt::Display for KeysRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeysRefused { node, proven } = self;
        match proven {
            Proven::Key(name) => {
                write!(f, "node {node} proves key {name}, which would not be accepted any more")?
            }
            Proven::Other => write!(f, "node {node} proves a key that is not accepted here")?,
            Proven::Nothing | Proven::Unsaid => {
                write!(f, "node {node} proves no key that would be accepted")?
            }
        }
        write!(
            f,
            ", so both would lead: have it prove another one first (`baton reload` there), or stop it; no key has changed"
        )
    }
}

impl core::error::Error for KeysRefused {}

impl Proofs {
    /// Of a new session.
    pub fn new(session: &Session, credentials: &Credentials) -> Proofs {
        let none =
            Proofs { own: 0, accepted: ArrayVec::new(), heard: None, agreed: session.key(), other: None };
        none.renewed(session, credentials)
    }

    /// The same by other credentials.
    fn renewed(&self, session: &Session, credentials: &Credentials) -> Proofs {
        let proof = |credential: &crate::seal::credentials::Credential| {
            (credential.name(), credential.proof(session, session.peer().node))
        };
        Proofs {
            own: credentials.first().proof(session, session.local().node),
            accepted: credentials.iter().map(proof).collect(),
            ..self.clone()
        }
    }

    /// What the next beat says.
    pub fn own(&self) -> u32 {
        self.own
    }

    /// What a beat of the peer says; 0: nothing, of an earlier version.
    pub fn hear(&mut self, now: Instant, proof: u32) {
        self.heard = Some(proof);
        self.other = match self.proven() {
            Proven::Other => Some(self.other.unwrap_or((now, false))),
            Proven::Nothing | Proven::Unsaid | Proven::Key(_) => None,
        };
    }

    /// Whether the operator is to be told, once, that the peer proves what is not accepted here.
    pub fn is_to_be_told(&mut self, now: Instant) -> bool {
        match &mut self.other {
            Some((since, told)) if now - *since >= PROOF_SETTLES => !core::mem::replace(told, true),
            Some(_) | None => false,
        }
    }

    fn proven(&self) -> Proven {
        match self.heard {
            None => Proven::Nothing,
            Some(0) => Proven::Unsaid,
            Some(heard) => {
                let known = self.accepted.iter().find(|(_, accepted)| *accepted == heard);
                known.map_or(Proven::Other, |(name, _)| Proven::Key(*name))
            }
        }
    }

    /// Whether the session may go on by what is accepted: it was agreed with that, or it was proven since.
    fn hold(&self) -> bool {
        self.accepted.iter().any(|(name, _)| *name == self.agreed) || matches!(self.proven(), Proven::Key(_))
    }
}

impl Failover {
    /// Goes by other keys from now on, or by none of them: if the session of a peer that is heard, or that leads in sync with
    /// this one, was agreed with a key that is gone, and it proves none that is left. That of one that is not heard ends, and a
    /// new one is agreed.
    pub fn handle_keys(&mut self, now: Instant, keys: &Keys) -> Result<(), KeysRefused> {
        let credentials: Vec<Credentials> = self.peers.iter().map(|peer| keys.with(peer.node)).collect();
        for (peer, credentials) in self.peers.iter().zip(&credentials) {
            if let Some(live) = &peer.live
                && !live.proofs.renewed(&live.session, credentials).hold()
                && self.is_needed(now, peer)
            {
                return Err(KeysRefused { node: peer.node, proven: live.proofs.proven() });
            }
        }
        self.heard_until = now;
        self.ring = keys.ring().clone();
        if let Some(asking) = &mut self.witness {
            asking.renew(&self.ring);
        }
        for (at, credentials) in credentials.into_iter().enumerate() {
            let peer = &mut self.peers[at];
            for live in peer.live.iter_mut().chain(&mut peer.before) {
                live.proofs = live.proofs.renewed(&live.session, &credentials);
            }
            peer.handshake.renew(credentials);
            peer.before = peer.before.take().filter(|before| before.proofs.hold());
            if peer.live.as_ref().is_some_and(|live| !live.proofs.hold()) {
                self.end_session(now, at);
            }
        }
        Ok(())
    }

    /// Whether its session must not end: it would lead too, or miss what it is said to have.
    fn is_needed(&self, now: Instant, peer: &Peer) -> bool {
        let left = peer.said.is_some_and(|said| said.role == Role::Left);
        let heard = peer.present || peer.heard_within(now, self.config.takeover_after);
        (heard && !left) || (self.role.claims() && self.insync.told.contains(peer.node))
    }

    fn end_session(&mut self, now: Instant, peer_at: usize) {
        let peer = &mut self.peers[peer_at];
        let node = peer.node;
        (peer.live, peer.before) = (None, None);
        if core::mem::take(&mut peer.open) {
            peer.forget_sync();
            self.emit(Output::PeerLost { node });
        }
        let event = FailoverEvent::Disbelieved { node, what: Distrust::KeyGone, by: None };
        self.tell_disbelieved(now, node, event);
    }

    /// What a peer and this appliance prove to each other.
    pub(super) fn key_status(&self, peer: &Peer) -> KeyStatus {
        let credentials = peer.handshake.credentials();
        KeyStatus {
            own: credentials.first().name(),
            accepted: credentials.iter().map(|credential| credential.name()).collect(),
            proven: peer.live.as_ref().map_or(Proven::Nothing, |live| live.proofs.proven()),
        }
    }
}
