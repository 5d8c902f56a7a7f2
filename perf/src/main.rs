//! The command that measures: see `perf/run`, which prepares the machine, builds and starts it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use baton_perf::case::{self, Context};
use baton_perf::link::wire;
use baton_perf::{figure, report, ring};
use clap::{Parser, Subcommand};

/// Measures baton. Without names: every case. Prints one table, and writes a report with plots.
#[derive(Parser)]
#[command(name = "baton-perf", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Only the essentials, in less than five minutes.
    #[arg(long)]
    quick: bool,
    /// Prints one JSON object for each figure, and writes no report.
    #[arg(long)]
    json: bool,
    /// Names the cases, and measures nothing.
    #[arg(long)]
    list: bool,
    /// The report's name: a folder under perf/reports. Default: the date.
    #[arg(long, value_name = "NAME")]
    report: Option<String>,
    /// The cases to measure; `ring-*` means all that begin so.
    #[arg(value_name = "CASE")]
    cases: Vec<String>,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Subcommand)]
enum Sub {
    /// Measures an appliance on ring devices, as the flags say.
    Ring(Box<ring::Wanted>),
    /// Generates traffic on two ports, answers it as the servers, and says what came back.
    Wire(Box<wire::Wire>),
    /// Measures one case in this very process, and prints its figures as JSON.
    Case {
        /// The case.
        name: String,
        /// Fewer samples, shorter ones.
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("baton-perf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Some(Sub::Case { name, quick }) => {
            for case in case::chosen(&[name], quick)? {
                for figure in case.measure(&Context::new(quick))? {
                    println!("{}", serde_json::to_string(&figure)?);
                }
            }
            return Ok(());
        }
        Some(Sub::Ring(wanted)) => {
            print!("{}", figure::table(&wanted.measure()?));
            return Ok(());
        }
        Some(Sub::Wire(wire)) => return wire.run(),
        None => {}
    }
    let cases = case::chosen(&arguments.cases, arguments.quick)?;
    if arguments.list {
        let width = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
        for case in cases {
            println!("{:width$}  {}{}", case.name, if case.quick { "(quick) " } else { "" }, case.what);
        }
        return Ok(());
    }
    let program = std::env::current_exe().context("this program has no path")?;
    let (mut figures, mut failed) = (Vec::new(), Vec::new());
    for (number, case) in cases.iter().enumerate() {
        eprintln!("[{}/{}] {}: {}", number + 1, cases.len(), case.name, case.what);
        match case::measure_apart(&program, case, arguments.quick) {
            Ok(found) => {
                if arguments.json {
                    found.iter().for_each(|figure| println!("{}", figure.json()));
                }
                figures.extend(found);
            }
            // The others are measured all the same.
            Err(error) => {
                eprintln!("baton-perf: {error:#}");
                failed.push(case.name.clone());
            }
        }
    }
    if !arguments.json {
        print!("{}", figure::table(&figures));
        let name = arguments.report.unwrap_or_else(report::date);
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("reports").join(name);
        report::write(&folder, &figures, &failed)?;
        println!("report: {}", folder.join("README.md").display());
    }
    anyhow::ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}
