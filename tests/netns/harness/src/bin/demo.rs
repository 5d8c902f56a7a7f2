//! The demonstration that `scripts/demo` runs: a pair of appliances, downloads through it, the active one killed
//! in the middle of them. Ends with status 0 only if nothing was lost.

#![allow(clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use netns_harness::appliance::{Appliance, Role, wait_for_roles};
use netns_harness::command::wait_until;
use netns_harness::config::{self, Settings};
use netns_harness::downloads::{Downloads, Outcome, tally, through_virtual_servers};
use netns_harness::plan::{Family, Translation, server4, virtual_address};
use netns_harness::probe::{Echo, Probe, Report};
use netns_harness::web::Web;
use netns_harness::{Context, Result, Side, World, bail};

const USAGE: &str = "usage: demo --baton PROGRAM [--downloads N] [--keep]";
const SERVERS: usize = 2;
/// Ten seconds a download at the rate below.
const FILE_BYTES: usize = 1_000_000;
const RATE: &str = "100k";
/// Every download must be at least this far when the active is killed, and at most that far.
const KILL_WINDOW: (f64, f64) = (0.25, 0.9);
const ROLES_LIMIT: Duration = Duration::from_secs(20);
const TRANSFER_LIMIT: Duration = Duration::from_secs(60);

struct Options {
    baton: PathBuf,
    downloads: usize,
    keep: bool,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("demo: {error:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match show(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options> {
    let mut options = Options { baton: PathBuf::new(), downloads: 200, keep: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--baton" => options.baton = args.next().context("--baton needs a path")?.into(),
            "--downloads" => {
                let number = args.next().context("--downloads needs a number")?;
                options.downloads = number.parse().with_context(|| format!("{number:?} is not a number"))?;
            }
            "--keep" => options.keep = true,
            _ => bail!("unknown argument {arg:?}"),
        }
    }
    if options.baton.as_os_str().is_empty() || options.downloads == 0 {
        bail!("which baton, and how many downloads?");
    }
    options.baton = options.baton.canonicalize().with_context(|| options.baton.display().to_string())?;
    Ok(options)
}

/// Prints a line with the time since the start.
struct Clock(Instant);

impl Clock {
    fn say(&self, text: &str) {
        println!("{:7.2} s  {text}", self.0.elapsed().as_secs_f64());
    }
}

/// Runs all of it; true if nothing was lost.
fn show(options: &Options) -> Result<bool> {
    let clock = Clock(Instant::now());
    let mut world = World::new(SERVERS)?;
    let web = Web::start(&world, &[("file", FILE_BYTES)])?;
    let _echoes = echoes(&world)?;
    clock.say(&format!(
        "namespaces: client, {SERVERS} servers (nginx), appliances a and b, and the switch between"
    ));

    let settings = Settings::default();
    let pages = if settings.hugepages { "hugepages" } else { "no hugepages (slower)" };
    let mut pair = Appliance::pair(&world, &options.baton, &settings)?;
    let result = (|| {
        for appliance in &mut pair {
            appliance.start()?;
        }
        let active = wait_for_roles(&pair, ROLES_LIMIT)?;
        clock.say(&format!(
            "appliance {} leads, the standby is synchronized; {pages}",
            pair[active].side().letter()
        ));
        take_over(&clock, options, &world, &web, &mut pair, active)
    })();
    if !matches!(result, Ok(true)) {
        world.keep_logs();
    }
    let whole = result?;
    println!("{}", if whole { "nothing was lost" } else { "connections were LOST" });
    if options.keep {
        stay(&world, &mut pair)?;
    }
    Ok(whole)
}

/// One echo service on each server, for the probe.
fn echoes(world: &World) -> Result<Vec<Echo>> {
    let servers = world.server_names().into_iter().zip(world.server_hosts());
    servers.map(|(name, host)| Echo::start(world, &name, (server4(host), config::ECHO_PORT).into())).collect()
}

