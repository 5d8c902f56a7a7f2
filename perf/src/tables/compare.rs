//! Look-ups, inserts and removals in each table, one after the other in the same run.

use anyhow::{Result, ensure};
use baton::flow::image::{Image, Imager};
use baton::flow::key::{Address, TCP};
use baton::flow::{Flow, Key, TcpState};
use dpdk::clock::tsc;
use rand::rngs::SmallRng;
use rand::seq::index;
use rand::{Rng as _, SeedableRng as _};

use crate::case::{Case, Context};
use crate::figure::{Figure, Place};
use crate::machine;
use crate::ring::plan::Plan;
use crate::tables::contenders::{BURST, Brown, Contender, Ours, Rte, SEED};
use crate::traffic::population;

/// Look-ups of a pass.
const LOOK_UPS: usize = 1 << 15;
/// Flows taken out and put in in a pass, at most a quarter of all.
const CHANGES: usize = 4096;
/// Passes of a sample; their median counts, so that an interruption does not.
const PASSES: usize = 9;
/// Passes of look-ups before those: they bring back what the other tables have driven out of the
/// caches, the page tables of a virtual machine's host above all.
const WARM_UP: usize = 8;

/// Makes glibc put large allocations, hashbrown's among them, in transparent huge pages.
const HUGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// The cases.
pub fn cases() -> Vec<Case> {
    let sizes = [(1_000, "1k"), (1_000_000, "1m"), (10_000_000, "10m")];
    sizes.map(|(flows, short)| case(flows, short)).into_iter().collect()
}

fn case(flows: u32, short: &str) -> Case {
    let name = format!("tables-{short}");
    let what = format!("baton's table, hashbrown and rte_hash with {flows} flows of two keys each");
    Case::new(name.clone(), what, move |context: &Context| measure(&name, flows, context.samples))
        .with_environment(HUGE_PAGES)
}

/// The two keys of a flow: as a client's packets and as its server's packets carry them.
fn flow(number: u32) -> Flow {
    let source = population::source(u64::from(number));
    let client = Key {
        src: Address::v4(source.host.to_be_bytes()),
        dst: Address::v4([10, 1, 0, 100]),
        src_port: source.port,
        dst_port: 80,
        vlan: 0,
        protocol: TCP,
    };
    let server = Key {
        src: Address::v4([10, 2, 1, (number % 64) as u8]),
        dst: Address::v4([10, 2, 2, (number / 64 % 16) as u8]),
        src_port: 8080,
        dst_port: 1024 + (number / 1024) as u16,
        ..client
    };
    Flow::new(client, server, TcpState::Established)
}

/// A table and the places of its flows, by their order.
struct Entrant {
    table: Box<dyn Contender>,
    places: Vec<u32>,
    samples: [Vec<f64>; 3],
}

const OPERATIONS: [&str; 3] = ["look-up", "insert", "removal"];

fn measure(case: &str, flows: u32, samples: usize) -> Result<Vec<Figure>> {
    let eal = crate::ring::appliance::start(&Plan::plain(flows))?;
    let tables: [Box<dyn Contender>; 3] =
        [Box::new(Ours::new(flows)?), Box::new(Brown::new(flows)?), Box::new(Rte::new(&eal, flows)?)];
    let mut entrants = tables.map(|table| Entrant { table, places: Vec::new(), samples: Default::default() });
    let mut numbers: Vec<u32> = (0..flows).collect();
    let mut next = flows;
    for entrant in &mut entrants {
        for burst in numbers.chunks(BURST) {
            let burst: Vec<Flow> = burst.iter().map(|number| flow(*number)).collect();
            entrant.table.insert(&burst, &mut entrant.places)?;
        }
    }
    if flows >= 1_000_000 {
        let (huge, expected) = (machine::huge_bytes(), 3 * 64 * u64::from(flows) / 10 * 8);
        ensure!(huge >= expected, "{huge} bytes are in transparent huge pages, not {expected}");
    }
    let mut rng = SmallRng::seed_from_u64(3);
    let changes = CHANGES.min(flows as usize / 4);
    for _ in 0..samples {
        let images: Vec<Pass> = (0..WARM_UP + PASSES).map(|_| images(&numbers, &mut rng)).collect();
        let mut all = Vec::new();
        for _ in 0..PASSES {
            let leaving = index::sample(&mut rng, flows as usize, changes).into_vec();
            for (at, number) in leaving.iter().zip(next..) {
                numbers[*at] = number;
            }
            let coming = (next..next + changes as u32).map(flow).collect();
            next += changes as u32;
            all.push(Change { leaving, coming });
        }
        for entrant in &mut entrants {
            entrant.sample(&images, &all)?;
        }
    }
    Ok(figures(case, flows, &entrants))
}

