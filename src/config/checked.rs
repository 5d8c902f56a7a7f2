//! A configuration that cannot be wrong: every name is resolved, every address
//! is an address, every relation between values holds.

mod distributor;
pub mod policy;

use core::fmt;
use core::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::ids::{GroupId, NodeId, PoolId, PortId, ServerId, VirtualServerId, WorkerId};
use crate::base::time::Duration;
pub use crate::config::checked::distributor::{
    ChosenMethod, Class, Distributor, HashMethod, Managers, Method, NamedKey,
};
use crate::config::checked::policy::Rule;

/// The whole file.
#[derive(Clone, Debug)]
pub struct Checked {
    /// `[appliance]`
    pub appliance: Appliance,
    /// `[eal]`
    pub eal: Eal,
    /// `[lcores]`
    pub lcores: Lcores,
    /// `[[port]]`, indexed by [`PortId`].
    pub ports: Vec<Port>,
    /// `[[route]]`, longest prefix first.
    pub routes: Vec<Route>,
    /// `[[pool]]`
    pub pools: Vec<Pool>,
    /// `[[virtual_server]]`
    pub virtual_servers: Vec<VirtualServer>,
    /// `[flows]`
    pub flows: Flows,
    /// `[distributor]`
    pub distributor: Distributor,
    /// `[mirror]`; without it the appliance is alone.
    pub mirror: Option<Mirror>,
    /// `[failover]`
    pub failover: Failover,
    /// `[control]`
    pub control: Control,
}

/// Who this appliance is.
#[derive(Clone, Debug)]
pub struct Appliance {
    /// Its name, for people.
    pub name: String,
    /// Its number, unique in the group, at least 1.
    pub node: NodeId,
    /// Its traffic group; 0 for now.
    pub group: GroupId,
}

/// How DPDK's environment is started.
#[derive(Clone, Debug)]
pub struct Eal {
    /// `--file-prefix`
    pub file_prefix: String,
    /// `-m`, in MiB.
    pub memory_mb: u32,
    /// Without: `--no-huge`.
    pub hugepages: bool,
    /// Packet buffers in the pool.
    pub buffers: u32,
    /// Passed to the EAL as they are.
    pub args: Vec<String>,
}

/// What a worker lcore does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LcoreRole {
    /// Hashes flows across traffic managers.
    Distributor,
    /// Holds flows and forwards.
    TrafficManager,
    /// Replicates flows to the peer.
    Mirror,
}

/// What a worker does when nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// It spins: least latency, one whole CPU.
    Poll,
    /// It yields the CPU after a while without packets.
    Sleep,
}

/// `[lcores]`
#[derive(Clone, Debug)]
pub struct Lcores {
    /// The CPU of the master core and of the liveness thread.
    pub master_cpu: u32,
    /// The workers, indexed by `WorkerId`: first those that are traffic managers, then those that only distribute; in
    /// the order of the file among each other.
    pub workers: Vec<WorkerLcore>,
    /// What they do when idle.
    pub idle: Idle,
}

impl Lcores {
    /// How many of the workers are traffic managers: the first ones, which own all shards.
    pub fn managers(&self) -> u16 {
        self.workers.iter().filter(|worker| worker.has(LcoreRole::TrafficManager)).count() as u16
    }

    /// The workers that receive from ports.
    pub fn distributors(&self) -> impl Iterator<Item = WorkerId> {
        let workers = self.workers.iter().zip(0..);
        workers.filter(|(worker, _)| worker.has(LcoreRole::Distributor)).map(|(_, number)| WorkerId(number))
    }
}

impl WorkerLcore {
    /// Whether it does this.
    pub fn has(&self, role: LcoreRole) -> bool {
        self.roles.contains(&role)
    }
}

impl LcoreRole {
    /// As the configuration has it.
    pub const fn text(self) -> &'static str {
        match self {
            LcoreRole::Distributor => "distributor",
            LcoreRole::TrafficManager => "traffic-manager",
            LcoreRole::Mirror => "mirror",
        }
    }
}

