//! What becomes of a connection key: its states, and what signals, packets and time do to them (REQ D3, D7, D8).
//!
//! | state | in words | ends |
//! |---|---|---|
//! | absent | nothing is known: packets go by their hash | |
//! | chosen | a distributor chose or learned it, its traffic manager has not spoken yet | by time, used or not |
//! | held | its traffic manager says when it ends | never by itself |
//! | idle | it ends by not being used | when it was not used for its time |
//! | expected | a packet that fits is awaited | by that packet, or by time |
//! | closing | both ends closed | by time, used or not |
//! | ignored | packets with it go by their hash and change nothing | when it was aged: by time |

use core::fmt;

use crate::base::memory::Plain;
use crate::distributor::signal::{Lifetime, What};

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Plain)]
#[repr(u8)]
pub enum State {
    /// Nothing is known of it.
    Absent = 0,
    /// See [`Lifetime::Chosen`].
    Chosen = 1,
    /// See [`Lifetime::Held`].
    Held = 2,
    /// See [`Lifetime::Idle`].
    Idle = 3,
    /// See [`Lifetime::Once`].
    Expected = 4,
    /// See [`What::Age`].
    Closing = 5,
    /// See [`What::Ignore`].
    Ignored = 6,
}

/// What a signal does besides a new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// Shard, sides and lifetime are the signal's from now on; a key that was absent needs a place.
    Keep,
    /// Two distributors chose: the lower shard stands, so that all of them end alike, and the time begins anew.
    Contend,
    /// It counts as used now.
    Refresh,
    /// It ends [`KEY_CLOSING_TIMEOUT`](crate::base::limits::KEY_CLOSING_TIMEOUT) from now, if not sooner.
    Close,
    /// Its place is free.
    Remove,
    /// The other distributors are told what is known.
    Tell,
}

/// What a packet with the key does besides a new state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Nothing: it goes by its hash or a less specific key.
    Nothing,
    /// It goes to the shard.
    Follow,
    /// It goes to the shard, and the key counts as used now.
    Refresh,
    /// It goes to the shard, and its full key takes this one's place.
    Learn,
    /// It goes by its hash, whatever less specific keys say.
    PassOver,
}

impl State {
    /// Every state.
    pub const ALL: [State; 7] = [
        State::Absent,
        State::Chosen,
        State::Held,
        State::Idle,
        State::Expected,
        State::Closing,
        State::Ignored,
    ];

    /// What a signal does. Whether it is of an owner before ([`What::Forget`], [`What::Age`], [`What::Used`]) has been
    /// asked.
    #[must_use]
    pub const fn on(self, what: What) -> (State, Action) {
        use Action::{Close, Keep, Nothing, Refresh, Remove, Tell};
        use State::{Absent, Chosen, Closing, Expected, Held, Idle, Ignored};
        match what {
            What::Memorize(Lifetime::Chosen) => self.on_choice(),
            // A traffic manager's latest word stands, whatever was before.
            What::Memorize(Lifetime::Held) => (Held, Keep),
            What::Memorize(Lifetime::Idle(_)) => (Idle, Keep),
            What::Memorize(Lifetime::Once(_)) => (Expected, Keep),
            What::Ignore => (Ignored, Keep),
            What::Forget => match self {
                Absent => (Absent, Nothing),
                Chosen | Held | Idle | Expected | Closing | Ignored => (Absent, Remove),
            },
            What::Age => match self {
                Absent => (Absent, Nothing),
                Chosen | Held | Idle => (Closing, Close),
                // What is awaited may still come, for that time.
                Expected => (Expected, Close),
                Ignored => (Ignored, Close),
                // Its time runs already: said again, it is no longer.
                Closing => (Closing, Nothing),
            },
            What::Mirror => match self {
                Absent => (Absent, Nothing),
                Chosen | Held | Idle | Expected | Closing | Ignored => (self, Tell),
            },
            What::Used => match self {
                Held | Idle => (self, Refresh),
                // Use does not prolong these; and one that is gone is not revived, since it may have been forgotten.
                Absent | Chosen | Expected | Closing | Ignored => (self, Nothing),
            },
        }
    }

