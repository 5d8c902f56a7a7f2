//! The flows of one worker and the index that finds them by either key. All memory is
//! reserved at creation; nothing grows afterwards.
//!
//! One table for all shards of a worker: a packet's way to its flow is two lines, the
//! bucket and the flow, and the shard is not asked for. For a burst, [`Table::spot`] and
//! [`Table::prefetch`] for every packet come first, then [`Table::candidate`] and
//! [`Table::prefetch_flow`], and then [`Table::hot_at`], which says whether the candidate
//! is the flow: so the burst waits for memory together.

use crate::base::ids::{ShardId, Version};
use crate::base::memory::{NoMemory, PageSize, Slab};
use crate::flow::entry::{Direction, Flow, FlowFlags, FlowIndex, Stamp};
use crate::flow::image::{Image, Imager};
use crate::flow::index::{Index, Spot};
use crate::flow::key::Key;
use crate::flow::layout::{Cold, Hot, Wide, join, split};

/// Flows of one table at most: one bit of an index slot tells the direction, and the
/// highest value means none.
pub const CAPACITY_MAX: u32 = 1 << 30;

/// No place.
const NONE: u32 = u32::MAX;

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

/// A flow that a packet may belong to, and which way the packet would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate(u32);

impl Candidate {
    /// None: beyond every place.
    pub const NONE: Candidate = Candidate(u32::MAX);

    const fn new(flow: FlowIndex, direction: Direction) -> Candidate {
        Candidate(flow.0 << 1 | direction as u32)
    }

    /// The flow's place.
    #[inline(always)]
    pub const fn flow(self) -> FlowIndex {
        FlowIndex(self.0 >> 1)
    }

    /// The way of packets with this key.
    #[inline(always)]
    pub const fn direction(self) -> Direction {
        if self.0 & 1 == 0 { Direction::FromClient } else { Direction::FromServer }
    }
}

/// The flows of one worker.
pub struct Table {
    hot: Slab<Hot>,
    cold: Slab<Cold>,
    /// Touched by IPv6 flows only.
    wide: Slab<Wide>,
    index: Index,
    imager: Imager,
    /// Places below this have been in use.
    used: u32,
    /// The empty place that was left last; each names the one before.
    free: u32,
    len: u32,
}

impl Table {
    /// An empty table for at most `capacity` flows ([`CAPACITY_MAX`] at most; the
    /// configuration's limit is far lower). Memory is reserved now and touched when first used.
    pub fn new(capacity: u32, hash_seed: u64) -> Result<Table, NoMemory> {
        let places = capacity.min(CAPACITY_MAX) as usize;
        Ok(Table {
            hot: Slab::new(places)?,
            cold: Slab::new(places)?,
            wide: Slab::new(places)?,
            index: Index::new(2 * places)?,
            imager: Imager::with_seed(hash_seed),
            used: 0,
            free: NONE,
            len: 0,
        })
    }

    /// Has memory put behind all that IPv4 flows need, so that no packet waits for it.
    pub fn populate(&self) {
        self.hot.populate();
        self.cold.populate();
        self.index.populate();
    }

    /// Flows at most.
    pub fn capacity(&self) -> u32 {
        self.hot.len() as u32
    }

    /// Flows now.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes images of keys.
    #[inline(always)]
    pub const fn imager(&self) -> &Imager {
        &self.imager
    }

    /// Where a key's image belongs in the index.
    #[inline(always)]
    pub fn spot(&self, image: Image) -> Spot {
        self.index.spot(self.imager.hash(image))
    }

    /// Asks for the line in which [`Table::candidate`] will look.
    #[inline(always)]
    pub fn prefetch(&self, spot: Spot) {
        self.index.prefetch(spot);
    }

    /// The flow that is probably the one of a key, or [`Candidate::NONE`]: for one key in some thousands another flow
    /// has the same tag. [`Table::lookup`] is sure.
    #[inline(always)]
    pub fn candidate(&self, spot: Spot) -> Candidate {
        self.index.candidate(spot).map_or(Candidate::NONE, Candidate)
    }

    /// Asks for the line of a flow.
    #[inline(always)]
    pub fn prefetch_flow(&self, flow: FlowIndex) {
        self.hot.prefetch_write(flow.slot());
    }

    /// The candidate's line, if its packets carry this IPv4 image: then it is the flow.
    #[inline(always)]
    pub fn hot_at(&mut self, candidate: Candidate, image: Image) -> Option<&mut Hot> {
        self.hot.get_mut(candidate.flow().slot()).filter(|hot| hot.image(candidate.direction()) == image)
    }

