//! What a hop between lcores costs: the same worker's packets as it receives them itself, and as a distributor hands them to
//! it by a ring.
//!
//! * On one CPU, in turns: the instructions of the hop, with every line still in the caches. The distributor notes a packet's
//!   shard and puts it into the ring; the worker takes it from there and looks at it as before.
//! * On two CPUs: the distributor with the harness on one, the worker on the other. Lines of the ring and of packets' heads
//!   cross between the two.

use anyhow::{Context as _, Result, anyhow, ensure};
use baton::driver::lease::Spent;
use core::sync::atomic::{AtomicBool, Ordering};
use dpdk::Mbuf;
use dpdk::clock::{tsc, tsc_hz};
use std::sync::Arc;

use crate::case::{Case, Context};
use crate::figure::{Figure, Series};
use crate::regime::{self, pin};
use crate::ring::appliance::{self, send_all};
use crate::ring::bench::{Bench, SIDES};
use crate::ring::plan::{Forwarding, Mirroring, Plan, Protocol, Traffic};
use crate::ring::rounds::{Round, Rounds, Usage};
use crate::ring::script::ROUNDS;

/// Rounds of one sample: few, so that samples are short and some of them quiet.
const SAMPLE_ROUNDS: usize = 3 * ROUNDS;

/// So long is waited for packets that are on their way.
const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(2);

/// The case.
pub fn case() -> Case {
    let what =
        "what a hop between lcores costs: nat, 1000 flows, tcp, not mirrored; one CPU in turns, and two";
    Case::new("hop", what, measure)
}

/// A sample of two CPUs, in cycles per packet.
struct Apart {
    /// The distributor's turns.
    distributor: f64,
    /// The worker's turns with packets.
    worker: f64,
}

fn measure(context: &Context) -> Result<Vec<Figure>> {
    let plan = Plan {
        forwarding: Forwarding::Nat,
        protocol: Protocol::Tcp,
        mirroring: Mirroring::Off,
        distributor: true,
        rounds: SAMPLE_ROUNDS,
        ..Plan::plain(1000)
    };
    let eal = appliance::start(&plan)?;
    let mut bench = Bench::new(&eal, &plan, 0)?;
    bench.settle()?;
    let samples = 3 * context.samples;
    let [mut fused, mut divided, mut hop, mut swapped] = [const { Vec::new() }; 4];
    for number in 0..=samples {
        let mut sample = |is_divided| {
            bench.appliance.divide(is_divided);
            bench.sample(&Traffic::PLAIN, plan.rounds)
        };
        let ((one, macswap), (two, _)) = (sample(false)?, sample(true)?);
        // The first one warms up.
        if number > 0 {
            fused.push(one);
            divided.push(two);
            hop.push(two - one);
            swapped.push(macswap);
        }
    }
    let figure = |metric: &str, samples: &[f64]| Figure::of("hop", metric, "cycles/packet", samples);
    let mut figures = vec![
        figure("received by the worker itself", &fused).against("macswap", &swapped),
        figure("handed over by a distributor, one CPU in turns", &divided).against("macswap", &swapped),
        figure("the hop, one CPU in turns", &hop),
    ];
    let hz = tsc_hz(&eal) as f64;
    bench.appliance.divide(true);
    let [mut distributor, mut worker] = [Series::default(), Series::default()];
    let cpus = [plan.cpu, usize::from(plan.cpu == 0)];
    for number in 0..=samples {
        let (apart, regime) = regime::during(cpus, || bench.apart(cpus[1], hz));
        let apart = apart?;
        let macswap = bench.swap_sample(&Traffic::PLAIN, plan.rounds, None)?;
        if number > 0 {
            distributor.push(apart.distributor, macswap, regime);
            worker.push(apart.worker, macswap, regime);
        }
    }
    for (metric, series) in [
        ("two CPUs: the distributor's turns", &distributor),
        ("two CPUs: the worker's turns with packets", &worker),
    ] {
        figures.extend(series.figures("hop", metric, "cycles/packet", "macswap"));
    }
    Ok(figures)
}

impl Bench {
    /// A sample with the worker on this CPU, which is not the harness's.
    fn apart(&mut self, there: usize, hz: f64) -> Result<Apart> {
        let mut lcore = self.appliance.lend().context("the worker is elsewhere already")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let worker = std::thread::spawn(move || -> Result<_> {
            pin(there)?;
            while !stopped.load(Ordering::Relaxed) {
                let _ = lcore.turn();
            }
            Ok(lcore)
        });
        let costs = self.rounds_apart(hz);
        stop.store(true, Ordering::Relaxed);
        let lcore = worker.join().map_err(|_| anyhow!("the worker's thread failed"))??;
        self.appliance.take_back(lcore);
        costs
    }

    /// Rounds of the distributor, whose packets the worker elsewhere takes and sends.
    fn rounds_apart(&mut self, hz: f64) -> Result<Apart> {
        let (mut distributor, mut worker) = (Rounds::default(), Rounds::default());
        for _ in 0..SAMPLE_ROUNDS / ROUNDS {
            let (mut came, mut ends) = (Vec::new(), Vec::new());
            for script in self.scripts(&Traffic::PLAIN, ROUNDS) {
                for (written, wire) in script.iter().zip(&mut self.appliance.wires) {
                    let packets: Result<Vec<Mbuf>> =
                        written.iter().map(|one| one.packet(&self.devices)).collect();
                    send_all(&mut wire.tx, packets?)?;
                }
                let packets: usize = script.iter().map(Vec::len).sum();
                let spent = self.appliance.turns.spent();
                let (before, begin) = (Usage::now(), tsc());
                for _ in 0..self.plan.in_flight.div_ceil(baton::base::limits::BURST_MAX) {
                    self.appliance.turn();
                }
                distributor.push(Round { ticks: tsc() - begin, packets }, before);
                let (wanted, begin) = (came.len() + packets, std::time::Instant::now());
                // The worker says of a turn what it took when the next one is over.
                while came.len() < wanted || self.packets_since(&spent) < packets {
                    for side in SIDES {
                        self.copy_out(side, &mut came)?;
                    }
                    ensure!(begin.elapsed() < WAIT_MAX, "packets did not come out: {}", self.troubles());
                }
                ends.push(came.len());
                let busy = (self.appliance.turns.spent().busy - spent.busy).nanos() as f64 * (hz / 1e9);
                // Whether the kernel took its CPU away is not known of another thread: `cost` leaves out what shows it.
                worker.push(Round { ticks: busy as u64, packets }, Usage::now());
            }
            self.check(&came, &ends)?;
        }
        Ok(Apart { distributor: distributor.cost()?, worker: worker.cost()? })
    }

    fn packets_since(&self, spent: &Spent) -> usize {
        self.appliance.turns.spent().packets.saturating_sub(spent.packets) as usize
    }
}
