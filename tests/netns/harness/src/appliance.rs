//! One appliance: the `baton` program in its namespace, asked and driven by its own command.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::command::wait_until;
use crate::config::{self, Paths, Settings};
use crate::plan::Side;
use crate::process::Process;
use crate::world::World;

/// How long an appliance may take to answer after its start.
const START_LIMIT: Duration = Duration::from_secs(15);

/// What an appliance says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads.
    Active,
    /// It follows.
    Standby,
    /// Neither, yet or any more.
    Neither,
}

/// One appliance of a pair, or of a group of three.
#[derive(Debug)]
pub struct Appliance {
    side: Side,
    binary: PathBuf,
    directory: PathBuf,
    namespace: String,
    paths: Paths,
    process: Option<Process>,
}

impl Appliance {
    /// Both appliances of a world, not started, their configurations written.
    pub fn pair(world: &World, binary: &Path, settings: &Settings) -> Result<[Appliance; 2]> {
        config::write(world, settings)?;
        Ok(Side::BOTH.map(|side| Appliance::new(world, binary, side)))
    }

    /// All three appliances of a world, not started, their configurations written.
    pub fn three(world: &World, binary: &Path, settings: &Settings) -> Result<[Appliance; 3]> {
        config::write(world, settings)?;
        Ok(Side::THREE.map(|side| Appliance::new(world, binary, side)))
    }

    fn new(world: &World, binary: &Path, side: Side) -> Appliance {
        Appliance {
            side,
            binary: binary.to_owned(),
            directory: world.directory().to_owned(),
            namespace: world.namespace(side.letter()),
            paths: config::paths(world, side),
            process: None,
        }
    }

    /// Which one it is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Where its configuration and its socket are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Starts it and waits until it answers. Each start has a log of its own.
    pub fn start(&mut self) -> Result<()> {
        self.start_with(&[])
    }

    /// As [`Appliance::start`], with these `NAME=value` in its environment.
    pub fn start_with(&mut self, environment: &[&str]) -> Result<()> {
        if self.process.is_some() {
            bail!("appliance {} runs already", self.side.letter());
        }
        let (program, config) = (self.binary.display().to_string(), self.paths.config.display().to_string());
        let args = [&["RUST_LOG=info"], environment, &[&program, "run", "--config", &config]].concat();
        let name = format!("baton-{}", self.side.letter());
        let mut process = Process::spawn(&self.directory, &self.namespace, &name, "env", &args)?;
        process.wait_ready(START_LIMIT, |_| Ok(self.status().is_ok()))?;
        self.process = Some(process);
        Ok(())
    }

