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

/// One appliance of a pair.
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
        Ok(Side::BOTH.map(|side| Appliance {
            side,
            binary: binary.to_owned(),
            directory: world.directory().to_owned(),
            namespace: world.namespace(side.letter()),
            paths: config::paths(world, side),
            process: None,
        }))
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
    !peers.is_empty() && peers.iter().all(|peer| peer["state"] == "synchronized" && peer["in_sync"] == true)
}

/// Waits until one leads and the other is its synchronized standby; returns the index of the one that leads.
pub fn wait_for_pair(pair: &[Appliance; 2], limit: Duration) -> Result<usize> {
    let mut active = None;
    wait_until("one active and one standby appliance", limit, || {
        let roles = [0, 1].map(|index: usize| pair[index].role().unwrap_or(Role::Neither));
        active = match roles {
            [Role::Active, Role::Standby] => Some(0),
            [Role::Standby, Role::Active] => Some(1),
            _ => None,
        };
        Ok(active.is_some())
    })?;
    let active = active.context("one leads")?;
    pair[active].wait_synchronized(limit)?;
    Ok(active)
}
