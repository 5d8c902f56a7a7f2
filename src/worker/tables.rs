//! What a worker looks up, made once from a snapshot: by the worker when it is made itself, later by others for it
//! ([`Generation`]).

use core::fmt;
use core::net::IpAddr;
use std::sync::Arc;

use crate::base::counters::Counter;
use crate::base::ids::{PoolId, ServerId, VirtualServerId};
use crate::config::checked::{Checked, Commit, Method, MirrorMode, VirtualServer};
use crate::config::snapshot::Snapshot;
use crate::distributor::classify::MirrorPort;
use crate::distributor::services::Services;
use crate::flow::entry::FlowFlags;
use crate::flow::image::Image;
use crate::flow::key::Address;
use crate::flow::shard::ShardSet;
use crate::flow::toeplitz::Toeplitz;
use crate::mirror::policy::Policy;
use crate::traffic::adjacency::Adjacencies;
use crate::traffic::balance::{Balancer, ServerSlot};
use crate::traffic::counts::Counts;
use crate::traffic::routes::Routes;

/// The tables of one generation of the configuration for one worker, made where time is no matter. Each worker takes one
/// by [`Command::Configure`](super::message::Command::Configure), and gives back what it had before, to be dropped where
/// time is no matter. A clone for each worker shares the large parts that no worker writes.
#[derive(Clone)]
pub struct Generation(pub(super) Box<Tables>);

impl Generation {
    /// Of a snapshot, for an appliance with so many workers.
    pub fn new(snapshot: Arc<Snapshot>, workers: u16) -> Generation {
        let mut tables = Box::new(Tables::new(snapshot, workers));
        let config = &tables.snapshot.checked;
        tables.methods = config.virtual_servers.iter().map(|server| server.select).collect();
        let servers = config.pools.iter().flat_map(|pool| &pool.servers);
        tables.counts = Counts::with_places(
            config.virtual_servers.iter().map(|server| server.id),
            servers.map(|server| server.id),
        );
        Generation(tables)
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.0.snapshot.generation
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}", self.number())
    }
}

/// What a new flow takes from its virtual server.
#[derive(Clone)]
pub(super) struct Listener {
    pub(super) id: VirtualServerId,
    /// The pool's place in the configuration.
    pub(super) pool: usize,
    pub(super) pool_id: PoolId,
    /// Whether it is mirrored, and whether its source is translated.
    pub(super) flags: FlowFlags,
    /// Whether its first packet waits for the in-sync members.
    pub(super) waits: bool,
    /// Which of its flows are mirrored; `None`: all or none.
    pub(super) policy: Option<Policy>,
    /// The source-NAT addresses; none: plain NAT.
    pub(super) source_nat: Vec<Address>,
    /// Why a flow is refused when the pool has no server for it.
    pub(super) refusal: Counter,
}

/// What a new flow takes from its real server.
#[derive(Clone)]
pub(super) struct Backend {
    pub(super) id: ServerId,
    pub(super) address: Address,
    pub(super) port: u16,
    /// The next hop towards it, among the worker's adjacencies; it keeps its place there.
    pub(super) adjacency: Option<u32>,
}

/// The lookup tables of one snapshot.
#[derive(Clone)]
pub(super) struct Tables {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) services: Services,
    pub(super) routes: Routes,
    /// One for each pool.
    pub(super) balancers: Vec<Balancer>,
    /// One for each virtual server.
    pub(super) listeners: Vec<Listener>,
    /// By their rules' fingerprints those of them that have any, in order.
    pub(super) policies: Vec<(u32, usize)>,
    /// For each pool its servers.
    pub(super) backends: Vec<Vec<Backend>>,
    pub(super) mirror_port: Option<MirrorPort>,
    /// How each virtual server's new keys are placed: on its way to or from the worker's placer.
    pub(super) methods: Vec<Method>,
    /// The same of the worker's counts.
    pub(super) counts: Counts,
    /// The neighbours that keep their places for this configuration; `u32::MAX`: room for one.
    named: Vec<u32>,
}

