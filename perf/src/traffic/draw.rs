//! Which flow the next packet belongs to.
//!
//! There are `flows` places, each held by one flow. A packet draws a place, uniformly or
//! by Zipf's law (the place number is the rank); a given share of the packets instead
//! begins a new flow, which takes the place of the one that was begun longest ago. So the
//! number of flows in use stays, and none of it is kept in memory.

use core::str::FromStr;

use rand_distr::Distribution;

use crate::traffic::population::FLOWS_MAX;

/// How packets are spread over flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Every flow gets as many as any other.
    Uniform,
    /// The flow of rank `r` gets a share proportional to `1 / r`.
    Zipf,
}

impl FromStr for Spread {
    type Err = String;

    fn from_str(text: &str) -> Result<Spread, String> {
        match text {
            "uniform" => Ok(Spread::Uniform),
            "zipf" => Ok(Spread::Zipf),
            _ => Err("uniform or zipf".to_owned()),
        }
    }
}

/// Ranks drawn beforehand, a power of two. They are used in turn.
const RANKS: usize = 1 << 22;

/// The next flow, for ever.
#[derive(Debug)]
pub struct Draw {
    rng: fastrand::Rng,
    places: u64,
    /// A packet begins a new flow when 32 random bits are below this.
    new_below: u64,
    /// Ranks from 0, for Zipf's law; empty for the uniform spread.
    ranks: Vec<u32>,
    rank: usize,
    /// New flows fill the places in turn: those before `replaced` hold flows of round
    /// `round + 1`, the others of `round`.
    replaced: u64,
    round: u64,
}

impl Draw {
    /// Draws among `flows` flows, `new_flows` of all packets (0 to 1) beginning a new one.
    ///
    /// # Panics
    /// Without flows, or with more than there are.
    pub fn new(flows: u32, spread: Spread, new_flows: f64, seed: u64) -> Draw {
        assert!(flows > 0 && u64::from(flows) <= FLOWS_MAX, "{flows} flows");
        assert!((0.0..=1.0).contains(&new_flows), "a share of {new_flows}");
        let ranks = match spread {
            Spread::Uniform => Vec::new(),
            Spread::Zipf => zipf(flows, seed),
        };
        Draw {
            rng: fastrand::Rng::with_seed(seed),
            places: u64::from(flows),
            new_below: (new_flows * (1u64 << 32) as f64) as u64,
            ranks,
            rank: 0,
            replaced: 0,
            round: 0,
        }
    }

    /// The number of the flow that the next packet belongs to.
    #[inline]
    pub fn next_flow(&mut self) -> u64 {
        let random = self.rng.u64(..);
        if (random & 0xffff_ffff) < self.new_below {
            return self.begin();
        }
        let place = if self.ranks.is_empty() {
            ((random >> 32) * self.places) >> 32
        } else {
            self.rank = (self.rank + 1) & (RANKS - 1);
            u64::from(self.ranks[self.rank])
        };
        self.holder(place)
    }

    /// The flow that holds a place.
    #[inline]
    pub fn holder(&self, place: u64) -> u64 {
        let round = self.round + u64::from(place < self.replaced);
        (place + round * self.places) % FLOWS_MAX
    }

    /// Begins a new flow in the next place.
    #[inline]
    fn begin(&mut self) -> u64 {
        let place = self.replaced;
        self.replaced += 1;
        let flow = self.holder(place);
        if self.replaced == self.places {
            (self.replaced, self.round) = (0, self.round + 1);
        }
        flow
    }

    /// Flows in use at a time.
    pub fn places(&self) -> u64 {
        self.places
    }

    /// Flows begun so far, beside the first ones.
    pub fn begun(&self) -> u64 {
        self.round * self.places + self.replaced
    }
}

fn zipf(flows: u32, seed: u64) -> Vec<u32> {
    use rand::SeedableRng;
    let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
    let law =
        rand_distr::Zipf::new(f64::from(flows), 1.0).expect("at least one flow and a positive exponent");
    // The law's ranks begin at 1.
    (0..RANKS).map(|_| law.sample(&mut rng) as u32 - 1).collect()
}
