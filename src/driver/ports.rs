//! The configuration's ports, opened: configured as near to what baton wants as each
//! device can, started, with one handle for each queue.

use core::fmt;
use std::time::{Duration, Instant};

use dpdk::descriptors::MemoryDescriptors;
use dpdk::mbuf::HEADROOM;
use dpdk::port::{Config, Configured, Mac, Offload, Offloads};
use dpdk::{Mempool, Port, Running, RxQueue, TxQueue, mempool};

use crate::base::ids::PortId;
use crate::config::checked::{Eal, Port as PortConfig};
use crate::control::rss::RssReport;
use crate::driver::mbuf::TxAbilities;
use crate::driver::rss::{self, Wish};
use crate::driver::steering;

/// A started port. Its queues' handles go to their owners; the port itself stays with the master.
#[derive(Debug)]
pub struct OpenPort {
    /// Its place in the configuration.
    pub id: PortId,
    /// For the link's state and counters.
    pub port: Port,
    /// Its own Ethernet address.
    pub mac: Mac,
    /// It passes on whatever comes; else it was refused to, and filters by addresses.
    pub receives_all: bool,
    /// What it does for packets that it sends.
    pub tx_abilities: TxAbilities,
    /// What came of what was wanted.
    pub configured: Configured,
    /// How it spreads packets over its receive queues.
    pub rss: RssReport,
    /// Receive queues, by number; fewer than wanted where the device has fewer.
    pub rx: Vec<RxQueue>,
    /// Transmit queues, by number; fewer than wanted where the device has fewer.
    pub tx: Vec<TxQueue>,
}

/// Why a port could not be opened.
#[derive(Debug)]
pub struct OpenError {
    /// Its name in the configuration.
    pub port: String,
    /// Why.
    pub reason: Reason,
}

/// See [`OpenError`].
#[derive(Debug)]
pub enum Reason {
    /// DPDK refused.
    Dpdk(dpdk::Error),
    /// The device cannot carry packets as large as wanted.
    Mtu {
        /// `port.mtu`
        wanted: u16,
        /// What it can carry.
        possible: u16,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {:?}: {}", self.port, self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Dpdk(error) => write!(f, "{error}"),
            Reason::Mtu { wanted, possible } => {
                write!(f, "mtu = {wanted} is wanted, the device carries at most {possible}")
            }
        }
    }
}

impl core::error::Error for OpenError {}

/// How long the peer of a memif port is waited for at the start.
const PEER_WAIT: Duration = Duration::from_millis(200);
/// Between two looks at its link.
const PEER_LOOK: Duration = Duration::from_micros(100);

/// What memif ports with `zero-copy` need one after the other when there are several: see
/// [`dpdk::descriptors`].
#[derive(Debug)]
pub struct SharedMemory(Option<MemoryDescriptors>);

impl SharedMemory {
    /// Before any port is started.
    pub fn of(running: &Running, ports: &[PortConfig]) -> SharedMemory {
        if ports.iter().filter(|port| shares_memory(port)).count() < 2 {
            return SharedMemory(None);
        }
        let kept = MemoryDescriptors::keep(running);
        SharedMemory(kept.inspect_err(|error| log::warn!("memif ports may not connect: {error}")).ok())
    }

    /// A port was started: gives its peer time to connect, and the next port what this one closed.
    pub fn started(&self, config: &PortConfig, port: &Port) {
        let Some(memory) = self.0.as_ref().filter(|_| shares_memory(config)) else { return };
        let begin = Instant::now();
        while port.link().is_ok_and(|link| !link.up) {
            if begin.elapsed() > PEER_WAIT {
                log::warn!(
                    "port {}: nobody connects to it; when somebody does later, DPDK's memif may close a file or \
                     socket that is not its own: start the peer first",
                    config.name
                );
                return;
            }
            std::thread::sleep(PEER_LOOK);
        }
        if let Err(error) = memory.restore() {
            log::warn!("port {}: the next memif port may not connect: {error}", config.name);
        }
    }
}

fn shares_memory(port: &PortConfig) -> bool {
    port.device.starts_with("net_memif") && port.device.contains("zero-copy=yes")
}

/// Ethernet header, two VLAN tags and frame check sequence, in bytes.
const LINK_OVERHEAD: u16 = 14 + 2 * 4 + 4;

