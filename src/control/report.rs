//! What the control interface answers: one struct for each question, the same
//! as JSON, in the command line's tables ([`super::print`]) and in tests.

use core::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::base::counters::{Counter, Counters};
use crate::base::ids::{NodeId, PortId, ShardId, Term, Version, WorkerId};
use crate::base::limits::FLOWS_SHOWN_MAX;
use crate::config::checked::{LcoreRole, Protocol};
use crate::config::mirrored::Edition;
pub use crate::control::happened::{EventLine, EventReport, StandingLine};
pub use crate::control::mirroring::{
    Bucket, DigestReport, ErrorReport, Histogram, HoldReport, LatencyReport, MirrorPeerReport, MirrorReport,
    MirrorState, RateReport, StreamReport, WalkReport,
};
use crate::control::rss::RssReport;
use crate::failover::State;
use crate::failover::distrust::DisbelievedStatus;
use crate::failover::keys::Proven;
use crate::failover::role::Role;
use crate::failover::status::{PeerStatus, WitnessView};

/// Who this appliance is, who leads, how its workers and peers are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// `appliance.name`
    pub name: String,
    /// `appliance.node`
    pub node: NodeId,
    /// baton's version.
    pub version: String,
    /// What it does now.
    pub role: Role,
    /// What that comes to for the operator.
    pub state: State,
    /// Who leads, as far as is known.
    pub leader: Option<NodeId>,
    /// In a partition, with `partition = "safety"`: only the operator can promote it.
    pub waits_for_operator: bool,
    /// Whether it could take the lead: not, when terms cannot be reserved in `failover.state_dir`.
    pub can_lead: bool,
    /// Whether its operator has taken it out of service (`baton maintenance`), so that it does not lead.
    pub maintenance: bool,
    /// What of the things that `failover.track` and the pools name is wrong, one sentence each.
    pub ailments: Vec<String>,
    /// How often it took over from a leader, since its start.
    pub takeovers: u64,
    /// Whether it was promoted outside the in-sync set: flows may be missing.
    pub degraded: bool,
    /// It leads, and every configured peer is in sync with it.
    pub synchronized: bool,
    /// The term it follows.
    pub term: Term,
    /// The generation of its configuration.
    pub generation: u64,
    /// Since its process started, in milliseconds.
    pub uptime_ms: u64,
    /// Until its lease ends, in milliseconds; `None`: it holds none.
    pub lease_ms: Option<u64>,
    /// How things are with the witness; `None`: there is none (`failover.witness`).
    #[serde(default)]
    pub witness: Option<WitnessView>,
    /// The members of the in-sync set, itself included.
    pub in_sync: Vec<NodeId>,
    /// Its workers: traffic managers, and behind them lcores that only distribute.
    pub workers: Vec<WorkerReport>,
    /// The flows of the traffic manager that has most against the mean; `None`: there are no flows.
    pub skew: Option<f64>,
    /// The other members.
    pub peers: Vec<PeerReport>,
    /// Its flows.
    pub flows: FlowTotals,
    /// Its packet buffers.
    pub buffers: BufferTotals,
}

/// A role, as JSON and tables say it.
pub const fn role_text(role: Role) -> &'static str {
    match role {
        Role::Booting => "booting",
        Role::Standby => "standby",
        Role::Installing => "installing",
        Role::Active => "active",
        Role::Quiescing => "quiescing",
        Role::Resigning => "resigning",
        Role::Silenced => "silenced",
        Role::Left => "left",
    }
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its number.
    pub worker: WorkerId,
    /// Where it runs.
    pub cpu: u32,
    /// What it does.
    pub roles: Vec<LcoreRole>,
    /// Shards it owns.
    pub shards: u32,
    /// Those of them that were moved to it from where they are at first.
    pub moved: u32,
    /// Flows in them.
    pub flows: u64,
    /// Of the last second, the part in which it had something to do, in percent: its polls that found something
    /// against empty ones and rests, by time. `None`: it did not move.
    pub load_percent: Option<f64>,
    /// Of the last second, the cycles of the processor's time-stamp counter that a packet took, waiting for
    /// nothing included. `None`: no packet came.
    pub cycles_per_packet: Option<f64>,
    /// Rounds of its loop since its start.
    pub turns: u64,
    /// Those that found something to do.
    pub busy_turns: u64,
    /// Time in those, in microseconds.
    pub busy_us: u64,
    /// Time in the others, rests included, in microseconds.
    pub empty_us: u64,
    /// Packets that it took from ports and from other lcores, since its start.
    pub packets: u64,
    /// Whether it moved since it was last looked at.
    pub progressing: bool,
}

