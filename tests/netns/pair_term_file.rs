//! An appliance whose disk is full: it stands by, says that it cannot lead, and leads when it can.

use std::process::Command;
use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::stage::ROLES_LIMIT;
use netns_harness::{Context, Result, ensure};

use crate::{on_stage, one_at_a_time};

/// Many times the takeover time.
const WAIT: Duration = Duration::from_secs(1);

/// A file system in memory over a directory, until it is dropped.
struct Mounted(String);

impl Mounted {
    /// Without room for a single file.
    fn full(directory: String) -> Result<Mounted> {
        mount(&["-t", "tmpfs", "-o", "size=4k,nr_inodes=1", "tmpfs", &directory])?;
        Ok(Mounted(directory))
    }

    fn make_room(&self) -> Result<()> {
        mount(&["-o", "remount,size=1m,nr_inodes=100", &self.0])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Also while an appliance runs that used it.
        let _ = Command::new("umount").args(["-l", &self.0]).status();
    }
}

fn mount(args: &[&str]) -> Result<()> {
    let status = Command::new("mount").args(args).status().context("cannot start mount")?;
    ensure!(status.success(), "mount {args:?} failed");
    Ok(())
}

#[test]
fn an_appliance_with_a_full_disk_starts_as_a_standby_that_cannot_lead_until_there_is_room() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let active = stage.active()?;
        let standby = 1 - active;
        stage.pair[standby].kill()?;
        let letter = stage.pair[standby].side().letter();
        let directory = stage.world.directory().join(format!("state-{letter}"));
        let disk = Mounted::full(directory.display().to_string())?;
        stage.pair[standby].start()?;
        stage.pair[standby].wait_role(Role::Standby, ROLES_LIMIT)?;
        stage.pair[active].wait_synchronized(ROLES_LIMIT)?;
        let cannot = || Ok(stage.pair[standby].status()?["can_lead"] == false);
        wait_until("the standby to know that it cannot lead", ROLES_LIMIT, cannot)?;
        let told = || Ok(stage.pair[active].status()?["peers"][0]["can_lead"] == false);
        wait_until("the active to know it too", ROLES_LIMIT, told)?;
        let told = || Ok(stage.pair[standby].ask("events")?.to_string().contains("it cannot take the lead"));
        wait_until("an event to say so", ROLES_LIMIT, told)?;
        let why = stage.pair[active].command(&["switchover"]).unwrap_or_else(|error| format!("{error:#}"));
        ensure!(why.contains("cannot lead: its term file cannot be written"), "{why}");

        stage.still_leads(active)?;
        stage.pair[active].kill()?;
        std::thread::sleep(WAIT);
        ensure!(stage.pair[standby].role()? == Role::Standby, "it leads a term that is not reserved");
        disk.make_room()?;
        stage.pair[standby].wait_role(Role::Active, ROLES_LIMIT)?;
        ensure!(directory.join("boots").exists() && directory.join("term").exists(), "they are not written");
        stage.revive(active)
    })
}
