//! What is known of one peer: its session, what it said last, by which paths it is heard.

use std::sync::Arc;

use super::distrust::Disbelieved;
use super::event::Removal;
use super::heartbeat::Beat;
use super::keys::Proofs;
use crate::base::ids::{BootId, NodeId, Term};
use crate::base::limits::{PORTS_MAX, WORKERS_MAX};
use crate::base::time::{Duration, Instant};
use crate::seal::{Credentials, Handshake, Opener, Sealer, Session, StreamId, Tracked};
use crate::wire::ethernet::PortLinks;

/// Beats of this side whose time of sending is remembered.
const SENT_REMEMBERED: usize = 64;

/// When the newest beats were handed out, by number.
#[derive(Clone, Debug)]
pub struct SentBeats {
    newest: u64,
    at: [Instant; SENT_REMEMBERED],
}

impl SentBeats {
    /// None yet.
    pub fn new() -> SentBeats {
        SentBeats { newest: 0, at: [Instant::ZERO; SENT_REMEMBERED] }
    }

    /// The number of the newest; 0: none.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Numbers the next.
    pub fn next(&mut self, now: Instant) -> u64 {
        self.newest += 1;
        self.at[(self.newest % SENT_REMEMBERED as u64) as usize] = now;
        self.newest
    }

    /// When beat `number` was handed out; `None`: never, or too long ago.
    pub fn at(&self, number: u64) -> Option<Instant> {
        let remembered =
            number != 0 && number <= self.newest && self.newest - number < SENT_REMEMBERED as u64;
        remembered.then(|| self.at[(number % SENT_REMEMBERED as u64) as usize])
    }
}

/// A session in use: sealers by own port, openers by the peer's.
pub struct Live {
    /// The session.
    pub session: Arc<Session>,
    /// What both sides prove to each other under it.
    pub proofs: Proofs,
    sealers: [Option<Sealer>; PORTS_MAX],
    openers: [Option<Box<Opener>>; PORTS_MAX],
    /// What is said of the leader's services.
    services: (Option<Sealer>, Option<Box<Opener>>),
}

impl Live {
    /// Opens a session's heartbeat streams.
    pub fn new(session: Arc<Session>, credentials: &Credentials) -> Live {
        Live {
            proofs: Proofs::new(&session, credentials),
            session,
            sealers: [const { None }; PORTS_MAX],
            openers: [const { None }; PORTS_MAX],
            services: (None, None),
        }
    }

    /// The sealer of what is sent by own port `port`.
    pub fn sealer(&mut self, port: u16) -> Option<&mut Sealer> {
        let slot = self.sealers.get_mut(usize::from(port))?;
        if slot.is_none() {
            *slot = self.session.sealer(StreamId::heartbeat(port)).ok();
        }
        slot.as_mut()
    }

    /// The opener of a heartbeat stream of the peer's.
    pub fn opener(&mut self, port: u16) -> Option<&mut Opener> {
        let slot = self.openers.get_mut(usize::from(port))?;
        let session = &self.session;
        Some(slot.get_or_insert_with(|| Box::new(session.opener(StreamId::heartbeat(port)))))
    }

    /// The sealer of what is said of the leader's services.
    pub fn services_sealer(&mut self) -> Option<&mut Sealer> {
        if self.services.0.is_none() {
            self.services.0 = self.session.sealer(StreamId::SERVICES).ok();
        }
        self.services.0.as_mut()
    }

    /// The opener of what the peer says of them.
    pub fn services_opener(&mut self) -> &mut Opener {
        let session = &self.session;
        self.services.1.get_or_insert_with(|| Box::new(session.opener(StreamId::SERVICES)))
    }

    /// Keeps an opener that accepted a frame.
    pub fn keep(&mut self, port: u16, opener: Opener) {
        if let Some(slot) = self.openers.get_mut(usize::from(port)) {
            *slot = Some(Box::new(opener));
        }
    }
}

/// What one worker last reported of a peer.
#[derive(Clone, Copy, Debug)]
pub struct Synced {
    /// When.
    pub at: Instant,
    /// Every flow was sent and acknowledged.
    pub walk_done: bool,
    /// Age of the oldest unacknowledged change.
    pub oldest_unacked: Duration,
    /// Flows with unacknowledged changes.
    pub dirty: u32,
    /// The epoch of the in-sync set before whose installation nothing is unacknowledged; or 0.
    pub settled: u64,
}

