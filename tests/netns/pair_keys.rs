//! Keys that change while a pair serves: the one that members share for another one, and then for keys of their own. The
//! standby stays in sync all the time, and every connection lives on.

use std::fs;
use std::process::Command;
use std::time::Duration;

use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, through_virtual_servers};
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage};
use netns_harness::{Context, Result, ensure};
use serde_json::Value;

use crate::{on_stage, one_at_a_time};

const LIMIT: Duration = Duration::from_secs(180);

/// `baton keys …`, on no appliance.
fn keys(words: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_baton")).arg("keys").args(words).output()?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What each says that it proves to the other one, when both prove and accept the same.
fn proven(stage: &Stage) -> Result<Option<String>> {
    let status = [stage.pair[0].status()?, stage.pair[1].status()?];
    let all: Vec<Value> = status
        .iter()
        .flat_map(|status| [&status["peers"][0]["own_key"], &status["peers"][0]["key"]])
        .cloned()
        .collect();
    let same = all.iter().all(|key| *key == all[0]);
    Ok(if same { all[0].as_str().map(str::to_owned) } else { None })
}

/// Has both read their files again, the standby first; until both prove the same. The standby leaves the in-sync set at no
/// time: that would raise the term.
fn reload(stage: &Stage, active: usize) -> Result<String> {
    let term = |stage: &Stage| Ok::<_, netns_harness::Error>(stage.pair[active].status()?["term"].clone());
    let before = term(stage)?;
    for index in [1 - active, active] {
        let said = stage.pair[index].command(&["reload"])?;
        ensure!(said.contains("  sealing: "), "appliance {index} took no other keys: {said}");
        ensure!(stage.pair[active].synchronized()?, "the standby is not in sync any more");
    }
    let mut key = None;
    wait_until("both to prove the same key", ROLES_LIMIT, || {
        key = proven(stage)?;
        Ok(key.is_some())
    })?;
    stage.still_leads(active)?;
    ensure!(stage.pair[active].synchronized()? && term(stage)? == before, "the standby was out of sync");
    key.context("a key")
}

/// Gives both keys of their own.
fn pin(stage: &Stage) -> Result<()> {
    let paths = [0, 1].map(|index: usize| stage.pair[index].paths().config.with_extension("own"));
    let mut public = Vec::new();
    for path in &paths {
        public.push(keys(&["generate", &path.display().to_string()])?.trim().to_owned());
    }
    for index in 0..2 {
        let config = &stage.pair[index].paths().config;
        let text = fs::read_to_string(config)?;
        let pinned = text
            .replace(
                "key_file = ",
                &format!(
                    "node_key_file = \"{}\"\nsealing = \"receive-only\"\nkey_file = ",
                    paths[index].display()
                ),
            )
            .replacen(
                "\" } ]\nnode_key",
                &format!("\", public_key = \"{}\" }} ]\nnode_key", public[1 - index]),
                1,
            );
        ensure!(pinned.contains("public_key"), "{pinned}");
        fs::write(config, pinned)?;
    }
    Ok(())
}

fn climb(stage: &Stage, from: &str, to: &str) -> Result<()> {
    for appliance in &stage.pair {
        let config = &appliance.paths().config;
        let text = fs::read_to_string(config)?;
        ensure!(text.contains(from), "{text}");
        fs::write(config, text.replace(from, to))?;
    }
    Ok(())
}

#[test]
fn keys_change_while_a_pair_serves_and_the_standby_stays_in_sync() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let active = stage.active()?;
        let downloads = through_virtual_servers(&stage.web, FILE.0, "10k", 8)?;
        let downloads = Downloads::start(&stage.world, downloads, LIMIT)?;
        wait_until("every download to be under way", LIMIT, || Ok(downloads.progress_range().0 > 0.05))?;
        let first = proven(stage)?.context("both prove the same key")?;
        let file = stage.world.directory().join("mirror.key").display().to_string();

        let added = keys(&["add", &file])?;
        let new =
            added.lines().nth(1).and_then(|line| line.split(' ').next()).context("a second key")?.to_owned();
        ensure!(reload(stage, active)? == first, "the new key is proven too early");
        for appliance in &stage.pair {
            let accepted = appliance.status()?["peers"][0]["accepted_keys"].to_string();
            ensure!(accepted.contains(&new), "it does not say that {new} is accepted: {accepted}");
        }
        // Without the step between, the standby would prove what the active does not accept any more.
        let right = fs::read(&file)?;
        keys(&["first", &file, &new])?;
        keys(&["drop", &file])?;
        let refused = stage.pair[active].command(&["reload"]).err().context("it was taken")?.to_string();
        ensure!(refused.contains("which would not be accepted any more"), "{refused}");
        ensure!(stage.pair[active].synchronized()?, "the standby is not in sync any more");
        fs::write(&file, right)?;
        keys(&["first", &file, &new])?;
        let second = reload(stage, active)?;
        ensure!(second != first, "the new key is not proven");
        keys(&["drop", &file])?;
        ensure!(reload(stage, active)? == second, "another key is proven");

        pin(stage)?;
        ensure!(reload(stage, active)? == second, "the nodes' own keys are proven too early");
        climb(stage, "receive-only", "permissive")?;
        let own = reload(stage, active)?;
        ensure!(own != second, "the nodes' own keys are not proven");
        climb(stage, "permissive", "enforce")?;
        ensure!(reload(stage, active)? == own, "another key is proven");
        ensure!(downloads.progress_range().1 < 1.0, "some were over before the last step");

        // Who starts with what is left comes in sync, and takes over.
        ensure!(stage.pair[1 - active].terminate(ROLES_LIMIT)?.success(), "it ended badly");
        stage.revive(1 - active)?;
        ensure!(proven(stage)?.as_ref() == Some(&own), "another key is proven after a start");
        stage.pair[active].command(&["switchover"])?;
        let outcomes = downloads.finish(LIMIT)?;
        ensure!(outcomes.len() == 8 && outcomes.iter().all(|outcome| outcome.whole()), "{outcomes:?}");
        Ok(())
    })
}
