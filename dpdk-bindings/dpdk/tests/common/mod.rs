//! Runs a test in a process of its own, since a process can start the EAL once.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use dpdk::Eal;

/// Names the test that a child process is to run.
const CHILD: &str = "DPDK_TEST_CHILD";

/// The EAL's `--file-prefix` of a test's process.
pub fn file_prefix(process: u32) -> String {
    format!("dpdk-test-{process}")
}

/// Starts this test binary again for the one test named `name`, and there runs `test`.
pub fn in_own_process(name: &str, test: impl FnOnce()) {
    if env::var(CHILD).as_deref() == Ok(name) {
        return test();
    }
    let child = Command::new(env::current_exe().expect("the test binary has a path"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the test binary starts again");
    let prefix = file_prefix(child.id());
    let output = child.wait_with_output().expect("the test's process ends");
    // The EAL leaves its runtime directory behind.
    for base in
        [Some("/var/run".into()), env::var_os("XDG_RUNTIME_DIR"), Some("/tmp".into())].into_iter().flatten()
    {
        let _ = std::fs::remove_dir_all(Path::new(&base).join("dpdk").join(&prefix));
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed in its process ({}):\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "no test is named {name}:\n{out}");
}

/// As [`in_own_process`], under an EAL without hugepages, devices of the machine, or telemetry.
pub fn with_eal(name: &str, more_args: &[&str], test: impl FnOnce(Eal)) {
    in_own_process(name, || {
        let prefix = format!("--file-prefix={}", file_prefix(std::process::id()));
        let fixed = ["test", "--no-huge", "-m", "128", "--no-pci", "--no-telemetry", &prefix];
        test(Eal::init(fixed.iter().chain(more_args)).expect("the EAL starts"));
    });
}
