//! When something is to be done, and how fast a walk goes.

use crate::base::time::{Duration, Instant};
use crate::mirror::Mirror;

/// Walked records that may be saved up while there was no room for them.
const WALK_BURST: u32 = 256;

impl Mirror {
    /// Whether [`Mirror::write_frame`] has something to write.
    pub fn is_due(&self, now: Instant, may_walk: bool) -> bool {
        let may_walk = may_walk && self.walk_tokens > 0;
        self.peers
            .iter()
            .flat_map(|peer| &peer.streams)
            .any(|stream| stream.is_due(now, self.standing.leads, may_walk))
    }

    /// When there is something to do even if nothing arrives.
    pub fn next_deadline(&self) -> Option<Instant> {
        let streams = self.peers.iter().flat_map(|peer| &peer.streams);
        let leads = self.standing.leads;
        streams
            .filter_map(|stream| stream.next_deadline(leads))
            .chain(self.late.first().map(|late| late.0))
            .chain(self.maintains_at())
            .min()
    }

    /// So many records may be walked by now.
    pub(super) fn refill(&mut self, now: Instant) {
        let span = now - self.walk_refilled;
        let rate = u64::from(self.setup.walk_rate).max(1);
        let tokens = span.nanos().saturating_mul(rate) / 1_000_000_000;
        if tokens > 0 {
            // Only what the whole tokens stand for: the rest goes to the next one.
            let spent = Duration::from_nanos(tokens.saturating_mul(1_000_000_000) / rate);
            self.walk_refilled =
                if tokens > u64::from(WALK_BURST) { now } else { self.walk_refilled + spent };
            let sum = u64::from(self.walk_tokens).saturating_add(tokens);
            self.walk_tokens = sum.min(u64::from(WALK_BURST)) as u32;
        }
    }
}