/// One worker lcore.
#[derive(Clone, Debug)]
pub struct WorkerLcore {
    /// The CPU that it is pinned to.
    pub cpu: u32,
    /// What it does.
    pub roles: Vec<LcoreRole>,
    /// Where it is, for [`ChosenMethod::Topology`]; `None`: by its NUMA node.
    pub zone: Option<String>,
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address, host bits kept.
    pub address: IpAddr,
    /// At most 32 or 128.
    pub prefix_len: u8,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

impl Cidr {
    /// The network's address: host bits zero.
    pub fn network(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => {
                let host = u32::MAX.checked_shr(self.prefix_len.into()).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & !host).into())
            }
            IpAddr::V6(v6) => {
                let host = u128::MAX.checked_shr(self.prefix_len.into()).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & !host).into())
            }
        }
    }

    /// Whether `address` lies in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same_family = self.address.is_ipv4() == address.is_ipv4();
        same_family && Cidr { address, ..*self }.network() == self.network()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// One port.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name, for people and for references.
    pub name: String,
    /// A PCI address, or a DPDK virtual device with its arguments.
    pub device: String,
    /// Its own addresses.
    pub addresses: Vec<Cidr>,
    /// Addresses that float with the role.
    pub shared_addresses: Vec<Cidr>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Where it is, for [`ChosenMethod::Topology`]; `None`: by its NUMA node.
    pub zone: Option<String>,
}

/// One static route.
#[derive(Clone, Debug)]
pub struct Route {
    /// Where to.
    pub destination: Cidr,
    /// By whom: on a network of one of the ports.
    pub gateway: IpAddr,
    /// The port whose network holds the gateway.
    pub port: PortId,
}

/// How a server is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    RoundRobin,
    /// By consistent hash of the client (Maglev).
    Maglev,
}

/// How a server's health is found out.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What is tried; only `tcp` for now.
    pub check: HealthCheck,
    /// Between two checks.
    pub interval: Duration,
    /// After which a check failed.
    pub timeout: Duration,
    /// Successes in a row until a server is up.
    pub rise: u32,
    /// Failures in a row until a server is down.
    pub fall: u32,
}

/// What a health check tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// To open a TCP connection.
    Tcp,
}

/// A pool of real servers.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Given by the name.
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// How a server is chosen.
    pub balance: Balance,
    /// How servers' health is found out; `None`: taken as up.
    pub health: Option<Health>,
    /// With fewer servers that answer, of those that take new flows, the appliance is not healthy; 0: never.
    pub least_servers: u32,
    /// At least one of the file's own, if the pool is.
    pub servers: Vec<Server>,
    /// It is not in the file any more, and stays until its servers have no flows: see [`crate::config::reload`].
    pub retired: bool,
}

/// One real server of a pool (REQ C3).
#[derive(Clone, Debug)]
pub struct Server {
    /// Given by pool name and address.
    pub id: ServerId,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its share; 0: no new flows.
    pub weight: u32,
    /// It is not in the file any more, and stays, without new flows, until it has none.
    pub retired: bool,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How packets reach a real server.
#[derive(Clone, Debug)]
pub enum Forwarding {
    /// The destination is translated; the servers' gateway is this appliance.
    Nat,
    /// Destination and source are translated; sources are taken from these addresses (at least one of the servers' family).
    FullNat(Vec<IpAddr>),
}

/// What of a virtual server's flows is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorMode {
    /// Nothing.
    Off,
    /// Each flow's state.
    Checkpoint(Commit),
}

impl fmt::Display for MirrorMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MirrorMode::Off => "off",
            MirrorMode::Checkpoint(Commit::Hold) => "checkpoint, hold",
            MirrorMode::Checkpoint(Commit::Async) => "checkpoint, async",
        })
    }
}

/// When a mirrored flow's first packet is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// When every in-sync member has acknowledged the flow.
    Hold,
    /// At once.
    Async,
}

