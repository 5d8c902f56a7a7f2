//! Maintenance checkpoints without acknowledgements (REQ B5, B6), where the configuration says `checkpoints = "periodic"`.
//!
//! A peer is brought in as ever, new flows and ends are acknowledged as ever. But how far a connection has come that the
//! peer knows by its handle is said in frames that ask for no acknowledgement, when it changes; and of all such flows it is said again and
//! again, in rounds: what was in a lost frame comes again. Whatever comes late does no harm, since it makes no flow: newest wins, and a handle
//! of a flow that is gone says nothing. A round names what has taken no step, too: it is a sign of life of each flow. A checkpoint that rides in a frame with something else is acknowledged with it. A peer that
//! does not know a handle says so of it ([`Record::Unbound`](super::record::Record::Unbound)), and is told in full.
//!
//! Digests are the health monitor. A shard that is found to differ is asked about again: a frame may have been lost. If it differs for longer than
//! [`patience`], it is walked again, acknowledged; and if that comes to nothing, the peer is no longer synchronized.
//!
//! It is how a leader speaks: a receiver takes it however it would speak itself.

use crate::base::ids::Term;
use crate::base::limits::{MAINTAINED_FLOWS_PER_CALL, MAINTAINED_PLACES_PER_CALL};
use crate::base::time::{Duration, Instant};
use crate::flow::flows::Flows;
use crate::flow::layout::Hot;
use crate::flow::shard::ShardSet;
use crate::flow::{FlowIndex, Stamp};
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
    /// Shards that are about to go to another worker, which waits until nothing of them is on its way: it tells of them in full.
    leaving: ShardSet,
    /// The term under which this appliance began to lead.
    leads_since: Term,
    /// So many places are left of the first round of a later term: what changed before is said in it, too.
    catching_up: u32,
    /// That round has not begun.
    is_of_later_term: bool,
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

    /// Rounds pass over these shards from now on: they are about to go to another worker. Of none, they pass over nothing.
    pub fn pass_over(&mut self, shards: ShardSet) {
        self.round.leaving = shards;
    }

    /// This appliance leads under this term from now on; it began to, or led before.
    pub(super) fn maintains_since(&mut self, term: Term, began: bool) {
        if began {
            self.round.leads_since = term;
        } else if term != self.standing.term {
            self.round.is_of_later_term = true;
        }
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
        if core::mem::take(&mut self.round.is_of_later_term) {
            self.round.catching_up = self.round.end;
        }
        let mut looks = MAINTAINED_FLOWS_PER_CALL;
        // A place is passed when it can be said to all.
        while self.round.at < until && looks > 0 && self.walk_tokens as usize >= self.peers.len() {
            let place = FlowIndex(self.round.at);
            self.round.at += 1;
            let since = if self.round.catching_up > 0 { self.round.leads_since } else { self.standing.term };
            self.round.catching_up = self.round.catching_up.saturating_sub(1);
            let leaving = &self.round.leaving;
            let Some(shard) = self.digests.shard_at(place).filter(|shard| !leaving.has(*shard)) else {
                continue;
            };
            for peer in &mut self.peers {
                let Some(stream) = stream_of(peer, shard).filter(|stream| stream.sync.is_maintained(place))
                else {
                    continue;
                };
                looks = looks.saturating_sub(1);
                // What did not change since this appliance began to lead was told in full, and acknowledged; so is what changed
                // under an earlier term since then, in the first round of this one.
                let is_new = |stamp: Stamp| stamp.term >= since;
                if flows.table.hot(place).map(Hot::shard) == Some(shard)
                    && flows.table.changed(place).is_some_and(is_new)
                {
                    stream.sync.changed(now, shard, place);
                    self.walk_tokens = self.walk_tokens.saturating_sub(1);
                }
            }
        }
    }
}
