//! The witness: a third party that holds no state of the service, and says which member of a group may send when the members
//! do not hear each other (REQ C11, DESIGN "Lease").
//!
//! [`Witness`] is the whole of `baton witness`, as pure as the rest of this room: datagrams and `now` in, datagrams out.
//! [`words`] is what is said on the wire; [`asking`] is the member's side, a part of [`Failover`](super::Failover).
//!
//! # What it does
//!
//! It grants to one process of one member at a time, for `hold` of its own clock from when the request came; to the same one
//! again at any time; to another one when that time is over, or when the holder says that it wants it no longer.
//! After a start it grants nothing for `hold`: all that it knew is gone, and someone may still send by what it granted.
//!
//! The member counts its lease from when it *sent* the request, and the lease, the pause bound and the drift of clocks
//! together are shorter than `takeover_after`, which is at most `hold` (a member asks for nothing less, and is told
//! [`Verdict::TooShort`] otherwise). So when it grants to another one, nobody sends any more by what it granted before.
//!
//! # What makes old datagrams useless
//!
//! An answer names the request that it answers, and counts from when that was sent. Requests of a process are numbered,
//! and only newer ones count. A process that it does not know has to say back a number that it draws anew with each process of
//! that member that it comes to know; so requests that were recorded before it started, or of an earlier process, do nothing.
//!
//! # What it remembers for members
//!
//! The newest term of a leader that it granted to. A leader that takes a member out of the in-sync set raises its term, and
//! workers go on without that member only when the witness has the new term; whoever asks under a lower one was not
//! there. After a start the witness does not know: members tell that by its boot, and then do not take
//! themselves for in sync.

pub(super) mod asking;
mod report;
pub mod words;

#[cfg(test)]
mod tests;

pub use asking::RequestBytes;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::base::ids::{BootId, GroupId, NodeId, Term};
use crate::base::limits::{KEYS_MAX, MEMBERS_MAX, WITNESS_GROUPS_MAX};
use crate::base::time::{Duration, Instant};
use crate::seal::datagram::{DatagramKeys, DatagramSealer, Direction};
use crate::seal::key::{NoEntropy, boot_id};
use crate::seal::{KeyRing, Refused};
use words::{ANSWER_MAX, Answer, Asks, Kind, Request, Verdict};

/// How sound the rules are. All but `Sound` exist only to prove that checkers see a broken rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WitnessVariant {
    /// As they should be.
    #[default]
    Sound,
    /// It grants at once after a start.
    GrantsAtOnce,
    /// It grants to whoever asks.
    GrantsToAll,
}

/// What is known of one member.
#[derive(Clone, Copy, Debug)]
struct Slot {
    node: NodeId,
    /// Its newest process that said the challenge back.
    boot: Option<BootId>,
    /// The highest number of its requests.
    highest: u64,
    /// What its next process has to say back.
    challenge: u64,
    heard_at: Instant,
}

/// Who may send.
#[derive(Clone, Copy, Debug)]
struct Hold {
    node: NodeId,
    boot: BootId,
    /// Nobody else is granted anything before.
    until: Instant,
}

#[derive(Clone, Debug)]
struct Group {
    id: GroupId,
    slots: ArrayVec<Slot, MEMBERS_MAX>,
    hold: Option<Hold>,
    /// The newest term of a leader that was granted something.
    recorded: Term,
    grants: u64,
    refusals: u64,
}

/// Datagrams that came, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessCounts {
    /// Requests that were answered.
    pub requests: u64,
    /// Of them: it granted.
    pub granted: u64,
    /// Of them: it did not, since another one holds the grant, or since it started just now.
    pub refused: u64,
    /// Of them: of a process that has to prove first that it is there now.
    pub challenged: u64,
    /// Questions how things are.
    pub questions: u64,
    /// Dropped: not of this format, or too short.
    pub malformed: u64,
    /// Dropped: not sealed with the group's key.
    pub forged: u64,
    /// Dropped: a request that is not newer than one before.
    pub replayed: u64,
    /// Dropped: of one group or one member too many.
    pub no_room: u64,
    /// Answers that could not be made, or not sent.
    pub unanswered: u64,
}

/// The witness.
pub struct Witness {
    keys: DatagramKeys,
    /// One for each key: an answer is sealed with the key that opened the request.
    sealers: ArrayVec<DatagramSealer, KEYS_MAX>,
    hold: Duration,
    started_at: Instant,
    variant: WitnessVariant,
    groups: ArrayVec<Group, WITNESS_GROUPS_MAX>,
    counts: WitnessCounts,
}

/// What one datagram led to.
#[derive(Debug)]
pub struct Reply {
    /// Bytes of the answer in the buffer that was given.
    pub len: usize,
    /// What changed by it, for the log: who has the grant now.
    pub news: Option<News>,
}

