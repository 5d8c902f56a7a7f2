//! All flows of one worker: one table, the last-seen ticks of its places, and the shards that the worker owns.
//! What other rooms keep for each flow (what a peer knows of it, say) they keep in arrays of their own,
//! [`Flows::capacity`] long and indexed by [`FlowIndex`](crate::flow::FlowIndex).

use std::sync::Arc;

use crate::base::ids::{ShardId, Version, WorkerId};
use crate::base::limits::SHARDS;
use crate::base::memory::NoMemory;
use crate::flow::aging::LastSeen;
use crate::flow::ports::PortSetup;
use crate::flow::shard::{Shard, ShardSetup, owner_of};
use crate::flow::table::Table;
use crate::flow::toeplitz::Toeplitz;

/// What a worker's flows are made of.
#[derive(Clone, Debug)]
pub struct FlowsSetup {
    /// Which worker.
    pub worker: WorkerId,
    /// How many there are.
    pub workers: u16,
    /// Flows at most, of this worker.
    pub capacity: u32,
    /// Seed of the hashes that no peer shares: from the operating system in production.
    pub hash_seed: u64,
    /// The hash that members share.
    pub toeplitz: Arc<Toeplitz>,
    /// How source-NAT ports are divided and rest.
    pub ports: PortSetup,
}

/// All flows of one worker.
pub struct Flows {
    /// The flows.
    pub table: Table,
    /// When each was last seen; the master's sweep has a clone.
    pub last_seen: LastSeen,
    shards: Vec<Option<Box<Shard>>>,
}

impl Flows {
    /// No flows, and the worker's shards.
    pub fn new(setup: &FlowsSetup) -> Result<Flows, NoMemory> {
        let shard = |id: ShardId| {
            Box::new(Shard::new(&ShardSetup {
                id,
                hash_seed: setup.hash_seed,
                toeplitz: Arc::clone(&setup.toeplitz),
                ports: setup.ports,
            }))
        };
        let owned = |id: ShardId| owner_of(id, setup.workers) == setup.worker;
        Ok(Flows {
            table: Table::new(setup.capacity, setup.hash_seed)?,
            last_seen: LastSeen::new(setup.capacity)?,
            shards: (0..SHARDS as u16).map(ShardId).map(|id| owned(id).then(|| shard(id))).collect(),
        })
    }

    /// Has memory put behind all that IPv4 flows need: that takes a second for every few gigabytes, and afterwards no
    /// packet waits for it.
    pub fn populate(&self) {
        self.table.populate();
        self.last_seen.populate();
    }

    /// Flows at most.
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// A shard, if the worker owns it.
    pub fn shard(&self, id: ShardId) -> Option<&Shard> {
        self.shards.get(usize::from(id.0))?.as_deref()
    }

    /// A shard, if the worker owns it.
    pub fn shard_mut(&mut self, id: ShardId) -> Option<&mut Shard> {
        self.shards.get_mut(usize::from(id.0))?.as_deref_mut()
    }

    /// A new place in a shard's order of changes. Of a shard that the worker does not own, there is none: 0.
    pub fn next_version(&mut self, id: ShardId) -> Version {
        self.shard_mut(id).map_or(Version(0), Shard::next_version)
    }

    /// The shards that the worker owns.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter_map(Option::as_deref)
    }

    /// The shards that the worker owns.
    pub fn shards_mut(&mut self) -> impl Iterator<Item = &mut Shard> {
        self.shards.iter_mut().filter_map(Option::as_deref_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::base::time::{Duration, Instant};
    use crate::flow::aging::{Age, TimeoutClass, Timeouts};
    use crate::flow::key::{Address, TCP};
    use crate::flow::ports::{Allocation, Draw, Wanted};
    use crate::flow::table::Insert;
    use crate::flow::toeplitz::MICROSOFT_KEY;
    use crate::flow::{Flow, FlowIndex, Key, TcpState};

    fn flows(worker: u16, workers: u16) -> Flows {
        let ports = PortSetup {
            members: 2,
            rank: 0,
            boot_parity: None,
            booted: Instant::ZERO,
            quarantine: Duration::from_secs(60),
            resting_max: 400,
        };
        let toeplitz = Arc::new(Toeplitz::new(&MICROSOFT_KEY).expect("a good key"));
        let worker = WorkerId(worker);
        let setup = FlowsSetup { worker, workers, capacity: 400, hash_seed: 1, toeplitz, ports };
        Flows::new(&setup).expect("memory")
    }

    #[test]
    fn every_place_of_the_table_has_a_last_seen_word() {
        let flows = flows(0, 1);
        let none = Duration::ZERO;
        let timeouts = Timeouts { handshake: none, established: none, closing: none, datagram: none };
        let last = FlowIndex(flows.capacity() - 1);
        flows.last_seen.touch(last, TimeoutClass::Datagram, Instant::ZERO);
        assert_eq!(flows.last_seen.judge(last, Instant::from_millis(500), &timeouts), Age::Expired);
    }

    #[test]
    fn workers_share_all_shards_out_and_none_twice() {
        let owned: Vec<_> =
            (0..3).flat_map(|worker| flows(worker, 3).shards().map(|s| s.id).collect::<Vec<_>>()).collect();
        let mut sorted = owned.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((owned.len(), sorted.len()), (SHARDS, SHARDS));
        let mut one = flows(1, 3);
        assert!(one.shard(ShardId(0)).is_none() && one.shard_mut(ShardId(1)).is_some());
        assert_eq!((one.next_version(ShardId(0)), one.next_version(ShardId(1))), (Version(0), Version(1)));
    }

    /// Many clients through full NAT: whatever shard a client's packets belong to, the
    /// server's answers belong to it too, and find the flow.
    #[test]
    fn both_directions_of_a_flow_meet_in_one_shard() {
        let toeplitz = Toeplitz::new(&MICROSOFT_KEY).expect("a good key");
        let mut rng = Rng::with_seed(5);
        let snat = [Address::v4([10, 2, 0, 100])];
        let mut flows = flows(0, 1);
        for _ in 0..300 {
            let client = Key {
                src: Address::v4(rng.u32(..).to_be_bytes()),
                dst: Address::v4([10, 1, 0, 100]),
                src_port: rng.u16(1024..),
                dst_port: 80,
                vlan: 0,
                protocol: TCP,
            };
            let id = toeplitz.shard_of(client.src, client.src_port);
            let server = Address::v4([10, 2, 0, 10]);
            let wanted = Wanted { snat: &snat, server, server_port: 8080, protocol: TCP, vlan: 0 };
            let table = &flows.table;
            let in_use = |key: &Key| table.lookup(key).is_some();
            let shard = flows.shard(id).expect("the worker owns all");
            let Allocation::Port(address, port) =
                shard.ports.allocate(Instant::ZERO, Draw::new(&mut rng), &wanted, in_use)
            else {
                panic!("all ports are free");
            };
            let answer = wanted.server_key(address, port);
            assert_eq!(toeplitz.shard_of(answer.dst, answer.dst_port), id);
            let flow = Flow { shard: id, ..Flow::new(client, answer, TcpState::SynSeen) };
            let Insert::Done(place) = flows.table.insert(&flow) else { panic!("there is room") };
            assert_eq!(flows.table.lookup(&answer).map(|found| found.0), Some(place));
            assert_eq!(flows.table.tenant(place).map(|tenant| tenant.0), Some(id));
        }
    }
}
