//! How much of everything is kept, held against what may be kept: for tests that look now and then.

use crate::mirror::Mirror;
use crate::mirror::header::ACK_SPAN;
use crate::mirror::stream::REFUSALS_MAX;
use crate::mirror::sync::DIRTY_MAX;
use crate::mirror::tombstone::{DEPARTED_MAX, GRAVES_MAX};

/// How many of something are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What is counted.
    pub what: &'static str,
    /// How many there are.
    pub count: usize,
    /// How many there may be.
    pub limit: usize,
}

impl Kept {
    /// So many, of so many at most.
    pub const fn new(what: &'static str, count: usize, limit: usize) -> Kept {
        Kept { what, count, limit }
    }
}

impl Mirror {
    /// All that is kept of flows, frames and ends.
    pub fn kept(&self) -> Vec<Kept> {
        let capacity = self.setup.capacity as usize;
        let mut all = vec![Kept::new("ended flows", self.tombstones.len(), DEPARTED_MAX)];
        for stream in self.peers.iter().flat_map(|peer| &peer.streams) {
            let (changes, ends) = stream.sync.queued();
            all.extend([
                Kept::new("changes in order", changes, DIRTY_MAX.min(capacity)),
                Kept::new("ends to say", ends, DEPARTED_MAX),
                Kept::new("flows known", stream.sync.known() as usize, capacity),
                Kept::new("flows refused", stream.sync.refused() as usize, capacity),
                Kept::new("frames on their way", stream.in_flight.waiting(), ACK_SPAN),
                Kept::new("graves", stream.received.dug(), GRAVES_MAX),
                Kept::new("refusals to say", stream.refusals.len(), REFUSALS_MAX),
            ]);
        }
        all
    }
}
