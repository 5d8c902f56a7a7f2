//! The operator's command that is run at changes of role.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::stage::{ROLES_LIMIT, counter};
use netns_harness::{Context, Result, ensure};

use crate::{on_stage, one_at_a_time};

const LIMIT: Duration = Duration::from_secs(15);

/// A script, and what it wrote; gone at the end.
struct Told(PathBuf);

impl Told {
    /// What the script is told of its appliance, and what it has beyond its environment: niceness and policy, CPUs,
    /// descriptors.
    const SCRIPT: &str = r#"#!/bin/sh
echo "$BATON_ROLE $BATON_PREVIOUS_ROLE $BATON_TERM $BATON_REASON $BATON_NODE $BATON_GROUP" >> "$1/roles-$BATON_NODE"
cut -d ' ' -f 19,41 /proc/$$/stat > "$1/scheduling-$BATON_NODE"
grep Cpus_allowed_list: /proc/$$/status > "$1/cpus-$BATON_NODE"
ls -l /proc/$$/fd > "$1/descriptors-$BATON_NODE"
"#;

    fn new() -> Result<Told> {
        let told = Told(std::env::temp_dir().join(format!("baton-told-{}", std::process::id())));
        fs::create_dir_all(&told.0)?;
        fs::write(told.script(), Told::SCRIPT)?;
        fs::set_permissions(told.script(), fs::Permissions::from_mode(0o755))?;
        Ok(told)
    }

    fn script(&self) -> PathBuf {
        self.0.join("script")
    }

    fn settings(&self) -> Settings {
        let (script, out) = (self.script(), &self.0);
        let failover = format!("notify = [\"{}\", \"{}\"]\n", script.display(), out.display());
        Settings { failover, ..Settings::default() }
    }

    fn wrote(&self, what: &str, node: usize) -> String {
        fs::read_to_string(self.0.join(format!("{what}-{node}"))).unwrap_or_default()
    }

    /// Waits until the command of a node was told so many roles.
    fn wait(&self, node: usize, count: usize) -> Result<Vec<String>> {
        let roles = || self.wrote("roles", node).lines().map(str::to_owned).collect::<Vec<_>>();
        let what = format!("the command of node {node} to be told {count} roles");
        wait_until(&what, LIMIT, || Ok(roles().len() >= count))?;
        Ok(roles())
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_command_is_told_of_a_takeover_and_of_the_end() -> Result<()> {
    let _one = one_at_a_time();
    let told = Told::new()?;
    on_stage(&told.settings(), |stage| {
        let active = stage.active()?;
        let (lost, left) = (active + 1, 2 - active);
        let of_lost = told.wait(lost, 1)?;
        ensure!(of_lost[0].starts_with("active booting "), "{of_lost:?}");
        let of_left = told.wait(left, 1)?;
        ensure!(of_left[0].starts_with("standby booting ") && of_left.len() == 1, "{of_left:?}");

        stage.pair[active].kill()?;
        stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;
        let of_left = told.wait(left, 2)?;
        let words: Vec<&str> = of_left[1].split(' ').collect();
        ensure!(words[..2] == ["active", "standby"] && words[3] == "silence", "{of_left:?}");
        ensure!(words[4..] == [&left.to_string(), "0"], "{of_left:?}");
        let new_leader = format!(".{left}");
        ensure!(words[2].ends_with(&new_leader), "{of_left:?}");
        let events = stage.pair[1 - active].ask("events")?;
        let promoted = format!("leads term {}: the leader is silent", words[2]);
        let all = events["events"].as_array().context("no events")?;
        let has = |kind: &str, what: &str| {
            let begins = |event: &serde_json::Value| {
                event["message"].as_str().is_some_and(|message| message.starts_with(what))
            };
            all.iter().any(|event| event["kind"] == kind && begins(event))
        };
        ensure!(has("role", &promoted), "no {promoted:?} in {events}");
        let ran = format!("the command for active (term {}, silence) ended well after ", words[2]);
        ensure!(has("notify", &ran), "no {ran:?} in {events}");
        let counters = stage.pair[1 - active].ask("counters")?;
        let counted = ["notify_runs", "notify_failures", "notify_timeouts", "notify_skipped"];
        let counted = counted.map(|name| counter(&counters, name));
        ensure!(matches!(counted, [Ok(2), Ok(0), Ok(0), Ok(0)]), "{counted:?}");

        // An ordinary process on any CPU that this one may use, although who runs it is pinned and preferred.
        let ours = Command::new("cut").args(["-d", " ", "-f", "19,41", "/proc/self/stat"]).output()?.stdout;
        let (ours, theirs) = (String::from_utf8_lossy(&ours), told.wrote("scheduling", left));
        ensure!(ours.ends_with(" 0\n") && theirs == ours, "{theirs} is not {ours}");
        let own = fs::read_to_string("/proc/self/status")?;
        let cpus = own.lines().find(|line| line.starts_with("Cpus_allowed_list:")).context("no CPUs")?;
        ensure!(told.wrote("cpus", left).trim() == cpus, "{} is not {cpus}", told.wrote("cpus", left));
        let descriptors = told.wrote("descriptors", left);
        for device in ["socket:", "memfd", "rtemap", "huge", "vfio"] {
            ensure!(!descriptors.contains(device), "it has {device}:\n{descriptors}");
        }

        ensure!(stage.pair[1 - active].terminate(LIMIT)?.success(), "it did not end in order");
        // It resigns a moment before it leaves; which of the two the command was told first is a matter of that moment.
        let last = || told.wrote("roles", left).lines().last().unwrap_or_default().to_owned();
        wait_until("the command to be told that it left", LIMIT, || Ok(last().starts_with("left ")))?;
        let words: Vec<String> = last().split(' ').map(str::to_owned).collect();
        ensure!(["active", "standby"].contains(&words[1].as_str()) && words[3] == "shutdown", "{words:?}");
        Ok(())
    })
}
