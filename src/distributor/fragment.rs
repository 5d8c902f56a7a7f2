//! Virtual reassembly (REQ D4): every fragment of a datagram gets the ports of the first one, and so goes the
//! way of its flow. RFC 8200 section 4.5, RFC 791 section 3.2, RFC 5722, RFC 1858, RFC 3128.
//!
//! Nothing is put together: fragments go on as they are. The first one's ports are remembered; those that come before it
//! wait, and follow it in the order in which they came. A datagram with an overlap or a contradiction is given up: what
//! comes of it from then on is dropped, so that no host ever has it whole. An exact duplicate is dropped alone.
//!
//! A flood costs what [`limits`](crate::base::limits) says: all memory is reserved at the start, each packet takes a
//! bounded number of steps, and what must give way is the oldest of its own source, or else the oldest of all. So
//! datagrams whose fragments follow each other closely, as nearly all do, pass through a flood of others.
//!
//! Each datagram is given an identification of this worker's own (RFC 6864 section 5.3.1 asks it of whoever translates
//! sources): two clients behind one source-NAT address may use the same one towards the same server at the same time,
//! and two servers behind one virtual address towards the same client.

pub mod links;
pub mod ranges;

use crate::base::counters::{Counter, Counters};
use crate::base::ids::WorkerId;
use crate::base::limits::{
    FRAGMENT_BYTES_WAITING_MAX, FRAGMENT_BYTES_WAITING_PER_SOURCE_MAX, FRAGMENT_TIMEOUT,
    FRAGMENTED_DATAGRAMS_MAX, FRAGMENTED_DATAGRAMS_PER_SOURCE_MAX, FRAGMENTS_WAITING_MAX,
    FRAGMENTS_WAITING_PER_SOURCE_MAX,
};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::flow::key::{Address, Key};
use crate::wire::IpProtocol;
use crate::wire::fragment::Fragment;

use links::{Index, Links, List, NONE};
use ranges::{Piece, Ranges};

/// Old datagrams that are looked at with each packet and in each turn: more than can have been added.
const EXPIRED_AT_ONCE_MAX: usize = 4;

/// What tells one datagram's fragments from another's: a key with the identification in the ports' place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Name(Key);

impl Name {
    /// The name of the datagram that a fragment between these addresses is of.
    pub fn of(src: Address, dst: Address, vlan: u16, fragment: &Fragment) -> Name {
        let [high, low] = [fragment.identification >> 16, fragment.identification].map(|half| half as u16);
        Name(Key { src, dst, src_port: low, dst_port: high, vlan, protocol: fragment.protocol.0 })
    }

    /// From whom.
    pub fn source(&self) -> Address {
        self.0.src
    }

    /// The lower half of its identification.
    pub fn low(&self) -> u16 {
        self.0.src_port
    }
}

/// What later fragments are told of the first one, and all of them of how they leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinship {
    /// Source and destination port.
    pub ports: (u16, u16),
    /// The transport protocol.
    pub protocol: IpProtocol,
    /// The identification with which the datagram leaves; of IPv6 its lower half.
    pub identification: u16,
}

/// How a datagram stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its first fragment has not come: others wait for it.
    Waiting,
    /// Its first fragment has come: others go on.
    Known,
    /// It was given up: others are dropped.
    GivenUp,
}

impl Stage {
    /// The list that it is in: what waits has one of its own.
    const fn list(self) -> usize {
        match self {
            Stage::Waiting => WAITING,
            Stage::Known | Stage::GivenUp => SETTLED,
        }
    }
}

const WAITING: usize = 0;
const SETTLED: usize = 1;

#[derive(Debug)]
struct Datagram {
    name: Name,
    hash: u64,
    /// The place of its source.
    source: u32,
    stage: Stage,
    /// When it came to this stage.
    since: Instant,
    kinship: Kinship,
    ranges: Ranges,
    /// Its fragments that wait, by their places.
    waiting: List,
}

/// What there is of one source address.
#[derive(Debug, Default)]
struct Source {
    address: Address,
    hash: u64,
    datagrams: usize,
    packets: usize,
    bytes: usize,
    /// Its datagrams that wait, and all others, the oldest first.
    lists: [List; 2],
}

/// A fragment that waits.
#[derive(Debug)]
struct Waiting<B> {
    packet: B,
    len: usize,
}

