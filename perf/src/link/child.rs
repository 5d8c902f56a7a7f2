//! A program that runs beside the harness: the appliance, or `testpmd`. It dies with the
//! harness, and can be made to stand still while another one has its CPU.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running program.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: Process,
    log: PathBuf,
    /// Kept open: `testpmd` ends when it can read no more.
    _input: Option<ChildStdin>,
    started: Instant,
}

impl Child {
    /// Starts a program on any CPU (the caller may be bound to one); its output goes to `name.log`.
    /// The kernel kills it when the calling thread ends.
    pub fn start(site: &Site, name: &str, program: &Path, arguments: &[String]) -> Result<Child> {
        let log = site.folder.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone()?;
        let last = std::thread::available_parallelism().map_or(1, usize::from).max(2) - 1;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "taskset", "-c", &format!("0-{last}")]);
        command.args(&site.before).arg(program).args(arguments);
        command.stdin(Stdio::piped()).stdout(output).stderr(errors);
        let started = Instant::now();
        let mut process = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let input = process.stdin.take();
        Ok(Child { name: name.to_owned(), process, log, _input: input, started })
    }

    /// When it was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// An error with its log if it has ended.
    pub fn must_live(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("{} has ended ({status}):\n{}", self.name, self.log());
        }
        Ok(())
    }

    /// Makes it stand still.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Makes it go on.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        self.must_live()?;
        kill(Pid::from_raw(self.pid() as i32), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end, and makes it end when it takes longer than a few seconds.
    pub fn end(&mut self) -> Result<()> {
        if self.process.try_wait()?.is_none() {
            self.resume()?;
            self.signal(Signal::SIGTERM)?;
            let asked = Instant::now();
            while self.process.try_wait()?.is_none() {
                if asked.elapsed() > Duration::from_secs(5) {
                    self.process.kill()?;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended of itself; then there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where a program runs.
#[derive(Clone, Debug)]
pub struct Site {
    /// For its files.
    pub folder: PathBuf,
    /// A program and its arguments that become it: `ip netns exec NAME`.
    pub before: Vec<String>,
}

/// A folder for sockets, logs and configurations, removed with all that is in it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one, and removes those of processes that were killed. Its path is short enough for sockets.
    pub fn new() -> Result<Folder> {
        const PREFIX: &str = "baton-perf-";
        for entry in fs::read_dir(std::env::temp_dir())?.flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if id.is_some_and(|id| id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists()) {
                // Another harness may be doing the same.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Folder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
