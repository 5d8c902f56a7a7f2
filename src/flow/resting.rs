//! Server-side keys whose source-NAT port may not be used again yet (DESIGN
//! "Source-NAT ports"): bounded, in two queues.
//!
//! A key first waits until every in-sync member knows that its flow ended, then is
//! in quarantine until strays of the old flow are gone. At capacity the oldest
//! quarantine ends early; if none is left, the oldest wait does.

use hashbrown::HashTable;

use crate::base::time::{Duration, Instant};
use crate::flow::key::{Key, KeyHash};

/// Ended quarantines that are cleared away with each new one, so that clearing
/// keeps pace without a long pause.
const CLEARED_MAX: usize = 4;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Queue {
    Waiting = 0,
    Quarantined = 1,
}

/// One key, linked to its neighbours in its queue.
struct Slot {
    key: Key,
    until: Instant,
    queue: Queue,
    older: u32,
    newer: u32,
}

#[derive(Clone, Copy)]
struct Ends {
    oldest: u32,
    newest: u32,
}

/// The resting keys of one shard.
pub struct Resting {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hash: KeyHash,
    queues: [Ends; 2],
    quarantine: Duration,
    capacity: usize,
    ended_early: u64,
}

impl Resting {
    /// Room for `capacity` keys, at least one, all of it reserved now; each rests
    /// for `quarantine`.
    pub fn new(capacity: u32, quarantine: Duration, hash: KeyHash) -> Resting {
        let capacity = capacity.clamp(1, NONE - 1) as usize;
        Resting {
            slots: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            // Twice what is needed, so that tombstones never make it grow (see `table`).
            index: HashTable::with_capacity(2 * capacity),
            hash,
            queues: [Ends { oldest: NONE, newest: NONE }; 2],
            quarantine,
            capacity,
            ended_early: 0,
        }
    }

    /// Keys that rest, ended quarantines that were not cleared away yet included.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many were let go before their time because there was no room.
    pub const fn ended_early(&self) -> u64 {
        self.ended_early
    }

    /// Whether the key's port may not be used.
    pub fn contains(&self, now: Instant, key: &Key) -> bool {
        self.find(key).is_some_and(|slot| match self.slots[slot as usize].queue {
            Queue::Waiting => true,
            Queue::Quarantined => now < self.slots[slot as usize].until,
        })
    }

    /// The key rests until [`Resting::acknowledged`], and for the quarantine afterwards.
    pub fn wait(&mut self, now: Instant, key: Key) {
        self.put(now, key, Queue::Waiting);
    }

    /// Every in-sync member knows that the key's flow ended: its quarantine begins.
    /// A key that does not wait (because there was no room) is left alone.
    pub fn acknowledged(&mut self, now: Instant, key: &Key) {
        if let Some(place) = self.find(key)
            && self.slots[place as usize].queue == Queue::Waiting
        {
            self.queue(now, place, Queue::Quarantined);
        }
    }

    /// The key's quarantine begins at once.
    pub fn quarantine(&mut self, now: Instant, key: Key) {
        self.put(now, key, Queue::Quarantined);
    }

    /// Clears away some quarantines that have ended: all of them, if it is called often enough.
    pub fn clear_ended(&mut self, now: Instant) {
        for _ in 0..CLEARED_MAX {
            match self.queues[Queue::Quarantined as usize].oldest {
                oldest if oldest != NONE && self.slots[oldest as usize].until <= now => self.forget(oldest),
                _ => break,
            }
        }
    }

    fn find(&self, key: &Key) -> Option<u32> {
        self.index.find(self.hash.of(key), |slot| self.slots[*slot as usize].key == *key).copied()
    }

    fn put(&mut self, now: Instant, key: Key, queue: Queue) {
        self.clear_ended(now);
        if let Some(known) = self.find(&key) {
            return self.queue(now, known, queue);
        }
        if self.len() == self.capacity {
            let [waiting, quarantined] = self.queues;
            let oldest = if quarantined.oldest == NONE { waiting.oldest } else { quarantined.oldest };
            self.forget(oldest);
            self.ended_early += 1;
        }
        let slot = Slot { key, until: now + self.quarantine, queue, older: NONE, newer: NONE };
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = slot;
                place
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.link(place);
        let (slots, hash) = (&self.slots, &self.hash);
        self.index.insert_unique(hash.of(&key), place, |slot| hash.of(&slots[*slot as usize].key));
    }

