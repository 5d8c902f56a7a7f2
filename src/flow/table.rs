//! The flows of one shard and the index that finds them by either key. All memory
//! is reserved at creation; nothing grows afterwards.

use hashbrown::HashTable;

use crate::flow::entry::{Direction, Flow, FlowIndex};
use crate::flow::key::{Key, KeyHash};

/// Flows of one table at most: one bit of an index slot tells the direction.
pub const CAPACITY_MAX: u32 = 1 << 30;

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Insert {
    /// The flow is in the table, here.
    Done(FlowIndex),
    /// The table has as many flows as it can hold.
    Full,
    /// Another flow has the client's key, in one direction or the other.
    ClientKeyTaken,
    /// Another flow, or this one's client side, has the server's key.
    ServerKeyTaken,
}

/// A flow's place and a direction in 32 bits.
#[derive(Clone, Copy, PartialEq, Eq)]
struct IndexSlot(u32);

impl IndexSlot {
    const fn new(flow: FlowIndex, direction: Direction) -> IndexSlot {
        match direction {
            Direction::FromClient => IndexSlot(flow.0 << 1),
            Direction::FromServer => IndexSlot(flow.0 << 1 | 1),
        }
    }

    const fn flow(self) -> FlowIndex {
        FlowIndex(self.0 >> 1)
    }

    const fn direction(self) -> Direction {
        if self.0 & 1 == 0 { Direction::FromClient } else { Direction::FromServer }
    }
}

/// The flows of one shard.
pub struct Table {
    /// Never longer than `capacity`, which is reserved.
    flows: Vec<Option<Flow>>,
    /// Empty places below `flows.len()`, the one left last on top.
    free: Vec<FlowIndex>,
    index: HashTable<IndexSlot>,
    hash: KeyHash,
    capacity: u32,
}

impl Table {
    /// An empty table for at most `capacity` flows ([`CAPACITY_MAX`] at most; the
    /// configuration's limit is far lower). Memory is reserved now and touched when
    /// first used.
    pub fn new(capacity: u32, hash: KeyHash) -> Table {
        let capacity = capacity.min(CAPACITY_MAX);
        let flows_max = capacity as usize;
        Table {
            flows: Vec::with_capacity(flows_max),
            free: Vec::with_capacity(flows_max),
            // Two slots for each flow, and as many again: while not more than half of what it may
            // hold is in use, hashbrown answers tombstones by rehashing in place, not by growing.
            index: HashTable::with_capacity(4 * flows_max),
            hash,
            capacity,
        }
    }

