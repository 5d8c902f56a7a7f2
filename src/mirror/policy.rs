//! Which flows are mirrored, and why (REQ A8).
//!
//! A virtual server's rules are asked in their order, and the first one that holds decides; where none does, the flow is
//! mirrored. What of a rule a flow's first packets show (client, ports, code point, payload) holds for its whole life or never,
//! and is kept as a bit for each rule ([`Facts`]). The rest (age, bytes, packets, rate) is asked again and again, by
//! [`Chosen::next`], which goes over the places of the table at a bounded rate. No packet of a settled flow has a part in this.
//!
//! Facts count for the flow for which they were noted, while this appliance leads, and under the rules under which it began.
//! Without them, that is after a takeover and after other rules were read, what is mirrored stays so, and what was left out
//! is mirrored again, for no rule says any more that it is not. An operator's word for one flow
//! ([`FlowFlags::CHOSEN`](crate::flow::entry::FlowFlags::CHOSEN)) goes before all rules, and to the peers with the flow.

use crate::base::ids::{ShardId, Version, VirtualServerId};
use crate::base::limits::{MIRROR_RULES_MAX, PAYLOAD_LOOKED_AT};
use crate::base::memory::{NoMemory, Plain, Slab};
use crate::base::time::{Duration, Instant};
use crate::config::checked::policy::{Pattern, Ports, Rule, fingerprint};
use crate::flow::key::Key;
use crate::flow::{Flow, FlowIndex};

/// Places looked over for each millisecond that has passed: a million in a second.
const PLACES_PER_MILLI: u64 = 1024;
/// Places looked over in one turn at most.
const PLACES_PER_TURN: u64 = 4096;
/// For so long after it was taken up, rules leave no flow out: or whoever sends at the threshold of one would have its flow ended
/// and begun with every packet. In milliseconds.
const TAKEN_UP_FOR: u16 = 1000;
/// Rounds until all that was noted before has been looked at once, from wherever a round is.
const ROUNDS_OF_ALL: u8 = 2;

/// A bit for each rule, the first one the lowest.
type RuleBits = u16;
const _: () = assert!(MIRROR_RULES_MAX <= RuleBits::BITS as usize);

/// What the first packet of a flow shows.
#[derive(Clone, Copy, Debug)]
pub struct FirstPacket<'a> {
    /// Its code point (RFC 2474).
    pub dscp: u8,
    /// What it carries; empty: nothing yet.
    pub payload: &'a [u8],
}

/// What a flow came to until now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measures {
    /// For how long there has been the flow.
    pub age: Duration,
    /// Packets, both directions together.
    pub packets: u64,
    /// Bytes of IP packets, likewise.
    pub bytes: u64,
}

impl Measures {
    /// Of a flow of this age.
    pub fn of(flow: &Flow, age: Duration) -> Measures {
        Measures { age, packets: flow.packets, bytes: flow.bytes }
    }

    /// Since it began; of one that is younger than a second, as if it were as old.
    fn kbit_per_s(&self) -> u64 {
        let millis = self.age.millis().max(1000);
        (u128::from(self.bytes) * 8 / u128::from(millis)) as u64
    }
}

/// What the rules say of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is mirrored.
    pub mirror: bool,
    /// By which rule, from 1; 0: by none.
    pub rule: u8,
    /// No later look decides otherwise.
    pub is_final: bool,
}

/// The rules of one virtual server.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    fingerprint: u32,
    /// Some rule asks what a flow has carried.
    counts: bool,
}

impl Policy {
    /// `None`: there are no rules.
    pub fn new(of: VirtualServerId, rules: &[Rule]) -> Option<Policy> {
        let counts = rules.iter().any(Rule::counts);
        (!rules.is_empty()).then(|| Policy {
            rules: rules.to_vec(),
            fingerprint: fingerprint(of, rules),
            counts,
        })
    }

    /// By which facts name it.
    pub fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// What is noted of a flow that begins; [`Facts::named`] says of which.
    pub fn facts(&self, now: Instant, client: &Key, server_port: u16, first: FirstPacket<'_>) -> Facts {
        let mut facts = Facts { born: now.nanos(), fingerprint: self.fingerprint, ..Facts::default() };
        for (at, rule) in self.rules.iter().enumerate() {
            if holds_from_the_start(rule, client, server_port, first.dscp) {
                match rule.payload {
                    Some(_) => facts.awaiting |= 1 << at,
                    None => facts.holding |= 1 << at,
                }
            }
        }
        if !first.payload.is_empty() {
            self.note_payload(&mut facts, first.payload);
        }
        facts
    }

