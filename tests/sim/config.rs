//! The configuration of the appliances of a run.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use baton::config::snapshot::Snapshot;

use crate::division::Division;

/// What a run may vary.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub closing_timeout_s: u32,
    pub udp_timeout_s: u32,
    pub quarantine_s: u32,
    pub walk_rate: u32,
    /// `partition = "safety"`.
    pub is_safe: bool,
    /// A witness is asked who may send.
    pub has_witness: bool,
    /// There are rules about what is mirrored of half of the virtual servers.
    pub has_rules: bool,
    /// The place of the member that tracks the flows of [`TRACKED`] only.
    pub partial: Option<usize>,
    /// `checkpoints = "periodic"`.
    pub is_periodic: bool,
    /// How the traffic manager of a new connection is chosen, of each virtual server.
    pub select: [&'static str; SERVICES.len()],
}

/// Ways to choose it, first those that give each connection a shard of its own, and so enough source-NAT ports to many.
pub const SELECT: [&str; 11] = [
    "source",
    "key",
    "round-robin",
    "least-connections",
    "static-ratio",
    "dynamic-ratio",
    "packet-rate",
    "completion-rate",
    "topology",
    "source-address",
    "destination",
];

/// How many of them any virtual server may have.
pub const SELECT_EVENLY: usize = 9;

/// A virtual server, as clients and checkers know it.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    pub name: &'static str,
    address: &'static str,
    pub udp: bool,
    pub full_nat: bool,
    pub hold: bool,
}

const fn service(
    name: &'static str,
    address: &'static str,
    udp: bool,
    full_nat: bool,
    hold: bool,
) -> Service {
    Service { name, address, udp, full_nat, hold }
}

pub const SERVICES: [Service; 10] = [
    service("nat-hold", "10.1.0.100:80", false, false, true),
    service("full-hold", "10.1.0.101:80", false, true, true),
    service("nat-async", "10.1.0.102:80", false, false, false),
    service("full-async", "10.1.0.103:80", false, true, false),
    service("nat-hold-6", "[fd01::100]:80", false, false, true),
    service("full-hold-6", "[fd01::101]:80", false, true, true),
    service("full-async-6", "[fd01::103]:80", false, true, false),
    service("dns", "10.1.0.104:53", true, true, true),
    service("dns-async", "10.1.0.105:53", true, true, false),
    service("dns-6", "[fd01::104]:53", true, false, true),
];

/// What a member tracks that does not track everything.
pub const TRACKED: [&str; 4] = ["nat-hold", "full-async", "full-hold-6", "dns"];

impl Service {
    pub fn address(&self) -> SocketAddr {
        self.address.parse().expect("an address")
    }
}

const HEAD: &str = r#"
[appliance]
name = "sim-NODE"
node = NODE
[eal]
file_prefix = "sim"
[lcores]
master_cpu = 0
worker = [
WORKERS]
[[port]]
name = "client"
device = "net_null0"
addresses = ["10.1.0.2NODE/24", "fd01::2NODE/64"]
[[port]]
name = "server"
device = "net_null1"
addresses = ["10.2.0.2NODE/24", "fd02::2NODE/64"]
shared_addresses = ["10.2.0.1/24", "fd02::1/64"]
[[port]]
name = "mirror"
device = "net_null2"
addresses = ["10.9.0.NODE/24"]
[[pool]]
name = "v4"
balance = "round-robin"
server = [ { address = "10.2.0.10:8080" }, { address = "10.2.0.11:8080" } ]
[[pool]]
name = "v4-async"
balance = "round-robin"
server = [ { address = "10.2.0.10:8081" }, { address = "10.2.0.11:8081" } ]
[[pool]]
name = "v6"
balance = "maglev"
server = [ { address = "[fd02::10]:8080" }, { address = "[fd02::11]:8080" } ]
DISTRIBUTOR[flows]
max = 2048
tcp_closing_timeout_s = CLOSING
udp_timeout_s = DATAGRAM
port_quarantine_s = QUARANTINE
[mirror]
port = "mirror"
peers = [ PEERS ]
key_file = "k"
walk_rate = WALK
ONLYMAINTENANCE[failover]
virtual_router_id = 51
priority = PRIORITY
boot_wait_ms = 300
track = ["client", "server"]
track_hold_ms = 100
partition = "PARTITION"
WITNESSstate_dir = "s"
[control]
socket = "a.sock"
"#;

