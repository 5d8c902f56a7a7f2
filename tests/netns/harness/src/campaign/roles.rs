//! Many role changes between the same two processes: everything returns to where it began.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::appliance::Role;
use crate::campaign::Violations;
use crate::command::wait_until;
use crate::config::Settings;
use crate::connections::{Clients, Tally};
use crate::stage::{ROLES_LIMIT, Stage, virtual_servers};

/// New connections a second meanwhile.
const PER_SECOND: u32 = 100;
/// Between two changes.
const BETWEEN: Duration = Duration::from_millis(200);
/// Longer than every time-out of [`settings`].
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// How long an appliance at rest is watched: buffers on their way come and go.
const WATCH: Duration = Duration::from_millis(500);
/// Growth of memory that is allowed: pages touched for the first time, in KiB.
const MEMORY_GROWTH_MAX_KB: i64 = 4096;
/// Buffers more than at the beginning that may be in use at rest: packets on their way.
const BUFFERS_GROWTH_MAX: i64 = 64;
/// Descriptors: the answer to the question itself may be open still.
const DESCRIPTORS_GROWTH_MAX: i64 = 2;

/// The settings for these rounds: flows and ports go within seconds.
pub fn settings() -> Settings {
    Settings { short_timeouts: true, ..Settings::default() }
}

/// What one appliance uses, at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses {
    /// Packet buffers.
    pub buffers: i64,
    /// Flows.
    pub flows: i64,
    /// Source-NAT ports at rest.
    pub ports_resting: i64,
    /// Resident memory, in KiB.
    pub memory_kb: i64,
    /// Open descriptors.
    pub descriptors: i64,
}

/// What changed over all changes.
#[derive(Clone, Debug)]
pub struct Changes {
    /// Role changes.
    pub changes: usize,
    /// What each used before, and after; of both appliances.
    pub uses: [(Uses, Uses); 2],
    /// What became of the connections meanwhile.
    pub tally: Tally,
    /// How long each planned change took, by the command.
    pub planned: Vec<Duration>,
    /// What was not as required.
    pub violations: Violations,
}

/// Changes roles `changes` times, planned and by pausing in turn, under load. The stage must have [`settings`].
pub fn changes(stage: &mut Stage, changes: usize, mut told: impl FnMut(usize)) -> Result<Changes> {
    // As many before, uncounted, so that every table has been touched as far as it will be: flows gather meanwhile, as
    // each takeover restarts their timers (REQ C8).
    let mut planned = Vec::new();
    under_load(stage, changes, &mut planned, &mut |_| ())?;
    planned.clear();
    let before = at_rest(stage)?;
    let tally = under_load(stage, changes, &mut planned, &mut told)?;
    let after = at_rest(stage)?;

    let mut violations = Violations::new();
    for broken in &tally.broken {
        violations.add(format!("a client had its SYN-ACK and did not complete: {broken}"));
    }
    violations.require(tally.opened == tally.complete && tally.complete > 0, || {
        format!("{} of {} opened connections completed", tally.complete, tally.opened)
    });
    for index in 0..2 {
        let (old, new) = (before[index], after[index]);
        let letter = stage.pair[index].side().letter();
        let mut grew = |what: &str, old: i64, new: i64, most: i64| {
            violations
                .require(new - old <= most, || format!("{what} of {letter}: {old} before, {new} after"));
        };
        grew("buffers in use", old.buffers, new.buffers, BUFFERS_GROWTH_MAX);
        grew("flows", old.flows, new.flows, 0);
        grew("ports at rest", old.ports_resting, new.ports_resting, 0);
        grew("memory (KiB)", old.memory_kb, new.memory_kb, MEMORY_GROWTH_MAX_KB);
        grew("descriptors", old.descriptors, new.descriptors, DESCRIPTORS_GROWTH_MAX);
    }
    let uses = [(before[0], after[0]), (before[1], after[1])];
    Ok(Changes { changes, uses, tally, planned, violations })
}

fn under_load(
    stage: &mut Stage,
    changes: usize,
    planned: &mut Vec<Duration>,
    told: &mut dyn FnMut(usize),
) -> Result<Tally> {
    let clients = Clients::start(&stage.world, virtual_servers(80), PER_SECOND)?;
    let result = (1..=changes).try_for_each(|number| {
        let active = stage.active()?;
        std::thread::sleep(BETWEEN);
        if number % 2 == 1 {
            let since = Instant::now();
            stage.pair[active].command(&["switchover"])?;
            planned.push(since.elapsed());
        } else {
            stage.pair[active].pause()?;
            let led = stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT);
            stage.pair[active].resume()?;
            led?;
        }
        stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;
        stage.pair[active].wait_role(Role::Standby, ROLES_LIMIT)?;
        told(number);
        anyhow::Ok(())
    });
    let tally = clients.finish()?;
    result?;
    Ok(tally)
}

/// Waits until no flow is left and no port rests, and says what each appliance uses then.
fn at_rest(stage: &mut Stage) -> Result<[Uses; 2]> {
    stage.active()?;
    let mut uses = Vec::new();
    for index in 0..2 {
        let letter = stage.pair[index].side().letter();
        wait_until(&format!("the flows of {letter} to go"), DRAIN_LIMIT, || {
            let uses = uses_of(stage, index)?;
            Ok(uses.flows == 0 && uses.ports_resting == 0)
        })?;
        // Buffers on their way come and go: the least within a while counts.
        let end = Instant::now() + WATCH;
        let mut least = uses_of(stage, index)?;
        while Instant::now() < end {
            let now = uses_of(stage, index)?;
            least.buffers = least.buffers.min(now.buffers);
            least.descriptors = least.descriptors.min(now.descriptors);
        }
        uses.push(least);
    }
    Ok([uses[0], uses[1]])
}

fn uses_of(stage: &mut Stage, index: usize) -> Result<Uses> {
    let appliance = &mut stage.pair[index];
    let pid = appliance.process()?.pid();
    let status = appliance.status()?;
    let number =
        |part: &str, key: &str| status[part][key].as_i64().with_context(|| format!("no {part}.{key}"));
    let memory = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let memory = memory.split_whitespace().next().context("no number")?;
    Ok(Uses {
        buffers: number("buffers", "in_use")?,
        flows: number("flows", "active")?,
        ports_resting: number("flows", "ports_resting")?,
        memory_kb: memory.parse()?,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as i64,
    })
}
