//! When a thread panics. The lease is revoked first, so that nothing more is sent for the service. As soon as all that
//! was under way by then is sent, the liveness thread tells the group that this appliance has left, and the master says the
//! same by VRRP: who stands by need not wait out a silence. Then the process ends, with status 1.
//!
//! It is silence after all when the first worker panicked, since all liveness frames leave by it, or the liveness
//! thread. When the master did, nothing is said by VRRP.

use core::sync::atomic::{AtomicBool, Ordering};
use std::panic;
use std::sync::Arc;

use crate::base::time::{Duration, Instant};
use crate::driver::lease::{Lease, Turns};

/// A panic of any thread from now on revokes the lease, and sets `broken` after that.
pub fn on_panic(lease: &Arc<Lease>, broken: &Arc<AtomicBool>) {
    let (lease, broken) = (Arc::clone(lease), Arc::clone(broken));
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        lease.revoke();
        broken.store(true, Ordering::SeqCst);
        say(what);
    }));
}

/// The turns of all lcores when the lease was found to be revoked. A packet that an lcore's next turn sends
/// was compared with the revoked lease; in the one that was under way, it may have been found covered before.
#[derive(Debug)]
pub struct LastTurns {
    since: Instant,
    counts: Vec<u64>,
}

impl LastTurns {
    /// They are under way now.
    pub fn new(now: Instant, turns: &[Arc<Turns>]) -> LastTurns {
        LastTurns { since: now, counts: turns.iter().map(|turns| turns.count()).collect() }
    }

    /// Whether all of them are over; those that end no more count as over after `at_most`.
    pub fn over(&self, now: Instant, turns: &[Arc<Turns>], at_most: Duration) -> bool {
        let over = |(turns, count): (&Arc<Turns>, &u64)| turns.ended() || turns.count() > *count;
        now - self.since >= at_most || turns.iter().zip(&self.counts).all(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(5);
    const AT_MOST: Duration = Duration::from_millis(14);

    #[test]
    fn turns_that_were_under_way_are_over_when_each_lcore_ended_one_or_its_loop() {
        let turns: Vec<Arc<Turns>> = vec![Arc::default(), Arc::default()];
        turns[0].bump();
        let last = LastTurns::new(NOW, &turns);
        assert!(!last.over(NOW, &turns, AT_MOST));
        turns[0].bump();
        assert!(!last.over(NOW, &turns, AT_MOST), "the other one is under way still");
        turns[1].end();
        assert!(last.over(NOW, &turns, AT_MOST));
    }

    #[test]
    fn a_turn_that_never_ends_is_waited_for_no_longer_than_a_packet_may_be_under_way() {
        let turns: Vec<Arc<Turns>> = vec![Arc::default()];
        let last = LastTurns::new(NOW, &turns);
        assert!(!last.over(Instant::from_millis(18), &turns, AT_MOST));
        assert!(last.over(Instant::from_millis(19), &turns, AT_MOST));
    }
}
