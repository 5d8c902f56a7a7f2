//! What threads of an appliance tell each other in single numbers, each on cache lines
//! of its own: the lease, and that a worker moves.

use core::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::base::time::Instant;

/// Until when service packets may be sent (DESIGN "Lease"). Published by the liveness
/// thread, read by every worker right before a transmit.
#[derive(Debug, Default)]
pub struct Lease(CachePadded<AtomicU64>);

/// An instant that is long past on every clock of [`super::clock`], and is never published.
const REVOKED: u64 = 1;

impl Lease {
    /// Service packets may be sent before `until`; `Instant::ZERO`: none. Without effect
    /// after [`Lease::revoke`].
    pub fn publish(&self, until: Instant) {
        let until = if until.nanos() == REVOKED { 0 } else { until.nanos() };
        let unless_revoked = |now: u64| (now != REVOKED).then_some(until);
        // A refusal means that it was revoked, which is for good.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, unless_revoked);
    }

    /// Ends it for good: something in this process is broken.
    pub fn revoke(&self) {
        self.0.store(REVOKED, Ordering::SeqCst);
    }

    /// Whether it covers this instant.
    #[inline]
    pub fn covers(&self, now: Instant) -> bool {
        now.nanos() < self.0.load(Ordering::Acquire)
    }
}

/// How often a worker went round its loop.
#[derive(Debug, Default)]
pub struct Turns(CachePadded<AtomicU64>);

impl Turns {
    /// Counts a turn. Only its worker does.
    #[inline]
    pub fn bump(&self) {
        // Release: what the turn handed to others is there for who sees the count.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Turns until now.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_covers_what_is_before_its_end() {
        let lease = Lease::default();
        assert!(!lease.covers(Instant::ZERO), "at first there is none");
        lease.publish(Instant::from_millis(5));
        assert!(lease.covers(Instant::from_millis(4)));
        assert!(!lease.covers(Instant::from_millis(5)));
        lease.publish(Instant::ZERO);
        assert!(!lease.covers(Instant::from_millis(4)));
    }

    #[test]
    fn a_revoked_lease_never_comes_back() {
        let lease = Lease::default();
        lease.publish(Instant::from_millis(5));
        lease.revoke();
        lease.publish(Instant::from_millis(9));
        assert!(!lease.covers(Instant::from_millis(4)));
    }

    #[test]
    fn turns_are_counted_on_lines_of_their_own() {
        let turns: [Turns; 2] = Default::default();
        turns[0].bump();
        turns[0].bump();
        assert_eq!((turns[0].count(), turns[1].count()), (2, 0));
        assert!(size_of::<Turns>() >= 64 && size_of::<Lease>() >= 64);
    }
}
