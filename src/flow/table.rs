//! The flows of one worker and the index that finds them by either key. All memory is
//! reserved at creation; nothing grows afterwards.
//!
//! One table for all shards of a worker: a packet's way to its flow is two lines, the
//! bucket and the flow, and the shard is not asked for. For a burst, [`Table::spot`] and
//! [`Table::prefetch`] for every packet come first, then [`Table::candidate`] and
//! [`Table::prefetch_flow`], and then [`Table::hot_at`], which says whether the candidate
//! is the flow: so the burst waits for memory together.

use crate::base::ids::{ShardId, Version};
use crate::base::limits::TABLE_PLACES_LEFT_MAX;
use crate::base::memory::{NoMemory, PageSize, Slab};
use crate::flow::entry::{Direction, Flow, FlowFlags, FlowIndex, Stamp};
use crate::flow::image::{Image, Imager};
use crate::flow::index::{Index, Spot};
use crate::flow::key::Key;
use crate::flow::layout::{Cold, Hot, Names, Way, Wide, join, split};

/// Flows of one table at most: one bit of an index slot tells the direction, the highest value means none, and a mirror
/// record has 28 bits for a place.
pub const CAPACITY_MAX: u32 = 1 << 28;

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

    /// The flow at a place, for packets that go this way.
    pub const fn new(flow: FlowIndex, direction: Direction) -> Candidate {
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

/// A key on its way into the table: its image and where that belongs, made once.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    image: Image,
    spot: Spot,
}

impl Probe {
    /// Of an image and its spot.
    #[inline(always)]
    pub const fn at(image: Image, spot: Spot) -> Probe {
        Probe { image, spot }
    }

    /// Its image.
    #[inline(always)]
    pub const fn image(&self) -> Image {
        self.image
    }

