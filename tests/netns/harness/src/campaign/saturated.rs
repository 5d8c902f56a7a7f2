//! Both CPUs saturated and appliances paused, for long: nobody takes over from an active that merely had to wait.
//!
//! What is promised is for pauses that a pair rides out. A virtual machine whose host gives its CPUs to others stands still
//! for longer, again and again, and takeovers are right then. So time counts in spells: those in which a watch on each CPU
//! ([`stall`]) saw it kept from running for longer than that, or right before which it did, do not count; the campaign goes on
//! until there are enough that do. Some hosts give a machine that was busy for long less of its CPUs until it has rested: so
//! what keeps the CPUs busy rests, too, after some spells in a row that do not count.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::campaign::{Violations, unix_ms};
use crate::config::ECHO_PORT;
use crate::connections::{Clients, Tally};
use crate::plan::{Family, Side, Translation, virtual_address};
use crate::probe::{Probe, Report};
use crate::process::Process;
use crate::stage::{Stage, virtual_servers};
use crate::stall::{self, RIDDEN_OUT, StallWatch, Stalls};

/// Lengths of the pauses, in turn.
pub const PAUSES_MS: [u64; 3] = [5, 12, 20];
/// Between two pauses, in milliseconds.
const BETWEEN_MS: std::ops::Range<u64> = 300..1700;
/// A pause that was to last as long as is ridden out may last so much longer without being called longer.
const INEXACT: Duration = Duration::from_millis(1);
/// What follows a stall so closely may come of it: times silent by lease one after the other, and the takeover time.
const LAID_TO: Duration = Duration::from_secs(1);
/// Time that counts, or does not, as a whole.
const SPELL: Duration = Duration::from_secs(20);
/// After so many in a row that do not count, the machine rests.
const LOST_MAX: usize = 3;
/// It rests for so long.
const REST: Duration = Duration::from_secs(60);
/// It is tried for so many times as long as time is to count.
const TRIED_FOR: u32 = 3;
/// Processes that never rest, of ordinary priority, one of each on each CPU: arithmetic, and writes to 64 MiB of memory.
const BUSY: [&[&str]; 2] =
    [&["sha256sum", "/dev/zero"], &["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "status=none"]];
/// CPUs that have nothing to do for more than this part of the time are not saturated.
const IDLE: f64 = 0.01;
/// New connections a second meanwhile, each with a request and its answer.
const CONNECTIONS_PER_SECOND: u32 = 20;
/// Between two looks at what the appliances say.
const LOOK: Duration = Duration::from_secs(1);
/// Between two words about how it goes.
const TELL: Duration = Duration::from_secs(60);

/// A pause that was made.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// Whose process.
    pub side: Side,
    /// How long it was to last.
    pub wanted: Duration,
    /// How long it lasted, from before SIGSTOP until after SIGCONT.
    pub real: Duration,
    /// When it was over, in milliseconds since 1970.
    pub ended_unix_ms: u64,
}

/// Something that an appliance told.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who.
    pub side: Side,
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// What.
    pub message: String,
}

/// Some of the time.
#[derive(Clone, Debug)]
pub struct Spell {
    /// When it began and ended, in milliseconds since 1970.
    pub unix_ms: core::ops::Range<u64>,
    /// What the machine did meanwhile.
    pub stalls: Stalls,
    /// Whether the machine rested.
    pub rested: bool,
    /// Whether it did not, and let everybody run, then and right before.
    pub counts: bool,
}

impl Spell {
    /// One that has ended, after another one.
    fn after(before: Option<&Spell>, unix_ms: core::ops::Range<u64>, stalls: Stalls) -> Spell {
        let late = |spell: &Spell| {
            let since = spell.stalls.watched.saturating_sub(LAID_TO);
            spell.stalls.gaps.iter().any(|gap| gap.at >= since)
        };
        let counts = stalls.gaps.is_empty() && stalls.blind.is_none() && !before.is_some_and(late);
        Spell { unix_ms, stalls, rested: false, counts }
    }

    fn of_rest(unix_ms: core::ops::Range<u64>) -> Spell {
        Spell { unix_ms, stalls: Stalls::default(), rested: true, counts: false }
    }

