//! The configuration files of the appliances, written for a world.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::plan::{self, Family, Link, Side, Translation};
use crate::world::World;

/// The UDP port of the echo service that probes use.
pub const ECHO_PORT: u16 = 7;
/// Memory of one appliance's EAL, in MiB.
pub const MEMORY_MB: u32 = 256;

/// The driver of [`Settings::default`].
pub const AF_PACKET: &str = "net_af_packetN,iface=IFACE";

/// A driver that passes every packet as it is on the link, while `af_packet` has the kernel put IPv4 fragments together
/// (it asks for `PACKET_FANOUT_FLAG_DEFRAG`) and then cuts what is longer than its frames.
pub const AF_XDP: &str = "net_af_xdpN,iface=IFACE";

/// The lcores of one appliance, besides its master. They take turns among the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lcores {
    /// Those that do everything.
    pub workers: u16,
    /// Those that only hold flows.
    pub managers: u16,
    /// Those that only distribute.
    pub distributors: u16,
}

impl Lcores {
    /// One that does everything.
    pub const FUSED: Lcores = Lcores { workers: 1, managers: 0, distributors: 0 };
    /// One that distributes, and one that holds flows.
    pub const DIVIDED: Lcores = Lcores { workers: 0, managers: 1, distributors: 1 };

    /// As `lcores.worker` has them; the first one on this CPU.
    fn text(self, first_cpu: u32, cpus: u32) -> String {
        const ALL: &str = r#""distributor", "traffic-manager", "mirror""#;
        let roles = [
            (self.workers, ALL),
            (self.managers, r#""traffic-manager", "mirror""#),
            (self.distributors, r#""distributor""#),
        ];
        let each = roles.into_iter().flat_map(|(count, roles)| (0..count).map(move |_| roles));
        let worker = |(number, roles): (u32, &str)| {
            format!("{{ cpu = {}, roles = [{roles}] }}", (first_cpu + number) % cpus)
        };
        (0..).zip(each).map(worker).collect::<Vec<_>>().join(", ")
    }
}

/// What tests vary of the appliances' configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `eal.hugepages`; [`Settings::default`] asks whether there are enough of them.
    pub hugepages: bool,
    /// `mirror.commit` of every virtual server: `hold` or `async`.
    pub commit: &'static str,
    /// `mirror.rules` of every virtual server.
    pub rules: &'static str,
    /// `failover.partition`: `availability` or `safety`.
    pub partition: &'static str,
    /// Health checks of the web servers; off by default, as the appliance warns that it does not run them yet.
    pub health: bool,
    /// The driver of the ports and its arguments, with `N` for the port's number and `IFACE` for its interface.
    pub device: &'static str,
    /// Flows and source-NAT ports go within seconds of their end.
    pub short_timeouts: bool,
    /// The lcores of each appliance; a third one's are as the second's.
    pub lcores: [Lcores; 2],
    /// There is a witness, in a namespace of its own.
    pub witness: bool,
    /// Lines added to `[mirror]`.
    pub mirror: &'static str,
    /// Lines added to `[failover]`.
    pub failover: String,
    /// Lines added at the end, tables of their own.
    pub more: String,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            hugepages: hugepages_suffice_for(2),
            commit: "hold",
            rules: "",
            partition: "availability",
            health: false,
            device: AF_PACKET,
            short_timeouts: false,
            lcores: [Lcores::FUSED; 2],
            witness: false,
            mirror: "",
            failover: String::new(),
            more: String::new(),
        }
    }
}

/// Whether there are enough free hugepages for so many appliances.
pub fn hugepages_suffice_for(appliances: usize) -> bool {
    hugepages_free_mb() >= appliances as u64 * u64::from(MEMORY_MB)
}

/// Memory in free hugepages, in MiB.
pub fn hugepages_free_mb() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let number = |key: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    number("HugePages_Free:") * number("Hugepagesize:") / 1024
}