    /// The flow that a packet with this key belongs to, and which way it goes.
    pub fn lookup(&self, key: &Key) -> Option<(FlowIndex, Direction)> {
        let image = self.imager.of(key);
        self.find(self.spot(image), image, key)
    }

    fn find(&self, spot: Spot, image: Image, key: &Key) -> Option<(FlowIndex, Direction)> {
        let value = self.index.find(spot, |value| self.is(Candidate(value), image, key))?;
        Some((Candidate(value).flow(), Candidate(value).direction()))
    }

    fn is(&self, candidate: Candidate, image: Image, key: &Key) -> bool {
        let (slot, direction) = (candidate.flow().slot(), candidate.direction());
        self.hot.get(slot).is_some_and(|hot| hot.image(direction) == image)
            && (image.is_v4() || self.wide[slot].key(direction, image) == *key)
    }

    /// Adds a flow, if both of its keys are free.
    pub fn insert(&mut self, flow: &Flow) -> Insert {
        let (hot, cold, wide) = split(flow, &self.imager);
        let [client, server] = [Direction::FromClient, Direction::FromServer].map(|way| hot.image(way));
        let spots = [self.spot(client), self.spot(server)];
        if self.find(spots[0], client, &flow.client).is_some() {
            return Insert::ClientKeyTaken;
        }
        if flow.client == flow.server || self.find(spots[1], server, &flow.server).is_some() {
            return Insert::ServerKeyTaken;
        }
        let place = match self.free {
            NONE if self.used == self.capacity() => return Insert::Full,
            NONE => FlowIndex(self.used),
            free => FlowIndex(free),
        };
        if !self.index.insert(spots[0], Candidate::new(place, Direction::FromClient).0) {
            return Insert::Full;
        }
        if !self.index.insert(spots[1], Candidate::new(place, Direction::FromServer).0) {
            self.index.remove(spots[0], Candidate::new(place, Direction::FromClient).0);
            return Insert::Full;
        }
        match self.free {
            NONE => self.used += 1,
            free => self.free = self.hot[free as usize].next_free(),
        }
        self.len += 1;
        self.hot[place.slot()] = hot;
        self.cold[place.slot()] = cold;
        if let Some(wide) = wide {
            self.wide[place.slot()] = wide;
        }
        Insert::Done(place)
    }

    /// Takes a flow out; `None` if there is none at this place.
    pub fn remove(&mut self, place: FlowIndex) -> Option<Flow> {
        let flow = self.get(place)?;
        let hot = &mut self.hot[place.slot()];
        let images = [Direction::FromClient, Direction::FromServer].map(|way| (way, hot.image(way)));
        hot.free(self.free);
        self.free = place.0;
        self.len -= 1;
        for (direction, image) in images {
            let spot = self.spot(image);
            self.index.remove(spot, Candidate::new(place, direction).0);
        }
        Some(flow)
    }

    /// The flow at a place.
    pub fn get(&self, place: FlowIndex) -> Option<Flow> {
        let hot = self.hot(place)?;
        Some(join(hot, &self.cold[place.slot()], || self.wide[place.slot()]))
    }

    /// What forwarding needs of the flow at a place.
    #[inline]
    pub fn hot(&self, place: FlowIndex) -> Option<&Hot> {
        self.hot.get(place.slot()).filter(|hot| hot.is_occupied())
    }

    /// As [`Table::hot`], to be changed.
    #[inline(always)]
    pub fn hot_mut(&mut self, place: FlowIndex) -> Option<&mut Hot> {
        self.hot.get_mut(place.slot()).filter(|hot| hot.is_occupied())
    }

    /// When the state of the flow at a place changed, as peers are told.
    pub fn set_changed(&mut self, place: FlowIndex, changed: Stamp) {
        if let Some(cold) = self.cold.get_mut(place.slot()) {
            cold.set_changed(changed);
        }
    }

    /// Changes the flow at a place: anything but its keys and its shard, which stay as they are. A flow whose
    /// keys change is removed and inserted. `None` if there is none.
    pub fn update<T>(&mut self, place: FlowIndex, change: impl FnOnce(&mut Flow) -> T) -> Option<T> {
        let mut flow = self.get(place)?;
        let changed = change(&mut flow);
        self.put(place, &flow);
        Some(changed)
    }

    /// As [`Table::update`], with what [`Table::get`] gave, changed.
    pub fn put(&mut self, place: FlowIndex, flow: &Flow) {
        if let Some(hot) = self.hot_mut(place) {
            hot.change(flow);
            self.cold[place.slot()] = Cold::of(flow);
        }
    }