/// One other member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its number.
    pub node: NodeId,
    /// What it says that it does; `None`: it was not heard.
    pub role: Option<Role>,
    /// What that comes to.
    pub state: Option<State>,
    /// Whether it is in the in-sync set.
    pub in_sync: bool,
    /// The virtual servers that it tracks, by name; none: all.
    #[serde(default)]
    pub only: Vec<String>,
    /// What hinders it from having every flow, as part of a sentence; `None`: nothing, or this appliance does not lead.
    pub hindrance: Option<String>,
    /// Whether it says that it could take the lead; `None`: it was not heard.
    pub can_lead: Option<bool>,
    /// Whether it says to be out of service; `None`: it was not heard.
    pub maintenance: Option<bool>,
    /// How many of the things tracked there are wrong, as it says; `None`: it was not heard.
    pub ailing: Option<u8>,
    /// The generation of the configuration that it goes by; `None`: it does not say.
    #[serde(default)]
    pub configuration: Option<u64>,
    /// Whether its services are those of this appliance.
    #[serde(default)]
    pub same_services: Option<bool>,
    /// The term that it says to lead or follow; `None`: it was not heard.
    #[serde(default)]
    pub term: Option<Term>,
    /// The name of the key that this appliance proves to it; `None`: it is of an earlier version.
    #[serde(default)]
    pub own_key: Option<String>,
    /// Those of all keys that it accepts of it.
    #[serde(default)]
    pub accepted_keys: Vec<String>,
    /// That of the key that it proves; `None`: none that is accepted here, or it does not say.
    #[serde(default)]
    pub key: Option<String>,
    /// It proves a key that is not accepted here.
    #[serde(default)]
    pub other_key: bool,
    /// What was heard in its name and not believed, since the start; `None`: nothing that is worth a word.
    #[serde(default)]
    pub disbelieved: Option<DisbelievedReport>,
    /// Since it was last heard on any path, in milliseconds; `None`: never.
    pub heard_ms_ago: Option<u64>,
    /// Whether both directions work, for each port.
    pub paths: Vec<PathReport>,
}

impl PeerReport {
    /// From what the failover machine knows, of an appliance that goes by `own`; `port_name` names a port.
    pub fn new(status: &PeerStatus, own: Edition, port_name: impl Fn(PortId) -> String) -> PeerReport {
        let millis = |micros: Option<u64>| micros.map(|micros| micros / 1000);
        let paths = status.paths.iter().map(|path| PathReport {
            port: port_name(path.port),
            heard_ms_ago: millis(path.heard_ago_us),
            two_way: path.hears_us,
        });
        PeerReport {
            node: status.node,
            role: status.role,
            state: status.state,
            in_sync: status.in_sync,
            only: Vec::new(),
            hindrance: None,
            can_lead: status.can_lead,
            maintenance: status.maintenance,
            ailing: status.failed,
            configuration: status.edition.map(|edition| edition.generation),
            same_services: status.edition.map(|edition| edition == own),
            term: status.term,
            own_key: Some(status.key.own.to_string()),
            accepted_keys: status.key.accepted.iter().map(ToString::to_string).collect(),
            key: match status.key.proven {
                Proven::Key(name) => Some(name.to_string()),
                Proven::Nothing | Proven::Unsaid | Proven::Other => None,
            },
            other_key: status.key.proven == Proven::Other,
            disbelieved: status.disbelieved.as_ref().map(DisbelievedReport::new),
            heard_ms_ago: millis(status.heard_ago_us),
            paths: paths.collect(),
        }
    }
}

/// What was heard in a peer's name and not believed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DisbelievedReport {
    /// The newest reason, as a sentence.
    pub what: String,
    /// Since something was last not believed for it, in milliseconds.
    pub ms_ago: u64,
    /// How many frames were not believed, for any reason.
    pub count: u64,
}

impl DisbelievedReport {
    /// From what the failover machine knows.
    pub fn new(status: &DisbelievedStatus) -> DisbelievedReport {
        DisbelievedReport {
            what: status.newest.to_string(),
            ms_ago: status.ago_us / 1000,
            count: status.count,
        }
    }
}

