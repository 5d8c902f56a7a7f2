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

    /// The shards of a worker.
    pub fn shards_of(&self, worker: WorkerId) -> impl Iterator<Item = ShardId> + '_ {
        (0..SHARDS as u16).map(ShardId).filter(move |shard| self.of(*shard) == worker)
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
    fn versions_are_given_out_once_and_in_order() {
        let mut shard = Shard::new(ShardId(7));
        assert_eq!(shard.version(), Version(0));
        assert_eq!((shard.next_version(), shard.next_version()), (Version(1), Version(2)));
        shard.saw_version(Version(9));
        shard.saw_version(Version(4));
        assert_eq!((shard.version(), shard.next_version()), (Version(9), Version(10)));
    }
}
