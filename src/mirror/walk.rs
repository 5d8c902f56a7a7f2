//! The walk that brings a peer up to date: over the whole table when it comes (REQ A9, B5), and again over those shards
//! of which its digest differed.
//!
//! The first walk goes over the table several times, and names the busiest flows first (REQ A9): a packet's flow was seen
//! lately if it has many of them, so flows are told apart by how long they have been idle, in steps of ten. The last time it
//! names whatever is left: so an idle flow waits for the others once, and no longer.
//!
//! A walk names flows, waits until each is acknowledged, and then says its end, with the shards that it was about. The
//! first one of a beginning is known by its number, which every frame carries. A later one says [`WalkBegin`] before, and waits
//! until that is acknowledged: so whatever the peer takes in from then on was named after.
//!
//! [`WalkBegin`]: super::record::Record::WalkBegin

use crate::base::ids::ShardId;
use crate::flow::shard::ShardSet;
use crate::mirror::in_flight::Fate;

/// How far the walk over the table has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// That shards are walked again is to be said.
    BeginDue,
    /// It was said and not acknowledged.
    BeginSent,
    /// Flows below this place were named.
    At(u32),
    /// All were named; some are not acknowledged.
    Named,
    /// All are acknowledged; the end of the walk is to be said.
    EndDue,
    /// The end was said and not acknowledged.
    EndSent,
    /// The peer knows every flow.
    Done,
}

/// A flow is named in the first turn of which it has not been idle for more ticks of
/// [`last_seen`](crate::flow::aging::TICK): two tenths of a second, a second, ten. In the turn after them all are named.
const IDLE_MAX: [u32; 3] = [1, 10, 100];

/// What a walk has to say next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// That it begins again.
    Begin,
    /// Flows, from this place on.
    Flows(u32),
    /// That it is over.
    End,
    /// Nothing, for now.
    Nothing,
}

/// The walk of one stream.
pub struct Walk {
    state: State,
    /// What it is about.
    shards: ShardSet,
    /// Whether flows are named that the peer knows.
    again: bool,
    /// How often it went over the table before.
    turn: usize,
    /// These are to be walked again after it.
    wanted: ShardSet,
    /// Flows that were named and not acknowledged.
    outstanding: u32,
    /// How often it began again.
    round: u8,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk {
            state: State::Done,
            shards: ShardSet::default(),
            again: false,
            turn: 0,
            wanted: ShardSet::default(),
            outstanding: 0,
            round: 0,
        }
    }
}

impl Walk {
    /// The first one of a beginning. Of no shard there is nothing to name, and no end to say.
    pub fn begin(&mut self, shards: ShardSet) {
        let state = if shards.is_empty() { State::Done } else { State::At(0) };
        *self = Walk { state, shards, ..Walk::default() };
    }

    /// Every flow of this shard is to be named again.
    pub fn again(&mut self, shard: ShardId) {
        self.wanted.set(shard, true);
        self.begin_again();
    }

    /// Another worker tells of this shard.
    pub fn leave_out(&mut self, shard: ShardId) {
        self.shards.set(shard, false);
        self.wanted.set(shard, false);
    }

    fn begin_again(&mut self) {
        if self.state == State::Done && !self.wanted.is_empty() {
            self.state = State::BeginDue;
            self.shards = core::mem::take(&mut self.wanted);
            self.again = true;
            // What it named and the peer has acknowledged carries no mark: it would be named in every turn.
            self.turn = IDLE_MAX.len();
        }
    }

    /// Flows that were idle for more ticks are named in a later turn; `None`: all are named.
    pub fn idle_max(&self) -> Option<u32> {
        IDLE_MAX.get(self.turn).copied()
    }

    /// Whether the peer knows every flow, and has acknowledged the end.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What is named now counts for this walk; what was named in another round, before the peer knew that it is walked again,
    /// does not.
    pub fn round(&self) -> u8 {
        self.round
    }

    /// What it is about, if it is not done.
    pub fn left(&self) -> usize {
        if self.is_done() { 0 } else { self.shards.len() }
    }

    /// What it has to say.
    pub fn due(&self) -> Due {
        match self.state {
            State::BeginDue => Due::Begin,
            State::At(from) => Due::Flows(from),
            State::EndDue => Due::End,
            State::BeginSent | State::Named | State::EndSent | State::Done => Due::Nothing,
        }
    }