/// How the pool of packet buffers is made, so that a packet of any port fits in one buffer.
pub fn pool_config(eal: &Eal, ports: &[PortConfig]) -> mempool::Config {
    let mtu_max = ports.iter().map(|port| port.mtu).max().unwrap_or(0);
    let data_room = mtu_max.saturating_add(LINK_OVERHEAD).max(2048).saturating_add(HEADROOM as u16);
    let cache = mempool::Config::default().cache.min((u64::from(eal.buffers) * 2 / 3) as u32);
    mempool::Config { buffers: eal.buffers, cache, data_room, socket: None }
}

/// What is asked of every device.
fn wanted_offloads() -> Offloads {
    Offloads::of(&[
        Offload::RxIpChecksum,
        Offload::RxTcpChecksum,
        Offload::RxUdpChecksum,
        Offload::TxIpChecksum,
        Offload::TxTcpChecksum,
        Offload::TxUdpChecksum,
        Offload::TxMultiSegment,
    ])
}

/// How many queues a port is wanted to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// To receive by: one for each lcore that receives.
    pub rx: u16,
    /// To send by: one for each lcore that sends.
    pub tx: u16,
}

impl Queues {
    /// As many each way.
    pub const fn both(count: u16) -> Queues {
        Queues { rx: count, tx: count }
    }
}

/// Opens and starts a port with as many queues each way as are wanted and possible.
/// It receives whatever comes, since virtual MAC addresses come and go with the role. How it spreads that over its queues is
/// asked for by `wish`, and what came of it is said once in the log.
pub fn open(
    running: &Running,
    id: PortId,
    config: &PortConfig,
    queues: Queues,
    wish: Wish<'_>,
    pool: &Mempool,
) -> Result<OpenPort, OpenError> {
    let fail = |reason| OpenError { port: config.name.clone(), reason };
    let dpdk = |error| fail(Reason::Dpdk(error));
    let mut port = Port::open(running, &config.device).map_err(dpdk)?;
    let wanted = Config {
        rx_queues: queues.rx,
        tx_queues: queues.tx,
        mtu: Some(config.mtu),
        offloads: wanted_offloads(),
        ..Config::default()
    };
    let up =
        steering::bring_up(&mut port, &wanted, &wish, |port, wanted| bring_up(port, config, wanted, pool));
    let ((configured, receives_all, started), accepted) = up.map_err(fail)?;
    let mac = port.mac().map_err(dpdk)?;
    log::info!(
        "port {} ({}): {} of {} receive and {} of {} transmit queues; does {}; does not {}",
        config.name,
        port.name(),
        configured.rx_queues,
        queues.rx,
        configured.tx_queues,
        queues.tx,
        configured.offloads,
        configured.refused,
    );
    let rss = steering::settle(&mut port, accepted, &wish, (queues.rx, configured.rx_queues));
    if let Some((level, text)) = rss::said(&config.name, &wish, &rss) {
        log::log!(level, "{text}");
    }
    let tx_abilities = TxAbilities::of(configured.offloads);
    let (rx, tx) = (started.rx, started.tx);
    Ok(OpenPort { id, port, mac, receives_all, tx_abilities, configured, rss, rx, tx })
}

/// Configures and starts a port; also whether it receives everything.
fn bring_up(
    port: &mut Port,
    config: &PortConfig,
    wanted: &Config,
    pool: &Mempool,
) -> Result<(Configured, bool, dpdk::port::Queues), Reason> {
    let configured = match port.configure(wanted, pool) {
        // Some devices, af_xdp among them, have their queues in pairs. No queue may receive that nobody asks.
        Err(error) if wanted.rx_queues != wanted.tx_queues => {
            log::info!("port {}: {error}; trying as many queues for sending as for receiving", config.name);
            port.configure(&Config { tx_queues: wanted.rx_queues, ..wanted.clone() }, pool)
        }
        outcome => outcome,
    }
    .map_err(Reason::Dpdk)?;
    if configured.mtu < config.mtu {
        return Err(Reason::Mtu { wanted: config.mtu, possible: configured.mtu });
    }
    let mut receives_all = true;
    for (what, outcome) in
        [("promiscuous", port.set_promiscuous(true)), ("all-multicast", port.set_all_multicast(true))]
    {
        match outcome {
            Ok(()) => {}
            // Devices without the mode have no filter either, being virtual.
            Err(error) if error.is_unsupported() => log::info!("port {}: no {what} mode", config.name),
            // A virtual function may be refused it. What it filters then, the caller has to name.
            Err(error) => {
                log::warn!("port {}: no {what} mode: {error}", config.name);
                receives_all = false;
            }
        }
    }
    let started = port.start().map_err(Reason::Dpdk)?;
    Ok((configured, receives_all, started))
}
