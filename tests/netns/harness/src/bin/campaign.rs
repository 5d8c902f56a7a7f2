//! Campaigns that `scripts/campaign` runs: real kills in namespaces, over and over, measured and judged. Ends with
//! status 0 only if everything required was so.

#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use netns_harness::campaign::{
    Violations, dns, failover, hold, kills, outage, planned, roles, saturated, senders, three, with_evidence,
};
use netns_harness::config::Settings;
use netns_harness::figures::{self, Figure};
use netns_harness::group::{self, Group};
use netns_harness::relay::Rough;
use netns_harness::stage::Stage;
use netns_harness::stall::StallWatch;
use netns_harness::{Context, Result, bail, dns as dns_servers};

const USAGE: &str = "usage: campaign kill|standby|twice|failover|planned|outage|dns|senders|hold|roles|saturated|three \
                     --baton PROGRAM [--rounds N] [--minutes M] [--downloads N] [--connections N] [--seed N] \
                     [--busy PROGRAM]";

struct Options {
    name: String,
    baton: PathBuf,
    rounds: Option<usize>,
    minutes: Option<u64>,
    downloads: usize,
    connections: usize,
    seed: u64,
    busy: Option<String>,
    begun: Instant,
}

impl Options {
    /// The rounds of a campaign; `usual` without another wish.
    fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(usual)
    }

    /// Whether there is time for another round.
    fn time_left(&self) -> bool {
        self.minutes.is_none_or(|minutes| self.begun.elapsed() < Duration::from_secs(60 * minutes))
    }

    fn say(&self, text: &str) {
        println!("{:7.1} s  {text}", self.begun.elapsed().as_secs_f64());
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("campaign: {error:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(figures) => {
            figures::print(&options.name, &figures);
            println!("{}: everything required was so", options.name);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("campaign {}: {error:#}", options.name);
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options> {
    let mut args = std::env::args().skip(1);
    let name = args.next().context("which campaign?")?;
    let mut options = Options {
        name,
        baton: PathBuf::new(),
        rounds: None,
        minutes: None,
        downloads: 200,
        connections: 1000,
        seed: 1,
        busy: None,
        begun: Instant::now(),
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--baton" => options.baton = value()?.into(),
            "--rounds" => options.rounds = Some(value()?.parse().context("--rounds needs a number")?),
            "--minutes" => options.minutes = Some(value()?.parse().context("--minutes needs a number")?),
            "--downloads" => options.downloads = value()?.parse().context("--downloads needs a number")?,
            "--connections" => {
                options.connections = value()?.parse().context("--connections needs a number")?;
            }
            "--seed" => options.seed = value()?.parse().context("--seed needs a number")?,
            "--busy" => options.busy = Some(value()?),
            _ => bail!("unknown argument {arg:?}"),
        }
    }
    options.baton = options.baton.canonicalize().with_context(|| options.baton.display().to_string())?;
    Ok(options)
}

fn run(options: &Options) -> Result<Vec<Figure>> {
    match options.name.as_str() {
        "kill" => downloads(options, kills::Plan::Active, 20),
        "standby" => downloads(options, kills::Plan::Standby, 5),
        "twice" => downloads(options, kills::Plan::Twice, 5),
        "outage" => outages(options),
        "dns" => questions(options),
        "senders" => one_sender(options),
        "hold" => holds(options),
        "roles" => role_changes(options),
        "failover" => failovers(options),
        "planned" => planned_changes(options),
        "saturated" => saturation(options),
        "three" => three_appliances(options),
        other => bail!("there is no campaign {other:?}\n{USAGE}"),
    }
}

/// Sets a stage, runs the campaign, keeps the evidence if something goes wrong.
fn on_stage<T>(
    options: &Options,
    settings: &Settings,
    part: impl FnOnce(&mut Stage) -> Result<T>,
) -> Result<T> {
    let mut stage = Stage::set(&options.baton, settings)?;
    options.say(&format!(
        "a pair runs, {}",
        if settings.hugepages { "on hugepages" } else { "without hugepages (slower)" }
    ));
    with_evidence(&mut stage, part)
}

fn downloads(options: &Options, plan: kills::Plan, usual: usize) -> Result<Vec<Figure>> {
    // Longer for two takeovers and a restart within it.
    let rate = if plan == kills::Plan::Twice { "25k" } else { "40k" };
    let load = kills::Load { downloads: options.downloads, rate };
    let mut whole = Figure::new("downloads whole", "of each round's");
    let mut stall = Figure::new("longest stall of a download", "ms");
    let mut decided = Figure::new("kill until the other leads", "ms");
    let mut installed = Figure::new("leads until it serves", "ms");
    on_stage(options, &Settings::default(), |stage| {
        for number in 1..=options.rounds(usual) {
            if !options.time_left() {
                break;
            }
            let round = kills::round(stage, load, plan)?;
            let window: Vec<String> = round
                .at_kills
                .iter()
                .map(|(least, most)| format!("{:.0} to {:.0} %", 100.0 * least, 100.0 * most))
                .collect();
            options.say(&format!(
                "round {number}: {} of {} whole; done at the kill: {}; longest stall {} ms",
                round.whole(),
                load.downloads,
                window.join(", "),
                round.longest_stall().as_millis()
            ));
            whole.add(round.whole() as f64);
            stall.add_time(round.longest_stall());
            for (until_leads, until_serves) in &round.takeovers {
                decided.add_time(*until_leads);
                installed.add_time(*until_serves);
            }
            round.violations.judge()?;
        }
        Ok(())
    })?;
    Ok(vec![whole, stall, decided, installed])
}

fn outages(options: &Options) -> Result<Vec<Figure>> {
    let mut gap = Figure::new("longest gap of a 1 ms UDP probe", "ms");
    let mut sending = Figure::new("the probe's own longest pause", "ms");
    let mut decided = Figure::new("kill until the other leads", "ms");
    let mut installed = Figure::new("leads until it serves", "ms");
    let mut transfer = [
        Figure::new("stall of a TCP transfer, default RTO (200 ms)", "ms"),
        Figure::new("stall of a TCP transfer, rto_min 10 ms", "ms"),
    ];
    let mut talk = [
        Figure::new("TCP request to answer, default RTO (200 ms)", "ms"),
        Figure::new("TCP request to answer, rto_min 10 ms", "ms"),
    ];
    let rounds = options.rounds(30);
    on_stage(options, &Settings::default(), |stage| {
        for number in 1..=2 * rounds {
            if !options.time_left() {
                break;
            }
            if number == rounds + 1 {
                stage.world.set_rto_min_ms(10)?;
            }
            let round = outage::round(stage)?;
            let rto = usize::from(number > rounds);
            options.say(&format!(
                "kill {number}: gap {:.1} ms; TCP: transfer {} ms, answer {} ms (RTO {}); led after {} ms, served {} ms later",
                round.probe.largest_gap.as_secs_f64() * 1e3,
                round.transfer_stall.as_millis(),
                round.conversation_stall.as_millis(),
                ["200 ms", "10 ms"][rto],
                round.decided.as_millis(),
                round.installed.as_millis(),
            ));
            transfer[rto].add_time(round.transfer_stall);
            talk[rto].add_time(round.conversation_stall);
            gap.add_time(round.probe.largest_gap);
            sending.add_time(round.probe.largest_send_gap);
            decided.add_time(round.decided);
            installed.add_time(round.installed);
            round.violations.judge()?;
        }
        Ok(())
    })?;
    let mut figures = vec![gap];
    figures.extend(transfer);
    figures.extend(talk);
    figures.extend([decided, installed, sending]);
    Ok(figures)
}

fn questions(options: &Options) -> Result<Vec<Figure>> {
    let mut asked = Figure::new("questions asked", "a round");
    let mut lost = Figure::new("questions lost", "a round");
    let mut gap = Figure::new("longest gap of a 1 ms UDP probe", "ms");
    on_stage(options, &Settings::default(), |stage| {
        let _servers = dns_servers::start_servers(&stage.world)?;
        for number in 1..=options.rounds(10) {
            if !options.time_left() {
                break;
            }
            let (round, violations) = dns::round(stage, 2000)?;
            options.say(&format!(
                "round {number}: {} asked, {} lost (at most {} were under way), gap {:.1} ms",
                round.asked,
                round.answers.unanswered,
                round.in_flight_max,
                round.gap.as_secs_f64() * 1e3
            ));
            asked.add(round.asked as f64);
            lost.add(round.answers.unanswered as f64);
            gap.add_time(round.gap);
            violations.judge()?;
        }
        Ok(())
    })?;
    Ok(vec![asked, lost, gap])
}

fn one_sender(options: &Options) -> Result<Vec<Figure>> {
    let mut frames = Figure::new("frames checked", "a round");
    let mut silence = Figure::new("fault until the new one's first frame", "ms");
    let mut killed = Figure::new("frames of the killed one after that", "frames");
    let mut paused = Figure::new("frames of the continued one after that", "frames");
    on_stage(options, &Settings::default(), |stage| {
        for number in 1..=options.rounds(10) {
            if !options.time_left() {
                break;
            }
            for fault in [senders::Fault::Kill, senders::Fault::Pause] {
                let round = senders::round(stage, fault, options.downloads.min(60), "40k")?;
                options.say(&format!(
                    "round {number}, {fault:?}: {} frames, first frame of the new one after {:.1} ms, {} late",
                    round.frames,
                    round.silence.as_secs_f64() * 1e3,
                    round.late
                ));
                frames.add(round.frames as f64);
                silence.add_time(round.silence);
                let late = if fault == senders::Fault::Kill { &mut killed } else { &mut paused };
                late.add(round.late as f64);
                round.violations.judge()?;
            }
        }
        Ok(())
    })?;
    Ok(vec![frames, silence, killed, paused])
}

fn holds(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut one = |name, unit, value: f64| {
        let mut figure = Figure::new(name, unit);
        figure.add(value);
        figures.push(figure);
    };
    on_stage(options, &Settings::default(), |stage| {
        let protection = hold::protection(stage, Duration::from_secs(20))?;
        options.say(&format!(
            "without faults: {} flows at {:.0}/s, half of them protected within {} ms, 99 % within {} ms, {:.2} % within 8.2 ms",
            protection.flows,
            protection.tally.per_second,
            protection.median_ms,
            protection.p99_ms,
            100.0 * protection.within_10_ms
        ));
        protection.violations.judge()?;
        one("without faults: protected after, median", "ms at most", protection.median_ms);
        one("without faults: protected after, 99 %", "ms at most", protection.p99_ms);
        one("without faults: protected after, longest", "ms at most", protection.longest_ms);
        one("without faults: protected within 8.2 ms", "%", 100.0 * protection.within_10_ms);
        let kills = hold::kills(stage, options.rounds(50), |number, tally| {
            options.say(&format!(
                "kill {number}: {} begun, {} opened, {} complete, {} broken",
                tally.begun,
                tally.opened,
                tally.complete,
                tally.broken.len()
            ));
        })?;
        one("kills", "kills", kills.kills as f64);
        one("new connections", "a second", kills.tally.per_second);
        one("connections that had a SYN-ACK", "connections", kills.tally.opened as f64);
        one("of these, completed", "connections", kills.tally.complete as f64);
        kills.violations.judge()
    })?;
    Ok(figures)
}

fn role_changes(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    on_stage(options, &roles::settings(), |stage| {
        let changes = roles::changes(stage, options.rounds(100), |number| {
            if number % 10 == 0 {
                options.say(&format!("{number} role changes"));
            }
        })?;
        println!(
            "\n{:<12} {:>10} {:>8} {:>10} {:>12} {:>12}",
            "", "buffers", "flows", "ports", "memory KiB", "descriptors"
        );
        for (letter, (before, after)) in ["a", "b"].iter().zip(&changes.uses) {
            for (when, uses) in [("before", before), ("after", after)] {
                println!(
                    "{:<12} {:>10} {:>8} {:>10} {:>12} {:>12}",
                    format!("{letter} {when}"),
                    uses.buffers,
                    uses.flows,
                    uses.ports_resting,
                    uses.memory_kb,
                    uses.descriptors
                );
            }
        }
        let mut one = |name, unit, values: &[f64]| {
            let mut figure = Figure::new(name, unit);
            values.iter().for_each(|value| figure.add(*value));
            figures.push(figure);
        };
        let grown = |of: fn(&roles::Uses) -> i64| {
            changes.uses.iter().map(|(before, after)| (of(after) - of(before)) as f64).collect::<Vec<f64>>()
        };
        one("role changes", "changes", &[changes.changes as f64]);
        one("buffers in use, growth", "buffers", &grown(|uses| uses.buffers));
        one("memory, growth", "KiB", &grown(|uses| uses.memory_kb));
        one("descriptors, growth", "descriptors", &grown(|uses| uses.descriptors));
        one("connections completed meanwhile", "connections", &[changes.tally.complete as f64]);
        let planned: Vec<f64> = changes.planned.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        one("planned change, by the command", "ms", &planned);
        changes.violations.judge()
    })?;
    Ok(figures)
}

fn failovers(options: &Options) -> Result<Vec<Figure>> {
    let mut decided = Figure::new("kill until the other leads", "ms");
    let mut installed = Figure::new("leads until it serves", "ms");
    let mut gap = Figure::new("longest gap of a 1 ms UDP probe", "ms");
    let mut stall = Figure::new("stall of a download", "ms");
    let mut sending = Figure::new("the probe's own longest pause", "ms");
    let mut disturbed = Figure::new("rounds in which the machine stood still", "gap of the probe, ms");
    let wanted = options.rounds(100);
    on_stage(options, &Settings::default(), |stage| {
        // A machine that never comes to rest is to be told, and not tried for ever.
        for number in 1..=3 * wanted {
            if gap.len() == wanted || !options.time_left() {
                break;
            }
            let watch = StallWatch::start();
            let round = failover::round(stage);
            let stalls = watch.finish();
            if !stalls.gaps.is_empty() {
                let told = match &round {
                    Ok(round) => format!("{} violations", round.violations.sentences().len()),
                    Err(error) => format!("{error:#}"),
                };
                options.say(&format!("kill {number} does not count ({told}): {stalls}"));
                disturbed.add_time(round.map_or(Duration::ZERO, |round| round.probe.largest_gap));
                stage.revive_all()?;
                continue;
            }
            let round = round?;
            options.say(&format!(
                "kill {number}: led after {:.1} ms, served {:.2} ms later; gap {:.1} ms",
                round.takeover.decided.as_secs_f64() * 1e3,
                round.takeover.installed.as_secs_f64() * 1e3,
                round.probe.largest_gap.as_secs_f64() * 1e3,
            ));
            decided.add_time(round.takeover.decided);
            installed.add_time(round.takeover.installed);
            gap.add_time(round.probe.largest_gap);
            sending.add_time(round.probe.largest_send_gap);
            round.stalls.iter().for_each(|time| stall.add_time(*time));
            round.violations.judge()?;
        }
        Ok(())
    })?;
    Ok(vec![decided, installed, gap, stall, sending, disturbed])
}

fn planned_changes(options: &Options) -> Result<Vec<Figure>> {
    let mut took = Figure::new("planned switchover, by the command", "ms");
    let mut gap = Figure::new("longest gap of a 1 ms UDP probe", "ms");
    let mut rate = Figure::new("datagrams, each there and back", "a second");
    let mut lost = Figure::new("datagrams lost", "a round");
    let mut again = Figure::new("TCP segments sent again", "a round");
    let (wanted, mut violations) = (options.rounds(100), Violations::new());
    on_stage(options, &Settings::default(), |stage| {
        while took.len() < wanted && options.time_left() {
            let round = planned::round(stage, wanted - took.len())?;
            options.say(&format!(
                "{} switchovers: {} of {} datagrams lost, {} of {} TCP segments sent again",
                round.switchovers.len(),
                round.lost,
                round.sent,
                round.sent_again,
                round.segments,
            ));
            round.switchovers.iter().for_each(|time| took.add_time(*time));
            round.gaps.iter().for_each(|time| gap.add_time(*time));
            rate.add(round.per_second);
            lost.add(round.lost as f64);
            again.add(round.sent_again as f64);
            violations.append(round.violations);
        }
        Ok(())
    })?;
    let figures = vec![took, gap, rate, lost, again];
    if !violations.is_empty() {
        figures::print(&options.name, &figures);
    }
    violations.judge()?;
    Ok(figures)
}

fn saturation(options: &Options) -> Result<Vec<Figure>> {
    let length = Duration::from_secs(60 * options.minutes.unwrap_or(3));
    let outcome = on_stage(options, &Settings::default(), |stage| {
        saturated::run(stage, length, options.seed, options.busy.as_deref(), |text| options.say(text))
    })?;
    options.say(&format!("the CPUs were idle for {:.2} %", 100.0 * outcome.idle));
    let (rests, spells): (Vec<_>, Vec<_>) = outcome.spells.iter().partition(|spell| spell.rested);
    let apart: Vec<_> = spells.into_iter().filter(|spell| !spell.counts).collect();
    for spell in apart.iter().take(5) {
        options.say(&format!("does not count: {}", spell.stalls));
    }
    for (reason, times) in outcome.silenced_by_reason() {
        options.say(&format!("silent by lease {times} times: {reason}"));
    }
    for told in &outcome.takeovers {
        options.say(&format!("at {}: {} {}", told.unix_ms, told.side.letter(), told.message));
    }
    let mut figures = Vec::new();
    for wanted in saturated::PAUSES_MS.map(Duration::from_millis) {
        let name = match wanted.as_millis() {
            5 => "pauses of 5 ms, in truth",
            12 => "pauses of 12 ms, in truth",
            _ => "pauses of 20 ms, in truth",
        };
        let mut figure = Figure::new(name, "ms");
        let of_this = outcome.pauses.iter().filter(|pause| pause.wanted == wanted);
        of_this.for_each(|pause| figure.add_time(pause.real));
        figures.push(figure);
    }
    let mut one = |name, unit, value: f64| {
        let mut figure = Figure::new(name, unit);
        figure.add(value);
        figures.push(figure);
    };
    let stalls: usize = outcome.spells.iter().map(|spell| spell.stalls.gaps.len()).sum();
    let (pauses, silent) = outcome.in_counted();
    one("time that counts", "s", outcome.counted().as_secs_f64());
    one("time that does not: the machine stood still", "spells of 20 s", apart.len() as f64);
    one("rests of a minute, so that the host gives the CPUs back", "rests", rests.len() as f64);
    one("pauses in time that counts", "pauses", pauses as f64);
    one("silent by lease in time that counts", "times", silent as f64);
    one("pauses longer than 20 ms for the machine's sake", "pauses", outcome.long_pauses() as f64);
    one("false takeovers", "takeovers", outcome.false_takeovers.len() as f64);
    one("takeovers", "takeovers", outcome.takeovers.len() as f64);
    one("silent by lease", "times", outcome.silenced.len() as f64);
    one("stalls of the machine of more than 20 ms", "stalls", stalls as f64);
    one("idle", "% of both CPUs", 100.0 * outcome.idle);
    one("longest gap of a 1 ms UDP probe", "ms", outcome.probe.largest_gap.as_secs_f64() * 1e3);
    one("gaps of more than 20 ms", "gaps", outcome.probe.long_gaps.len() as f64);
    one("the probe's own longest pause", "ms", outcome.probe.largest_send_gap.as_secs_f64() * 1e3);
    one("datagrams sent", "datagrams", outcome.probe.sent as f64);
    one("of these, answered", "datagrams", outcome.probe.answered as f64);
    one("connections that had a SYN-ACK", "connections", outcome.tally.opened as f64);
    one("of these, completed", "connections", outcome.tally.complete as f64);
    if !outcome.violations.is_empty() {
        figures::print(&options.name, &figures);
    }
    outcome.violations.judge()?;
    Ok(figures)
}

fn three_appliances(options: &Options) -> Result<Vec<Figure>> {
    let mut group = Group::set(&options.baton, &group::settings(), Rough::with_seed(options.seed))?;
    options.say("a group of three runs, its mirror network loses one frame of twenty");
    let (connections, rounds) = (options.connections, options.rounds(50));
    let outcome = three::kills(&mut group, connections, rounds, options.seed, |number, kill, tally| {
        options.say(&format!(
            "kill {number}: {kill}; {} complete, {} of them through kills, {} lost",
            tally.complete, tally.survived, tally.lost
        ));
    })?;
    options.say(&format!("the mirror network: {}", outcome.relay));
    let figures = outcome.figures();
    if !outcome.violations.is_empty() {
        figures::print(&options.name, &figures);
    }
    outcome.violations.judge()?;
    Ok(figures)
}