/// The downloads, the kill, the take-over, the reckoning.
fn take_over(
    clock: &Clock,
    options: &Options,
    world: &World,
    web: &Web,
    pair: &mut [Appliance; 2],
    active: usize,
) -> Result<bool> {
    let probed = SocketAddr::new(virtual_address(Translation::Nat, Family::V4), config::ECHO_PORT);
    let probe = Probe::start(world, probed, Duration::from_millis(1))?;
    let requests = through_virtual_servers(web, "file", RATE, options.downloads)?;
    let downloads = Downloads::start(world, requests, TRANSFER_LIMIT)?;
    clock.say(&format!(
        "{} downloads of {} MB started (curl, no retry)",
        options.downloads,
        FILE_BYTES / 1_000_000
    ));

    let mut next = Instant::now();
    wait_until("every download to be under way", TRANSFER_LIMIT, || {
        let (least, most) = downloads.progress_range();
        if Instant::now() >= next {
            next += Duration::from_millis(500);
            clock.say(&format!("{:3.0} to {:3.0} % done", 100.0 * least, 100.0 * most));
        }
        Ok(least >= KILL_WINDOW.0)
    })?;
    let (least, most) = downloads.progress_range();
    if most > KILL_WINDOW.1 {
        bail!("the downloads ran too unevenly to show anything: {least:.2} to {most:.2} done");
    }
    let survivor = 1 - active;
    let killed = Instant::now();
    pair[active].kill()?;
    clock.say(&format!(
        "SIGKILL to appliance {}, every download between {:.0} and {:.0} % done",
        pair[active].side().letter(),
        100.0 * least,
        100.0 * most
    ));
    pair[survivor].wait_role(Role::Active, ROLES_LIMIT)?;
    let seen = killed.elapsed().as_millis();
    clock.say(&format!("appliance {} leads (seen {seen} ms after the kill)", pair[survivor].side().letter()));

    let outcomes = downloads.finish(TRANSFER_LIMIT)?;
    clock.say("all downloads have ended");
    let report = probe.finish()?;
    Ok(table(&outcomes, &report))
}

/// Prints what became of every connection; true if all are whole.
fn table(outcomes: &[Outcome], probe: &Report) -> bool {
    println!("\n{:<16} {:>8} {:>8} {:>6} {:>16}", "downloads", "started", "whole", "lost", "longest stall");
    let mut lost = 0;
    for (kind, (all, whole)) in tally(outcomes) {
        let of_kind = outcomes.iter().filter(|outcome| outcome.kind == kind);
        let stall = of_kind.map(|outcome| outcome.longest_stall).max().unwrap_or_default();
        println!("{kind:<16} {all:>8} {whole:>8} {:>6} {:>13} ms", all - whole, stall.as_millis());
        lost += all - whole;
    }
    println!(
        "\nUDP probe, one datagram a millisecond: {} sent, {} answered, longest silence {:.1} ms",
        probe.sent,
        probe.answered,
        probe.largest_gap.as_secs_f64() * 1e3
    );
    for outcome in outcomes.iter().filter(|outcome| !outcome.whole()).take(10) {
        println!(
            "lost: {} ({} of {} bytes, curl's status {}) {}",
            outcome.url, outcome.received, outcome.length, outcome.exit, outcome.message
        );
    }
    println!();
    lost == 0 && !outcomes.is_empty()
}

/// Repairs the pair and waits for Ctrl-C.
fn stay(world: &World, pair: &mut [Appliance; 2]) -> Result<()> {
    for appliance in pair.iter_mut() {
        if appliance.process().is_err() {
            appliance.start()?;
        }
    }
    let active = wait_for_roles(pair, ROLES_LIMIT)?;
    println!("the killed appliance is back; {} leads. Look around:\n", pair[active].side().letter());
    for side in Side::BOTH {
        println!("  baton status --socket {}", config::paths(world, side).socket.display());
    }
    let client = world.namespace("client");
    println!("  ip netns exec {client} curl http://{}/whoami", virtual_address(Translation::Nat, Family::V4));
    println!(
        "  ip netns exec {} tcpdump -ni {}-client",
        world.namespace("switch"),
        pair[active].side().letter()
    );
    println!(
        "  logs, configurations: {}\n\nCtrl-C ends it and removes everything.",
        world.directory().display()
    );
    loop {
        std::thread::park();
    }
}
