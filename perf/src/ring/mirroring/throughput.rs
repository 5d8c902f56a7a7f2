//! Packets through the appliance with mirroring on against off: three appliances in one process, sampled in turn, two of them with
//! a peer each on the other CPU, of which only the one rests not whose appliance is sampled.
//!
//! With `hold` a frame leaves at the end of every turn in which a flow began: at 1 % new these have one or two records. With
//! `async` they leave when they are full. How many records a frame had is measured beside.

use anyhow::{Context as _, Result};
use dpdk::Eal;

use crate::case::{Case, Context};
use crate::figure::{Figure, Place, Series};
use crate::regime;
use crate::ring::appliance;
use crate::ring::bench::Bench;
use crate::ring::plan::{Mirroring, Plan, Traffic, percent};

/// Packets in flight in each direction: what a ring holds, but for first packets that come out a round late.
const IN_FLIGHT: usize = 800;
/// Rounds of a sample: few, so that the machine stays as it is meanwhile.
const ROUNDS: usize = 48;
/// Of the packets.
const NEW: [f64; 3] = [0.0, 0.01, 0.1];
/// Samples for each that is asked for: of those that were disturbed there are many.
const TIMES: usize = 3;

/// The case.
pub fn case() -> Case {
    let what =
        "full-nat, 1000 flows: mirrored (async, hold) to a peer on the other CPU, against not mirrored";
    Case::new("mirror-throughput", what, measure)
}

/// Of one kind of mirroring, sample by sample.
#[derive(Default)]
struct Kind {
    cycles: Series,
    kept: Series,
    records_per_frame: Vec<f64>,
}

fn measure(context: &Context) -> Result<Vec<Figure>> {
    let kinds = [Mirroring::Off, Mirroring::Async, Mirroring::Hold];
    let plans = kinds.map(|mirroring| Plan {
        mirroring,
        in_flight: IN_FLIGHT,
        rounds: ROUNDS,
        rings: 3 * kinds.iter().position(|kind| *kind == mirroring).unwrap_or(0),
        ..Plan::plain(1000)
    });
    let eal = appliance::start_all(&plans.each_ref())?;
    let samples = TIMES * context.samples;
    let spare = NEW.iter().map(|new| (2.0 * IN_FLIGHT as f64 * new + 1.0) * ((samples + 1) * ROUNDS) as f64);
    let spare = spare.sum::<f64>() as u32;
    let mut benches = Vec::new();
    for plan in &plans {
        let bench = start(&eal, plan, spare);
        benches.push(bench.with_context(|| format!("mirroring: {}", plan.mirroring.name()))?);
    }
    let cpus = [plans[0].cpu, usize::from(plans[0].cpu == 0)];
    let mut figures = Vec::new();
    for new in NEW {
        let traffic = Traffic::PLAIN.with_new(new);
        let mut found = [Kind::default(), Kind::default()];
        let mut off = Vec::new();
        for number in 0..=samples {
            let (taken, regime) = regime::during(cpus, || -> Result<Vec<(f64, f64)>> {
                benches.iter_mut().map(|bench| sample(bench, &traffic)).collect()
            });
            let taken = taken?;
            // The first one warms up.
            if number == 0 {
                continue;
            }
            let reference = taken.first().context("no sample")?.0;
            off.push(reference);
            for (kind, (cycles, records)) in found.iter_mut().zip(&taken[1..]) {
                kind.cycles.push(*cycles, reference, regime);
                kind.kept.push(reference / cycles * 100.0, 100.0, regime);
                kind.records_per_frame.push(*records);
            }
        }
        for (kind, mirroring) in found.iter().zip(&kinds[1..]) {
            let words = format!("{}, {} new", mirroring.name(), percent(new));
            let name = "mirror-throughput";
            figures.extend(kind.cycles.figures(name, &words, "cycles/packet", "not mirrored"));
            let chart = "Throughput with mirroring, in percent of that without";
            let kept = kind.kept.figures(name, &format!("{words}: throughput kept"), "%", "not mirrored");
            figures.extend(
                kept.into_iter().map(|figure| figure.at(chart, mirroring.name(), Place::Name(percent(new)))),
            );
            if new > 0.0 {
                let metric = format!("{words}: records in a frame");
                figures.push(Figure::of(name, metric, "records/frame", &kind.records_per_frame));
            }
        }
    }
    for bench in &mut benches {
        if bench.live.is_some() {
            bench.part()?;
        }
    }
    Ok(figures)
}

/// An appliance with its flows; if it is to mirror them, with a peer in sync, which rests.
fn start(eal: &Eal, plan: &Plan, spare: u32) -> Result<Bench> {
    let mut bench = Bench::alone(eal, plan, spare)?;
    if plan.mirroring != Mirroring::Off {
        let peer = bench.new_peer()?;
        bench.meet(eal, peer, usize::from(plan.cpu == 0))?;
        bench.bring_up(|_| Ok(()))?;
        bench.appliance.in_sync()?;
        bench.appliance.turn();
    }
    bench.settle()?;
    rest(&bench, true);
    Ok(bench)
}

fn rest(bench: &Bench, rests: bool) {
    if let Some(live) = &bench.live {
        live.rest(rests);
    }
}

/// Cycles per packet, and records in a frame.
fn sample(bench: &mut Bench, traffic: &Traffic) -> Result<(f64, f64)> {
    rest(bench, false);
    let before = counted(bench)?;
    let cycles = bench.sample_live(traffic, ROUNDS)?;
    let after = counted(bench)?;
    rest(bench, true);
    Ok((cycles, (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64))
}

/// Records and frames that were sent.
fn counted(bench: &mut Bench) -> Result<(u64, u64)> {
    let streams = bench.status()?.streams;
    let sum = |of: fn(&baton::mirror::StreamStatus) -> u64| streams.iter().map(of).sum();
    Ok((sum(|stream| stream.statistics.records_sent), sum(|stream| stream.statistics.frames_sent)))
}
