//! `failover.fence`: with `partition = "safety"` a standby leads on silence once its leader is fenced, and not before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use netns_harness::appliance::{Appliance, Role};
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::stage::{ROLES_LIMIT, Stage, counter};
use netns_harness::{Result, ensure};

use crate::{on_stage, one_at_a_time};

/// Many times the takeover time.
const WAIT: Duration = Duration::from_secs(1);

/// A script that fences, told by files what it is to do; gone at the end.
struct Fence(PathBuf);

impl Fence {
    /// It notes whom it is asked to fence. With `kill` there, the process of that number is killed after a second, and it notes that
    /// there is no such process any more; with `hang`, it hangs; else it does what it should when there is `allowed`.
    const SCRIPT: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$BATON_NODE fences $BATON_FENCE_NODE" >> fenced
if test -e hang; then
    sleep 1000 &
    echo $! > hangs
    wait
fi
if test -e kill; then
    read -r pid < kill
    sleep 1
    kill -9 "$pid" || exit 1
    while test -e "/proc/$pid" && ! grep -q '^State:.*[ZX]' "/proc/$pid/status"; do sleep 0.01; done
    echo > dead
    exit 0
fi
test -e allowed
"#;

    fn new() -> Result<Fence> {
        let fence = Fence(std::env::temp_dir().join(format!("baton-fence-{}", std::process::id())));
        fs::create_dir_all(&fence.0)?;
        let script = fence.0.join("fence");
        fs::write(&script, Fence::SCRIPT)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(fence)
    }

    fn settings(&self, partition: &'static str, more: &str) -> Settings {
        let failover = format!("fence = [\"{}\"]\n{more}", self.0.join("fence").display());
        Settings { partition, failover, ..Settings::default() }
    }

    fn has(&self, file: &str) -> bool {
        self.0.join(file).exists()
    }

    fn put(&self, file: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.0.join(file), text)?)
    }

    /// Who asked for whom to be fenced, a line each.
    fn runs(&self) -> String {
        fs::read_to_string(self.0.join("fenced")).unwrap_or_default()
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How often it ran the command, and how often that failed.
fn counts(appliance: &Appliance) -> Result<(u64, u64)> {
    let counters = appliance.ask("counters")?;
    Ok((counter(&counters, "fence_runs")?, counter(&counters, "fence_failures")?))
}

/// The line that a run of the standby leaves.
fn line(stage: &Stage, standby: usize) -> String {
    format!("{} fences {}\n", stage.pair[standby].side().node(), stage.pair[1 - standby].side().node())
}

fn events(appliance: &Appliance) -> Result<String> {
    Ok(appliance.ask("events")?.to_string())
}

#[test]
fn a_standby_of_a_safe_pair_leads_on_silence_only_when_the_leader_is_fenced() -> Result<()> {
    let _one = one_at_a_time();
    let fence = Fence::new()?;
    on_stage(&fence.settings("safety", ""), |stage| {
        let active = stage.active()?;
        let standby = 1 - active;
        ensure!(!fence.has("fenced"), "somebody was fenced without need");
        stage.still_leads(active)?;
        stage.pair[active].kill()?;
        let failed = || Ok(events(&stage.pair[standby])?.contains("could not be fenced"));
        wait_until("the command to have failed", ROLES_LIMIT, failed)?;
        std::thread::sleep(WAIT);
        ensure!(stage.pair[standby].role()? == Role::Standby, "it leads though its leader is not fenced");
        ensure!(stage.pair[standby].status()?["waits_for_operator"] == true, "it does not wait");
        fence.put("allowed", "")?;
        // It tries again of itself.
        stage.pair[standby].wait_role(Role::Active, ROLES_LIMIT)?;
        ensure!(fence.runs() == line(stage, standby).repeat(2), "{}", fence.runs());
        ensure!(counts(&stage.pair[standby])? == (2, 1), "{:?}", counts(&stage.pair[standby])?);
        stage.revive(active)
    })
}

#[test]
fn a_leader_that_stands_still_is_dead_before_the_standby_of_a_safe_pair_serves() -> Result<()> {
    let _one = one_at_a_time();
    let fence = Fence::new()?;
    on_stage(&fence.settings("safety", ""), |stage| {
        let active = stage.active()?;
        let standby = 1 - active;
        stage.still_leads(active)?;
        let pid = stage.pair[active].process()?.pid();
        fence.put("kill", &format!("{pid}\n"))?;
        stage.pair[active].pause()?;
        wait_until("the command to run", ROLES_LIMIT, || Ok(fence.has("fenced")))?;
        let mut waited = false;
        let served = || {
            // In this order: what it does not wait for is not there when it leads.
            let role = stage.pair[standby].role()?;
            let dead = fence.has("dead");
            ensure!(dead || role == Role::Standby, "it is {role:?} before its leader is dead");
            waited |= !dead;
            Ok(role == Role::Active)
        };
        wait_until("the standby to lead", ROLES_LIMIT, served)?;
        ensure!(waited, "nothing was seen of the time before");
        ensure!(fence.runs() == line(stage, standby), "{}", fence.runs());
        ensure!(
            events(&stage.pair[standby])?.contains("is silent, and was fenced"),
            "it says something else"
        );
        ensure!(
            stage.pair[standby].status()?["degraded"] == true,
            "it cannot know whether its leader went on"
        );
        stage.pair[active].wait_end(ROLES_LIMIT)?;
        // It comes back as one that started anew.
        stage.revive(active)?;
        ensure!(!events(&stage.pair[standby])?.contains("heard all the same"), "an alarm without need");
        ensure!(counts(&stage.pair[standby])? == (1, 0), "{:?}", counts(&stage.pair[standby])?);
        Ok(())
    })
}

#[test]
fn a_command_that_hangs_delays_the_standby_of_an_available_pair_no_longer_than_its_timeout() -> Result<()> {
    let _one = one_at_a_time();
    let fence = Fence::new()?;
    on_stage(&fence.settings("availability", "fence_timeout_ms = 1000\n"), |stage| {
        let active = stage.active()?;
        let standby = 1 - active;
        fence.put("hang", "")?;
        stage.still_leads(active)?;
        stage.pair[active].kill()?;
        wait_until("the command to hang", ROLES_LIMIT, || Ok(fence.has("hangs")))?;
        stage.pair[standby].wait_role(Role::Active, ROLES_LIMIT)?;
        ensure!(events(&stage.pair[standby])?.contains("took too long and was killed"), "it was not killed");
        ensure!(counts(&stage.pair[standby])? == (1, 1), "{:?}", counts(&stage.pair[standby])?);
        let hung = fs::read_to_string(fence.0.join("hangs"))?;
        let gone = || Ok(!PathBuf::from(format!("/proc/{}/exe", hung.trim())).exists());
        wait_until("what the command started to be gone too", ROLES_LIMIT, gone)?;
        stage.revive(active)
    })
}
