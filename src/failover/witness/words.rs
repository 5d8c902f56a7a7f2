//! What members and the witness say to each other, in datagrams of `seal::datagram`. All numbers are big-endian.
//!
//! ```text
//! 1 request   0 group  2 node  4 asks  6 challenge  14 term: counter, node  24 takeover_after, µs
//! 2 answer    0 node  2 boot  10 number  18 verdict  20 challenge  28 holder  30 wait, µs
//!             34 recorded term: counter, node  44 hold, µs
//! 3 question  0 a number  8 zeros                      as long as a report may be
//! 4 report    0 that number  8 how things are, as JSON
//! ```
//!
//! A request is as long as its answer, so that nobody can make a witness send more than it gets. The number of a request is the
//! sequence of its datagram.

use serde::{Deserialize, Serialize};

use super::WitnessStatus;
use crate::base::ids::{BootId, GroupId, NodeId, Term};
use crate::base::time::Duration;
use crate::seal::TAG_LEN;
use crate::seal::datagram::HEADER_LEN;

/// Bytes of a request and of an answer, unsealed.
pub const WORDS_LEN: usize = 48;

/// Bytes of a question and, at most, of a report, unsealed.
pub const REPORT_MAX: usize = 1200;

/// Bytes of a sealed request or answer.
pub const REQUEST_LEN: usize = HEADER_LEN + WORDS_LEN + TAG_LEN;

/// Bytes of the longest datagram.
pub const ANSWER_MAX: usize = HEADER_LEN + REPORT_MAX + TAG_LEN;

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of a member.
    Request,
    /// To a member.
    Answer,
    /// How are things?
    Question,
    /// So.
    Report,
}

impl Kind {
    /// On the wire.
    pub const fn code(self) -> u8 {
        match self {
            Kind::Request => 1,
            Kind::Answer => 2,
            Kind::Question => 3,
            Kind::Report => 4,
        }
    }

    /// The reverse of [`Kind::code`].
    pub fn of_code(code: u8) -> Option<Kind> {
        [Kind::Request, Kind::Answer, Kind::Question, Kind::Report]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// What a member asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Nothing: it only says that it is there, and gives back what it was granted.
    Nothing,
    /// To go on sending: it leads in its term.
    AsLeader,
    /// To lead: it follows its term, and nobody seems to lead.
    ToLead,
}

/// A member's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its group.
    pub group: GroupId,
    /// Its number in the group.
    pub node: NodeId,
    /// What for.
    pub asks: Asks,
    /// What the witness wanted said back; 0: nothing yet.
    pub challenge: u64,
    /// The term that it leads or follows.
    pub term: Term,
    /// What it is granted is not granted to another one for so long at least.
    pub takeover_after: Duration,
}

/// What the witness answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It grants.
    Granted,
    /// Another one has the grant.
    Held,
    /// It started just now, and grants nothing yet.
    Starting,
    /// It has heard, and nothing was asked for.
    Noted,
    /// Say this number back first.
    Challenge,
    /// It does not grant for as long as the member needs.
    TooShort,
}

impl Verdict {
    const ALL: [Verdict; 6] = [
        Verdict::Granted,
        Verdict::Held,
        Verdict::Starting,
        Verdict::Noted,
        Verdict::Challenge,
        Verdict::TooShort,
    ];

    const fn code(self) -> u8 {
        match self {
            Verdict::Granted => 1,
            Verdict::Held => 2,
            Verdict::Starting => 3,
            Verdict::Noted => 4,
            Verdict::Challenge => 5,
            Verdict::TooShort => 6,
        }
    }
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// To whom.
    pub node: NodeId,
    /// To which of its processes.
    pub boot: BootId,
    /// To which of its requests.
    pub number: u64,
    /// What.
    pub verdict: Verdict,
    /// To be said back; 0: nothing.
    pub challenge: u64,
    /// Who has the grant instead; 0: nobody.
    pub holder: NodeId,
    /// Asking sooner is of no use.
    pub wait: Duration,
    /// The newest term of a leader that it granted to, since its start.
    pub recorded: Term,
    /// How long it grants.
    pub hold: Duration,
}

impl Request {
    /// On the wire, unsealed.
    pub fn encode(&self) -> [u8; WORDS_LEN] {
        let mut out = [0; WORDS_LEN];
        out[0..2].copy_from_slice(&self.group.0.to_be_bytes());
        out[2..4].copy_from_slice(&self.node.0.to_be_bytes());
        out[4] = match self.asks {
            Asks::Nothing => 0,
            Asks::AsLeader => 1,
            Asks::ToLead => 2,
        };
        out[6..14].copy_from_slice(&self.challenge.to_be_bytes());
        out[14..24].copy_from_slice(&encode_term(self.term));
        out[24..28].copy_from_slice(&micros(self.takeover_after).to_be_bytes());
        out
    }

