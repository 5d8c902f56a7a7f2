//! How many flows each virtual server and each real server has (REQ C1, C3).
//! Kept from the flows themselves, so that a standby counts the same (REQ C6).

use hashbrown::HashMap;

use crate::base::ids::{ServerId, VirtualServerId};
use crate::flow::Flow;

/// Flow counts of one worker.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    virtual_servers: HashMap<VirtualServerId, u64>,
    servers: HashMap<ServerId, u64>,
    mirrored: u64,
}

impl Counts {
    /// A flow began.
    pub fn add(&mut self, flow: &Flow) {
        *self.virtual_servers.entry(flow.virtual_server).or_default() += 1;
        *self.servers.entry(flow.server_id).or_default() += 1;
        self.mirrored += u64::from(flow.is_mirrored());
    }

    /// A flow ended.
    pub fn remove(&mut self, flow: &Flow) {
        if let Some(count) = self.virtual_servers.get_mut(&flow.virtual_server) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.servers.get_mut(&flow.server_id) {
            *count = count.saturating_sub(1);
        }
        self.mirrored = self.mirrored.saturating_sub(u64::from(flow.is_mirrored()));
    }

    /// Flows that are to be mirrored.
    pub fn mirrored(&self) -> u64 {
        self.mirrored
    }

    /// Flows of a virtual server.
    pub fn of_virtual_server(&self, id: VirtualServerId) -> u64 {
        self.virtual_servers.get(&id).copied().unwrap_or(0)
    }

    /// Flows of a real server.
    pub fn of_server(&self, id: ServerId) -> u64 {
        self.servers.get(&id).copied().unwrap_or(0)
    }
}
