//! A small set of nodes, in order.

use serde::Serialize;
use serde::ser::Serializer;

use crate::base::ids::NodeId;
use crate::base::limits::MEMBERS_MAX;

/// At most `MEMBERS_MAX` nodes, each once, in ascending order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Members {
    nodes: [NodeId; MEMBERS_MAX],
    len: u8,
}

impl Members {
    /// Nobody.
    pub const NONE: Members = Members { nodes: [NodeId(0); MEMBERS_MAX], len: 0 };

    /// How many.
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// Whether there is nobody in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The nodes.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes[..self.len()].iter().copied()
    }

    /// Whether it holds a node.
    pub fn contains(&self, node: NodeId) -> bool {
        self.nodes[..self.len()].contains(&node)
    }

    /// Adds a node; a full set stays as it is (a group has no more members).
    pub fn insert(&mut self, node: NodeId) {
        if self.contains(node) || self.len() == MEMBERS_MAX {
            return;
        }
        self.nodes[self.len()] = node;
        self.len += 1;
        let len = self.len();
        self.nodes[..len].sort_unstable();
    }

    /// Takes a node out.
    pub fn remove(&mut self, node: NodeId) {
        let mut rest = Members::NONE;
        self.iter().filter(|other| *other != node).for_each(|other| rest.insert(other));
        *self = rest;
    }

    /// This set and one more.
    pub fn with(mut self, node: NodeId) -> Members {
        self.insert(node);
        self
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_each_node_once_in_order() {
        let mut set = Members::NONE.with(NodeId(3)).with(NodeId(1)).with(NodeId(3));
        assert_eq!(set.iter().collect::<Vec<_>>(), [NodeId(1), NodeId(3)]);
        set.remove(NodeId(1));
        assert_eq!(set, Members::NONE.with(NodeId(3)));
        set.remove(NodeId(3));
        assert!(set.is_empty());
    }
}
