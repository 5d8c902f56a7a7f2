//! The ends of flows, on both sides of the mirror link.
//!
//! The sender keeps a [`Departed`] flow until every peer with a session has
//! acknowledged its end; only then may its source-NAT port begin to rest.
//! The receiver keeps a [`Graves`] entry until its replay window has passed
//! every frame that could carry an older state of the flow, so that a late
//! frame cannot bring it back.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::base::ids::ShardId;
use crate::base::memory::prefetch_write;
use crate::flow::entry::Stamp;
use crate::flow::image::Image;
use crate::flow::key::Key;
use crate::flow::resting::RestingPlace;
use crate::mirror::header::ACK_SPAN;
use crate::mirror::record::RECORDS_PER_FRAME_MAX;
use crate::seal::replay::WINDOW;

/// Ended flows that wait for acknowledgements, for each worker. At the limit
/// the peer that lags is brought up to date anew instead.
pub const DEPARTED_MAX: usize = 1 << 16;

/// Graves for each stream. At the limit further ends are not acknowledged
/// until the window has moved. With every frame of the window full of ends there is still room for as many as may be on
/// their way.
pub const GRAVES_MAX: usize = (WINDOW as usize + ACK_SPAN) * RECORDS_PER_FRAME_MAX;

/// A flow that ended and whose end some peer has not acknowledged.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Departed {
    /// The image of its client key.
    pub client: Image,
    /// The image of its server key.
    pub answers: Image,
    /// When it ended.
    pub stamp: Stamp,
    /// Where its source-NAT port waits with it.
    pub resting: RestingPlace,
    /// Its shard.
    pub shard: ShardId,
    /// Bit i: peer i has not acknowledged. No bit: nothing is here.
    pub waiting: u8,
}

const _: () = assert!(size_of::<Departed>() == 64);

impl Departed {
    /// Its source-NAT port.
    pub const fn port(&self) -> RestingPort {
        RestingPort { image: self.answers, place: self.resting }
    }
}

/// The source-NAT port of an ended flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestingPort {
    /// The image of the flow's server key.
    pub image: Image,
    /// Where it rests, if it does.
    pub place: RestingPlace,
}

/// Whether an ended flow found a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buried {
    /// At this place.
    At(u32),
    /// There is none: [`DEPARTED_MAX`] wait already.
    Full,
}

/// The sender's ended flows.
pub struct Tombstones {
    slots: Vec<Departed>,
    /// Client keys by place, for those flows of which the image is not the whole key; touched by none else.
    clients: Vec<Key>,
    free: Vec<u32>,
}

impl Default for Tombstones {
    fn default() -> Tombstones {
        // All of it is reserved now, and touched when first used.
        Tombstones {
            slots: Vec::with_capacity(DEPARTED_MAX),
            clients: Vec::with_capacity(DEPARTED_MAX),
            free: Vec::with_capacity(DEPARTED_MAX),
        }
    }
}

