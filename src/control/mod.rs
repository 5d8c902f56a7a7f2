//! The control interface: HTTP and JSON on a unix socket for the command line
//! and for tools, and metrics in Prometheus' text format on TCP (REQ E4).
//!
//! Each listener has one thread of its own, which serves one connection at a
//! time, within bounds of size and time. In: requests. Out: the reports of
//! [`report`], which a [`Backend`] fills in; the driver is the real one. Nothing
//! here is on a packet's way, and a worker never waits for it.
//!
//! Not yet: draining and enabling servers, capturing.

pub mod choosing;
pub mod client;
pub mod happened;
pub mod http;
pub mod maintenance;
pub mod metrics;
pub mod mirroring;
pub mod print;
pub mod rebalance;
pub mod reload;
pub mod report;
pub mod rss;
pub mod server;

use crate::control::choosing::Wish;
use crate::control::maintenance::Maintenance;
use crate::control::rebalance::{RebalanceReport, Wanted};
use crate::control::reload::{NotReloaded, ReloadReport};
use crate::control::report::{
    CounterReport, EventReport, FlowFilter, FlowReport, MirrorReport, PoolReport, PortReport, StatusReport,
};

/// What the interface asks of a running appliance. Called from the threads of
/// the listeners: it must answer from what is at hand, and never stall a worker.
pub trait Backend: Send + Sync + 'static {
    /// Who leads, who is in sync, how the workers are.
    fn status(&self) -> StatusReport;
    /// The flows that `filter` lets through, at most `filter.limit`.
    fn flows(&self, filter: &FlowFilter) -> FlowReport;
    /// Has one flow mirrored, or not: a sentence that says so, or why not.
    fn choose(&self, wanted: &Wish) -> Result<String, String>;
    /// Every counter of every owner.
    fn counters(&self) -> CounterReport;
    /// The mirror's streams, walks and held packets.
    fn mirror(&self) -> MirrorReport;
    /// The newest events, oldest first.
    fn events(&self) -> EventReport;
    /// Ports and their counters.
    fn ports(&self) -> PortReport;
    /// Pools, servers, virtual servers and source-NAT ports.
    fn pools(&self) -> PoolReport;
    /// Moves shards between workers, and says what became of each; or why none moves.
    fn rebalance(&self, wanted: &Wanted) -> Result<RebalanceReport, String>;
    /// Reads the configuration file again and goes on by it: what changed, or why nothing did.
    fn reload(&self) -> Result<ReloadReport, NotReloaded>;
    /// Hands the lead to a peer: a sentence that says to whom, or why not.
    fn switchover(&self) -> Result<String, String>;
    /// Takes the appliance out of service, or puts it back: a sentence that says so, or why not.
    fn maintenance(&self, wanted: Maintenance) -> Result<String, String>;
    /// Takes the lead, as nobody is heard to have it: a sentence that says so, or why not.
    fn promote(&self) -> Result<String, String>;
}

/// The paths of the interface: the command line's words.
pub mod paths {
    /// GET: [`super::report::StatusReport`].
    pub const STATUS: &str = "/v1/status";
    /// GET: [`super::report::FlowReport`]; see [`super::report::FlowFilter`] for the query.
    pub const FLOWS: &str = "/v1/flows";
    /// POST: [`super::report::Done`]; see [`super::choosing::Wish`] for the query.
    pub const FLOW_MIRROR: &str = "/v1/flows/mirror";
    /// GET: [`super::report::CounterReport`].
    pub const COUNTERS: &str = "/v1/counters";
    /// GET: [`super::report::MirrorReport`].
    pub const MIRROR: &str = "/v1/mirror";
    /// GET: [`super::report::EventReport`].
    pub const EVENTS: &str = "/v1/events";
    /// GET: [`super::report::PortReport`].
    pub const PORTS: &str = "/v1/ports";
    /// GET: [`super::report::PoolReport`].
    pub const POOLS: &str = "/v1/pools";
    /// POST: [`super::rebalance::RebalanceReport`]; see [`super::rebalance::Wanted`] for the query.
    pub const REBALANCE: &str = "/v1/rebalance";
    /// POST: [`super::reload::ReloadReport`].
    pub const RELOAD: &str = "/v1/reload";
    /// POST: [`super::report::Done`].
    pub const SWITCHOVER: &str = "/v1/switchover";
    /// POST: [`super::report::Done`]; see [`super::maintenance::Maintenance`] for the query.
    pub const MAINTENANCE: &str = "/v1/maintenance";
    /// POST: [`super::report::Done`].
    pub const PROMOTE: &str = "/v1/promote";
    /// GET: Prometheus' text format; on the metrics address too.
    pub const METRICS: &str = "/metrics";
}
