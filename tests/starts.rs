//! The program itself on virtual devices of three drivers: it starts, answers, ends; with DPDK's shared libraries and
//! their folder of plugins, or, with the feature `static`, with neither.

#![allow(clippy::disallowed_methods, reason = "a real process is waited for")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton::control::client::ask;
use baton::control::paths;
use baton::control::report::{PortReport, StatusReport};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far longer than it takes.
const LONG: Duration = Duration::from_secs(20);

/// A directory of its own, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        let path = std::env::temp_dir().join(format!("baton-starts-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The program, ended when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    fn start(config: &Path, log: &Path) -> Running {
        let log = std::fs::File::create(log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.arg("run").arg("--config").arg(config).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        Running(command.spawn().expect("it starts"))
    }

    /// Ends it as an operator would; whether it said that all went well.
    fn end(mut self) -> bool {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).expect("it runs");
        let begun = Instant::now();
        while begun.elapsed() < LONG {
            if let Some(status) = self.0.try_wait().expect("its status") {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

fn config(scratch: &Path) -> String {
    let at = scratch.display();
    format!(
        r#"
[appliance]
name = "starts"
node = 1
[eal]
file_prefix = "baton-starts"
memory_mb = 64
hugepages = false
buffers = 4095
[lcores]
master_cpu = 0
worker = [ {{ cpu = 0 }} ]
idle = "sleep"
[[port]]
name = "null"
device = "net_null0"
addresses = ["10.1.0.2/24"]
[[port]]
name = "ring"
device = "net_ring0"
addresses = ["10.2.0.2/24"]
[[port]]
name = "memif"
device = "net_memif0,role=server,socket={at}/memif.sock,socket-abstract=no"
addresses = ["10.3.0.2/24"]
[failover]
virtual_router_id = 51
priority = 200
state_dir = "{at}/state"
[control]
socket = "{at}/control.sock"
"#
    )
}

#[test]
fn it_starts_on_virtual_devices_says_its_ports_and_ends() {
    let scratch = Scratch::new();
    let (file, log, socket) =
        (scratch.0.join("starts.toml"), scratch.0.join("log"), scratch.0.join("control.sock"));
    std::fs::write(&file, config(&scratch.0)).expect("the configuration is written");
    let mut running = Running::start(&file, &log);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let begun = Instant::now();
    let status = loop {
        if let Ok(status) = ask::<StatusReport>(&socket, "GET", paths::STATUS) {
            break status;
        }
        let ended = running.0.try_wait().expect("its status");
        assert!(ended.is_none() && begun.elapsed() < LONG, "{ended:?}\n{}", said());
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((status.name.as_str(), status.workers.len()), ("starts", 1));
    let ports: PortReport = ask(&socket, "GET", paths::PORTS).expect("an answer");
    let names: Vec<&str> = ports.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["null", "ring", "memif"]);
    for driver in ["net_null", "net_ring", "net_memif"] {
        assert!(said().contains(&format!("driver {driver}")), "{driver}:\n{}", said());
    }

    let mapped = std::fs::read_to_string(format!("/proc/{}/maps", running.0.id())).expect("its mappings");
    let libraries = mapped.lines().filter(|line| line.contains("librte_")).count();
    if cfg!(feature = "static") {
        assert_eq!(libraries, 0, "DPDK is a part of the program:\n{mapped}");
        assert!(said().contains("(static)"));
    } else {
        assert!(libraries > 0, "DPDK's libraries are shared");
    }
    assert!(running.end(), "{}", said());
}