    fn length(&self) -> Duration {
        Duration::from_millis(self.unix_ms.end - self.unix_ms.start)
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Every pause.
    pub pauses: Vec<Pause>,
    /// Every time that an appliance took the lead.
    pub takeovers: Vec<Told>,
    /// Those of them that came in time that counts.
    pub false_takeovers: Vec<Told>,
    /// Every time that an active fell silent by its lease.
    pub silenced: Vec<Told>,
    /// Stalls of the machine itself, in each spell, rests among them.
    pub spells: Vec<Spell>,
    /// What a probe each millisecond saw.
    pub probe: Report,
    /// What became of the connections.
    pub tally: Tally,
    /// The part of the time, but for rests, for which the CPUs had nothing to do.
    pub idle: f64,
    /// What was not as required.
    pub violations: Violations,
}

impl Outcome {
    /// Pauses that lasted longer than is ridden out.
    pub fn long_pauses(&self) -> usize {
        self.pauses.iter().filter(|pause| is_long(pause)).count()
    }

    /// How much of the time counts.
    pub fn counted(&self) -> Duration {
        counted(&self.spells)
    }

    /// Pauses and times silent in time that counts.
    pub fn in_counted(&self) -> (usize, usize) {
        let in_it = |unix_ms| counts(&self.spells, unix_ms);
        let pauses = self.pauses.iter().filter(|pause| in_it(pause.ended_unix_ms)).count();
        (pauses, self.silenced.iter().filter(|told| in_it(told.unix_ms)).count())
    }

