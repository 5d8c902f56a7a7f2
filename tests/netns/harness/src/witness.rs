//! A pair's witness: the `baton` program in a namespace of its own, which has no link of the service.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::plan;
use crate::process::{Process, exit_code};
use crate::world::World;

/// How long it may take to answer after its start, and to end.
const LIMIT: Duration = Duration::from_secs(15);

/// The witness.
#[derive(Debug)]
pub struct Witness {
    binary: PathBuf,
    directory: PathBuf,
    namespace: String,
    process: Option<Process>,
}

impl Witness {
    /// Makes its network and starts it. The pair's key is written already.
    pub fn set(world: &World, binary: &Path) -> Result<Witness> {
        world.add_witness()?;
        let (directory, namespace) = (world.directory().to_owned(), world.namespace("w"));
        let mut witness = Witness { binary: binary.to_owned(), directory, namespace, process: None };
        witness.start()?;
        Ok(witness)
    }

    fn key_file(&self) -> String {
        self.directory.join("mirror.key").display().to_string()
    }

    fn address() -> String {
        format!("{}:{}", plan::management4(plan::WITNESS_HOST), plan::WITNESS_PORT)
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the witness runs already");
        let (program, key_file, address) =
            (self.binary.display().to_string(), self.key_file(), Witness::address());
        let args = ["RUST_LOG=info", &program, "witness", "--key-file", &key_file, "--listen", &address];
        let mut process = Process::spawn(&self.directory, &self.namespace, "witness", "env", &args)?;
        process.wait_ready(LIMIT, |_| Ok(self.status().is_ok()))?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the witness does not run")?.kill()
    }

    /// SIGTERM; an error unless it ends well.
    pub fn terminate(&mut self) -> Result<()> {
        let status = self.process.take().context("the witness does not run")?.terminate(LIMIT)?;
        ensure!(exit_code(status) == 0, "the witness ended with {status}");
        Ok(())
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// `baton witness --status`, asked on its own machine.
    pub fn status(&self) -> Result<Value> {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.namespace])
            .arg(&self.binary)
            .args(["witness", "--json", "--key-file", &self.key_file(), "--status", &Witness::address()])
            .output()
            .context("cannot start the baton command")?;
        if !output.status.success() {
            bail!("`baton witness --status` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
