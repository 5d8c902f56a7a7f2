//! The unit file that is shipped: what systemd says of it, and whether what it leaves of root is enough.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use netns_harness::campaign::with_evidence;
use netns_harness::config::Settings;
use netns_harness::stage::Stage;
use netns_harness::{Context, Result, dns, ensure};

use crate::one_at_a_time;

const PROGRAM: &str = env!("CARGO_BIN_EXE_baton");

/// A directory of its own, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("baton-unit-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn unit(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// What systemd says of a unit file with this text.
fn verify(scratch: &Scratch, text: &str) -> Result<String> {
    let path = scratch.0.join("baton.service");
    fs::write(&path, text)?;
    let output =
        Command::new("systemd-analyze").arg("verify").arg(&path).output().context("no systemd-analyze")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() || !said.is_empty(), "it failed without a word");
    // The machine's own units, if it has some, are not meant.
    Ok(said.lines().filter(|line| line.contains("baton")).collect::<Vec<_>>().join("\n"))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() -> Result<()> {
    let scratch = Scratch::new("verify")?;
    let installed = "/usr/local/bin/baton";
    for name in ["baton-witness.service", "baton.service"] {
        let text = unit(name)?;
        ensure!(text.contains(installed), "{name} starts something else");
        let said = verify(&scratch, &text.replace(installed, PROGRAM))?;
        ensure!(said.is_empty(), "{name}: {said}");
    }
    let text = unit("baton.service")?.replace(installed, PROGRAM);
    // So does it look at all?
    let broken = text.replace("WatchdogSec=10", "WatchdogSecs=10");
    ensure!(verify(&scratch, &broken)?.contains("WatchdogSecs"), "it does not say what is wrong");
    Ok(())
}

#[test]
fn a_pair_runs_with_the_capabilities_that_the_unit_leaves() -> Result<()> {
    let _one = one_at_a_time();
    let scratch = Scratch::new("capabilities")?;
    let text = unit("baton.service")?;
    let left = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("no set")?;
    let left: Vec<String> = left.split(' ').map(|name| name.replace("CAP_", "+").to_lowercase()).collect();
    let wrapper = scratch.0.join("baton");
    let script = format!(
        "#!/bin/sh\nexec setpriv --no-new-privs --bounding-set=-all,{} {PROGRAM} \"$@\"\n",
        left.join(",")
    );
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    with_evidence(&mut Stage::set(&wrapper, &Settings::default())?, |stage| {
        let active = stage.active()?;
        let process = stage.pair[active].process()?;
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).context("no VmLck")?;
        let locked_kb: u64 = locked.trim().trim_end_matches(" kB").parse()?;
        ensure!(locked_kb > 10_000, "it has locked {locked_kb} kB of its memory");
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("no capabilities")?;
        let has = u64::from_str_radix(line.trim(), 16)?;
        ensure!(has.count_ones() as usize == left.len(), "it has {has:x}, not {left:?}");
        for complaint in
            ["not real-time", "ordinary thread", "not locked", "not permitted", "ermission denied"]
        {
            ensure!(!process.log().contains(complaint), "{}", process.log());
        }
        let _servers = dns::start_servers(&stage.world)?;
        let (round, violations) = netns_harness::campaign::dns::round(stage, 100)?;
        ensure!(round.asked == 8 * 100, "{} questions were asked", round.asked);
        violations.judge()
    })
}
