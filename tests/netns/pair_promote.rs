//! `baton promote`: with `partition = "safety"` a standby leads when the operator says so, and not before.

use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, through_virtual_servers};
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage};
use netns_harness::{Result, ensure};

use crate::{on_stage, one_at_a_time};

const LIMIT: Duration = Duration::from_secs(90);
/// Many times what a standby with `partition = "availability"` would wait.
const WAIT: Duration = Duration::from_secs(1);

/// Why an appliance does not lead, as the operator reads it.
fn refusal(stage: &Stage, index: usize) -> Result<String> {
    match stage.pair[index].command(&["promote"]) {
        Ok(text) => netns_harness::bail!("it was promoted: {text}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[test]
fn a_standby_of_a_safe_pair_serves_when_the_operator_promotes_it_and_connections_live_on() -> Result<()> {
    let _one = one_at_a_time();
    let settings = Settings { partition: "safety", ..Settings::default() };
    on_stage(&settings, |stage| {
        let active = stage.active()?;
        let standby = 1 - active;
        let (why, whose) = (refusal(stage, active)?, stage.pair[active].side().node());
        ensure!(why.contains("it leads already"), "{why}");
        let why = refusal(stage, standby)?;
        ensure!(why.contains(&format!("node {whose} is heard to lead")), "{why}");

        let downloads = through_virtual_servers(&stage.web, FILE.0, "80k", 8)?;
        let downloads = Downloads::start(&stage.world, downloads, LIMIT)?;
        wait_until("every download to be under way", LIMIT, || Ok(downloads.progress_range().0 > 0.12))?;
        stage.still_leads(active)?;
        stage.pair[active].kill()?;
        let waits = || Ok(stage.pair[standby].status()?["waits_for_operator"] == true);
        wait_until("the standby to wait for the operator", ROLES_LIMIT, waits)?;
        std::thread::sleep(WAIT);
        ensure!(stage.pair[standby].role()? == Role::Standby, "it leads without a word of the operator");
        let shown = stage.pair[standby].command(&["status"])?;
        ensure!(shown.contains("baton promote"), "the status does not say what to do:\n{shown}");

        let said = stage.pair[standby].command(&["promote"])?;
        ensure!(said.starts_with("it leads in term "), "{said}");
        ensure!(stage.pair[standby].role()? == Role::Active, "it says that it leads, and does not");
        let outcomes = downloads.finish(LIMIT)?;
        ensure!(outcomes.len() == 8 && outcomes.iter().all(|outcome| outcome.whole()), "{outcomes:?}");
        let events = stage.pair[standby].ask("events")?.to_string();
        ensure!(events.contains("the operator said so"), "{events}");
        stage.revive(active)
    })
}