const PERIODIC: &str = "checkpoints = \"periodic\"\ncheckpoint_every_ms = 200\n";

/// What is mirrored of virtual servers in kinds of runs with rules: young flows are left out, those that have carried much, and
/// some for ever.
const RULES: [&str; 4] = [
    "",
    ", rules = [ { mirror = true, duration_min_ms = 60 }, { mirror = false } ]",
    ", rules = [ { mirror = false, packets_min = 12 } ]",
    ", rules = [ { mirror = false, client_ports = [\"1-45000\"] }, { mirror = false, rate_min_kbps = 40 }, \
     { mirror = true, payload = \"hex:00\" }, { mirror = false, duration_min_ms = 1 } ]",
];

fn distributor(options: &Options, division: Division) -> String {
    if options.select.iter().all(|select| *select == "source") {
        return String::new();
    }
    let ratio: Vec<String> = (0..division.workers()).map(|worker| (worker % 3 + 1).to_string()).collect();
    let ratio = if options.select.contains(&"static-ratio") {
        format!("ratio = [{}]\n", ratio.join(", "))
    } else {
        String::new()
    };
    format!("[distributor]\nmax_keys = 8192\n{ratio}")
}

/// The configuration of one node of a group of so many. `flows_max`: less than a file may say.
pub fn snapshot(
    node: u16,
    nodes: u16,
    options: &Options,
    division: Division,
    flows_max: Option<u32>,
) -> Arc<Snapshot> {
    let peers = (1..=nodes).filter(|peer| *peer != node);
    let peers: Vec<String> =
        peers.map(|peer| format!("{{ node = {peer}, address = \"10.9.0.{peer}\" }}")).collect();
    let is_partial = options.partial == Some(usize::from(node) - 1);
    let mut text = HEAD
        .replace("WORKERS", &division.config())
        .replace("DISTRIBUTOR", &distributor(options, division))
        .replace("PEERS", &peers.join(", "))
        .replace("NODE", &node.to_string())
        .replace("PRIORITY", &(250 - node * 50).to_string())
        .replace("CLOSING", &options.closing_timeout_s.to_string())
        .replace("DATAGRAM", &options.udp_timeout_s.to_string())
        .replace("QUARANTINE", &options.quarantine_s.to_string())
        .replace("PARTITION", if options.is_safe { "safety" } else { "availability" })
        .replace("WITNESS", if options.has_witness { "witness = \"192.0.2.9:7878\"\n" } else { "" })
        .replace("WALK", &options.walk_rate.to_string())
        .replace("ONLY", &if is_partial { format!("only = {TRACKED:?}\n") } else { String::new() })
        .replace("MAINTENANCE", if options.is_periodic { PERIODIC } else { "" });
    for (number, (service, select)) in SERVICES.iter().zip(options.select).enumerate() {
        let v6 = service.address().is_ipv6();
        let protocol = if service.udp { "udp" } else { "tcp" };
        // Two virtual servers that keep their clients' addresses, and share servers, are to be selected for alike: a client's
        // connections from one port to both look the same to a server.
        let pool = match (v6, service.full_nat || service.hold) {
            (true, _) => "v6",
            (false, true) => "v4",
            (false, false) => "v4-async",
        };
        let forwarding = match (service.full_nat, v6) {
            (false, _) => "forwarding = \"nat\"",
            (true, false) => "forwarding = \"full-nat\"\nsnat_addresses = [\"10.2.0.100\"]",
            (true, true) => "forwarding = \"full-nat\"\nsnat_addresses = [\"fd02::100\"]",
        };
        let commit = if service.hold && !options.is_periodic { "hold" } else { "async" };
        text += &format!(
            "[[virtual_server]]\nname = \"{}\"\naddress = \"{}\"\nprotocol = \"{protocol}\"\npool = \"{pool}\"\n\
             select = \"{select}\"\n{forwarding}\nmirror = {{ mode = \"checkpoint\", commit = \"{commit}\"{} }}\n",
            service.name,
            service.address,
            if options.has_rules { RULES[number % RULES.len()] } else { "" }
        );
    }
    let mut checked = baton::config::load(Path::new("sim.toml"), &text).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>())
    });
    checked.flows.max = flows_max.unwrap_or(checked.flows.max);
    Arc::new(Snapshot { generation: 1, checked })
}
