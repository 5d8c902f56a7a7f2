//! How long clients notice a death: a probe each millisecond, and beside it two TCP connections, one that always has
//! more to send and one that waits for each answer.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::appliance::Role;
use crate::campaign::{Violations, takeover_in, unix_us};
use crate::command::wait_until;
use crate::config::ECHO_PORT;
use crate::conversation::Conversation;
use crate::downloads::{Downloads, through_virtual_servers};
use crate::plan::{Family, Translation, virtual_address};
use crate::probe::{Probe, Report};
use crate::stage::{LONG_FILE, ROLES_LIMIT, Stage};

/// A megabyte a second, four seconds in all: 4 KiB every four milliseconds. nginx counts whole milliseconds: with a
/// rate between, it would run ahead and then pause for the rest of the second.
const RATE: &str = "1000k";
const LIMIT: Duration = Duration::from_secs(60);
/// Undisturbed, before the kill and after the takeover.
const QUIET: Duration = Duration::from_millis(1000);

/// What one kill did.
#[derive(Clone, Debug)]
pub struct Round {
    /// The probe's longest time between two answers.
    pub probe: Report,
    /// The longest time for which the transfer stood still.
    pub transfer_stall: Duration,
    /// The longest time for which the conversation waited for an answer.
    pub conversation_stall: Duration,
    /// From the kill to the promotion of the other.
    pub decided: Duration,
    /// From the promotion until it served.
    pub installed: Duration,
    /// What was not as required.
    pub violations: Violations,
}

/// One kill of the active, which is started again afterwards.
pub fn round(stage: &mut Stage) -> Result<Round> {
    let active = stage.active()?;
    let probed = SocketAddr::new(virtual_address(Translation::Nat, Family::V4), ECHO_PORT);
    let probe = Probe::start(&stage.world, probed, Duration::from_millis(1))?;
    let requests = through_virtual_servers(&stage.web, LONG_FILE.0, RATE, 1)?;
    let transfer = Downloads::start(&stage.world, requests, LIMIT)?;
    let talk = Conversation::start(
        &stage.world,
        SocketAddr::new(virtual_address(Translation::FullNat, Family::V4), 80),
    )?;
    wait_until("the transfer to run", LIMIT, || Ok(transfer.progress_range().0 > 0.05))?;
    std::thread::sleep(QUIET);

    stage.still_leads(active)?;
    let killed = unix_us();
    stage.pair[active].kill()?;
    stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;
    std::thread::sleep(QUIET);
    let probe = probe.finish()?;
    let spoken = talk.finish().context("the conversation broke")?;
    let outcomes = transfer.finish(LIMIT)?;
    let takeover =
        takeover_in(&stage.pair[1 - active].ask("events")?, killed).context("no takeover in the events")?;

    let mut violations = Violations::new();
    violations.require(outcomes.iter().all(|outcome| outcome.whole()), || {
        format!("the transfer broke: {outcomes:?}")
    });
    stage.revive(active)?;
    Ok(Round {
        probe,
        transfer_stall: outcomes.first().context("one transfer")?.longest_stall,
        conversation_stall: spoken.longest,
        decided: takeover.decided,
        installed: takeover.installed,
        violations,
    })
}
