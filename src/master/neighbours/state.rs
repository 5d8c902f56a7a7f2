//! The states of a neighbour's entry (RFC 4861 section 7.3.2), used for ARP alike.

/// Multicast solicitations of a neighbour of which nothing is known (RFC 4861 section 10).
pub const MULTICAST_SOLICITATIONS: u8 = 3;
/// Unicast solicitations of one whose address is to be proven (RFC 4861 section 10).
pub const UNICAST_SOLICITATIONS: u8 = 3;

/// What is known of a neighbour's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing: it is being asked for, for so many times.
    Incomplete {
        /// Solicitations sent.
        tries: u8,
    },
    /// It answered us.
    Reachable,
    /// It was heard, but did not answer us.
    Stale,
    /// It is believed, and being asked to prove itself, for so many times: first
    /// by unicast, then by multicast.
    Probe {
        /// Solicitations sent.
        tries: u8,
    },
    /// It did not answer, and rests.
    Failed,
}

/// What can happen to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody has packets for it.
    Needed,
    /// It answered our solicitation.
    Confirmed,
    /// Its address was heard, as it is known.
    HeardSame,
    /// Its address was heard, and is a new one.
    HeardNew,
    /// Somebody else claims to be it, without claiming to override.
    Doubted,
    /// Its time is over.
    Due,
    /// Its time is over, and nobody asked for it since it failed.
    DueUnwanted,
}

impl Event {
    /// Whether it starts the time of a state anew that it does not change.
    pub const fn restarts(self) -> bool {
        matches!(self, Event::Confirmed | Event::HeardNew | Event::Due)
    }
}

impl State {
    /// The state after an event; `None`: the entry is forgotten.
    pub fn after(self, event: Event) -> Option<State> {
        const ALL: u8 = UNICAST_SOLICITATIONS + MULTICAST_SOLICITATIONS;
        Some(match (self, event) {
            // RFC 4861 section 7.2.5: an answer to us makes it reachable, whatever was known.
            (
                State::Incomplete { .. }
                | State::Reachable
                | State::Stale
                | State::Probe { .. }
                | State::Failed,
                Event::Confirmed,
            ) => State::Reachable,
            // ... and an address that was not asked for makes it stale.
            (
                State::Incomplete { .. }
                | State::Reachable
                | State::Stale
                | State::Probe { .. }
                | State::Failed,
                Event::HeardNew,
            ) => State::Stale,

            (State::Incomplete { tries }, Event::Needed | Event::Doubted) => State::Incomplete { tries },
            (State::Incomplete { .. }, Event::HeardSame) => State::Stale,
            (State::Incomplete { tries }, Event::Due | Event::DueUnwanted)
                if tries < MULTICAST_SOLICITATIONS =>
            {
                State::Incomplete { tries: tries + 1 }
            }
            (State::Incomplete { .. }, Event::Due | Event::DueUnwanted) => State::Failed,

            (State::Reachable, Event::Needed | Event::HeardSame) => State::Reachable,
            (State::Reachable, Event::Doubted) => State::Stale,
            (State::Reachable, Event::Due | Event::DueUnwanted) => State::Probe { tries: 1 },

            (State::Stale, Event::Needed | Event::HeardSame | Event::Doubted) => State::Stale,
            (State::Stale, Event::Due | Event::DueUnwanted) => State::Probe { tries: 1 },

            (State::Probe { tries }, Event::Needed | Event::HeardSame | Event::Doubted) => {
                State::Probe { tries }
            }
            (State::Probe { tries }, Event::Due | Event::DueUnwanted) if tries < ALL => {
                State::Probe { tries: tries + 1 }
            }
            (State::Probe { .. }, Event::Due | Event::DueUnwanted) => State::Failed,

            (State::Failed, Event::Needed | Event::Doubted) => State::Failed,
            (State::Failed, Event::HeardSame) => State::Stale,
            (State::Failed, Event::Due) => State::Incomplete { tries: 1 },
            (State::Failed, Event::DueUnwanted) => return None,
        })
    }

    /// Whether a solicitation is sent on entering it.
    pub const fn asks(self) -> bool {
        match self {
            State::Incomplete { .. } | State::Probe { .. } => true,
            State::Reachable | State::Stale | State::Failed => false,
        }
    }

    /// Whether solicitations go to the neighbour alone.
    pub const fn asks_the_neighbour_itself(self) -> bool {
        match self {
            State::Probe { tries } => tries <= UNICAST_SOLICITATIONS,
            State::Incomplete { .. } | State::Reachable | State::Stale | State::Failed => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 9] = [
        State::Incomplete { tries: 1 },
        State::Incomplete { tries: 3 },
        State::Reachable,
        State::Stale,
        State::Probe { tries: 1 },
        State::Probe { tries: 3 },
        State::Probe { tries: 5 },
        State::Probe { tries: 6 },
        State::Failed,
    ];
    const EVENTS: [Event; 7] = [
        Event::Needed,
        Event::Confirmed,
        Event::HeardSame,
        Event::HeardNew,
        Event::Doubted,
        Event::Due,
        Event::DueUnwanted,
    ];

    fn name(state: Option<State>) -> String {
        match state {
            None => "gone".into(),
            Some(State::Incomplete { tries }) => format!("inc{tries}"),
            Some(State::Reachable) => "reach".into(),
            Some(State::Stale) => "stale".into(),
            Some(State::Probe { tries }) => format!("prb{tries}"),
            Some(State::Failed) => "fail".into(),
        }
    }

    #[test]
    fn every_state_meets_every_event_as_the_table_says() {
        // Columns: needed, confirmed, heard same, heard new, doubted, due, due and unwanted.
        let expected = "\
inc1: inc1 reach stale stale inc1 inc2 inc2
inc3: inc3 reach stale stale inc3 fail fail
reach: reach reach reach stale stale prb1 prb1
stale: stale reach stale stale stale prb1 prb1
prb1: prb1 reach prb1 stale prb1 prb2 prb2
prb3: prb3 reach prb3 stale prb3 prb4 prb4
prb5: prb5 reach prb5 stale prb5 prb6 prb6
prb6: prb6 reach prb6 stale prb6 fail fail
fail: fail reach stale stale fail inc1 gone";
        let row = |state: State| {
            let cells: Vec<_> = EVENTS.iter().map(|event| name(state.after(*event))).collect();
            format!("{}: {}", name(Some(state)), cells.join(" "))
        };
        let table: Vec<_> = STATES.iter().map(|state| row(*state)).collect();
        assert_eq!(table.join("\n"), expected);
    }
}
