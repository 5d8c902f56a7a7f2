//! What the flags of a flow's segments, in both directions, say of its state.
//!
//! Sequence numbers are not looked at, so a forged or stale flag can shorten a
//! flow's idle time-out but never ends it at once: segments pass in every state,
//! and the end points judge them (RFC 9293, RFC 5961). A usual connection changes four
//! times after its SYN, and of these a peer is told two: only what it would do
//! otherwise after a takeover makes a flow dirty ([`TcpState::is_same_to_peers`]).

use crate::flow::aging::TimeoutClass;
use crate::flow::entry::Direction;

/// The state of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// The client's SYN was seen.
    SynSeen = 1,
    /// The server's SYN-ACK was seen.
    SynAckSeen = 2,
    /// The handshake is complete.
    Established = 3,
    /// The client will send no more.
    FinFromClient = 4,
    /// The server will send no more.
    FinFromServer = 5,
    /// Both sent FIN. Whether the last one arrived only the end points know; the
    /// flow stays for its time-out, as the end points' TIME-WAIT does.
    Closing = 6,
    /// One side reset the connection.
    Closed = 7,
    /// Not TCP: there is no state.
    Datagram = 8,
}

/// A segment, as far as its flags matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// SYN without ACK.
    Syn,
    /// SYN with ACK.
    SynAck,
    /// FIN.
    Fin,
    /// RST, whatever else.
    Reset,
    /// None of these: data or an acknowledgement.
    Plain,
}

/// What a segment does to a flow's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Nothing.
    Unchanged,
    /// The flow has a new state.
    To(TcpState),
    /// The client begins a new connection with the ports of an ended one: the
    /// caller removes the flow and treats the packet as a first one.
    Reopen,
}

impl Segment {
    /// From the flags byte of a TCP header (RFC 9293 section 3.1).
    pub const fn from_flags(flags: u8) -> Segment {
        const FIN: u8 = 0x01;
        const SYN: u8 = 0x02;
        const RST: u8 = 0x04;
        const ACK: u8 = 0x10;
        if flags & RST != 0 {
            Segment::Reset
        } else if flags & SYN != 0 {
            if flags & ACK != 0 { Segment::SynAck } else { Segment::Syn }
        } else if flags & FIN != 0 {
            Segment::Fin
        } else {
            Segment::Plain
        }
    }

    /// Whether a flow may begin with this segment: only with a SYN without ACK. Any
    /// other one without a flow belongs to a connection that is not known here.
    pub const fn may_begin_flow(self) -> bool {
        matches!(self, Segment::Syn)
    }
}

impl TcpState {
    /// Every state.
    pub const ALL: [TcpState; 8] = [
        TcpState::SynSeen,
        TcpState::SynAckSeen,
        TcpState::Established,
        TcpState::FinFromClient,
        TcpState::FinFromServer,
        TcpState::Closing,
        TcpState::Closed,
        TcpState::Datagram,
    ];

    /// From its number in a record; `None`: no state has this number.
    pub fn from_number(number: u8) -> Option<TcpState> {
        TcpState::ALL.into_iter().find(|state| state.number() == number)
    }

