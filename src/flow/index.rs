//! Finds a flow by a key's hash: buckets of one cache line, so that a look-up waits for
//! memory once.
//!
//! A bucket holds ten slots: a tag of 16 bits each, compared all at once, and 32 bits that
//! say which flow and which way. A slot that finds its bucket full goes to the next one with room, and
//! every bucket that it passed counts it: a look-up goes on only while that count is not zero. Taken out, it
//! is counted down again, so nothing is left behind by flows that are gone, and nothing is ever rehashed.
//!
//! Seven slots to a bucket are meant to be in use when the table is full: then one bucket in eight has passed
//! something on, and of a hundred look-ups two look at a second line.

use crate::base::memory::{NoMemory, Plain, Slab, TAGS, match_tags};

/// Slots of a bucket.
const SLOTS: usize = 10;
/// Slots in use of each bucket, on average, when the table is full.
const SLOTS_MEANT: usize = 7;
/// Which bits of [`match_tags`] are slots.
const SLOT_BITS: u32 = (1 << SLOTS) - 1;
/// Where a bucket counts what it passed on.
const PASSED: usize = SLOTS;
/// Where its slots' values begin: two lanes each, the lower half first.
const VALUES: usize = 12;
/// A count that has come this far stays: then look-ups go on for nothing, which is slow and right.
const PASSED_MAX: u16 = u16::MAX;
/// Buckets behind its own that a slot may go to. With seven of ten in use not even the tenth is ever
/// needed, but by a table of a few buckets.
const REACH: usize = 256;

/// One line.
#[derive(Clone, Copy, Plain)]
#[repr(C, align(64))]
struct Bucket {
    /// Ten tags, 0 where the slot is empty; what was passed on; nothing; ten values.
    lanes: [u16; 32],
}

impl Bucket {
    #[inline(always)]
    fn matching(&self, tag: u16) -> u32 {
        let (tags, _) = self.lanes.split_at(TAGS);
        // Sixteen of them.
        tags.first_chunk().map_or(0, |tags| match_tags(tags, tag)) & SLOT_BITS
    }

    #[inline(always)]
    fn value(&self, slot: usize) -> u32 {
        let at = VALUES + 2 * (slot % SLOTS);
        u32::from(self.lanes[at]) | u32::from(self.lanes[at + 1]) << 16
    }

    #[inline(always)]
    fn slot_of(&self, tag: u16, value: u32) -> Option<usize> {
        let mut matching = self.matching(tag);
        while matching != 0 {
            let slot = matching.trailing_zeros() as usize % SLOTS;
            if self.value(slot) == value {
                return Some(slot);
            }
            matching &= matching - 1;
        }
        None
    }

    #[inline(always)]
    fn set(&mut self, slot: usize, tag: u16, value: u32) {
        self.lanes[slot] = tag;
        self.lanes[VALUES + 2 * slot] = value as u16;
        self.lanes[VALUES + 2 * slot + 1] = (value >> 16) as u16;
    }
}

/// Where a hash belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    bucket: u32,
    tag: u16,
}

impl Spot {
    /// Of no hash.
    pub const NONE: Spot = Spot { bucket: 0, tag: 0 };
}

/// The index of one table.
pub struct Index {
    buckets: Slab<Bucket>,
}

impl Index {
    /// For so many slots in use at most.
    pub fn new(slots: usize) -> Result<Index, NoMemory> {
        Ok(Index { buckets: Slab::new(slots.div_ceil(SLOTS_MEANT).max(1))? })
    }

    /// Where a hash belongs.
    #[inline(always)]
    pub fn spot(&self, hash: u64) -> Spot {
        let bucket = (u128::from(hash) * self.buckets.len() as u128) >> 64;
        // 0 is no tag.
        Spot { bucket: bucket as u32, tag: hash as u16 | 1 }
    }

    /// Asks for the line that a look-up will need.
    #[inline(always)]
    pub fn prefetch(&self, spot: Spot) {
        self.buckets.prefetch(spot.bucket as usize);
    }

    /// The first value in a spot that may be the wanted one: what a burst's look-up takes for it until it has seen
    /// the flow.
    #[inline(always)]
    pub fn candidate(&self, spot: Spot) -> Option<u32> {
        let bucket = &self.buckets[spot.bucket as usize];
        let matching = bucket.matching(spot.tag);
        if matching == 0 && bucket.lanes[PASSED] != 0 {
            return self.find_behind(spot);
        }
        (matching != 0).then(|| bucket.value(matching.trailing_zeros() as usize))
    }

    #[cold]
    fn find_behind(&self, spot: Spot) -> Option<u32> {
        self.find(spot, |_| true)
    }

    /// The value in a spot for which `is` holds.
    #[inline]
    pub fn find(&self, spot: Spot, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut at = spot.bucket as usize;
        for _ in 0..REACH {
            let bucket = &self.buckets[at];
            let mut matching = bucket.matching(spot.tag);
            while matching != 0 {
                let value = bucket.value(matching.trailing_zeros() as usize);
                if is(value) {
                    return Some(value);
                }
                matching &= matching - 1;
            }
            if bucket.lanes[PASSED] == 0 {
                return None;
            }
            at = if at + 1 == self.buckets.len() { 0 } else { at + 1 };
        }
        None
    }

