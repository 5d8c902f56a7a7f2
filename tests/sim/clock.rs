//! The clocks of appliances: each began at another time, and runs at its own rate.

use baton::base::rng::Rng;
use baton::base::time::Instant;

use crate::agenda::Nanos;

const MILLION: u128 = 1_000_000;

/// What one life of an appliance takes for the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it shows when the world begins.
    ahead: Nanos,
    /// How much of it passes in a million of the world's.
    rate: u32,
}

impl Clock {
    /// Of a machine that was started some time before. `rate`: how much of its time passes in a million of the world's.
    pub fn new(rate: u32, rng: &mut Rng) -> Clock {
        Clock { ahead: rng.u64(..1 << 50), rate }
    }

    /// What it shows.
    pub fn read(&self, now: Nanos) -> Instant {
        let passed = u128::from(now) * u128::from(self.rate) / MILLION;
        Instant::from_nanos(self.ahead + passed as Nanos)
    }

    /// The first moment at which it shows `at` or more.
    pub fn when(&self, at: Instant) -> Nanos {
        let passed = u128::from(at.nanos().saturating_sub(self.ahead));
        Nanos::try_from((passed * MILLION).div_ceil(self.rate.into())).unwrap_or(Nanos::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_found_again_at_any_rate() {
        let mut rng = Rng::with_seed(1);
        for rate in [999_500, 1_000_000, 1_000_500] {
            let clock = Clock::new(rate, &mut rng);
            for _ in 0..1000 {
                let now = rng.u64(1..40_000_000_000);
                let shown = clock.read(now);
                let found = clock.when(shown);
                assert!(found <= now && clock.read(found) >= shown, "{now} at {rate}");
                assert!(clock.read(found - 1) < shown);
            }
            assert_eq!((clock.when(Instant::ZERO), clock.when(Instant::FAR_FUTURE) > 1 << 60), (0, true));
        }
    }
}
