//! Source-NAT ports, which follow from the shard (DESIGN "Source-NAT ports").
//!
//! The candidates at an address are the 256 ports that keep the server's answers in
//! this shard, without the well-known ones. Every member owns a part of them, by
//! its rank in the group, and allocates only its own: so members cannot choose the
//! same port even while they cannot talk. A port can serve as many flows at a time
//! as there are servers: what must be unique is the server's side of the flow.
//!
//! Two things a process cannot remember over its death: which ports its last flows
//! had, and which ones were in quarantine. So its part is halved: each boot prefers
//! one half, in turn, and the other half, which the boot before preferred, rests
//! for one quarantine after the start. Only when a boot has used up its half (half of
//! 126 ports for each address, server and shard, in a pair) does it reach into the other.

use std::sync::Arc;

use crate::base::ids::ShardId;
use crate::base::limits::{SNAT_PORT_MIN, SNAT_PROBES_MAX};
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::flow::key::{Address, Key};
use crate::flow::toeplitz::Toeplitz;

/// What a port allocator is made of; the same for all shards of an appliance.
#[derive(Clone, Copy, Debug)]
pub struct PortSetup {
    /// Members of the group, at least 1.
    pub members: u8,
    /// This member's place among them in the order of their node ids, from 0.
    pub rank: u8,
    /// The half that this boot prefers: the lowest bit of a durable count of boots.
    /// `None`: there was no boot before, so nothing rests; it counts as `false`.
    pub boot_parity: Option<bool>,
    /// When this process started.
    pub booted: Instant,
    /// How long a port rests after its flow's end is acknowledged.
    pub quarantine: Duration,
    /// Resting ports at most, of all shards of a worker; then the oldest quarantine ends early.
    pub resting_max: u32,
}

/// A flow in want of a source-NAT address and port.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The flow's shard.
    pub shard: ShardId,
    /// The source-NAT addresses to take from. Those of the other family are passed over.
    pub snat: &'a [Address],
    /// The real server's address.
    pub server: Address,
    /// The real server's port.
    pub server_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The VLAN that the server's packets come in by; 0: untagged.
    pub vlan: u16,
}

impl Wanted<'_> {
    /// The key of the server's packets to a source-NAT address and port.
    pub const fn server_key(&self, address: Address, port: u16) -> Key {
        Key {
            src: self.server,
            dst: address,
            src_port: self.server_port,
            dst_port: port,
            vlan: self.vlan,
            protocol: self.protocol,
        }
    }
}

/// What became of a request for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Allocation {
    /// This address and port. It is taken once a flow with it is in the table.
    Port(Address, u16),
    /// None of the ports that were looked at is free for this server.
    Exhausted,
}

/// Where the search for a free port begins: anywhere, with equal chance.
#[derive(Clone, Copy, Debug)]
pub struct Draw(u32);

impl Draw {
    /// A new one.
    pub fn new(rng: &mut Rng) -> Draw {
        Draw(rng.u32(..))
    }

    /// As a number below another one; `None`: there is none.
    fn below(self, total: u32) -> Option<u32> {
        (total > 0).then_some(((u64::from(self.0) * u64::from(total)) >> 32) as u32)
    }
}

/// How many candidates there are: each of these indices at each address.
const fn candidates(indices: &[u8], wanted: &Wanted<'_>) -> u32 {
    // At most 256 by the addresses that a configuration can name: far below the limit.
    (indices.len() * wanted.snat.len()) as u32
}

/// The source-NAT ports of one member, in all shards. Which of them are in use or at rest is not its affair: so it is the
/// same for all of a worker's flows, and small.
pub struct PortAllocator {
    toeplitz: Arc<Toeplitz>,
    /// Own candidates, as indices of the shard's ports.
    preferred: Vec<u8>,
    /// The half that the boot before preferred.
    other: Vec<u8>,
    other_rests_until: Instant,
    members: u8,
    rank: u8,
}

impl PortAllocator {
    /// The allocator of a member.
    pub fn new(toeplitz: Arc<Toeplitz>, setup: &PortSetup) -> PortAllocator {
        let members = setup.members.max(1);
        let own = (0..=u8::MAX).filter(|index| index % members == setup.rank);
        let prefers_odd = setup.boot_parity.unwrap_or(false);
        let (preferred, other) = own.partition(|index| (index / members % 2 == 1) == prefers_odd);
        let other_rests_until = match setup.boot_parity {
            Some(_) => setup.booted + setup.quarantine,
            None => Instant::ZERO,
        };
        let rank = setup.rank;
        PortAllocator { toeplitz, preferred, other, other_rests_until, members, rank }
    }