impl Tables {
    pub(super) fn new(snapshot: Arc<Snapshot>, workers: u16) -> Tables {
        let config = &snapshot.checked;
        let balancers = config
            .pools
            .iter()
            .map(|pool| {
                let slot = |server: &crate::config::checked::Server| ServerSlot {
                    id: server.id,
                    weight: server.weight,
                    up: true,
                };
                let slots: Vec<ServerSlot> = pool.servers.iter().map(slot).collect();
                Balancer::new(pool.balance, &slots)
            })
            .collect();
        let listeners: Vec<Listener> =
            config.virtual_servers.iter().map(|server| listener(config, server)).collect();
        let fingerprint =
            |(at, listener): (usize, &Listener)| Some((listener.policy.as_ref()?.fingerprint(), at));
        let mut policies: Vec<(u32, usize)> = listeners.iter().enumerate().filter_map(fingerprint).collect();
        policies.sort_unstable();
        let backend = |server: &crate::config::checked::Server| Backend {
            id: server.id,
            address: server.address.into(),
            port: server.port,
            adjacency: None,
        };
        let backends = config.pools.iter().map(|pool| pool.servers.iter().map(backend).collect()).collect();
        let mirror_port = MirrorPort::of(config, workers);
        let servers: usize = config.pools.iter().map(|pool| pool.servers.len()).sum();
        let peers = config.mirror.as_ref().map_or(0, |mirror| mirror.peers.len());
        let named = vec![u32::MAX; servers + peers + config.routes.len()];
        Tables {
            services: Services::new(config),
            routes: Routes::new(config),
            balancers,
            listeners,
            policies,
            backends,
            mirror_port,
            methods: Vec::new(),
            counts: Counts::default(),
            named,
            snapshot,
        }
    }

    /// Whether a source-NAT port, given by the image of the server's side of its flow, is of one of these shards. Over IPv6 the
    /// image does not tell the address: any that makes it so.
    pub(super) fn may_rest_in(&self, answers: Image, shards: &ShardSet, toeplitz: &Toeplitz) -> bool {
        if answers.is_v4() {
            let ends = answers.v4_endpoints();
            return shards.has(toeplitz.shard_of_v4(ends.dst.to_le_bytes(), ends.dst_port.to_le_bytes()));
        }
        let (_, port, _, _) = answers.rest();
        let addresses = self.snapshot.checked.virtual_servers.iter().flat_map(VirtualServer::all_sources);
        addresses.filter(IpAddr::is_ipv6).any(|at| shards.has(toeplitz.shard_of(at.into(), port)))
    }

    pub(super) fn virtual_server(&self, place: usize) -> &VirtualServer {
        &self.snapshot.checked.virtual_servers[place]
    }

    /// Gives gateways, servers and peers their place among the neighbours at once, and for good: so traffic never waits for
    /// the master to look them up. Takes no memory.
    pub(super) fn know_neighbours<B>(&mut self, adjacencies: &mut Adjacencies<B>) {
        let config = &self.snapshot.checked;
        let (routes, mut named) = (&self.routes, self.named.iter_mut());
        let mut know = |address| {
            let index = adjacencies.index_of(routes.next_hop(address)?)?;
            *named.next()? = index;
            adjacencies.acquire(index);
            Some(index)
        };
        for backend in self.backends.iter_mut().flatten() {
            backend.adjacency = know(backend.address.ip());
        }
        for peer in config.mirror.iter().flat_map(|mirror| &mirror.peers) {
            let _ = know(peer.address);
        }
        for route in &config.routes {
            let _ = know(route.gateway);
        }
    }

    /// The reverse: flows keep the places of those that they use.
    pub(super) fn forget_neighbours<B>(&mut self, adjacencies: &mut Adjacencies<B>) {
        self.named.iter().for_each(|index| adjacencies.release(*index));
        self.named.fill(u32::MAX);
    }
}

fn listener(config: &Checked, server: &VirtualServer) -> Listener {
    let (mirrored, waits) = match server.mirror {
        MirrorMode::Off => (false, false),
        MirrorMode::Checkpoint(commit) => (config.mirror.is_some(), commit == Commit::Hold),
    };
    let source_nat: Vec<Address> = server.sources().iter().copied().map(Address::from).collect();
    let mirroring = if mirrored { FlowFlags::MIRRORED } else { FlowFlags::NONE };
    let translation = if source_nat.is_empty() { FlowFlags::NONE } else { FlowFlags::FULL_NAT };
    Listener {
        id: server.id,
        pool: server.pool,
        pool_id: config.pools[server.pool].id,
        flags: mirroring.with(translation),
        waits: mirrored && waits,
        policy: if mirrored { Policy::new(server.id, &server.rules) } else { None },
        source_nat,
        refusal: if server.retired { Counter::DropNoListener } else { Counter::DropNoServer },
    }
}