/// Who has the grant of a group now and had it not before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// This member.
    Holds {
        /// Its group.
        group: GroupId,
        /// The member.
        node: NodeId,
        /// The term that it leads or wants to follow upon.
        term: Term,
    },
    /// Nobody: this member gave it back.
    Free {
        /// Its group.
        group: GroupId,
        /// The member.
        node: NodeId,
    },
}

impl Witness {
    /// One that starts now, and grants for `hold`.
    pub fn new(
        ring: &KeyRing,
        hold: Duration,
        variant: WitnessVariant,
        now: Instant,
    ) -> Result<Witness, NoEntropy> {
        let (keys, boot) = (DatagramKeys::new(ring), boot_id()?);
        let sealers = keys.iter().map(|key| DatagramSealer::new(key, Direction::FromWitness, boot)).collect();
        let (groups, counts) = (ArrayVec::new(), WitnessCounts::default());
        Ok(Witness { keys, sealers, hold, started_at: now, variant, groups, counts })
    }

    /// Handles what came, which is opened in place; the answer, if there is one, is in `out`.
    pub fn handle(&mut self, now: Instant, datagram: &mut [u8], out: &mut [u8; ANSWER_MAX]) -> Option<Reply> {
        let (by, opened) = match self.keys.open(Direction::ToWitness, datagram) {
            Ok(opened) => opened,
            Err(Refused::Malformed) => {
                self.counts.malformed += 1;
                return None;
            }
            Err(Refused::Forged | Refused::Replayed | Refused::TooOld) => {
                self.counts.forged += 1;
                return None;
            }
        };
        let (boot, number) = (opened.boot, opened.sequence);
        match Kind::of_code(opened.kind) {
            Some(Kind::Request) => {
                let Some(request) = Request::decode(opened.payload) else {
                    self.counts.malformed += 1;
                    return None;
                };
                let (answer, news) = self.answer(now, boot, number, &request)?;
                let len = self.seal(by, Kind::Answer, &answer.encode(), out)?;
                Some(Reply { len, news })
            }
            // A question is as long as its answer can be: nobody can make this one flood others.
            Some(Kind::Question) if opened.payload.len() == words::REPORT_MAX => {
                self.counts.questions += 1;
                let mut payload = [0; words::REPORT_MAX];
                payload[..8].copy_from_slice(&opened.payload[..8]);
                let len = words::encode_report(&self.status(now), &mut payload[8..]);
                let len = self.seal(by, Kind::Report, &payload[..8 + len], out)?;
                Some(Reply { len, news: None })
            }
            Some(Kind::Question | Kind::Answer | Kind::Report) | None => {
                self.counts.malformed += 1;
                None
            }
        }
    }

    /// An answer could not be sent.
    pub fn note_unsent(&mut self) {
        self.counts.unanswered += 1;
    }

    fn seal(&mut self, by: usize, kind: Kind, payload: &[u8], out: &mut [u8]) -> Option<usize> {
        let sealed = self.sealers[by].seal(kind.code(), payload, out);
        if sealed.is_err() {
            self.counts.unanswered += 1;
        }
        sealed.ok()
    }

    fn answer(
        &mut self,
        now: Instant,
        boot: BootId,
        number: u64,
        request: &Request,
    ) -> Option<(Answer, Option<News>)> {
        let Some((group_at, slot_at)) = self.find(now, request) else {
            self.counts.no_room += 1;
            return None;
        };
        let (hold, starting) = (self.hold, self.starting(now));
        let variant = self.variant;
        let Group { slots, hold: held, recorded, grants, refusals, id } = &mut self.groups[group_at];
        let slot = &mut slots[slot_at];
        let mut answer = Answer {
            node: request.node,
            boot,
            number,
            verdict: Verdict::Challenge,
            challenge: 0,
            holder: NodeId(0),
            wait: Duration::ZERO,
            recorded: *recorded,
            hold,
        };
        if slot.boot != Some(boot) {
            if request.challenge != slot.challenge {
                self.counts.requests += 1;
                self.counts.challenged += 1;
                answer.challenge = slot.challenge;
                return Some((answer, None));
            }
            let Ok(BootId(challenge)) = boot_id() else {
                self.counts.unanswered += 1;
                return None;
            };
            *slot = Slot { boot: Some(boot), highest: 0, challenge, ..*slot };
        }
        if number <= slot.highest {
            self.counts.replayed += 1;
            return None;
        }
        slot.highest = number;
        slot.heard_at = now;
        self.counts.requests += 1;
        let others = held.filter(|hold| now < hold.until && variant != WitnessVariant::GrantsToAll);
        let mine = held.is_some_and(|hold| (hold.node, hold.boot) == (request.node, boot));
        let mut news = None;
        answer.verdict = match (request.asks, others) {
            (Asks::Nothing, _) => {
                if mine {
                    *held = None;
                    news = Some(News::Free { group: *id, node: request.node });
                }
                Verdict::Noted
            }
            (Asks::AsLeader | Asks::ToLead, _) if request.takeover_after > hold => Verdict::TooShort,
            (Asks::AsLeader | Asks::ToLead, _) if starting > Duration::ZERO => {
                answer.wait = starting;
                Verdict::Starting
            }
            (Asks::AsLeader | Asks::ToLead, Some(hold)) if !mine => {
                (answer.holder, answer.wait) = (hold.node, hold.until - now);
                Verdict::Held
            }
            (Asks::AsLeader | Asks::ToLead, Some(_) | None) => {
                if !mine {
                    news = Some(News::Holds { group: *id, node: request.node, term: request.term });
                }
                *held = Some(Hold { node: request.node, boot, until: now + hold });
                if request.asks == Asks::AsLeader {
                    *recorded = request.term.max(*recorded);
                }
                Verdict::Granted
            }
        };
        answer.recorded = *recorded;
        match answer.verdict {
            Verdict::Granted => {
                *grants += 1;
                self.counts.granted += 1;
            }
            Verdict::Held | Verdict::Starting | Verdict::TooShort => {
                *refusals += 1;
                self.counts.refused += 1;
            }
            Verdict::Noted | Verdict::Challenge => {}
        }
        Some((answer, news))
    }