    /// Its number in a record.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What a segment of this flow does.
    #[must_use]
    pub const fn on_segment(self, direction: Direction, segment: Segment) -> Transition {
        use Direction::{FromClient, FromServer};
        use Segment::{Fin, Plain, Reset, Syn, SynAck};
        use TcpState::{
            Closed, Closing, Datagram, Established, FinFromClient, FinFromServer, SynAckSeen, SynSeen,
        };
        use Transition::{Reopen, To, Unchanged};
        match (self, direction, segment) {
            (SynSeen, FromServer, SynAck) => To(SynAckSeen),
            // A plain segment of the server is a challenge (RFC 5961 section 4) to a SYN that
            // meets an older connection; one of the client proves nothing without a SYN-ACK.
            (SynSeen, FromClient, Syn | SynAck | Fin | Plain) => Unchanged,
            (SynSeen, FromServer, Syn | Fin | Plain) => Unchanged,

            (SynAckSeen, FromClient, Plain) => To(Established),
            (SynAckSeen, FromClient, Fin) => To(FinFromClient),
            (SynAckSeen, FromServer, Fin) => To(FinFromServer),
            // Resent handshakes; data of a fast-open server (RFC 7413 section 4.2).
            (SynAckSeen, FromClient, Syn | SynAck) => Unchanged,
            (SynAckSeen, FromServer, Syn | SynAck | Plain) => Unchanged,

            (Established, FromClient, Fin) => To(FinFromClient),
            (Established, FromServer, Fin) => To(FinFromServer),
            // A SYN here is answered by a challenge (RFC 5961 section 4), whose answer is a reset.
            (Established, FromClient, Syn | SynAck | Plain) => Unchanged,
            (Established, FromServer, Syn | SynAck | Plain) => Unchanged,

            (FinFromClient, FromServer, Fin) => To(Closing),
            (FinFromClient, FromClient, Syn | SynAck | Fin | Plain) => Unchanged,
            (FinFromClient, FromServer, Syn | SynAck | Plain) => Unchanged,

            (FinFromServer, FromClient, Fin) => To(Closing),
            (FinFromServer, FromClient, Syn | SynAck | Plain) => Unchanged,
            (FinFromServer, FromServer, Syn | SynAck | Fin | Plain) => Unchanged,

            // TIME-WAIT may be cut short by a new SYN (RFC 9293 section 3.6.1).
            (Closing | Closed, FromClient, Syn) => Reopen,
            (Closing | Closed, FromClient, SynAck | Fin | Plain) => Unchanged,
            (Closing | Closed, FromServer, Syn | SynAck | Fin | Plain) => Unchanged,

            (
                SynSeen | SynAckSeen | Established | FinFromClient | FinFromServer | Closing,
                FromClient | FromServer,
                Reset,
            ) => To(Closed),
            (Closed, FromClient | FromServer, Reset) => Unchanged,

            (Datagram, FromClient | FromServer, Syn | SynAck | Fin | Reset | Plain) => Unchanged,
        }
    }

    /// The state after a takeover: what passed between the last record and the
    /// takeover is not known, so a handshake counts as complete (DESIGN "Mirroring").
    #[must_use]
    pub const fn after_takeover(self) -> TcpState {
        match self {
            TcpState::SynSeen | TcpState::SynAckSeen => TcpState::Established,
            TcpState::Established
            | TcpState::FinFromClient
            | TcpState::FinFromServer
            | TcpState::Closing
            | TcpState::Closed
            | TcpState::Datagram => self,
        }
    }

    /// Whether a peer would go on alike with a flow in either state: then it need not hear of the change.
    pub const fn is_same_to_peers(self, other: TcpState) -> bool {
        self.after_takeover().number() == other.after_takeover().number()
    }

