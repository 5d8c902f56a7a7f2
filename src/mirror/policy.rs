//! Which flows are mirrored, and why (REQ A8).
//!
//! A virtual server's rules are asked in their order, and the first one that holds decides; where none does, the flow is
//! mirrored. What of a rule a flow's first packets show (client, ports, code point, payload) holds for its whole life or never,
//! and is kept as a bit for each rule ([`Facts`]). The rest (age, bytes, packets, rate) is asked again and again, by
//! [`Chosen::next`], which goes over the places of the table at a bounded rate. No packet of a settled flow has a part in this.
//!
//! Facts count for the flow for which they were noted, and under the rules under which it began. Without them, that is after
//! a takeover and after other rules were read, a flow stays what it is. An operator's word for one flow
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
    /// It may be decided otherwise later.
    is_open: u8,
    /// Peers were told of it, and then that it ended, though it did not.
    was_told: u8,
    unused: [u8; 5],
}

const _: () = assert!(size_of::<Facts>() == 32);

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
        (self.rule, self.is_open) = (decision.rule, u8::from(!decision.is_final));
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
}

impl Chosen {
    /// For so many flows.
    pub fn new(capacity: u32) -> Result<Chosen, NoMemory> {
        let facts = Slab::new(capacity as usize)?;
        Ok(Chosen { facts, is_used: false, looked_at: Instant::ZERO, left: 0, next: 0 })
    }

    /// Has memory put behind it.
    pub fn populate(&self) {
        self.facts.populate();
    }

    /// Notes what is known of the flow at a place.
    pub fn put(&mut self, place: FlowIndex, facts: Facts) {
        if let Some(slot) = self.facts.get_mut(place.slot()) {
            *slot = facts;
            self.is_used = true;
        }
    }

    /// What is known of the flow at a place, which is this one.
    pub fn of(&self, place: FlowIndex, shard: ShardId, created: Version) -> Option<Facts> {
        if !self.is_used {
            return None; // No memory is touched for nothing.
        }
        self.facts.get(place.slot()).copied().filter(|facts| facts.are_of(shard, created))
    }

    /// The flow at a place counts from another version on.
    pub fn renamed(&mut self, place: FlowIndex, shard: ShardId, before: Version, now: Version) {
        if let Some(facts) = self.of(place, shard, before) {
            self.put(place, Facts { tenant: tenant(shard, now), ..facts });
        }
    }

    /// Peers were told that the flow at a place ended, which is this one and did not.
    pub fn note_told(&mut self, place: FlowIndex, shard: ShardId, created: Version) {
        let facts = self.of(place, shard, created).unwrap_or_default();
        self.put(place, Facts { was_told: 1, ..facts.named(shard, created) });
    }

    /// The place is looked at no more.
    pub fn close(&mut self, place: FlowIndex) {
        if let Some(facts) = self.facts.get_mut(place.slot()) {
            facts.is_open = 0;
        }
    }

    /// So many places may be looked over in this turn, of those before `end`.
    pub fn begin_turn(&mut self, now: Instant, end: u32) {
        let millis = (now - self.looked_at).millis();
        if millis > 0 {
            self.looked_at = now;
        }
        self.left = (millis * PLACES_PER_MILLI).min(PLACES_PER_TURN).min(end.into()) as u32;
        if self.next >= end {
            self.next = 0;
        }
    }

    /// The next place whose flow may be decided otherwise than it was, if there still is one; after
    /// [`Chosen::begin_turn`], with the same `end`.
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
            let Some(facts) = self.facts.get(place as usize).copied().filter(|facts| facts.is_open != 0)
            else {
                continue;
            };
            let Some(policy) = policy_of(facts.fingerprint) else {
                self.close(FlowIndex(place));
                continue;
            };
            if !policy.counts {
                // Its age is known here, and needs no look at the flow.
                let age = Measures { age: facts.age(now), ..Measures::default() };
                let decision = policy.decide(&facts, &age);
                if decision.rule == facts.rule && !decision.is_final {
                    continue;
                }
            }
            return Some((FlowIndex(place), facts));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::checked::Cidr;
    use crate::flow::Address;
    use crate::flow::key::TCP;

    const ID: VirtualServerId = VirtualServerId(7);

    fn rule(mirror: bool) -> Rule {
        Rule {
            mirror,
            clients: Vec::new(),
            client_ports: Vec::new(),
            server_ports: Vec::new(),
            dscp: 0,
            payload: None,
            duration_min: Duration::ZERO,
            bytes_min: 0,
            packets_min: 0,
            rate_min_kbit: 0,
        }
    }

