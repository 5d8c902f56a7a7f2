//! A program that runs beside the test, inside a namespace, and dies with it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::wait_until;

/// How long a process may take to enter its namespace, on a machine with much else to do.
const ENTERS_WITHIN: Duration = Duration::from_secs(10);

/// A running child. Its process id is the program's own: every wrapper in between is replaced by `exec`.
///
/// The kernel kills it when the thread that started it ends, so start it from a thread that outlives it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program in a namespace; its output goes to `directory/name.log`, or
    /// `name-2.log` and so on when an earlier one of that name ran.
    pub fn spawn(
        directory: &Path,
        namespace: &str,
        name: &str,
        program: &str,
        args: &[&str],
    ) -> Result<Process> {
        let (log, file) = open_log(directory, name)?;
        let output = file.try_clone()?;
        Self::start(name, log, namespace, command(namespace, program, args).stdout(output).stderr(file))
    }

    /// As [`Process::spawn`], but standard output is the caller's to read.
    pub fn spawn_piped(
        directory: &Path,
        namespace: &str,
        name: &str,
        program: &str,
        args: &[&str],
    ) -> Result<(Process, ChildStdout)> {
        let (log, file) = open_log(directory, name)?;
        let mut command = command(namespace, program, args);
        let mut process = Self::start(name, log, namespace, command.stdout(Stdio::piped()).stderr(file))?;
        let output = process.child.stdout.take().context("no standard output")?;
        Ok((process, output))
    }

    /// Returns when the process is in its namespace, or has ended: what is about to enter one is not
    /// among those that are found in it, and would outlive it.
    fn start(name: &str, log: PathBuf, namespace: &str, command: &mut Command) -> Result<Process> {
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {name}"))?;
        let mut process = Process { name: name.to_owned(), child, log };
        let inode = |path: PathBuf| fs::metadata(path).map(|metadata| metadata.ino());
        let wanted = inode(Path::new("/run/netns").join(namespace))?;
        let own = PathBuf::from(format!("/proc/{}/ns/net", process.pid()));
        let until = Instant::now() + ENTERS_WITHIN;
        while inode(own.clone()).ok() != Some(wanted) && process.ended()?.is_none() {
            if Instant::now() > until {
                bail!("{name} did not enter {namespace} within {ENTERS_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(process)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far (standard error only, if its output is piped).
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where that is kept.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal. A process that has ended is an error.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} has already ended ({status}):\n{}", self.name, self.log());
        }
        kill(Pid::from_raw(self.pid() as i32), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            self.signal(Signal::SIGKILL)?;
            self.child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end by SIGTERM and waits.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Waits until it ends of itself.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let name = format!("the end of {}", self.name);
        wait_until(&name, limit, || Ok(self.child.try_wait()?.is_some()))
            .map_err(|error| anyhow!("{error:#}; it printed:\n{}", self.log()))?;
        self.ended()?.context("it has ended")
    }

    /// Waits until `ready`; an early death is an error with its log.
    pub fn wait_ready(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut(&Process) -> Result<bool>,
    ) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        wait_until(&what, limit, || {
            if let Some(status) = self.ended()? {
                bail!("{} ended early ({status}):\n{}", self.name, self.log());
            }
            ready(self)
        })
        .map_err(|error| anyhow!("{error:#}; its log:\n{}", self.log()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// An exit status as one number, as the shell shows it.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

fn open_log(directory: &Path, name: &str) -> Result<(PathBuf, File)> {
    let path = unused(directory, name, "log");
    let file = File::create_new(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok((path, file))
}

/// The first of `stem.ending`, `stem-2.ending`, … that is not there yet.
pub fn unused(directory: &Path, stem: &str, ending: &str) -> PathBuf {
    let mut path = directory.join(format!("{stem}.{ending}"));
    let mut number = 1;
    while path.exists() {
        number += 1;
        path = directory.join(format!("{stem}-{number}.{ending}"));
    }
    path
}

/// `setpriv` asks for the death signal and `ip` enters the namespace; both then become the program.
fn command(namespace: &str, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "ip", "netns", "exec", namespace, program]).args(args);
    command
}