    /// Flows at most.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Flows now.
    pub fn len(&self) -> usize {
        self.flows.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The hash of a key in this table, to be computed ahead for a whole burst.
    pub fn hash_of(&self, key: &Key) -> u64 {
        self.hash.of(key)
    }

    /// The flow that a packet with this key belongs to, and which way it goes.
    pub fn lookup(&self, key: &Key) -> Option<(FlowIndex, Direction)> {
        self.lookup_hashed(self.hash.of(key), key)
    }

    /// As [`Table::lookup`], with the key's [`Table::hash_of`].
    pub fn lookup_hashed(&self, hash: u64, key: &Key) -> Option<(FlowIndex, Direction)> {
        let slot = self.index.find(hash, |slot| key_of(&self.flows, *slot) == Some(*key))?;
        Some((slot.flow(), slot.direction()))
    }

    /// Adds a flow, if both of its keys are free.
    pub fn insert(&mut self, flow: Flow) -> Insert {
        let (client, server) = (self.hash.of(&flow.client), self.hash.of(&flow.server));
        if self.lookup_hashed(client, &flow.client).is_some() {
            return Insert::ClientKeyTaken;
        }
        if flow.client == flow.server || self.lookup_hashed(server, &flow.server).is_some() {
            return Insert::ServerKeyTaken;
        }
        let place = match self.free.pop() {
            Some(place) => {
                self.flows[place.slot()] = Some(flow);
                place
            }
            None if self.flows.len() < self.capacity as usize => {
                let place = FlowIndex(self.flows.len() as u32);
                self.flows.push(Some(flow));
                place
            }
            None => return Insert::Full,
        };
        for (hash, direction) in [(client, Direction::FromClient), (server, Direction::FromServer)] {
            let (flows, keys) = (&self.flows, &self.hash);
            self.index.insert_unique(hash, IndexSlot::new(place, direction), |slot| {
                key_of(flows, *slot).map_or(0, |key| keys.of(&key))
            });
        }
        Insert::Done(place)
    }

    /// Takes a flow out; `None` if there is none at this place.
    pub fn remove(&mut self, place: FlowIndex) -> Option<Flow> {
        let flow = *self.get(place)?;
        for direction in [Direction::FromClient, Direction::FromServer] {
            let hash = self.hash.of(&flow.key(direction));
            let wanted = IndexSlot::new(place, direction);
            if let Ok(entry) = self.index.find_entry(hash, |slot| *slot == wanted) {
                entry.remove();
            }
        }
        self.flows[place.slot()] = None;
        self.free.push(place);
        Some(flow)
    }

    /// The flow at a place.
    pub fn get(&self, place: FlowIndex) -> Option<&Flow> {
        self.flows.get(place.slot())?.as_ref()
    }

    /// The flow at a place, to be changed: anything but its keys, which the index
    /// knows. A flow whose keys change is removed and inserted.
    pub fn get_mut(&mut self, place: FlowIndex) -> Option<&mut Flow> {
        self.flows.get_mut(place.slot())?.as_mut()
    }

    /// The first flow at `from` or behind it, for walks in slices: begin with 0, go
    /// on with the place after the last one. Flows that live through the whole walk
    /// are met exactly once.
    pub fn next_occupied(&self, from: FlowIndex) -> Option<FlowIndex> {
        let behind = self.flows.get(from.slot()..)?;
        let distance = behind.iter().position(Option::is_some)?;
        Some(FlowIndex(from.0 + distance as u32))
    }

    /// No flow is here or behind: for walks that look at a bounded number of places.
    pub fn places_end(&self) -> FlowIndex {
        FlowIndex(self.flows.len() as u32)
    }

    /// Every flow with its place.
    pub fn iter(&self) -> impl Iterator<Item = (FlowIndex, &Flow)> {
        let places = (0..).map(FlowIndex).zip(self.flows.iter());
        places.filter_map(|(place, flow)| Some((place, flow.as_ref()?)))
    }
}

fn key_of(flows: &[Option<Flow>], slot: IndexSlot) -> Option<Key> {
    Some(flows.get(slot.flow().slot())?.as_ref()?.key(slot.direction()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::flow::key::{Address, TCP};
    use crate::flow::tcp_state::TcpState;
    use std::collections::HashMap;

    fn client_key(n: u32) -> Key {
        Key {
            src: Address::v4(n.to_be_bytes()),
            dst: Address::v4([198, 51, 100, 1]),
            src_port: 40000,
            dst_port: 80,
            vlan: 0,
            protocol: TCP,
        }
    }

    fn server_key(n: u32) -> Key {
        Key {
            src: Address::v4([10, 0, 0, 10]),
            dst: Address::v4(n.to_be_bytes()),
            src_port: 80,
            dst_port: 2000,
            vlan: 0,
            protocol: TCP,
        }
    }

    fn flow(n: u32) -> Flow {
        Flow::new(client_key(n), server_key(n), TcpState::SynSeen)
    }

    fn table(capacity: u32) -> Table {
        Table::new(capacity, KeyHash::with_seed(1))
    }

    #[test]
    fn both_directions_find_the_flow() {
        let mut table = table(10);
        let Insert::Done(place) = table.insert(flow(1)) else { panic!("there is room") };
        assert_eq!(table.lookup(&client_key(1)), Some((place, Direction::FromClient)));
        assert_eq!(table.lookup(&server_key(1)), Some((place, Direction::FromServer)));
        assert_eq!(table.lookup(&client_key(1).reversed()), None);
        assert_eq!(table.lookup(&client_key(2)), None);
        assert_eq!(table.get(place), Some(&flow(1)));
    }

    #[test]
    fn a_removed_flow_is_found_by_neither_key_and_its_place_is_used_again() {
        let mut table = table(1);
        let Insert::Done(place) = table.insert(flow(1)) else { panic!("there is room") };
        assert_eq!(table.remove(place), Some(flow(1)));
        assert_eq!(table.remove(place), None);
        assert_eq!((table.lookup(&client_key(1)), table.lookup(&server_key(1))), (None, None));
        assert!(table.is_empty() && table.get(place).is_none());
        assert_eq!(table.insert(flow(2)), Insert::Done(place));
    }

    #[test]
    fn a_full_table_refuses_and_keeps_what_it_has() {
        let mut table = table(2);
        assert!(matches!(table.insert(flow(1)), Insert::Done(_)));
        assert!(matches!(table.insert(flow(2)), Insert::Done(_)));
        assert_eq!(table.insert(flow(3)), Insert::Full);
        assert_eq!(table.lookup(&client_key(3)), None);
        assert!(table.lookup(&client_key(1)).is_some() && table.lookup(&server_key(2)).is_some());
        assert_eq!(Table::new(0, KeyHash::with_seed(1)).insert(flow(1)), Insert::Full);
    }

    #[test]
    fn a_key_belongs_to_one_flow_in_one_direction() {
        let mut table = table(10);
        assert!(matches!(table.insert(flow(1)), Insert::Done(_)));
        let same_client = Flow::new(client_key(1), server_key(2), TcpState::SynSeen);
        assert_eq!(table.insert(same_client), Insert::ClientKeyTaken);
        let same_server = Flow::new(client_key(2), server_key(1), TcpState::SynSeen);
        assert_eq!(table.insert(same_server), Insert::ServerKeyTaken);
        let swapped = Flow::new(server_key(1), client_key(2), TcpState::SynSeen);
        assert_eq!(table.insert(swapped), Insert::ClientKeyTaken);
        let twice = Flow::new(client_key(2), client_key(2), TcpState::SynSeen);
        assert_eq!(table.insert(twice), Insert::ServerKeyTaken);
        assert_eq!(table.len(), 1);
        assert!(table.lookup(&client_key(2)).is_none() && table.lookup(&server_key(2)).is_none());
    }

    #[test]
    fn a_walk_in_slices_meets_every_flow_that_stays() {
        let mut table = table(100);
        for n in 0..100 {
            assert!(matches!(table.insert(flow(n)), Insert::Done(_)));
        }
        for n in (0..100).step_by(3) {
            table.remove(FlowIndex(n));
        }
        let mut met = vec![];
        let mut from = FlowIndex(0);
        while let Some(place) = table.next_occupied(from) {
            met.push(place);
            table.remove(FlowIndex(place.0.saturating_sub(20)));
            from = FlowIndex(place.0 + 1);
        }
        let expected: Vec<_> = (0..100).filter(|n| n % 3 != 0).map(FlowIndex).collect();
        assert_eq!(met, expected);
        assert_eq!(table.next_occupied(FlowIndex(u32::MAX)), None);
        assert_eq!(table.places_end(), FlowIndex(100));
        assert!(table.iter().all(|(place, flow)| *flow == self::flow(place.0)));
        assert_eq!(table.iter().count(), table.len());
    }

    #[test]
    fn it_behaves_as_a_plain_map_over_many_random_steps() {
        let mut rng = Rng::with_seed(4);
        let mut table = table(64);
        let mut model: HashMap<Key, (FlowIndex, Direction)> = HashMap::new();
        for _ in 0..50_000 {
            let n = rng.u32(0..100);
            match table.lookup(&client_key(n)) {
                Some((place, _)) => {
                    assert!(table.remove(place).is_some());
                    model.remove(&client_key(n));
                    model.remove(&server_key(n));
                }
                None => match table.insert(flow(n)) {
                    Insert::Done(place) => {
                        model.insert(client_key(n), (place, Direction::FromClient));
                        model.insert(server_key(n), (place, Direction::FromServer));
                    }
                    Insert::Full => assert_eq!(table.len(), 64),
                    taken => panic!("no key is used twice here: {taken:?}"),
                },
            }
            assert_eq!(table.len() * 2, model.len());
            let probe = rng.u32(0..100);
            for key in [client_key(probe), server_key(probe)] {
                assert_eq!(table.lookup(&key), model.get(&key).copied());
            }
        }
    }

    /// The index never grows: its capacity may shrink by tombstones but its memory stays.
    #[test]
    fn millions_of_comings_and_goings_allocate_nothing() {
        for capacity in [1, 7, 1000, 4000] {
            let mut table = table(capacity);
            let reserved = (table.flows.capacity(), table.free.capacity(), table.index.allocation_size());
            for n in 0..capacity {
                assert!(matches!(table.insert(flow(n)), Insert::Done(_)));
            }
            // Always full but for one, the worst case for tombstones.
            let mut rng = Rng::with_seed(5);
            for n in capacity..capacity + 500_000 {
                assert!(table.remove(FlowIndex(rng.u32(0..capacity))).is_some());
                assert!(matches!(table.insert(flow(n)), Insert::Done(_)));
            }
            let now = (table.flows.capacity(), table.free.capacity(), table.index.allocation_size());
            assert_eq!(now, reserved);
        }
    }
}