    /// The reverse of [`Request::encode`]; `None`: not what a member of this version says.
    pub fn decode(bytes: &[u8]) -> Option<Request> {
        let bytes: &[u8; WORDS_LEN] = bytes.first_chunk()?;
        Some(Request {
            group: GroupId(u16_at(bytes, 0)),
            node: NodeId(u16_at(bytes, 2)),
            asks: match bytes[4] {
                0 => Asks::Nothing,
                1 => Asks::AsLeader,
                2 => Asks::ToLead,
                _ => return None,
            },
            challenge: u64_at(bytes, 6),
            term: term_at(bytes, 14),
            takeover_after: span_at(bytes, 24),
        })
    }
}

impl Answer {
    /// On the wire, unsealed.
    pub fn encode(&self) -> [u8; WORDS_LEN] {
        let mut out = [0; WORDS_LEN];
        out[0..2].copy_from_slice(&self.node.0.to_be_bytes());
        out[2..10].copy_from_slice(&self.boot.0.to_be_bytes());
        out[10..18].copy_from_slice(&self.number.to_be_bytes());
        out[18] = self.verdict.code();
        out[20..28].copy_from_slice(&self.challenge.to_be_bytes());
        out[28..30].copy_from_slice(&self.holder.0.to_be_bytes());
        out[30..34].copy_from_slice(&micros(self.wait).to_be_bytes());
        out[34..44].copy_from_slice(&encode_term(self.recorded));
        out[44..48].copy_from_slice(&micros(self.hold).to_be_bytes());
        out
    }

    /// The reverse of [`Answer::encode`]; `None`: not what a witness of this version says.
    pub fn decode(bytes: &[u8]) -> Option<Answer> {
        let bytes: &[u8; WORDS_LEN] = bytes.first_chunk()?;
        Some(Answer {
            node: NodeId(u16_at(bytes, 0)),
            boot: BootId(u64_at(bytes, 2)),
            number: u64_at(bytes, 10),
            verdict: Verdict::ALL.into_iter().find(|verdict| verdict.code() == bytes[18])?,
            challenge: u64_at(bytes, 20),
            holder: NodeId(u16_at(bytes, 28)),
            wait: span_at(bytes, 30),
            recorded: term_at(bytes, 34),
            hold: span_at(bytes, 44),
        })
    }
}

/// Writes how things are, and gives the length. Groups that have no room are left out.
pub(super) fn encode_report(status: &WitnessStatus, out: &mut [u8]) -> usize {
    let mut status = status.clone();
    loop {
        // Numbers and names of fields alone: it cannot fail.
        let text = serde_json::to_vec(&status).unwrap_or_default();
        if let Some(room) = out.get_mut(..text.len()) {
            room.copy_from_slice(&text);
            return text.len();
        }
        if status.groups.pop().is_none() {
            return 0;
        }
    }
}

/// How things are, of what follows the number in a report.
pub fn decode_report(bytes: &[u8]) -> Option<WitnessStatus> {
    serde_json::from_slice(bytes).ok()
}

fn encode_term(term: Term) -> [u8; 10] {
    let mut out = [0; 10];
    out[..8].copy_from_slice(&term.counter.to_be_bytes());
    out[8..].copy_from_slice(&term.node.0.to_be_bytes());
    out
}

/// More than an hour is said as more than an hour.
fn micros(span: Duration) -> u32 {
    u32::try_from(span.micros()).unwrap_or(u32::MAX)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn span_at(bytes: &[u8], at: usize) -> Duration {
    Duration::from_micros(bytes[at..at + 4].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn term_at(bytes: &[u8], at: usize) -> Term {
    Term { counter: u64_at(bytes, at), node: NodeId(u16_at(bytes, at + 8)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(counter: u64) -> Term {
        Term { counter, node: NodeId(3) }
    }

    #[test]
    fn what_is_asked_and_answered_survives_the_wire() {
        for asks in [Asks::Nothing, Asks::AsLeader, Asks::ToLead] {
            let request = Request {
                group: GroupId(1),
                node: NodeId(2),
                asks,
                challenge: u64::MAX - 1,
                term: term(4),
                takeover_after: Duration::from_millis(50),
            };
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        for verdict in Verdict::ALL {
            let answer = Answer {
                node: NodeId(2),
                boot: BootId(5),
                number: 6,
                verdict,
                challenge: 7,
                holder: NodeId(8),
                wait: Duration::from_micros(9),
                recorded: term(10),
                hold: Duration::from_millis(50),
            };
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn unknown_words_and_cut_ones_are_refused() {
        let mut bytes = [0; WORDS_LEN];
        assert!(Request::decode(&bytes).is_some() && Answer::decode(&bytes).is_none());
        bytes[4] = 3;
        assert_eq!(Request::decode(&bytes), None);
        assert_eq!(Request::decode(&bytes[..WORDS_LEN - 1]), None);
        bytes[18] = 7;
        assert_eq!(Answer::decode(&bytes), None);
    }
}
