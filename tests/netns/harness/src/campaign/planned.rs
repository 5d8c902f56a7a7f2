//! Planned switchovers under traffic: every datagram is numbered and must come back, and no TCP segment may have to be
//! sent again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::appliance::Role;
use crate::campaign::Violations;
use crate::command::{run, wait_until};
use crate::config::ECHO_PORT;
use crate::downloads::{Downloads, through_virtual_servers};
use crate::probe::Probe;
use crate::stage::{LONG_FILE, ROLES_LIMIT, Stage, virtual_servers};

const LIMIT: Duration = Duration::from_secs(60);
/// A megabyte a second for four seconds, of each translation and family.
const RATE: &str = "1000k";
const DOWNLOADS: usize = 4;
/// One of these probes to each virtual server.
const INTERVAL: Duration = Duration::from_millis(1);
/// Before each switchover: flows are protected within milliseconds.
const BETWEEN: Duration = Duration::from_millis(250);

/// What some switchovers did.
#[derive(Clone, Debug)]
pub struct Round {
    /// How long each took, by the command.
    pub switchovers: Vec<Duration>,
    /// Datagrams sent by the clients.
    pub sent: usize,
    /// Those of them that did not come back.
    pub lost: usize,
    /// Datagrams a second, each there and back.
    pub per_second: f64,
    /// The longest time between two answers of each probe.
    pub gaps: Vec<Duration>,
    /// TCP segments that client or servers sent again, for whatever reason.
    pub sent_again: u64,
    /// TCP segments that they sent.
    pub segments: u64,
    /// What was not as required.
    pub violations: Violations,
}

/// As many switchovers as downloads of four seconds have room for, at most `most`.
pub fn round(stage: &mut Stage, most: usize) -> Result<Round> {
    stage.active()?;
    let before = segments(stage)?;
    let requests = through_virtual_servers(&stage.web, LONG_FILE.0, RATE, DOWNLOADS)?;
    let downloads = Downloads::start(&stage.world, requests, LIMIT)?;
    let since = Instant::now();
    let probes: Vec<Probe> = virtual_servers(ECHO_PORT)
        .into_iter()
        .map(|server| Probe::start(&stage.world, server, INTERVAL))
        .collect::<Result<_>>()?;
    wait_until("the downloads to run", LIMIT, || Ok(downloads.progress_range().0 > 0.05))?;

    let mut switchovers = Vec::new();
    while switchovers.len() < most && downloads.progress_range().1 < 0.85 {
        let active = stage.active()?;
        std::thread::sleep(BETWEEN);
        let began = Instant::now();
        stage.pair[active].command(&["switchover"])?;
        switchovers.push(began.elapsed());
        stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;
    }
    std::thread::sleep(BETWEEN);
    let reports = probes.into_iter().map(Probe::finish).collect::<Result<Vec<_>>>()?;
    let seconds = since.elapsed().as_secs_f64();
    let outcomes = downloads.finish(LIMIT)?;
    let after = segments(stage)?;

    let sent: usize = reports.iter().map(|report| report.sent).sum();
    let lost = sent - reports.iter().map(|report| report.answered).sum::<usize>();
    let mut violations = Violations::new();
    violations.require(!switchovers.is_empty(), || "no switchover was made".into());
    violations.require(lost == 0, || format!("{lost} of {sent} datagrams were lost"));
    violations.require(outcomes.iter().all(|outcome| outcome.whole()), || {
        format!("a download broke: {outcomes:?}")
    });
    Ok(Round {
        switchovers,
        sent,
        lost,
        per_second: sent as f64 / seconds,
        gaps: reports.iter().map(|report| report.largest_gap).collect(),
        sent_again: after.1 - before.1,
        segments: after.0 - before.0,
        violations,
    })
}

/// TCP segments that the kernels of client and servers have sent until now, and those of them sent again.
fn segments(stage: &Stage) -> Result<(u64, u64)> {
    let mut sum = (0, 0);
    for name in stage.world.server_names().iter().map(String::as_str).chain(["client"]) {
        let args = ["netns", "exec", &stage.world.namespace(name), "cat", "/proc/net/snmp"];
        let (sent, again) = segments_in(&run("ip", &args)?).context("/proc/net/snmp says nothing of TCP")?;
        sum = (sum.0 + sent, sum.1 + again);
    }
    Ok(sum)
}

/// `OutSegs` (which counts first sendings only) and `RetransSegs`, from two lines: names, then numbers.
fn segments_in(snmp: &str) -> Option<(u64, u64)> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let number = |wanted: &str| -> Option<u64> {
        let mut pairs = names.split_whitespace().zip(numbers.split_whitespace());
        pairs.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some((number("OutSegs")?, number("RetransSegs")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_read_by_their_names() {
        let snmp =
            "Ip: A B\nIp: 1 2\nTcp: RtoMin MaxConn OutSegs RetransSegs\nTcp: 200 -1 77 3\nUdp: X\nUdp: 9\n";
        assert_eq!(segments_in(snmp), Some((77, 3)));
        assert_eq!(segments_in("Tcp: OutSegs\n"), None);
    }
}
