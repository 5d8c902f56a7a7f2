//! How a member is to be mirrored to, as it says in the handshake.

use crate::base::ids::VirtualServerId;
use crate::base::limits::TRACKED_MAX;

/// The virtual servers of which a member tracks the flows (REQ B8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// None at all stands for every one.
    ids: [VirtualServerId; TRACKED_MAX],
    len: u8,
}

impl Tracked {
    /// Every virtual server.
    pub const ALL: Tracked = Tracked { ids: [VirtualServerId(0); TRACKED_MAX], len: 0 };

    /// Only these; of none, every one. `None`: more than [`TRACKED_MAX`].
    pub fn only(ids: &[VirtualServerId]) -> Option<Tracked> {
        let mut tracked = Tracked::ALL;
        tracked.ids.get_mut(..ids.len())?.copy_from_slice(ids);
        tracked.len = ids.len() as u8;
        Some(tracked)
    }

    /// Whether there are virtual servers of which it knows nothing.
    pub fn is_partial(&self) -> bool {
        self.len > 0
    }

    /// Whether it tracks the flows of this one.
    #[inline]
    pub fn has(&self, id: VirtualServerId) -> bool {
        self.len == 0 || self.named().contains(&id)
    }

    /// Those that are named; none if all are tracked.
    pub fn named(&self) -> &[VirtualServerId] {
        &self.ids[..usize::from(self.len)]
    }
}

/// Bytes of an encoded [`Mirroring`].
pub(super) const MIRRORING_LEN: usize = 1 + 4 * TRACKED_MAX;

/// In the first byte, besides how many virtual servers are named.
const PERIODIC: u8 = 0x80;

/// How a member is to be mirrored to, and mirrors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mirroring {
    /// Of what.
    pub tracked: Tracked,
    /// While it leads it says how far connections have come without asking for acknowledgements (REQ B6). Others take that however
    /// they are set; it is said so that a difference can be named.
    pub is_periodic: bool,
}

impl Mirroring {
    pub(super) fn encode(&self) -> [u8; MIRRORING_LEN] {
        let mut out = [0; MIRRORING_LEN];
        out[0] = self.tracked.len | if self.is_periodic { PERIODIC } else { 0 };
        for (bytes, id) in out[1..].chunks_exact_mut(4).zip(self.tracked.named()) {
            bytes.copy_from_slice(&id.0.to_be_bytes());
        }
        out
    }

    /// The reverse of `encode`. A member of a version that does not say it tracks everything. `None`: nonsense.
    pub(super) fn decode(bytes: &[u8]) -> Option<Mirroring> {
        let Some(bytes) = bytes.first_chunk::<MIRRORING_LEN>() else {
            return bytes.is_empty().then(Mirroring::default);
        };
        let id = |bytes: &[u8]| VirtualServerId(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        let mut ids = [VirtualServerId(0); TRACKED_MAX];
        ids.iter_mut().zip(bytes[1..].chunks_exact(4)).for_each(|(to, bytes)| *to = id(bytes));
        let tracked = Tracked::only(ids.get(..usize::from(bytes[0] & !PERIODIC))?)?;
        Some(Mirroring { tracked, is_periodic: bytes[0] & PERIODIC != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tracked_survives_the_wire_and_who_says_nothing_tracks_everything() {
        for len in 0..=TRACKED_MAX {
            let ids: Vec<_> = (0..len as u32).map(|n| VirtualServerId(n << 20 | 7)).collect();
            let tracked = Tracked::only(&ids).expect("few enough");
            let mirroring = Mirroring { tracked, is_periodic: len % 2 == 1 };
            assert_eq!(Mirroring::decode(&mirroring.encode()), Some(mirroring));
            assert_eq!(mirroring.tracked.is_partial(), len > 0);
            assert!(ids.iter().all(|id| mirroring.tracked.has(*id)));
            assert_eq!(mirroring.tracked.has(VirtualServerId(8)), len == 0);
        }
        assert_eq!(Tracked::only(&[VirtualServerId(1); TRACKED_MAX + 1]), None);
        assert_eq!(Mirroring::decode(&[]), Some(Mirroring::default()));
        let mut nonsense = Mirroring::default().encode();
        nonsense[0] = TRACKED_MAX as u8 + 1;
        assert_eq!(Mirroring::decode(&nonsense), None);
        assert_eq!(Mirroring::decode(&nonsense[1..]), None, "a part of it");
    }
}
