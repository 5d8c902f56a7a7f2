//! The queues of all ports, shared out among the lcores at the start.

use dpdk::{Eal, Mempool, Port, RxQueue};

use crate::base::ids::{PortId, WorkerId};
use crate::config::checked::Checked;
use crate::driver::backend::QueueOwners;
use crate::driver::master::mac_text;
use crate::driver::outbox::{Outbox, Relay};
use crate::driver::ports::{self, OpenPort, Queues};
use crate::driver::rss;
use crate::failover;
use crate::wire::{MacAddress, vrrp};

/// Packets that wait on their way from one worker to the owner of a port's queue.
const RELAY_PACKETS: u32 = 1024;

/// The queues of all ports, given to their owners: receive queue `q` to the worker that is the `q`-th distributor,
/// transmit queue `q` to traffic manager `q`.
pub struct Owned {
    /// Of every worker.
    pub rx: Vec<Vec<(PortId, RxQueue)>>,
    /// Of every traffic manager.
    pub outboxes: Vec<Vec<Outbox>>,
    /// Of every traffic manager: what others send by queues of its own.
    pub relays: Vec<Vec<(PortId, Relay)>>,
    /// Of the master.
    pub master: Vec<Outbox>,
    /// The ports, for their states.
    pub ports: Vec<Port>,
    /// Their own link addresses.
    pub macs: Vec<[u8; 6]>,
    /// Who has which queues, for people.
    pub queues: Vec<QueueOwners>,
}

/// Opens all ports, and shares out their queues.
pub fn share_out(eal: &Eal, checked: &Checked, pool: &Mempool, rss_key: &[u8]) -> Result<Owned, String> {
    let lcores = &checked.lcores;
    let distributors: Vec<WorkerId> = lcores.distributors().collect();
    let managers = usize::from(lcores.managers());
    let wanted = Queues { rx: distributors.len() as u16, tx: managers as u16 };
    let mut owned = Owned {
        rx: lcores.workers.iter().map(|_| Vec::new()).collect(),
        outboxes: (0..managers).map(|_| Vec::new()).collect(),
        relays: (0..managers).map(|_| Vec::new()).collect(),
        master: Vec::new(),
        ports: Vec::new(),
        macs: Vec::new(),
        queues: Vec::new(),
    };
    let memory = ports::SharedMemory::of(eal, &checked.ports);
    for ((config, number), ends) in checked.ports.iter().zip(0..).zip(rss::ends(checked)) {
        let wish = rss::Wish { ends, key: rss_key };
        let open = ports::open(eal, PortId(number), config, wanted, wish, pool)
            .map_err(|error| error.to_string())?;
        let OpenPort { id, mut port, mac, receives_all, tx_abilities, configured, rss, rx, tx } = open;
        if !receives_all {
            add_macs(&mut port, &config.name, checked.failover.virtual_router_id);
        }
        let driver = port.info().map_or_else(|_| "?".to_owned(), |info| info.driver);
        log::info!("port {}: driver {driver}, address {}", config.name, mac_text(mac));
        if configured.rx_queues < wanted.rx || configured.tx_queues < wanted.tx {
            log::info!(
                "port {}: its queues are owned by the first workers, which pass on to the others",
                config.name
            );
        }
        let owners = tx.len().max(1);
        owned.queues.push(QueueOwners {
            rx: distributors.iter().copied().take(rx.len()).collect(),
            tx: (0..owners as u16).map(WorkerId).collect(),
            rss,
        });
        for (queue, worker) in rx.into_iter().zip(&distributors) {
            owned.rx[usize::from(worker.0)].push((id, queue));
        }
        for (worker, queue) in
            tx.into_iter().map(Some).chain(core::iter::repeat_with(|| None)).take(managers).enumerate()
        {
            let outbox = match queue {
                Some(queue) => Outbox::of_queue(queue, tx_abilities),
                None => {
                    let name = format!("relay-{worker}-{id}");
                    let (outbox, relay) = Outbox::of_owner(eal, &name, RELAY_PACKETS, tx_abilities)
                        .map_err(|error| error.to_string())?;
                    owned.relays[worker % owners].push((id, relay));
                    outbox
                }
            };
            owned.outboxes[worker].push(outbox);
        }
        let (outbox, relay) = Outbox::of_owner(eal, &format!("inject-{id}"), RELAY_PACKETS, tx_abilities)
            .map_err(|error| error.to_string())?;
        owned.relays[0].push((id, relay));
        owned.master.push(outbox);
        memory.started(config, &port);
        owned.ports.push(port);
        owned.macs.push(mac);
    }
    Ok(owned)
}

/// Names the addresses that a port which filters must let through.
fn add_macs(port: &mut Port, name: &str, virtual_router: u8) {
    let [v4, v6] = [MacAddress::virtual_router_v4, MacAddress::virtual_router_v6];
    let groups = [MacAddress::multicast_v4(vrrp::GROUP_V4), MacAddress::multicast_v6(vrrp::GROUP_V6)];
    let wanted = [v4(virtual_router), v6(virtual_router), failover::heartbeat::DESTINATION];
    for MacAddress(mac) in wanted.into_iter().chain(groups) {
        if let Err(error) = port.add_mac(mac) {
            log::warn!("port {name}: packets to {} may not arrive: {error}", mac_text(mac));
        }
    }
}