/// The datagrams in fragments of one worker, in buffers of type `B`.
#[derive(Debug)]
pub struct Reassembly<B> {
    /// Of the hash by which names and sources are found.
    secret: [u8; 16],
    datagrams: Vec<Datagram>,
    datagrams_free: Vec<u32>,
    by_name: Index,
    sources: Vec<Source>,
    sources_free: Vec<u32>,
    by_address: Index,
    /// All datagrams that wait, and all others, the oldest first.
    lists: [List; 2],
    by_age: Links,
    of_source: Links,
    packets: Vec<Option<Waiting<B>>>,
    packets_free: Vec<u32>,
    of_datagram: Links,
    bytes: usize,
    /// Packets that follow the one that was passed last.
    released: List,
    /// The identification given last, among the `identifications` that are this worker's, from `first_identification`.
    given: u32,
    first_identification: u32,
    identifications: u32,
}

/// A fragment that came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its datagram.
    pub name: Name,
    /// What it says of itself.
    pub fragment: Fragment,
    /// Ports and protocol, if it is the first.
    pub first: Option<((u16, u16), IpProtocol)>,
    /// Length of its packet over all segments, in bytes.
    pub len: usize,
}

impl<B> Reassembly<B> {
    /// That of one worker of so many, with memory for all that there may be. `waiting_max`: packets that may wait, if
    /// there are not buffers enough for [`FRAGMENTS_WAITING_MAX`].
    pub fn new(
        worker: WorkerId,
        workers: u16,
        waiting_max: usize,
        hash_seed: u64,
        rng: &mut Rng,
    ) -> Reassembly<B> {
        let waiting_max = waiting_max.min(FRAGMENTS_WAITING_MAX);
        // Each worker has its part of the identifications.
        let identifications = 0x1_0000 / u32::from(workers.max(1));
        Reassembly {
            secret: Rng::with_seed(hash_seed).u128(..).to_ne_bytes(),
            datagrams: Vec::with_capacity(FRAGMENTED_DATAGRAMS_MAX),
            datagrams_free: Vec::with_capacity(FRAGMENTED_DATAGRAMS_MAX),
            by_name: Index::new(FRAGMENTED_DATAGRAMS_MAX),
            sources: Vec::with_capacity(FRAGMENTED_DATAGRAMS_MAX),
            sources_free: Vec::with_capacity(FRAGMENTED_DATAGRAMS_MAX),
            by_address: Index::new(FRAGMENTED_DATAGRAMS_MAX),
            lists: [List::default(); 2],
            by_age: Links::new(FRAGMENTED_DATAGRAMS_MAX),
            of_source: Links::new(FRAGMENTED_DATAGRAMS_MAX),
            packets: (0..waiting_max).map(|_| None).collect(),
            packets_free: (0..waiting_max as u32).rev().collect(),
            of_datagram: Links::new(waiting_max),
            bytes: 0,
            released: List::default(),
            given: rng.u32(..identifications),
            first_identification: identifications * u32::from(worker.0),
            identifications,
        }
    }

    /// Datagrams that are followed.
    pub fn datagrams(&self) -> usize {
        self.datagrams.len() - self.datagrams_free.len()
    }

    /// Fragments that wait.
    pub fn packets(&self) -> usize {
        self.packets.len() - self.packets_free.len()
    }

    /// Takes a fragment. It comes back when it may go on, with what it shares with its datagram's others; of which more
    /// may follow at once: [`Reassembly::next_released`], until `None`, before the next one is taken.
    pub fn handle(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        packet: B,
        counters: &Counters,
    ) -> Option<(B, Kinship)> {
        let Arrival { name, fragment, first, len } = *arrival;
        self.expire(now, counters);
        let hash = name.0.shared_hash(&self.secret);
        let known = self.by_name.places(hash).find(|place| self.datagrams[*place as usize].name == name);
        let place = match known {
            Some(place) => place,
            None => self.begin(now, name, hash, counters)?,
        };
        let datagram = &mut self.datagrams[place as usize];
        if datagram.stage == Stage::GivenUp {
            counters.bump(Counter::DropFragmentGivenUp);
            return None;
        }
        let refused = match datagram.ranges.take(fragment.offset, fragment.len, fragment.more) {
            Piece::New => None,
            Piece::Duplicate => {
                counters.bump(Counter::DropFragmentDuplicate);
                return None;
            }
            Piece::Overlap => Some(Counter::DropFragmentOverlap),
            Piece::Contradiction => Some(Counter::DropFragmentContradiction),
            Piece::TooMany => Some(Counter::DropFragmentTooMany),
        };
        if let Some(refused) = refused {
            counters.bump(refused);
            self.give_up(now, place, counters);
            return None;
        }
        if let Some((ports, protocol)) = first {
            datagram.kinship.ports = ports;
            datagram.kinship.protocol = protocol;
            self.release(place);
            self.settle(now, place, Stage::Known);
        }
        let datagram = &self.datagrams[place as usize];
        if datagram.stage == Stage::Waiting {
            self.keep(place, Waiting { packet, len }, counters);
            return None;
        }
        let kinship = datagram.kinship;
        if datagram.ranges.are_whole() {
            counters.bump(Counter::FragmentedWhole);
            self.forget(place);
        }
        Some((packet, kinship))
    }