/// One peer.
pub struct Peer {
    /// Its number.
    pub node: NodeId,
    /// The handshake with it.
    pub handshake: Handshake,
    /// The session with it, if there is one.
    pub live: Option<Live>,
    /// The session before, of the same boot: the peer may speak under it until it knows that the
    /// new one is agreed.
    pub before: Option<Live>,
    /// The virtual servers that it tracks, by what it last said of itself.
    pub tracked: Tracked,
    /// Its newest boot that was proven.
    pub boot: Option<BootId>,
    /// This appliance led, or followed somebody, in this term while the peer led too: what the peer believes to be known
    /// here is not. Until there is a new session, this appliance does not say that it follows.
    pub diverged: Option<Term>,
    /// It was followed under this session.
    pub followed: bool,
    /// Workers were told of the session and not yet that it is lost.
    pub open: bool,
    /// Since when.
    pub opened_at: Instant,
    /// Its old process is gone, or it left: out of the in-sync set with it.
    pub gone: Option<Removal>,
    /// The newest thing that it said in its present boot.
    pub said: Option<Beat>,
    /// When that was heard.
    pub heard_at: Instant,
    /// It was reported as heard and not since as silent.
    pub present: bool,
    /// Its newest beats in a row that did not acknowledge a newer beat of ours.
    pub stale_echoes: u32,
    /// By own port: when a beat came in.
    pub heard_by: [Instant; PORTS_MAX],
    /// By own port: the link address that it came from.
    pub links: PortLinks,
    /// By the peer's port: when a beat of it came in.
    pub heard_from: [Instant; PORTS_MAX],
    /// By worker: what it reported.
    pub synced: [Option<Synced>; WORKERS_MAX],
    /// A worker reported a packet held for too long.
    pub overdue: bool,
    /// It comes into the in-sync set at the earliest then.
    pub admit_after: Instant,
    /// A command said that it fenced it, when our next beat had this number.
    pub fenced: Option<u64>,
    /// What was heard in its name and not believed.
    pub disbelieved: Disbelieved,
    /// When events about its being refused may be emitted again.
    pub quiet_until: Instant,
}

impl Peer {
    /// It tracks certain virtual servers only, by what it said of itself.
    pub fn is_partial(&self) -> bool {
        self.tracked.is_partial()
    }

    /// Nothing is known of it yet.
    pub fn new(node: NodeId, handshake: Handshake) -> Peer {
        Peer {
            node,
            handshake,
            live: None,
            before: None,
            tracked: Tracked::ALL,
            boot: None,
            diverged: None,
            followed: false,
            open: false,
            opened_at: Instant::ZERO,
            gone: None,
            said: None,
            heard_at: Instant::ZERO,
            present: false,
            stale_echoes: 0,
            links: [None; PORTS_MAX],
            heard_by: [Instant::ZERO; PORTS_MAX],
            heard_from: [Instant::ZERO; PORTS_MAX],
            synced: [None; WORKERS_MAX],
            overdue: false,
            admit_after: Instant::ZERO,
            fenced: None,
            disbelieved: Disbelieved::default(),
            quiet_until: Instant::ZERO,
        }
    }

    /// The newest beat of ours that it acknowledged in its present boot.
    pub fn echo(&self) -> u64 {
        self.said.map_or(0, |said| said.echo)
    }

    /// Whether it was heard within `span`.
    pub fn heard_within(&self, now: Instant, span: Duration) -> bool {
        self.said.is_some() && now - self.heard_at < span
    }

    /// The peer's ports from which beats came within `span`, a bit each.
    pub fn hears(&self, now: Instant, span: Duration) -> u16 {
        self.heard_from
            .iter()
            .enumerate()
            .fold(0, |bits, (port, at)| bits | u16::from(*at != Instant::ZERO && now - *at < span) << port)
    }

    /// Forgets all that was said by an earlier boot.
    pub fn forget_boot(&mut self) {
        self.said = None;
        self.heard_at = Instant::ZERO;
        self.stale_echoes = 0;
        self.fenced = None;
        self.heard_by = [Instant::ZERO; PORTS_MAX];
        self.heard_from = [Instant::ZERO; PORTS_MAX];
        self.forget_sync();
    }

    /// Forgets how far it got.
    pub fn forget_sync(&mut self) {
        self.synced = [None; WORKERS_MAX];
        self.overdue = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_beat_is_remembered_for_a_while() {
        let mut sent = SentBeats::new();
        assert_eq!(sent.at(0), None);
        for millis in 1..=100 {
            assert_eq!(sent.next(Instant::from_millis(millis)), millis);
        }
        assert_eq!(sent.at(100), Some(Instant::from_millis(100)));
        assert_eq!(sent.at(37), Some(Instant::from_millis(37)));
        assert_eq!((sent.at(36), sent.at(101), sent.at(0)), (None, None, None));
    }
}