/// One path of liveness to a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    /// The port's name.
    pub port: String,
    /// Since the peer was last heard on it, in milliseconds; `None`: never.
    pub heard_ms_ago: Option<u64>,
    /// Whether the peer hears this appliance on it.
    pub two_way: bool,
}

/// Flows, counted. DESIGN "The promise": what is unprotected is always visible.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowTotals {
    /// In the table.
    pub active: u64,
    /// Room in the table.
    pub max: u64,
    /// Acknowledged, as applied, by every in-sync member.
    pub protected: u64,
    /// Mirrored, and not (yet) acknowledged in their newest state.
    pub unprotected: u64,
    /// For how long the oldest of those has been so, in milliseconds.
    pub oldest_unprotected_ms: u64,
    /// Not mirrored, as their virtual server, its rules or an operator say: unprotected by choice.
    pub left_out: u64,
    /// Source-NAT ports that rest after their flow's end.
    pub ports_resting: u64,
}

/// Packet buffers, counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BufferTotals {
    /// In the pool.
    pub total: u64,
    /// In use: in queues, held, or on their way.
    pub in_use: u64,
}

/// Which flows are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowFilter {
    /// At most as many; never more than [`FLOWS_SHOWN_MAX`].
    pub limit: usize,
    /// Of this virtual server alone.
    pub virtual_server: Option<String>,
    /// Of this client alone.
    pub client: Option<IpAddr>,
    /// To this real server alone.
    pub server: Option<IpAddr>,
    /// Those alone that are to be mirrored and are not protected yet.
    pub unprotected: bool,
}

impl Default for FlowFilter {
    fn default() -> FlowFilter {
        FlowFilter { limit: 100, virtual_server: None, client: None, server: None, unprotected: false }
    }
}

impl FlowFilter {
    /// Whether it lets a flow through. What is not to be mirrored lacks no protection.
    pub fn wants(&self, flow: &FlowLine) -> bool {
        self.virtual_server.as_ref().is_none_or(|name| *name == flow.virtual_server)
            && self.client.is_none_or(|client| client == flow.client.ip())
            && self.server.is_none_or(|server| server == flow.server.ip())
            && !(self.unprotected && (flow.protected || !flow.mirrored))
    }

    /// As the query of [`super::paths::FLOWS`].
    pub fn to_query(&self) -> String {
        let mut query = format!("limit={}", self.limit);
        if let Some(name) = &self.virtual_server {
            query += &format!("&virtual_server={name}");
        }
        if let Some(client) = self.client {
            query += &format!("&client={client}");
        }
        if let Some(server) = self.server {
            query += &format!("&server={server}");
        }
        if self.unprotected {
            query += "&unprotected=true";
        }
        query
    }

    /// From a query, or a sentence that says what is wrong with it.
    pub fn from_query(query: &str) -> Result<FlowFilter, String> {
        let mut filter = FlowFilter::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let wrong = || format!("{key}={value} is not understood");
            match key {
                "limit" => {
                    let limit: usize = value.parse().map_err(|_| wrong())?;
                    if limit > FLOWS_SHOWN_MAX {
                        return Err(format!("limit={limit} is more than {FLOWS_SHOWN_MAX}"));
                    }
                    filter.limit = limit;
                }
                "virtual_server" => filter.virtual_server = Some(value.to_owned()),
                "client" => filter.client = Some(value.parse().map_err(|_| wrong())?),
                "server" => filter.server = Some(value.parse().map_err(|_| wrong())?),
                "unprotected" => filter.unprotected = value.parse().map_err(|_| wrong())?,
                _ => return Err(format!("unknown key {key}")),
            }
        }
        Ok(filter)
    }
}