    /// The next packet that waited for the first fragment passed last.
    pub fn next_released(&mut self) -> Option<B> {
        let place = self.of_datagram.pop(&mut self.released)?;
        self.take_packet(place).map(|waiting| waiting.packet)
    }

    /// Drops what waits for too long, and forgets what came long ago.
    pub fn expire(&mut self, now: Instant, counters: &Counters) {
        for _ in 0..EXPIRED_AT_ONCE_MAX {
            let Some(place) = self.oldest(self.lists) else { return };
            let datagram = &self.datagrams[place as usize];
            if now - datagram.since < FRAGMENT_TIMEOUT {
                return;
            }
            if datagram.stage != Stage::GivenUp {
                counters.bump(Counter::FragmentedIncomplete);
            }
            self.drop_waiting(place, Counter::DropFragmentTimeout, counters);
            self.forget(place);
        }
    }

    /// When to call [`Reassembly::expire`] at the latest, so that waiting packets give their buffers back.
    pub fn next_deadline(&self) -> Option<Instant> {
        let oldest = self.lists[WAITING].first()?;
        Some(self.datagrams[oldest as usize].since + FRAGMENT_TIMEOUT)
    }

    /// Drops all that waits, counted as this, and forgets every datagram.
    pub fn clear(&mut self, why: Counter, counters: &Counters) {
        while let Some(place) = self.oldest(self.lists) {
            self.drop_waiting(place, why, counters);
            self.forget(place);
        }
    }

    /// A datagram of which nothing has come; others may have to give way. `None`: there is no room at all.
    fn begin(&mut self, now: Instant, name: Name, hash: u64, counters: &Counters) -> Option<u32> {
        let address = name.source();
        let source_hash = Key { src: address, ..Key::default() }.shared_hash(&self.secret);
        let mut known = self.source_of(address, source_hash);
        if let Some(source) = known.map(|source| &self.sources[source as usize])
            && source.datagrams >= FRAGMENTED_DATAGRAMS_PER_SOURCE_MAX
        {
            let oldest = self.oldest(source.lists);
            self.displace(oldest, Counter::DropFragmentsWaitingOfSource, counters);
        }
        if self.datagrams() == FRAGMENTED_DATAGRAMS_MAX {
            self.displace(self.oldest(self.lists), Counter::DropFragmentsWaiting, counters);
            // Its source may have gone with it.
            known = self.source_of(address, source_hash);
        }
        let source = match known {
            Some(source) => source,
            None => {
                let source = Source { address, hash: source_hash, ..Source::default() };
                let place = place_for(&mut self.sources, &mut self.sources_free, source)?;
                self.by_address.insert(source_hash, place);
                place
            }
        };
        self.given = (self.given + 1) % self.identifications;
        let identification = (self.first_identification + self.given) as u16;
        let stage = Stage::Waiting;
        let place = match self.datagrams_free.pop() {
            Some(place) => {
                // The pieces of the one before need not be cleared one by one.
                let datagram = &mut self.datagrams[place as usize];
                (datagram.name, datagram.hash, datagram.source) = (name, hash, source);
                (datagram.stage, datagram.since) = (stage, now);
                datagram.kinship = Kinship { identification, ..Kinship::default() };
                datagram.ranges.clear();
                place
            }
            None => {
                let kinship = Kinship { identification, ..Kinship::default() };
                let (ranges, waiting) = (Ranges::default(), List::default());
                self.datagrams.push(Datagram {
                    name,
                    hash,
                    source,
                    stage,
                    since: now,
                    kinship,
                    ranges,
                    waiting,
                });
                self.datagrams.len() as u32 - 1
            }
        };
        self.by_name.insert(hash, place);
        self.by_age.push(&mut self.lists[stage.list()], place);
        let source = &mut self.sources[source as usize];
        source.datagrams += 1;
        self.of_source.push(&mut source.lists[stage.list()], place);
        Some(place)
    }

    fn source_of(&self, address: Address, hash: u64) -> Option<u32> {
        self.by_address.places(hash).find(|place| self.sources[*place as usize].address == address)
    }

    /// The oldest of datagrams in these lists.
    fn oldest(&self, lists: [List; 2]) -> Option<u32> {
        let since = |place: &u32| self.datagrams[*place as usize].since;
        lists.iter().filter_map(List::first).min_by_key(since)
    }

