//! What a member says of itself in the handshake, and when two members do not
//! fit together.

use core::fmt;

use serde::Serialize;

use crate::base::ids::{BootId, GroupId, NodeId};
use crate::base::limits::WORKERS_MAX;
use crate::seal::mirroring::{MIRRORING_LEN, Mirroring};

/// The protocol versions that this build speaks: lowest and highest.
pub const VERSIONS: (u16, u16) = (1, 1);

/// Bytes of what every version says of a member.
const BASE_LEN: usize = 42;

/// Bytes of an encoded [`MemberInfo`].
pub const MEMBER_LEN: usize = BASE_LEN + MIRRORING_LEN;

/// Bytes that a member of any version takes.
pub const MEMBER_MAX: usize = 2 * BASE_LEN;
const _: () = assert!(MEMBER_LEN <= MEMBER_MAX);

/// What a member says of itself in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its traffic group.
    pub group: GroupId,
    /// Its number in the group.
    pub node: NodeId,
    /// This start of its process; never zero.
    pub boot: BootId,
    /// Lowest protocol version that it speaks.
    pub version_min: u16,
    /// Highest protocol version that it speaks.
    pub version_max: u16,
    /// Bits of what it can do beyond the version's base; unknown ones are ignored.
    pub capabilities: u32,
    /// Its workers: mirror streams go to each of them.
    pub workers: u16,
    /// Shards that it divides flows into; members must agree.
    pub shards: u16,
    /// A digest of the keys of its hashes; members must agree.
    pub hash_keys: u64,
    /// The first UDP port of its mirror streams: worker `j` listens at this + `j`.
    pub udp_port: u16,
    /// The generation of its configuration.
    pub generation: u64,
    /// How it is to be mirrored to.
    pub mirroring: Mirroring,
}

/// Why two members that hold the same key cannot work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mismatch {
    /// No protocol version that both speak; the peer's lowest and highest.
    Version(u16, u16),
    /// It belongs to another group.
    Group(GroupId),
    /// It has this appliance's own node number.
    SameNode,
    /// It says that it is another node than the one it was asked as.
    OtherNode(NodeId),
    /// It divides flows into another number of shards.
    Shards(u16),
    /// Its hashes have other keys.
    HashKeys,
    /// It has no boot id, no workers or more than there can be: not a member of this kind.
    Nonsense,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Version(min, max) => write!(
                f,
                "it speaks protocol versions {min} to {max}, this one {} to {}",
                VERSIONS.0, VERSIONS.1
            ),
            Mismatch::Group(group) => write!(f, "it belongs to group {group}"),
            Mismatch::SameNode => write!(f, "it has this appliance's own node number"),
            Mismatch::OtherNode(node) => write!(f, "it says that it is node {node}"),
            Mismatch::Shards(shards) => write!(f, "it divides flows into {shards} shards"),
            Mismatch::HashKeys => write!(f, "its hashes have other keys"),
            Mismatch::Nonsense => write!(f, "it says nothing sensible of itself"),
        }
    }
}

impl MemberInfo {
    /// Whether `peer`, asked as node `expected`, can work together with this member.
    pub fn fits(&self, peer: &MemberInfo, expected: NodeId) -> Result<(), Mismatch> {
        if peer.version_max < self.version_min || peer.version_min > self.version_max {
            return Err(Mismatch::Version(peer.version_min, peer.version_max));
        }
        if peer.group != self.group {
            return Err(Mismatch::Group(peer.group));
        }
        if peer.node == self.node {
            return Err(Mismatch::SameNode);
        }
        if peer.node != expected {
            return Err(Mismatch::OtherNode(peer.node));
        }
        if peer.boot.0 == 0 || peer.workers == 0 || usize::from(peer.workers) > WORKERS_MAX {
            return Err(Mismatch::Nonsense);
        }
        if peer.shards != self.shards {
            return Err(Mismatch::Shards(peer.shards));
        }
        if peer.hash_keys != self.hash_keys {
            return Err(Mismatch::HashKeys);
        }
        Ok(())
    }