    /// What it is about.
    pub fn shards(&self) -> &ShardSet {
        &self.shards
    }

    /// Whether it names flows that the peer knows.
    pub fn is_again(&self) -> bool {
        self.again
    }

    /// Its begin was said.
    pub fn begin_said(&mut self) {
        self.state = State::BeginSent;
    }

    /// Flows below this place were named, or are none of its shards'.
    pub fn looked(&mut self, below: u32) {
        self.state = State::At(below);
    }

    /// A flow was named.
    pub fn named(&mut self) {
        self.outstanding += 1;
    }

    /// It has come to the table's end.
    pub fn turn_over(&mut self) {
        self.state = match (self.turn < IDLE_MAX.len(), self.outstanding) {
            (true, _) => State::At(0),
            (false, 0) => State::EndDue,
            (false, _) => State::Named,
        };
        self.turn += 1;
    }

    /// A flow that was named is known, or refused, or gone.
    pub fn settled(&mut self) {
        self.outstanding -= 1;
        if self.outstanding == 0 && self.state == State::Named {
            self.state = State::EndDue;
        }
    }

    /// Its end was said.
    pub fn end_said(&mut self) {
        self.state = State::EndSent;
    }

    /// What became of its begin.
    pub fn begin_settled(&mut self, fate: Fate) {
        if self.state == State::BeginSent {
            self.round = self.round.wrapping_add(1);
            self.state = match fate {
                Fate::Applied => State::At(0),
                Fate::Lost => State::BeginDue,
                // It is asked again, and answers again.
                Fate::Refused => State::Done,
            };
            self.begin_again();
        }
    }

    /// What became of its end; the shards of which all was told, if it is over.
    pub fn end_settled(&mut self, fate: Fate) -> Option<ShardSet> {
        if self.state != State::EndSent {
            return None;
        }
        self.state = if fate == Fate::Applied { State::Done } else { State::EndDue };
        let over = self.is_done().then_some(self.shards);
        self.begin_again();
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(ids: &[u16]) -> ShardSet {
        ids.iter().map(|id| ShardId(*id)).collect()
    }

    #[test]
    fn a_walk_names_and_waits_and_ends_and_goes_again_over_what_differed_meanwhile() {
        let mut walk = Walk::default();
        assert!(walk.is_done());
        walk.begin(shards(&[1, 2]));
        assert_eq!((walk.due(), walk.left(), walk.is_again()), (Due::Flows(0), 2, false));
        walk.named();
        walk.again(ShardId(2));
        walk.looked(5);
        assert_eq!(walk.due(), Due::Flows(5));
        for idle_max in IDLE_MAX {
            assert_eq!(walk.idle_max(), Some(idle_max));
            walk.turn_over();
            assert_eq!(walk.due(), Due::Flows(0), "those that were idle for longer");
        }
        assert_eq!(walk.idle_max(), None);
        walk.turn_over();
        assert_eq!(walk.due(), Due::Nothing, "one is not acknowledged");
        walk.settled();
        assert_eq!(walk.due(), Due::End);
        walk.end_said();
        assert_eq!(walk.end_settled(Fate::Lost), None);
        assert_eq!(walk.due(), Due::End);
        walk.end_said();
        assert_eq!(walk.end_settled(Fate::Applied), Some(shards(&[1, 2])));
        assert_eq!((walk.due(), *walk.shards(), walk.is_again()), (Due::Begin, shards(&[2]), true));
        walk.begin_said();
        assert_eq!(walk.due(), Due::Nothing, "nothing is named before the begin is acknowledged");
        walk.begin_settled(Fate::Lost);
        assert_eq!(walk.due(), Due::Begin);
        walk.begin_said();
        walk.begin_settled(Fate::Applied);
        assert_eq!((walk.due(), walk.idle_max()), (Due::Flows(0), None));
        walk.turn_over();
        walk.end_said();
        walk.end_settled(Fate::Applied);
        assert!(walk.is_done() && walk.left() == 0);
    }

    #[test]
    fn of_no_shard_there_is_nothing_to_walk() {
        let mut walk = Walk::default();
        walk.begin(shards(&[]));
        assert!(walk.is_done());
        walk.again(ShardId(4));
        walk.begin_said();
        walk.begin_settled(Fate::Refused);
        assert!(walk.is_done());
    }
}
