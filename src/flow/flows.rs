//! All flows of one worker: one table, the last-seen ticks of its places, the shards that the worker owns, and
//! which of their source-NAT ports rest.
//! What other rooms keep for each flow (what a peer knows of it, say) they keep in arrays of their own,
//! [`Flows::capacity`] long and indexed by [`FlowIndex`](crate::flow::FlowIndex).

use std::sync::Arc;

use crate::base::ids::{ShardId, Version, WorkerId};
use crate::base::limits::SHARDS;
use crate::base::memory::NoMemory;
use crate::base::time::Instant;
use crate::flow::Key;
use crate::flow::aging::LastSeen;
use crate::flow::ports::{PortAllocator, PortSetup};
use crate::flow::resting::{Resting, RestingPlace};
use crate::flow::shard::{Shard, ShardSet, owner_of};
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
    /// Source-NAT ports whose flows ended.
    pub resting: Resting,
    /// Source-NAT ports for new flows.
    pub ports: PortAllocator,
    /// All that there are: of a shard that another worker owns, peers may speak to this one.
    shards: Vec<Shard>,
    owned: ShardSet,
    home: ShardSet,
}

impl Flows {
    /// No flows, and the worker's shards.
    pub fn new(setup: &FlowsSetup) -> Result<Flows, NoMemory> {
        let all = (0..SHARDS as u16).map(ShardId);
        let home = all.clone().filter(|id| owner_of(*id, setup.workers) == setup.worker).collect();
        let table = Table::new(setup.capacity, setup.hash_seed)?;
        let PortSetup { resting_max, quarantine, .. } = setup.ports;
        Ok(Flows {
            resting: Resting::new(resting_max, quarantine, table.imager().clone())?,
            table,
            ports: PortAllocator::new(Arc::clone(&setup.toeplitz), &setup.ports),
            last_seen: LastSeen::new(setup.capacity)?,
            owned: home,
            home,
            shards: all.map(Shard::new).collect(),
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

    /// A shard's order of changes.
    pub fn shard_mut(&mut self, id: ShardId) -> Option<&mut Shard> {
        self.shards.get_mut(usize::from(id.0))
    }

    /// A new place in a shard's order of changes. Of a shard that there is not, there is none: 0.
    pub fn next_version(&mut self, id: ShardId) -> Version {
        self.shard_mut(id).map_or(Version(0), Shard::next_version)
    }

    /// The latest place in a shard's order of changes that this worker knows of.
    pub fn version(&self, id: ShardId) -> Version {
        self.shards.get(usize::from(id.0)).map_or(Version(0), Shard::version)
    }

    /// Whether what peers say of a shard comes to this worker: whoever owns it now.
    pub fn is_home(&self, id: ShardId) -> bool {
        self.home.has(id)
    }

    /// The shards that the worker owns: at first those that it is home to.
    pub fn owned(&self) -> ShardSet {
        self.owned
    }

    /// Whether the worker owns all shards of which peers speak to it.
    pub fn has_all_home(&self) -> bool {
        self.home.is_within(&self.owned)
    }

    /// The worker owns a shard from now on, or no longer.
    pub fn own(&mut self, id: ShardId, owns: bool) {
        self.owned.set(id, owns);
    }

    /// Asks for the lines that [`Flows::is_taken`] will need.
    #[inline]
    pub fn prefetch_taken(&self, answers: &Key) {
        let probe = self.table.probe(answers);
        self.table.prefetch(probe.spot());
        self.resting.prefetch(probe.image());
    }

    /// Whether a server-side key cannot be a new flow's: some flow has it, or one had it and its port rests.
    pub fn is_taken(&self, now: Instant, answers: &Key) -> bool {
        let probe = self.table.probe(answers);
        self.table.has(&probe, answers) || self.resting.contains(now, probe.image())
    }

    /// A flow of a shard ended whose end the in-sync members have yet to acknowledge: its port
    /// rests until [`Resting::acknowledged`] says so, by its place. `answers` is the server's side of the
    /// flow. Ports of other members are not this member's business.
    pub fn rest_until_acknowledged(&mut self, now: Instant, id: ShardId, answers: &Key) -> RestingPlace {
        if self.owns(id, answers) {
            self.resting.wait(now, self.table.imager().of(answers))
        } else {
            RestingPlace::NONE
        }
    }

    /// A flow of a shard ended and nobody else has to know, or a peer that leads ended it: its
    /// port's quarantine begins at once.
    pub fn rest(&mut self, now: Instant, id: ShardId, answers: &Key) {
        if self.owns(id, answers) {
            self.resting.quarantine(now, self.table.imager().of(answers));
        }
    }

    /// Whether the source-NAT port of a flow of a shard is this member's: only its owner hands it out, once the flow is gone from
    /// its table.
    pub fn owns(&self, id: ShardId, answers: &Key) -> bool {
        self.ports.owns(id, answers.dst, answers.dst_port)
    }
}

#[cfg(test)]
impl FlowsSetup {
    /// Of the only worker of the first of two members, with room for so many flows.
    pub(crate) fn alone(capacity: u32) -> FlowsSetup {
        use crate::base::time::Duration;
        use crate::flow::toeplitz::MICROSOFT_KEY;
        let ports = PortSetup {
            members: 2,
            rank: 0,
            boot_parity: None,
            booted: Instant::ZERO,
            quarantine: Duration::from_secs(60),
            resting_max: capacity,
        };
        let toeplitz = Arc::new(Toeplitz::new(&MICROSOFT_KEY).expect("a good key"));
        FlowsSetup { worker: WorkerId(0), workers: 1, capacity, hash_seed: 1, toeplitz, ports }
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
        let worker = WorkerId(worker);
        Flows::new(&FlowsSetup { worker, workers, ..FlowsSetup::alone(400) }).expect("memory")
    }

    #[test]
    fn every_place_of_the_table_has_a_last_seen_word() {
        let flows = flows(0, 1);
        let none = Duration::ZERO;
        let timeouts = Timeouts { handshake: none, established: none, closing: none, datagram: none };
        let last = FlowIndex(flows.capacity() - 1);
        flows.last_seen.touch(last, TimeoutClass::Datagram, Instant::ZERO);
        let bounds = flows.last_seen.bounds(Instant::from_millis(500), &timeouts);
        assert_eq!(flows.last_seen.judge(last, &bounds), Age::Expired);
    }

    #[test]
    fn workers_share_all_shards_out_and_none_twice() {
        let owned: Vec<_> =
            (0..3).flat_map(|worker| flows(worker, 3).owned().iter().collect::<Vec<_>>()).collect();
        let mut sorted = owned.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((owned.len(), sorted.len()), (SHARDS, SHARDS));
        let mut one = flows(1, 3);
        assert!(!one.is_home(ShardId(0)) && one.is_home(ShardId(1)) && !one.is_home(ShardId(256 + 1)));
        assert_eq!((one.next_version(ShardId(1)), one.next_version(ShardId(1))), (Version(1), Version(2)));
        assert_eq!((one.version(ShardId(1)), one.next_version(ShardId(999))), (Version(2), Version(0)));
        one.own(ShardId(0), true);
        assert!(one.owned().has(ShardId(0)) && !one.is_home(ShardId(0)));
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
            let wanted = Wanted { shard: id, snat: &snat, server, server_port: 8080, protocol: TCP, vlan: 0 };
            let in_use = |key: &Key| flows.is_taken(Instant::ZERO, key);
            let Allocation::Port(address, port) =
                flows.ports.allocate(Instant::ZERO, Draw::new(&mut rng), &wanted, in_use)
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

    const SNAT: Address = Address::v4([10, 2, 0, 100]);
    const SHARD: ShardId = ShardId(77);

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    /// Every server-side key in the shard, of the member of a rank, that a new flow could get at a time.
    fn free(flows: &Flows, now: Instant, rank: u8) -> Vec<Key> {
        let snat = [SNAT];
        let server = Address::v4([10, 2, 0, 10]);
        let wanted = Wanted { shard: SHARD, snat: &snat, server, server_port: 80, protocol: TCP, vlan: 0 };
        let toeplitz = Toeplitz::new(&MICROSOFT_KEY).expect("a good key");
        let ports = toeplitz.ports_of(SNAT, SHARD);
        let all = (0..=u8::MAX).filter(|index| index % 2 == rank);
        let keys = all.map(|index| wanted.server_key(SNAT, ports.at(index)));
        keys.filter(|key| !flows.is_taken(now, key)).collect()
    }

    #[test]
    fn a_port_rests_until_the_end_is_acknowledged_and_the_quarantine_has_passed() {
        let mut flows = flows(0, 1);
        let all = free(&flows, at(2000), 0);
        let place = flows.rest_until_acknowledged(at(2000), SHARD, &all[3]);
        assert!(!free(&flows, at(9000), 0).contains(&all[3]));
        let image = flows.table.imager().of(&all[3]);
        flows.resting.acknowledged(at(9000), place, image);
        assert!(!free(&flows, at(9059), 0).contains(&all[3]));
        assert_eq!(free(&flows, at(9060), 0), all);
    }

    #[test]
    fn without_a_peer_the_quarantine_begins_at_once() {
        let mut flows = flows(0, 1);
        let all = free(&flows, at(2000), 0);
        all.iter().for_each(|key| flows.rest(at(2000), SHARD, key));
        assert!(free(&flows, at(2059), 0).is_empty());
        assert_eq!(free(&flows, at(2060), 0), all);
    }

    #[test]
    fn ports_of_other_members_do_not_take_room_among_the_resting() {
        let mut flows = flows(0, 1);
        for key in free(&flows, at(2000), 1) {
            flows.rest(at(2000), SHARD, &key);
            assert_eq!(flows.rest_until_acknowledged(at(2000), SHARD, &key), RestingPlace::NONE);
        }
        assert!(flows.resting.is_empty());
    }

    #[test]
    fn too_many_resting_ports_end_the_oldest_quarantine_and_are_counted() {
        let mut flows = flows(0, 1);
        let (room, mut rested) = (400, 0);
        for shard in (0..SHARDS as u16).map(ShardId).take(4) {
            let toeplitz = Toeplitz::new(&MICROSOFT_KEY).expect("a good key");
            for index in (0..=u8::MAX).step_by(2) {
                let port = toeplitz.ports_of(SNAT, shard).at(index);
                let key = Key { src: SNAT, dst: SNAT, src_port: 80, dst_port: port, vlan: 0, protocol: TCP };
                flows.rest(at(2000), shard, &key);
                rested += 1;
            }
        }
        assert_eq!((flows.resting.len(), flows.resting.ended_early()), (room, rested - room as u64));
    }
}