    /// What a distributor's choice does: nothing to what a traffic manager said.
    const fn on_choice(self) -> (State, Action) {
        match self {
            // The connection that closed is over where the choice was made.
            State::Absent | State::Closing => (State::Chosen, Action::Keep),
            State::Chosen => (State::Chosen, Action::Contend),
            State::Held | State::Idle | State::Expected | State::Ignored => (self, Action::Nothing),
        }
    }

    /// What a packet does that fits the key.
    #[must_use]
    pub const fn on_packet(self) -> (State, Use) {
        match self {
            State::Absent => (self, Use::Nothing),
            State::Chosen | State::Closing => (self, Use::Follow),
            State::Held | State::Idle => (self, Use::Refresh),
            State::Expected => (State::Absent, Use::Learn),
            State::Ignored => (self, Use::PassOver),
        }
    }

    /// What its time does, once it is over.
    #[must_use]
    pub const fn on_time_out(self) -> (State, Action) {
        match self {
            // They have no time: held is held.
            State::Absent | State::Held => (self, Action::Nothing),
            State::Chosen | State::Idle | State::Expected | State::Closing | State::Ignored => {
                (State::Absent, Action::Remove)
            }
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Absent => "absent",
            State::Chosen => "chosen",
            State::Held => "held",
            State::Idle => "idle",
            State::Expected => "expected",
            State::Closing => "closing",
            State::Ignored => "ignored",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Duration;

    const SPAN: Duration = Duration::from_secs(1);

    /// Rows: states in their order. Columns: [`SIGNALS`] in theirs, then a packet, then the end of its time.
    const TABLE: &str = "
        absent   | chosen Keep      | held Keep | idle Keep | expected Keep | absent Nothing | absent Nothing  | ignored Keep | absent Nothing | absent Nothing   | absent Nothing   | absent Nothing
        chosen   | chosen Contend   | held Keep | idle Keep | expected Keep | absent Remove  | closing Close   | ignored Keep | chosen Tell    | chosen Nothing   | chosen Follow    | absent Remove
        held     | held Nothing     | held Keep | idle Keep | expected Keep | absent Remove  | closing Close   | ignored Keep | held Tell      | held Refresh     | held Refresh     | held Nothing
        idle     | idle Nothing     | held Keep | idle Keep | expected Keep | absent Remove  | closing Close   | ignored Keep | idle Tell      | idle Refresh     | idle Refresh     | absent Remove
        expected | expected Nothing | held Keep | idle Keep | expected Keep | absent Remove  | expected Close  | ignored Keep | expected Tell  | expected Nothing | absent Learn     | absent Remove
        closing  | chosen Keep      | held Keep | idle Keep | expected Keep | absent Remove  | closing Nothing | ignored Keep | closing Tell   | closing Nothing  | closing Follow   | absent Remove
        ignored  | ignored Nothing  | held Keep | idle Keep | expected Keep | absent Remove  | ignored Close   | ignored Keep | ignored Tell   | ignored Nothing  | ignored PassOver | absent Remove";

    const SIGNALS: [What; 9] = [
        What::Memorize(Lifetime::Chosen),
        What::Memorize(Lifetime::Held),
        What::Memorize(Lifetime::Idle(SPAN)),
        What::Memorize(Lifetime::Once(SPAN)),
        What::Forget,
        What::Age,
        What::Ignore,
        What::Mirror,
        What::Used,
    ];

    #[test]
    fn every_state_meets_every_signal_a_packet_and_its_end() {
        let rows: Vec<&str> = TABLE.lines().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(rows.len(), State::ALL.len());
        for (state, row) in State::ALL.into_iter().zip(rows) {
            let mut cells = row.split('|').map(str::trim);
            assert_eq!(cells.next(), Some(state.to_string().as_str()));
            for what in SIGNALS {
                let (next, action) = state.on(what);
                assert_eq!(Some(format!("{next} {action:?}").as_str()), cells.next(), "{state} on {what:?}");
            }
            let (next, used) = state.on_packet();
            assert_eq!(Some(format!("{next} {used:?}").as_str()), cells.next(), "{state} on a packet");
            let (next, action) = state.on_time_out();
            assert_eq!(Some(format!("{next} {action:?}").as_str()), cells.next(), "{state} on its end");
            assert_eq!(cells.next(), None);
        }
    }

    #[test]
    fn whatever_is_forgotten_is_absent() {
        assert!(State::ALL.into_iter().all(|state| state.on(What::Forget).0 == State::Absent));
    }
}
