//! Short commands that are waited for.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// Runs a program to its end and returns what it printed; its failure is an error that says all.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    run_with_input(program, args, "")
}

/// As [`run`], with text for its standard input.
pub fn run_with_input(program: &str, args: &[&str], input: &str) -> Result<String> {
    let shown = || format!("{program} {}", args.join(" "));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`; scripts/setup installs what is needed", shown()))?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes()).with_context(shown)?;
    let output = child.wait_with_output().with_context(shown)?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({}): {}{}",
            shown(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            if input.is_empty() { String::new() } else { format!("\ninput was:\n{input}") }
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs lines of `ip` in a namespace, one process for all of them.
pub fn ip(namespace: &str, lines: &str) -> Result<()> {
    run_with_input("ip", &["-n", namespace, "-batch", "-"], lines).map(drop)
}

/// Asks again every 10 ms until the answer is yes; an error that names what was awaited after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !ready().with_context(|| format!("while waiting for {what}"))? {
        if start.elapsed() > limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Runs a closure on a thread of its own inside a namespace. A socket that it
/// opens stays in that namespace for good.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = fs::File::open(format!("/run/netns/{namespace}"))
        .with_context(|| format!("namespace {namespace} is not there"))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("cannot enter namespace {namespace}"))?;
            work()
        });
        thread.join().unwrap_or_else(|_| bail!("the thread inside {namespace} panicked"))
    })
}

/// An error unless this process is root.
pub fn needs_root() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root: run this as root");
    Ok(())
}
