//! `perf/guard`: instructions per packet of six standard bursts, counted by callgrind, against a stored budget; and of
//! appliances with one to four workers, against each other.
//! It times nothing, so it says the same on a crowded machine as on a quiet one.

#[path = "../packets/bench.rs"]
#[expect(dead_code, reason = "the bench of the packet tests has more")]
mod bench;
mod budget;
mod bursts;
mod callgrind;
mod cores;
#[path = "../packets/pair.rs"]
mod pair;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use budget::{Budget, Comparison, Made, Measured};
use bursts::BURSTS;
use cores::{Part, Scaling, WORKERS};

/// Counts the instructions per packet of six standard bursts and compares them with a stored budget.
#[derive(Parser)]
#[command(name = "perf/guard")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run every burst under valgrind and compare
    Compare {
        /// The stored budget
        #[arg(long)]
        budget: PathBuf,
        /// What this program was compiled by, as `rustc -vV` says it
        #[arg(long)]
        rustc: String,
        /// Store what was counted as the new budget
        #[arg(long)]
        update: bool,
    },
    /// Run one burst: this is what valgrind is given
    Burst {
        /// Its name
        name: String,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Burst { name } => run_one(&name).map(|()| true),
        What::Compare { budget, rustc, update } => compare(&budget, &rustc, update),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("perf/guard: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_one(name: &str) -> Result<(), String> {
    let burst = BURSTS.iter().find(|burst| burst.name == name);
    let packets =
        burst.map(|burst| burst.run()).or_else(|| cores::run(name)).ok_or(format!("no burst {name}"))?;
    println!("{}", callgrind::said(packets, &callgrind::cpu_features()));
    Ok(())
}

/// Whether all is within the budget, or cannot be compared with it.
fn compare(path: &PathBuf, rustc: &str, update: bool) -> Result<bool, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut budget = Budget::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut made = Made { rustc: budget::one_line(rustc), simulated_cpu: String::new() };
    let mut measured = Vec::new();
    for burst in &BURSTS {
        let counted = callgrind::count(burst.name)?;
        made.simulated_cpu = counted.cpu_features;
        let per_packet = counted.instructions as f64 / counted.packets as f64;
        measured.push(Measured { name: burst.name, what: burst.what, per_packet });
    }
    let comparison = Comparison::new(&budget, &made, &measured);
    println!("{comparison}");
    let scales = scaling()?;
    if !update {
        return Ok(comparison.passed() && scales);
    }
    budget.store(made, &measured);
    std::fs::write(path, budget.to_toml()).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("stored in {}", path.display());
    Ok(scales)
}

/// Whether a packet costs the same with any number of workers.
fn scaling() -> Result<bool, String> {
    println!("\ninstructions per packet by number of workers; at most {} % apart", cores::DIFFERENCE_MAX);
    let mut passed = true;
    for part in Part::ALL {
        let mut per_packet = [0.0; WORKERS.len()];
        for (cost, workers) in per_packet.iter_mut().zip(WORKERS) {
            let counted = callgrind::count(&cores::name(part, workers))?;
            *cost = counted.instructions as f64 / counted.packets as f64;
        }
        let scaling = Scaling { part, per_packet };
        println!("{scaling}");
        passed &= scaling.passed();
    }
    println!(
        "{}",
        if passed { "passed" } else { "FAILED: a packet costs more or less where there are more workers" }
    );
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standard_burst_carries_all_its_packets() {
        for burst in &BURSTS {
            let packets = burst.run();
            assert!(packets >= 1000, "{}: {packets} packets say little", burst.name);
        }
    }

    #[test]
    fn there_is_a_budget_for_each_standard_burst_and_for_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/perf/budget.toml");
        let text = std::fs::read_to_string(path).expect("it is in the tree");
        let budget = Budget::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let mut names: Vec<&str> = BURSTS.iter().map(|burst| burst.name).collect();
        names.sort_unstable();
        assert_eq!(budget.instructions_per_packet.keys().collect::<Vec<_>>(), names);
        assert_eq!(budget.to_toml(), text, "it is as the guard writes it");
    }
}
