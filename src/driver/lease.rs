//! What threads of an appliance tell each other in single numbers, each on cache lines
//! of its own: the lease, and that a worker moves and how busy it is.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::base::time::{Duration, Instant};

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

/// How often a worker went round its loop, and how long that took.
#[derive(Debug, Default)]
pub struct Turns(CachePadded<Cells>);

#[derive(Debug, Default)]
struct Cells {
    turns: AtomicU64,
    busy_turns: AtomicU64,
    busy_ns: AtomicU64,
    empty_ns: AtomicU64,
    packets: AtomicU64,
    ended: AtomicBool,
}

/// What a worker's turns came to, since its start. A turn is busy when it had a packet, a command or
/// something of others to send, and empty otherwise; it lasts until the next one begins, its rest included.
/// The turn that is under way is in none of the times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Turns, busy and empty.
    pub turns: u64,
    /// Busy ones.
    pub busy_turns: u64,
    /// Time of the busy ones.
    pub busy: Duration,
    /// Time of the empty ones.
    pub empty: Duration,
    /// Packets taken, from ports and from other workers.
    pub packets: u64,
}

impl Turns {
    /// Counts a turn. Only its worker does.
    #[inline]
    pub fn bump(&self) {
        // Release: what the turn handed to others is there for who sees the count.
        self.0.turns.store(self.0.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }

    /// Adds the time of a turn that was counted, and its packets; a turn without any of the work that
    /// [`Spent`] names is empty. Only its worker does.
    #[inline]
    pub fn account(&self, worked: bool, lasted: Duration, packets: u64) {
        // One writer: plain loads and stores, with no locked instruction.
        let add = |cell: &AtomicU64, n: u64| {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        };
        if worked {
            add(&self.0.busy_turns, 1);
            add(&self.0.busy_ns, lasted.nanos());
            add(&self.0.packets, packets);
        } else {
            add(&self.0.empty_ns, lasted.nanos());
        }
    }

    /// There will be no more of them: the worker's loop ended, or panicked. Only its worker says so.
    pub fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
    }

    /// Whether there will be no more of them.
    pub fn ended(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }

    /// Turns until now.
    pub fn count(&self) -> u64 {
        self.0.turns.load(Ordering::Acquire)
    }

    /// What they came to. Read while the worker goes on: a turn may be in one of the numbers and not yet in
    /// another.
    pub fn spent(&self) -> Spent {
        let value = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Spent {
            turns: self.count(),
            busy_turns: value(&self.0.busy_turns),
            busy: Duration::from_nanos(value(&self.0.busy_ns)),
            empty: Duration::from_nanos(value(&self.0.empty_ns)),
            packets: value(&self.0.packets),
        }
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

    #[test]
    fn the_time_of_turns_is_divided_into_busy_and_empty() {
        let turns = Turns::default();
        turns.account(true, Duration::from_nanos(700), 32);
        turns.account(false, Duration::from_nanos(50), 0);
        turns.account(true, Duration::from_nanos(300), 0);
        let nanos = Duration::from_nanos;
        let spent = Spent { turns: 0, busy_turns: 2, busy: nanos(1000), empty: nanos(50), packets: 32 };
        assert_eq!(turns.spent(), spent);
        turns.bump();
        assert_eq!(turns.spent(), Spent { turns: 1, ..spent });
    }
}
