//! What is heard in a peer's name and not believed: counted for each peer, told to the operator, and nothing else done.
//!
//! Anyone on a LAN can send such frames, so each reason is told of once in ten seconds for each peer, and a few frames that
//! come twice are nobody's doing: a network doubles some.

use core::fmt;

use serde::Serialize;

use super::Failover;
use super::event::FailoverEvent;
use crate::base::counters::Counter;
use crate::base::ids::{NodeId, PortId};
use crate::base::time::{Duration, Instant};
use crate::seal::Distrust;

/// Between two events of one kind that strangers can cause.
pub(super) const QUIET: Duration = Duration::from_secs(10);

/// What was under way when a session began has come by then.
const SESSION_SETTLES: Duration = Duration::from_secs(1);

/// So many frames that come again in ten seconds are taken for the network's doing.
const DOUBLED_MAX: u64 = 20;

/// How often something was not believed.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    since: Instant,
    count: u64,
    told: bool,
}

/// What was heard in a peer's name and not believed, since the start.
#[derive(Clone, Debug, Default)]
pub struct Disbelieved {
    /// Of what came by a port, and of what came on the mirror's streams or by whichever.
    tallies: [[Tally; 2]; Distrust::ALL.len()],
    /// What came on the mirror's streams and waits to be judged, and since when.
    unjudged: [Option<(Instant, u64)>; Distrust::ALL.len()],
    count: u64,
    newest: Option<(FailoverEvent, Instant)>,
}

/// The same, for the operator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DisbelievedStatus {
    /// The newest reason, as it was told.
    pub newest: FailoverEvent,
    /// Microseconds since something was last not believed for it.
    pub ago_us: u64,
    /// How many frames were not believed since the start, for any reason.
    pub count: u64,
}

impl Disbelieved {
    /// So many frames were not believed, for the reason that an event names.
    pub fn note(&mut self, now: Instant, count: u64, event: FailoverEvent) {
        self.count += count;
        self.newest = Some((event, now));
    }

    /// So many frames came on the mirror's streams, and are judged later.
    fn put_off(&mut self, now: Instant, count: u64, what: Distrust) {
        self.unjudged[what.index()].get_or_insert((now, 0)).1 += count;
    }

    /// What waited long enough to be judged. A session that began meanwhile explains it.
    fn ripe(&mut self, now: Instant, began: Option<Instant>, what: Distrust) -> Option<u64> {
        let unjudged = &mut self.unjudged[what.index()];
        let (since, count) = (*unjudged)?;
        if began.is_none_or(|began| began >= since) {
            *unjudged = None;
            self.count += count;
            return None;
        }
        (now - since >= SESSION_SETTLES).then(|| *unjudged = None).map(|()| count)
    }

    /// So many frames came that are not believed; whether that is to be told.
    fn take(
        &mut self,
        now: Instant,
        count: u64,
        what: Distrust,
        by: Option<PortId>,
        event: &FailoverEvent,
    ) -> bool {
        let tally = &mut self.tallies[what.index()][usize::from(by.is_none())];
        if now - tally.since >= QUIET {
            *tally = Tally { since: now, count: 0, told: false };
        }
        tally.count += count;
        let tolerated = match what {
            Distrust::Replayed => DOUBLED_MAX,
            Distrust::Forged
            | Distrust::EarlierSession
            | Distrust::OldTerm
            | Distrust::KeyGone
            | Distrust::OtherKey => 0,
        };
        if tally.count <= tolerated {
            self.count += count;
            return false;
        }
        let is_news = !core::mem::replace(&mut tally.told, true);
        self.note(now, count, event.clone());
        is_news
    }

    /// For the operator; `None`: nothing that is worth a word.
    pub fn status(&self, now: Instant) -> Option<DisbelievedStatus> {
        let (newest, at) = self.newest.clone()?;
        Some(DisbelievedStatus { newest, ago_us: (now - at).micros(), count: self.count })
    }
}

/// Such an event in words.
pub(super) fn tell(
    f: &mut fmt::Formatter<'_>,
    node: NodeId,
    what: Distrust,
    by: Option<PortId>,
) -> fmt::Result {
    let why = match what {
        Distrust::OldTerm => return write!(f, "node {node} claims to lead in a term that is over"),
        Distrust::KeyGone => {
            return write!(
                f,
                "the session with node {node} was agreed with a key that is gone, and it proves no other: a new one begins"
            );
        }
        Distrust::OtherKey => {
            return write!(
                f,
                "node {node} proves a key that is not accepted here: the session goes on, but no new one can be agreed with that key"
            );
        }
        Distrust::Forged => "not sealed with the session's key, or changed on their way",
        Distrust::Replayed => {
            "accepted before, or too late to tell: somebody sends them again, or the network held them back"
        }
        Distrust::EarlierSession => "of a session that is over: somebody sends them again",
    };
    match by {
        Some(port) => write!(f, "frames at port {port} in the name of node {node} are refused: {why}"),
        None => write!(f, "mirror frames in the name of node {node} are refused: {why}"),
    }
}

impl Failover {
    /// So many frames in the name of a peer were not believed. `by`: by which port they came; `None`: whichever it was.
    pub(super) fn disbelieve(
        &mut self,
        now: Instant,
        peer_at: usize,
        what: Distrust,
        by: Option<PortId>,
        count: u64,
    ) {
        let peer = &mut self.peers[peer_at];
        if what == Distrust::EarlierSession && (!peer.open || now - peer.opened_at < SESSION_SETTLES) {
            // Until both know of a session, one speaks under the one before.
            return;
        }
        let event = FailoverEvent::Disbelieved { node: peer.node, what, by };
        if peer.disbelieved.take(now, count, what, by, &event) {
            self.event(event);
        }
    }

    /// A liveness frame of a peer was dropped for the reason that this counts.
    pub(super) fn disbelieve_for(&mut self, now: Instant, peer_at: usize, port: PortId, reason: Counter) {
        let what = match reason {
            Counter::LivenessForged => Distrust::Forged,
            Counter::LivenessReplayed | Counter::LivenessTooOld => Distrust::Replayed,
            Counter::LivenessUnknownSession => Distrust::EarlierSession,
            // Told of where they were found.
            Counter::HandshakeForged => return self.peers[peer_at].disbelieved.count += 1,
            _ => return, // Nothing to tell of.
        };
        self.disbelieve(now, peer_at, what, Some(port), 1);
    }

    /// A worker dropped mirror frames of a peer. A frame names its process and no session, so both sides' change from one to
    /// another makes good frames look forged or sent again: it is judged when that is out of the question.
    pub(super) fn handle_disbelieved(&mut self, now: Instant, node: NodeId, what: Distrust, count: u64) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == node)
            && peer.open
            && now - peer.opened_at >= SESSION_SETTLES
        {
            peer.disbelieved.put_off(now, count, what);
        }
    }

    /// Judges what workers dropped.
    pub(super) fn judge_disbelieved(&mut self, now: Instant) {
        for at in 0..self.peers.len() {
            for what in Distrust::ALL {
                let peer = &mut self.peers[at];
                let began = peer.open.then_some(peer.opened_at);
                if let Some(count) = peer.disbelieved.ripe(now, began, what) {
                    self.disbelieve(now, at, what, None, count);
                }
            }
        }
    }

    /// An event about a peer that is not believed, which is told of by its own rules.
    pub(super) fn tell_disbelieved(&mut self, now: Instant, node: NodeId, event: FailoverEvent) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == node) {
            peer.disbelieved.note(now, 0, event.clone());
        }
        self.event(event);
    }
}
