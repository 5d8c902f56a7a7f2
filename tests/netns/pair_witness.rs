//! A pair with a witness: one sender, also when the two do not hear each other at all.

use std::time::Duration;

use netns_harness::analysis::{self, capture_clock};
use netns_harness::appliance::Role;
use netns_harness::campaign::unix_us;
use netns_harness::capture::{Capture, Captured, Depth, Direction, stop_all};
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, through_virtual_servers};
use netns_harness::plan::{Link, Side};
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage, counter};
use netns_harness::{Result, ensure};

use crate::{on_stage, one_at_a_time};

const LIMIT: Duration = Duration::from_secs(90);
/// Many times the takeover time.
const WHILE: Duration = Duration::from_secs(1);

fn witnessed() -> Settings {
    Settings { witness: true, ..Settings::default() }
}

/// All that both appliances send on all links.
fn captures(stage: &Stage) -> Result<Vec<Capture>> {
    let all = Side::BOTH.into_iter().flat_map(|side| Link::ALL.map(|link| (side, link)));
    all.map(|(side, link)| Capture::start(&stage.world, side, link, Direction::Sent, Depth::Headers))
        .collect()
}

/// How often one fell silent at or after an instant.
fn silences(stage: &Stage, index: usize, since_unix_us: u64) -> Result<usize> {
    let events = stage.pair[index].ask("events")?;
    let silent = |event: &&serde_json::Value| {
        event["unix_us"].as_u64().is_some_and(|at| at >= since_unix_us)
            && event["message"].as_str().is_some_and(|message| message.starts_with("sends nothing"))
    };
    Ok(events["events"].as_array().into_iter().flatten().filter(silent).count())
}

fn of(captures: &[Captured], side: Side) -> Vec<Captured> {
    captures.iter().filter(|capture| capture.side == side).cloned().collect()
}

fn download(stage: &Stage, count: usize) -> Result<Downloads> {
    let downloads =
        Downloads::start(&stage.world, through_virtual_servers(&stage.web, FILE.0, "80k", count)?, LIMIT)?;
    wait_until("every download to be under way", LIMIT, || Ok(downloads.progress_range().0 > 0.12))?;
    Ok(downloads)
}

fn all_whole(downloads: Downloads, count: usize) -> Result<()> {
    let outcomes = downloads.finish(LIMIT)?;
    ensure!(outcomes.len() == count && outcomes.iter().all(|outcome| outcome.whole()), "{outcomes:?}");
    Ok(())
}

/// Both hear the witness, and it grants to the one that leads.
fn witness_is_known(stage: &mut Stage, active: usize) -> Result<()> {
    let pair = &stage.pair;
    let heard =
        || Ok(pair.iter().all(|one| one.status().is_ok_and(|status| status["witness"]["heard"] == true)));
    wait_until("both to hear the witness", ROLES_LIMIT, heard)?;
    // One that was started just now grants a little later.
    let grants = || Ok(pair[active].status()?["witness"]["grants"] == true);
    wait_until("it to grant to the active", ROLES_LIMIT, grants)?;
    let (node, status) = (stage.pair[active].side().node(), stage.witness()?.status()?);
    ensure!(status["groups"][0]["holder"] == node, "{status}");
    Ok(())
}

