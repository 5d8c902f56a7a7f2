//! Health that counts in who leads: real links that go down, a script that fails, a server that is gone.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, through_virtual_servers};
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage, counter};
use netns_harness::{Link, Result, Side, ensure};

use crate::{on_stage, one_at_a_time};

const LIMIT: Duration = Duration::from_secs(90);
/// Many times `track_hold_ms`.
const QUIET: Duration = Duration::from_secs(3);

fn tracking(more: &str) -> Settings {
    let failover = format!("track = [\"client\", \"server\"]\ntrack_hold_ms = 200\n{more}");
    Settings { failover, ..Settings::default() }
}

fn side(stage: &Stage, at: usize) -> Side {
    stage.pair[at].side()
}

/// Waits until an event of this appliance says so.
fn wait_event(stage: &Stage, at: usize, words: &str) -> Result<()> {
    let told = || {
        let events = stage.pair[at].ask("events")?;
        let all = events["events"].as_array().cloned().unwrap_or_default();
        Ok(all.iter().any(|event| event["message"].as_str().unwrap_or_default().contains(words)))
    };
    wait_until(&format!("an event to say {words:?}"), ROLES_LIMIT, told)
}

/// Waits until this appliance has so many ailments.
fn wait_ailments(stage: &Stage, at: usize, count: usize) -> Result<()> {
    let found = || Ok(stage.pair[at].status()?["ailments"].as_array().is_some_and(|all| all.len() == count));
    wait_until(&format!("{count} ailments"), ROLES_LIMIT, found)
}

fn handovers(stage: &Stage) -> Result<u64> {
    let of = |at: usize| counter(&stage.pair[at].ask("counters")?, "health_handovers");
    Ok(of(0)? + of(1)?)
}

/// Each port's link, as `baton ports` says it: client, server, mirror.
fn links(stage: &Stage, at: usize) -> Result<Vec<bool>> {
    let ports = stage.pair[at].ask("ports")?;
    let all = ports["ports"].as_array().cloned().unwrap_or_default();
    Ok(all.iter().map(|port| port["link_up"] == true).collect())
}

#[test]
fn an_active_whose_link_goes_down_hands_over_and_every_download_lives_on() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&tracking(""), |stage| {
        let active = stage.active()?;
        let other = 1 - active;
        ensure!(links(stage, active)? == [true; 3], "all links are up: {:?}", links(stage, active)?);
        let requests = through_virtual_servers(&stage.web, FILE.0, "40k", 40)?;
        let downloads = Downloads::start(&stage.world, requests, LIMIT)?;
        wait_until("every download to be under way", LIMIT, || Ok(downloads.progress_range().0 >= 0.1))?;

        stage.still_leads(active)?;
        stage.world.unplug(side(stage, active), Link::Client)?;
        stage.pair[other].wait_role(Role::Active, ROLES_LIMIT)?;
        stage.pair[active].wait_role(Role::Standby, ROLES_LIMIT)?;
        ensure!(downloads.progress_range().1 < 1.0, "a download ended before the fault");
        ensure!(links(stage, active)? == [false, true, true], "{:?}", links(stage, active)?);
        for words in
            ["the link of port client is down", "is healthier: 1 of what is tracked failed here, 0 there"]
        {
            wait_event(stage, active, words)?;
        }
        wait_event(stage, other, "the leader handed over")?;
        let told = || Ok(stage.pair[other].status()?["peers"][0]["ailing"] == 1);
        wait_until("the other one to know of it", ROLES_LIMIT, told)?;
        stage.pair[other].wait_synchronized(ROLES_LIMIT)?;

        // The standby's other link too, and then both again: no reason to move.
        stage.world.unplug(side(stage, active), Link::Server)?;
        wait_ailments(stage, active, 2)?;
        stage.world.plug_in(side(stage, active), Link::Server)?;
        stage.world.plug_in(side(stage, active), Link::Client)?;
        wait_ailments(stage, active, 0)?;
        wait_event(stage, active, "the link of port client is up")?;

        let outcomes = downloads.finish(LIMIT)?;
        let whole = outcomes.iter().filter(|outcome| outcome.whole()).count();
        ensure!(whole == outcomes.len(), "{whole} of {} downloads arrived", outcomes.len());
        stage.still_leads(other)?;
        let status = stage.pair[other].status()?;
        ensure!(status["degraded"] == false && status["takeovers"] == 1, "{status}");
        ensure!(handovers(stage)? == 1, "one handover, because of one link");
        let lost = counter(&stage.pair[active].ask("counters")?, "link_downs")?;
        ensure!(lost == 2, "{lost} links went down");
        Ok(())
    })
}