    /// How often an active fell silent, by its reason.
    pub fn silenced_by_reason(&self) -> BTreeMap<&str, usize> {
        let mut by_reason = BTreeMap::new();
        for told in &self.silenced {
            *by_reason.entry(told.message.as_str()).or_default() += 1;
        }
        by_reason
    }
}

/// Runs until so much time counts, and no longer than [`TRIED_FOR`] times as long; `seed` decides when who is paused. `busy`
/// keeps each CPU busy instead of [`BUSY`], if given. `say` hears how it goes.
pub fn run(
    stage: &mut Stage,
    length: Duration,
    seed: u64,
    busy: Option<&str>,
    mut say: impl FnMut(&str),
) -> Result<Outcome> {
    stage.active()?;
    let mut heard = Heard::default();
    heard.look(stage)?;
    heard.forget();
    let busy = Busy::start(stage, busy)?;
    let probed = SocketAddr::new(virtual_address(Translation::Nat, Family::V4), ECHO_PORT);
    let probe = Probe::start(&stage.world, probed, Duration::from_millis(1))?;
    let clients = Clients::start(&stage.world, virtual_servers(80), CONNECTIONS_PER_SECOND)?;
    let pids = [stage.pair[0].process()?.pid(), stage.pair[1].process()?.pid()];
    let pauser = Pauser::start(pids, seed);

    let (begun, mut told) = (Instant::now(), Instant::now());
    let mut looked = Ok(());
    let mut spells: Vec<Spell> = Vec::new();
    let (mut idle, mut all, mut lost) = (0, 0, 0);
    while counted(&spells) < length && begun.elapsed() < length * TRIED_FOR && looked.is_ok() {
        let (watch, began, idle_before) = (StallWatch::start(), unix_ms(), idle_and_all()?);
        let over = Instant::now() + SPELL.min(length);
        while Instant::now() < over && looked.is_ok() {
            std::thread::sleep(LOOK.min(over.saturating_duration_since(Instant::now())));
            looked = heard.look(stage);
        }
        let (spell, idle_after) = (began..unix_ms(), idle_and_all()?);
        spells.push(Spell::after(spells.last(), spell, watch.finish()));
        (idle, all) = (idle + idle_after.0 - idle_before.0, all + idle_after.1 - idle_before.1);
        lost = if spells.last().is_some_and(|spell| spell.counts) { 0 } else { lost + 1 };
        if lost == LOST_MAX {
            let began = unix_ms();
            busy.signal(Signal::SIGSTOP)?;
            std::thread::sleep(REST);
            busy.signal(Signal::SIGCONT)?;
            spells.push(Spell::of_rest(began..unix_ms()));
            lost = 0;
            looked = heard.look(stage);
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            let counted = counted(&spells).as_secs();
            let (takeovers, silent) = (heard.leads.len(), heard.silent.len());
            say(&format!("{counted} s count; {takeovers} takeovers, {silent} times silent by lease, in all"));
        }
    }
    let pauses = pauser.finish()?;
    say(&format!("over: {} takeovers, {} times silent by lease", heard.leads.len(), heard.silent.len()));
    drop(busy);
    let probe = probe.finish()?;
    let tally = clients.finish()?;
    looked?;
    say("all connections have ended");
    stage.active().context("the pair does not come to rest")?;
    heard.look(stage)?;

    let mut violations = Violations::new();
    let (takeovers, silenced) = (heard.leads, heard.silent);
    let in_counted = |told: &&Told| counts(&spells, told.unix_ms);
    let false_takeovers: Vec<Told> = takeovers.iter().filter(in_counted).cloned().collect();
    violations.require(counted(&spells) >= length, || {
        format!(
            "of {} s count {}: the machine stood still",
            begun.elapsed().as_secs(),
            counted(&spells).as_secs()
        )
    });
    for told in &false_takeovers {
        violations.add(format!(
            "false takeover at {}: {}: {}",
            told.unix_ms,
            told.side.letter(),
            told.message
        ));
    }
    // Nobody knows of when they are; without stalls, all are of time that counts.
    let judged = spells.iter().all(|spell| spell.counts);
    for broken in tally.broken.iter().filter(|_| judged) {
        violations.add(format!("a client had its SYN-ACK and did not complete: {broken}"));
    }
    violations.require(!pauses.is_empty() && tally.complete > 0, || "nothing was tried".into());
    let idle = idle as f64 / all.max(1) as f64;
    violations.require(idle < IDLE, || format!("the CPUs were idle for {:.2} %", 100.0 * idle));
    Ok(Outcome { pauses, takeovers, false_takeovers, silenced, spells, probe, tally, idle, violations })
}

fn is_long(pause: &Pause) -> bool {
    pause.real > RIDDEN_OUT + INEXACT
}

fn counted(spells: &[Spell]) -> Duration {
    spells.iter().filter(|spell| spell.counts).map(Spell::length).sum()
}

/// Whether this instant is in time that counts.
fn counts(spells: &[Spell], unix_ms: u64) -> bool {
    spells.iter().any(|spell| spell.counts && spell.unix_ms.contains(&unix_ms))
}

/// What keeps every CPU busy; it ends when dropped.
struct Busy(Vec<Process>);

impl Busy {
    /// [`BUSY`] on each CPU, or `instead` with the CPU's number as its argument.
    fn start(stage: &Stage, instead: Option<&str>) -> Result<Busy> {
        let mut busy = Busy(Vec::new());
        for cpu in stall::cpus() {
            let cpu = cpu.to_string();
            let programs = match instead {
                Some(program) => vec![vec![program, &cpu]],
                None => BUSY.iter().map(|program| program.to_vec()).collect(),
            };
            for (number, program) in programs.into_iter().enumerate() {
                let name = format!("busy-{cpu}-{number}");
                // Each in a process group of its own, with all that it starts.
                let args = [vec!["taskset", "--cpu-list", &cpu], program].concat();
                let (world, namespace) = (stage.world.directory(), stage.world.namespace("switch"));
                busy.0.push(Process::spawn(world, &namespace, &name, "setsid", &args)?);
            }
        }
        Ok(busy)
    }

    /// Sends a signal to all of them, and to what they started.
    fn signal(&self, signal: Signal) -> Result<()> {
        for process in &self.0 {
            killpg(Pid::from_raw(process.pid() as i32), signal).context("what keeps a CPU busy is gone")?;
        }
        Ok(())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for process in &self.0 {
            let _ = killpg(Pid::from_raw(process.pid() as i32), Signal::SIGKILL);
        }
    }
}

/// Idle time and all time of all CPUs until now, in ticks (proc(5), `/proc/stat`).
fn idle_and_all() -> Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let numbers: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let idle = numbers.get(3).context("no idle time")? + numbers.get(4).unwrap_or(&0);
    // The guests' time is in the users' already.
    Ok((idle, numbers.iter().take(8).sum()))
}

