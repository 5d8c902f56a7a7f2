//! Server-side keys whose source-NAT port may not be used again yet (DESIGN
//! "Source-NAT ports"), of all shards of a worker: bounded, in two queues.
//!
//! A key first waits until every in-sync member knows that its flow ended, then is
//! in quarantine until strays of the old flow are gone. At capacity the oldest
//! quarantine ends early; if none is left, the oldest wait does.
//!
//! A key is known by its image. That is the whole of an IPv4 key; of IPv6, two keys with one image rest
//! each for itself, and the longer rest holds for both: a port can be refused for nothing, and is never free too early.
//!
//! Keys come and go in about the order of their places, so only the index is touched at random, and that is
//! asked for ahead: [`Resting::prefetch`], [`Resting::prefetch_oldest`].

use crate::base::limits::RESTING_CLEARED_MAX;
use crate::base::memory::{NoMemory, Plain, Slab};
use crate::base::time::{Duration, Instant};
use crate::flow::image::{Image, Imager};
use crate::flow::index::{Index, Spot};

const NONE: u32 = u32::MAX;

/// Until when a key rests that waits.
const UNTIL_ACKNOWLEDGED: u64 = u64::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Queue {
    Waiting = 0,
    Quarantined = 1,
}

/// One key, linked to its neighbours in its queue: half a line.
#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Slot {
    /// None: the place is empty.
    image: Image,
    /// In nanoseconds, as [`Instant`].
    until: u64,
    older: u32,
    /// Of an empty place: the next empty one.
    newer: u32,
}

const _: () = assert!(size_of::<Slot>() == 32);

impl Slot {
    const fn queue(&self) -> Queue {
        if self.until == UNTIL_ACKNOWLEDGED { Queue::Waiting } else { Queue::Quarantined }
    }
}

#[derive(Clone, Copy)]
struct Ends {
    oldest: u32,
    newest: u32,
}

/// Where a key rests: so that its acknowledgement finds it without a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestingPlace(u32);

impl RestingPlace {
    /// Nowhere.
    pub const NONE: RestingPlace = RestingPlace(NONE);
}

/// The resting keys of one worker.
pub struct Resting {
    slots: Slab<Slot>,
    index: Index,
    imager: Imager,
    /// Places below this have been in use.
    used: u32,
    /// The empty place that was left last.
    free: u32,
    len: u32,
    queues: [Ends; 2],
    quarantine: Duration,
    ended_early: u64,
}

impl Resting {
    /// Room for `capacity` keys, at least one, all of it reserved now and touched when first used; each rests
    /// for `quarantine`.
    pub fn new(capacity: u32, quarantine: Duration, imager: Imager) -> Result<Resting, NoMemory> {
        let capacity = capacity.clamp(1, NONE - 1) as usize;
        Ok(Resting {
            slots: Slab::new(capacity)?,
            index: Index::new(capacity)?,
            imager,
            used: 0,
            free: NONE,
            len: 0,
            queues: [Ends { oldest: NONE, newest: NONE }; 2],
            quarantine,
            ended_early: 0,
        })
    }

    /// Keys that rest, ended quarantines that were not cleared away yet included.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many were let go before their time because there was no room.
    pub const fn ended_early(&self) -> u64 {
        self.ended_early
    }

    /// Asks for the line that a look for this image will need.
    #[inline(always)]
    pub fn prefetch(&self, image: Image) {
        self.index.prefetch(self.spot(image));
    }

    /// Asks for the lines that clearing away the next so many ended quarantines will need.
    pub fn prefetch_oldest(&self, now: Instant, count: usize) {
        let mut place = self.queues[Queue::Quarantined as usize].oldest;
        let full = self.len() == self.slots.len();
        for _ in 0..count {
            match self.slots.get(place as usize) {
                Some(slot) if full || slot.until <= now.nanos() => {
                    self.prefetch(slot.image);
                    place = slot.newer;
                }
                _ => return,
            }
        }
    }

    /// Whether the key's port may not be used.
    pub fn contains(&self, now: Instant, image: Image) -> bool {
        let rests = |slot: &Slot| slot.image == image && now.nanos() < slot.until;
        self.index.find(self.spot(image), |place| rests(&self.slots[place as usize])).is_some()
    }