    /// Sets or clears a fact of the flow at a place, if there is one.
    pub fn set_flag(&mut self, place: FlowIndex, flag: FlowFlags, set: bool) {
        if let Some(hot) = self.hot_mut(place) {
            hot.set_flags(if set { hot.flags().with(flag) } else { hot.flags().without(flag) });
        }
    }

    /// When the flow at a place last changed.
    pub fn changed(&self, place: FlowIndex) -> Option<Stamp> {
        self.hot(place)?;
        Some(self.cold[place.slot()].changed())
    }

    /// Of which shard the flow at a place is, and with which version it began.
    pub fn tenant(&self, place: FlowIndex) -> Option<(ShardId, Version)> {
        Some((self.hot(place)?.shard(), self.cold[place.slot()].created()))
    }

    /// The first flow at `from` or behind it, for walks in slices: begin with 0, go
    /// on with the place after the last one. Flows that live through the whole walk
    /// are met exactly once.
    pub fn next_occupied(&self, from: FlowIndex) -> Option<FlowIndex> {
        let behind = self.hot.get(from.slot()..self.used as usize)?;
        let distance = behind.iter().position(Hot::is_occupied)?;
        Some(FlowIndex(from.0 + distance as u32))
    }

    /// No flow is here or behind: for walks that look at a bounded number of places.
    pub const fn places_end(&self) -> FlowIndex {
        FlowIndex(self.used)
    }

