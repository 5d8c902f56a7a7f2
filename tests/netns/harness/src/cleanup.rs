//! Nothing stays behind: namespaces and directories are removed on drop, in a
//! panic, on a signal, and, for a process that was killed, by the next one.
//!
//! All that a world makes carries its prefix `bt<pid>x<n>-`, so what belongs to
//! a process that is gone is known by its name.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::run;

/// Prefixes and directories of the worlds of this process that live.
static LIVE: Mutex<Vec<(String, PathBuf)>> = Mutex::new(Vec::new());

/// A signal takes effect when its process next gets a CPU, which on a loaded machine takes a while.
const DEATH_WITHIN: Duration = Duration::from_secs(5);

/// Directories kept of failed worlds; older ones are removed.
const KEPT_MAX: usize = 5;

/// Enters a world's name before anything of it is made, and arms the signal handler.
pub fn register(prefix: &str, directory: &Path) -> Result<()> {
    static ARMED: Once = Once::new();
    let mut armed = Ok(());
    ARMED.call_once(|| {
        armed = ctrlc::set_handler(|| {
            for (prefix, directory) in std::mem::take(&mut *lock()) {
                remove_namespaces(&prefix);
                let _ = fs::remove_dir_all(directory);
            }
            std::process::exit(130);
        });
    });
    armed.context("cannot arm the signal handler")?;
    lock().push((prefix.to_owned(), directory.to_owned()));
    Ok(())
}

/// Removes a world of this process: its processes, its namespaces and, unless it is to be kept, its directory.
pub fn remove(prefix: &str, directory: &Path, keep_directory: bool) {
    remove_namespaces(prefix);
    if keep_directory {
        let kept = directory.with_extension("failed");
        if fs::rename(directory, &kept).is_ok() {
            eprintln!("logs and captures are kept in {}", kept.display());
        }
    } else {
        let _ = fs::remove_dir_all(directory);
    }
    lock().retain(|(other, _)| other != prefix);
}

/// Removes what processes that are gone have left.
pub fn sweep() {
    let base = std::env::temp_dir();
    for name in names_in(Path::new("/run/netns")).into_iter().filter(|name| is_stale(name)) {
        remove_namespace(&name);
    }
    let (mut kept, stale): (Vec<_>, Vec<_>) = names_in(&base)
        .into_iter()
        .filter(|name| is_stale(name) && base.join(name).is_dir())
        .partition(|name| name.ends_with(".failed"));
    kept.sort_by_key(|name| fs::metadata(base.join(name)).and_then(|m| m.modified()).ok());
    let surplus = kept.len().saturating_sub(KEPT_MAX);
    for name in stale.iter().chain(&kept[..surplus]) {
        let _ = fs::remove_dir_all(base.join(name));
    }
}

/// The namespaces whose names start so.
pub fn namespaces_of(prefix: &str) -> Vec<String> {
    names_in(Path::new("/run/netns")).into_iter().filter(|name| name.starts_with(prefix)).collect()
}

fn lock() -> std::sync::MutexGuard<'static, Vec<(String, PathBuf)>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// The process id in a name `bt<pid>x<n>…`.
fn owner(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix("bt")?.split_once('x')?;
    rest.starts_with(|c: char| c.is_ascii_digit()).then_some(())?;
    pid.parse().ok()
}

fn is_stale(name: &str) -> bool {
    owner(name).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

fn remove_namespaces(prefix: &str) {
    for name in namespaces_of(prefix) {
        remove_namespace(&name);
    }
}

/// Kills what runs inside (all of it is ours: the namespace is), waits for it to be gone, and deletes the
/// namespace.
fn remove_namespace(name: &str) {
    let own = std::process::id().to_string();
    let inside: Vec<i32> = run("ip", &["netns", "pids", name])
        .unwrap_or_default()
        .lines()
        .filter(|pid| *pid != own)
        .filter_map(|pid| pid.trim().parse().ok())
        .collect();
    for pid in &inside {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    let until = Instant::now() + DEATH_WITHIN;
    while inside.iter().any(|pid| runs(*pid)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    if let Err(error) = run("ip", &["netns", "delete", name]) {
        eprintln!("{error:#}");
    }
}

/// Whether a process runs: one that is dead and whose parent has not asked for its status does not
/// (proc(5), the state after the name in parentheses).
pub fn runs(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_pattern_are_ever_touched() {
        assert_eq!(owner("bt123x0-client"), Some(123));
        assert_eq!(owner("bt123x1"), Some(123));
        for foreign in ["bt-client", "bt12-client", "btx0-a", "client", "bt12xy", "bat12x0"] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_living_process_keeps_its_world() {
        assert!(!is_stale(&format!("bt{}x0-a", std::process::id())));
        assert!(is_stale("bt4194305x0-a"), "no process id is above 2^22");
    }
}
