//! `commit = "hold"`: no client has an open connection that the standby does not know.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::appliance::Role;
use crate::campaign::Violations;
use crate::connections::{Clients, Tally};
use crate::stage::{ROLES_LIMIT, Stage, counter, virtual_servers};

/// New connections a second.
pub const PER_SECOND: u32 = 250;
/// Between a takeover, or a standby's synchronization, and the next kill, at least.
const BETWEEN: Duration = Duration::from_millis(500);

/// What the clients met.
#[derive(Clone, Debug)]
pub struct Kills {
    /// Kills of the active.
    pub kills: usize,
    /// What became of the connections.
    pub tally: Tally,
    /// What was not as required.
    pub violations: Violations,
}

/// Kills the active `kills` times while new connections come all the time.
pub fn kills(stage: &mut Stage, kills: usize, mut told: impl FnMut(usize, &Tally)) -> Result<Kills> {
    let clients = Clients::start(&stage.world, virtual_servers(80), PER_SECOND)?;
    let mut timeouts = 0;
    let mut made = 0;
    let result = (|| {
        for number in 1..=kills {
            let active = stage.active()?;
            std::thread::sleep(BETWEEN);
            timeouts += hold_timeouts(stage, active)?;
            stage.pair[active].kill()?;
            stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;
            stage.revive(active)?;
            made += 1;
            let so_far = clients.so_far();
            told(number, &so_far);
            if !so_far.broken.is_empty() {
                break;
            }
        }
        let active = stage.active()?;
        timeouts += hold_timeouts(stage, active)?;
        anyhow::Ok(())
    })();
    let tally = clients.finish()?;
    result?;
    let mut violations = judge(&tally);
    violations.require(timeouts == 0, || format!("{timeouts} hold time-outs"));
    Ok(Kills { kills: made, tally, violations })
}

/// A counter begins anew with each process: asked for just before one is killed, it is counted once.
fn hold_timeouts(stage: &Stage, active: usize) -> Result<u64> {
    counter(&stage.pair[active].ask("counters")?, "hold_timeouts")
}

fn judge(tally: &Tally) -> Violations {
    let mut violations = Violations::new();
    for broken in &tally.broken {
        violations.add(format!("a client had its SYN-ACK and did not complete: {broken}"));
    }
    for unopened in &tally.unopened {
        violations.add(format!("a client was not let in: {unopened}"));
    }
    violations.require(tally.opened == tally.complete, || {
        format!("{} of {} opened connections completed", tally.complete, tally.opened)
    });
    violations
        .require(tally.begun > 0 && tally.skipped == 0, || format!("the load was not as wanted: {tally:?}"));
    violations
}

/// How fast flows became protected, without faults.
#[derive(Clone, Debug)]
pub struct Protection {
    /// Flows counted.
    pub flows: u64,
    /// Upper bounds of the log-scale bins in which the median, the 99th and the greatest of 100 fall, in milliseconds.
    pub median_ms: f64,
    /// As `median_ms`: 99 % were at most this long.
    pub p99_ms: f64,
    /// As `median_ms`: the longest; infinite if beyond the last bin's bound.
    pub longest_ms: f64,
    /// The share that was certainly within 10 ms: in bins that end at 8.192 ms or before.
    pub within_10_ms: f64,
    /// What became of the connections.
    pub tally: Tally,
    /// What was not as required.
    pub violations: Violations,
}

/// Lets new connections come for a while without any fault.
pub fn protection(stage: &mut Stage, time: Duration) -> Result<Protection> {
    let active = stage.active()?;
    let before = bins(&stage.pair[active].ask("mirror")?)?;
    let clients = Clients::start(&stage.world, virtual_servers(80), PER_SECOND)?;
    std::thread::sleep(time);
    let tally = clients.finish()?;
    let after = bins(&stage.pair[active].ask("mirror")?)?;
    let timeouts = hold_timeouts(stage, active)?;
    let bins: Vec<(f64, u64)> = after
        .iter()
        .enumerate()
        .map(|(number, (bound, count))| (*bound, count - before.get(number).map_or(0, |(_, old)| *old)))
        .collect();
    let flows: u64 = bins.iter().map(|(_, count)| count).sum();
    let share = |part: f64| bound_of(&bins, (flows as f64 * part).ceil() as u64);
    let within: u64 = bins.iter().filter(|(bound, _)| *bound <= 10.0).map(|(_, count)| count).sum();
    let mut violations = judge(&tally);
    violations.require(timeouts == 0, || format!("{timeouts} hold time-outs"));
    violations.require(flows > 0, || "no flow was protected".into());
    Ok(Protection {
        flows,
        median_ms: share(0.5),
        p99_ms: share(0.99),
        longest_ms: share(1.0),
        within_10_ms: within as f64 / flows.max(1) as f64,
        tally,
        violations,
    })
}

/// Bins of how long flows were unprotected: upper bound in milliseconds, and how many.
pub(crate) fn bins(mirror: &Value) -> Result<Vec<(f64, u64)>> {
    let buckets = mirror["protected_after"]["buckets"].as_array().context("no protection latency")?;
    buckets
        .iter()
        .map(|bucket| {
            let bound = bucket["up_to_us"].as_u64().map_or(f64::INFINITY, |us| us as f64 / 1e3);
            Ok((bound, bucket["count"].as_u64().context("no count")?))
        })
        .collect()
}

/// The upper bound of the bin in which the value of this rank falls.
pub(crate) fn bound_of(bins: &[(f64, u64)], number: u64) -> f64 {
    let mut sum = 0;
    for (bound, count) in bins {
        sum += count;
        if sum >= number {
            return *bound;
        }
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_found_in_its_bin() {
        let bins = [(1.0, 50), (2.0, 49), (4.0, 1), (f64::INFINITY, 0)];
        assert_eq!((bound_of(&bins, 50), bound_of(&bins, 99), bound_of(&bins, 100)), (1.0, 2.0, 4.0));
        assert_eq!(bound_of(&[], 1), f64::INFINITY);
    }
}