    /// Puts a value in; whether there was room.
    #[inline]
    pub fn insert(&mut self, spot: Spot, value: u32) -> bool {
        let bucket = &mut self.buckets[spot.bucket as usize];
        match bucket.matching(0) {
            0 => self.insert_behind(spot, value),
            empty => {
                bucket.set(empty.trailing_zeros() as usize % SLOTS, spot.tag, value);
                true
            }
        }
    }

    /// Its own bucket is full.
    #[cold]
    fn insert_behind(&mut self, spot: Spot, value: u32) -> bool {
        let room = self.chain(spot).position(|at| self.buckets[at].matching(0) != 0);
        let Some(distance) = room else { return false };
        for (step, at) in self.chain(spot).take(distance + 1).enumerate() {
            let bucket = &mut self.buckets[at];
            if step < distance {
                bucket.lanes[PASSED] = bucket.lanes[PASSED].saturating_add(1);
            } else {
                let slot = bucket.matching(0).trailing_zeros() as usize;
                bucket.set(slot, spot.tag, value);
            }
        }
        true
    }

    /// Takes a value out; whether it was there.
    #[inline]
    pub fn remove(&mut self, spot: Spot, value: u32) -> bool {
        let bucket = &mut self.buckets[spot.bucket as usize];
        match bucket.slot_of(spot.tag, value) {
            None => self.remove_behind(spot, value),
            Some(slot) => {
                bucket.set(slot, 0, 0);
                true
            }
        }
    }

    /// It is not in its own bucket.
    #[cold]
    fn remove_behind(&mut self, spot: Spot, value: u32) -> bool {
        let found = self.chain(spot).position(|at| self.buckets[at].slot_of(spot.tag, value).is_some());
        let Some(distance) = found else { return false };
        for (step, at) in self.chain(spot).take(distance + 1).enumerate() {
            let bucket = &mut self.buckets[at];
            if step < distance {
                if bucket.lanes[PASSED] != PASSED_MAX {
                    bucket.lanes[PASSED] -= 1;
                }
            } else if let Some(slot) = bucket.slot_of(spot.tag, value) {
                bucket.set(slot, 0, 0);
            }
        }
        true
    }

    /// The buckets that a spot's slot may be in, in order.
    fn chain(&self, spot: Spot) -> impl Iterator<Item = usize> + use<> {
        let len = self.buckets.len();
        (0..len.min(REACH)).map(move |step| {
            let at = spot.bucket as usize + step;
            if at < len { at } else { at - len }
        })
    }

    /// Has memory put behind it.
    pub fn populate(&self) {
        self.buckets.populate();
    }

    /// Slots there are.
    pub fn slots(&self) -> usize {
        self.buckets.len() * SLOTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn spot(index: &Index, bucket: u32, tag: u16) -> Spot {
        assert!((bucket as usize) < index.buckets.len());
        Spot { bucket, tag }
    }

    #[test]
    fn a_line_holds_ten() {
        assert_eq!((size_of::<Bucket>(), VALUES + 2 * SLOTS), (64, 32));
        let mut index = Index::new(60).expect("memory");
        for value in 0..SLOTS as u32 {
            let at = spot(&index, 3, 7);
            assert!(index.insert(at, value << 20));
        }
        assert_eq!(index.buckets[3].lanes[PASSED], 0);
        for value in 0..SLOTS as u32 {
            assert_eq!(index.find(spot(&index, 3, 7), |v| v == value << 20), Some(value << 20));
        }
        assert_eq!(index.candidate(spot(&index, 3, 7)), Some(0));
        assert_eq!(index.candidate(spot(&index, 3, 8)), None);
    }

    #[test]
    fn what_does_not_fit_is_found_behind_and_leaves_no_trace() {
        let mut index = Index::new(28).expect("memory");
        let at = spot(&index, 3, 9);
        // The last bucket of four: the next is the first.
        for value in 0..25 {
            assert!(index.insert(at, value));
        }
        let passed = |index: &Index| [0, 1, 2, 3].map(|b: usize| index.buckets[b].lanes[PASSED]);
        assert_eq!(passed(&index), [5, 0, 0, 15]);
        for value in 0..25 {
            assert_eq!(index.find(at, |v| v == value), Some(value));
        }
        for value in (0..25).rev() {
            assert!(index.remove(at, value) && !index.remove(at, value));
        }
        assert_eq!(passed(&index), [0; 4]);
        assert_eq!(index.find(at, |_| true), None);
    }

    #[test]
    fn a_full_index_refuses() {
        let mut index = Index::new(1).expect("memory");
        let at = index.spot(0);
        for value in 0..SLOTS as u32 {
            assert!(index.insert(at, value));
        }
        assert!(!index.insert(at, 99));
        assert_eq!(index.find(at, |value| value == 99), None);
    }

    #[test]
    fn at_the_load_that_is_meant_few_look_ups_go_on() {
        let slots = 60_000;
        let mut index = Index::new(slots).expect("memory");
        let mut rng = Rng::with_seed(8);
        for value in 0..slots as u32 {
            let at = index.spot(rng.u64(..));
            assert!(index.insert(at, value));
        }
        let passing = index.buckets.iter().filter(|bucket| bucket.lanes[PASSED] != 0).count();
        assert!(passing * 6 < index.buckets.len(), "{passing} of {}", index.buckets.len());
    }
}