    /// The key that [`PortAllocator::allocate`] looks at first with this draw: so that whoever makes many flows can
    /// ask for what the look will need. `None`: there is no such candidate.
    pub fn first_choice(&self, draw: Draw, wanted: &Wanted<'_>) -> Option<Key> {
        let total = candidates(&self.preferred, wanted);
        let (address, port) = self.candidate(&self.preferred, draw.below(total)?, wanted)?;
        Some(wanted.server_key(address, port))
    }

    /// Finds a free port, from the drawn place on. `in_use` says whether a flow has a
    /// server-side key, or one that ended and whose port rests. Looks at [`SNAT_PROBES_MAX`]
    /// candidates of each half at most.
    pub fn allocate(
        &self,
        now: Instant,
        draw: Draw,
        wanted: &Wanted<'_>,
        in_use: impl Fn(&Key) -> bool,
    ) -> Allocation {
        let found = self.probe(&self.preferred, draw, wanted, &in_use);
        let found = match found {
            None if now >= self.other_rests_until => self.probe(&self.other, draw, wanted, &in_use),
            found => found,
        };
        found.map_or(Allocation::Exhausted, |(address, port)| Allocation::Port(address, port))
    }

    fn probe(
        &self,
        indices: &[u8],
        draw: Draw,
        wanted: &Wanted<'_>,
        in_use: &impl Fn(&Key) -> bool,
    ) -> Option<(Address, u16)> {
        let total = candidates(indices, wanted);
        let mut number = draw.below(total)?;
        for _ in 0..total.min(SNAT_PROBES_MAX as u32) {
            if let Some((address, port)) = self.candidate(indices, number, wanted) {
                let key = wanted.server_key(address, port);
                if !in_use(&key) {
                    return Some((address, port));
                }
            }
            number = if number + 1 == total { 0 } else { number + 1 };
        }
        None
    }

    /// A candidate by its number; neighbouring numbers are at different addresses. `None`: it is of the other family,
    /// or a well-known port.
    fn candidate(&self, indices: &[u8], number: u32, wanted: &Wanted<'_>) -> Option<(Address, u16)> {
        let addresses = wanted.snat.len() as u32;
        let address = *wanted.snat.get((number % addresses) as usize)?;
        let index = *indices.get((number / addresses) as usize)?;
        if address.is_v4() != wanted.server.is_v4() {
            return None;
        }
        let port = self.toeplitz.ports_of(address, wanted.shard).at(index);
        (port >= SNAT_PORT_MIN).then_some((address, port))
    }