/// The keys that a pass looks up.
type Pass = Vec<[Image; BURST]>;

/// Flows that are taken out, by their order, and those that come in their stead.
struct Change {
    leaving: Vec<usize>,
    coming: Vec<Flow>,
}

/// The middle one.
fn median(mut passes: Vec<f64>) -> f64 {
    passes.sort_by(f64::total_cmp);
    passes[passes.len() / 2]
}

fn figures(case: &str, flows: u32, entrants: &[Entrant; 3]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (at, operation) in OPERATIONS.iter().enumerate() {
        for entrant in entrants {
            let (name, load) = (entrant.table.name(), entrant.table.load());
            let metric = format!("{name}, {operation}, load {load:.2}");
            let mut figure = Figure::of(case, metric, "cycles", &entrant.samples[at]);
            if name != entrants[0].table.name() {
                figure = figure.against(entrants[0].table.name(), &entrants[0].samples[at]);
            }
            let chart = format!("Tables: cycles of a {operation}, by flows");
            figures.push(figure.at(&chart, name, Place::Number(f64::from(flows))));
        }
    }
    figures
}

/// Keys of random flows, either direction.
fn images(numbers: &[u32], rng: &mut SmallRng) -> Pass {
    let imager = Imager::with_seed(SEED);
    let mut image = || {
        let flow = flow(numbers[rng.random_range(0..numbers.len())]);
        imager.of(if rng.random() { &flow.client } else { &flow.server })
    };
    (0..LOOK_UPS / BURST).map(|_| core::array::from_fn(|_| image())).collect()
}

impl Entrant {
    /// A sample of each operation.
    fn sample(&mut self, images: &[Pass], changes: &[Change]) -> Result<()> {
        let (mut look_ups, mut inserts, mut removals) = (Vec::new(), Vec::new(), Vec::new());
        for pass in images {
            look_ups.push(self.look_up(pass)?);
        }
        for change in changes {
            removals.push(self.remove(&change.leaving)?);
            inserts.push(self.insert(change)?);
        }
        let passes = [look_ups.split_off(WARM_UP), inserts, removals];
        for (samples, passes) in self.samples.iter_mut().zip(passes) {
            samples.push(median(passes));
        }
        Ok(())
    }

    fn look_up(&mut self, images: &Pass) -> Result<f64> {
        let begin = tsc();
        let found: usize = images.iter().map(|burst| self.table.look_up(burst)).sum();
        let ticks = tsc() - begin;
        ensure!(found == LOOK_UPS, "{} found {found} of {LOOK_UPS} keys", self.table.name());
        Ok(ticks as f64 / LOOK_UPS as f64)
    }

    fn remove(&mut self, leaving: &[usize]) -> Result<f64> {
        let places: Vec<u32> = leaving.iter().map(|at| self.places[*at]).collect();
        let begin = tsc();
        let removed: usize = places.chunks(BURST).map(|burst| self.table.remove(burst)).sum();
        let ticks = tsc() - begin;
        ensure!(removed == places.len(), "{} removed {removed} of {}", self.table.name(), places.len());
        Ok(ticks as f64 / places.len() as f64)
    }

    fn insert(&mut self, change: &Change) -> Result<f64> {
        let mut places = Vec::with_capacity(change.coming.len());
        let begin = tsc();
        for burst in change.coming.chunks(BURST) {
            self.table.insert(burst, &mut places)?;
        }
        let ticks = tsc() - begin;
        for (at, place) in change.leaving.iter().zip(places) {
            self.places[*at] = place;
        }
        Ok(ticks as f64 / change.coming.len() as f64)
    }
}