    /// The key rests until [`Resting::acknowledged`], and for the quarantine afterwards.
    pub fn wait(&mut self, now: Instant, image: Image) -> RestingPlace {
        RestingPlace(self.put(now, image, UNTIL_ACKNOWLEDGED))
    }

    /// Every in-sync member knows that the key's flow ended: its quarantine begins.
    /// A key that does not wait (because there was no room) is left alone.
    pub fn acknowledged(&mut self, now: Instant, place: RestingPlace, image: Image) {
        let waits = |slot: &Slot| slot.image == image && slot.queue() == Queue::Waiting;
        if self.slots.get(place.0 as usize).is_some_and(waits) {
            self.queue(place.0, self.quarantined(now));
        }
    }

    /// The key's quarantine begins at once.
    pub fn quarantine(&mut self, now: Instant, image: Image) {
        self.put(now, image, self.quarantined(now));
    }

    /// As [`Resting::quarantine`], of a key that rests elsewhere already, until then.
    pub fn rest_until(&mut self, now: Instant, image: Image, until: Instant) {
        self.put(now, image, until.nanos().min(UNTIL_ACKNOWLEDGED - 1));
    }

    /// The key that rests at a place, below [`Resting::places_end`], and until when: one that waits, for a quarantine from
    /// now on.
    pub fn at(&self, now: Instant, place: u32) -> Option<(Image, Instant)> {
        let slot = self.slots.get(place as usize).filter(|slot| !slot.image.is_none())?;
        let until = if slot.queue() == Queue::Waiting { self.quarantined(now) } else { slot.until };
        (until > now.nanos()).then_some((slot.image, Instant::from_nanos(until)))
    }

    /// Until when a key rests: one that waits, for a quarantine from now on. `None`: it does not.
    pub fn until(&self, now: Instant, image: Image) -> Option<Instant> {
        let is_it = |place| self.slots[place as usize].image == image;
        self.at(now, self.index.find(self.spot(image), is_it)?).map(|(_, until)| until)
    }

    /// Nothing rests at this place or behind it.
    pub const fn places_end(&self) -> u32 {
        self.used
    }

    /// Clears away some quarantines that have ended: all of them, if it is called often enough.
    pub fn clear_ended(&mut self, now: Instant) {
        for _ in 0..RESTING_CLEARED_MAX {
            match self.queues[Queue::Quarantined as usize].oldest {
                oldest if oldest != NONE && self.slots[oldest as usize].until <= now.nanos() => {
                    self.forget(oldest);
                }
                _ => break,
            }
        }
    }

    #[inline(always)]
    fn spot(&self, image: Image) -> Spot {
        self.index.spot(self.imager.hash(image))
    }

    fn quarantined(&self, now: Instant) -> u64 {
        // What waits has the highest value.
        (now + self.quarantine).nanos().min(UNTIL_ACKNOWLEDGED - 1)
    }

    fn put(&mut self, now: Instant, image: Image, until: u64) -> u32 {
        self.clear_ended(now);
        let spot = self.spot(image);
        if image.is_v4()
            && let Some(known) = self.index.find(spot, |place| self.slots[place as usize].image == image)
        {
            self.queue(known, until);
            return known;
        }
        if self.len() == self.slots.len() {
            let [waiting, quarantined] = self.queues;
            let oldest = if quarantined.oldest == NONE { waiting.oldest } else { quarantined.oldest };
            self.forget(oldest);
            self.ended_early += 1;
        }
        let place = if self.free == NONE { self.used } else { self.free };
        if !self.index.insert(spot, place) {
            // Never seen: hundreds of buckets in a row would have to be full.
            self.ended_early += 1;
            return NONE;
        }
        if self.free == NONE {
            self.used += 1;
        } else {
            self.free = self.slots[place as usize].newer;
        }
        self.len += 1;
        self.slots[place as usize] = Slot { image, until, older: NONE, newer: NONE };
        self.link(place);
        place
    }

    /// Moves a key that rests already to the new end of a queue.
    fn queue(&mut self, place: u32, until: u64) {
        self.unlink(place);
        let slot = &mut self.slots[place as usize];
        (slot.until, slot.older, slot.newer) = (until, NONE, NONE);
        self.link(place);
    }

