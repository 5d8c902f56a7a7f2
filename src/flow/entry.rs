//! One flow (REQ C4): both keys, the translation they imply, where its packets go,
//! its TCP state, and the place of its last change in the order of changes.

use core::fmt;

use zerocopy::FromZeros;

use crate::base::ids::{PoolId, ServerId, ShardId, Term, Version, VirtualServerId};
use crate::flow::key::Key;
use crate::flow::layout::STAMP_MAX;
use crate::flow::tcp_state::TcpState;

/// An adjacency that is not known (yet).
pub const ADJACENCY_UNKNOWN: u32 = u32::MAX;

/// A flow's place in its shard's table: fixed while the flow lives, used again
/// afterwards. Names nothing outside of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowIndex(pub u32);

impl FlowIndex {
    /// As an index of side arrays.
    pub const fn slot(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for FlowIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the virtual server.
    FromClient = 0,
    /// From the real server.
    FromServer = 1,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub const fn reversed(self) -> Direction {
        match self {
            Direction::FromClient => Direction::FromServer,
            Direction::FromServer => Direction::FromClient,
        }
    }
}

/// When something happened, in the order of all changes of a shard: first by the
/// term of the appliance that led, then by its version. Newest wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Who led.
    pub term: Term,
    /// The shard's counter.
    pub version: Version,
}

impl Stamp {
    /// Before everything.
    pub const NONE: Stamp = Stamp { term: Term::NONE, version: Version(0) };

    /// It, if a flow in the table can keep it: see [`STAMP_MAX`](crate::flow::layout::STAMP_MAX).
    pub fn kept(self) -> Option<Stamp> {
        (self.version.0 <= STAMP_MAX && self.term.counter <= STAMP_MAX).then_some(self)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.term, self.version)
    }
}

/// Yes-or-no facts of a flow.
#[derive(Clone, Copy, Default, PartialEq, Eq, FromZeros)]
pub struct FlowFlags(u8);

impl FlowFlags {
    /// None of them.
    pub const NONE: FlowFlags = FlowFlags(0);
    /// The flow is replicated to peers.
    pub const MIRRORED: FlowFlags = FlowFlags(1);
    /// The source is translated too; the server's side uses a source-NAT port.
    pub const FULL_NAT: FlowFlags = FlowFlags(1 << 1);
    /// A peer's record made this flow, and this appliance has not changed it since.
    pub const FROM_PEER: FlowFlags = FlowFlags(1 << 2);
    /// Packets of the flow wait for the mirror; later ones wait behind them.
    pub const HELD: FlowFlags = FlowFlags(1 << 3);
    /// Distributors were told of its keys, which their hashes do not lead to its shard, and have to be told of its end.
    pub const REMEMBERED: FlowFlags = FlowFlags(1 << 4);
    /// The flow's shard is about to leave this worker, or has come since the flow's last packet.
    pub const MOVING: FlowFlags = FlowFlags(1 << 5);
    /// An operator chose whether it is mirrored: whatever rules say, it stays so.
    pub const CHOSEN: FlowFlags = FlowFlags(1 << 6);
    /// The client's first payload is awaited, for rules say by it whether the flow is mirrored.
    pub const AWAITED: FlowFlags = FlowFlags(1 << 7);

    const NAMES: [(FlowFlags, &'static str); 8] = [
        (FlowFlags::MIRRORED, "mirrored"),
        (FlowFlags::FULL_NAT, "full-nat"),
        (FlowFlags::FROM_PEER, "from-peer"),
        (FlowFlags::HELD, "held"),
        (FlowFlags::REMEMBERED, "remembered"),
        (FlowFlags::MOVING, "moving"),
        (FlowFlags::CHOSEN, "chosen"),
        (FlowFlags::AWAITED, "awaited"),
    ];

    /// All of either.
    #[must_use]
    pub const fn with(self, other: FlowFlags) -> FlowFlags {
        FlowFlags(self.0 | other.0)
    }

    /// These without the other ones.
    #[must_use]
    pub const fn without(self, other: FlowFlags) -> FlowFlags {
        FlowFlags(self.0 & !other.0)
    }

    /// Whether all of the other ones are set.
    #[inline(always)]
    pub const fn contains(self, other: FlowFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of the other ones is set.
    #[inline(always)]
    pub const fn has_any(self, other: FlowFlags) -> bool {
        self.0 & other.0 != 0
    }

    /// The names of those that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        FlowFlags::NAMES.into_iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| name)
    }
}

impl fmt::Debug for FlowFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// One connection, both directions, as a value. In the table it lies in parts, of which forwarding touches
/// one (see [`layout`](crate::flow::layout)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    /// As packets from the client carry it: client to virtual server.
    pub client: Key,
    /// As packets from the real server carry it: real server to source-NAT address,
    /// or to the client where the source is not translated.
    pub server: Key,
    /// Which shard: that of both keys.
    pub shard: ShardId,
    /// Which virtual server.
    pub virtual_server: VirtualServerId,
    /// Which pool.
    pub pool: PoolId,
    /// Which real server of the pool.
    pub server_id: ServerId,
    /// The next hop towards the client: an index into the worker's adjacencies, or
    /// [`ADJACENCY_UNKNOWN`]. Means nothing on a peer.
    pub client_adjacency: u32,
    /// The next hop towards the server, likewise.
    pub server_adjacency: u32,
    /// Packets in both directions.
    pub packets: u64,
    /// Bytes of IP packets in both directions.
    pub bytes: u64,
    /// What TCP's flags said.
    pub tcp: TcpState,
    /// Yes-or-no facts.
    pub flags: FlowFlags,
    /// The version with which the flow began, in its shard's order of changes: what a
    /// place's later tenant has is greater.
    pub created: Version,
    /// When its state last changed; what its newest record carries.
    pub changed: Stamp,
}