    /// The client's first payload has come.
    pub fn note_payload(&self, facts: &mut Facts, payload: &[u8]) {
        for (at, rule) in self.rules.iter().enumerate() {
            let awaits = facts.awaiting >> at & 1 == 1;
            if awaits && rule.payload.as_ref().is_some_and(|pattern| has(payload, pattern)) {
                facts.holding |= 1 << at;
            }
        }
        facts.awaiting = 0;
    }

    /// Decides.
    pub fn decide(&self, facts: &Facts, measures: &Measures) -> Decision {
        // One before it may come to hold, or its payload come.
        let mut is_final = true;
        for (at, rule) in self.rules.iter().enumerate() {
            is_final &= facts.awaiting >> at & 1 == 0;
            if facts.holding >> at & 1 == 0 {
                continue;
            }
            if holds_now(rule, measures) {
                // All but the rate only grow.
                is_final &= rule.rate_min_kbit == 0;
                return Decision { mirror: rule.mirror, rule: at as u8 + 1, is_final };
            }
            is_final = false;
        }
        Decision { mirror: true, rule: 0, is_final }
    }

    /// Whether flows are mirrored of which this was decided: [`Decision::rule`].
    pub fn mirrors(&self, rule: u8) -> bool {
        let at = usize::from(rule).checked_sub(1);
        at.and_then(|at| self.rules.get(at)).is_none_or(|rule| rule.mirror)
    }

    /// Whether a look at a flow of these facts comes to nothing: what was decided last is done, and holds.
    pub fn holds_still(&self, facts: &Facts, measures: &Measures) -> bool {
        let decision = self.decide(facts, measures);
        facts.look == OPEN && decision.rule == facts.rule && !decision.is_final
    }
}

fn holds_from_the_start(rule: &Rule, client: &Key, server_port: u16, dscp: u8) -> bool {
    let among = |ports: &[Ports], port: u16| ports.is_empty() || ports.iter().any(|range| range.has(port));
    (rule.clients.is_empty() || rule.clients.iter().any(|network| network.contains(client.src.ip())))
        && among(&rule.client_ports, client.src_port)
        && among(&rule.server_ports, server_port)
        && (rule.dscp == 0 || rule.dscp >> (dscp & 63) & 1 == 1)
}

fn holds_now(rule: &Rule, measures: &Measures) -> bool {
    measures.age >= rule.duration_min
        && measures.bytes >= rule.bytes_min
        && measures.packets >= rule.packets_min
        && (rule.rate_min_kbit == 0 || measures.kbit_per_s() >= rule.rate_min_kbit)
}

/// Whether a payload has a pattern, as far as is looked.
fn has(payload: &[u8], pattern: &Pattern) -> bool {
    let seen = &payload[..payload.len().min(PAYLOAD_LOOKED_AT)];
    match pattern.at {
        Some(at) => seen.get(at..).is_some_and(|rest| rest.starts_with(&pattern.bytes)),
        None => seen.windows(pattern.bytes.len()).any(|window| window == pattern.bytes),
    }
}

/// What is noted of a flow whose virtual server has rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Plain)]
#[repr(C)]
pub struct Facts {
    /// Whose they are: its shard, and the version with which it began; 0: nobody's.
    tenant: u64,
    /// When it began, in nanoseconds of this appliance's clock.
    born: u64,
    /// Of the rules.
    fingerprint: u32,
    /// Rules of which all holds that does not change in a flow's life.
    holding: RuleBits,
    /// Rules that may come to be among these, when the client's first payload comes.
    awaiting: RuleBits,
    /// What was decided last: [`Decision::rule`].
    rule: u8,
    /// Whether it is to be looked at: [`CLOSED`], [`OPEN`], [`DUE`].
    look: u8,
    /// Peers were told of it, and then that it ended, though it did not.
    was_told: u8,
    unused: u8,
    /// In which of the times in which this appliance led ([`Chosen::begin_era`]).
    era: u16,
    /// When it was taken up last, in milliseconds since it began, as far as they fit; 0: never.
    taken_up: u16,
}