/// A virtual server (REQ C1).
#[derive(Clone, Debug)]
pub struct VirtualServer {
    /// Given by the name.
    pub id: VirtualServerId,
    /// Its name.
    pub name: String,
    /// The virtual address.
    pub address: IpAddr,
    /// The virtual port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Index of its pool in [`Checked::pools`].
    pub pool: usize,
    /// How packets reach its servers.
    pub forwarding: Forwarding,
    /// What of it is mirrored.
    pub mirror: MirrorMode,
    /// Which flows are, with [`MirrorMode::Checkpoint`]: the first rule that holds says it. Of those for which none does,
    /// all are.
    pub rules: Vec<Rule>,
    /// How the traffic manager of a new connection to it is chosen.
    pub select: Method,
    /// It is not in the file any more, and stays, without new flows, until it has none.
    pub retired: bool,
    /// Source-NAT addresses that it had, and that its flows may have.
    pub retired_sources: Vec<IpAddr>,
}

impl VirtualServer {
    /// The addresses by which the sources of new flows are translated.
    pub fn sources(&self) -> &[IpAddr] {
        match &self.forwarding {
            Forwarding::Nat => &[],
            Forwarding::FullNat(addresses) => addresses,
        }
    }

    /// The addresses by which the sources of its flows may have been translated.
    pub fn all_sources(&self) -> impl Iterator<Item = IpAddr> {
        self.sources().iter().chain(&self.retired_sources).copied()
    }
}

/// `[flows]`
#[derive(Clone, Debug)]
pub struct Flows {
    /// Flows at most; at the limit new ones are refused and counted.
    pub max: u32,
    /// Idle time-out of a TCP connection being opened.
    pub tcp_handshake_timeout: Duration,
    /// Idle time-out of an established TCP connection.
    pub tcp_established_timeout: Duration,
    /// Idle time-out of a TCP connection that is closing or was reset.
    pub tcp_closing_timeout: Duration,
    /// Idle time-out of a UDP flow.
    pub udp_timeout: Duration,
    /// How long a source-NAT port rests after its flow's end.
    pub port_quarantine: Duration,
}

/// `[mirror]`
#[derive(Clone, Debug)]
pub struct Mirror {
    /// The dedicated port.
    pub port: PortId,
    /// The first UDP port of the mirror streams: stream to worker `j` of a peer goes to `udp_port + j`.
    pub udp_port: u16,
    /// The other members.
    pub peers: Vec<Peer>,
    /// The file of the key that members share.
    pub key_file: PathBuf,
    /// Members' own keys, if they are pinned.
    pub pinning: Option<Pinning>,
    /// How long a held packet waits before the peer leaves the in-sync set.
    pub hold_timeout: Duration,
    /// Records per second and worker at most while a peer is brought up to date.
    pub walk_rate: u32,
    /// The virtual servers of which this appliance tracks the flows while another one leads; all of them if none is named.
    pub only: Vec<VirtualServerId>,
    /// How far connections have come is said again in rounds that begin so often, without acknowledgements; `None`: it is
    /// acknowledged whenever it changes.
    pub maintenance_every: Option<Duration>,
}

/// How a leader keeps a peer up to date of the flows that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoints {
    /// Each change is acknowledged.
    Acknowledged,
    /// Changes are said without acknowledgement, and all again and again.
    Periodic,
}

/// Members' own keys, instead of the one that they share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinning {
    /// How far it is.
    pub sealing: Sealing,
    /// The file of this node's own key.
    pub node_key_file: PathBuf,
    /// The public keys of the peers.
    pub peers: Vec<(NodeId, [u8; 32])>,
}

/// How far a group is on its way from the key file to pinned keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealing {
    /// Pinned keys are accepted, and those of the key file used.
    ReceiveOnly,
    /// Pinned keys are used, and those of the key file accepted.
    Permissive,
    /// Pinned keys alone are used and accepted.
    Enforce,
}

