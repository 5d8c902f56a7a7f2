//! One shard as one owned object: its flows, its order of changes, its source-NAT
//! ports, its last-seen array. Moving a shard to another worker is moving this object. What other rooms
//! keep for each flow of a shard (acknowledged versions, say) they keep in arrays
//! of their own, [`Shard::capacity`] long and indexed by [`FlowIndex`](crate::flow::FlowIndex).

use std::sync::Arc;

use crate::base::ids::{ShardId, Version, WorkerId};
use crate::flow::aging::LastSeen;
use crate::flow::key::KeyHash;
use crate::flow::ports::{PortAllocator, PortSetup};
use crate::flow::table::Table;
use crate::flow::toeplitz::Toeplitz;

/// What a shard is made of.
#[derive(Clone, Debug)]
pub struct ShardSetup {
    /// Which one.
    pub id: ShardId,
    /// Flows at most.
    pub capacity: u32,
    /// Seed of the index's hash: from the operating system in production.
    pub hash_seed: u64,
    /// The hash that members share.
    pub toeplitz: Arc<Toeplitz>,
    /// How source-NAT ports are divided and rest.
    pub ports: PortSetup,
}

/// The worker that owns a shard on an appliance with so many workers.
pub const fn owner_of(shard: ShardId, workers: u16) -> WorkerId {
    WorkerId(shard.0 % workers)
}

/// One of the shards that divide all flows.
pub struct Shard {
    /// Which one.
    pub id: ShardId,
    /// Its flows.
    pub table: Table,
    /// Its source-NAT ports.
    pub ports: PortAllocator,
    /// When each was last seen; the master's sweep has a clone.
    pub last_seen: LastSeen,
    version: Version,
}

impl Shard {
    /// An empty shard. Its versions begin at 1.
    pub fn new(setup: &ShardSetup) -> Shard {
        let hash = KeyHash::with_seed(setup.hash_seed);
        let table = Table::new(setup.capacity, hash.clone());
        let ports = PortAllocator::new(setup.id, Arc::clone(&setup.toeplitz), &setup.ports, hash);
        let last_seen = LastSeen::new(table.capacity());
        Shard { id: setup.id, table, ports, last_seen, version: Version(0) }
    }

    /// Flows at most.
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// A new place in the order of changes, later than all before it.
    pub fn next_version(&mut self) -> Version {
        self.version.0 += 1;
        self.version
    }

    /// A peer used this place: the next one given out here is later.
    pub fn saw_version(&mut self, version: Version) {
        self.version = self.version.max(version);
    }

    /// The latest place given out or seen; 0: none yet.
    pub const fn version(&self) -> Version {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::base::time::{Duration, Instant};
    use crate::flow::aging::{Age, TimeoutClass, Timeouts};
    use crate::flow::key::{Address, TCP};
    use crate::flow::ports::{Allocation, Wanted};
    use crate::flow::table::Insert;
    use crate::flow::toeplitz::MICROSOFT_KEY;
    use crate::flow::{Flow, FlowIndex, Key, TcpState};

    fn shard(id: ShardId, capacity: u32) -> Shard {
        let ports = PortSetup {
            members: 2,
            rank: 0,
            boot_parity: None,
            booted: Instant::ZERO,
            quarantine: Duration::from_secs(60),
            resting_max: capacity,
        };
        let toeplitz = Arc::new(Toeplitz::new(&MICROSOFT_KEY).expect("a good key"));
        Shard::new(&ShardSetup { id, capacity, hash_seed: 1, toeplitz, ports })
    }

    #[test]
    fn versions_are_given_out_once_and_in_order() {
        let mut shard = shard(ShardId(7), 4);
        assert_eq!(shard.version(), Version(0));
        assert_eq!((shard.next_version(), shard.next_version()), (Version(1), Version(2)));
        assert_eq!(shard.version(), Version(2));
    }

    #[test]
    fn every_place_of_the_table_has_a_last_seen_word() {
        let shard = shard(ShardId(7), 4);
        let none = Duration::ZERO;
        let timeouts = Timeouts { handshake: none, established: none, closing: none, datagram: none };
        let last = FlowIndex(shard.capacity() - 1);
        shard.last_seen.touch(last, TimeoutClass::Datagram, Instant::ZERO);
        assert_eq!(shard.last_seen.judge(last, Instant::from_millis(500), &timeouts), Age::Expired);
        assert_eq!(shard.table.lookup(&Key::default()), None);
    }

    /// Many clients through full NAT: whatever shard a client's packets belong to, the
    /// server's answers belong to it too, and find the flow.
    #[test]
    fn both_directions_of_a_flow_meet_in_one_shard() {
        let toeplitz = Toeplitz::new(&MICROSOFT_KEY).expect("a good key");
        let mut rng = Rng::with_seed(5);
        let snat = [Address::v4([10, 2, 0, 100])];
        for _ in 0..300 {
            let client = Key {
                src: Address::v4(rng.u32(..).to_be_bytes()),
                dst: Address::v4([10, 1, 0, 100]),
                src_port: rng.u16(1024..),
                dst_port: 80,
                vlan: 0,
                protocol: TCP,
            };
            let mut shard = shard(toeplitz.shard_of(client.src, client.src_port), 4);
            let server = Address::v4([10, 2, 0, 10]);
            let wanted = Wanted { snat: &snat, server, server_port: 8080, protocol: TCP, vlan: 0 };
            let table = &shard.table;
            let in_use = |key: &Key| table.lookup(key).is_some();
            let Allocation::Port(address, port) =
                shard.ports.allocate(Instant::ZERO, &mut rng, &wanted, in_use)
            else {
                panic!("all ports are free");
            };
            let answer = wanted.server_key(address, port);
            assert_eq!(toeplitz.shard_of(answer.dst, answer.dst_port), shard.id);
            let inserted = shard.table.insert(Flow::new(client, answer, TcpState::SynSeen));
            assert!(matches!(inserted, Insert::Done(_)));
            assert_eq!(
                shard.table.lookup(&answer).map(|found| found.0),
                shard.table.lookup(&client).map(|found| found.0)
            );
        }
    }
}
