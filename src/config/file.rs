//! The file as it is written: every table and key, with its kind of value and
//! its default. `config/example.toml` explains them; a test holds the two together.

use toml::de::DeValue;

use crate::base::limits::{PAYLOAD_LOOKED_AT, WORKERS_MAX};
use crate::config::checked::{
    Balance, Checkpoints, Commit, HealthCheck, Idle, Lagging, LcoreRole, Method, Partition, Protocol,
    Sealing, VrrpChecksum, VrrpUse,
};
use crate::config::read::{
    Change, FromFile, Key, KnownKey, Presence, Source, join, read_key, refuse_unknown, tables,
};
use crate::config::report::{Place, Report};
use crate::config::value::{
    Address, Argument, Destination, Device, Endpoint, FilePath, ForwardingKind, HostCidr, Int, ListenAddress,
    MirrorKind, Name, Network, Payload, PortRange, PublicKey,
};

/// The last port at which the mirror's range of UDP ports may begin.
pub(crate) const MIRROR_UDP_PORT_MAX: u32 = 65535 - WORKERS_MAX as u32;

/// The last byte of a payload that rules look at.
pub(crate) const PAYLOAD_AT_MAX: u32 = PAYLOAD_LOOKED_AT as u32 - 1;

/// The highest number of a traffic manager.
pub(crate) const MANAGER_MAX: u32 = WORKERS_MAX as u32 - 1;

