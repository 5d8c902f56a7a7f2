//! Maintenance checkpoints without acknowledgements (REQ B6), of real connections: what they say is not waited for, and every
//! connection lives on all the same.

use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, through_virtual_servers};
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage};
use netns_harness::{Result, ensure};

use crate::{on_stage, one_at_a_time};

const LIMIT: Duration = Duration::from_secs(60);

/// Checkpoints that the active has said, and shards that differ at its standby.
fn said(stage: &Stage, active: usize) -> Result<(u64, u64)> {
    let report = stage.pair[active].ask("mirror")?;
    let peer = &report["peers"][0];
    let streams = peer["streams"].as_array().cloned().unwrap_or_default();
    let checkpoints = streams.iter().filter_map(|stream| stream["checkpoints"].as_u64()).sum();
    Ok((checkpoints, peer["digests"]["differing"].as_u64().unwrap_or(u64::MAX)))
}

#[test]
fn every_connection_lives_on_where_checkpoints_are_said_again_and_again_and_not_acknowledged() -> Result<()> {
    let _one = one_at_a_time();
    let mirror = "checkpoints = \"periodic\"\ncheckpoint_every_ms = 200\n";
    on_stage(&Settings { commit: "async", mirror, ..Settings::default() }, |stage| {
        let active = stage.active()?;
        let downloads = through_virtual_servers(&stage.web, FILE.0, "40k", 8)?;
        let downloads = Downloads::start(&stage.world, downloads, LIMIT)?;
        wait_until("every download to be under way", LIMIT, || Ok(downloads.progress_range().0 > 0.05))?;
        let before = said(stage, active)?.0;
        wait_until("checkpoints in several rounds", ROLES_LIMIT, || {
            let (checkpoints, differing) = said(stage, active)?;
            Ok(checkpoints >= before + 5 * 8 && differing == 0)
        })?;
        ensure!(stage.pair[active].synchronized()?, "the standby is not in sync");
        ensure!(downloads.progress_range().1 < 1.0, "a download ended before the fault");
        stage.pair[active].kill()?;
        stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;
        ensure!(stage.pair[1 - active].status()?["degraded"] == false, "it took over without what it needs");
        let outcomes = downloads.finish(LIMIT)?;
        ensure!(outcomes.len() == 8 && outcomes.iter().all(|outcome| outcome.whole()), "{outcomes:?}");
        stage.revive(active)
    })
}
