//! One shard as one owned object: its order of changes. Its source-NAT ports follow from its number; its flows lie in the
//! table of the worker that owns it, among those of the worker's other shards, and each names its shard: a
//! packet then finds its flow without asking for the shard, and one table is prefetched over a burst. Moving
//! a shard is moving this object, its flows, and those of its ports that rest.

use crate::base::ids::{ShardId, Version, WorkerId};
use crate::base::limits::SHARDS;

/// The worker that owns a shard on an appliance with so many workers as long as none was moved, and to which peers send what
/// they say of it.
pub const fn owner_of(shard: ShardId, workers: u16) -> WorkerId {
    WorkerId(shard.0 % workers)
}

/// Which worker of this appliance owns each shard, as one lcore knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners([WorkerId; SHARDS]);

impl Owners {
    /// Of an appliance with so many workers, of which none has been moved.
    pub fn even(workers: u16) -> Owners {
        Owners(core::array::from_fn(|shard| owner_of(ShardId(shard as u16), workers)))
    }

    /// The owner of a shard.
    #[inline]
    pub fn of(&self, shard: ShardId) -> WorkerId {
        self.0[usize::from(shard.0) % SHARDS]
    }

    /// From now on this worker owns the shard.
    pub fn set(&mut self, shard: ShardId, owner: WorkerId) {
        self.0[usize::from(shard.0) % SHARDS] = owner;
    }

    /// One of the shards of a worker, the same one for the same number; `None`: it has none.
    pub fn nth_of(&self, worker: WorkerId, number: u64) -> Option<ShardId> {
        let count = self.shards_of(worker).count() as u64;
        let nth = number.checked_rem(count)?;
        self.shards_of(worker).nth(nth as usize)
    }

    /// The shards of a worker.
    pub fn shards_of(&self, worker: WorkerId) -> impl Iterator<Item = ShardId> + '_ {
        (0..SHARDS as u16).map(ShardId).filter(move |shard| self.of(*shard) == worker)
    }
}

/// Some of the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet([u64; SHARDS / 64]);

impl ShardSet {
    /// A set in words, the lowest shard in the lowest bit of the first.
    pub const fn from_words(words: [u64; SHARDS / 64]) -> ShardSet {
        ShardSet(words)
    }

    /// As [`ShardSet::from_words`] takes it.
    pub const fn words(&self) -> [u64; SHARDS / 64] {
        self.0
    }

    /// Whether a shard is one of them.
    #[inline]
    pub fn has(&self, shard: ShardId) -> bool {
        let word = self.0.get(usize::from(shard.0 / 64)).copied().unwrap_or(0);
        word >> (shard.0 % 64) & 1 == 1
    }

    /// Takes a shard in, or out.
    pub fn set(&mut self, shard: ShardId, has: bool) {
        if let Some(word) = self.0.get_mut(usize::from(shard.0 / 64)) {
            let bit = 1 << (shard.0 % 64);
            *word = if has { *word | bit } else { *word & !bit };
        }
    }

    /// Whether the other set has them all.
    pub fn is_within(&self, other: &ShardSet) -> bool {
        self.0.iter().zip(other.0).all(|(ours, theirs)| ours & !theirs == 0)
    }

    /// Those that are in the other set too.
    #[must_use]
    pub fn both(&self, other: &ShardSet) -> ShardSet {
        ShardSet(core::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// Those that are not in the other set.
    #[must_use]
    pub fn without(&self, other: &ShardSet) -> ShardSet {
        ShardSet(core::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// They, in order.
    pub fn iter(&self) -> impl Iterator<Item = ShardId> + '_ {
        (0..SHARDS as u16).map(ShardId).filter(|shard| self.has(*shard))
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<T: IntoIterator<Item = ShardId>>(shards: T) -> ShardSet {
        let mut set = ShardSet::default();
        shards.into_iter().for_each(|shard| set.set(shard, true));
        set
    }
}

/// Some shards that go from one worker to another one. By the first of them the move is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// At least one.
    pub shards: ShardSet,
    /// Who owns them.
    pub from: WorkerId,
    /// Who is to.
    pub to: WorkerId,
}

impl Move {
    /// The shard by which the move is known.
    pub fn name(&self) -> ShardId {
        self.shards.iter().next().unwrap_or_default()
    }
}

/// One of the shards that divide all flows.
pub struct Shard {
    /// Which one.
    pub id: ShardId,
    version: Version,
}

impl Shard {
    /// An empty shard. Its versions begin at 1.
    pub const fn new(id: ShardId) -> Shard {
        Shard { id, version: Version(0) }
    }

    /// A new place in the order of changes, later than all before it.
    pub fn next_version(&mut self) -> Version {
        self.version.0 += 1;
        self.version
    }

    /// A peer used this place: the next one given out here is later.
    pub fn saw_version(&mut self, version: Version) {
        self.version = self.version.max(version);
    }

    /// The latest place given out or seen; 0: none yet.
    pub const fn version(&self) -> Version {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_put_in_and_not_taken_out() {
        let mut set: ShardSet = [0, 63, 64, 255, 999].map(ShardId).into_iter().collect();
        assert_eq!((set.len(), set.has(ShardId(255)), set.has(ShardId(999))), (4, true, false));
        set.set(ShardId(0), false);
        assert_eq!(set.iter().collect::<Vec<_>>(), [63, 64, 255].map(ShardId));
        assert_eq!(ShardSet::from_words(set.words()), set);
        assert!(ShardSet::default().is_empty() && !set.is_empty());
        let other: ShardSet = [64, 100].map(ShardId).into_iter().collect();
        assert_eq!(set.both(&other).iter().collect::<Vec<_>>(), [ShardId(64)]);
        assert_eq!(set.without(&other).iter().collect::<Vec<_>>(), [63, 255].map(ShardId));
    }

    #[test]
    fn versions_are_given_out_once_and_in_order() {
        let mut shard = Shard::new(ShardId(7));
        assert_eq!(shard.version(), Version(0));
        assert_eq!((shard.next_version(), shard.next_version()), (Version(1), Version(2)));
        shard.saw_version(Version(9));
        shard.saw_version(Version(4));
        assert_eq!((shard.version(), shard.next_version()), (Version(9), Version(10)));
    }
}
