//! What a worker looks up, made once from a snapshot.

use std::sync::Arc;

use crate::config::checked::{Forwarding, MirrorMode, VirtualServer};
use crate::config::snapshot::Snapshot;
use crate::distributor::classify::MirrorPort;
use crate::distributor::services::Services;
use crate::flow::key::Address;
use crate::traffic::balance::{Balancer, ServerSlot};
use crate::traffic::routes::Routes;

/// The lookup tables of one snapshot.
pub(super) struct Tables {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) services: Services,
    pub(super) routes: Routes,
    /// One for each pool.
    pub(super) balancers: Vec<Balancer>,
    /// For each virtual server the source-NAT addresses; none: plain NAT.
    pub(super) source_nat: Vec<Vec<Address>>,
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
        let source_nat = config
            .virtual_servers
            .iter()
            .map(|server| match &server.forwarding {
                Forwarding::Nat => Vec::new(),
                Forwarding::FullNat(addresses) => addresses.iter().copied().map(Address::from).collect(),
            })
            .collect();
        let mirror_port = config.mirror.as_ref().map(|mirror| MirrorPort {
            port: mirror.port,
            udp_port: mirror.udp_port,
            workers,
        });
        Tables {
            services: Services::new(config),
            routes: Routes::new(config),
            balancers,
            source_nat,
            mirror_port,
            snapshot,
        }
    }

    pub(super) fn virtual_server(&self, place: usize) -> &VirtualServer {
        &self.snapshot.checked.virtual_servers[place]
    }

    /// Whether flows of a virtual server are mirrored.
    pub(super) fn is_mirrored(&self, place: usize) -> bool {
        match self.virtual_server(place).mirror {
            MirrorMode::Off => false,
            MirrorMode::Checkpoint(_) => self.snapshot.checked.mirror.is_some(),
        }
    }
}
