//! The member's side: when it asks the witness, and what the answers let it do.
//!
//! With a witness, a leader sends while the witness grants, or all other members do, each counted from when it was asked;
//! and nobody takes a term without the witness's grant.

use arrayvec::ArrayVec;

use super::words::{Answer, Asks, Kind, REQUEST_LEN, Request, Verdict};
use crate::base::counters::Counter;
use crate::base::ids::{BootId, NodeId, Term};
use crate::base::time::{Duration, Instant};
use crate::failover::event::FailoverEvent;
use crate::failover::liveness::{Peer, SentBeats};
use crate::failover::output::Output;
use crate::failover::role::Role;
use crate::failover::status::WitnessView;
use crate::failover::{Failover, Variant};
use crate::seal::datagram::{DatagramKeys, DatagramSealer, Direction};
use crate::seal::{KeyRing, Refused};

/// A sealed request.
pub type RequestBytes = ArrayVec<u8, REQUEST_LEN>;

/// What is known of the witness, and what was asked of it.
pub(in crate::failover) struct Asking {
    keys: DatagramKeys,
    sealer: DatagramSealer,
    sent: SentBeats,
    due: Instant,
    /// What was asked for last.
    asks: Asks,
    /// In this round it would lead, if it were granted.
    wants: bool,
    challenge: u64,
    /// The newest request that was answered.
    answered: u64,
    /// Grants of older requests do not count: what was asked then was given back.
    grants_from: u64,
    /// When the newest request was sent that was granted.
    granted_at: Option<Instant>,
    /// The witness's process that did.
    granted_by: Option<BootId>,
    /// While this appliance served: which process of the witness knew it, and in which term.
    known_as: Option<(BootId, Term)>,
    /// The newest term of a leader that it knows, by the newest answer.
    recorded: Term,
    /// Its newest word to a request for something.
    verdict: Option<(Verdict, NodeId)>,
    refused_since: Option<Instant>,
    refusal_told: bool,
    heard_at: Instant,
    boot: Option<BootId>,
    hold: Duration,
    present: bool,
}

impl Asking {
    pub(in crate::failover) fn new(ring: &KeyRing, boot: BootId, now: Instant) -> Asking {
        let keys = DatagramKeys::new(ring);
        Asking {
            sealer: DatagramSealer::new(keys.first(), Direction::ToWitness, boot),
            keys,
            sent: SentBeats::new(),
            due: now,
            asks: Asks::Nothing,
            wants: false,
            challenge: 0,
            answered: 0,
            grants_from: 0,
            granted_at: None,
            granted_by: None,
            known_as: None,
            recorded: Term::NONE,
            verdict: None,
            refused_since: None,
            refusal_told: false,
            heard_at: Instant::ZERO,
            boot: None,
            hold: Duration::ZERO,
            present: false,
        }
    }

    /// Goes by other keys from now on.
    pub(in crate::failover) fn renew(&mut self, ring: &KeyRing) {
        self.keys = DatagramKeys::new(ring);
        self.sealer = self.sealer.renewed(self.keys.first());
    }

    /// The process of the witness that was heard last.
    pub(in crate::failover) fn boot(&self) -> Option<BootId> {
        self.boot
    }
}

impl Failover {
    /// Handles a datagram that came from the witness, or says to. It is opened in place.
    pub fn handle_witness(&mut self, now: Instant, datagram: &mut [u8]) {
        if let Err(reason) = self.receive_witness(now, datagram) {
            self.counters.bump(reason);
        }
    }

    fn receive_witness(&mut self, now: Instant, datagram: &mut [u8]) -> Result<(), Counter> {
        let (node, boot, variant) = (self.node(), self.member.boot, self.variant);
        let asking = self.witness.as_mut().ok_or(Counter::WitnessMalformed)?;
        let (_, opened) =
            asking.keys.open(Direction::FromWitness, datagram).map_err(|refused| match refused {
                Refused::Malformed => Counter::WitnessMalformed,
                Refused::Forged | Refused::Replayed | Refused::TooOld => Counter::WitnessForged,
            })?;
        let answer = match Kind::of_code(opened.kind) {
            Some(Kind::Answer) => Answer::decode(opened.payload).ok_or(Counter::WitnessMalformed)?,
            Some(Kind::Request | Kind::Question | Kind::Report) | None => {
                return Err(Counter::WitnessMalformed);
            }
        };
        let sent_at = asking.sent.at(answer.number).ok_or(Counter::WitnessStale)?;
        if (answer.node, answer.boot) != (node, boot) || answer.number <= asking.answered {
            return Err(Counter::WitnessStale);
        }
        let witness = opened.boot;
        self.counters.bump(Counter::WitnessAnswered);
        asking.answered = answer.number;
        asking.heard_at = now;
        asking.hold = answer.hold;
        asking.recorded = answer.recorded;
        let appears = asking.boot.replace(witness) != Some(witness) || !asking.present;
        asking.present = true;
        if appears {
            self.event(FailoverEvent::WitnessHeard { boot: witness });
        }
        self.terms.hear(answer.recorded);
        let asking = self.witness.as_mut().ok_or(Counter::WitnessMalformed)?;
        match answer.verdict {
            Verdict::Challenge => {
                asking.challenge = answer.challenge;
                asking.due = now;
            }
            Verdict::Noted => {}
            Verdict::Granted if answer.number < asking.grants_from => {}
            Verdict::Granted => {
                self.counters.bump(Counter::WitnessGranted);
                let at = if variant == Variant::LeaseFromAnswer { now } else { sent_at };
                asking.granted_at = Some(at);
                asking.granted_by = Some(witness);
                asking.refused_since = None;
                asking.refusal_told = false;
                asking.verdict = Some((Verdict::Granted, node));
                self.learn(&answer, witness);
                if self.role.serves() {
                    self.served_by(witness);
                }
            }
            Verdict::Held | Verdict::Starting | Verdict::TooShort => {
                asking.refused_since.get_or_insert(now);
                asking.verdict = Some((answer.verdict, answer.holder));
                if answer.wait > Duration::ZERO {
                    asking.due = asking.due.min(now + answer.wait);
                }
            }
        }
        Ok(())
    }

