//! A small configuration for this room's tests: a client port, a server port and a
//! mirror port, as in the design's example.

use core::net::IpAddr;
use std::sync::Arc;

use crate::base::ids::{GroupId, NodeId, PoolId, PortId, ServerId, VirtualServerId};
use crate::base::time::{Duration, Instant};
use crate::config::checked::*;
use crate::config::snapshot::Snapshot;
use crate::master::{Master, MasterSetup};
use crate::wire::MacAddress;

pub(crate) const CLIENT: PortId = PortId(0);
pub(crate) const SERVER: PortId = PortId(1);
pub(crate) const MIRROR: PortId = PortId(2);

/// The MAC of someone else on the client port's link.
pub(crate) const THEIRS: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x50]);

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn cidr(text: &str) -> Cidr {
    let (address, prefix_len) = text.split_once('/').unwrap();
    Cidr { address: ip(address), prefix_len: prefix_len.parse().unwrap() }
}

pub(crate) fn macs() -> Vec<MacAddress> {
    (1..4).map(|n| MacAddress([2, 0, 0, 0, 1, n])).collect()
}

fn port(name: &str, addresses: &[&str], shared: &[&str]) -> Port {
    Port {
        name: name.into(),
        device: format!("net_null_{name}"),
        addresses: addresses.iter().map(|a| cidr(a)).collect(),
        shared_addresses: shared.iter().map(|a| cidr(a)).collect(),
        mtu: 1500,
        zone: None,
    }
}

fn virtual_server(n: u32, address: &str, forwarding: Forwarding) -> VirtualServer {
    VirtualServer {
        id: VirtualServerId(n),
        name: format!("vs{n}"),
        address: ip(address),
        port: 80,
        protocol: Protocol::Tcp,
        pool: 0,
        forwarding,
        mirror: MirrorMode::Off,
        rules: Vec::new(),
        select: Method::Hash(HashMethod::Source),
        retired: false,
        retired_sources: Vec::new(),
    }
}

fn server(n: u32, address: &str) -> Server {
    Server { id: ServerId(n), address: ip(address), port: 80, weight: 1, retired: false }
}

pub(crate) fn checked() -> Checked {
    Checked {
        appliance: Appliance { name: "baton-a".into(), node: NodeId(1), group: GroupId(0) },
        eal: Eal {
            file_prefix: "a".into(),
            memory_mb: 64,
            hugepages: false,
            buffers: 1024,
            args: Vec::new(),
        },
        lcores: Lcores { master_cpu: 0, workers: Vec::new(), idle: Idle::Sleep },
        ports: vec![
            port("client", &["10.1.0.2/24", "fd01::2/64"], &[]),
            port("server", &["10.2.0.2/24", "fd02::2/64"], &["10.2.0.1/24", "fd02::1/64"]),
            port("mirror", &["10.9.0.1/24"], &[]),
        ],
        routes: vec![Route { destination: cidr("0.0.0.0/0"), gateway: ip("10.1.0.1"), port: CLIENT }],
        pools: vec![Pool {
            id: PoolId(1),
            name: "web".into(),
            balance: Balance::RoundRobin,
            health: None,
            least_servers: 0,
            servers: vec![server(1, "10.2.0.10"), server(2, "fd02::10"), server(3, "198.51.100.7")],
            retired: false,
        }],
        virtual_servers: vec![
            virtual_server(1, "10.1.0.100", Forwarding::FullNat(vec![ip("10.2.0.100")])),
            virtual_server(2, "fd01::100", Forwarding::Nat),
            virtual_server(3, "192.0.2.80", Forwarding::Nat),
        ],
        flows: Flows {
            max: 1000,
            tcp_handshake_timeout: Duration::from_secs(10),
            tcp_established_timeout: Duration::from_secs(300),
            tcp_closing_timeout: Duration::from_secs(10),
            udp_timeout: Duration::from_secs(30),
            port_quarantine: Duration::from_secs(10),
        },
        distributor: Distributor {
            select: Method::Hash(HashMethod::Source),
            ratio: Vec::new(),
            classes: Vec::new(),
            keys: Vec::new(),
            remembers: false,
            max_keys: 256,
            route_to_servers: false,
        },
        mirror: Some(Mirror {
            only: Vec::new(),
            port: MIRROR,
            udp_port: 7000,
            peers: vec![Peer { node: NodeId(2), address: ip("10.9.0.2") }],
            key_file: "mirror.key".into(),
            pinning: None,
            hold_timeout: Duration::from_millis(100),
            walk_rate: 1000,
            maintenance_every: None,
        }),
        failover: Failover {
            virtual_router_id: 51,
            priority: 200,
            heartbeat_interval: Duration::from_millis(5),
            lease: Duration::from_millis(36),
            takeover_after: Duration::from_millis(50),
            boot_wait: Duration::from_millis(500),
            partition: Partition::Availability,
            lagging: Lagging::Remove,
            preempt: false,
            vrrp: VrrpUse::Output,
            vrrp_interval: Duration::from_millis(1000),
            vrrp_checksum: VrrpChecksum::PseudoHeader,
            state_dir: "state".into(),
            witness: None,
            fence: None,
            notify: None,
            maintenance: false,
            track: Track { ports: Vec::new(), script: None, hold: Duration::from_millis(1000) },
        },
        control: Control { socket: "baton.sock".into(), metrics: None },
    }
}

/// One of that configuration, which has just started.
pub(crate) fn standby() -> Master {
    Master::new(MasterSetup {
        snapshot: Arc::new(Snapshot { generation: 1, checked: checked() }),
        link_addresses: macs().iter().map(|mac| mac.0).collect(),
        last_seen: Vec::new(),
        distributors: 0,
        now: Instant::ZERO,
        seed: 1,
    })
}
