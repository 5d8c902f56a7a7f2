//! One thread of another process that stands still, while the others go on.

use std::fs;

use anyhow::{Context, Result, bail};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// A thread that stands still until this is dropped, in the thread that froze it.
#[derive(Debug)]
pub struct Frozen(Pid);

impl Frozen {
    /// Freezes the first thread of a process whose name has this in it.
    pub fn thread(pid: u32, name: &str) -> Result<Frozen> {
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if !comm.contains(name) {
                continue;
            }
            let number = entry.file_name().to_string_lossy().parse()?;
            let thread = Pid::from_raw(number);
            // As a tracer: signals stop whole processes (ptrace(2), PTRACE_SEIZE and PTRACE_INTERRUPT).
            ptrace::seize(thread, ptrace::Options::empty()).context("cannot trace the thread")?;
            let frozen = Frozen(thread);
            ptrace::interrupt(thread).context("cannot stop the thread")?;
            waitpid(thread, Some(WaitPidFlag::__WALL)).context("the thread does not stop")?;
            return Ok(frozen);
        }
        bail!("process {pid} has no thread like {name}")
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}
