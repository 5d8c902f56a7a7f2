//! Digests: whether two members have the same flows of a shard (REQ B5, B6).
//!
//! Every flow that peers know, or that a peer told of, has a sum of all that is mirrored of it; a shard's digest is the sum
//! of its flows' sums, and their number. So a digest follows each flow that is told, taken in or ended in a few steps, in
//! whatever order that happens. On the active a flow's sum is made anew when its record is written, on a standby when one was
//! applied: from the table, not from the record.
//!
//! While nothing of a shard waits or is on its way to a peer ([`Sync::is_settled`](super::sync::Sync::is_settled)), its digest is
//! the peer's. The active asks, some shards in a frame, at a slow rate ([`Asking`](super::asking::Asking)). The peer answers as it answers any record:
//! its acknowledgement agrees, a refusal does not. Then the shard is walked again.
//!
//! What nobody told, a fault of this machine's memory say, no digest sees by itself. So each side goes over its table,
//! some places at a time, and makes all sums anew ([`Digests::audit`]). What has changed, come or gone behind the mirror's back
//! is then a difference like any other.
//!
//! Of a peer that tracks certain virtual servers only ([`Digests::track`]), digests are kept of their flows alone: out of the same
//! sums, at the same moments, whoever leads. So what is kept of a part is right as soon as a walk has named all of it.

use crate::base::ids::{ShardId, VirtualServerId};
use crate::base::limits::{MEMBERS_MAX, SHARDS};
use crate::base::memory::{NoMemory, Slab};
use crate::base::time::Instant;
use crate::flow::entry::{Flow, FlowFlags};
use crate::flow::key::Key;
use crate::flow::layout::{Hot, Names};
use crate::flow::table::Table;
use crate::flow::{Direction, FlowIndex, TcpState};
use crate::mirror::Variant;
use crate::seal::Tracked;

/// Places looked over for each millisecond that has passed: ten million in less than three minutes.
const PLACES_PER_MILLI: u64 = 64;
/// Places looked over in one call at most.
const PLACES_PER_CALL: u64 = 1024;

/// A digest: of all flows of a shard that are mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Of their sums, modulo 2^64.
    pub sum: u64,
    /// How many they are.
    pub flows: u32,
}

/// The digests of a worker's shards, and the sums that they are made of.
pub struct Digests {
    /// For each place in the table the sum of its flow, its shard in the highest eight bits; 0: the flow was never told.
    sums: Slab<u64>,
    shards: Vec<Digest>,
    parts: Vec<Part>,
    /// For each place bit i: its flow counts in part i.
    parts_of: Slab<u8>,
    /// Bit i: part i is in use, or it was and places may say so.
    parts_used: u8,
    audit_at: Instant,
    audited: u32,
    ignores_state: bool,
}

/// The digests of the flows of certain virtual servers.
struct Part {
    tracked: Tracked,
    shards: Vec<Digest>,
}

/// Parts of which digests are kept at once. There are fewer peers.
const PARTS: usize = u8::BITS as usize;
const _: () = assert!(MEMBERS_MAX <= PARTS);

/// Where the shard stands in a sum.
const SHARD_SHIFT: u32 = 56;
const _: () = assert!(SHARDS <= 1 << (u64::BITS - SHARD_SHIFT));

impl Digests {
    /// Of no flow, with room for so many.
    pub fn new(capacity: u32, variant: Variant) -> Result<Digests, NoMemory> {
        let parts_of = Slab::new(capacity as usize)?;
        // It is first written when a peer comes, while packets are forwarded.
        parts_of.populate();
        let part = || Part { tracked: Tracked::ALL, shards: vec![Digest::default(); SHARDS] };
        Ok(Digests {
            sums: Slab::new(capacity as usize)?,
            shards: vec![Digest::default(); SHARDS],
            parts: (0..PARTS).map(|_| part()).collect(),
            parts_of,
            parts_used: 0,
            audit_at: Instant::ZERO,
            audited: 0,
            ignores_state: variant == Variant::DigestIgnoresState,
        })
    }

    /// Has memory put behind all sums.
    pub fn populate(&self) {
        self.sums.populate();
    }

