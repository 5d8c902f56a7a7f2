//! The appliance as it is shipped: the `baton` program, one worker that polls, on a CPU of its own.

use core::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use baton::control::client::ask;
use baton::control::paths;
use baton::control::report::{CounterReport, StatusReport};

use crate::link::child::Child;
use crate::link::plan;
use crate::traffic::Family;

/// How long it may stand still, or be kept from its CPU, without giving up its lease; that
/// it starts is delayed by as much.
const LEASE_MS: u32 = 1500;

/// What is varied of its configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `nat` or `full-nat`.
    pub forwarding: &'static str,
    /// `udp` or `tcp`.
    pub protocol: &'static str,
    /// Of the virtual server and its real servers.
    pub family: Family,
    /// Flows at most.
    pub flows_max: u32,
    /// Memory for DPDK, in MiB.
    pub memory_mb: u32,
    /// Packet buffers.
    pub buffers: u32,
    /// The devices of the clients' and the servers' port.
    pub devices: [String; 2],
    /// The worker's CPU, and that of all other threads.
    pub cpus: [u32; 2],
    /// Leads at once instead of living through pauses.
    pub starts_fast: bool,
    /// Closed connections and their ports are forgotten after this many seconds.
    pub closing_timeout_s: u32,
    /// Lines for the end of the file, tables of their own.
    pub more: String,
}

impl Settings {
    /// Full translation of UDP over IPv4 with room for so many flows.
    pub fn new(devices: [String; 2], flows_max: u32) -> Settings {
        Settings {
            forwarding: "full-nat",
            protocol: "udp",
            family: Family::V4,
            flows_max,
            memory_mb: 256,
            buffers: 16_384,
            devices,
            cpus: [1, 0],
            starts_fast: false,
            closing_timeout_s: 1,
            more: String::new(),
        }
    }

    fn text(&self, folder: &Path) -> String {
        let folder = folder.display();
        let [worker_cpu, master_cpu] = self.cpus;
        let (lease, takeover, boot_wait) =
            if self.starts_fast { (36, 50, 1) } else { (LEASE_MS, LEASE_MS + 500, 1) };
        let all = |address: fn(Family, u16) -> core::net::IpAddr, count: u16| {
            (1..=count).map(move |number| address(self.family, number))
        };
        let servers: Vec<String> = all(plan::server, plan::SERVERS)
            .map(|server| {
                format!("{{ address = \"{}\" }}", core::net::SocketAddr::new(server, plan::SERVICE_PORT))
            })
            .collect();
        let mut text = format!(
            r#"[appliance]
name = "measured"
node = 1

[eal]
file_prefix = "baton-measured"
memory_mb = {memory}
buffers = {buffers}

[lcores]
master_cpu = {master_cpu}
idle = "poll"
worker = [ {{ cpu = {worker_cpu} }} ]

[[port]]
name = "client"
device = "{client}"
addresses = ["10.1.0.2/24", "fd01::2/64"]

[[port]]
name = "server"
device = "{server}"
addresses = ["10.2.0.2/16", "fd02::2/64"]
shared_addresses = ["10.2.0.1/16", "fd02::1/64"]

[[route]]
destination = "0.0.0.0/0"
gateway = "10.1.0.1"

[[route]]
destination = "::/0"
gateway = "fd01::1"

[[pool]]
name = "servers"
server = [ {servers} ]

[[virtual_server]]
name = "service"
address = "{address}"
protocol = "{protocol}"
pool = "servers"
forwarding = "{forwarding}"
"#,
            memory = self.memory_mb,
            buffers = self.buffers,
            client = self.devices[0],
            server = self.devices[1],
            servers = servers.join(", "),
            address = core::net::SocketAddr::new(plan::virtual_address(self.family), plan::SERVICE_PORT),
            protocol = self.protocol,
            forwarding = self.forwarding,
        );
        if self.forwarding == "full-nat" {
            let sources: Vec<String> =
                all(plan::snat, plan::SNAT_ADDRESSES).map(|address| format!("\"{address}\"")).collect();
            // Writing to a string does not fail.
            let _ = writeln!(text, "snat_addresses = [ {} ]", sources.join(", "));
        }
        let _ = write!(
            text,
            r#"
[flows]
max = {flows}
tcp_closing_timeout_s = {closing}
udp_timeout_s = 3600
port_quarantine_s = 1

[failover]
virtual_router_id = {router}
heartbeat_interval_ms = {heartbeat}
lease_ms = {lease}
pause_bound_ms = {pause}
takeover_after_ms = {takeover}
boot_wait_ms = {boot_wait}
state_dir = "{folder}/state"

[control]
socket = "{folder}/baton.sock"
"#,
            flows = self.flows_max,
            closing = self.closing_timeout_s,
            router = plan::VIRTUAL_ROUTER_ID,
            heartbeat = lease / 7,
            pause = lease / 5,
        );
        text + &self.more
    }
}

/// A running appliance.
#[derive(Debug)]
pub struct Appliance {
    /// Its process.
    pub child: Child,
    socket: PathBuf,
}

/// The `baton` program: `BATON`, or the one beside this program.
pub fn program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BATON") {
        return Ok(path.into());
    }
    let path = std::env::current_exe().context("this program has no path")?.with_file_name("baton");
    if !path.exists() {
        bail!("{} is not there: cargo build --release --package baton", path.display());
    }
    Ok(path)
}

impl Appliance {
    /// Writes its configuration and starts it.
    pub fn start(folder: &Path, settings: &Settings) -> Result<Appliance> {
        let config = folder.join("baton.toml");
        fs::write(&config, settings.text(folder)).with_context(|| config.display().to_string())?;
        fs::create_dir_all(folder.join("state"))?;
        let arguments = ["run", "--config", &config.display().to_string()].map(String::from);
        let child = Child::start(folder, "baton", &program()?, &arguments)?;
        Ok(Appliance { child, socket: folder.join("baton.sock") })
    }

    /// What it says of itself.
    pub fn status(&self) -> Result<StatusReport> {
        Ok(ask(&self.socket, "GET", paths::STATUS)?)
    }

    /// What it counted that is a loss, by name; nothing of what is zero.
    pub fn drops(&self) -> Result<Vec<(String, u64)>> {
        let report: CounterReport = ask(&self.socket, "GET", paths::COUNTERS)?;
        let lost = report.counters.into_iter().filter(|line| line.name.starts_with("drop") && line.sum > 0);
        Ok(lost.map(|line| (line.name, line.sum)).collect())
    }
}