/// Where an appliance's files are.
#[derive(Clone, Debug)]
pub struct Paths {
    /// Its configuration.
    pub config: PathBuf,
    /// Its control socket.
    pub socket: PathBuf,
}

/// Where an appliance's files are in this world.
pub fn paths(world: &World, side: Side) -> Paths {
    let file = |ending| world.directory().join(format!("{}.{ending}", side.letter()));
    Paths { config: file("toml"), socket: file("sock") }
}

/// Writes all configurations and the key that the appliances share.
pub fn write(world: &World, settings: &Settings) -> Result<()> {
    let mut secret = [0; 32];
    let mut source = fs::File::open("/dev/urandom")?;
    std::io::Read::read_exact(&mut source, &mut secret)?;
    let key = secret.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let key_file = world.directory().join("mirror.key");
    if !key_file.exists() {
        fs::write(&key_file, key + "\n")?;
        fs::set_permissions(&key_file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    for &side in world.sides() {
        fs::create_dir_all(world.directory().join(format!("state-{}", side.letter())))?;
        let path = paths(world, side).config;
        fs::write(&path, text(world, settings, side)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// One appliance's configuration.
pub fn text(world: &World, settings: &Settings, side: Side) -> String {
    let mut out = String::new();
    head(&mut out, world, settings, side);
    pools(&mut out, world, settings);
    virtual_servers(&mut out, settings);
    tail(&mut out, world, settings, side);
    out + &settings.more
}

fn head(out: &mut String, world: &World, settings: &Settings, side: Side) {
    let (letter, host, gateway) = (side.letter(), side.host(), plan::GATEWAY_HOST);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u16;
    // The first two appliances' workers on different CPUs, where there are two.
    let (worker_cpu, master_cpu) = (side.node() % cpus, (side.node() + 1) % cpus);
    let lcores = settings.lcores[usize::from(side != Side::A)];
    let workers = lcores.text(worker_cpu.into(), cpus.into());
    let device = |number: u32, link: Link| {
        settings.device.replace("IFACE", &link.interface(side)).replace('N', &number.to_string())
    };
    let _ = write!(
        out,
        r#"[appliance]
name = "baton-{letter}"
node = {node}

[eal]
file_prefix = "{prefix}{letter}"
memory_mb = {MEMORY_MB}
hugepages = {hugepages}
args = ["--no-pci"]

[lcores]
master_cpu = {master_cpu}
worker = [ {workers} ]
idle = "sleep"

[[port]]
name = "client"
device = "{client}"
addresses = ["{client4}/24", "{client6}/64"]

[[port]]
name = "server"
device = "{server}"
addresses = ["{server4}/24", "{server6}/64"]
shared_addresses = ["{gateway4}/24", "{gateway6}/64"]

[[port]]
name = "mirror"
device = "{mirror}"
addresses = ["{mirror4}/24"]
"#,
        node = side.node(),
        prefix = world.prefix(),
        hugepages = settings.hugepages,
        client = device(0, Link::Client),
        server = device(1, Link::Server),
        mirror = device(2, Link::Mirror),
        client4 = plan::client4(host),
        client6 = plan::client6(host),
        server4 = plan::server4(host),
        server6 = plan::server6(host),
        gateway4 = plan::server4(gateway),
        gateway6 = plan::server6(gateway),
        mirror4 = plan::mirror4(side),
    );
}

/// The services of every server: name, port, and whether it speaks TCP.
const SERVICES: [(&str, u16, &str); 3] = [("www", 80, "tcp"), ("dns", 53, "udp"), ("echo", ECHO_PORT, "udp")];

fn pools(out: &mut String, world: &World, settings: &Settings) {
    for (service, port, protocol) in SERVICES {
        for family in [Family::V4, Family::V6] {
            let servers: Vec<String> = world
                .server_hosts()
                .into_iter()
                .map(|host| match family {
                    Family::V4 => format!(r#"{{ address = "{}:{port}", weight = 1 }}"#, plan::server4(host)),
                    Family::V6 => {
                        format!(r#"{{ address = "[{}]:{port}", weight = 1 }}"#, plan::server6(host))
                    }
                })
                .collect();
            let _ = write!(
                out,
                "\n[[pool]]\nname = \"{service}{n}\"\nbalance = \"maglev\"\nserver = [ {} ]\n",
                servers.join(", "),
                n = number(family),
            );
            if protocol == "tcp" && settings.health {
                *out += "health = { check = \"tcp\", interval_ms = 1000, timeout_ms = 500, rise = 2, fall = 3 }\n";
            }
        }
    }
}

fn virtual_servers(out: &mut String, settings: &Settings) {
    for (service, port, protocol) in SERVICES {
        for translation in [Translation::Nat, Translation::FullNat] {
            for family in [Family::V4, Family::V6] {
                let (kind, forwarding) = match translation {
                    Translation::Nat => ("nat", "nat"),
                    Translation::FullNat => ("fullnat", "full-nat"),
                };
                let address = std::net::SocketAddr::new(plan::virtual_address(translation, family), port);
                let _ = write!(
                    out,
                    "\n[[virtual_server]]\nname = \"{service}-{kind}{n}\"\naddress = \"{address}\"\n\
                     protocol = \"{protocol}\"\npool = \"{service}{n}\"\nforwarding = \"{forwarding}\"\n\
                     mirror = {{ mode = \"checkpoint\", commit = \"{}\", rules = [ {} ] }}\n",
                    settings.commit,
                    settings.rules,
                    n = number(family),
                );
                if translation == Translation::FullNat {
                    let source: std::net::IpAddr = match family {
                        Family::V4 => plan::server4(plan::SNAT_HOST).into(),
                        Family::V6 => plan::server6(plan::SNAT_HOST).into(),
                    };
                    let _ = writeln!(out, "snat_addresses = [\"{source}\"]");
                }
            }
        }
    }
}

/// Of [`Settings::short_timeouts`].
const SHORT_TIMEOUTS: &str = "tcp_handshake_timeout_s = 2\ntcp_established_timeout_s = 5\ntcp_closing_timeout_s = 2\n\
                              udp_timeout_s = 2\nport_quarantine_s = 1\n";

fn tail(out: &mut String, world: &World, settings: &Settings, side: Side) {
    let others = world.sides().iter().filter(|other| **other != side);
    let peers: Vec<String> = others
        .map(|other| format!(r#"{{ node = {}, address = "{}" }}"#, other.node(), plan::mirror4(*other)))
        .collect();
    let _ = write!(
        out,
        r#"
[flows]
max = 100_000
{timeouts}
[mirror]
port = "mirror"
peers = [ {peers} ]
key_file = "{directory}/mirror.key"
{mirror}
[failover]
virtual_router_id = {router}
priority = {priority}
heartbeat_interval_ms = 5
lease_ms = 36
takeover_after_ms = 50
partition = "{partition}"
preempt = false
state_dir = "{directory}/state-{letter}"
{witness}{failover}
[control]
socket = "{socket}"
"#,
        timeouts = if settings.short_timeouts { SHORT_TIMEOUTS } else { "" },
        peers = peers.join(", "),
        directory = world.directory().display(),
        router = plan::VIRTUAL_ROUTER_ID,
        priority = 200 - side.node(),
        partition = settings.partition,
        letter = side.letter(),
        mirror = settings.mirror,
        witness = if settings.witness { witness_line() } else { String::new() },
        failover = settings.failover,
        socket = paths(world, side).socket.display(),
    );
}

fn witness_line() -> String {
    format!("witness = \"{}:{}\"\n", plan::management4(plan::WITNESS_HOST), plan::WITNESS_PORT)
}

const fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}