    /// From now on digests are kept of these parts, one for each peer that tracks a part only. Those that were kept before
    /// go on; the flows of others have yet to be noted.
    pub fn track(&mut self, wanted: &[Tracked]) {
        for part in self.parts.iter_mut().filter(|part| !wanted.contains(&part.tracked)) {
            part.tracked = Tracked::ALL;
        }
        for tracked in wanted.iter().filter(|tracked| tracked.is_partial()) {
            if self.parts.iter().any(|part| part.tracked == *tracked) {
                continue;
            }
            // One that was never used, as long as there is one.
            let free = |at: &usize| !self.parts[*at].tracked.is_partial();
            let unused = |at: &usize| self.parts_used >> at & 1 == 0;
            let Some(at) = (0..PARTS).find(unused).or_else(|| (0..PARTS).find(free)) else { return };
            if !unused(&at) {
                self.parts_of.iter_mut().for_each(|parts| *parts &= !(1 << at));
            }
            self.parts_used |= 1 << at;
            self.parts[at].tracked = *tracked;
            self.parts[at].shards.fill(Digest::default());
        }
    }

    /// The digest of a shard, of the flows that a peer tracks; `None`: of this part none is kept.
    pub fn of_tracked(&self, tracked: &Tracked, shard: ShardId) -> Option<Digest> {
        if !tracked.is_partial() {
            return Some(self.of(shard));
        }
        let part = self.parts.iter().find(|part| part.tracked == *tracked)?;
        part.shards.get(usize::from(shard.0)).copied()
    }

    /// The digest of a shard.
    pub fn of(&self, shard: ShardId) -> Digest {
        self.shards.get(usize::from(shard.0)).copied().unwrap_or_default()
    }

    /// The shard of the flow at a place, if it counts.
    #[inline]
    pub fn shard_at(&self, place: FlowIndex) -> Option<ShardId> {
        let sum = *self.sums.get(place.slot())?;
        (sum != 0).then_some(ShardId((sum >> SHARD_SHIFT) as u16))
    }

    /// The flow at a place was told, or taken in, as it is in the table.
    #[inline]
    pub fn note(&mut self, table: &Table, place: FlowIndex) {
        match table.named(place) {
            Some((hot, names)) if hot.flags().contains(FlowFlags::MIRRORED) => {
                self.note_named(table, place, hot, &names);
            }
            Some(_) | None => self.forget(place),
        }
    }

    /// As [`Digests::note`], with what [`Table::named`] gave.
    #[inline]
    pub fn note_named(&mut self, table: &Table, place: FlowIndex, hot: &Hot, names: &Names) {
        let state = if self.ignores_state { 0 } else { state_number(hot.tcp_number()) };
        let sum = match sum_v4(hot, names, state) {
            Some(sum) => sum,
            None => match table.get(place) {
                Some(flow) => sum_wide(&flow, state),
                None => return self.forget(place),
            },
        };
        // Never 0, which says that there is none.
        let sum = (sum >> (u64::BITS - SHARD_SHIFT)) | 1 | u64::from(hot.shard().0) << SHARD_SHIFT;
        if self.parts_used != 0 {
            self.count_in_parts(place, sum, Some(names.virtual_server));
        }
        self.put(place, sum);
    }

    /// The flow at a place has left it.
    #[inline]
    pub fn forget(&mut self, place: FlowIndex) {
        if self.parts_used != 0 {
            self.count_in_parts(place, 0, None);
        }
        self.put(place, 0);
    }

    /// The flow at a place, of this virtual server, is about to have another sum.
    #[cold]
    fn count_in_parts(&mut self, place: FlowIndex, sum: u64, of: Option<VirtualServerId>) {
        let before = self.sums.get(place.slot()).copied().unwrap_or_default();
        let Some(kept) = self.parts_of.get_mut(place.slot()) else { return };
        let was = core::mem::take(kept);
        for (at, part) in self.parts.iter_mut().enumerate().filter(|(_, part)| part.tracked.is_partial()) {
            if was >> at & 1 == 1 {
                leave(&mut part.shards, before);
            }
            if of.is_some_and(|of| part.tracked.has(of)) {
                enter(&mut part.shards, sum);
                *kept |= 1 << at;
            }
        }
    }

    #[inline]
    fn put(&mut self, place: FlowIndex, sum: u64) {
        let Some(kept) = self.sums.get_mut(place.slot()) else { return };
        let before = core::mem::replace(kept, sum);
        if before == sum {
            return;
        }
        if before != 0 {
            leave(&mut self.shards, before);
        }
        if sum != 0 {
            enter(&mut self.shards, sum);
        }
    }

