//! A wall clock that is set: roles, terms and leases do not read it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, through_virtual_servers};
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage};
use netns_harness::{Context, Result, ensure};

use crate::{on_stage, one_at_a_time};

/// Answers a process's questions for the time of day, and reads from a file what to answer (Debian's package libfaketime, the kind for threads).
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const LIMIT: Duration = Duration::from_secs(90);
/// After each setting of the clock: many takeover times.
const WAIT: Duration = Duration::from_millis(500);
const DAY_MS: u64 = 24 * 3600 * 1000;

/// The newest event about an appliance's role: its time, in milliseconds since 1970, and what it says.
fn newest_event(stage: &Stage, index: usize) -> Result<(u64, String)> {
    let events = stage.pair[index].ask("events")?;
    let mut newest_first = events["events"].as_array().context("no events")?.iter().rev();
    let newest = newest_first.find(|event| event["kind"] == "role").context("no event about a role")?;
    let at = newest["unix_ms"].as_u64().context("an event without a time")?;
    Ok((at, newest["message"].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn a_wall_clock_that_jumps_changes_no_role_and_breaks_no_connection() -> Result<()> {
    let _one = one_at_a_time();
    ensure!(Path::new(LIBRARY).exists(), "{LIBRARY} is missing; scripts/setup installs it");
    on_stage(&Settings::default(), |stage| {
        let clock = stage.world.directory().join("clock");
        let set = |offset: &str| fs::write(&clock, format!("{offset}\n"));
        set("+0")?;
        // Both by turns: first the one that will lead, then the one that follows.
        for index in 0..2 {
            stage.active()?;
            stage.pair[index].kill()?;
            stage.pair[1 - index].wait_role(Role::Active, ROLES_LIMIT)?;
            stage.pair[index].start_with(&[
                &format!("LD_PRELOAD={LIBRARY}"),
                &format!("FAKETIME_TIMESTAMP_FILE={}", clock.display()),
                "FAKETIME_NO_CACHE=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1",
            ])?;
            stage.active()?;
        }
        let active = stage.active()?;
        let requests = through_virtual_servers(&stage.web, FILE.0, "120k", 8)?;
        let downloads = Downloads::start(&stage.world, requests, LIMIT)?;
        wait_until("every download to be under way", LIMIT, || Ok(downloads.progress_range().0 > 0.05))?;
        let before = [newest_event(stage, 0)?, newest_event(stage, 1)?];
        for offset in ["+40d", "-40d", "+1h", "-3s"] {
            set(offset)?;
            std::thread::sleep(WAIT);
        }
        let outcomes = downloads.finish(LIMIT)?;
        ensure!(outcomes.iter().all(|outcome| outcome.whole()), "{outcomes:?}");
        stage.still_leads(active)?;
        let after = [newest_event(stage, 0)?, newest_event(stage, 1)?];
        ensure!(before == after, "something happened: {before:?}, {after:?}");

        // So was the clock set at all? What happens next is told with the time of day.
        set("+40d")?;
        stage.pair[active].command(&["switchover"])?;
        stage.active()?;
        for (index, (was_at, _)) in before.iter().enumerate() {
            let (at, what) = newest_event(stage, index)?;
            ensure!(at > was_at + 39 * DAY_MS, "{what:?} is told with the time {at}");
        }
        Ok(())
    })
}
