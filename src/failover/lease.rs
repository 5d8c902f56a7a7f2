//! The lease: until when service packets may be sent.
//!
//! It runs from the newest heartbeat that was handed out, so a standby that hears
//! any heartbeat waits longer for the next than the lease lasts: lease < takeover.
//! A lease that lapsed is never renewed; it is taken anew, after the appliance
//! has made sure that nobody else leads.

use crate::base::time::{Duration, Instant};

/// The lease of a leader.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    length: Duration,
    until: Instant,
}

impl Lease {
    /// None yet; each will last `length`.
    pub fn new(length: Duration) -> Lease {
        Lease { length, until: Instant::ZERO }
    }

    /// Until when it lasts; `Instant::ZERO`: there is none.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Whether it covers `now`.
    pub fn covers(&self, now: Instant) -> bool {
        now < self.until
    }

    /// A heartbeat was handed out at `beat_at`; peers allow no longer than `limit`.
    /// It never shrinks: what workers were promised, they may use.
    pub fn renew(&mut self, beat_at: Instant, limit: Instant) -> Instant {
        self.until = self.until.max((beat_at + self.length).min(limit));
        self.until
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.until = Instant::ZERO;
    }

    /// How long each lasts.
    pub fn length(&self) -> Duration {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_from_the_newest_beat_and_no_longer_than_peers_allow() {
        let mut lease = Lease::new(Duration::from_millis(36));
        assert!(!lease.covers(Instant::ZERO));
        assert_eq!(lease.renew(Instant::from_millis(100), Instant::FAR_FUTURE), Instant::from_millis(136));
        assert!(lease.covers(Instant::from_millis(135)) && !lease.covers(Instant::from_millis(136)));
        assert_eq!(
            lease.renew(Instant::from_millis(105), Instant::from_millis(138)),
            Instant::from_millis(138)
        );
        lease.end();
        assert!(!lease.covers(Instant::ZERO));
    }
}