    /// Asks for the line that [`Digests::note`] and [`Digests::forget`] will need.
    #[inline(always)]
    pub fn prefetch(&self, place: FlowIndex) {
        self.sums.prefetch_write(place.slot());
        if self.parts_used != 0 {
            self.parts_of.prefetch_write(place.slot());
        }
    }

    /// What is kept is to be right without.
    #[cfg(test)]
    pub fn audit_nothing(&mut self) {
        self.audit_at = Instant::from_millis(1 << 40);
    }

    /// Goes over some places of the table, as many as are due: each flow counts as it is now, also one that was never told.
    /// Where that is news, either the flow waits to be told, or nobody knew.
    pub fn audit(&mut self, now: Instant, table: &Table) {
        let millis = (now - self.audit_at).millis();
        if millis == 0 {
            return;
        }
        self.audit_at = now;
        // Without peers there is room for none.
        let end = table.places_end().0.min(self.sums.len() as u32);
        let places = (millis * PLACES_PER_MILLI).min(PLACES_PER_CALL).min(end.into()) as u32;
        for _ in 0..places {
            let place = FlowIndex(self.audited);
            self.audited = if place.0 + 1 >= end { 0 } else { place.0 + 1 };
            self.note(table, place);
        }
    }
}

#[inline]
fn enter(shards: &mut [Digest], sum: u64) {
    let digest = &mut shards[(sum >> SHARD_SHIFT) as usize % SHARDS];
    digest.sum = digest.sum.wrapping_add(sum);
    digest.flows += 1;
}

#[inline]
fn leave(shards: &mut [Digest], sum: u64) {
    let digest = &mut shards[(sum >> SHARD_SHIFT) as usize % SHARDS];
    digest.sum = digest.sum.wrapping_sub(sum);
    digest.flows -= 1;
}

/// As a peer is told of it.
fn state_number(number: u8) -> u8 {
    TcpState::from_number(number).map_or(number, |state| state.after_takeover().number())
}

/// Odd numbers without a pattern: digits of pi.
const SALTS: [u64; 8] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6d,
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
];

/// Both halves of a product of 128 bits.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

/// The sum of an IPv4 flow; `None` of others. Its images are its whole keys.
#[inline]
fn sum_v4(hot: &Hot, names: &Names, state: u8) -> Option<u64> {
    let [client, server] = [Direction::FromClient, Direction::FromServer].map(|way| hot.image(way));
    if !client.is_v4() || !server.is_v4() {
        return None;
    }
    let [a, b, c, d, ..] = SALTS;
    let keys = fold(client.0 ^ a, client.1 ^ b) ^ fold(server.0 ^ c, server.1 ^ d).rotate_left(17);
    Some(finish(keys, names, hot.flags(), state))
}

/// The sum of any other flow.
#[cold]
fn sum_wide(flow: &Flow, state: u8) -> u64 {
    let names = Names {
        virtual_server: flow.virtual_server,
        pool: flow.pool,
        server_id: flow.server_id,
        changed: flow.changed,
    };
    let keys = sum_of_key(&flow.client) ^ sum_of_key(&flow.server).rotate_left(17);
    finish(keys, &names, flow.flags, state)
}

fn sum_of_key(key: &Key) -> u64 {
    let [a, b, c, d, e, f, ..] = SALTS;
    let words = |octets: [u8; 16]| {
        let bits = u128::from_be_bytes(octets);
        (bits as u64, (bits >> 64) as u64)
    };
    let (src, dst) = (words(key.src.octets()), words(key.dst.octets()));
    let ports = u64::from(key.src_port) << 48
        | u64::from(key.dst_port) << 32
        | u64::from(key.vlan) << 16
        | u64::from(key.protocol);
    let families = u64::from(key.src.is_v4()) | u64::from(key.dst.is_v4()) << 1;
    fold(fold(src.0 ^ a, src.1 ^ b) ^ e, fold(dst.0 ^ c, dst.1 ^ d) ^ f)
        ^ fold(ports ^ b, families ^ d).rotate_left(29)
}