    /// How long nothing is granted yet after the start.
    fn starting(&self, now: Instant) -> Duration {
        match self.variant {
            WitnessVariant::Sound => (self.started_at + self.hold) - now,
            WitnessVariant::GrantsAtOnce | WitnessVariant::GrantsToAll => Duration::ZERO,
        }
    }

    /// The places of group and member, made if there is room. Groups are never forgotten, since what is recorded of them matters;
    /// of members the one that was silent for longest makes room, if it was for `FORGET_AFTER`.
    fn find(&mut self, now: Instant, request: &Request) -> Option<(usize, usize)> {
        let known = self.groups.iter().position(|group| group.id == request.group);
        let group_at = known.or_else(|| {
            let (id, recorded) = (request.group, Term::NONE);
            let group = Group { id, slots: ArrayVec::new(), hold: None, recorded, grants: 0, refusals: 0 };
            self.groups.try_push(group).ok()?;
            Some(self.groups.len() - 1)
        })?;
        let slots = &mut self.groups[group_at].slots;
        if let Some(at) = slots.iter().position(|slot| slot.node == request.node) {
            return Some((group_at, at));
        }
        let challenge = boot_id().ok()?.0;
        let slot = Slot { node: request.node, boot: None, highest: 0, challenge, heard_at: now };
        if slots.try_push(slot).is_ok() {
            return Some((group_at, slots.len() - 1));
        }
        let (at, oldest) = slots.iter_mut().enumerate().min_by_key(|(_, slot)| slot.heard_at)?;
        (now - oldest.heard_at >= FORGET_AFTER).then(|| *oldest = slot)?;
        Some((group_at, at))
    }

    /// What it counted.
    pub fn counts(&self) -> WitnessCounts {
        self.counts
    }

    /// How things are.
    pub fn status(&self, now: Instant) -> WitnessStatus {
        let ms = |span: Duration| span.micros() / 1000;
        let groups = self.groups.iter().map(|group| GroupStatus {
            group: group.id,
            holder: group.hold.filter(|hold| now < hold.until).map(|hold| hold.node),
            held_for_ms: group.hold.map_or(0, |hold| ms(hold.until - now)),
            term: group.recorded,
            grants: group.grants,
            refusals: group.refusals,
            members: group
                .slots
                .iter()
                .map(|slot| SlotStatus { node: slot.node, heard_ago_ms: ms(now - slot.heard_at) })
                .collect(),
        });
        WitnessStatus {
            uptime_ms: ms(now - self.started_at),
            hold_ms: ms(self.hold),
            grants_in_ms: ms(self.starting(now)),
            groups: groups.collect(),
            counts: self.counts,
        }
    }
}

/// A member that was silent for so long makes room for another one of its group.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// How things are with a witness.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WitnessStatus {
    /// Since its start.
    pub uptime_ms: u64,
    /// For how long it grants.
    pub hold_ms: u64,
    /// It started just now, and grants nothing for so long yet.
    pub grants_in_ms: u64,
    /// Groups that asked since its start.
    pub groups: Vec<GroupStatus>,
    /// What it counted.
    pub counts: WitnessCounts,
}

/// How things are with one of its groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Which.
    pub group: GroupId,
    /// Who may send.
    pub holder: Option<NodeId>,
    /// For how long no other one is granted anything.
    pub held_for_ms: u64,
    /// The newest term of a leader that it granted to.
    pub term: Term,
    /// Requests that were granted.
    pub grants: u64,
    /// Requests that were not.
    pub refusals: u64,
    /// Members that asked.
    pub members: Vec<SlotStatus>,
}

/// How things are with a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// Its number.
    pub node: NodeId,
    /// Since its newest request.
    pub heard_ago_ms: u64,
}