#[test]
fn both_without_a_link_move_nobody_and_the_one_that_heals_first_leads() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&tracking(""), |stage| {
        let active = stage.active()?;
        let other = 1 - active;
        // The standby's first: so the active has no better one at any time.
        stage.world.unplug(side(stage, other), Link::Server)?;
        wait_ailments(stage, other, 1)?;
        stage.world.unplug(side(stage, active), Link::Client)?;
        wait_ailments(stage, active, 1)?;
        std::thread::sleep(QUIET);
        stage.still_leads(active)?;
        ensure!(handovers(stage)? == 0, "as ill as each other, and one handed over");

        stage.world.plug_in(side(stage, other), Link::Server)?;
        stage.pair[other].wait_role(Role::Active, ROLES_LIMIT)?;
        stage.pair[other].wait_synchronized(ROLES_LIMIT)?;
        stage.world.plug_in(side(stage, active), Link::Client)?;
        wait_ailments(stage, active, 0)?;
        std::thread::sleep(QUIET);
        stage.still_leads(other)?;
        ensure!(handovers(stage)? == 1, "it healed, and that is no reason to lead again");
        let requests = through_virtual_servers(&stage.web, FILE.0, "4m", 8)?;
        let outcomes = Downloads::start(&stage.world, requests, LIMIT)?.finish(LIMIT)?;
        ensure!(outcomes.iter().all(|outcome| outcome.whole()), "there is no service after all healed");
        Ok(())
    })
}

/// A script that succeeds unless a file with its node's number is there; gone at the end.
struct Script(PathBuf);

impl Script {
    fn new() -> Result<Script> {
        let directory = std::env::temp_dir().join(format!("baton-track-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        Ok(Script(directory))
    }

    fn settings(&self) -> Settings {
        let test = format!("! test -e {}/$BATON_NODE", self.0.display());
        tracking(&format!(
            "track_script = {{ command = [\"/bin/sh\", \"-c\", \"{test}\"], interval_ms = 100, fall = 2 }}\n"
        ))
    }

    fn fail(&self, at: usize) -> Result<()> {
        Ok(fs::write(self.0.join((at + 1).to_string()), "")?)
    }

    fn succeed(&self, at: usize) -> Result<()> {
        Ok(fs::remove_file(self.0.join((at + 1).to_string()))?)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn an_active_whose_script_fails_hands_over_and_the_mirror_link_is_no_reason() -> Result<()> {
    let _one = one_at_a_time();
    let script = Script::new()?;
    on_stage(&script.settings(), |stage| {
        let active = stage.active()?;
        let other = 1 - active;
        script.fail(active)?;
        stage.pair[other].wait_role(Role::Active, ROLES_LIMIT)?;
        wait_event(stage, active, "the tracking script fails")?;
        wait_event(stage, active, "the tracking script failed (exit status: 1)")?;
        script.succeed(active)?;
        wait_ailments(stage, active, 0)?;
        stage.pair[other].wait_synchronized(ROLES_LIMIT)?;

        // The mirror port is lost: the standby is out of sync, and nobody may take the lead.
        stage.world.unplug(side(stage, other), Link::Mirror)?;
        // New flows are not acknowledged: so it is found out.
        let requests = through_virtual_servers(&stage.web, FILE.0, "4m", 4)?;
        let downloads = Downloads::start(&stage.world, requests, LIMIT)?;
        let out = || Ok(!stage.pair[other].synchronized()?);
        wait_until("the standby to be out of sync", ROLES_LIMIT, out)?;
        ensure!(downloads.finish(LIMIT)?.iter().all(|outcome| outcome.whole()), "a download failed");
        script.fail(other)?;
        wait_ailments(stage, other, 1)?;
        std::thread::sleep(QUIET);
        stage.still_leads(other)?;
        ensure!(handovers(stage)? == 1, "it handed over to one that is not in sync");
        stage.world.plug_in(side(stage, other), Link::Mirror)?;
        stage.pair[active].wait_role(Role::Active, ROLES_LIMIT)?;
        ensure!(handovers(stage)? == 2, "it is in sync again, and healthier");
        Ok(())
    })
}
