//! The configurations of the measured appliance and of its peer, as text that baton itself
//! reads and checks.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, bail};
use baton::base::ids::PortId;
use baton::config::checked::Checked;
use core::net::Ipv4Addr;

use crate::ring::frames::Endpoint;
use crate::ring::plan::{Forwarding, Mirroring, Plan};

/// Clients are behind this router.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The virtual server, for TCP and for UDP.
pub const VIRTUAL: Endpoint = Endpoint { address: Ipv4Addr::new(10, 1, 0, 100), port: 80 };
/// Real servers.
pub const SERVERS: u8 = 64;
/// Source-NAT addresses: with the servers, room for some 33 million flows on one member of two.
pub const SNAT_ADDRESSES: u8 = 16;
/// The virtual router's link address for IPv4, of `virtual_router_id = 51`.
pub const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 51];
/// Buffers of the members' pool.
pub const BUFFERS: u32 = 16383;

/// How long a closed connection is kept, in seconds: the shortest that there is.
pub const CLOSING_S: u32 = 1;

/// Ports, in the configuration's order.
pub const CLIENT: PortId = PortId(0);
/// See [`CLIENT`].
pub const SERVER: PortId = PortId(1);
/// See [`CLIENT`].
pub const MIRROR: PortId = PortId(2);

/// A real server.
pub const fn server(number: u8) -> Endpoint {
    Endpoint { address: Ipv4Addr::new(10, 2, 1, number), port: 8080 }
}

/// A real server's number.
pub fn server_number(endpoint: Endpoint) -> Option<u8> {
    let number = endpoint.address.octets()[3];
    (number < SERVERS && endpoint == server(number)).then_some(number)
}

/// A source-NAT address.
pub const fn snat(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 2, number)
}

/// A source-NAT address's number.
pub fn snat_number(address: Ipv4Addr) -> Option<u8> {
    let number = address.octets()[3];
    (number < SNAT_ADDRESSES && address == snat(number)).then_some(number)
}

/// A member's own address on the mirror port.
pub const fn member(node: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, node as u8)
}

/// The configuration of one member (1 or 2) for a plan, with room for so many flows.
pub fn config(plan: &Plan, node: u16, flows_max: u32) -> Result<Checked> {
    let mut text = String::new();
    let cpu = plan.cpu;
    let _ = write!(
        text,
        r#"
[appliance]
name = "perf-{node}"
node = {node}
[eal]
file_prefix = "baton-perf-{process}"
memory_mb = 128
buffers = {BUFFERS}
args = ["--no-telemetry"]
[lcores]
master_cpu = {cpu}
worker = [ {{ cpu = {cpu} }} ]
idle = "poll"
[[port]]
name = "client"
device = "net_ring{client}"
addresses = ["10.1.0.{host}/24"]
[[port]]
name = "server"
device = "net_ring{server}"
addresses = ["10.2.0.{host}/16"]
shared_addresses = ["10.2.0.1/16"]
[[port]]
name = "mirror"
device = "net_ring{mirror}"
addresses = ["10.9.0.{node}/24"]
[[route]]
destination = "0.0.0.0/0"
gateway = "{GATEWAY}"
[flows]
max = {flows_max}
tcp_closing_timeout_s = {CLOSING_S}
[failover]
virtual_router_id = 51
priority = 200
state_dir = "s"
[control]
socket = "s.sock"
"#,
        process = std::process::id(),
        host = node + 1,
        client = plan.rings,
        server = plan.rings + 1,
        mirror = plan.rings + 2,
    );
    let servers: Vec<String> = (0..SERVERS)
        .map(|number| format!("{{ address = \"{}:{}\" }}", server(number).address, server(number).port))
        .collect();
    let _ =
        writeln!(text, "[[pool]]\nname = \"web\"\nbalance = \"maglev\"\nserver = [ {} ]", servers.join(", "));
    for protocol in ["tcp", "udp"] {
        let _ = writeln!(
            text,
            "[[virtual_server]]\nname = \"{protocol}\"\naddress = \"{}:{}\"\nprotocol = \"{protocol}\"\n\
             pool = \"web\"\nforwarding = \"{}\"",
            VIRTUAL.address,
            VIRTUAL.port,
            plan.forwarding.name()
        );
        if plan.forwarding == Forwarding::FullNat {
            let addresses: Vec<String> = (0..SNAT_ADDRESSES).map(|n| format!("\"{}\"", snat(n))).collect();
            let _ = writeln!(text, "snat_addresses = [ {} ]", addresses.join(", "));
        }
        let mirror = match plan.mirroring {
            Mirroring::Off => "mode = \"off\"",
            Mirroring::Async => "mode = \"checkpoint\", commit = \"async\"",
            Mirroring::Hold => "mode = \"checkpoint\", commit = \"hold\"",
        };
        let _ = writeln!(text, "mirror = {{ {mirror} }}");
    }
    if plan.mirroring != Mirroring::Off {
        let _ = writeln!(
            text,
            "[mirror]\nport = \"mirror\"\npeers = [ {{ node = {peer}, address = \"{}\" }} ]\nkey_file = \"k\"",
            member(3 - node),
            peer = 3 - node
        );
        if let Some(rate) = plan.walk_rate {
            let _ = writeln!(text, "walk_rate = {rate}");
        }
    }
    match baton::config::load(Path::new("perf.toml"), &text) {
        Ok(checked) => Ok(checked),
        Err(errors) => bail!(errors.iter().map(|error| format!("{error}\n")).collect::<String>()),
    }
}