const _: () = assert!(size_of::<Facts>() == 32);

/// No later look decides otherwise.
const CLOSED: u8 = 0;
/// It may be decided otherwise later.
const OPEN: u8 = 1;
/// What rules say of it is not done yet.
const DUE: u8 = 2;

impl Facts {
    /// Of this flow.
    #[must_use]
    pub fn named(self, shard: ShardId, created: Version) -> Facts {
        Facts { tenant: tenant(shard, created), ..self }
    }

    /// Whether they are of this flow.
    pub fn are_of(&self, shard: ShardId, created: Version) -> bool {
        self.tenant == tenant(shard, created)
    }

    /// Whether peers were told of it at some time, and of its end since.
    pub fn was_told(&self) -> bool {
        self.was_told != 0
    }

    /// Whether the client's first payload may decide.
    pub fn awaits_payload(&self) -> bool {
        self.awaiting != 0
    }

    /// It is awaited no longer.
    pub fn give_up_payload(&mut self) {
        self.awaiting = 0;
    }

    /// Takes note of what was decided.
    pub fn decided(&mut self, decision: Decision) {
        (self.rule, self.look) = (decision.rule, if decision.is_final { CLOSED } else { OPEN });
    }

    /// What rules say of the flow is not done now, but at a later look.
    pub fn put_off(&mut self) {
        self.look = DUE;
    }

    /// Whether it was taken up so lately that rules do not leave it out.
    pub fn was_taken_up_lately(&self, now: Instant) -> bool {
        self.taken_up != 0 && self.mark(now).wrapping_sub(self.taken_up) < TAKEN_UP_FOR
    }

    /// Milliseconds since it began, as far as they fit; not 0.
    fn mark(&self, now: Instant) -> u16 {
        (self.age(now).millis() as u16).max(1)
    }

    /// Of which shard the flow is.
    pub fn shard(&self) -> ShardId {
        ShardId((self.tenant >> 48) as u16)
    }

    /// For how long there has been the flow.
    pub fn age(&self, now: Instant) -> Duration {
        now - Instant::from_nanos(self.born)
    }

    /// Under which rules it began.
    pub fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// By which of them it was decided last, from 1; 0: by none.
    pub fn rule(&self) -> u8 {
        self.rule
    }
}

fn tenant(shard: ShardId, created: Version) -> u64 {
    u64::from(shard.0) << 48 | created.0
}

/// The facts of all flows of a worker. Touched for flows of virtual servers with rules alone.
pub struct Chosen {
    facts: Slab<Facts>,
    /// Something was noted at some time.
    is_used: bool,
    looked_at: Instant,
    /// Places left to look over now.
    left: u32,
    next: u32,
    era: u16,
    /// Rounds in which all places are looked at for what was noted under other rules, or in an era before.
    rounds_of_all: u8,
}

impl Chosen {
    /// For so many flows.
    pub fn new(capacity: u32) -> Result<Chosen, NoMemory> {
        let facts = Slab::new(capacity as usize)?;
        let looked_at = Instant::ZERO;
        Ok(Chosen { facts, is_used: false, looked_at, left: 0, next: 0, era: 0, rounds_of_all: 0 })
    }

    /// Whether anything was noted at some time.
    pub fn is_used(&self) -> bool {
        self.is_used
    }

    /// This appliance leads again: versions are others' from before, so what was noted by then is of nobody now.
    pub fn begin_era(&mut self) {
        self.era = self.era.wrapping_add(1);
        self.look_at_all();
    }

    /// Rules may be others than those under which something was noted.
    pub fn look_at_all(&mut self) {
        if self.is_used {
            self.rounds_of_all = ROUNDS_OF_ALL;
        }
    }

    /// Whether there may be facts of other rules, or of an era before.
    pub fn looks_at_all(&self) -> bool {
        self.rounds_of_all > 0
    }

    /// Whether facts were noted in this era.
    pub fn are_of_now(&self, facts: &Facts) -> bool {
        facts.era == self.era
    }

    /// Has memory put behind it.
    pub fn populate(&self) {
        self.facts.populate();
    }

