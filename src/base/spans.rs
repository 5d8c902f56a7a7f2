//! How long something took, counted in bins: percentiles of any number of spans, in memory that does not grow.
//!
//! Eight bins for each power of two: what is told of a percentile is at most an eighth more than the span itself. Adding
//! one is a few instructions.

use core::fmt;

use crate::base::time::Duration;

/// Bins of each power of two, as a power of two.
const FINE_BITS: u32 = 3;
const FINE: usize = 1 << FINE_BITS;
/// Shorter spans, of 2^this nanoseconds, share the first bin.
const SHORTEST_BITS: u32 = 7;
/// Spans from 2^this nanoseconds on (17 s) share the last bin.
const LONGEST_BITS: u32 = 34;
const BINS: usize = (LONGEST_BITS - SHORTEST_BITS) as usize * FINE + 2;

/// Counts of spans by their length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Spans {
    bins: [u64; BINS],
    count: u64,
    longest: Duration,
}

impl Default for Spans {
    fn default() -> Spans {
        Spans { bins: [0; BINS], count: 0, longest: Duration::ZERO }
    }
}

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} spans, the longest of {} ns", self.count, self.longest.nanos())
    }
}

impl Spans {
    /// Adds one.
    #[inline]
    pub fn add(&mut self, span: Duration) {
        self.bins[bin_of(span.nanos())] += 1;
        self.count += 1;
        self.longest = self.longest.max(span);
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Spans) {
        self.bins.iter_mut().zip(&other.bins).for_each(|(bin, more)| *bin += more);
        self.count += other.count;
        self.longest = self.longest.max(other.longest);
    }

    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The longest of all; zero if there are none.
    pub const fn longest(&self) -> Duration {
        self.longest
    }

    /// What this share of all, in thousandths, does not exceed; `None` when there are none.
    pub fn within(&self, thousandths: u64) -> Option<Duration> {
        let wanted = (u128::from(self.count) * u128::from(thousandths)).div_ceil(1000).max(1);
        let mut sum = 0;
        let bin = self.bins.iter().position(|count| {
            sum += u128::from(*count);
            sum >= wanted
        })?;
        Some(Duration::from_nanos(end_of(bin)).min(self.longest))
    }

    /// How many there are in bins that end at 2^(i + 1) µs at the latest, and begin where the one before ended: `i` from 0 to
    /// so many bins; the last one has no end.
    pub fn by_doubling_micros(&self, bins: usize) -> Vec<u64> {
        let mut counts = vec![0; bins];
        for (bin, count) in self.bins.iter().enumerate() {
            let micros = end_of(bin).div_ceil(1000).max(1);
            let place = (micros - 1).checked_ilog2().map_or(0, |log| log as usize);
            if let Some(sum) = counts.get_mut(place.min(bins.saturating_sub(1))) {
                *sum += count;
            }
        }
        counts
    }
}

#[inline]
const fn bin_of(nanos: u64) -> usize {
    if nanos < 1 << SHORTEST_BITS {
        return 0;
    }
    if nanos >= 1 << LONGEST_BITS {
        return BINS - 1;
    }
    let log = nanos.ilog2();
    let fine = (nanos >> (log - FINE_BITS)) as usize - FINE;
    1 + (log - SHORTEST_BITS) as usize * FINE + fine
}

/// The longest span of a bin, in nanoseconds.
const fn end_of(bin: usize) -> u64 {
    match bin {
        0 => (1 << SHORTEST_BITS) - 1,
        bin if bin == BINS - 1 => u64::MAX,
        bin => {
            let (doubling, fine) = ((bin - 1) / FINE, (bin - 1) % FINE);
            let shift = doubling as u32 + SHORTEST_BITS - FINE_BITS;
            (((FINE + fine + 1) as u64) << shift) - 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_holds_its_spans_and_is_no_wider_than_an_eighth_of_them() {
        let some = (0..300).chain([1000, 12_345, 1 << 20, (1 << 34) - 1]);
        for nanos in some {
            let end = end_of(bin_of(nanos));
            assert!(end >= nanos && bin_of(end) == bin_of(nanos), "{nanos}: {end}");
            assert!(nanos < 128 || end - nanos <= nanos / 8, "{nanos}: {end}");
            assert!(bin_of(end + 1) == bin_of(nanos) + 1, "{nanos}: {end}");
        }
        assert_eq!((bin_of(1 << 34), bin_of(u64::MAX)), (BINS - 1, BINS - 1));
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_spans() {
        let mut spans = Spans::default();
        assert_eq!((spans.within(500), spans.longest()), (None, Duration::ZERO));
        (1..=1000).for_each(|micros| spans.add(Duration::from_micros(micros)));
        for (thousandths, exact) in [(1, 1), (500, 500), (990, 990), (999, 999), (1000, 1000)] {
            let found = spans.within(thousandths).expect("there are spans").nanos();
            let exact = exact * 1000;
            assert!(found >= exact && found <= exact + exact / 8, "{thousandths}: {found}, not {exact}");
        }
        // Nothing is said to be longer than the longest.
        assert_eq!(spans.within(1000), Some(Duration::from_millis(1)));
        // More than half of two is both.
        let mut two = Spans::default();
        for millis in [1000, 2] {
            two.add(Duration::from_millis(millis));
        }
        assert_eq!(
            (two.within(501), two.within(500) < Some(Duration::from_millis(3))),
            (Some(two.longest()), true)
        );
        let mut both = Spans::default();
        both.add(Duration::from_secs(40));
        both.merge(&spans);
        assert_eq!((both.count(), both.longest()), (1001, Duration::from_secs(40)));
        assert_eq!(both.within(1000), Some(Duration::from_secs(40)));
    }

    #[test]
    fn bins_are_gathered_by_powers_of_two_microseconds() {
        let mut spans = Spans::default();
        for micros in [0, 1, 3, 100, 1_000_000] {
            spans.add(Duration::from_micros(micros));
        }
        let counts = spans.by_doubling_micros(8);
        assert_eq!(counts.iter().sum::<u64>(), 5);
        // Up to 2 µs, 4, 8, 16, 32, 64, 128, and the rest.
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 1, 1]);
    }
}
