//! The appliance as it is shipped: the `baton` program, one worker that polls, on a CPU of its own.

use core::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use baton::control::client::ask;
use baton::control::paths;
use baton::control::report::{CounterReport, StatusReport};
use baton::failover::Role;

use crate::link::child::{Child, Site};
use crate::link::plan;
use crate::traffic::Family;

/// How long it may stand still, or be kept from its CPU, without giving up its lease. Its start
/// is delayed by as much.
const LEASE_MS: u32 = 1500;
/// As above, of an appliance with a standby, which would take over.
const LEASE_OF_PAIR_MS: u32 = 5000;

/// How long a pair may take until it is synchronized.
const PAIR_LIMIT: Duration = Duration::from_secs(40);

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
    /// The device of the port to a standby, to which flows are mirrored (`async`).
    pub mirror: Option<String>,
    /// Which member it is.
    pub member: Member,
}

/// A member of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The one that is measured. It leads, and its worker spins.
    Measured,
    /// The one that follows. Its worker sleeps when nothing comes.
    Standby,
}

impl Member {
    const fn name(self) -> &'static str {
        match self {
            Member::Measured => "measured",
            Member::Standby => "standby",
        }
    }

    const fn node(self) -> u16 {
        match self {
            Member::Measured => 1,
            Member::Standby => 2,
        }
    }

    const fn idle(self) -> &'static str {
        match self {
            Member::Measured => "poll",
            Member::Standby => "sleep",
        }
    }

    const fn other(self) -> Member {
        match self {
            Member::Measured => Member::Standby,
            Member::Standby => Member::Measured,
        }
    }
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
            mirror: None,
            member: Member::Measured,
        }
    }

    fn text(&self, folder: &Path) -> String {
        let folder = folder.display();
        let [worker_cpu, master_cpu] = self.cpus;
        let (member, node) = (self.member, self.member.node());
        let lease = match (&self.mirror, self.starts_fast) {
            (Some(_), _) => LEASE_OF_PAIR_MS,
            (None, false) => LEASE_MS,
            (None, true) => 36,
        };
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
name = "{name}"
node = {node}

[eal]
file_prefix = "baton-{name}"
memory_mb = {memory}
buffers = {buffers}

[lcores]
master_cpu = {master_cpu}
idle = "{idle}"
worker = [ {{ cpu = {worker_cpu} }} ]

[[port]]
name = "client"
device = "{client}"
addresses = ["10.1.0.{host}/24", "fd01::{host}/64"]

[[port]]
name = "server"
device = "{server}"
addresses = ["10.2.0.{host}/16", "fd02::{host}/64"]
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
            name = member.name(),
            idle = member.idle(),
            host = node + 1,
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
        if let Some(device) = &self.mirror {
            let _ = write!(
                text,
                r#"mirror = {{ mode = "checkpoint", commit = "async" }}

[[port]]
name = "mirror"
device = "{device}"
addresses = ["10.9.0.{node}/24"]

[mirror]
port = "mirror"
peers = [ {{ node = {peer}, address = "10.9.0.{peer}" }} ]
key_file = "{folder}/mirror.key"
hold_timeout_ms = {hold}
"#,
                peer = member.other().node(),
                hold = 2 * lease,
            );
        }
        let _ = write!(
            text,
            r#"
[flows]
max = {flows}
tcp_closing_timeout_s = 1
udp_timeout_s = 3600
port_quarantine_s = 1

[failover]
virtual_router_id = {router}
priority = {priority}
heartbeat_interval_ms = {heartbeat}
lease_ms = {lease}
pause_bound_ms = {pause}
takeover_after_ms = {takeover}
boot_wait_ms = {boot_wait}
state_dir = "{folder}/state-{node}"

[control]
socket = "{folder}/{name}.sock"
"#,
            flows = self.flows_max,
            router = plan::VIRTUAL_ROUTER_ID,
            priority = 200 - node,
            heartbeat = lease / 7,
            pause = lease / 5,
            takeover = lease / 4 * 5 + 5,
            // The shortest that `baton check` allows.
            boot_wait = if self.mirror.is_some() { lease / 4 * 5 + 5 + lease / 7 * 4 + 35 } else { 1 },
            name = member.name(),
        );
        text
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
    pub fn start(site: &Site, settings: &Settings) -> Result<Appliance> {
        let (folder, name, node) = (&site.folder, settings.member.name(), settings.member.node());
        let config = folder.join(format!("{name}.toml"));
        fs::write(&config, settings.text(folder)).with_context(|| config.display().to_string())?;
        fs::create_dir_all(folder.join(format!("state-{node}")))?;
        let key = folder.join("mirror.key");
        if settings.mirror.is_some() && !key.exists() {
            let made = Command::new(program()?).arg("keygen").arg(&key).status()?;
            ensure!(made.success(), "baton keygen: {made}");
        }
        let arguments = ["run", "--config", &config.display().to_string()].map(String::from);
        let child = Child::start(site, name, &program()?, &arguments)?;
        Ok(Appliance { child, socket: folder.join(format!("{name}.sock")) })
    }

    /// Starts it together with a standby that follows it, once the pair is synchronized. The standby
    /// shares the generator's CPU and sees no traffic but the mirror's.
    pub fn start_pair(site: &Site, settings: &Settings) -> Result<[Appliance; 2]> {
        let folder = &site.folder;
        let socket = |name: &str| format!("socket={}/{name},socket-abstract=no", folder.display());
        let lonely =
            |number: usize| format!("net_memif{number},role=server,id=0,{}", socket(&format!("{number}.no")));
        let mirror = |role: &str| format!("net_memif2,role={role},id=0,{}", socket("mirror"));
        let standby = Settings {
            devices: [lonely(0), lonely(1)],
            mirror: Some(mirror("server")),
            member: Member::Standby,
            cpus: [settings.cpus[1]; 2],
            ..settings.clone()
        };
        let mut standby = Appliance::start(site, &standby)?;
        let begin = Instant::now();
        while !folder.join("mirror").exists() {
            standby.child.must_live()?;
            ensure!(begin.elapsed() < PAIR_LIMIT, "the standby does not start:\n{}", standby.child.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        let measured = Settings { mirror: Some(mirror("client") + ",zero-copy=yes"), ..settings.clone() };
        let mut measured = Appliance::start(site, &measured)?;
        while !measured.leads_a_pair() {
            measured.child.must_live()?;
            standby.child.must_live()?;
            ensure!(
                begin.elapsed() < PAIR_LIMIT,
                "there is no synchronized pair:\n{}\n{}",
                measured.child.log(),
                standby.child.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok([measured, standby])
    }

    /// Whether it leads, and its standby has all that it has.
    pub fn leads_a_pair(&self) -> bool {
        self.status().is_ok_and(|status| status.role == Role::Active && status.synchronized)
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