    /// Whether a source-NAT address and port belong to a shard and to this
    /// member's part of it.
    pub fn owns(&self, shard: ShardId, address: Address, port: u16) -> bool {
        let index = self.toeplitz.ports_of(address, shard).index_of(port);
        index.is_some_and(|index| index % self.members == self.rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::key::TCP;
    use crate::flow::toeplitz::MICROSOFT_KEY;
    use std::cell::RefCell;
    use std::collections::HashSet;

    const QUARANTINE: Duration = Duration::from_secs(60);
    const SHARD: ShardId = ShardId(77);
    const SNAT: [Address; 2] = [Address::v4([10, 2, 0, 100]), Address::v4([10, 2, 0, 101])];

    fn setup() -> PortSetup {
        PortSetup {
            members: 2,
            rank: 0,
            boot_parity: None,
            booted: at(1000),
            quarantine: QUARANTINE,
            resting_max: 1000,
        }
    }

    fn allocator(setup: &PortSetup) -> PortAllocator {
        let toeplitz = Toeplitz::new(&MICROSOFT_KEY).expect("a good key");
        PortAllocator::new(Arc::new(toeplitz), setup)
    }

    fn wanted(snat: &[Address]) -> Wanted<'_> {
        Wanted {
            shard: SHARD,
            snat,
            server: Address::v4([10, 2, 0, 10]),
            server_port: 80,
            protocol: TCP,
            vlan: 0,
        }
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    /// Allocates at a time until nothing is left; the keys of what it got.
    fn drain(ports: &PortAllocator, now: Instant, wanted: &Wanted<'_>) -> HashSet<Key> {
        let used = RefCell::new(HashSet::new());
        let mut rng = Rng::with_seed(1);
        while let Allocation::Port(address, port) =
            ports.allocate(now, Draw::new(&mut rng), wanted, |key| used.borrow().contains(key))
        {
            assert!(used.borrow_mut().insert(wanted.server_key(address, port)), "given out twice");
        }
        used.into_inner()
    }

    #[test]
    fn a_port_keeps_the_servers_answers_in_the_shard_and_is_never_a_well_known_one() {
        let ports = allocator(&setup());
        let toeplitz = Toeplitz::new(&MICROSOFT_KEY).expect("a good key");
        let all = drain(&ports, at(2000), &wanted(&SNAT));
        assert!(all.len() > 240, "{} ports at two addresses", all.len());
        for key in &all {
            assert_eq!(toeplitz.shard_of(key.dst, key.dst_port), SHARD);
            assert!(key.dst_port >= 1024 && SNAT.contains(&key.dst));
            assert!(ports.owns(SHARD, key.dst, key.dst_port));
        }
    }

    #[test]
    fn members_parts_are_disjoint_and_together_complete() {
        for members in 1..=4 {
            let mut union = HashSet::new();
            let mut sum = 0;
            for rank in 0..members {
                let part =
                    drain(&allocator(&PortSetup { members, rank, ..setup() }), at(2000), &wanted(&SNAT));
                sum += part.len();
                union.extend(part);
            }
            assert_eq!(union.len(), sum, "{members} members");
            let toeplitz = Toeplitz::new(&MICROSOFT_KEY).expect("a good key");
            let usable = SNAT.iter().flat_map(|address| toeplitz.ports_of(*address, SHARD).iter());
            assert_eq!(sum, usable.filter(|port| *port >= 1024).count());
        }
    }

    #[test]
    fn a_port_serves_several_servers_at_a_time() {
        let ports = allocator(&setup());
        let one = drain(&ports, at(2000), &wanted(&SNAT[..1]));
        let full = |key: &Key| one.contains(key);
        let mut rng = Rng::with_seed(2);
        let same = wanted(&SNAT[..1]);
        assert_eq!(ports.allocate(at(2000), Draw::new(&mut rng), &same, full), Allocation::Exhausted);
        let other = Wanted { server_port: 81, ..same };
        assert!(matches!(ports.allocate(at(2000), Draw::new(&mut rng), &other, full), Allocation::Port(..)));
    }

    #[test]
    fn addresses_of_the_other_family_are_passed_over() {
        let ports = allocator(&setup());
        let v6 = Address::from(core::net::Ipv6Addr::LOCALHOST);
        let mixed = [SNAT[0], v6];
        assert!(drain(&ports, at(2000), &wanted(&mixed)).iter().all(|key| key.dst == SNAT[0]));
        let to_v6 = Wanted { server: v6, ..wanted(&mixed) };
        let all = drain(&ports, at(2000), &to_v6);
        assert!(all.len() > 120 && all.iter().all(|key| key.dst == v6));
        assert!(drain(&ports, at(2000), &wanted(&[])).is_empty());
        assert!(drain(&ports, at(2000), &wanted(&[v6])).is_empty());
    }

    #[test]
    fn after_a_boot_the_half_that_the_boot_before_preferred_rests_for_one_quarantine() {
        let wanted = wanted(&SNAT[..1]);
        let first = allocator(&setup());
        let all = drain(&first, at(1000), &wanted);
        let second = allocator(&PortSetup { boot_parity: Some(true), ..setup() });
        let early = drain(&second, at(1059), &wanted);
        assert!(early.len() * 2 >= all.len() - 8 && early.len() * 2 <= all.len() + 8);
        assert_eq!(drain(&second, at(1060), &wanted), all);
        // The third boot begins with the other half.
        let third = allocator(&PortSetup { boot_parity: Some(false), ..setup() });
        let later = drain(&third, at(1059), &wanted);
        assert!(early.is_disjoint(&later));
        assert_eq!(early.len() + later.len(), all.len());
    }

    #[test]
    fn a_boot_stays_in_the_half_it_prefers_while_that_has_room() {
        let wanted = wanted(&SNAT[..1]);
        let resting = allocator(&PortSetup { boot_parity: Some(true), ..setup() });
        let preferred = drain(&resting, at(1000), &wanted);
        let mut rng = Rng::with_seed(3);
        for _ in 0..1000 {
            // Long after the boot's quarantine, all ports free.
            let Allocation::Port(address, port) =
                resting.allocate(at(9000), Draw::new(&mut rng), &wanted, |_| false)
            else {
                panic!("all ports are free");
            };
            assert!(preferred.contains(&wanted.server_key(address, port)));
        }
    }

    #[test]
    fn ports_are_not_given_out_in_a_predictable_order() {
        let ports = allocator(&setup());
        let mut rng = Rng::with_seed(4);
        let seen: HashSet<_> = (0..200)
            .map(|_| match ports.allocate(at(2000), Draw::new(&mut rng), &wanted(&SNAT), |_| false) {
                Allocation::Port(address, port) => (address, port),
                Allocation::Exhausted => panic!("all ports are free"),
            })
            .collect();
        assert!(seen.len() > 50, "{} different of 200", seen.len());
    }
}