#[test]
fn a_pair_that_is_parted_has_one_sender_and_connections_live_on() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&witnessed(), |stage| {
        let active = stage.active()?;
        let standby = 1 - active;
        witness_is_known(stage, active)?;
        let sending = captures(stage)?;
        let downloads = download(stage, 12)?;
        stage.still_leads(active)?;
        let since = unix_us();
        stage.world.part(true)?;
        let refused =
            || Ok(stage.pair[standby].ask("events")?.to_string().contains("the witness grants to node"));
        wait_until("the standby to be refused", ROLES_LIMIT, refused)?;
        std::thread::sleep(WHILE);
        ensure!(stage.pair[active].role()? == Role::Active, "the active does not go on");
        ensure!(stage.pair[standby].role()? == Role::Standby, "two lead");
        all_whole(downloads, 12)?;
        stage.world.part(false)?;
        stage.pair[active].wait_synchronized(ROLES_LIMIT)?;
        let captures = stop_all(sending)?;
        for capture in of(&captures, stage.pair[standby].side()) {
            let sent = analysis::service_frames(&capture)?;
            ensure!(sent.is_empty(), "the standby sent {} frames of the service", sent.len());
        }
        let sent = of(&captures, stage.pair[active].side())
            .iter()
            .map(analysis::service_frames)
            .collect::<Result<Vec<_>>>()?;
        ensure!(sent.iter().flatten().count() > 12 * 100, "the downloads are in the captures");
        ensure!(silences(stage, active, since)? == 0, "it fell silent");
        Ok(())
    })
}

#[test]
fn of_a_pair_that_is_parted_the_one_that_hears_the_witness_serves() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&witnessed(), |stage| {
        let active = stage.active()?;
        let standby = 1 - active;
        witness_is_known(stage, active)?;
        let (old, new) = (stage.pair[active].side(), stage.pair[standby].side());
        let sending = captures(stage)?;
        let downloads = download(stage, 12)?;
        stage.still_leads(active)?;
        let since = capture_clock();
        stage.world.cut_witness(old, true)?;
        stage.world.part(true)?;
        stage.pair[standby].wait_role(Role::Active, ROLES_LIMIT)?;
        std::thread::sleep(WHILE);
        ensure!(stage.pair[active].role()? != Role::Active, "two lead");
        let status = stage.pair[active].command(&["status"])?;
        ensure!(status.contains("witness     silent for"), "{status}");
        all_whole(downloads, 12)?;
        stage.world.part(false)?;
        stage.world.cut_witness(old, false)?;
        stage.pair[active].wait_role(Role::Standby, ROLES_LIMIT)?;
        stage.pair[standby].wait_synchronized(ROLES_LIMIT)?;
        let captures = stop_all(sending)?;
        let hand_over = analysis::hand_over(&of(&captures, old), &of(&captures, new), since)?;
        let late = hand_over.late.len();
        ensure!(late == 0, "the old active sent {late} frames after the new one had begun");
        Ok(())
    })
}

#[test]
fn the_death_of_the_witness_changes_nothing_and_with_it_the_standby_takes_over() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&witnessed(), |stage| {
        let active = stage.active()?;
        let standby = 1 - active;
        witness_is_known(stage, active)?;
        let downloads = download(stage, 12)?;
        stage.still_leads(active)?;
        let since = unix_us();
        stage.witness()?.kill()?;
        let silent = || Ok(stage.pair[active].status()?["witness"]["heard"] == false);
        wait_until("the active to miss the witness", ROLES_LIMIT, silent)?;
        std::thread::sleep(WHILE);
        ensure!(
            stage.pair[active].role()? == Role::Active && silences(stage, active, since)? == 0,
            "it fell silent"
        );
        let why = stage.pair[active].command(&["switchover"]).unwrap_or_else(|error| format!("{error:#}"));
        ensure!(why.contains("the witness is not heard"), "{why}");
        stage.witness()?.start()?;
        witness_is_known(stage, active)?;

        stage.still_leads(active)?;
        stage.pair[active].kill()?;
        stage.pair[standby].wait_role(Role::Active, ROLES_LIMIT)?;
        all_whole(downloads, 12)?;
        let counters = stage.pair[standby].ask("counters")?;
        ensure!(
            counter(&counters, "witness_granted")? > 0 && counter(&counters, "witness_forged")? == 0,
            "{counters}"
        );
        stage.revive(active)?;
        witness_is_known(stage, standby)?;
        let log = stage.witness()?.log();
        ensure!(log.contains("grants to node"), "{log}");
        stage.witness()?.terminate()
    })
}
