//! `scripts/simulate`: runs many seeds, or shows one.

mod agenda;
mod appliance;
mod checks;
mod client;
mod clock;
mod config;
mod division;
mod faults;
mod flows;
mod hosts;
mod kind;
mod lcore;
mod link;
mod moves;
mod packet;
mod partial;
#[path = "../packets/pieces.rs"]
#[expect(dead_code, reason = "hosts only put together what others took to pieces")]
mod pieces;
mod ports;
mod run;
mod scenario;
mod script;
mod server;
mod steps;
mod tcp;
mod trace;
mod variants;
mod witness;
mod world;

use std::fmt;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

use kind::Kind;
use run::{Report, Wanted};

/// It says how far it is after so many seeds.
const PROGRESS: u64 = 1000;

/// Whole groups of appliances with clients and servers, in virtual time, from one seed each.
#[derive(Parser)]
#[command(name = "scripts/simulate")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Run this seed alone and show all that happens.
    #[arg(long)]
    seed: Option<u64>,
    /// What all runs are about, such as `ActiveCrashes`; else each seed says.
    #[arg(long)]
    kind: Option<String>,
    /// Run the seeds once for each kind, and say of each what came of them.
    #[arg(long, conflicts_with_all = ["kind", "seed"])]
    all_kinds: bool,
    /// Short runs: fewer connections and lcores, less time between faults; the faults and what must hold are the same.
    #[arg(long)]
    light: bool,
    /// A deliberately broken variant, or `sound`.
    #[arg(long, default_value = "sound")]
    variant: String,
    /// Go on after a violation.
    #[arg(long)]
    keep_going: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(variants) = variants::variant(&arguments.variant) else {
        eprintln!("there is no variant {:?}: sound, {}", arguments.variant, variants::VARIANTS.join(", "));
        return ExitCode::from(2);
    };
    let mut kind = None;
    if let Some(name) = &arguments.kind {
        kind = Kind::ALL.into_iter().find(|kind| format!("{kind:?}").eq_ignore_ascii_case(name));
        if kind.is_none() {
            eprintln!("there is no kind {name:?}: {:?}", Kind::ALL);
            return ExitCode::from(2);
        }
    }
    let wanted = Wanted { kind, light: arguments.light, variants, traces: false };
    if let Some(seed) = arguments.seed {
        let report = run::run(seed, Wanted { traces: true, ..wanted });
        print!("{}", report.told(&arguments.variant));
        return if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut failed = 0;
    if arguments.all_kinds {
        for kind in Kind::ALL {
            let totals = run_all(&arguments, Wanted { kind: Some(kind), ..wanted });
            println!("{:<22} {totals}", format!("{kind:?}:"));
            failed += totals.failed;
        }
    } else {
        let totals = run_all(&arguments, wanted);
        println!("{totals}");
        failed = totals.failed;
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What came of many runs.
#[derive(Default)]
struct Totals {
    seeds: u64,
    connections: u64,
    frames: u64,
    moved: u64,
    takeovers: u64,
    refused: u64,
    promised: u64,
    carried_on: u64,
    left_out: u64,
    failed: u64,
    /// Virtual time.
    lasted: f64,
    /// Time that it took.
    seconds: f64,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.connections += report.connections as u64;
        self.frames += report.frames;
        self.moved += report.moved;
        self.takeovers += report.takeovers;
        self.refused += report.refused;
        self.promised += report.promised;
        self.carried_on += report.carried_on;
        self.left_out += report.left_out;
        self.lasted += report.lasted as f64 / 1e9;
        self.failed += u64::from(!report.violations.is_empty());
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { seeds, connections, frames, moved, takeovers, .. } = self;
        let Totals { refused, promised, carried_on, left_out, failed, lasted, seconds, .. } = self;
        write!(
            f,
            "{seeds} seeds, {connections} connections, {frames} frames, {moved} flows moved, {takeovers} takeovers, \
             {promised} connections protected at a fault, {carried_on} of them by one \
             that tracks a part, {refused} records refused, {left_out} flows left out, \
             {failed} seeds with violations, {lasted:.0} s in {seconds:.1} s"
        )
    }
}

/// Runs all seeds, until one of them violates something unless it is to go on.
fn run_all(arguments: &Arguments, wanted: Wanted) -> Totals {
    let (next, stop, totals) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(Totals::default()));
    #[expect(clippy::disallowed_methods, reason = "it says how long it took")]
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= arguments.seeds {
                        return;
                    }
                    let report = run::run(arguments.from + place, wanted);
                    let mut totals = totals.lock().unwrap_or_else(|error| error.into_inner());
                    totals.add(&report);
                    if !report.violations.is_empty() {
                        print!("{}", report.told(&arguments.variant));
                        stop.fetch_or(!arguments.keep_going, Ordering::Relaxed);
                    }
                    if totals.seeds % PROGRESS == 0 {
                        let kind = wanted.kind.map_or(String::new(), |kind| format!("{kind:?}: "));
                        eprintln!("{kind}{} of {} seeds", totals.seeds, arguments.seeds);
                    }
                }
            });
        }
    });
    let mut totals = totals.into_inner().unwrap_or_else(|error| error.into_inner());
    totals.seconds = began.elapsed().as_secs_f64();
    totals
}