/// Another member.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its number.
    pub node: NodeId,
    /// Its own address on the mirror network.
    pub address: IpAddr,
}

/// What happens in a full partition (DESIGN "The promise").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// Both serve.
    Availability,
    /// Nobody is promoted on silence.
    Safety,
}

/// What becomes of a standby in sync that is heard, and does not acknowledge in time (REQ B7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lagging {
    /// It leaves the in-sync set, and packets go on without it.
    Remove,
    /// It stays, and packets wait for it.
    Wait,
}

/// What other VRRP routers of the group's virtual router are to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpUse {
    /// Rivals: it advertises, and decides nothing by what it hears.
    Output,
    /// Those of a higher priority than every member's are given way to. VRRP is not authenticated: whoever can send on
    /// the link can take service away.
    Yield,
}

/// What the checksum of VRRP covers over IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpChecksum {
    /// The message and a pseudo header.
    PseudoHeader,
    /// The message alone (RFC 9568 section 5.2.8).
    Message,
}

/// `[failover]`
#[derive(Clone, Debug)]
pub struct Failover {
    /// The last byte of the virtual MAC (RFC 9568 section 7.3), 1 to 255.
    pub virtual_router_id: u8,
    /// At boot the higher priority leads, 1 to 254.
    pub priority: u8,
    /// Between heartbeats.
    pub heartbeat_interval: Duration,
    /// How long the active may send after its last proof of life.
    pub lease: Duration,
    /// Silence after which a standby takes over.
    pub takeover_after: Duration,
    /// How long a booting appliance waits for peers; with peers, long enough to hear an active that is there.
    pub boot_wait: Duration,
    /// What happens in a full partition.
    pub partition: Partition,
    /// What becomes of a standby in sync that does not acknowledge in time.
    pub lagging: Lagging,
    /// Whether the higher priority takes the lead back.
    pub preempt: bool,
    /// Whether routers of a higher priority are given way to.
    pub vrrp: VrrpUse,
    /// Between two VRRP advertisements, a multiple of 10 ms.
    pub vrrp_interval: Duration,
    /// What their checksum covers over IPv4.
    pub vrrp_checksum: VrrpChecksum,
    /// Who says which member may send when they do not hear each other; `None`: nobody.
    pub witness: Option<core::net::SocketAddr>,
    /// Where terms are kept.
    pub state_dir: PathBuf,
    /// Whether it starts under maintenance: it never leads until the operator puts it into service.
    pub maintenance: bool,
    /// What is run to make sure that a silent leader sends nothing; `None`: nothing.
    pub fence: Option<Hook>,
    /// What is run when the role changes; `None`: nothing.
    pub notify: Option<Hook>,
    /// What counts for its health.
    pub track: Track,
}

/// What counts for an appliance's health, besides its pools' servers.
#[derive(Clone, Debug)]
pub struct Track {
    /// Their links have to be up. The mirror port is none of them.
    pub ports: Vec<PortId>,
    /// A command that has to succeed; `None`: none is run.
    pub script: Option<TrackScript>,
    /// A standby in sync that is healthier for so long is handed over to.
    pub hold: Duration,
}

/// A command that is run again and again, and says by its exit status whether all is well.
#[derive(Clone, Debug)]
pub struct TrackScript {
    /// What is run; after its timeout it has failed.
    pub command: Hook,
    /// From the end of a run to the next one.
    pub interval: Duration,
    /// It has recovered when so many runs in a row succeeded.
    pub rise: u16,
    /// It has failed when so many runs in a row did.
    pub fall: u16,
}

/// An operator's command, which is run without a shell.
#[derive(Clone, Debug)]
pub struct Hook {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// After which it is killed.
    pub timeout: Duration,
}

/// `[control]`
#[derive(Clone, Debug)]
pub struct Control {
    /// The unix socket of the control interface.
    pub socket: PathBuf,
    /// Where metrics are served (Prometheus text format); `None`: nowhere.
    pub metrics: Option<core::net::SocketAddr>,
}