    /// Notes what is known of the flow at a place.
    pub fn put(&mut self, place: FlowIndex, facts: Facts) {
        if let Some(slot) = self.facts.get_mut(place.slot()) {
            *slot = Facts { era: self.era, ..facts };
            self.is_used = true;
        }
    }

    /// What is known of the flow at a place, which is this one.
    pub fn of(&self, place: FlowIndex, shard: ShardId, created: Version) -> Option<Facts> {
        if !self.is_used {
            return None; // No memory is touched for nothing.
        }
        let facts = self.facts.get(place.slot()).copied();
        facts.filter(|facts| self.are_of_now(facts) && facts.are_of(shard, created))
    }

    /// The flow at a place counts from another version on.
    pub fn renamed(&mut self, place: FlowIndex, shard: ShardId, before: Version, now: Version) {
        if let Some(facts) = self.of(place, shard, before) {
            self.put(place, Facts { tenant: tenant(shard, now), ..facts });
        }
    }

    /// The flow at a place, which is this one, is mirrored from now on.
    pub fn note_taken_up(&mut self, now: Instant, place: FlowIndex, shard: ShardId, created: Version) {
        if let Some(facts) = self.of(place, shard, created) {
            self.put(place, Facts { taken_up: facts.mark(now), ..facts });
        }
    }

    /// Peers were told that the flow at a place ended, which is this one and did not. Of a flow without rules nothing else is
    /// noted: its fingerprint is 0, which no rules have.
    pub fn note_told(&mut self, place: FlowIndex, shard: ShardId, created: Version) {
        let facts = self.of(place, shard, created).unwrap_or_default();
        self.put(place, Facts { was_told: 1, ..facts.named(shard, created) });
    }

    /// The place is looked at no more.
    pub fn close(&mut self, place: FlowIndex) {
        if let Some(facts) = self.facts.get_mut(place.slot()) {
            facts.look = CLOSED;
        }
    }

    /// What rules of before said of the flow at a place is forgotten; not whether peers were told of it.
    pub fn forget_rules(&mut self, place: FlowIndex) {
        let era = self.era;
        if let Some(facts) = self.facts.get_mut(place.slot()) {
            let Facts { tenant, was_told, .. } = *facts;
            let is_of_now = facts.era == era;
            *facts = Facts::default();
            if is_of_now {
                (facts.tenant, facts.era, facts.was_told) = (tenant, era, was_told);
            }
        }
    }

    /// So many places may be looked over in this turn, of those before `end`.
    pub fn begin_turn(&mut self, now: Instant, end: u32) {
        let millis = (now - self.looked_at).millis();
        if millis > 0 {
            self.looked_at = now;
            self.left = (millis * PLACES_PER_MILLI).min(PLACES_PER_TURN).min(end.into()) as u32;
        }
        if self.next >= end {
            self.next = 0;
        }
    }

    /// The next place whose flow may be decided otherwise than it was, or of which rules of before said something, if there
    /// still is one; after [`Chosen::begin_turn`], with the same `end`.
    pub fn next<'p>(
        &mut self,
        now: Instant,
        end: u32,
        policy_of: impl Fn(u32) -> Option<&'p Policy>,
    ) -> Option<(FlowIndex, Facts)> {
        while self.left > 0 {
            self.left -= 1;
            let place = self.next;
            self.next = if place + 1 >= end { 0 } else { place + 1 };
            if self.next == 0 {
                self.rounds_of_all = self.rounds_of_all.saturating_sub(1);
            }
            let Some(facts) = self.facts.get(place as usize).copied() else { continue };
            if facts.fingerprint == 0 || facts.look == CLOSED && self.rounds_of_all == 0 {
                continue;
            }
            match policy_of(facts.fingerprint).filter(|_| self.are_of_now(&facts)) {
                Some(_) if facts.look == CLOSED => {}
                // Its age is known here, and needs no look at the flow.
                Some(policy)
                    if !policy.counts
                        && policy.holds_still(
                            &facts,
                            &Measures { age: facts.age(now), ..Measures::default() },
                        ) => {}
                Some(_) => return Some((FlowIndex(place), facts)),
                None => {
                    // Until there is none.
                    self.rounds_of_all = ROUNDS_OF_ALL;
                    return Some((FlowIndex(place), facts));
                }
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
