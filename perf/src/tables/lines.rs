//! What the machine takes for random lines in huge pages, asked for in batches: the least that a
//! table can cost which is larger than the caches.

use anyhow::{Result, ensure};
use baton::base::memory::Slab;
use core::hint::black_box;
use dpdk::clock::tsc;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::case::{Case, Context};
use crate::figure::{Figure, Place};
use crate::{machine, regime};

/// Lines that a packet touches: of the index, of the flow, of the times last seen.
pub const LINES: usize = 3;
/// Packets of a batch.
const BATCH: usize = 32;
/// Batches of a pass.
const BATCHES: usize = 1024;
/// Passes of a sample; their median counts.
const PASSES: usize = 9;
/// Bytes that a flow has in those places: its line, two slots of an index, a time.
pub const FLOW_BYTES: usize = 64 + 2 * 64 / 6 + 4;

/// The case.
pub fn case() -> Case {
    let what = "three random lines in huge pages, asked for in batches of 32 packets, by flows";
    Case::new("machine-lines", what, measure).essential()
}

fn measure(context: &Context) -> Result<Vec<Figure>> {
    regime::pin(1)?;
    let mut figures = Vec::new();
    for flows in [1_000, 100_000, 1_000_000, 10_000_000] {
        let lines = flows * FLOW_BYTES / 64;
        let mut slab: Slab<[u64; 8]> = Slab::new(lines)?;
        slab.iter_mut().for_each(|line| line[0] = 1);
        if flows >= 1_000_000 {
            let (huge, all) = (machine::huge_bytes(), (lines * 64) as u64);
            ensure!(huge >= all / 10 * 8, "{huge} bytes are in transparent huge pages, not {all}");
        }
        let (mut read, mut written) = (Vec::new(), Vec::new());
        let mut rng = SmallRng::seed_from_u64(5);
        for _ in 0..context.samples {
            read.push(sample(&mut slab, &mut rng, false)?);
            written.push(sample(&mut slab, &mut rng, true)?);
        }
        for (samples, what) in [(read, "read"), (written, "read, one of them written")] {
            let metric = format!("{LINES} lines {what}, {flows} flows");
            let figure = Figure::of("machine-lines", metric, "cycles/packet", &samples);
            figures.push(figure.at(
                "Random lines in huge pages, in batches of 32 packets",
                &format!("three lines {what}"),
                Place::Number(flows as f64),
            ));
        }
    }
    Ok(figures)
}

/// Cycles per packet.
fn sample(slab: &mut Slab<[u64; 8]>, rng: &mut SmallRng, write: bool) -> Result<f64> {
    let mut passes = Vec::new();
    for _ in 0..PASSES {
        let places: Vec<[[u32; LINES]; BATCH]> = (0..BATCHES)
            .map(|_| [[0; LINES]; BATCH].map(|lines| lines.map(|_| rng.random_range(0..slab.len() as u32))))
            .collect();
        let (mut sum, begin) = (0, tsc());
        for batch in &places {
            for line in batch.as_flattened() {
                slab.prefetch(*line as usize);
            }
            for packet in batch {
                sum += packet.iter().map(|line| slab[*line as usize][0]).sum::<u64>();
                if write {
                    slab[packet[0] as usize][1] += 1;
                }
            }
        }
        passes.push((tsc() - begin) as f64 / (BATCHES * BATCH) as f64);
        ensure!(black_box(sum) == (BATCHES * BATCH * LINES) as u64, "a line was not filled");
    }
    passes.sort_by(f64::total_cmp);
    Ok(passes[PASSES / 2])
}