/// Some of the flows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowReport {
    /// How many the filter lets through; more than `flows` holds when the limit cut it.
    pub matching: u64,
    /// They.
    pub flows: Vec<FlowLine>,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowLine {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// The virtual address.
    pub virtual_address: SocketAddr,
    /// The virtual server's name.
    pub virtual_server: String,
    /// The source that the server sees, where it is not the client.
    pub source_nat: Option<SocketAddr>,
    /// The real server.
    pub server: SocketAddr,
    /// TCP's state, or `open`.
    pub state: String,
    /// Since its last packet, in milliseconds.
    pub idle_ms: u64,
    /// Its shard.
    pub shard: ShardId,
    /// The worker that owns it.
    pub worker: WorkerId,
    /// The version of its newest state.
    pub version: Version,
    /// Whether every in-sync member has acknowledged that; with periodic checkpoints that, or an earlier state.
    pub protected: bool,
    /// With periodic checkpoints whether it is protected, and digests were found equal with every in-sync member since its newest
    /// state; `None`: its changes are acknowledged.
    #[serde(default)]
    pub confirmed: Option<bool>,
    /// Whether peers are to know it.
    pub mirrored: bool,
    /// Why they are, or are not: `rule 2`, `operator`, ...
    pub because: String,
}

/// Every counter, for each of its owners and in sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CounterReport {
    /// Who counts: `worker0`, `distributor1`, `master`, ...
    pub owners: Vec<String>,
    /// Every counter.
    pub counters: Vec<CounterLine>,
}

/// One counter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CounterLine {
    /// Its name.
    pub name: String,
    /// One sentence.
    pub help: String,
    /// For each owner, in their order.
    pub values: Vec<u64>,
    /// Over all owners.
    pub sum: u64,
}

impl CounterReport {
    /// Reads every counter of every owner.
    pub fn read(owners: &[(&str, &Counters)]) -> CounterReport {
        let counters = Counter::ALL.iter().map(|&counter| {
            let values: Vec<u64> = owners.iter().map(|(_, counters)| counters.value(counter)).collect();
            CounterLine {
                name: counter.name().to_owned(),
                help: counter.help().trim().to_owned(),
                sum: values.iter().fold(0, |sum, value| sum.wrapping_add(*value)),
                values,
            }
        });
        CounterReport {
            owners: owners.iter().map(|(name, _)| (*name).to_owned()).collect(),
            counters: counters.collect(),
        }
    }
}

/// The ports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortReport {
    /// In the order of the configuration.
    pub ports: Vec<PortLine>,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortLine {
    /// Its place in the configuration.
    pub port: PortId,
    /// Its name.
    pub name: String,
    /// Its device.
    pub device: String,
    /// Its own hardware address.
    pub mac: String,
    /// Whether its link is up.
    pub link_up: bool,
    /// The workers that own its receive queues, one each.
    pub received_by: Vec<WorkerId>,
    /// The workers that own its transmit queues, one each; other traffic managers send by these.
    pub sent_by: Vec<WorkerId>,
    /// How it spreads packets over its receive queues.
    pub rss: RssReport,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets that the port dropped, because its queue was full or no buffer was free.
    pub rx_missed: u64,
    /// Packets that it received with an error.
    pub rx_errors: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}

/// The pools and what depends on them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolReport {
    /// The pools.
    pub pools: Vec<PoolLine>,
    /// The virtual servers.
    pub virtual_servers: Vec<VirtualServerLine>,
    /// The ports of each source-NAT address.
    pub source_nat: Vec<SourceNatLine>,
}

/// One pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolLine {
    /// Its name.
    pub name: String,
    /// Its servers.
    pub servers: Vec<ServerLine>,
}

/// One real server (REQ C3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerLine {
    /// Its address and port.
    pub address: SocketAddr,
    /// Its share of new flows.
    pub weight: u32,
    /// Whether it takes new flows.
    pub up: bool,
    /// It is not configured any more, and stays until its flows have ended.
    #[serde(default)]
    pub retired: bool,
    /// Flows to it now.
    pub flows: u64,
}

/// One virtual server (REQ C1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtualServerLine {
    /// Its name.
    pub name: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its pool's name.
    pub pool: String,
    /// It is not configured any more, and stays until its flows have ended.
    #[serde(default)]
    pub retired: bool,
    /// Flows of it now.
    pub flows: u64,
}

/// The ports of one source-NAT address towards one server, of this member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceNatLine {
    /// The source-NAT address.
    pub address: IpAddr,
    /// The server.
    pub server: SocketAddr,
    /// Ports in use.
    pub in_use: u64,
    /// Ports that rest after use.
    pub resting: u64,
    /// How often none was free.
    pub exhausted: u64,
}

/// A command was carried out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// A sentence.
    pub message: String,
}

/// A question was not answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// A sentence.
    pub error: String,
}
