//! How long a failover takes, again and again in short rounds: from the kill to the decision, from there until all workers
//! serve, and what a probe and downloads notice of it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::appliance::Role;
use crate::campaign::{Takeover, Violations, takeover_in, unix_us};
use crate::command::wait_until;
use crate::config::ECHO_PORT;
use crate::downloads::{Downloads, through_virtual_servers};
use crate::plan::{Family, Translation, virtual_address};
use crate::probe::{Probe, Report};
use crate::stage::{MIDDLE_FILE, ROLES_LIMIT, Stage};

/// A megabyte a second, two seconds in all.
const RATE: &str = "1000k";
/// One of each translation and family.
const DOWNLOADS: usize = 4;
const LIMIT: Duration = Duration::from_secs(60);
/// Undisturbed, before the kill and after the takeover.
const QUIET: Duration = Duration::from_millis(400);

/// What one kill did.
#[derive(Clone, Debug)]
pub struct Round {
    /// What the probe saw.
    pub probe: Report,
    /// The longest time for which each download stood still.
    pub stalls: Vec<Duration>,
    /// When the other led, and served.
    pub takeover: Takeover,
    /// What was not as required.
    pub violations: Violations,
}

/// One kill of the active, which is started again afterwards.
pub fn round(stage: &mut Stage) -> Result<Round> {
    let active = stage.active()?;
    let probed = SocketAddr::new(virtual_address(Translation::Nat, Family::V4), ECHO_PORT);
    let probe = Probe::start(&stage.world, probed, Duration::from_millis(1))?;
    let requests = through_virtual_servers(&stage.web, MIDDLE_FILE.0, RATE, DOWNLOADS)?;
    let downloads = Downloads::start(&stage.world, requests, LIMIT)?;
    wait_until("the downloads to run", LIMIT, || Ok(downloads.progress_range().0 > 0.05))?;
    std::thread::sleep(QUIET);

    stage.pair[active].wait_synchronized(ROLES_LIMIT)?;
    stage.still_leads(active)?;
    let mut violations = Violations::new();
    violations
        .require(downloads.progress_range().1 < 0.9, || "the downloads had ended before the kill".into());
    let killed = unix_us();
    stage.pair[active].kill()?;
    stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;
    std::thread::sleep(QUIET);
    let probe = probe.finish()?;
    let survivor = &stage.pair[1 - active];
    let takeover = takeover_in(&survivor.ask("events")?, killed).context("no takeover in the events")?;
    violations.require(survivor.status()?["degraded"] == false, || "it was not in sync".into());
    // The killed one starts while the downloads end.
    stage.revive(active)?;
    let outcomes = downloads.finish(LIMIT)?;
    violations.require(outcomes.iter().all(|outcome| outcome.whole()), || {
        format!("a download broke: {outcomes:?}")
    });
    let stalls = outcomes.iter().map(|outcome| outcome.longest_stall).collect();
    Ok(Round { probe, stalls, takeover, violations })
}
