//! Which flows are mirrored, as rules, payloads and operators say (REQ A8); [`policy`](crate::mirror::policy) decides, here
//! it is done.
//!
//! A flow that is no longer to be mirrored ends for the peers, and lives on here: its source-NAT port stays taken, and when
//! it ends here as well, the port waits until they have acknowledged that. One that is to be mirrored from now on begins for
//! them. Both times it counts from another version on, so that nothing that was on its way before says anything of it
//! ([`Table::begin_again`](crate::flow::table::Table::begin_again)).
//!
//! Only the owner of a source-NAT port sees that it is taken, and sees it by the flow in its table. So a flow that came with
//! a takeover, with the port of another member, is not left out: that member would forget it, and could give its port to
//! another flow of the same real server.
//!
//! Before a planned handover all that was left out is taken up, as far as that goes in time, but for what an operator chose.

use crate::base::buffer::Buffer;
use crate::base::counters::Counter;
use crate::base::ids::{ShardId, Version, VirtualServerId};
use crate::base::io::Io;
use crate::base::limits::PAYLOAD_AWAITED_PACKETS;
use crate::base::time::{Duration, Instant};
use crate::distributor::tell::Tell;
use crate::flow::entry::{FlowFlags, Stamp};
use crate::flow::layout::Hot;
use crate::flow::resting::RestingPlace;
use crate::flow::{Direction, Flow, FlowIndex, Key};
use crate::mirror::changes::Ended;
use crate::mirror::policy::{Decision, Facts, FirstPacket, Measures, Policy};
use crate::mirror::tombstone::{DEPARTED_MAX, RestingPort};
use crate::wire::parse::Parsed;
use crate::worker::Worker;
use crate::worker::message::{Because, Choice, ChoiceAnswer, Event, Role};
use crate::worker::placing::dscp;
use crate::worker::tables::{Listener, Tables};

/// Flows that are looked at in one turn, each with its lines of the table.
const LOOKS_PER_TURN: usize = 128;
/// While more ends wait for acknowledgements, no flow is left out by rules: those that really end need the room.
const ENDS_WAITING_MAX: usize = DEPARTED_MAX / 4;
/// For so long flows are taken up before a handover: what is left of its time is for the peer to acknowledge them.
const TAKING_UP_MAX: Duration = Duration::from_millis(200);
/// Meanwhile no more records than this wait for a peer: those of other flows are behind them.
const TAKING_UP_WAITING_MAX: usize = 8192;
/// Places that are looked at for that in one turn, and flows taken up.
const TAKING_UP_PLACES: u32 = 4096;
const TAKING_UP_PER_TURN: usize = 256;

/// Flows that are taken up before a handover.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakingUp {
    until: Instant,
    next: u32,
}

/// What the first packet of a flow shows.
pub(super) fn first_packet<'a>(head: &'a [u8], parsed: &Parsed) -> FirstPacket<'a> {
    FirstPacket { dscp: dscp(head, parsed), payload: payload(head, parsed) }
}

/// What a packet carries, as far as it is at hand.
pub(super) fn payload<'a>(head: &'a [u8], parsed: &Parsed) -> &'a [u8] {
    let end = parsed.end().min(head.len());
    head.get(parsed.payload_offset()..end).unwrap_or_default()
}

impl Tables {
    /// What is noted of a flow to be, and what follows; `None`: its virtual server has no rules.
    pub(super) fn choice(
        listener: &Listener,
        now: Instant,
        (client, server_port): (&Key, u16),
        (packets, bytes): (u64, u64),
        first: Option<FirstPacket<'_>>,
    ) -> Option<(Facts, Decision)> {
        let policy = listener.policy.as_ref()?;
        let mut facts = policy.facts(now, client, server_port, first?);
        let decision = policy.decide(&facts, &Measures { packets, bytes, ..Measures::default() });
        facts.decided(decision);
        if decision.is_final {
            facts.give_up_payload(); // Whatever it is.
        }
        Some((facts, decision))
    }
}

