//! One shard as one owned object: its order of changes and its source-NAT ports. Its flows lie in the
//! table of the worker that owns it, among those of the worker's other shards, and each names its shard: a
//! packet then finds its flow without asking for the shard, and one table is prefetched over a burst. Moving
//! a shard is moving this object, its flows, and those of its ports that rest.

use std::sync::Arc;

use crate::base::ids::{ShardId, Version, WorkerId};
use crate::flow::ports::{PortAllocator, PortSetup};
use crate::flow::toeplitz::Toeplitz;

/// What a shard is made of.
#[derive(Clone, Debug)]
pub struct ShardSetup {
    /// Which one.
    pub id: ShardId,
    /// The hash that members share.
    pub toeplitz: Arc<Toeplitz>,
    /// How source-NAT ports are divided and rest.
    pub ports: PortSetup,
}

/// The worker that owns a shard on an appliance with so many workers.
pub const fn owner_of(shard: ShardId, workers: u16) -> WorkerId {
    WorkerId(shard.0 % workers)
}

/// One of the shards that divide all flows.
pub struct Shard {
    /// Which one.
    pub id: ShardId,
    /// Its source-NAT ports.
    pub ports: PortAllocator,
    version: Version,
}

impl Shard {
    /// An empty shard. Its versions begin at 1.
    pub fn new(setup: &ShardSetup) -> Shard {
        let ports = PortAllocator::new(setup.id, Arc::clone(&setup.toeplitz), &setup.ports);
        Shard { id: setup.id, ports, version: Version(0) }
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
    use crate::base::time::{Duration, Instant};
    use crate::flow::toeplitz::MICROSOFT_KEY;

    #[test]
    fn versions_are_given_out_once_and_in_order() {
        let ports = PortSetup {
            members: 2,
            rank: 0,
            boot_parity: None,
            booted: Instant::ZERO,
            quarantine: Duration::from_secs(60),
            resting_max: 4,
        };
        let toeplitz = Arc::new(Toeplitz::new(&MICROSOFT_KEY).expect("a good key"));
        let mut shard = Shard::new(&ShardSetup { id: ShardId(7), toeplitz, ports });
        assert_eq!(shard.version(), Version(0));
        assert_eq!((shard.next_version(), shard.next_version()), (Version(1), Version(2)));
        shard.saw_version(Version(9));
        shard.saw_version(Version(4));
        assert_eq!((shard.version(), shard.next_version()), (Version(9), Version(10)));
    }
}