    /// Every flow with its place.
    pub fn iter(&self) -> impl Iterator<Item = (FlowIndex, Flow)> + '_ {
        let places = (0..self.used).map(FlowIndex);
        places.filter_map(|place| Some((place, self.get(place)?)))
    }

    /// The pages that the flows are in.
    pub fn page_size(&self) -> PageSize {
        self.hot.page_size()
    }

    /// Slots of the index in use, and how many there are.
    pub fn load(&self) -> (usize, usize) {
        (2 * self.len(), self.index.slots())
    }
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
        Table::new(capacity, 1).expect("memory")
    }

    #[test]
    fn both_directions_find_the_flow() {
        let mut table = table(10);
        let Insert::Done(place) = table.insert(&flow(1)) else { panic!("there is room") };
        assert_eq!(table.lookup(&client_key(1)), Some((place, Direction::FromClient)));
        assert_eq!(table.lookup(&server_key(1)), Some((place, Direction::FromServer)));
        assert_eq!(table.lookup(&client_key(1).reversed()), None);
        assert_eq!(table.lookup(&client_key(2)), None);
        assert_eq!(table.get(place), Some(flow(1)));
    }

    #[test]
    fn a_removed_flow_is_found_by_neither_key_and_its_place_is_used_again() {
        let mut table = table(1);
        let Insert::Done(place) = table.insert(&flow(1)) else { panic!("there is room") };
        assert_eq!(table.remove(place), Some(flow(1)));
        assert_eq!(table.remove(place), None);
        assert_eq!((table.lookup(&client_key(1)), table.lookup(&server_key(1))), (None, None));
        assert!(table.is_empty() && table.get(place).is_none());
        assert_eq!(table.insert(&flow(2)), Insert::Done(place));
    }

    #[test]
    fn a_full_table_refuses_and_keeps_what_it_has() {
        let mut table = table(2);
        assert!(matches!(table.insert(&flow(1)), Insert::Done(_)));
        assert!(matches!(table.insert(&flow(2)), Insert::Done(_)));
        assert_eq!(table.insert(&flow(3)), Insert::Full);
        assert_eq!(table.lookup(&client_key(3)), None);
        assert!(table.lookup(&client_key(1)).is_some() && table.lookup(&server_key(2)).is_some());
        assert_eq!(self::table(0).insert(&flow(1)), Insert::Full);
    }

    #[test]
    fn a_key_belongs_to_one_flow_in_one_direction() {
        let mut table = table(10);
        assert!(matches!(table.insert(&flow(1)), Insert::Done(_)));
        let same_client = Flow::new(client_key(1), server_key(2), TcpState::SynSeen);
        assert_eq!(table.insert(&same_client), Insert::ClientKeyTaken);
        let same_server = Flow::new(client_key(2), server_key(1), TcpState::SynSeen);
        assert_eq!(table.insert(&same_server), Insert::ServerKeyTaken);
        let swapped = Flow::new(server_key(1), client_key(2), TcpState::SynSeen);
        assert_eq!(table.insert(&swapped), Insert::ClientKeyTaken);
        let twice = Flow::new(client_key(2), client_key(2), TcpState::SynSeen);
        assert_eq!(table.insert(&twice), Insert::ServerKeyTaken);
        assert_eq!(table.len(), 1);
        assert!(table.lookup(&client_key(2)).is_none() && table.lookup(&server_key(2)).is_none());
    }

    #[test]
    fn a_walk_in_slices_meets_every_flow_that_stays() {
        let mut table = table(100);
        for n in 0..100 {
            assert!(matches!(table.insert(&flow(n)), Insert::Done(_)));
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
        assert!(table.iter().all(|(place, flow)| flow == self::flow(place.0)));
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
                None => match table.insert(&flow(n)) {
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

    #[test]
    fn a_flow_changes_in_everything_but_its_keys() {
        let mut table = table(10);
        let Insert::Done(place) = table.insert(&flow(1)) else { panic!("there is room") };
        let changed = table.update(place, |flow| {
            flow.tcp = TcpState::Closing;
            flow.client_adjacency = 5;
            flow.created = Version(7);
            flow.packets = 9;
            flow.client = client_key(2);
            flow.flags
        });
        assert_eq!(changed, Some(FlowFlags::NONE));
        table.set_flag(place, FlowFlags::HELD, true);
        let expected = Flow {
            tcp: TcpState::Closing,
            client_adjacency: 5,
            created: Version(7),
            packets: 9,
            flags: FlowFlags::HELD,
            ..flow(1)
        };
        assert_eq!(table.get(place), Some(expected));
        assert_eq!(table.tenant(place), Some((ShardId(0), Version(7))));
        assert!(table.lookup(&client_key(2)).is_none() && table.lookup(&client_key(1)).is_some());
        assert_eq!(table.update(FlowIndex(3), |_| ()), None);
    }

    #[test]
    fn a_burst_finds_its_flows_by_the_bytes_of_its_packets() {
        let mut table = table(1000);
        for n in 0..1000 {
            assert!(matches!(table.insert(&flow(n)), Insert::Done(_)));
        }
        let mut sure = 0;
        for n in 0..2000 {
            for (key, direction) in
                [(client_key(n), Direction::FromClient), (server_key(n), Direction::FromServer)]
            {
                let image = table.imager().of(&key);
                let spot = table.spot(image);
                table.prefetch(spot);
                let candidate = table.candidate(spot);
                table.prefetch_flow(candidate.flow());
                let Some(hot) = table.hot_at(candidate, image) else { continue };
                assert_eq!(
                    hot.answer(direction).v4_key().map(Key::reversed),
                    Some(flow(n).translated(direction))
                );
                assert_eq!((candidate.flow(), candidate.direction()), (FlowIndex(n), direction));
                sure += 1;
            }
        }
        assert!((1990..=2000).contains(&sure), "{sure} of 2000 in the first place looked at");
    }

    #[test]
    fn ipv6_flows_are_found_by_their_whole_keys() {
        let mut table = table(100);
        let key =
            |n: u8| Key { src: Address::v6([0x20 + n; 16]), dst: Address::v6([0x10; 16]), ..client_key(1) };
        for n in 0..50 {
            let answers = Key { dst_port: 3000 + u16::from(n), ..key(n).reversed() };
            assert!(matches!(table.insert(&Flow::new(key(n), answers, TcpState::SynSeen)), Insert::Done(_)));
        }
        for n in 0..100 {
            assert_eq!(table.lookup(&key(n)).is_some(), n < 50);
        }
        let (place, _) = table.lookup(&key(7)).expect("a flow");
        assert_eq!(table.remove(place).map(|flow| flow.client), Some(key(7)));
        assert_eq!(table.lookup(&key(7)), None);
    }

    #[test]
    fn comings_and_goings_at_the_brim_lose_nothing() {
        for capacity in [1, 7, 1000, 4000] {
            let mut table = table(capacity);
            let mut there: Vec<u32> = (0..capacity).collect();
            for n in 0..capacity {
                assert_eq!(table.insert(&flow(n)), Insert::Done(FlowIndex(n)));
            }
            let mut rng = Rng::with_seed(5);
            for n in capacity..capacity + 100_000 {
                let place = rng.u32(0..capacity);
                assert!(table.remove(FlowIndex(place)).is_some());
                assert_eq!(table.insert(&flow(n)), Insert::Done(FlowIndex(place)));
                there[place as usize] = n;
            }
            assert_eq!(table.insert(&flow(0)), Insert::Full);
            for (place, n) in there.iter().enumerate() {
                let found = table.lookup(&server_key(*n));
                assert_eq!(found, Some((FlowIndex(place as u32), Direction::FromServer)));
            }
        }
    }
}
