//! What goes to a traffic manager that the configuration names (REQ D10): less specific keys that are in every connection
//! store from the start and never end.

use crate::base::ids::ShardId;
use crate::config::checked::{Checked, NamedKey};
use crate::distributor::services::number;
use crate::distributor::shape::Shape;
use crate::distributor::signal::{Lifetime, Sides, Signal, What};
use crate::flow::key::{Address, Key};
use crate::flow::shard::Owners;

/// The keys of a configuration, each with a shard of its traffic manager.
#[derive(Clone, Debug, Default)]
pub struct Named(Vec<Entry>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    shape: Shape,
    key: Key,
    shard: ShardId,
}

impl Named {
    /// Those of a configuration: every lcore comes to the same shards.
    pub fn new(config: &Checked) -> Named {
        let owners = Owners::even(config.lcores.managers());
        Named(config.distributor.keys.iter().filter_map(|named| entry(named, &owners)).collect())
    }

    /// What puts them into a store.
    pub fn signals(&self) -> impl Iterator<Item = Signal> + '_ {
        self.0.iter().map(|of| Signal {
            what: What::Memorize(Lifetime::Held),
            shape: of.shape,
            key: of.key,
            shard: of.shard,
            sides: Sides::Both,
            mirror: false,
        })
    }

    /// Whether one of them may lead a packet to another shard than this.
    pub fn may_lead_past(&self, key: &Key, shard: ShardId) -> bool {
        self.0.iter().any(|of| of.shard != shard && of.shape.of(key) == of.key)
    }

    /// Whether it is one of them that leads a packet to this shard.
    pub fn leads(&self, key: &Key, shard: ShardId) -> bool {
        self.0.iter().any(|of| of.shard == shard && of.shape.of(key) == of.key)
    }
}

/// `None`: the traffic manager has no shard, of which there are more than traffic managers.
fn entry(named: &NamedKey, owners: &Owners) -> Option<Entry> {
    let shape = if named.port.is_some() { Shape::Service } else { Shape::Destination };
    let (dst, dst_port) = (Address::from(named.address), named.port.unwrap_or(0));
    let key = Key { dst, dst_port, protocol: number(named.protocol), ..Key::default() };
    // Not all on one shard, so that moving one moves few of them.
    let shard = owners.nth_of(named.manager, key.shared_hash(&[0; 16]))?;
    Some(Entry { shape, key, shard })
}
