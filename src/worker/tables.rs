//! What a worker looks up, made once from a snapshot.

use std::sync::Arc;

use crate::base::ids::{PoolId, ServerId, VirtualServerId};
use crate::config::checked::{Checked, Commit, Forwarding, MirrorMode, VirtualServer};
use crate::config::snapshot::Snapshot;
use crate::distributor::classify::MirrorPort;
use crate::distributor::services::Services;
use crate::flow::entry::FlowFlags;
use crate::flow::image::Image;
use crate::flow::key::Address;
use crate::flow::shard::ShardSet;
use crate::flow::toeplitz::Toeplitz;
use crate::traffic::adjacency::Adjacencies;
use crate::traffic::balance::{Balancer, ServerSlot};
use crate::traffic::routes::Routes;

/// What a new flow takes from its virtual server.
pub(super) struct Listener {
    pub(super) id: VirtualServerId,
    /// The pool's place in the configuration.
    pub(super) pool: usize,
    pub(super) pool_id: PoolId,
    /// Whether it is mirrored, and whether its source is translated.
    pub(super) flags: FlowFlags,
    /// Whether its first packet waits for the in-sync members.
    pub(super) waits: bool,
    /// The source-NAT addresses; none: plain NAT.
    pub(super) source_nat: Vec<Address>,
}

/// What a new flow takes from its real server.
pub(super) struct Backend {
    pub(super) id: ServerId,
    pub(super) address: Address,
    pub(super) port: u16,
    /// The next hop towards it, among the worker's adjacencies; it keeps its place there.
    pub(super) adjacency: Option<u32>,
}

/// The lookup tables of one snapshot.
pub(super) struct Tables {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) services: Services,
    pub(super) routes: Routes,
    /// One for each pool.
    pub(super) balancers: Vec<Balancer>,
    /// One for each virtual server.
    pub(super) listeners: Vec<Listener>,
    /// For each pool its servers.
    pub(super) backends: Vec<Vec<Backend>>,
    pub(super) mirror_port: Option<MirrorPort>,
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
        let listeners = config.virtual_servers.iter().map(|server| listener(config, server)).collect();
        let backend = |server: &crate::config::checked::Server| Backend {
            id: server.id,
            address: server.address.into(),
            port: server.port,
            adjacency: None,
        };
        let backends = config.pools.iter().map(|pool| pool.servers.iter().map(backend).collect()).collect();
        let mirror_port = MirrorPort::of(config, workers);
        Tables {
            services: Services::new(config),
            routes: Routes::new(config),
            balancers,
            listeners,
            backends,
            mirror_port,
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
        let addresses = self.listeners.iter().flat_map(|listener| &listener.source_nat);
        addresses.filter(|address| !address.is_v4()).any(|at| shards.has(toeplitz.shard_of(*at, port)))
    }

    pub(super) fn virtual_server(&self, place: usize) -> &VirtualServer {
        &self.snapshot.checked.virtual_servers[place]
    }

    /// Gives gateways, servers and peers their place among the neighbours at once, and for good: so traffic never waits for
    /// the master to look them up.
    pub(super) fn know_neighbours<B>(&mut self, adjacencies: &mut Adjacencies<B>) {
        let config = &self.snapshot.checked;
        let mut know = |address| {
            let index = adjacencies.index_of(self.routes.next_hop(address)?)?;
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
}

fn listener(config: &Checked, server: &VirtualServer) -> Listener {
    let (mirrored, waits) = match server.mirror {
        MirrorMode::Off => (false, false),
        MirrorMode::Checkpoint(commit) => (config.mirror.is_some(), commit == Commit::Hold),
    };
    let source_nat: Vec<Address> = match &server.forwarding {
        Forwarding::Nat => Vec::new(),
        Forwarding::FullNat(addresses) => addresses.iter().copied().map(Address::from).collect(),
    };
    let mirroring = if mirrored { FlowFlags::MIRRORED } else { FlowFlags::NONE };
    let translation = if source_nat.is_empty() { FlowFlags::NONE } else { FlowFlags::FULL_NAT };
    Listener {
        id: server.id,
        pool: server.pool,
        pool_id: config.pools[server.pool].id,
        flags: mirroring.with(translation),
        waits: mirrored && waits,
        source_nat,
    }
}