    /// Goes on serving by a grant of this process of the witness.
    fn served_by(&mut self, witness: BootId) {
        let term = self.terms.current();
        if let Some(asking) = &mut self.witness {
            asking.known_as = Some((witness, term));
        }
        if let Some(claimed_at) = self.claimed_at {
            self.grant(claimed_at);
        }
    }

    /// What a grant to whoever does not lead yet tells of the time since it heard its leader.
    fn learn(&mut self, answer: &Answer, witness: BootId) {
        if self.role.claims() {
            return;
        }
        let (mine, recorded) = (self.terms.current().counter, answer.recorded.counter);
        // A leader went on in a higher term; or this witness does not know, since it started after the leader was heard.
        let known = recorded == mine || recorded < mine && self.leader.witness == Some(witness);
        if !known {
            self.leader.in_sync = false;
        }
    }

    /// Whether it may take a term now; without a witness always. If not, the witness is asked.
    pub(in crate::failover) fn may_lead(&mut self, now: Instant) -> bool {
        let Some(asking) = &mut self.witness else { return true };
        asking.wants = true;
        self.witness_grants(now)
    }

    /// The witness's grant covers this instant; without one: no.
    pub(in crate::failover) fn witness_grants(&self, now: Instant) -> bool {
        now < self.granted_by_witness()
    }

    fn granted_by_witness(&self) -> Instant {
        let granted_at = self.witness.as_ref().and_then(|asking| asking.granted_at);
        granted_at.map_or(Instant::ZERO, |at| at + self.config.lease)
    }

    /// Until when all other members let us send: each has said that it follows, and acknowledged a beat.
    fn granted_by_peers(&self) -> Instant {
        let now = self.polled_at;
        let grant = |peer: &Peer| {
            let said = peer.said.filter(|said| {
                said.role == Role::Standby
                    && said.term == self.terms.current()
                    && peer.heard_within(now, self.config.takeover_after)
            })?;
            Some(self.sent.at(said.echo)? + self.config.lease)
        };
        self.peers.iter().map(|peer| grant(peer).unwrap_or(Instant::ZERO)).min().unwrap_or(Instant::ZERO)
    }

    /// Until when others let us send.
    pub(in crate::failover) fn licence(&self) -> Instant {
        match &self.witness {
            None => self.granted_by_standbys(),
            Some(_) => self.granted_by_witness().max(self.granted_by_peers()),
        }
    }

    /// After a lapse: the witness granted what was asked for since, so nobody else may send; and nobody led meanwhile.
    pub(in crate::failover) fn witness_reassures(&self) -> bool {
        let granted_since = |asking: &Asking| {
            asking.granted_at.is_some_and(|at| at > self.silenced_at)
                && asking.recorded <= self.terms.current()
                && asking.granted_by.map(|boot| (boot, self.terms.current())) == asking.known_as
        };
        self.witness.as_ref().is_some_and(granted_since)
    }

    /// A leader in a higher term was granted something: what this one knows is of before.
    pub(in crate::failover) fn outdated(&self) -> bool {
        let higher = |asking: &Asking| asking.recorded.counter > self.terms.current().counter;
        self.witness.as_ref().is_some_and(higher)
    }

    /// The witness knows that this appliance leads in this term; without one there is nothing to know.
    pub(in crate::failover) fn witness_knows(&self, term: Term) -> bool {
        self.witness.as_ref().is_none_or(|asking| {
            asking.recorded >= term && asking.verdict.is_some_and(|(verdict, _)| verdict == Verdict::Granted)
        })
    }

    /// The witness was heard lately; without one there is nothing to hear.
    pub(in crate::failover) fn witness_heard(&self) -> bool {
        self.witness.as_ref().is_none_or(|asking| asking.present)
    }