    /// Where it belongs.
    #[inline(always)]
    pub const fn spot(&self) -> Spot {
        self.spot
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
    /// Places that were left lately, the last one at the end: the next flows' places, known ahead.
    left: Vec<u32>,
    /// The empty place that was left last among those that found no room there; each names the one before.
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
            left: Vec::with_capacity(TABLE_PLACES_LEFT_MAX.min(places)),
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

    /// Asks for the line of an IPv6 flow's addresses.
    #[inline(always)]
    pub fn prefetch_wide(&self, flow: FlowIndex) {
        self.wide.prefetch(flow.slot());
    }

    /// The way out of an IPv6 packet with these addresses, if they are those of the candidate's packets: then, and if
    /// [`Table::hot_at`] says so, it is the flow.
    #[inline]
    pub fn way(&self, candidate: Candidate, src: &[u8; 16], dst: &[u8; 16]) -> Option<Way> {
        self.wide.get(candidate.flow().slot())?.way(candidate.direction(), src, dst)
    }

    /// The candidate's line, if its packets carry this image: of an IPv4 image, then it is the flow.
    #[inline(always)]
    pub fn hot_at(&mut self, candidate: Candidate, image: Image) -> Option<&mut Hot> {
        self.hot.get_mut(candidate.flow().slot()).filter(|hot| hot.image(candidate.direction()) == image)
    }

    /// The flow that a packet with this key belongs to, and which way it goes.
    pub fn lookup(&self, key: &Key) -> Option<(FlowIndex, Direction)> {
        self.lookup_probed(&self.probe(key), key)
    }

    /// As [`Table::lookup`], with what was made of the key before.
    #[inline]
    pub fn lookup_probed(&self, probe: &Probe, key: &Key) -> Option<(FlowIndex, Direction)> {
        self.find(probe.spot, probe.image, key)
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

    /// What the table needs of a key to take it in.
    #[inline]
    pub fn probe(&self, key: &Key) -> Probe {
        let image = self.imager.of(key);
        Probe { image, spot: self.spot(image) }
    }

    /// Whether a flow has this key.
    #[inline]
    pub fn has(&self, probe: &Probe, key: &Key) -> bool {
        self.find(probe.spot, probe.image, key).is_some()
    }

    /// Asks for the lines of the place that a flow will get after `ahead` others, as far as it is known.
    #[inline]
    pub fn prefetch_new(&self, ahead: usize) -> FlowIndex {
        let place = match self.left.len().checked_sub(ahead + 1) {
            Some(at) => self.left[at],
            None if self.free != NONE => self.free,
            None => self.used + (ahead - self.left.len()) as u32,
        };
        self.hot.prefetch_write(place as usize);
        self.cold.prefetch_write(place as usize);
        FlowIndex(place)
    }

    /// Adds a flow, if both of its keys are free.
    pub fn insert(&mut self, flow: &Flow) -> Insert {
        let probes = [self.probe(&flow.client), self.probe(&flow.server)];
        self.insert_probed(flow, &probes)
    }

    /// As [`Table::insert`], with what was made of the client's and the server's key before.
    pub fn insert_probed(&mut self, flow: &Flow, probes: &[Probe; 2]) -> Insert {
        let [client, server] = probes;
        if self.has(client, &flow.client) {
            return Insert::ClientKeyTaken;
        }
        if self.has(server, &flow.server) {
            return Insert::ServerKeyTaken;
        }
        self.insert_free(flow, probes)
    }

    /// As [`Table::insert_probed`], of a flow both of whose keys were looked for just now, and are free.
    pub fn insert_free(&mut self, flow: &Flow, probes: &[Probe; 2]) -> Insert {
        let [client, server] = probes;
        debug_assert!(!self.has(client, &flow.client) && !self.has(server, &flow.server));
        if flow.client == flow.server {
            return Insert::ServerKeyTaken;
        }
        let place = match self.left.last() {
            Some(place) => FlowIndex(*place),
            None if self.free != NONE => FlowIndex(self.free),
            None if self.used == self.capacity() => return Insert::Full,
            None => FlowIndex(self.used),
        };
        if !self.index.insert(client.spot, Candidate::new(place, Direction::FromClient).0) {
            return Insert::Full;
        }
        if !self.index.insert(server.spot, Candidate::new(place, Direction::FromServer).0) {
            self.index.remove(client.spot, Candidate::new(place, Direction::FromClient).0);
            return Insert::Full;
        }
        if self.left.pop().is_none() {
            if self.free == NONE {
                self.used += 1;
            } else {
                self.free = self.hot[place.slot()].next_free();
            }
        }
        self.len += 1;
        let (hot, cold, wide) = split(flow, [client.image, server.image]);
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
        if self.left.len() < self.left.capacity() {
            self.left.push(place.0);
        } else {
            self.free = place.0;
        }
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

    /// What a peer is told of the flow at a place, but for addresses of IPv6.
    #[inline]
    pub fn named(&self, place: FlowIndex) -> Option<(&Hot, Names)> {
        Some((self.hot(place)?, self.cold[place.slot()].names()))
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

    /// For peers the flow at a place is another one from now on, which began with this stamp's version: what was said of it
    /// before says nothing of it.
    pub fn begin_again(&mut self, place: FlowIndex, stamp: Stamp) {
        if let Some(cold) = self.cold.get_mut(place.slot()) {
            cold.begin_again(stamp);
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

    /// Asks for the lines that [`Table::tenant`] will need.
    #[inline(always)]
    pub fn prefetch_tenant(&self, place: FlowIndex) {
        self.hot.prefetch(place.slot());
        self.cold.prefetch(place.slot());
    }

    /// Asks for the lines that [`Table::remove`] will need besides the flow's own, which is here already; the images of
    /// its keys and its facts, if there is one.
    #[inline(always)]
    pub fn prefetch_removal(&self, place: FlowIndex) -> Option<([Image; 2], FlowFlags)> {
        let hot = self.hot(place)?;
        let images = [Direction::FromClient, Direction::FromServer].map(|way| hot.image(way));
        images.iter().for_each(|image| self.prefetch(self.spot(*image)));
        self.cold.prefetch_write(place.slot());
        Some((images, hot.flags()))
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
#[path = "table_tests.rs"]
mod tests;