/// What is mirrored of a flow besides its keys.
#[inline(always)]
fn finish(keys: u64, names: &Names, flags: FlowFlags, state: u8) -> u64 {
    let [a, .., e, f, g, h] = SALTS;
    let full_nat = u64::from(flags.contains(FlowFlags::FULL_NAT));
    let chosen = u64::from(flags.contains(FlowFlags::CHOSEN));
    let ids = u64::from(names.virtual_server.0) << 32 | u64::from(names.pool.0);
    let server = u64::from(names.server_id.0) << 32 | u64::from(names.changed.term.node.0) << 16;
    let facts = server | u64::from(state) << 8 | chosen << 1 | full_nat;
    let stamp = fold(names.changed.version.0 ^ g, names.changed.term.counter ^ h);
    fold(keys ^ fold(ids ^ e, facts ^ f) ^ stamp.rotate_left(41), a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{NodeId, PoolId, ServerId, Version, VirtualServerId};
    use crate::flow::key::{Address, TCP, UDP};
    use crate::flow::table::Insert;

    fn digest_of(flow: &Flow) -> Digest {
        let mut table = Table::new(1, 1).expect("memory");
        let Insert::Done(place) = table.insert(flow) else { panic!("there is room") };
        let mut digests = Digests::new(1, Variant::Sound).expect("memory");
        digests.note(&table, place);
        digests.of(flow.shard)
    }

    fn flow(v6: bool) -> Flow {
        let address = |n| if v6 { Address::v6([n; 16]) } else { Address::v4([n, 1, 2, 3]) };
        let client =
            Key { src: address(1), dst: address(2), src_port: 1000, dst_port: 80, vlan: 7, protocol: TCP };
        let server = Key { src: address(3), dst: address(4), src_port: 8080, vlan: 0, ..client };
        let mut flow = Flow::new(client, server, TcpState::Established);
        (flow.shard, flow.flags) = (ShardId(9), FlowFlags::MIRRORED);
        flow
    }

    /// With the bit of each octet's and number's highest and lowest end.
    #[test]
    fn whatever_is_mirrored_of_a_flow_of_either_family_counts() {
        let flip = |address: Address, at: usize| match address.v4_octets() {
            Some(mut octets) => {
                octets[at % 4] ^= 0x81;
                Address::v4(octets)
            }
            None => {
                let mut octets = address.octets();
                octets[at] ^= 0x81;
                Address::v6(octets)
            }
        };
        for v6 in [false, true] {
            let whole = flow(v6);
            let mut others = Vec::new();
            for at in 0..if v6 { 16 } else { 4 } {
                for end in 0..4 {
                    let mut other = whole;
                    let key = if end < 2 { &mut other.client } else { &mut other.server };
                    let address = if end % 2 == 0 { &mut key.src } else { &mut key.dst };
                    *address = flip(*address, at);
                    others.push(other);
                }
            }
            let mut change = |change: &dyn Fn(&mut Flow)| {
                let mut other = whole;
                change(&mut other);
                others.push(other);
            };
            for bits in [1, 1 << 15] {
                change(&|flow| flow.client.src_port ^= bits);
                change(&|flow| flow.client.dst_port ^= bits);
                change(&|flow| flow.server.src_port ^= bits);
                change(&|flow| flow.server.dst_port ^= bits);
                change(&|flow| flow.changed.term.node = NodeId(bits));
            }
            for bits in [1, 1 << 31] {
                change(&|flow| flow.virtual_server = VirtualServerId(bits));
                change(&|flow| flow.pool = PoolId(bits));
                change(&|flow| flow.server_id = ServerId(bits));
            }
            for bits in [1, 1 << 47] {
                change(&|flow| flow.changed.version = Version(bits));
                change(&|flow| flow.changed.term.counter = bits);
            }
            change(&|flow| flow.client.vlan = 8);
            change(&|flow| flow.client.protocol = UDP);
            change(&|flow| flow.flags = flow.flags.with(FlowFlags::FULL_NAT));
            change(&|flow| flow.flags = flow.flags.with(FlowFlags::CHOSEN));
            change(&|flow| flow.tcp = TcpState::Closed);
            let mut sums: Vec<u64> = others.iter().chain([&whole]).map(|flow| digest_of(flow).sum).collect();
            let count = sums.len();
            sums.sort_unstable();
            sums.dedup();
            assert_eq!(sums.len(), count, "IPv6: {v6}");
        }
        assert_eq!(digest_of(&flow(true)).flows, 1);
    }
}
