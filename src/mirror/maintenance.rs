//! Maintenance checkpoints without acknowledgements (REQ B5, B6), where the configuration says `checkpoints = "periodic"`.
//!
//! A peer is brought in as ever, new flows and ends are acknowledged as ever. But how far a connection has come that the
//! peer knows by its handle is said in frames that ask for no acknowledgement, when it changes; and of all such flows it is said again and
//! again, in rounds: what was in a lost frame comes again. Whatever comes late does no harm, since it makes no flow: newest wins, and a handle
//! of a flow that is gone says nothing. A checkpoint that rides in a frame with something else is acknowledged with it. A peer that
//! does not know a handle says so of it ([`Record::Unbound`](super::record::Record::Unbound)), and is told in full.
//!
//! Digests are the health monitor. A shard that is found to differ is asked about again: a frame may have been lost. If it differs for longer than
//! [`patience`], it is walked again, acknowledged; and if that comes to nothing, the peer is no longer synchronized.
//!
//! It is how a leader speaks: a receiver takes it however it would speak itself.

use crate::base::limits::{MAINTAINED_FLOWS_PER_CALL, MAINTAINED_PLACES_PER_CALL};
use crate::base::time::{Duration, Instant};
use crate::flow::FlowIndex;
use crate::flow::flows::Flows;
use crate::flow::layout::Hot;
use crate::mirror::{Mirror, stream_of};

/// A round goes on so often at most.
const STEP: Duration = Duration::from_micros(250);

/// The longest time for which a shard may differ until it is walked again; less where rounds are short.
const PATIENCE_MAX: Duration = Duration::from_secs(2);

/// How long a shard may differ until it is walked again, where a round begins so often.
pub fn patience(every: Duration) -> Duration {
    (every * 2).min(PATIENCE_MAX)
}

/// How far a round over the table is.
#[derive(Default)]
pub(super) struct Round {
    /// It is to take so long; `None`: there are no rounds.
    every: Option<Duration>,
    began: Instant,
    /// The next place, of so many.
    at: u32,
    end: u32,
    stepped: Instant,
    /// The peer is waited for until it has acknowledged all that there is.
    rests: bool,
}

impl Round {
    /// Rounds that take so long each.
    pub(super) fn new(every: Option<Duration>) -> Round {
        Round { every: every.filter(|every| *every > Duration::ZERO), ..Round::default() }
    }

    /// How long a shard may differ.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.every.map(patience)
    }

    /// Up to which place it is to come by now; `None`: it has.
    fn due(&mut self, now: Instant, end: u32) -> Option<u32> {
        let every = self.every.filter(|_| !self.rests && now - self.stepped >= STEP)?;
        self.stepped = now;
        self.end = end;
        if self.at >= end {
            if now - self.began < every {
                return None;
            }
            (self.began, self.at) = (now, 0);
        }
        let part = u128::from(end) * u128::from((now - self.began).nanos()) / u128::from(every.nanos());
        let until = u32::try_from(part).unwrap_or(end).min(end);
        Some(until.min(self.at.saturating_add(MAINTAINED_PLACES_PER_CALL)))
    }

    /// When it is to go on.
    fn next(&self) -> Option<Instant> {
        let every = self.every.filter(|_| !self.rests)?;
        let part = u128::from(every.nanos()) * u128::from(self.at + 1) / u128::from(self.end.max(1));
        let wait = u64::try_from(part).map_or(every, Duration::from_nanos).min(every);
        let next = if self.at >= self.end { every } else { wait };
        Some((self.began + next).max(self.stepped + STEP))
    }
}

impl Mirror {
    /// Rounds rest while a handover waits until a peer has acknowledged all that there is: they would always add something.
    pub fn rest_rounds(&mut self, rests: bool) {
        self.round.rests = rests;
    }

    /// When a round is to go on, if anybody hears it.
    pub(super) fn maintains_at(&self) -> Option<Instant> {
        let is_heard = self.standing.leads && self.peers.iter().any(|peer| !peer.streams.is_empty());
        self.round.next().filter(|_| is_heard)
    }

    /// Has flows said again of which it is time, as far as the rate of walks allows.
    pub(super) fn maintain(&mut self, now: Instant, flows: &Flows) {
        if self.round.every.is_none() || !self.standing.leads {
            return;
        }
        let Some(until) = self.round.due(now, flows.table.places_end().0) else { return };
        let mut looks = MAINTAINED_FLOWS_PER_CALL;
        while self.round.at < until && looks > 0 && self.walk_tokens > 0 {
            let place = FlowIndex(self.round.at);
            self.round.at += 1;
            let Some(shard) = self.digests.shard_at(place) else { continue };
            for peer in &mut self.peers {
                let Some(stream) = stream_of(peer, shard).filter(|stream| stream.sync.is_maintained(place))
                else {
                    continue;
                };
                looks = looks.saturating_sub(1);
                // What did not change under this term was told in full, and acknowledged.
                let is_new = flows.table.hot(place).map(Hot::shard) == Some(shard)
                    && flows.table.changed(place).is_some_and(|stamp| stamp.term == self.standing.term);
                if is_new && self.walk_tokens > 0 {
                    stream.sync.changed(now, shard, place);
                    self.walk_tokens -= 1;
                }
            }
        }
    }
}
