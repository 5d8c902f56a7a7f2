//! The walk that brings a peer up to date: over the whole table when it comes (REQ A9, B5), and again over those shards
//! of which its digest differed.
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
    /// These are to be walked again after it.
    wanted: ShardSet,
    /// Flows that were named and not acknowledged.
    outstanding: u32,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk {
            state: State::Done,
            shards: ShardSet::default(),
            again: false,
            wanted: ShardSet::default(),
            outstanding: 0,
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
        }
    }

    /// Whether the peer knows every flow, and has acknowledged the end.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
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
    pub fn all_named(&mut self) {
        self.state = if self.outstanding == 0 { State::EndDue } else { State::Named };
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
            self.state = match fate {
                Fate::Applied => State::At(0),
                Fate::Lost => State::BeginDue,
                // It is asked again, and answers again.
                Fate::Refused => State::Done,
            };
            self.begin_again();
        }
    }

    /// What became of its end.
    pub fn end_settled(&mut self, fate: Fate) {
        if self.state == State::EndSent {
            self.state = if fate == Fate::Applied { State::Done } else { State::EndDue };
            self.begin_again();
        }
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
        walk.all_named();
        assert_eq!(walk.due(), Due::Nothing, "one is not acknowledged");
        walk.settled();
        assert_eq!(walk.due(), Due::End);
        walk.end_said();
        walk.end_settled(Fate::Lost);
        assert_eq!(walk.due(), Due::End);
        walk.end_said();
        walk.end_settled(Fate::Applied);
        assert_eq!((walk.due(), *walk.shards(), walk.is_again()), (Due::Begin, shards(&[2]), true));
        walk.begin_said();
        assert_eq!(walk.due(), Due::Nothing, "nothing is named before the begin is acknowledged");
        walk.begin_settled(Fate::Lost);
        assert_eq!(walk.due(), Due::Begin);
        walk.begin_said();
        walk.begin_settled(Fate::Applied);
        assert_eq!(walk.due(), Due::Flows(0));
        walk.all_named();
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
