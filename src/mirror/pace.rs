//! When something is to be done, and how fast a walk goes.

use crate::base::time::{Duration, Instant};
use crate::mirror::Mirror;
use crate::mirror::stream::WALKED_MAX;

/// Walked records that may be saved up while there was no room for them.
const WALK_BURST: u32 = 256;
/// At slow rates a walk goes on so often at least, else with a whole frame at a time.
const REFILL_EVERY: Duration = Duration::from_millis(10);

impl Mirror {
    /// Whether [`Mirror::write_frame`] has something to write.
    pub fn is_due(&self, now: Instant, may_walk: bool) -> bool {
        let may_walk = may_walk && self.walk_tokens > 0;
        self.peers
            .iter()
            .flat_map(|peer| &peer.streams)
            .any(|stream| stream.is_due(now, self.standing.leads, may_walk))
    }

    /// Whether a walk has something to say now.
    pub fn may_walk(&self, now: Instant) -> bool {
        let mut streams = self.peers.iter().flat_map(|peer| &peer.streams);
        self.standing.leads && self.walk_tokens > 0 && streams.any(|stream| stream.may_walk(now))
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
        let parts = span.nanos().saturating_mul(rate);
        if parts < WALKED_MAX as u64 * 1_000_000_000 && span < REFILL_EVERY {
            return;
        }
        let tokens = parts / 1_000_000_000;
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
