//! Downloads under way, and appliances killed in the middle of them.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::analysis;
use crate::appliance::Role;
use crate::campaign::{Violations, takeover_in, unix_us};
use crate::capture::{Capture, Captured, Depth, Direction, stop_all};
use crate::command::wait_until;
use crate::downloads::{Downloads, Outcome, tally, through_virtual_servers};
use crate::plan::{Link, Side};
use crate::stage::{FILE, ROLES_LIMIT, Stage};

/// Every download must be at least this far at a kill, and at most that far.
const WINDOW: (f64, f64) = (0.1, 0.9);
/// How far the last of them is when the first fault comes.
const BEGIN: f64 = 0.12;
const TRANSFER_LIMIT: Duration = Duration::from_secs(90);
/// Openings, which show that the capture works, and resets, of which there must be none; IPv6 without extension headers.
const OPENED_OR_RESET: &str =
    "(ip and tcp[tcpflags] & (tcp-syn|tcp-rst) != 0) or (ip6 and ip6[6] == 6 and ip6[53] & 6 != 0)";

/// How many downloads, and how fast each.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Half nat, half full-nat; half IPv4, half IPv6.
    pub downloads: usize,
    /// As nginx writes it. 400 kB at 40k take ten seconds.
    pub rate: &'static str,
}

/// Who is killed in the middle of the downloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The active; it is started again after the downloads.
    Active,
    /// The standby, and it is started again and synchronized within the downloads.
    Standby,
    /// The active; it is started again and synchronized, and then the one that took over: the first leads again.
    Twice,
}

/// What a round measured.
#[derive(Clone, Debug)]
pub struct Round {
    /// What became of every download.
    pub outcomes: Vec<Outcome>,
    /// The least and the most advanced download at each kill, from 0 to 1.
    pub at_kills: Vec<(f64, f64)>,
    /// From each kill of an active to the other's promotion, and from there until it served.
    pub takeovers: Vec<(Duration, Duration)>,
    /// What was not as required.
    pub violations: Violations,
}

impl Round {
    /// Downloads that arrived whole.
    pub fn whole(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.whole()).count()
    }

    /// The longest time that any of them stood still.
    pub fn longest_stall(&self) -> Duration {
        self.outcomes.iter().map(|outcome| outcome.longest_stall).max().unwrap_or_default()
    }
}

/// One round; both appliances run afterwards, the standby synchronized.
pub fn round(stage: &mut Stage, load: Load, plan: Plan) -> Result<Round> {
    round_after(stage, load, plan, |_| Ok(()))
}

/// As [`round`], after something is done while every download is under way.
pub fn round_after(
    stage: &mut Stage,
    load: Load,
    plan: Plan,
    first: impl FnOnce(&mut Stage) -> Result<()>,
) -> Result<Round> {
    let active = stage.active()?;
    let captures = captures(stage)?;
    let requests = through_virtual_servers(&stage.web, FILE.0, load.rate, load.downloads)?;
    let downloads = Downloads::start(&stage.world, requests, TRANSFER_LIMIT)?;
    wait_until("every download to be under way", TRANSFER_LIMIT, || {
        Ok(downloads.progress_range().0 >= BEGIN)
    })?;
    first(stage)?;

    let mut round = Round {
        outcomes: Vec::new(),
        at_kills: Vec::new(),
        takeovers: Vec::new(),
        violations: Violations::new(),
    };
    match plan {
        Plan::Active => take_over(stage, &downloads, active, &mut round)?,
        Plan::Standby => {
            kill(stage, &downloads, 1 - active, &mut round)?;
            stage.revive(1 - active)?;
            round
                .violations
                .require(stage.pair[active].role()? == Role::Active, || "the active stepped down".into());
        }
        Plan::Twice => {
            take_over(stage, &downloads, active, &mut round)?;
            stage.revive(active)?;
            take_over(stage, &downloads, 1 - active, &mut round)?;
        }
    }
    let (_, most) = downloads.progress_range();
    round.violations.require(most < 1.0, || "a download ended before the faults did".into());

    round.outcomes = downloads.finish(TRANSFER_LIMIT)?;
    judge_downloads(&mut round, load.downloads);
    judge_captures(&mut round, &stop_all(captures)?, load.downloads)?;
    // Before anyone is started again, so that the evidence is what it was.
    if round.violations.is_empty() {
        for index in 0..2 {
            if stage.pair[index].process().is_err() {
                stage.revive(index)?;
            }
        }
    }
    Ok(round)
}

/// On both data links of both appliances.
fn captures(stage: &Stage) -> Result<Vec<Capture>> {
    let links = Side::BOTH.into_iter().flat_map(|side| [Link::Client, Link::Server].map(|link| (side, link)));
    links
        .map(|(side, link)| {
            let (both, headers) = (Direction::Both, Depth::Headers);
            Capture::start_filtered(&stage.world, side, link, both, headers, OPENED_OR_RESET)
        })
        .collect()
}

/// SIGKILL while every download is in the window.
fn kill(stage: &mut Stage, downloads: &Downloads, index: usize, round: &mut Round) -> Result<()> {
    let (least, most) = downloads.progress_range();
    ensure!(
        least >= WINDOW.0 && most <= WINDOW.1,
        "the downloads ran too unevenly to show anything: {least:.2} to {most:.2} done"
    );
    round.at_kills.push((least, most));
    stage.pair[index].kill()
}

/// Kills the active and waits until the other one leads.
fn take_over(stage: &mut Stage, downloads: &Downloads, active: usize, round: &mut Round) -> Result<()> {
    stage.still_leads(active)?;
    let killed = unix_us();
    kill(stage, downloads, active, round)?;
    let survivor = &stage.pair[1 - active];
    survivor.wait_role(Role::Active, ROLES_LIMIT)?;
    if let Some(takeover) = takeover_in(&survivor.ask("events")?, killed) {
        round.takeovers.push((takeover.decided, takeover.installed));
    }
    let status = survivor.status()?;
    round.violations.require(status["degraded"] == false, || {
        format!("appliance {} took over without being in sync", survivor.side().letter())
    });
    Ok(())
}

fn judge_downloads(round: &mut Round, count: usize) {
    for (kind, (all, whole)) in tally(&round.outcomes) {
        round
            .violations
            .require(all == whole, || format!("{kind}: {whole} of {all} downloads arrived whole"));
    }
    round.violations.require(round.outcomes.len() == count, || "downloads are missing".into());
    for outcome in round.outcomes.iter().filter(|outcome| !outcome.whole()).take(10) {
        round.violations.add(format!(
            "lost: {} ({} of {} bytes, curl's status {}) {}",
            outcome.url, outcome.received, outcome.length, outcome.exit, outcome.message
        ));
    }
}

fn judge_captures(round: &mut Round, captures: &[Captured], count: usize) -> Result<()> {
    let mut openings = 0;
    for capture in captures {
        if capture.link == Link::Client {
            openings += analysis::count(capture, "tcp.flags.syn == 1 and tcp.flags.ack == 0")?;
        }
        for reset in analysis::resets(capture)? {
            round.violations.add(format!("reset at {}: {reset}", capture.link.interface(capture.side)));
        }
    }
    round.violations.require(openings >= count, || format!("the captures hold {openings} openings only"));
    Ok(())
}
