//! A member that tracks one virtual server alone (REQ B8), of real connections: it knows the flows of that one, is never in
//! sync, and carries on what it knows when nobody else is left.

use std::fs;
use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, through_virtual_servers};
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage};
use netns_harness::{Result, ensure};
use serde_json::json;

use crate::{on_stage, one_at_a_time};

/// Far longer than a download that goes on takes.
const BROKEN_AFTER: Duration = Duration::from_secs(20);
const TRACKED: &str = "www-nat4";

/// The virtual servers of an appliance's TCP flows.
fn flows(stage: &Stage, at: usize) -> Result<Vec<String>> {
    let report = stage.pair[at].ask("flows")?;
    let all = report["flows"].as_array().cloned().unwrap_or_default();
    let tcp = all.iter().filter(|flow| flow["protocol"] == "tcp");
    Ok(tcp.filter_map(|flow| flow["virtual_server"].as_str().map(str::to_owned)).collect())
}

#[test]
fn a_member_that_tracks_one_virtual_server_carries_its_connections_on_and_no_others() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let active = stage.active()?;
        let other = 1 - active;
        stage.pair[other].kill()?;
        let config = stage.pair[other].paths().config.clone();
        let text = fs::read_to_string(&config)?;
        fs::write(&config, text.replacen("key_file = ", &format!("only = [\"{TRACKED}\"]\nkey_file = "), 1))?;
        stage.pair[other].start()?;
        stage.pair[other].wait_role(Role::Standby, ROLES_LIMIT)?;
        wait_until("the active to know what it tracks", ROLES_LIMIT, || {
            Ok(stage.pair[active].ask("mirror")?["peers"][0]["only"] == json!([TRACKED]))
        })?;
        let downloads = through_virtual_servers(&stage.web, FILE.0, "40k", 8)?;
        let downloads = Downloads::start(&stage.world, downloads, BROKEN_AFTER)?;
        wait_until(
            "every download to be under way",
            ROLES_LIMIT,
            || Ok(downloads.progress_range().0 > 0.05),
        )?;
        wait_until("the other one to know its part", ROLES_LIMIT, || {
            Ok(flows(stage, other)? == [TRACKED, TRACKED] && flows(stage, active)?.len() == 8)
        })?;
        let peer = &stage.pair[active].status()?["peers"][0];
        ensure!(peer["in_sync"] == false && peer["only"] == json!([TRACKED]), "{peer}");
        ensure!(downloads.progress_range().1 < 1.0, "a download ended before the fault");
        stage.pair[active].kill()?;
        stage.pair[other].wait_role(Role::Active, ROLES_LIMIT)?;
        ensure!(stage.pair[other].status()?["degraded"] == true, "it does not say what it lacks");
        let outcomes = downloads.finish(BROKEN_AFTER)?;
        let whole = outcomes.iter().filter(|outcome| outcome.whole()).count();
        ensure!(whole == 2 && outcomes.len() == 8, "{outcomes:?}");
        Ok(())
    })
}