    /// Which idle time-out applies. A half-closed connection may be in use for long
    /// (RFC 9293 section 3.6), so aging is accelerated after both FINs (REQ D8).
    pub const fn timeout_class(self) -> TimeoutClass {
        match self {
            TcpState::SynSeen | TcpState::SynAckSeen => TimeoutClass::Handshake,
            TcpState::Established | TcpState::FinFromClient | TcpState::FinFromServer => {
                TimeoutClass::Established
            }
            TcpState::Closing | TcpState::Closed => TimeoutClass::Closing,
            TcpState::Datagram => TimeoutClass::Datagram,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{FromClient, FromServer};
    use Segment::{Fin, Plain, Reset, Syn, SynAck};
    use TcpState::{
        Closed, Closing, Datagram, Established, FinFromClient, FinFromServer, SynAckSeen, SynSeen,
    };

    const SEGMENTS: [Segment; 5] = [Syn, SynAck, Fin, Reset, Plain];

    /// What each pair does, one row per state: S, SA, F, R, plain from the client, then
    /// from the server. `.` unchanged, `!` reopen, else the number of the new state.
    const TABLE: [(TcpState, &str, &str); 8] = [
        (SynSeen, "...7.", ".2.7."),
        (SynAckSeen, "..473", "..57."),
        (Established, "..47.", "..57."),
        (FinFromClient, "...7.", "..67."),
        (FinFromServer, "..67.", "...7."),
        (Closing, "!..7.", "...7."),
        (Closed, "!....", "....."),
        (Datagram, ".....", "....."),
    ];

    #[test]
    fn every_pair_of_state_and_segment_does_what_the_table_says() {
        for (state, from_client, from_server) in TABLE {
            for (direction, row) in [(FromClient, from_client), (FromServer, from_server)] {
                for (segment, cell) in SEGMENTS.into_iter().zip(row.chars()) {
                    let expected = match cell {
                        '.' => Transition::Unchanged,
                        '!' => Transition::Reopen,
                        digit => {
                            let number = digit as u8 - b'0';
                            Transition::To(TcpState::from_number(number).expect("a state"))
                        }
                    };
                    assert_eq!(
                        state.on_segment(direction, segment),
                        expected,
                        "{state:?}, {segment:?} {direction:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_transition_never_names_the_state_it_comes_from() {
        for state in TcpState::ALL {
            for direction in [FromClient, FromServer] {
                for segment in SEGMENTS {
                    assert_ne!(state.on_segment(direction, segment), Transition::To(state));
                }
            }
        }
    }

    /// The states that a list of segments leads to, from a SYN on.
    fn walk(segments: &[(Direction, Segment)]) -> Vec<TcpState> {
        let mut state = SynSeen;
        let mut states = vec![];
        for (direction, segment) in segments {
            if let Transition::To(next) = state.on_segment(*direction, *segment) {
                state = next;
                states.push(next);
            }
        }
        states
    }

    #[test]
    fn a_usual_connection_changes_four_times_after_its_syn() {
        let segments = [
            (FromServer, SynAck),
            (FromClient, Plain),
            (FromClient, Plain),
            (FromServer, Plain),
            (FromServer, Fin),
            (FromClient, Plain),
            (FromClient, Fin),
            (FromServer, Plain),
        ];
        assert_eq!(walk(&segments), [SynAckSeen, Established, FinFromServer, Closing]);
    }

    #[test]
    fn a_resent_syn_is_the_same_connection_but_one_after_a_refusal_is_a_new_one() {
        assert_eq!(SynSeen.on_segment(FromClient, Syn), Transition::Unchanged);
        assert_eq!(walk(&[(FromServer, Reset)]), [Closed]);
        assert_eq!(Closed.on_segment(FromClient, Syn), Transition::Reopen);
    }

    #[test]
    fn only_a_bare_syn_begins_a_flow() {
        // CWR, ECE, URG, ACK, PSH, RST, SYN, FIN from the highest bit on.
        for flags in 0..=u8::MAX {
            let bare_syn = flags & 0b0001_0110 == 0b0000_0010;
            assert_eq!(Segment::from_flags(flags).may_begin_flow(), bare_syn, "{flags:#010b}");
        }
    }

    #[test]
    fn flags_are_read_in_the_order_of_their_force() {
        assert_eq!(Segment::from_flags(0x02), Syn);
        assert_eq!(Segment::from_flags(0xc2), Syn, "SYN that offers ECN (RFC 3168)");
        assert_eq!(Segment::from_flags(0x12), SynAck);
        assert_eq!(Segment::from_flags(0x11), Fin);
        assert_eq!(Segment::from_flags(0x14), Reset);
        assert_eq!(Segment::from_flags(0x06), Reset);
        assert_eq!(Segment::from_flags(0x18), Plain);
        assert_eq!(Segment::from_flags(0x00), Plain);
    }

    #[test]
    fn after_a_takeover_no_handshake_is_left() {
        for state in TcpState::ALL {
            let expected = if matches!(state, SynSeen | SynAckSeen) { Established } else { state };
            assert_eq!(state.after_takeover(), expected);
        }
    }

    /// The same at once after the takeover, and the same whatever segments follow.
    #[test]
    fn states_that_are_the_same_to_peers_lead_to_the_same_ones_after_a_takeover() {
        for (a, b) in TcpState::ALL.into_iter().flat_map(|a| TcpState::ALL.map(|b| (a, b))) {
            let handshake = |state| matches!(state, SynSeen | SynAckSeen | Established);
            assert_eq!(a.is_same_to_peers(b), a == b || (handshake(a) && handshake(b)), "{a:?}, {b:?}");
        }
    }

    #[test]
    fn numbers_come_back_as_their_state_and_others_as_none() {
        for state in TcpState::ALL {
            assert_eq!(TcpState::from_number(state.number()), Some(state));
        }
        assert_eq!(TcpState::from_number(0), None);
        assert_eq!(TcpState::from_number(9), None);
    }
}