    /// Whether it was started, and neither ended nor was killed.
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// Its process, while it runs.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("appliance {} does not run", self.side.letter()))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGKILL)?;
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Has the thread panic that `BATON_TEST_PANIC` named when it was started.
    pub fn panic(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGUSR2)?;
        // The control thread waits for someone to ask.
        let _ = self.status();
        Ok(())
    }

    /// Waits until it ends of itself; returns how.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = self.process()?.wait(limit)?;
        self.process = None;
        Ok(status)
    }

    /// SIGHUP: has it read its configuration file again.
    pub fn hang_up(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGHUP)
    }

    /// SIGSTOP: it stands still, its kernel sockets go on collecting.
    pub fn pause(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub fn resume(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGCONT)
    }

    /// SIGTERM; returns how it ended.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = self.process()?.terminate(limit)?;
        self.process = None;
        Ok(status)
    }

    /// Asks one of its commands for JSON: `status`, `flows`, `counters`, `mirror`, …
    pub fn ask(&self, what: &str) -> Result<Value> {
        let text = self.command(&[what, "--json"])?;
        serde_json::from_str(&text)
            .with_context(|| format!("`baton {what} --json` printed no JSON: {text:?}"))
    }

    /// `baton status --json`.
    pub fn status(&self) -> Result<Value> {
        self.ask("status")
    }

    /// Runs one of its commands against it and returns what it printed.
    pub fn command(&self, args: &[&str]) -> Result<String> {
        // Bounded: an appliance that stands still does not answer.
        let output = Command::new("timeout")
            .arg("5")
            .arg(&self.binary)
            .args(args)
            .arg("--socket")
            .arg(&self.paths.socket)
            .output()
            .context("cannot start the baton command")?;
        if !output.status.success() {
            bail!("`baton {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What it says it is.
    pub fn role(&self) -> Result<Role> {
        Ok(role_in(&self.status()?))
    }

    /// Whether it says that its standby is synchronized.
    pub fn synchronized(&self) -> Result<bool> {
        Ok(synchronized_in(&self.ask("mirror")?))
    }

    /// Waits until it says it is this.
    pub fn wait_role(&self, role: Role, limit: Duration) -> Result<()> {
        let what = format!("appliance {} to be {role:?}", self.side.letter());
        wait_until(&what, limit, || Ok(self.role().is_ok_and(|now| now == role)))
    }

    /// Waits until it says that its standby is synchronized.
    pub fn wait_synchronized(&self, limit: Duration) -> Result<()> {
        let what = format!("appliance {} to have a synchronized standby", self.side.letter());
        wait_until(&what, limit, || Ok(self.synchronized().unwrap_or(false)))
    }
}

/// The role in what `baton status --json` printed.
pub fn role_in(status: &Value) -> Role {
    match status.get("role").and_then(Value::as_str) {
        Some("active") => Role::Active,
        Some("standby") => Role::Standby,
        _ => Role::Neither,
    }
}

/// Whether, in what `baton mirror --json` printed, there are peers and each is synchronized and in the in-sync set.
pub fn synchronized_in(mirror: &Value) -> bool {
    let peers = mirror.get("peers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    !peers.is_empty() && peers.iter().all(is_in_sync)
}

/// Waits until one leads and all others are its synchronized standbys; returns the index of the one that leads.
pub fn wait_for_roles(appliances: &[Appliance], limit: Duration) -> Result<usize> {
    let all: Vec<usize> = (0..appliances.len()).collect();
    wait_for_roles_of(appliances, &all, limit)
}

/// As [`wait_for_roles`], of those alone that were started and not killed.
pub fn wait_for_roles_of_living(appliances: &[Appliance], limit: Duration) -> Result<usize> {
    let living: Vec<usize> = (0..appliances.len()).filter(|index| appliances[*index].is_started()).collect();
    wait_for_roles_of(appliances, &living, limit)
}

fn wait_for_roles_of(appliances: &[Appliance], some: &[usize], limit: Duration) -> Result<usize> {
    let mut active = None;
    wait_until("one active appliance, and standbys", limit, || {
        let with = |role| {
            some.iter().copied().filter(move |index| appliances[*index].role().is_ok_and(|is| is == role))
        };
        let mut leaders = with(Role::Active);
        active = leaders.next().filter(|_| with(Role::Standby).count() == some.len() - 1);
        Ok(active.is_some())
    })?;
    let active = active.context("one leads")?;
    let standbys: Vec<u64> = some
        .iter()
        .filter(|index| **index != active)
        .map(|index| appliances[*index].side().node().into())
        .collect();
    let what = format!("appliance {} to have its standbys in sync", appliances[active].side().letter());
    wait_until(&what, limit, || {
        Ok(appliances[active].ask("mirror").is_ok_and(|mirror| has_in_sync(&mirror, &standbys)))
    })?;
    Ok(active)
}

/// Whether, in what `baton mirror --json` printed, each of these nodes is synchronized and in the in-sync set.
pub fn has_in_sync(mirror: &Value, nodes: &[u64]) -> bool {
    let peers = mirror["peers"].as_array().map_or(&[][..], Vec::as_slice);
    nodes.iter().all(|node| peers.iter().any(|peer| peer["node"] == *node && is_in_sync(peer)))
}

fn is_in_sync(peer: &Value) -> bool {
    peer["state"] == "synchronized" && peer["in_sync"] == true
}
