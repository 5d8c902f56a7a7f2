//! What the machine itself takes for random lines of memory under a forwarder: the reference with
//! three of them for each packet, in huge pages, asked for in bursts.
//!
//! A loop that does nothing else has the processor's inner caches for the page tables alone. A forwarder has
//! packets there too.

use anyhow::Result;
use arrayvec::ArrayVec;
use baton::base::limits::BURST_MAX;
use baton::base::memory::Slab;
use core::hint::black_box;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::tables::lines::{FLOW_BYTES, LINES};

/// The lines, and which of them the next packets touch.
pub struct Lines {
    slab: Slab<[u64; 8]>,
    rng: SmallRng,
    places: Vec<u32>,
}

impl Lines {
    /// As many as so many flows take in an index, a table and an array of times.
    pub fn new(flows: u32) -> Result<Lines> {
        let mut slab: Slab<[u64; 8]> = Slab::new((flows as usize * FLOW_BYTES / 64).max(1))?;
        slab.iter_mut().for_each(|line| line[0] = 1);
        Ok(Lines { slab, rng: SmallRng::seed_from_u64(5), places: Vec::new() })
    }

    /// Chooses the lines of so many packets.
    pub fn choose(&mut self, packets: usize) {
        let len = self.slab.len() as u32;
        self.places.clear();
        self.places.extend((0..packets * LINES).map(|_| self.rng.random_range(0..len)));
    }

    /// Asks for the lines of a burst.
    #[inline]
    pub fn prefetch(&mut self, packets: usize) -> Burst {
        let from = self.places.len().saturating_sub(packets * LINES);
        let burst: Burst = self.places.drain(from..).collect();
        burst.iter().for_each(|line| self.slab.prefetch_write(*line as usize));
        burst
    }

    /// Reads the lines of a burst, and writes one of each packet.
    #[inline]
    pub fn touch(&mut self, burst: &Burst) {
        let mut sum = 0;
        for packet in burst.chunks_exact(LINES) {
            sum += packet.iter().map(|line| self.slab[*line as usize][0]).sum::<u64>();
            self.slab[packet[0] as usize][1] += 1;
        }
        black_box(sum);
    }
}

/// The lines of a burst's packets.
pub type Burst = ArrayVec<u32, { BURST_MAX * LINES }>;
