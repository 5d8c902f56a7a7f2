//! One run of an operator's command: a process group of its own, which is killed when it takes too long.

use core::fmt;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::base::time::{Duration, Instant};
use crate::config::checked::Hook;
use crate::driver::clock::{Clock, std_duration};

/// Between two looks at whether it has ended: at first, and at most.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// So long one that was killed is waited for: the kernel may be busy with it.
const KILLED_MAX: Duration = Duration::from_secs(1);
/// What a service manager gave to this process alone (`sd_notify(3)`).
const NOT_THE_CHILDS: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// What became of a run.
#[derive(Debug)]
pub enum Outcome {
    /// It ended of itself, or by someone else's signal.
    Ended(ExitStatus),
    /// It took too long.
    Killed {
        /// Whether it is gone; else the kernel holds it.
        gone: bool,
    },
    /// There is no such program, or it may not be run.
    NotStarted(io::Error),
}

impl Outcome {
    /// Whether the command did what it was to do, as far as it says.
    pub fn is_good(&self) -> bool {
        match self {
            Outcome::Ended(status) => status.success(),
            Outcome::Killed { .. } | Outcome::NotStarted(_) => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ended(status) if status.success() => write!(f, "ended well"),
            Outcome::Ended(status) => write!(f, "failed ({status})"),
            Outcome::Killed { gone: true } => write!(f, "took too long and was killed"),
            Outcome::Killed { gone: false } => {
                write!(f, "took too long and does not end though it was killed,")
            }
            Outcome::NotStarted(error) => write!(f, "could not be started ({error}),"),
        }
    }
}

/// Where what it writes goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// To where this process's goes.
    Inherited,
    /// Nowhere.
    ThrownAway,
}

/// Runs the command and waits until it has ended, or until `kill_at`, which is asked again and again.
pub fn run(
    hook: &Hook,
    written: Written,
    environment: &[(&'static str, String)],
    clock: Clock,
    kill_at: impl Fn() -> Instant,
) -> Outcome {
    let mut command = Command::new(&hook.program);
    command.args(&hook.arguments).stdin(Stdio::null()).process_group(0);
    if written == Written::ThrownAway {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    for name in NOT_THE_CHILDS {
        command.env_remove(name);
    }
    // What DPDK opens is inherited: a daemon that the command starts would keep devices and hugepages from the next start.
    if let Err(error) = dpdk::descriptors::keep_from_children() {
        log::warn!("a command of the configuration inherits descriptors: {error}");
    }
    match command.spawn() {
        Ok(child) => wait(child, clock, kill_at),
        Err(error) => Outcome::NotStarted(error),
    }
}

fn wait(mut child: Child, clock: Clock, kill_at: impl Fn() -> Instant) -> Outcome {
    let (mut look, look_max) = LOOKS;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Outcome::Ended(status);
        }
        if clock.now() >= kill_at() {
            return Outcome::Killed { gone: kill(child, clock) };
        }
        thread::sleep(std_duration(look));
        look = (look * 2).min(look_max);
    }
}

/// Kills all of its group; whether it is gone.
fn kill(mut child: Child, clock: Clock) -> bool {
    // It fails if all have just ended.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let until = clock.now() + KILLED_MAX;
    while clock.now() < until {
        if let Ok(Some(_)) = child.try_wait() {
            return true;
        }
        thread::sleep(std_duration(LOOKS.0));
    }
    false
}
