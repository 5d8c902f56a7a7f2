//! `scripts/simulate`: runs many seeds, or shows one.

mod agenda;
mod appliance;
mod checks;
mod client;
mod config;
mod division;
mod flows;
mod hosts;
mod kind;
mod lcore;
mod link;
mod moves;
mod packet;
#[path = "../packets/pieces.rs"]
#[expect(dead_code, reason = "hosts only put together what others took to pieces")]
mod pieces;
mod run;
mod scenario;
mod server;
mod tcp;
mod trace;
mod variants;
mod world;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::Parser;

use kind::Kind;

/// Whole pairs of appliances with clients and servers, in virtual time, from one seed each.
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
    let Some(broken) = variants::variant(&arguments.variant) else {
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
    if let Some(seed) = arguments.seed {
        let report = run::run(seed, kind, broken, true);
        print!("{}", report.told(&arguments.variant));
        return if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (next, stop, failed) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::new(0u64));
    let (done, connections) = (AtomicU64::new(0), AtomicU64::new(0));
    let (frames, moved) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= arguments.seeds {
                        return;
                    }
                    let report = run::run(arguments.from + place, kind, broken, false);
                    connections.fetch_add(report.connections as u64, Ordering::Relaxed);
                    frames.fetch_add(report.frames, Ordering::Relaxed);
                    moved.fetch_add(report.moved, Ordering::Relaxed);
                    let so_far = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if !report.violations.is_empty() {
                        let mut failed = failed.lock().unwrap_or_else(|error| error.into_inner());
                        *failed += 1;
                        print!("{}", report.told(&arguments.variant));
                        stop.fetch_or(!arguments.keep_going, Ordering::Relaxed);
                    }
                    if so_far % 100 == 0 {
                        eprintln!("{so_far} of {} seeds", arguments.seeds);
                    }
                }
            });
        }
    });
    let failed = *failed.lock().unwrap_or_else(|error| error.into_inner());
    let (done, connections) = (done.into_inner(), connections.into_inner());
    let (frames, moved) = (frames.into_inner(), moved.into_inner());
    println!(
        "{done} seeds, {connections} connections, {frames} frames, {moved} flows moved, {failed} seeds with violations"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