impl Tombstones {
    /// Keeps an ended flow, for which some peer has to be waited, and whose client key is `client`.
    pub fn bury(&mut self, departed: Departed, client: &Key) -> Buried {
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = departed;
                place
            }
            None if self.slots.len() == DEPARTED_MAX => return Buried::Full,
            None => {
                self.slots.push(departed);
                (self.slots.len() - 1) as u32
            }
        };
        if !departed.client.is_v4() {
            let places = self.clients.len().max(place as usize + 1);
            self.clients.resize(places, Key::default());
            self.clients[place as usize] = *client;
        }
        Buried::At(place)
    }

    /// The ended flow at a place, if it still waits.
    pub fn at(&self, place: u32) -> Option<&Departed> {
        self.slots.get(place as usize).filter(|departed| departed.waiting != 0)
    }

    /// The client key of the ended flow at a place, if it still waits.
    pub fn client(&self, place: u32) -> Option<Key> {
        let departed = self.at(place)?;
        departed.client.v4_key().or_else(|| self.clients.get(place as usize).copied())
    }

    /// Asks for the line of a place.
    #[inline(always)]
    pub fn prefetch(&self, place: u32) {
        if let Some(departed) = self.slots.get(place as usize) {
            prefetch_write(departed);
        }
    }

    /// Peer `peer` has acknowledged the end; the flow, when it was the last.
    pub fn acknowledged(&mut self, place: u32, peer: usize) -> Option<Departed> {
        let departed = self.slots.get_mut(place as usize).filter(|departed| departed.waiting != 0)?;
        departed.waiting &= !(1 << peer);
        if departed.waiting != 0 {
            return None;
        }
        self.free.push(place);
        Some(*departed)
    }

    /// Peer `peer` is gone or begins anew with these shards: calls `each` with every flow of
    /// them that waited for it alone.
    pub fn forget_peer(
        &mut self,
        peer: usize,
        of_shard: impl Fn(ShardId) -> bool,
        mut each: impl FnMut(Departed),
    ) {
        for place in 0..self.slots.len() as u32 {
            let waits = |departed: &Departed| departed.waiting >> peer & 1 == 1 && of_shard(departed.shard);
            if self.at(place).is_some_and(waits)
                && let Some(departed) = self.acknowledged(place, peer)
            {
                each(departed);
            }
        }
    }

    /// The places of those of a shard.
    pub fn of_shard(&self, shard: ShardId) -> impl Iterator<Item = u32> + '_ {
        let waits = move |departed: &Departed| departed.waiting != 0 && departed.shard == shard;
        (0..).zip(&self.slots).filter(move |(_, departed)| waits(departed)).map(|(place, _)| place)
    }

    /// Those at these places, which wait, are another worker's from now on.
    pub fn forget(&mut self, places: &[u32]) {
        for place in places {
            if let Some(departed) = self.slots.get_mut(*place as usize).filter(|of| of.waiting != 0) {
                departed.waiting = 0;
                self.free.push(*place);
            }
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The receiver's graves for one stream.
#[derive(Default)]
pub struct Graves {
    by_flow: HashMap<(ShardId, Key), (Stamp, u64)>,
    order: VecDeque<(ShardId, Key, u64)>,
}

impl Graves {
    /// Whether another grave can be dug.
    pub fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// Graves that were dug, and count: one flow may have several.
    pub fn dug(&self) -> usize {
        self.order.len()
    }

    /// Graves that can be dug.
    pub fn room(&self) -> usize {
        GRAVES_MAX.saturating_sub(self.dug())
    }

    /// Remembers that the flow of `client` in this shard ended at `stamp`; `newest` is the
    /// newest sequence received so far, which an older state may still be below. A key that comes
    /// again in another shard is another flow: versions of shards do not compare.
    pub fn dig(&mut self, shard: ShardId, client: Key, stamp: Stamp, newest: u64) {
        let grave = self.by_flow.entry((shard, client)).or_insert((stamp, newest));
        grave.0 = grave.0.max(stamp);
        grave.1 = newest;
        self.order.push_back((shard, client, newest));
    }

    /// Whether a state of `client` in this shard with `stamp` is older than its end.
    pub fn buries(&self, shard: ShardId, client: &Key, stamp: Stamp) -> bool {
        self.by_flow.get(&(shard, *client)).is_some_and(|grave| stamp <= grave.0)
    }

    /// Frames below `floor` can never be accepted any more.
    pub fn pass(&mut self, floor: u64) {
        while let Some((shard, client, newest)) = self.order.front().copied() {
            if newest >= floor {
                break;
            }
            self.order.pop_front();
            if self.by_flow.get(&(shard, client)).is_some_and(|grave| grave.1 == newest) {
                self.by_flow.remove(&(shard, client));
            }
        }
    }

    /// Forgets all: a new session, whose frames are all newer.
    pub fn clear(&mut self) {
        self.by_flow.clear();
        self.order.clear();
    }

    /// How many graves there are.
    pub fn len(&self) -> usize {
        self.by_flow.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_flow.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{NodeId, Term, Version};
    use crate::flow::image::Imager;
    use crate::flow::key::Address;

    const HERE: ShardId = ShardId(1);

    fn departed(shard: u16, waiting: u8) -> Departed {
        let shard = ShardId(shard);
        let client = Imager::with_seed(1).of(&client(0));
        let resting = RestingPlace::NONE;
        Departed { shard, client, answers: Image::default(), resting, stamp: Stamp::NONE, waiting }
    }

    fn buried(tombstones: &mut Tombstones, shard: u16, waiting: u8) -> u32 {
        match tombstones.bury(departed(shard, waiting), &client(0)) {
            Buried::At(place) => place,
            Buried::Full => panic!("there is room"),
        }
    }

    fn client(port: u16) -> Key {
        Key { src_port: port, ..Key::default() }
    }

    fn stamp(version: u64) -> Stamp {
        Stamp { term: Term { counter: 1, node: NodeId(1) }, version: Version(version) }
    }

    #[test]
    fn an_end_leaves_when_the_last_peer_has_acknowledged_it_and_its_place_is_used_again() {
        let mut tombstones = Tombstones::default();
        let place = buried(&mut tombstones, 3, 0b101);
        assert!(tombstones.acknowledged(place, 0).is_none());
        assert!(tombstones.acknowledged(place, 0).is_none(), "the same peer again");
        assert_eq!(tombstones.acknowledged(place, 2).map(|departed| departed.shard), Some(ShardId(3)));
        assert!(tombstones.is_empty() && tombstones.at(place).is_none());
        assert!(tombstones.acknowledged(place, 2).is_none(), "it is gone");
        assert_eq!(buried(&mut tombstones, 4, 1), place);
    }

    #[test]
    fn a_peer_that_is_forgotten_frees_what_waited_for_it_alone_and_only_in_its_shards() {
        let mut tombstones = Tombstones::default();
        let (alone, both) = (buried(&mut tombstones, 1, 0b01), buried(&mut tombstones, 1, 0b11));
        let elsewhere = buried(&mut tombstones, 2, 0b01);
        let mut freed = Vec::new();
        tombstones.forget_peer(0, |shard| shard == ShardId(1), |departed| freed.push(departed.shard));
        assert_eq!(freed, [ShardId(1)]);
        assert!(tombstones.at(alone).is_none() && tombstones.at(elsewhere).is_some());
        assert_eq!(tombstones.at(both).map(|departed| departed.waiting), Some(0b10));
    }

    #[test]
    fn client_keys_of_both_families_come_back_whole() {
        let imager = Imager::with_seed(1);
        let mut tombstones = Tombstones::default();
        let v6 = |n| Key { src: Address::v6([n; 16]), dst: Address::v6([7; 16]), ..client(443) };
        let v4 = Key { src: Address::v4([192, 0, 2, 1]), dst: Address::v4([192, 0, 2, 2]), ..client(80) };
        let keys = [v4, v6(1), v4.reversed(), v6(2)];
        let places = keys.map(|key| {
            let departed = Departed { client: imager.of(&key), ..departed(1, 1) };
            match tombstones.bury(departed, &key) {
                Buried::At(place) => place,
                Buried::Full => panic!("there is room"),
            }
        });
        assert_eq!(places.map(|place| tombstones.client(place)), keys.map(Some));
        assert!(tombstones.acknowledged(places[1], 0).is_some() && tombstones.client(places[1]).is_none());
    }

    #[test]
    fn ends_are_bounded() {
        let mut tombstones = Tombstones::default();
        for n in 0..DEPARTED_MAX {
            assert_eq!(buried(&mut tombstones, 1, 1), n as u32);
        }
        assert_eq!(tombstones.bury(departed(1, 1), &client(0)), Buried::Full);
        assert_eq!(tombstones.len(), DEPARTED_MAX);
    }

    #[test]
    fn a_grave_buries_older_states_until_no_frame_can_carry_one() {
        let mut graves = Graves::default();
        graves.dig(HERE, client(1), stamp(5), 10);
        assert!(graves.buries(HERE, &client(1), stamp(5)) && graves.buries(HERE, &client(1), stamp(4)));
        assert!(!graves.buries(HERE, &client(1), stamp(6)) && !graves.buries(HERE, &client(2), stamp(4)));
        assert!(!graves.buries(ShardId(2), &client(1), stamp(4)), "the key came again in another shard");
        graves.pass(10);
        assert!(graves.buries(HERE, &client(1), stamp(5)), "frame 10 may still come");
        graves.pass(11);
        assert!(!graves.buries(HERE, &client(1), stamp(5)) && graves.is_empty());
    }

    #[test]
    fn a_grave_dug_again_stays_for_the_later_frame_and_for_the_newest_end() {
        let mut graves = Graves::default();
        graves.dig(HERE, client(1), stamp(9), 10);
        graves.dig(HERE, client(1), stamp(5), 20);
        graves.pass(15);
        assert!(graves.buries(HERE, &client(1), stamp(9)));
        graves.pass(21);
        assert_eq!(graves.len(), 0);
    }

    #[test]
    fn graves_are_bounded_and_passing_makes_room() {
        let mut graves = Graves::default();
        for n in 0..GRAVES_MAX {
            assert!(graves.has_room());
            graves.dig(HERE, client(n as u16), stamp(1), n as u64);
        }
        assert!(!graves.has_room());
        graves.pass(1);
        assert!(graves.has_room());
    }
}
