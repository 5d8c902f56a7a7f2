//! Delays in bins: 64 for each power of two, so that a percentile is off by less than 2 %.

/// Bins for each power of two.
const FINE: u64 = 64;
const FINE_BITS: u32 = FINE.trailing_zeros();

/// How often which delay was seen, in ticks of the time-stamp counter.
#[derive(Clone, Debug)]
pub struct Delays {
    bins: Box<[u64]>,
    count: u64,
}

impl Default for Delays {
    fn default() -> Delays {
        let bins = ((64 - FINE_BITS + 1) as u64 * FINE) as usize;
        Delays { bins: vec![0; bins].into_boxed_slice(), count: 0 }
    }
}

impl Delays {
    /// Adds one.
    #[inline]
    pub fn add(&mut self, ticks: u64) {
        self.bins[bin_of(ticks)] += 1;
        self.count += 1;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The delay that this share of all (0 to 1) does not exceed; `None` when there are none.
    pub fn percentile(&self, share: f64) -> Option<u64> {
        let wanted = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut sum = 0;
        let bin = self.bins.iter().position(|count| {
            sum += count;
            sum >= wanted
        })?;
        Some(most_of(bin))
    }
}

#[inline]
fn bin_of(ticks: u64) -> usize {
    if ticks < FINE {
        return ticks as usize;
    }
    let shift = 63 - ticks.leading_zeros() - FINE_BITS;
    (u64::from(shift + 1) * FINE + ((ticks >> shift) - FINE)) as usize
}

/// The greatest delay of a bin.
fn most_of(bin: usize) -> u64 {
    let (group, fine) = (bin as u64 / FINE, bin as u64 % FINE);
    if group == 0 { fine } else { ((FINE + fine + 1) << (group - 1)).wrapping_sub(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_is_narrow_and_holds_its_delays() {
        for ticks in (0..300).chain([1000, 12_345, 1 << 40, u64::MAX]) {
            let most = most_of(bin_of(ticks));
            assert!(most >= ticks && most - ticks <= ticks / 64, "{ticks}: {most}");
            assert_eq!(bin_of(most), bin_of(ticks));
        }
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_delays() {
        let mut delays = Delays::default();
        assert_eq!(delays.percentile(0.5), None);
        (1..=1000).for_each(|ticks| delays.add(ticks));
        let near = |share: f64, exact: u64| {
            let found = delays.percentile(share).expect("there are delays");
            assert!(found >= exact && found <= exact + exact / 32, "{share}: {found}, not {exact}");
        };
        near(0.5, 500);
        near(0.99, 990);
        near(0.999, 999);
        assert_eq!(delays.count(), 1000);
    }
}
