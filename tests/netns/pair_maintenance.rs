//! `baton maintenance`, as an upgrade of both appliances uses it (docs/upgrade.md): every connection lives on.

use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, through_virtual_servers};
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage};
use netns_harness::{Result, bail, ensure};

use crate::{on_stage, one_at_a_time};

const LIMIT: Duration = Duration::from_secs(120);
/// Many times what a standby waits for a silent leader.
const WAIT: Duration = Duration::from_millis(500);

fn refusal(stage: &Stage, index: usize, words: &[&str]) -> Result<String> {
    match stage.pair[index].command(words) {
        Ok(text) => bail!("it was done: {text}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Takes one out of service, ends its process, starts it anew, and waits until it is synchronized.
fn renew(stage: &mut Stage, index: usize) -> Result<()> {
    let said = stage.pair[index].command(&["maintenance", "on"])?;
    let other = stage.pair[1 - index].side().node();
    ensure!(said.starts_with(&format!("it is under maintenance; node {other} leads in term ")), "{said}");
    ensure!(stage.pair[1 - index].role()? == Role::Active, "the other one does not lead");
    let told = || Ok(stage.pair[1 - index].status()?["peers"][0]["maintenance"] == true);
    wait_until("the other one to be told", ROLES_LIMIT, told)?;
    ensure!(stage.pair[index].terminate(LIMIT)?.success(), "it did not end in order");
    stage.revive(index)?;
    ensure!(stage.pair[index].status()?["maintenance"] == false, "it is still under maintenance");
    Ok(())
}

#[test]
fn both_appliances_are_renewed_one_after_the_other_and_connections_live_on() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let active = stage.active()?;
        let downloads = through_virtual_servers(&stage.web, FILE.0, "20k", 12)?;
        let downloads = Downloads::start(&stage.world, downloads, LIMIT)?;
        wait_until("every download to be under way", LIMIT, || Ok(downloads.progress_range().0 > 0.05))?;
        renew(stage, 1 - active)?;
        renew(stage, active)?;
        let progress = downloads.progress_range();
        ensure!(progress.1 < 1.0, "some were over before all was renewed: {progress:?}");
        let outcomes = downloads.finish(LIMIT)?;
        ensure!(outcomes.len() == 12 && outcomes.iter().all(|outcome| outcome.whole()), "{outcomes:?}");
        let status = stage.pair[1 - active].status()?;
        ensure!(status["degraded"] == false && status["role"] == "active", "{status}");
        Ok(())
    })
}

#[test]
fn one_under_maintenance_leads_neither_when_asked_nor_when_the_leader_dies() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let active = stage.active()?;
        let standby = 1 - active;
        stage.pair[standby].command(&["maintenance", "on"])?;
        let told = || Ok(stage.pair[active].status()?["peers"][0]["maintenance"] == true);
        wait_until("the active to be told", ROLES_LIMIT, told)?;
        for words in [&["switchover"][..], &["maintenance", "on"]] {
            let why = refusal(stage, active, words)?;
            ensure!(why.contains("is in sync, and under maintenance"), "{words:?}: {why}");
        }
        stage.still_leads(active)?;
        stage.pair[active].kill()?;
        std::thread::sleep(WAIT);
        ensure!(stage.pair[standby].role()? == Role::Standby, "it leads under maintenance");
        let why = refusal(stage, standby, &["promote"])?;
        ensure!(why.contains("first `baton maintenance off`"), "{why}");
        let said = stage.pair[standby].command(&["maintenance", "off"])?;
        ensure!(said == "it is in service\n", "{said}");
        stage.pair[standby].wait_role(Role::Active, ROLES_LIMIT)?;
        stage.revive(active)
    })
}