tables! {
    /// The whole file.
    File {
        appliance: ApplianceFile = required,
        eal: EalFile = {},
        lcores: LcoresFile = required,
        port: Vec<Key<PortFile>> = required,
        route: Vec<Key<RouteFile>> = [],
        pool: Vec<Key<PoolFile>> = [],
        virtual_server: Vec<Key<VirtualServerFile>> = [],
        flows: FlowsFile = {},
        distributor: DistributorFile = {},
        mirror: MirrorFile = optional,
        failover: FailoverFile = required,
        control: ControlFile = {},
    }
    /// `[appliance]`
    ApplianceFile {
        name: Name = required,
        node: Int<1, 65535> = required,
    }
    /// `[eal]`
    EalFile {
        file_prefix: Name = "baton",
        memory_mb: Int<64, 1_048_576> = 256,
        hugepages: bool = true,
        buffers: Int<2048, 16_777_216> = 16384,
        args: Vec<Key<Argument>> = [],
    }
    /// `[lcores]`
    LcoresFile {
        master_cpu: Int<0, 1023> = required,
        worker: Vec<Key<WorkerFile>> = required,
        idle: Idle = "poll",
    }
    /// One of `lcores.worker`.
    WorkerFile {
        cpu: Int<0, 1023> = required,
        roles: Vec<Key<LcoreRole>> = ["distributor", "traffic-manager", "mirror"],
        zone: Name = optional,
    }
    /// One `[[port]]`.
    PortFile {
        name: Name = required,
        device: Device = required,
        addresses: Vec<Key<HostCidr>> = required,
        shared_addresses: Vec<Key<HostCidr>> = [],
        mtu: Int<1280, 9000> = 1500,
        zone: Name = optional,
    }
    /// One `[[route]]`.
    RouteFile {
        destination: Network = required,
        gateway: Address = required,
    }
    /// One `[[pool]]`.
    PoolFile {
        name: Name = required,
        balance: Balance = "round-robin",
        health: HealthFile = optional,
        least_servers: Int<0, 65535> = 0,
        server: Vec<Key<ServerFile>> = required,
    }
    /// A pool's `health`.
    HealthFile {
        check: HealthCheck = required,
        interval_ms: Int<10, 3_600_000> = 1000,
        timeout_ms: Int<1, 3_600_000> = 500,
        rise: Int<1, 1000> = 2,
        fall: Int<1, 1000> = 3,
    }
    /// One of `pool.server`.
    ServerFile {
        address: Endpoint = required,
        weight: Int<0, 1000> = 1,
    }
    /// One `[[virtual_server]]`.
    VirtualServerFile {
        name: Name = required,
        address: Endpoint = required,
        protocol: Protocol = required,
        pool: Name = required,
        forwarding: ForwardingKind = required,
        snat_addresses: Vec<Key<Address>> = [],
        mirror: MirrorModeFile = optional,
        select: Method = optional,
    }
    /// A virtual server's `mirror`.
    MirrorModeFile {
        mode: MirrorKind = required,
        commit: Commit = "hold",
        rules: Vec<Key<RuleFile>> = [],
    }
    /// One of `virtual_server.mirror.rules`.
    RuleFile {
        mirror: bool = required,
        clients: Vec<Key<Network>> = [],
        client_ports: Vec<Key<PortRange>> = [],
        server_ports: Vec<Key<PortRange>> = [],
        dscp: Vec<Key<Int<0, 63>>> = [],
        payload: Payload = optional,
        payload_at: Int<0, PAYLOAD_AT_MAX> = optional,
        duration_min_ms: Int<1, 4_294_967_295> = optional,
        bytes_min: Int<1, 4_294_967_295> = optional,
        packets_min: Int<1, 4_294_967_295> = optional,
        rate_min_kbps: Int<1, 4_294_967_295> = optional,
    }
    /// `[flows]`
    FlowsFile {
        max: Int<256, 268_435_456> = 1_000_000,
        tcp_handshake_timeout_s: Int<1, 3600> = 60,
        tcp_established_timeout_s: Int<1, 2_592_000> = 7440,
        tcp_closing_timeout_s: Int<1, 3600> = 60,
        udp_timeout_s: Int<1, 86_400> = 300,
        port_quarantine_s: Int<0, 3600> = 5,
    }
    /// `[distributor]`
    DistributorFile {
        select: Method = "source",
        ratio: Vec<Key<Int<0, 1000>>> = optional,
        classes: Vec<Key<ClassFile>> = [],
        key: Vec<Key<KeyFile>> = [],
        max_keys: Int<256, 268_435_456> = optional,
        route_to_servers: bool = false,
    }
    /// One of `distributor.classes`.
    ClassFile {
        dscp: Vec<Key<Int<0, 63>>> = required,
        managers: Vec<Key<Int<0, MANAGER_MAX>>> = required,
    }
    /// One of `distributor.key`.
    KeyFile {
        destination: Destination = required,
        protocol: Protocol = required,
        manager: Int<0, MANAGER_MAX> = required,
    }
    /// `[mirror]`
    MirrorFile {
        port: Name = required,
        udp_port: Int<1024, MIRROR_UDP_PORT_MAX> = 7300,
        peers: Vec<Key<PeerFile>> = required,
        key_file: FilePath = required,
        sealing: Sealing = "enforce",
        node_key_file: FilePath = optional,
        hold_timeout_ms: Int<1, 10_000> = 200,
        walk_rate: Int<100, 10_000_000> = 100_000,
        only: Vec<Key<Name>> = [],
        checkpoints: Checkpoints = "acknowledged",
        checkpoint_every_ms: Int<100, 600_000> = 1000,
    }
    /// One of `mirror.peers`.
    PeerFile {
        node: Int<1, 65535> = required,
        address: Address = required,
        public_key: PublicKey = optional,
    }
    /// `[failover]`
    FailoverFile {
        virtual_router_id: Int<1, 255> = required,
        priority: Int<1, 254> = 100,
        heartbeat_interval_ms: Int<1, 10_000> = 5,
        lease_ms: Int<2, 60_000> = 36,
        pause_bound_ms: Int<1, 60_000> = 10,
        takeover_after_ms: Int<3, 120_000> = 50,
        boot_wait_ms: Int<1, 600_000> = 2000,
        partition: Partition = "availability",
        lagging: Lagging = "remove",
        preempt: bool = false,
        vrrp: VrrpUse = "output",
        witness: ListenAddress = optional,
        vrrp_interval_ms: Int<10, 40_950> = 1000,
        vrrp_checksum: VrrpChecksum = "pseudo-header",
        state_dir: FilePath = "/var/lib/baton",
        maintenance: bool = false,
        fence: Vec<Key<Argument>> = [],
        fence_timeout_ms: Int<10, 600_000> = 10_000,
        notify: Vec<Key<Argument>> = [],
        notify_timeout_ms: Int<10, 600_000> = 10_000,
        track: Vec<Key<Name>> = [],
        track_hold_ms: Int<0, 3_600_000> = 1000,
        track_script: TrackScriptFile = optional,
    }
    /// `failover.track_script`
    TrackScriptFile {
        command: Vec<Key<Argument>> = required,
        interval_ms: Int<100, 3_600_000> = 2000,
        timeout_ms: Int<10, 600_000> = 1000,
        rise: Int<1, 1000> = 2,
        fall: Int<1, 1000> = 3,
    }
    /// `[control]`
    ControlFile {
        socket: FilePath = "/run/baton.sock",
        metrics: ListenAddress = optional,
    }
}

/// Every key that a file may hold, in the order of this page.
pub fn known_keys() -> Vec<KnownKey> {
    let mut keys = Vec::new();
    File::known_keys("", Presence::Required, &mut keys);
    keys
}