    /// Big-endian, in the order of the versions first, so that any version can
    /// read which versions the other speaks.
    pub(super) fn encode(&self) -> [u8; MEMBER_LEN] {
        let mut out = [0; MEMBER_LEN];
        out[0..2].copy_from_slice(&self.version_min.to_be_bytes());
        out[2..4].copy_from_slice(&self.version_max.to_be_bytes());
        out[4..8].copy_from_slice(&self.capabilities.to_be_bytes());
        out[8..10].copy_from_slice(&self.group.0.to_be_bytes());
        out[10..12].copy_from_slice(&self.node.0.to_be_bytes());
        out[12..20].copy_from_slice(&self.boot.0.to_be_bytes());
        out[20..22].copy_from_slice(&self.workers.to_be_bytes());
        out[22..24].copy_from_slice(&self.shards.to_be_bytes());
        out[24..32].copy_from_slice(&self.hash_keys.to_be_bytes());
        out[32..34].copy_from_slice(&self.udp_port.to_be_bytes());
        out[34..42].copy_from_slice(&self.generation.to_be_bytes());
        out[BASE_LEN..].copy_from_slice(&self.mirroring.encode());
        out
    }

    /// The reverse of `encode`; later versions may append to it.
    pub(super) fn decode(bytes: &[u8]) -> Option<MemberInfo> {
        let (bytes, more) = bytes.split_first_chunk::<BASE_LEN>()?;
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u64_at = |at: usize| {
            let mut out = [0; 8];
            out.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(out)
        };
        Some(MemberInfo {
            version_min: u16_at(0),
            version_max: u16_at(2),
            capabilities: u32::from(u16_at(4)) << 16 | u32::from(u16_at(6)),
            group: GroupId(u16_at(8)),
            node: NodeId(u16_at(10)),
            boot: BootId(u64_at(12)),
            workers: u16_at(20),
            shards: u16_at(22),
            hash_keys: u64_at(24),
            udp_port: u16_at(32),
            generation: u64_at(34),
            mirroring: Mirroring::decode(more)?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::ids::VirtualServerId;
    use crate::seal::mirroring::Tracked;

    pub(crate) fn member(node: u16) -> MemberInfo {
        MemberInfo {
            group: GroupId(0),
            node: NodeId(node),
            boot: BootId(0x1000 + u64::from(node)),
            version_min: VERSIONS.0,
            version_max: VERSIONS.1,
            capabilities: 0x8000_0001,
            workers: 2,
            shards: 256,
            hash_keys: 77,
            udp_port: 7000,
            generation: 3,
            mirroring: Mirroring {
                tracked: Tracked::only(&[VirtualServerId(9)]).expect("few enough"),
                is_periodic: true,
            },
        }
    }

    #[test]
    fn what_a_member_says_survives_the_wire() {
        let said = member(9);
        assert_eq!(MemberInfo::decode(&said.encode()), Some(said));
        assert_eq!(MemberInfo::decode(&said.encode()[..41]), None);
        let less = MemberInfo { mirroring: Mirroring::default(), ..said };
        assert_eq!(
            MemberInfo::decode(&said.encode()[..BASE_LEN]),
            Some(less),
            "of a version that says no more"
        );
    }

    #[test]
    fn members_that_do_not_fit_are_refused_by_name() {
        let (us, them) = (member(1), member(2));
        let fits = |them: MemberInfo| us.fits(&them, NodeId(2));
        assert_eq!(fits(them), Ok(()));
        assert_eq!(fits(MemberInfo { version_min: 2, version_max: 9, ..them }), Err(Mismatch::Version(2, 9)));
        assert_eq!(fits(MemberInfo { group: GroupId(4), ..them }), Err(Mismatch::Group(GroupId(4))));
        assert_eq!(fits(MemberInfo { node: NodeId(1), ..them }), Err(Mismatch::SameNode));
        assert_eq!(fits(MemberInfo { node: NodeId(3), ..them }), Err(Mismatch::OtherNode(NodeId(3))));
        assert_eq!(fits(MemberInfo { shards: 128, ..them }), Err(Mismatch::Shards(128)));
        assert_eq!(fits(MemberInfo { hash_keys: 1, ..them }), Err(Mismatch::HashKeys));
        assert_eq!(fits(MemberInfo { boot: BootId(0), ..them }), Err(Mismatch::Nonsense));
    }
}