/// What both appliances have told, each thing once.
#[derive(Debug, Default)]
struct Heard {
    leads: Vec<Told>,
    silent: Vec<Told>,
    newest: [u64; 2],
}

impl Heard {
    fn look(&mut self, stage: &Stage) -> Result<()> {
        for (appliance, newest) in stage.pair.iter().zip(&mut self.newest) {
            // One that has little of a CPU may answer late; the next look hears the same.
            let Ok(events) = appliance.ask("events") else { continue };
            for event in events["events"].as_array().context("no events")? {
                let number = event["number"].as_u64().context("an event without a number")?;
                if number <= *newest {
                    continue;
                }
                *newest = number;
                let message = event["message"].as_str().unwrap_or_default().to_owned();
                let told = |message| Told {
                    side: appliance.side(),
                    unix_ms: event["unix_ms"].as_u64().unwrap_or_default(),
                    message,
                };
                if message.starts_with("leads term") {
                    self.leads.push(told(message));
                } else if let Some(reason) = message.strip_prefix("sends nothing: ") {
                    self.silent.push(told(reason.to_owned()));
                }
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.leads.clear();
        self.silent.clear();
    }
}

/// Stops and continues one of two processes now and then.
struct Pauser {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Pause>>>,
}

impl Pauser {
    fn start(pids: [u32; 2], seed: u64) -> Pauser {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || pause_now_and_then(pids, seed, &stopped));
        Pauser { stop, thread }
    }

    fn finish(self) -> Result<Vec<Pause>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the pauser panicked"))?
    }
}

fn pause_now_and_then(pids: [u32; 2], seed: u64, stop: &AtomicBool) -> Result<Vec<Pause>> {
    // So that its own waits are exact.
    stall::be_real_time().map_err(|why| anyhow!(why))?;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pauses = Vec::new();
    for length_ms in PAUSES_MS.into_iter().cycle() {
        let next = Instant::now() + Duration::from_millis(random.u64(BETWEEN_MS));
        while Instant::now() < next {
            if stop.load(Ordering::Relaxed) {
                return Ok(pauses);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let whose = random.usize(0..2);
        let (pid, wanted) = (Pid::from_raw(pids[whose] as i32), Duration::from_millis(length_ms));
        let since = Instant::now();
        kill(pid, Signal::SIGSTOP).context("the appliance is gone")?;
        std::thread::sleep(wanted);
        kill(pid, Signal::SIGCONT)?;
        let real = since.elapsed();
        pauses.push(Pause { side: Side::BOTH[whose], wanted, real, ended_unix_ms: unix_ms() });
    }
    Ok(pauses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stall::Gap;

    #[test]
    fn only_time_without_a_stall_in_it_or_right_before_it_counts() {
        let spell = |before: Option<&Spell>, number: u64, stalls: &[u64]| {
            let gap =
                |at: &u64| Gap { cpu: 0, at: Duration::from_millis(*at), lasted: Duration::from_millis(21) };
            let gaps = stalls.iter().map(gap).collect();
            let stalls = Stalls { gaps, watched: SPELL, ..Stalls::default() };
            Spell::after(before, number * 20_000..(number + 1) * 20_000, stalls)
        };
        let quiet = spell(None, 0, &[]);
        let early = spell(Some(&quiet), 1, &[5_000]);
        let after_early = spell(Some(&early), 2, &[]);
        let late = spell(Some(&after_early), 3, &[19_500]);
        let after_late = spell(Some(&late), 4, &[]);
        let spells = [quiet, early, after_early, late, after_late];
        assert_eq!(
            spells.iter().map(|spell| spell.counts).collect::<Vec<_>>(),
            [true, false, true, false, false]
        );
        assert_eq!(counted(&spells), 2 * SPELL);
        assert!(counts(&spells, 19_999) && !counts(&spells, 20_000) && counts(&spells, 40_000));
        assert!(!counts(&spells, 100_001), "after all");
        let blind = Stalls { blind: Some("not root".into()), ..Stalls::default() };
        assert!(!Spell::after(None, 0..1, blind).counts, "nobody looked");
    }
}
