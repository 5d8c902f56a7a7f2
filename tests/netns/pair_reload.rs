//! `baton reload` on a pair (REQ C10): services change on both, and every connection lives on.

use std::fs;
use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, through_virtual_servers};
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage};
use netns_harness::{Result, bail, ensure, plan};

use crate::{on_stage, one_at_a_time};

const LIMIT: Duration = Duration::from_secs(120);

/// Replaces a text in an appliance's file; it must be there.
fn edit(stage: &Stage, index: usize, old: &str, new: &str) -> Result<()> {
    let path = &stage.pair[index].paths().config;
    let text = fs::read_to_string(path)?;
    ensure!(text.contains(old), "{} lacks {old}", path.display());
    Ok(fs::write(path, text.replace(old, new))?)
}

/// Waits until both go by this generation and say so of each other.
fn both_go_by(stage: &Stage, generation: u64) -> Result<()> {
    wait_until("both to go by the same configuration", ROLES_LIMIT, || {
        let status = [stage.pair[0].status()?, stage.pair[1].status()?];
        Ok(status
            .iter()
            .all(|status| status["generation"] == generation && status["peers"][0]["same_services"] == true))
    })
}

/// Whether a server of the pool of web servers is retired, as an appliance says.
fn is_retired(stage: &Stage, index: usize, address: &str) -> Result<bool> {
    let pools = stage.pair[index].ask("pools")?;
    let servers = pools["pools"].as_array().into_iter().flatten().flat_map(|pool| pool["servers"].as_array());
    Ok(servers.flatten().any(|server| server["address"] == address && server["retired"] == true))
}

#[test]
fn services_change_on_both_and_connections_live_on_by_those_that_are_gone() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let active = stage.active()?;
        both_go_by(stage, 1)?;
        let downloads = through_virtual_servers(&stage.web, FILE.0, "10k", 12)?;
        let downloads = Downloads::start(&stage.world, downloads, LIMIT)?;
        wait_until("every download to be under way", LIMIT, || Ok(downloads.progress_range().0 > 0.05))?;
        let server = format!("{}:80", plan::server4(stage.world.server_hosts()[0]));
        edit(stage, active, &format!("{{ address = \"{server}\", weight = 1 }}, "), "")?;
        edit(stage, active, "\"www-nat4\"", "\"shop-nat4\"")?;
        let said = stage.pair[active].command(&["reload"])?;
        for expected in [
            "configuration 2\n".to_owned(),
            format!("pool www4: server {server} removed\n"),
            "virtual server www-nat4 removed\n".to_owned(),
            "virtual server shop-nat4 added: ".to_owned(),
        ] {
            ensure!(said.contains(&expected), "{expected:?} is not in {said}");
        }
        both_go_by(stage, 2)?;
        for index in 0..2 {
            ensure!(
                is_retired(stage, index, &server)?,
                "appliance {index} does not say that {server} is retired"
            );
        }
        ensure!(downloads.progress_range().1 < 1.0, "some were over before the reload");
        // The standby takes over connections of what is gone. The other one comes back with its file, which lacks that, and is told
        // of these connections before it knows the services; then it takes them over in its turn.
        for dies in [active, 1 - active] {
            stage.pair[dies].kill()?;
            stage.pair[1 - dies].wait_role(Role::Active, ROLES_LIMIT)?;
            stage.revive(dies)?;
            both_go_by(stage, 2)?;
            wait_until("every connection to be protected", ROLES_LIMIT, || {
                Ok(stage.pair[1 - dies].status()?["flows"]["unprotected"] == 0)
            })?;
            ensure!(downloads.progress_range().1 < 1.0, "some were over before appliance {dies} was back");
        }
        let outcomes = downloads.finish(LIMIT)?;
        ensure!(outcomes.len() == 12 && outcomes.iter().all(|outcome| outcome.whole()), "{outcomes:?}");
        both_go_by(stage, 2)
    })
}

#[test]
fn a_wrong_file_changes_nothing_a_signal_reloads_too_and_a_standby_leaves_it_to_the_active() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let active = stage.active()?;
        both_go_by(stage, 1)?;
        edit(stage, active, "lease_ms = 36", "lease_ms = 35")?;
        match stage.pair[active].command(&["reload"]) {
            Ok(said) => bail!("it was taken: {said}"),
            Err(error) => {
                let (told, file) =
                    (format!("{error:#}"), stage.pair[active].paths().config.display().to_string());
                ensure!(told.contains(&format!("{file} has an error:")), "{told}");
                ensure!(told.contains("failover.lease_ms = 35: expected 36 as at the start"), "{told}");
            }
        }
        ensure!(stage.pair[active].status()?["generation"] == 1, "it is another generation");
        edit(stage, active, "lease_ms = 35", "lease_ms = 36")?;
        edit(stage, active, "balance = \"maglev\"", "balance = \"round-robin\"")?;
        stage.pair[active].hang_up()?;
        both_go_by(stage, 2)?;
        let said = stage.pair[1 - active].command(&["reload"])?;
        let node = stage.pair[active].side().node();
        ensure!(said.contains(&format!("node {node} leads, and its services hold: reload there")), "{said}");
        stage.still_leads(active)
    })
}