    fn client() -> Key {
        let (src, dst) = (Address::v4([192, 0, 2, 9]), Address::v4([10, 1, 0, 100]));
        Key { src, dst, src_port: 40000, dst_port: 80, vlan: 0, protocol: TCP }
    }

    fn policy(rules: &[Rule]) -> Policy {
        Policy::new(ID, rules).expect("there are rules")
    }

    fn facts(policy: &Policy, payload: &[u8]) -> Facts {
        policy.facts(Instant::from_millis(5), &client(), 8080, FirstPacket { dscp: 46, payload })
    }

    fn after(millis: u64, packets: u64, bytes: u64) -> Measures {
        Measures { age: Duration::from_millis(millis), packets, bytes }
    }

    #[test]
    fn the_first_rule_that_holds_decides_and_it_is_known_whether_a_later_look_can_change_that() {
        let old = Rule { duration_min: Duration::from_millis(100), ..rule(true) };
        let many = Rule { packets_min: 5, ..rule(true) };
        let fast = Rule { rate_min_kbit: 8, ..rule(false) };
        let decided = |mirror, rule, is_final| Decision { mirror, rule, is_final };
        let none = after(0, 1, 40);
        for (rules, measures, expected) in [
            (&[rule(false)][..], none, decided(false, 1, true)),
            (&[old.clone(), rule(false)], none, decided(false, 2, false)),
            (&[old.clone(), rule(false)], after(99, 1, 40), decided(false, 2, false)),
            (&[old.clone(), rule(false)], after(100, 1, 40), decided(true, 1, true)),
            (&[many.clone()], none, decided(true, 0, false)),
            (&[many.clone()], after(0, 5, 40), decided(true, 1, true)),
            (&[many, old.clone(), rule(false)], after(100, 1, 40), decided(true, 2, false)),
            (&[fast.clone(), old.clone()], after(1000, 1, 999), decided(true, 2, false)),
            (&[fast.clone()], after(1000, 1, 1000), decided(false, 1, false)),
            // A burst at the beginning is not a rate.
            (&[fast.clone()], after(1, 1, 999), decided(true, 0, false)),
            (&[fast], after(2000, 1, 1999), decided(true, 0, false)),
            (&[Rule { bytes_min: 41, ..rule(false) }], none, decided(true, 0, false)),
            (&[Rule { dscp: 1 << 45, ..rule(false) }], none, decided(true, 0, true)),
            (&[Rule { dscp: 1 << 46, ..rule(false) }, old], none, decided(false, 1, true)),
        ] {
            let policy = policy(rules);
            assert_eq!(policy.decide(&facts(&policy, b""), &measures), expected, "{rules:?} {measures:?}");
        }
    }

    #[test]
    fn a_rule_holds_when_all_that_it_says_holds() {
        let network = |address: [u8; 4]| Cidr { address: address.into(), prefix_len: 24 };
        let ports = |first, last| vec![Ports { first, last }];
        let all = Rule {
            clients: vec![network([10, 0, 0, 0]), network([192, 0, 2, 0])],
            client_ports: ports(39999, 40000),
            server_ports: ports(8080, 8080),
            dscp: 1 << 46,
            ..rule(false)
        };
        let holds = |rule: &Rule| {
            let policy = policy(core::slice::from_ref(rule));
            policy.decide(&facts(&policy, b""), &Measures::default()).rule == 1
        };
        assert!(holds(&all));
        for lacking in [
            Rule { clients: vec![network([10, 0, 0, 0])], ..all.clone() },
            Rule { client_ports: ports(40001, 50000), ..all.clone() },
            Rule { server_ports: ports(80, 8079), ..all.clone() },
            Rule { dscp: 1 << 10, ..all.clone() },
        ] {
            assert!(!holds(&lacking), "{lacking:?}");
        }
    }

    #[test]
    fn a_payload_is_awaited_and_looked_at_once_and_not_beyond_its_first_bytes() {
        let pattern = |bytes: &[u8], at| Some(Pattern { bytes: bytes.to_vec(), at });
        let with = |payload| policy(&[Rule { payload, ..rule(false) }]);
        let begins = with(pattern(b"SSH", Some(0)));
        let mut waits = facts(&begins, b"");
        assert!(waits.awaits_payload() && !begins.decide(&waits, &Measures::default()).is_final);
        begins.note_payload(&mut waits, b"SSH-2.0");
        assert!(!waits.awaits_payload());
        assert_eq!(begins.decide(&waits, &Measures::default()).rule, 1);
        begins.note_payload(&mut waits, b"GET /");
        assert_eq!(begins.decide(&waits, &Measures::default()).rule, 1, "it was looked at");
        let mut given_up = facts(&begins, b"");
        given_up.give_up_payload();
        assert!(begins.decide(&given_up, &Measures::default()).is_final);
        let last = PAYLOAD_LOOKED_AT - 1;
        let text = [&[b'x'; PAYLOAD_LOOKED_AT - 1][..], b"yz"].concat();
        for (payload, holds) in [
            (pattern(b"y", None), true),
            (pattern(b"y", Some(last)), true),
            (pattern(b"y", Some(last - 1)), false),
            (pattern(b"yz", None), false),
            (pattern(b"z", None), false),
            (pattern(b"xx", Some(last - 2)), true),
        ] {
            let policy = with(payload.clone());
            let decision = policy.decide(&facts(&policy, &text), &Measures::default());
            assert_eq!((decision.rule == 1, decision.is_final), (holds, true), "{payload:?}");
        }
    }