    /// A term was taken: the witness is to know it before anything is sent in it.
    pub(in crate::failover) fn forget_grants(&mut self, now: Instant) {
        if let Some(asking) = &mut self.witness {
            asking.granted_at = None;
            asking.grants_from = asking.sent.newest() + 1;
            asking.due = now;
        }
    }

    /// The witness is asked in this round.
    pub(in crate::failover) fn ask_now(&mut self, now: Instant) {
        if let Some(asking) = &mut self.witness {
            asking.due = now;
        }
    }

    /// A round begins: what it wants is found out anew.
    pub(in crate::failover) fn want_nothing(&mut self) {
        if let Some(asking) = &mut self.witness {
            asking.wants = false;
        }
    }

    /// What is to be asked for; `None`: nothing is to be said.
    fn wish(&self, now: Instant) -> Option<Asks> {
        let asking = self.witness.as_ref()?;
        match self.role {
            // While a worker stands still others are to take over; while workers stop, nothing is given back.
            Role::Installing | Role::Active | Role::Quiescing | Role::Silenced => {
                (self.worker_stuck == 0).then_some(Asks::AsLeader)
            }
            Role::Resigning | Role::Left => None,
            Role::Booting | Role::Standby if self.yields(now) => None,
            Role::Booting | Role::Standby => Some(if asking.wants { Asks::ToLead } else { Asks::Nothing }),
        }
    }

    /// Asks the witness, when it is time to.
    pub(in crate::failover) fn ask_witness(&mut self, now: Instant) {
        self.watch_witness(now);
        let Some(asks) = self.wish(now) else { return };
        let Some(asking) = &mut self.witness else { return };
        // The successor of a leader that has just handed over waits for nothing but that one's giving back.
        let hurries = self.leader.handed_over && asks == Asks::ToLead;
        if now >= asking.due || asks != asking.asks || hurries {
            self.ask(now, asks);
        }
    }

    fn ask(&mut self, now: Instant, asks: Asks) {
        let request = |challenge| Request {
            group: self.member.group,
            node: self.member.node,
            asks,
            challenge,
            term: self.terms.current(),
            takeover_after: self.config.takeover_after,
        };
        let Some(challenge) = self.witness.as_ref().map(|asking| asking.challenge) else { return };
        let payload = request(challenge).encode();
        let interval = self.config.heartbeat_interval;
        let Some(asking) = &mut self.witness else { return };
        let mut datagram = RequestBytes::from([0; REQUEST_LEN]);
        // It fails when 2^64 were sent.
        if asking.sealer.seal(Kind::Request.code(), &payload, &mut datagram).is_err() {
            return;
        }
        let number = asking.sent.next(now);
        if asks == Asks::Nothing {
            asking.granted_at = None;
            asking.grants_from = number + 1;
            (asking.verdict, asking.refused_since, asking.refusal_told) = (None, None, false);
        }
        asking.asks = asks;
        asking.due = now + interval;
        self.counters.bump(Counter::WitnessAsked);
        self.emit(Output::Witness { datagram });
    }

    /// Gives back what the witness granted: nothing is sent any more, and nothing will be.
    pub(in crate::failover) fn give_back(&mut self, now: Instant) {
        if self.witness.is_some() {
            self.ask(now, Asks::Nothing);
        }
    }

    /// Tells the operator when the witness falls silent, or refuses for long.
    fn watch_witness(&mut self, now: Instant) {
        let (takeover_after, listening_since) = (self.config.takeover_after, self.listening_since);
        let Some(asking) = &mut self.witness else { return };
        if asking.present && now - asking.heard_at.max(listening_since) >= takeover_after {
            asking.present = false;
            self.event(FailoverEvent::WitnessSilent);
            return;
        }
        let for_long = asking.refused_since.is_some_and(|since| now - since >= takeover_after);
        if asking.present && for_long && !core::mem::replace(&mut asking.refusal_told, true) {
            let event = match asking.verdict {
                Some((Verdict::TooShort, _)) => {
                    FailoverEvent::WitnessTooShort { hold_ms: asking.hold.micros() / 1000 }
                }
                Some((_, holder)) => FailoverEvent::WitnessRefuses { holder },
                None => return,
            };
            self.event(event);
        }
    }

    pub(in crate::failover) fn witness_view(&self, now: Instant) -> Option<WitnessView> {
        let asking = self.witness.as_ref()?;
        Some(WitnessView {
            heard: asking.present,
            heard_ago_us: (asking.answered > 0).then(|| (now - asking.heard_at).micros()),
            grants: self.witness_grants(now),
            grant_left_us: (self.granted_by_witness() - now).micros(),
            verdict: asking.verdict.map(|(verdict, _)| verdict),
            holder: asking.verdict.map(|(_, holder)| holder).filter(|holder| *holder != NodeId(0)),
            hold_ms: asking.hold.micros() / 1000,
        })
    }
}
