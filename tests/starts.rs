//! The program itself on virtual devices of three drivers: it starts, answers, ends; with DPDK's shared libraries and
//! their folder of plugins, or, with the feature `static`, with neither; and tells a service manager.

#![allow(clippy::disallowed_methods, reason = "a real process is waited for")]

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton::control::client::{AskError, ask};
use baton::control::paths;
use baton::control::reload::ReloadReport;
use baton::control::report::{EventReport, PoolReport, PortReport, StatusReport};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far longer than it takes.
const LONG: Duration = Duration::from_secs(20);

/// A directory of its own, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("baton-starts-{name}-{}", std::process::id()));
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
    /// `manager`: the service manager's socket.
    fn start(config: &Path, log: &Path, manager: Option<&Path>) -> Running {
        let log = std::fs::File::create(log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.arg("run").arg("--config").arg(config).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second handle")).stderr(log);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"] {
            command.env_remove(name);
        }
        if let Some(socket) = manager {
            command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", "400000");
        }
        Running(command.spawn().expect("it starts"))
    }

    /// Its status, as soon as it answers.
    fn answers(&mut self, socket: &Path, said: &impl Fn() -> String) -> StatusReport {
        let begun = Instant::now();
        loop {
            if let Ok(status) = ask::<StatusReport>(socket, "GET", paths::STATUS) {
                return status;
            }
            let ended = self.0.try_wait().expect("its status");
            assert!(ended.is_none() && begun.elapsed() < LONG, "{ended:?}\n{}", said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as an operator would; whether it said that all went well.
    fn end(self) -> bool {
        self.ask_to_end();
        self.ended()
    }

    fn ask_to_end(&self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).expect("it runs");
    }

    fn ended(mut self) -> bool {
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

fn config(name: &str, scratch: &Path) -> String {
    let at = scratch.display();
    format!(
        r#"
[appliance]
name = "starts"
node = 1
[eal]
file_prefix = "baton-starts-{name}"
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
    let scratch = Scratch::new("ports");
    let (file, log, socket) =
        (scratch.0.join("starts.toml"), scratch.0.join("log"), scratch.0.join("control.sock"));
    std::fs::write(&file, config("ports", &scratch.0)).expect("the configuration is written");
    let mut running = Running::start(&file, &log, None);
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let status = running.answers(&socket, &said);
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

#[test]
fn a_service_manager_is_told_when_it_is_ready_how_things_are_and_that_it_ends() {
    let scratch = Scratch::new("told");
    let at = |name: &str| scratch.0.join(name);
    std::fs::write(at("told.toml"), config("told", &scratch.0)).expect("the configuration is written");
    let manager = UnixDatagram::bind(at("notify.sock")).expect("a socket");
    manager.set_read_timeout(Some(LONG)).expect("a time-out");
    let running = Running::start(&at("told.toml"), &at("log"), Some(&at("notify.sock")));
    let said = || std::fs::read_to_string(at("log")).unwrap_or_default();
    let mut lines: Vec<String> = Vec::new();
    let mut hear = |wanted: &str| {
        let begun = Instant::now();
        let heard = |lines: &[String]| lines.iter().position(|line| line.starts_with(wanted));
        while heard(&lines).is_none() {
            let mut bytes = [0; 1024];
            let length = manager.recv(&mut bytes).unwrap_or(0);
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            assert!(length > 0 && begun.elapsed() < LONG, "{wanted} is not said:\n{lines:?}\n{}", said());
            lines.extend(text.lines().map(str::to_owned));
        }
        // What came before it is heard.
        lines.drain(..=heard(&lines).expect("the loop ended")).collect::<Vec<String>>()
    };
    let before = hear("READY=1");
    assert_eq!(before, ["READY=1"], "nothing is said before");
    ask::<StatusReport>(&at("control.sock"), "GET", paths::STATUS).expect("it answers when it says so");
    hear("STATUS=active in term ");
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    running.ask_to_end();
    hear("STOPPING=1");
    assert!(running.ended(), "{}", said());
}

/// Of one that distributes on an lcore of its own, so that this one has to swap too.
#[test]
fn the_file_is_read_again_when_asked_and_by_a_signal_and_a_wrong_one_changes_nothing() {
    let scratch = Scratch::new("reload");
    let at = |name: &str| scratch.0.join(name);
    let services = |weight: u32| {
        format!(
            r#"
[[pool]]
name = "web"
server = [ {{ address = "10.2.0.10:80", weight = {weight} }}, {{ address = "10.2.0.11:80" }} ]
[[virtual_server]]
name = "www"
address = "10.1.0.100:80"
protocol = "tcp"
pool = "web"
forwarding = "full-nat"
snat_addresses = ["10.2.0.100"]
"#
        )
    };
    let divided =
        r#"{ cpu = 0, roles = ["distributor"] }, { cpu = 0, roles = ["traffic-manager", "mirror"] }"#;
    let base = config("reload", &scratch.0).replace("{ cpu = 0 }", divided);
    let write = |text: &str| std::fs::write(at("reload.toml"), text).expect("the configuration is written");
    write(&base);
    let mut running = Running::start(&at("reload.toml"), &at("log"), None);
    let said = || std::fs::read_to_string(at("log")).unwrap_or_default();
    let socket = at("control.sock");
    assert_eq!(running.answers(&socket, &said).generation, 1);
    let reload = || ask::<ReloadReport>(&socket, "POST", paths::RELOAD);

    assert!(reload().expect("it is good").changes.is_empty());
    write(&(base.clone() + &services(1)));
    let report = reload().unwrap_or_else(|error| panic!("{error}\n{}", said()));
    assert_eq!(report.generation, 2);
    let told = ["pool web added, servers: 2", "virtual server www added: 10.1.0.100:80/tcp -> web"];
    assert_eq!(report.changes, told);
    let pools: PoolReport = ask(&socket, "GET", paths::POOLS).expect("an answer");
    assert_eq!((pools.pools[0].servers.len(), pools.virtual_servers.len()), (2, 1));

    write(&(base.replace("priority = 200", "priority = 100") + &services(1)));
    let line = base.lines().position(|line| line == "priority = 200").expect("it is there") + 1;
    let Err(AskError::Refused(400, why)) = reload() else { panic!("it is not refused: {}", said()) };
    let expected = format!("reload.toml:{line}: failover.priority = 100: expected 200 as at the start");
    assert!(why.contains(&expected), "{why}");

    write(&(base.clone() + &services(7)));
    kill(Pid::from_raw(running.0.id() as i32), Signal::SIGHUP).expect("it runs");
    // The lcores go by it before it is told of.
    let told = || -> Vec<String> {
        let events: EventReport = ask(&socket, "GET", paths::EVENTS).expect("an answer");
        let of_it = events.events.into_iter().filter(|event| event.kind == "configuration");
        of_it.map(|event| event.message.split(':').next().unwrap_or("").to_owned()).collect()
    };
    let begun = Instant::now();
    while told().len() < 3 && begun.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(told(), ["configuration 2", "not reloaded", "configuration 3"], "{}", said());
    let status: StatusReport = ask(&socket, "GET", paths::STATUS).expect("an answer");
    assert_eq!(status.generation, 3);
    assert!(running.end(), "{}", said());
}