    #[test]
    fn facts_count_for_the_flow_for_which_they_were_noted_alone() {
        let policy = policy(&[rule(false)]);
        let mut chosen = Chosen::new(4).expect("memory");
        let (place, shard) = (FlowIndex(2), ShardId(9));
        assert_eq!(chosen.of(place, ShardId(0), Version(0)), None, "nothing was noted");
        let known = facts(&policy, b"").named(shard, Version(5));
        chosen.put(place, known);
        chosen.put(FlowIndex(4), known); // There is no such place.
        assert_eq!(chosen.of(place, shard, Version(5)), Some(known));
        for (shard, version) in [(ShardId(8), Version(5)), (shard, Version(6))] {
            assert_eq!(chosen.of(place, shard, version), None);
            chosen.renamed(place, shard, version, Version(9));
        }
        chosen.renamed(place, shard, Version(5), Version(7));
        assert_eq!((chosen.of(place, shard, Version(5)), chosen.of(place, shard, Version(6))), (None, None));
        assert!(!chosen.of(place, shard, Version(7)).expect("they went along").was_told());
        chosen.note_told(place, shard, Version(7));
        let told = chosen.of(place, shard, Version(7)).expect("they are still there");
        assert!(told.was_told() && told.fingerprint() == policy.fingerprint());
        chosen.note_told(FlowIndex(1), shard, Version(3));
        assert!(chosen.of(FlowIndex(1), shard, Version(3)).expect("they are new").was_told());
    }

    #[test]
    fn each_place_is_looked_at_once_a_round_as_time_passes_and_no_more_when_all_is_decided() {
        let waits = policy(&[Rule { packets_min: 5, ..rule(false) }]);
        let (end, shard) = (3000u32, ShardId(1));
        let mut chosen = Chosen::new(end).expect("memory");
        for place in [0, 7, 1500, 2999] {
            let mut facts = facts(&waits, b"").named(shard, Version(1));
            facts.decided(waits.decide(&facts, &Measures::default()));
            chosen.put(FlowIndex(place), facts);
        }
        let look = |chosen: &mut Chosen, now: u64| -> Vec<u32> {
            let now = Instant::from_millis(now);
            chosen.begin_turn(now, end);
            let next = || chosen.next(now, end, |of| (of == waits.fingerprint()).then_some(&waits));
            std::iter::from_fn(next).map(|(place, _)| place.0).collect()
        };
        assert_eq!(look(&mut chosen, 1), [0, 7]);
        assert!(look(&mut chosen, 1).is_empty(), "no time has passed");
        assert_eq!(look(&mut chosen, 2), [1500]);
        assert_eq!(look(&mut chosen, 3), [2999, 0]);
        assert_eq!(look(&mut chosen, 100).len(), 4, "never more than a round");
        chosen.close(FlowIndex(7));
        assert_eq!(look(&mut chosen, 200).len(), 3);
        let unknown = |_| None;
        chosen.begin_turn(Instant::from_millis(300), end);
        assert!(chosen.next(Instant::from_millis(300), end, unknown).is_none(), "of rules that are gone");
        assert!(look(&mut chosen, 400).is_empty());
    }

    #[test]
    fn of_rules_about_age_alone_no_flow_is_looked_at_before_its_time() {
        let old = Rule { duration_min: Duration::from_millis(100), ..rule(true) };
        let policy = policy(&[old, rule(false)]);
        let mut chosen = Chosen::new(4).expect("memory");
        let mut facts = facts(&policy, b"").named(ShardId(1), Version(1));
        facts.decided(policy.decide(&facts, &Measures::default()));
        chosen.put(FlowIndex(1), facts);
        for (now, is_due) in [(50, false), (104, false), (105, true), (106, true)] {
            let now = Instant::from_millis(now);
            chosen.begin_turn(now, 4);
            assert_eq!(chosen.next(now, 4, |_| Some(&policy)).is_some(), is_due, "{now}");
        }
    }
}