    /// Moves a key that rests already to the new end of a queue.
    fn queue(&mut self, now: Instant, place: u32, queue: Queue) {
        self.unlink(place);
        let slot = &mut self.slots[place as usize];
        (slot.queue, slot.until) = (queue, now + self.quarantine);
        (slot.older, slot.newer) = (NONE, NONE);
        self.link(place);
    }

    fn forget(&mut self, place: u32) {
        let hash = self.hash.of(&self.slots[place as usize].key);
        if let Ok(entry) = self.index.find_entry(hash, |slot| *slot == place) {
            entry.remove();
        }
        self.unlink(place);
        self.free.push(place);
    }

    /// To the new end of its queue.
    fn link(&mut self, place: u32) {
        let ends = &mut self.queues[self.slots[place as usize].queue as usize];
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
        let Slot { older, newer, queue, .. } = self.slots[place as usize];
        let ends = &mut self.queues[queue as usize];
        if older == NONE {
            ends.oldest = newer;
        } else {
            self.slots[older as usize].newer = newer;
        }
        if newer == NONE {
            ends.newest = older;
        } else {
            self.slots[newer as usize].older = older;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    const QUARANTINE: Duration = Duration::from_secs(10);

    fn key(n: u16) -> Key {
        Key { dst_port: n, ..Key::default() }
    }

    fn resting(capacity: u32) -> Resting {
        Resting::new(capacity, QUARANTINE, KeyHash::with_seed(1))
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn a_quarantine_ends_when_its_time_has_passed() {
        let mut resting = resting(8);
        resting.quarantine(at(5), key(1));
        assert!(resting.contains(at(5), &key(1)));
        assert!(resting.contains(at(14), &key(1)));
        assert!(!resting.contains(at(15), &key(1)));
        assert!(!resting.contains(at(5), &key(2)));
    }

    #[test]
    fn ended_quarantines_are_cleared_away_some_at_a_time_and_others_stay() {
        let mut resting = resting(32);
        for n in 0..CLEARED_MAX as u16 + 1 {
            resting.quarantine(at(0), key(n));
        }
        resting.wait(at(0), key(100));
        resting.quarantine(at(5), key(101));
        for left in [3, 2, 2] {
            resting.clear_ended(at(10));
            assert_eq!(resting.len(), left);
        }
        assert!(resting.contains(at(10), &key(100)) && resting.contains(at(10), &key(101)));
    }

    #[test]
    fn a_wait_lasts_until_it_is_acknowledged_and_then_comes_the_quarantine() {
        let mut resting = resting(8);
        resting.wait(at(0), key(1));
        assert!(resting.contains(at(100_000), &key(1)));
        resting.acknowledged(at(100_000), &key(1));
        assert!(resting.contains(at(100_009), &key(1)));
        assert!(!resting.contains(at(100_010), &key(1)));
    }

    #[test]
    fn a_second_acknowledgement_or_one_of_an_unknown_key_changes_nothing() {
        let mut resting = resting(8);
        resting.wait(at(0), key(1));
        resting.acknowledged(at(1), &key(1));
        resting.acknowledged(at(9), &key(1));
        assert!(!resting.contains(at(11), &key(1)));
        resting.acknowledged(at(1), &key(2));
        assert!(!resting.contains(at(1), &key(2)));
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
        let kept: Vec<u16> = (1..=4).filter(|n| resting.contains(at(3), &key(*n))).collect();
        assert_eq!(kept, [1, 3, 4]);
        resting.wait(at(3), key(5));
        resting.wait(at(3), key(6));
        let kept: Vec<u16> = (1..=6).filter(|n| resting.contains(at(3), &key(*n))).collect();
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
    fn it_behaves_as_two_plain_lists_over_many_random_steps() {
        let mut rng = Rng::with_seed(2);
        let mut resting = resting(16);
        let memory = (resting.slots.capacity(), resting.free.capacity(), resting.index.allocation_size());
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
                (true, _, _) => resting.wait(now, key(n)),
                (_, true, false) => resting.quarantine(now, key(n)),
                _ => resting.acknowledged(now, &key(n)),
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
                assert_eq!(resting.contains(now, &key(n)), rests);
            }
        }
        assert!(resting.ended_early() > 0);
        let now = (resting.slots.capacity(), resting.free.capacity(), resting.index.allocation_size());
        assert_eq!(now, memory);
    }
}
