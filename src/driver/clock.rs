//! The clock of one process: `CLOCK_MONOTONIC` as nanoseconds since a start that all
//! its threads share. The only place where the time of packets is read.

use crate::base::time::{Duration, Instant};

/// What the first reading shows: time zero has a meaning of its own ("never", "no lease").
const FIRST_READING: Duration = Duration::from_secs(1);

/// The clock. Copies show the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock { start: std::time::Instant::now() }
    }

    /// The time now.
    #[inline]
    pub fn now(&self) -> Instant {
        let elapsed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Instant::ZERO + FIRST_READING + Duration::from_nanos(elapsed)
    }

    /// How long ago the clock was started.
    pub fn uptime(&self) -> Duration {
        self.now() - (Instant::ZERO + FIRST_READING)
    }
}

/// A span as the standard library's.
pub const fn std_duration(span: Duration) -> std::time::Duration {
    std::time::Duration::from_nanos(span.nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_show_the_same_time_and_it_is_never_zero() {
        let clock = Clock::start();
        let copy = clock;
        let first = clock.now();
        let second = copy.now();
        assert!(first > Instant::ZERO && second >= first);
        assert!(clock.uptime() < FIRST_READING + Duration::from_secs(60));
    }
}