    /// Moves a datagram to another stage.
    fn settle(&mut self, now: Instant, place: u32, stage: Stage) {
        let datagram = &mut self.datagrams[place as usize];
        let (from, to) = (datagram.stage.list(), stage.list());
        (datagram.stage, datagram.since) = (stage, now);
        let source = &mut self.sources[datagram.source as usize];
        self.by_age.remove(&mut self.lists[from], place);
        self.by_age.push(&mut self.lists[to], place);
        self.of_source.remove(&mut source.lists[from], place);
        self.of_source.push(&mut source.lists[to], place);
    }

    /// Drops what waits of a datagram, and what will come of it.
    fn give_up(&mut self, now: Instant, place: u32, counters: &Counters) {
        self.drop_waiting(place, Counter::DropFragmentGivenUp, counters);
        self.settle(now, place, Stage::GivenUp);
    }

    /// Forgets a datagram for a newer one, with what waits of it.
    fn displace(&mut self, place: Option<u32>, why: Counter, counters: &Counters) {
        let Some(place) = place else { return };
        counters.bump(Counter::FragmentedForgotten);
        self.drop_waiting(place, why, counters);
        self.forget(place);
    }

    /// Frees the place of a datagram of which nothing waits.
    fn forget(&mut self, place: u32) {
        let datagram = &self.datagrams[place as usize];
        let (list, source_place) = (datagram.stage.list(), datagram.source);
        self.by_name.remove(datagram.hash, place);
        self.by_age.remove(&mut self.lists[list], place);
        let source = &mut self.sources[source_place as usize];
        self.of_source.remove(&mut source.lists[list], place);
        source.datagrams -= 1;
        self.datagrams_free.push(place);
        if source.datagrams == 0 {
            self.by_address.remove(source.hash, source_place);
            self.sources_free.push(source_place);
        }
    }

    /// Lets a fragment wait; older ones may have to give way.
    fn keep(&mut self, place: u32, packet: Waiting<B>, counters: &Counters) {
        let source = self.datagrams[place as usize].source;
        loop {
            let of_source = &self.sources[source as usize];
            let (oldest, why) = if of_source.packets >= FRAGMENTS_WAITING_PER_SOURCE_MAX
                || of_source.bytes + packet.len > FRAGMENT_BYTES_WAITING_PER_SOURCE_MAX
            {
                (of_source.lists[WAITING].first(), Counter::DropFragmentsWaitingOfSource)
            } else if self.packets_free.is_empty() || self.bytes + packet.len > FRAGMENT_BYTES_WAITING_MAX {
                (self.lists[WAITING].first(), Counter::DropFragmentsWaiting)
            } else {
                break;
            };
            match oldest.filter(|oldest| *oldest != place) {
                Some(_) => self.displace(oldest, why, counters),
                // Nothing but its own datagram waits for longer.
                None => {
                    counters.bump(why);
                    return self.displace(Some(place), why, counters);
                }
            }
        }
        let Some(slot) = self.packets_free.pop() else { return };
        self.bytes += packet.len;
        let of_source = &mut self.sources[source as usize];
        of_source.packets += 1;
        of_source.bytes += packet.len;
        self.packets[slot as usize] = Some(packet);
        self.of_datagram.push(&mut self.datagrams[place as usize].waiting, slot);
    }

    /// Has the packets that wait of a datagram follow its first one.
    fn release(&mut self, place: u32) {
        let datagram = &mut self.datagrams[place as usize];
        let source = &mut self.sources[datagram.source as usize];
        while let Some(slot) = self.of_datagram.pop(&mut datagram.waiting) {
            source.packets -= 1;
            source.bytes -= self.packets[slot as usize].as_ref().map_or(0, |waiting| waiting.len);
            self.of_datagram.push(&mut self.released, slot);
        }
    }

    fn drop_waiting(&mut self, place: u32, why: Counter, counters: &Counters) {
        self.release(place);
        while self.next_released().is_some() {
            counters.bump(why);
        }
    }

    fn take_packet(&mut self, slot: u32) -> Option<Waiting<B>> {
        let waiting = self.packets[slot as usize].take()?;
        self.packets_free.push(slot);
        self.bytes -= waiting.len;
        Some(waiting)
    }
}

/// A place for an item among those that there were once, or a new one; `None`: all that were reserved are taken.
fn place_for<T>(items: &mut Vec<T>, free: &mut Vec<u32>, item: T) -> Option<u32> {
    if let Some(place) = free.pop() {
        items[place as usize] = item;
        return Some(place);
    }
    if items.len() == items.capacity() || items.len() as u32 == NONE {
        return None;
    }
    items.push(item);
    Some(items.len() as u32 - 1)
}

#[cfg(test)]
mod tests;