impl<B: Buffer> Worker<B> {
    /// A packet of a flow of which the client's first payload is awaited.
    pub(super) fn await_payload<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        place: FlowIndex,
        direction: Direction,
        payload: &[u8],
        io: &mut I,
    ) {
        let Some(flow) = self.flows.table.get(place) else { return };
        let facts = self.chosen.of(place, flow.shard, flow.created);
        let Some(mut facts) = facts else {
            return self.flows.table.set_flag(place, FlowFlags::AWAITED, false);
        };
        match self.tables.policy(facts.fingerprint()) {
            Some(policy) if direction == Direction::FromClient && !payload.is_empty() => {
                policy.note_payload(&mut facts, payload);
            }
            Some(_) if flow.packets < PAYLOAD_AWAITED_PACKETS => return,
            Some(_) | None => facts.give_up_payload(),
        }
        self.flows.table.set_flag(place, FlowFlags::AWAITED, false);
        self.follow_rules(now, place, facts, io);
    }

    /// Looks at some of the flows that rules may decide otherwise about by now.
    pub(super) fn poll_choosing<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        if self.taking_up.is_some() {
            return self.take_up_all(now, io);
        }
        let is_needed = self.tables.has_policies() || self.chosen.looks_at_all();
        if !is_needed || self.role != Role::Active || self.quiesce.is_some() {
            return;
        }
        let end = self.flows.table.places_end().0;
        self.chosen.begin_turn(now, end);
        for _ in 0..LOOKS_PER_TURN {
            let tables = &self.tables;
            let Some((place, facts)) = self.chosen.next(now, end, |of| tables.policy(of)) else { return };
            let Some(hot) = self.flows.table.hot(place) else {
                self.chosen.forget_rules(place);
                continue;
            };
            let (packets, bytes) = hot.counted();
            let measures = Measures { age: facts.age(now), packets, bytes };
            let policy = self.tables.policy(facts.fingerprint());
            let holds_still = self.chosen.are_of_now(&facts)
                && facts.shard() == hot.shard()
                && policy.is_some_and(|policy| policy.holds_still(&facts, &measures));
            // Whose packets wait, or are elsewhere, is looked at the next time.
            let is_settled = !hot.flags().contains(FlowFlags::HELD);
            if !holds_still && is_settled && self.on_its_way(place).is_none() {
                self.follow_rules(now, place, facts, io);
            }
        }
    }

    /// Does what the rules say of the flow at a place, if these facts are its own.
    fn follow_rules<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        place: FlowIndex,
        mut facts: Facts,
        io: &mut I,
    ) {
        let Some(flow) = self.flows.table.get(place) else { return self.chosen.forget_rules(place) };
        let policy = self.tables.policy(facts.fingerprint()).filter(|_| self.chosen.are_of_now(&facts));
        let Some(policy) = policy else {
            // No rule says any more that it is left out.
            self.chosen.forget_rules(place);
            if self.is_left_out(&flow) {
                self.switch(now, place, true, io);
            }
            return;
        };
        if !facts.are_of(flow.shard, flow.created) {
            return self.chosen.close(place);
        }
        let decision = policy.decide(&facts, &Measures::of(&flow, facts.age(now)));
        let is_chosen = flow.flags.contains(FlowFlags::CHOSEN);
        let switches = !is_chosen && decision.mirror != flow.is_mirrored();
        if switches && !decision.mirror {
            if !self.may_forget(&flow) {
                return self.chosen.close(place);
            }
            let is_busy = self.quiesce.is_some() || self.mirror.departed() > ENDS_WAITING_MAX;
            if is_busy || facts.was_taken_up_lately(now) {
                facts.put_off();
                return self.chosen.put(place, facts);
            }
        }
        facts.decided(decision);
        self.chosen.put(place, facts);
        if switches {
            self.switch(now, place, decision.mirror, io);
        }
    }

    /// Whether a flow would be mirrored, but for rules.
    fn is_left_out(&self, flow: &Flow) -> bool {
        let is_wanted = |listener: &Listener| listener.flags.contains(FlowFlags::MIRRORED);
        !flow.is_mirrored()
            && !flow.flags.contains(FlowFlags::CHOSEN)
            && self.tables.listener_of(flow.virtual_server).is_some_and(is_wanted)
    }

    /// Whether the others may forget a flow, and its port stays taken.
    fn may_forget(&self, flow: &Flow) -> bool {
        !flow.is_full_nat() || self.flows.owns(flow.shard, &flow.server)
    }

    /// A handover is planned: there is nothing any more that leaving flows out would save.
    pub(super) fn begin_taking_up(&mut self, now: Instant) {
        let has_any = self.chosen.is_used() && self.counts.mirrored() < self.flows.table.len() as u64;
        self.taking_up = has_any.then_some(TakingUp { until: now + TAKING_UP_MAX, next: 0 });
    }

    /// Takes up some of the flows that are left out, but for those that an operator chose.
    fn take_up_all<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        let (Some(TakingUp { until, next }), Some(peer)) = (self.taking_up.take(), self.quiesce) else {
            return;
        };
        let end = self.flows.table.places_end().0;
        let stop = next.saturating_add(TAKING_UP_PLACES).min(end);
        let room = TAKING_UP_WAITING_MAX.saturating_sub(self.mirror.waiting(peer));
        let most = TAKING_UP_PER_TURN.min(room);
        let (mut at, mut taken) = (next, 0);
        while at < stop && taken < most {
            let place = FlowIndex(at);
            at += 1;
            let flags = self.flows.table.hot(place).map(Hot::flags);
            if flags.is_none_or(|flags| flags.has_any(FlowFlags::MIRRORED.with(FlowFlags::CHOSEN))) {
                continue;
            }
            let Some(flow) = self.flows.table.get(place).filter(|flow| self.is_left_out(flow)) else {
                continue;
            };
            if self.on_its_way(place).is_some() {
                continue;
            }
            // If the handover comes to nothing, rules are followed again.
            if let Some(mut facts) = self.chosen.of(place, flow.shard, flow.created) {
                facts.put_off();
                self.chosen.put(place, facts);
            }
            self.switch(now, place, true, io);
            taken += 1;
        }
        if at < end && now < until {
            self.taking_up = Some(TakingUp { until, next: at });
        }
    }

    /// A flow is mirrored from now on, or no longer.
    fn switch<I: Io<Buf = B> + Tell>(&mut self, now: Instant, place: FlowIndex, mirrors: bool, io: &mut I) {
        let Some(flow) = self.flows.table.get(place) else { return };
        let shard = flow.shard;
        let stamp = self.begin_again(place, &flow);
        self.flows.table.set_flag(place, FlowFlags::MIRRORED, mirrors);
        self.counts.mirroring(mirrors);
        if mirrors {
            self.counters.bump(Counter::FlowsTakenUp);
            self.chosen.note_taken_up(now, place, shard, stamp.version);
            return self.mirror.flow_began_again(now, shard, place, &self.flows.table);
        }
        self.counters.bump(Counter::FlowsLeftOut);
        self.chosen.note_told(place, shard, stamp.version);
        let [image, answers] = [&flow.client, &flow.server].map(|key| self.flows.table.imager().of(key));
        // Its port stays the flow's.
        let port = RestingPort { image: answers, place: RestingPlace::NONE };
        let listeners = self.mirror.listeners(shard, flow.flags, Some(flow.virtual_server));
        let (client, created) = (&flow.client, flow.created);
        self.mirror.flow_ended(now, &Ended { shard, place, client, image, port, created, stamp }, listeners);
        // Nobody is to acknowledge it any more.
        self.release(now, shard, place, io);
    }

    /// The flow counts from another version on.
    fn begin_again(&mut self, place: FlowIndex, flow: &Flow) -> Stamp {
        let stamp = Stamp { term: self.mirror.standing().term, version: self.flows.next_version(flow.shard) };
        self.flows.table.begin_again(place, stamp);
        self.chosen.renamed(place, flow.shard, flow.created, stamp.version);
        stamp
    }

    /// Whether peers may know a flow that is not mirrored: it was before.
    pub(super) fn was_told(&self, place: FlowIndex, shard: ShardId, created: Version) -> bool {
        self.chosen.of(place, shard, created).is_some_and(|facts| facts.was_told())
    }

    /// An operator wants the flow of a client's key to be mirrored, or not, or as the rules say.
    pub(super) fn handle_choice<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        key: &Key,
        choice: Choice,
        io: &mut I,
    ) {
        let answer = self.chosen_by_operator(now, key, choice, io);
        self.answer(Event::Chosen(answer));
    }

    fn chosen_by_operator<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        key: &Key,
        choice: Choice,
        io: &mut I,
    ) -> ChoiceAnswer {
        let found = self.flows.table.lookup(key);
        let Some((place, Direction::FromClient)) = found else { return ChoiceAnswer::Unknown };
        let Some(flow) = self.flows.table.get(place) else { return ChoiceAnswer::Unknown };
        if self.tables.snapshot.checked.mirror.is_none() {
            return ChoiceAnswer::Alone;
        }
        if self.role != Role::Active || self.quiesce.is_some() {
            return ChoiceAnswer::Standby;
        }
        if self.on_its_way(place).is_some() {
            return ChoiceAnswer::Moving;
        }
        let mirrors = match choice {
            Choice::On => true,
            Choice::Off => false,
            Choice::Auto => self.by_rules(now, place, &flow),
        };
        if flow.is_mirrored() && !mirrors {
            if !self.may_forget(&flow) {
                return ChoiceAnswer::Needed;
            }
            if self.mirror.departed() > ENDS_WAITING_MAX {
                return ChoiceAnswer::Busy;
            }
        }
        let is_chosen = choice != Choice::Auto;
        let was_chosen = flow.flags.contains(FlowFlags::CHOSEN);
        self.flows.table.set_flag(place, FlowFlags::CHOSEN, is_chosen);
        if mirrors != flow.is_mirrored() {
            self.switch(now, place, mirrors, io);
        } else if mirrors && is_chosen != was_chosen {
            // Who takes over is to know who chose.
            self.begin_again(place, &flow);
            self.mirror.flow_began_again(now, flow.shard, place, &self.flows.table);
        }
        ChoiceAnswer::Done { mirrors, because: self.because(place) }
    }

    /// Whether a flow is mirrored if no operator says anything.
    fn by_rules(&mut self, now: Instant, place: FlowIndex, flow: &Flow) -> bool {
        let facts = self.chosen.of(place, flow.shard, flow.created);
        if let Some(mut facts) = facts
            && let Some(policy) = self.tables.policy(facts.fingerprint())
        {
            let decision = policy.decide(&facts, &Measures::of(flow, facts.age(now)));
            facts.decided(decision);
            self.chosen.put(place, facts);
            return decision.mirror;
        }
        let listener = self.tables.listener_of(flow.virtual_server);
        listener.map_or(flow.is_mirrored(), |listener| listener.flags.contains(FlowFlags::MIRRORED))
    }

    /// Why the flow at a place is mirrored, or not.
    pub(super) fn because(&self, place: FlowIndex) -> Because {
        let Some(flow) = self.flows.table.get(place) else { return Because::Kept };
        if flow.flags.contains(FlowFlags::CHOSEN) {
            return Because::Operator;
        }
        let facts = self.chosen.of(place, flow.shard, flow.created);
        // What they say may not be done yet.
        let is_followed = |facts: &Facts| {
            let policy = self.tables.policy(facts.fingerprint());
            policy.is_some_and(|policy| policy.mirrors(facts.rule()) == flow.is_mirrored())
        };
        if let Some(facts) = facts.filter(is_followed) {
            return match facts.rule() {
                0 => Because::NoRule,
                rule => Because::Rule(rule),
            };
        }
        let is_as_all = |listener: &Listener| {
            listener.policy.is_none() && listener.flags.contains(FlowFlags::MIRRORED) == flow.is_mirrored()
        };
        match self.tables.listener_of(flow.virtual_server).is_some_and(is_as_all) {
            true => Because::VirtualServer,
            false => Because::Kept,
        }
    }
}

impl Tables {
    /// The rules of this fingerprint, if they hold still.
    pub(super) fn policy(&self, fingerprint: u32) -> Option<&Policy> {
        let at = self.policies.binary_search_by_key(&fingerprint, |(of, _)| *of).ok()?;
        self.listeners[self.policies[at].1].policy.as_ref()
    }

    /// Whether any virtual server has rules.
    pub(super) fn has_policies(&self) -> bool {
        !self.policies.is_empty()
    }

    fn listener_of(&self, id: VirtualServerId) -> Option<&Listener> {
        self.listeners.get(self.services.by_id(id)?)
    }
}