impl Flow {
    /// A flow without anything but its names; the rest is filled in by its maker.
    pub const fn new(client: Key, server: Key, tcp: TcpState) -> Flow {
        Flow {
            client,
            server,
            shard: ShardId(0),
            virtual_server: VirtualServerId(0),
            pool: PoolId(0),
            server_id: ServerId(0),
            client_adjacency: ADJACENCY_UNKNOWN,
            server_adjacency: ADJACENCY_UNKNOWN,
            packets: 0,
            bytes: 0,
            tcp,
            flags: FlowFlags::NONE,
            created: Version(0),
            changed: Stamp::NONE,
        }
    }

    /// Whether the flow is replicated to peers.
    pub const fn is_mirrored(&self) -> bool {
        self.flags.contains(FlowFlags::MIRRORED)
    }

    /// Whether the source is translated too.
    pub const fn is_full_nat(&self) -> bool {
        self.flags.contains(FlowFlags::FULL_NAT)
    }

    /// The key that packets of a direction come in with.
    pub const fn key(&self, direction: Direction) -> Key {
        match direction {
            Direction::FromClient => self.client,
            Direction::FromServer => self.server,
        }
    }

    /// The key that packets of a direction go out with: the answer of the other side.
    pub fn translated(&self, direction: Direction) -> Key {
        self.key(direction.reversed()).reversed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::NodeId;
    use crate::flow::key::{Address, TCP};

    #[test]
    fn a_later_term_beats_any_version_of_an_earlier_one() {
        let stamp = |counter, node, version| Stamp {
            term: Term { counter, node: NodeId(node) },
            version: Version(version),
        };
        let order = [Stamp::NONE, stamp(1, 1, 900), stamp(2, 1, 1), stamp(2, 1, 2), stamp(2, 2, 0)];
        assert!(order.is_sorted_by(|a, b| a < b));
        assert_eq!(order[1].to_string(), "1.1/900");
    }

    #[test]
    fn a_packet_leaves_with_what_the_other_side_answers_to() {
        let client = Key {
            src: Address::v4([192, 0, 2, 1]),
            dst: Address::v4([198, 51, 100, 1]),
            src_port: 40000,
            dst_port: 80,
            vlan: 0,
            protocol: TCP,
        };
        let server = Key {
            src: Address::v4([10, 0, 0, 10]),
            dst: Address::v4([10, 0, 0, 100]),
            src_port: 8080,
            dst_port: 2000,
            ..client
        };
        let flow = Flow::new(client, server, TcpState::SynSeen);
        let out = flow.translated(Direction::FromClient);
        assert_eq!(out.to_string(), "tcp 10.0.0.100:2000 -> 10.0.0.10:8080");
        let back = flow.translated(Direction::FromServer);
        assert_eq!(back.to_string(), "tcp 198.51.100.1:80 -> 192.0.2.1:40000");
    }

    #[test]
    fn flags_are_set_cleared_and_named() {
        let flags = FlowFlags::NONE.with(FlowFlags::MIRRORED).with(FlowFlags::FROM_PEER);
        assert!(flags.contains(FlowFlags::MIRRORED) && !flags.contains(FlowFlags::FULL_NAT));
        assert_eq!(flags.names().collect::<Vec<_>>(), ["mirrored", "from-peer"]);
        assert_eq!(flags.without(FlowFlags::MIRRORED), FlowFlags::FROM_PEER);
        assert_eq!(format!("{flags:?}"), r#"{"mirrored", "from-peer"}"#);
    }
}