    fn forget(&mut self, place: u32) {
        self.index.remove(self.spot(self.slots[place as usize].image), place);
        self.unlink(place);
        self.slots[place as usize] =
            Slot { image: Image::default(), until: 0, older: NONE, newer: self.free };
        self.free = place;
        self.len -= 1;
    }

    /// To the new end of its queue.
    fn link(&mut self, place: u32) {
        let ends = &mut self.queues[self.slots[place as usize].queue() as usize];
        let before = ends.newest;
        ends.newest = place;
        if before == NONE {
            ends.oldest = place;
        } else {
            self.slots[before as usize].newer = place;
        }
        self.slots[place as usize].older = before;
    }

    fn unlink(&mut self, place: u32) {
        let slot = self.slots[place as usize];
        let ends = &mut self.queues[slot.queue() as usize];
        if slot.older == NONE {
            ends.oldest = slot.newer;
        } else {
            self.slots[slot.older as usize].newer = slot.newer;
        }
        if slot.newer == NONE {
            ends.newest = slot.older;
        } else {
            self.slots[slot.newer as usize].older = slot.older;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use crate::flow::key::{Address, Key};

    const QUARANTINE: Duration = Duration::from_secs(10);

    fn key(n: u16) -> Image {
        let v4 = Address::v4([10, 0, 0, 1]);
        Imager::with_seed(1).of(&Key { src: v4, dst: v4, dst_port: n, ..Key::default() })
    }

    fn resting(capacity: u32) -> Resting {
        Resting::new(capacity, QUARANTINE, Imager::with_seed(1)).expect("memory")
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn a_quarantine_ends_when_its_time_has_passed() {
        let mut resting = resting(8);
        resting.quarantine(at(5), key(1));
        assert!(resting.contains(at(5), key(1)));
        assert!(resting.contains(at(14), key(1)));
        assert!(!resting.contains(at(15), key(1)));
        assert!(!resting.contains(at(5), key(2)));
    }

    #[test]
    fn what_rests_elsewhere_rests_here_as_long() {
        let (mut here, mut there) = (resting(8), resting(8));
        here.quarantine(at(0), key(1));
        here.wait(at(0), key(2));
        here.quarantine(at(2), key(3));
        for (image, until) in (0..here.places_end()).filter_map(|place| here.at(at(11), place)) {
            there.rest_until(at(11), image, until);
        }
        let rests = |secs, n| there.contains(at(secs), key(n));
        assert!(!rests(11, 1) && rests(11, 3) && !rests(12, 3));
        assert!(rests(20, 2) && !rests(21, 2), "one that waits: for a quarantine from the move on");
        assert_eq!(here.at(at(0), here.places_end()), None);
        assert_eq!([1, 2, 3].map(|n| here.until(at(11), key(n))), [None, Some(at(21)), Some(at(12))]);
    }

    #[test]
    fn ended_quarantines_are_cleared_away_some_at_a_time_and_others_stay() {
        let mut resting = resting(32);
        for n in 0..RESTING_CLEARED_MAX as u16 + 1 {
            resting.quarantine(at(0), key(n));
        }
        resting.wait(at(0), key(100));
        resting.quarantine(at(5), key(101));
        for left in [3, 2, 2] {
            resting.clear_ended(at(10));
            assert_eq!(resting.len(), left);
        }
        assert!(resting.contains(at(10), key(100)) && resting.contains(at(10), key(101)));
    }

    #[test]
    fn a_wait_lasts_until_it_is_acknowledged_and_then_comes_the_quarantine() {
        let mut resting = resting(8);
        let place = resting.wait(at(0), key(1));
        assert!(resting.contains(at(100_000), key(1)));
        resting.acknowledged(at(100_000), place, key(1));
        assert!(resting.contains(at(100_009), key(1)));
        assert!(!resting.contains(at(100_010), key(1)));
    }

    #[test]
    fn a_second_acknowledgement_or_one_of_an_unknown_key_changes_nothing() {
        let mut resting = resting(8);
        let place = resting.wait(at(0), key(1));
        resting.acknowledged(at(1), place, key(1));
        resting.acknowledged(at(9), place, key(1));
        assert!(!resting.contains(at(11), key(1)));
        resting.acknowledged(at(1), place, key(2));
        resting.acknowledged(at(1), RestingPlace::NONE, key(2));
        assert!(!resting.contains(at(1), key(2)));
        assert_eq!(resting.len(), 1);
    }

    #[test]
    fn at_capacity_the_oldest_quarantine_ends_early_before_any_wait() {
        let mut resting = resting(3);
        resting.wait(at(0), key(1));
        resting.quarantine(at(1), key(2));
        resting.quarantine(at(2), key(3));
        assert_eq!(resting.ended_early(), 0);
        resting.wait(at(3), key(4));
        assert_eq!(resting.ended_early(), 1);
        let kept: Vec<u16> = (1..=4).filter(|n| resting.contains(at(3), key(*n))).collect();
        assert_eq!(kept, [1, 3, 4]);
        resting.wait(at(3), key(5));
        resting.wait(at(3), key(6));
        let kept: Vec<u16> = (1..=6).filter(|n| resting.contains(at(3), key(*n))).collect();
        assert_eq!((kept, resting.ended_early()), (vec![4, 5, 6], 3));
    }

    #[test]
    fn ended_quarantines_make_room_without_counting_as_early() {
        let mut resting = resting(4);
        for n in 0..100 {
            resting.quarantine(at(u64::from(n) * 3), key(n));
        }
        assert_eq!(resting.ended_early(), 0);
    }

    #[test]
    fn a_wait_that_ended_early_is_not_acknowledged_in_the_name_of_whoever_has_its_place() {
        let mut resting = resting(1);
        let place = resting.wait(at(0), key(1));
        assert_eq!(resting.wait(at(0), key(2)), place);
        resting.acknowledged(at(0), place, key(1));
        assert!(resting.contains(at(1000), key(2)) && !resting.contains(at(0), key(1)));
    }

    /// As if the addresses of two keys had the same hash.
    #[test]
    fn two_ipv6_keys_with_one_image_rest_each_for_itself_and_the_longer_rest_holds_for_both() {
        let v6 = Address::v6([0x20; 16]);
        let image = Imager::with_seed(1).of(&Key { src: v6, dst: v6, ..Key::default() });
        let mut resting = resting(8);
        let first = resting.wait(at(0), image);
        let second = resting.wait(at(0), image);
        resting.acknowledged(at(1), second, image);
        assert_eq!(resting.len(), 2);
        assert!(resting.contains(at(1000), image), "the first still waits");
        resting.acknowledged(at(1000), first, image);
        assert!(resting.contains(at(1009), image) && !resting.contains(at(1010), image));
    }

    #[test]
    fn it_behaves_as_two_plain_lists_over_many_random_steps() {
        let mut rng = Rng::with_seed(2);
        let mut resting = resting(16);
        let mut places = [RestingPlace::NONE; 30];
        let mut waiting: Vec<u16> = vec![];
        let mut quarantined: Vec<(u16, Instant)> = vec![];
        let mut now = at(0);
        for _ in 0..100_000 {
            now += Duration::from_millis(rng.u64(0..1500));
            let n = rng.u16(0..30);
            let waits = waiting.contains(&n);
            let (to_wait, to_quarantine) = match rng.u8(0..3) {
                0 => (true, false),
                1 => (false, true),
                _ => (false, waits),
            };
            match (to_wait, to_quarantine, waits) {
                (true, _, _) => places[usize::from(n)] = resting.wait(now, key(n)),
                (_, true, false) => resting.quarantine(now, key(n)),
                _ => resting.acknowledged(now, places[usize::from(n)], key(n)),
            }
            if to_wait || to_quarantine {
                waiting.retain(|other| *other != n);
                quarantined.retain(|(other, until)| *other != n && now < *until);
                if waiting.len() + quarantined.len() == 16 {
                    if quarantined.is_empty() {
                        waiting.remove(0);
                    } else {
                        quarantined.remove(0);
                    }
                }
                if to_wait { waiting.push(n) } else { quarantined.push((n, now + QUARANTINE)) }
            }
            for n in 0..30 {
                let rests =
                    waiting.contains(&n) || quarantined.iter().any(|(m, until)| *m == n && now < *until);
                assert_eq!(resting.contains(now, key(n)), rests);
            }
        }
        assert!(resting.ended_early() > 0);
        let in_index = (0..30).filter(|n| resting.index.find(resting.spot(key(*n)), |_| true).is_some());
        assert_eq!(in_index.count(), resting.len(), "nothing is left behind");
    }
}
