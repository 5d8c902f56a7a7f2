//! Names for things, one type each, so that a port is never taken for a worker.

use core::fmt;
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// A member of a group of appliances, unique in the group (`appliance.node`).
    NodeId(u16)
}
id! {
    /// A traffic group: what has one role, term and lease. One group exists for now: 0.
    GroupId(u16)
}
id! {
    /// One start of one appliance's process, from operating-system entropy; never zero.
    BootId(u64)
}
id! {
    /// A port, by its place in the configuration file.
    PortId(u16)
}
id! {
    /// A worker of this appliance, by its place in the configuration file.
    WorkerId(u16)
}
id! {
    /// One of the shards that divide all flows (DESIGN: 256); the same on every member.
    ShardId(u16)
}
id! {
    /// A state's place in its shard's order of changes. Within one term, newer is greater.
    Version(u64)
}
id! {
    /// A virtual server, given by its name: the same on every member, never reused.
    VirtualServerId(u32)
}
id! {
    /// A pool, given by its name: the same on every member, never reused.
    PoolId(u32)
}
id! {
    /// A real server in its pool, given by pool name and address: the same on every member.
    ServerId(u32)
}

/// Who leads, in order: a higher counter wins, then a higher node. Two nodes can
/// never hold equal terms because the node is part of it (DESIGN "Failover").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term {
    /// Raised at every promotion and every change of the in-sync set. Zero: no term yet.
    pub counter: u64,
    /// The node that leads in this term.
    pub node: NodeId,
}

impl Term {
    /// Before any term.
    pub const NONE: Term = Term { counter: 0, node: NodeId(0) };
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.counter, self.node)
    }
}

/// The stable 32-bit id of a name: FNV-1a. The configuration check refuses two
/// names of one kind with the same id, so ids are unique within a file; since
/// the id follows from the name alone, a peer that orders its file differently
/// cannot misbind a record.
pub const fn id_of_name(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let mut hash: u32 = 0x811c_9dc5;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_order_by_counter_then_node() {
        let a = Term { counter: 2, node: NodeId(1) };
        let b = Term { counter: 2, node: NodeId(2) };
        let c = Term { counter: 3, node: NodeId(1) };
        assert!(a < b && b < c && Term::NONE < a);
    }

    #[test]
    fn ids_follow_from_names() {
        assert_eq!(id_of_name(""), 0x811c_9dc5);
        assert_eq!(id_of_name("a"), 0xe40c_292c);
        assert_ne!(id_of_name("web"), id_of_name("www"));
    }
}
