//! Ports: any device that DPDK has a poll-mode driver for.
//!
//! A [`Port`] is opened, configured, started; starting gives one handle for each
//! queue, which one thread polls or sends on. Stopping needs every handle back
//! (dropped). The device is stopped and closed when the port and all handles are
//! gone.

use core::cell::Cell;
use core::ffi::{CStr, c_char};
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use arrayvec::ArrayVec;
use dpdk_sys as sys;

use crate::eal::Running;
use crate::error::{EBUSY, EINVAL, Error, c_string, check, clear_errno};
use crate::mbuf::{Mbuf, Transmit};
use crate::mempool::Mempool;
pub use crate::offload::{Offload, Offloads};
use crate::ring::forget_front;
use crate::rss::{Abilities, Fields, Hashing, KeptKey};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// How a port is wanted. What the device lacks is left out, and said in [`Configured`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Receive queues, each with its own share of the packets.
    pub rx_queues: u16,
    /// Transmit queues.
    pub tx_queues: u16,
    /// Packets that wait in a receive queue at most.
    pub rx_descriptors: u16,
    /// Packets that wait in a transmit queue at most.
    pub tx_descriptors: u16,
    /// The largest IP packet, in bytes; `None`: as the device is.
    pub mtu: Option<u16>,
    /// What the device should do.
    pub offloads: Offloads,
    /// How several receive queues share the packets; `None`: as the device does by itself.
    pub rss: Option<Hashing>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            rx_queues: 1,
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            offloads: Offloads::NONE,
            rss: None,
        }
    }
}

/// What came of a [`Config`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Receive queues, at most as many as wanted.
    pub rx_queues: u16,
    /// Transmit queues, at most as many as wanted.
    pub tx_queues: u16,
    /// Packets that wait in a receive queue at most.
    pub rx_descriptors: u16,
    /// Packets that wait in a transmit queue at most.
    pub tx_descriptors: u16,
    /// The largest IP packet, in bytes.
    pub mtu: u16,
    /// What the device does.
    pub offloads: Offloads,
    /// What was wanted and the device does not do.
    pub refused: Offloads,
    /// What the device was asked to spread packets by: what it offers of what was wanted.
    pub rss: Fields,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its name: a PCI address or the virtual device's.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Its own Ethernet address.
    pub mac: Mac,
    /// Receive queues at most.
    pub rx_queues_max: u16,
    /// Transmit queues at most.
    pub tx_queues_max: u16,
    /// Ethernet addresses that it can receive for besides its own, at most.
    pub macs_max: u32,
    /// The largest IP packet that it can carry, in bytes.
    pub mtu_max: u16,
    /// What it can do.
    pub offloads: Offloads,
    /// How it can spread packets over receive queues.
    pub rss: Abilities,
    /// The NUMA socket that it is attached to; `None`: it is not told.
    pub socket: Option<u32>,
}

/// The state of a port's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether packets can pass.
    pub up: bool,
    /// In Mbit/s; `None`: not known.
    pub speed_mbps: Option<u32>,
    /// Whether both directions work at once.
    pub full_duplex: bool,
}

/// What a port counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets lost because a receive queue was full.
    pub rx_missed: u64,
    /// Packets received with errors.
    pub rx_errors: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Times that the pool had no buffer for a packet.
    pub rx_no_buffer: u64,
}

/// A port, owned. Its control functions belong to one thread at a time.
#[derive(Debug)]
pub struct Port {
    shared: Arc<Shared>,
    configured: Option<Configured>,
    not_sync: PhantomData<Cell<()>>,
}

/// What the port and its queues' handles hold together.
#[derive(Debug)]
struct Shared {
    id: u16,
    name: String,
    started: AtomicBool,
    /// The pool that the device's receive queues take buffers from: dropped after the device is closed.
    pool: Option<Mempool>,
    /// What the device may have a pointer to.
    rss_key: KeptKey,
    _running: Running,
}

/// The queues of a started port.
#[derive(Debug)]
pub struct Queues {
    /// By number.
    pub rx: Vec<RxQueue>,
    /// By number.
    pub tx: Vec<TxQueue>,
}

/// Which ports have an owner, by DPDK's number.
static OWNED: [AtomicBool; sys::DPDK_MAX_ETHPORTS as usize] =
    [const { AtomicBool::new(false) }; sys::DPDK_MAX_ETHPORTS as usize];

/// The name that DPDK gives a device: what stands before its arguments; a PCI
/// address gets the domain that it may lack.
pub fn device_name(device: &str) -> String {
    let name = device.split(',').next().unwrap_or(device).trim();
    let short_pci = name.len() == 7
        && name.char_indices().all(|(at, c)| match at {
            2 => c == ':',
            5 => c == '.',
            _ => c.is_ascii_hexdigit(),
        });
    if short_pci { format!("0000:{name}") } else { String::from(name) }
}

impl Port {
    /// Opens the port of a device that the EAL knows, named by PCI address or as a
    /// virtual device, arguments allowed (`net_tap0,iface=x`). A port has one owner.
    pub fn open(running: &Running, device: &str) -> Result<Port, Error> {
        let name = device_name(device);
        let what = format!("open port {name}");
        let c_name = c_string(&what, &name)?;
        let mut id = 0;
        clear_errno();
        // SAFETY: the EAL runs; name and number live for the call.
        check(&what, unsafe { sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &mut id) })?;
        if OWNED[usize::from(id)].swap(true, Ordering::SeqCst) {
            return Err(Error::own(what, EBUSY, "it is open already"));
        }
        let (started, rss_key) = (AtomicBool::new(false), KeptKey::new());
        let shared = Shared { id, name, started, pool: None, rss_key, _running: running.clone() };
        Ok(Port { shared: Arc::new(shared), configured: None, not_sync: PhantomData })
    }

    /// DPDK's number of the port, as in [`Mbuf::port`].
    pub fn id(&self) -> u16 {
        self.shared.id
    }

    /// Its name: a PCI address or the virtual device's.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    pub(crate) fn what(&self, what: &str) -> String {
        format!("{what} port {}", self.shared.name)
    }

    /// What the device is.
    pub fn info(&self) -> Result<Info, Error> {
        let raw = self.raw_info()?;
        let driver = if raw.driver_name.is_null() {
            String::new()
        } else {
            // SAFETY: the driver's name is a string of static storage.
            unsafe { CStr::from_ptr(raw.driver_name.cast::<c_char>()) }.to_string_lossy().into_owned()
        };
        // SAFETY: the port is open.
        let socket = unsafe { sys::rte_eth_dev_socket_id(self.id()) };
        Ok(Info {
            name: self.shared.name.clone(),
            driver,
            mac: self.mac()?,
            rx_queues_max: raw.max_rx_queues,
            tx_queues_max: raw.max_tx_queues,
            macs_max: raw.max_mac_addrs,
            mtu_max: raw.max_mtu,
            offloads: Offloads::from_dpdk(raw.rx_offload_capa, raw.tx_offload_capa),
            rss: Abilities::of(&raw),
            socket: u32::try_from(socket).ok(),
        })
    }

    pub(crate) fn kept_key(&self) -> &KeptKey {
        &self.shared.rss_key
    }

    pub(crate) fn raw_info(&self) -> Result<sys::rte_eth_dev_info, Error> {
        let mut raw = MaybeUninit::zeroed();
        // SAFETY: the port is open; the struct is zeroed, which is a value of it, and is filled in.
        check(&self.what("ask about"), unsafe { sys::rte_eth_dev_info_get(self.id(), raw.as_mut_ptr()) })?;
        // SAFETY: as above.
        Ok(unsafe { raw.assume_init() })
    }

    /// Its own Ethernet address.
    pub fn mac(&self) -> Result<Mac, Error> {
        let mut mac = sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: the port is open.
        check(&self.what("read the address of"), unsafe { sys::rte_eth_macaddr_get(self.id(), &mut mac) })?;
        Ok(mac.addr_bytes)
    }

    /// The part that the queues' handles share, if none of them lives.
    fn alone(&mut self, what: &str) -> Result<&mut Shared, Error> {
        let text = self.what(what);
        Arc::get_mut(&mut self.shared)
            .ok_or_else(|| Error::own(text, EBUSY, "handles of its queues are still in use"))
    }

    /// Sets the stopped port up: as wanted where the device can, and as near as it
    /// can otherwise. Its receive queues take buffers from `pool`.
    pub fn configure(&mut self, wanted: &Config, pool: &Mempool) -> Result<Configured, Error> {
        let what = self.what("configure");
        let shared = self.alone("configure")?;
        if *shared.started.get_mut() {
            return Err(Error::own(what, EBUSY, "it is started"));
        }
        if wanted.rx_queues == 0 || wanted.tx_queues == 0 {
            return Err(Error::own(what, EINVAL, "at least one queue each way is needed"));
        }
        // Until the whole succeeds, the device is not fit to start.
        shared.pool = Some(pool.clone());
        self.configured = None;

        let raw = self.raw_info()?;
        let offloads = wanted.offloads & Offloads::from_dpdk(raw.rx_offload_capa, raw.tx_offload_capa);
        let rx_queues = wanted.rx_queues.min(raw.max_rx_queues);
        let tx_queues = wanted.tx_queues.min(raw.max_tx_queues);

        // SAFETY: all zero is the default configuration of a port.
        let mut conf: sys::rte_eth_conf = unsafe { MaybeUninit::zeroed().assume_init() };
        let (rx_offloads, tx_offloads) = offloads.to_dpdk();
        conf.rxmode.offloads = rx_offloads;
        conf.txmode.offloads = tx_offloads;
        let rss = match &wanted.rss {
            Some(wanted) if rx_queues > 1 => self.kept_key().ask(&mut conf, wanted, &raw),
            _ => Fields::NONE,
        };
        clear_errno();
        // SAFETY: the port is open and stopped; the configuration is copied, its key is kept.
        check(&what, unsafe { sys::rte_eth_dev_configure(self.id(), rx_queues, tx_queues, &conf) })?;

        let (mut rx_descriptors, mut tx_descriptors) = (wanted.rx_descriptors, wanted.tx_descriptors);
        // SAFETY: the port is configured.
        check(&what, unsafe {
            sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id(), &mut rx_descriptors, &mut tx_descriptors)
        })?;
        // SAFETY: the port is open.
        let socket = unsafe { sys::rte_eth_dev_socket_id(self.id()) } as u32;
        for queue in 0..rx_queues {
            // SAFETY: the port is configured and stopped; the pool is kept until it is closed; a
            // null configuration stands for the device's default with the port's offloads.
            check(&format!("{what}: receive queue {queue}"), unsafe {
                sys::rte_eth_rx_queue_setup(
                    self.id(),
                    queue,
                    rx_descriptors,
                    socket,
                    core::ptr::null(),
                    pool.as_ptr(),
                )
            })?;
        }
        for queue in 0..tx_queues {
            // SAFETY: as above.
            check(&format!("{what}: transmit queue {queue}"), unsafe {
                sys::rte_eth_tx_queue_setup(self.id(), queue, tx_descriptors, socket, core::ptr::null())
            })?;
        }
        let mtu = self.set_mtu(wanted.mtu)?;
        let configured = Configured {
            rx_queues,
            tx_queues,
            rx_descriptors,
            tx_descriptors,
            mtu,
            offloads,
            refused: wanted.offloads - offloads,
            rss,
        };
        self.configured = Some(configured.clone());
        Ok(configured)
    }

    /// Sets the largest IP packet if it is not that already, and returns what it is.
    fn set_mtu(&mut self, wanted: Option<u16>) -> Result<u16, Error> {
        let mut mtu = 0;
        // SAFETY: the port is open.
        check(&self.what("read the MTU of"), unsafe { sys::rte_eth_dev_get_mtu(self.id(), &mut mtu) })?;
        match wanted {
            // SAFETY: the port is open.
            Some(wanted) if wanted != mtu => match unsafe { sys::rte_eth_dev_set_mtu(self.id(), wanted) } {
                0 => Ok(wanted),
                _ => Ok(mtu),
            },
            _ => Ok(mtu),
        }
    }

    /// Starts the configured port and gives the handles of its queues.
    pub fn start(&mut self) -> Result<Queues, Error> {
        let what = self.what("start");
        let Some(configured) = self.configured.clone() else {
            return Err(Error::own(what, EINVAL, "it is not configured"));
        };
        if *self.alone("start")?.started.get_mut() {
            return Err(Error::own(what, EBUSY, "it is started already"));
        }
        clear_errno();
        // SAFETY: the port is configured, with all its queues, and stopped.
        check(&what, unsafe { sys::rte_eth_dev_start(self.id()) })?;
        self.shared.started.store(true, Ordering::SeqCst);
        let rx = (0..configured.rx_queues)
            .map(|queue| RxQueue {
                port: self.id(),
                queue,
                _shared: self.shared.clone(),
                not_sync: PhantomData,
            })
            .collect();
        let tx = (0..configured.tx_queues)
            .map(|queue| TxQueue {
                port: self.id(),
                queue,
                _shared: self.shared.clone(),
                not_sync: PhantomData,
            })
            .collect();
        Ok(Queues { rx, tx })
    }

    /// Stops the port. Refused while a handle of a queue lives.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.alone("stop")?.stop()
    }

    /// Whether the port receives what is not addressed to it.
    pub fn set_promiscuous(&mut self, on: bool) -> Result<(), Error> {
        // SAFETY: the port is open.
        let returned = unsafe {
            if on {
                sys::rte_eth_promiscuous_enable(self.id())
            } else {
                sys::rte_eth_promiscuous_disable(self.id())
            }
        };
        check(&self.what("change promiscuity of"), returned).map(|_| ())
    }

    /// Whether the port receives every multicast packet.
    pub fn set_all_multicast(&mut self, on: bool) -> Result<(), Error> {
        // SAFETY: the port is open.
        let returned = unsafe {
            if on {
                sys::rte_eth_allmulticast_enable(self.id())
            } else {
                sys::rte_eth_allmulticast_disable(self.id())
            }
        };
        check(&self.what("change multicast of"), returned).map(|_| ())
    }

    /// Receives packets to this address too. Not every device can: see [`Error::is_unsupported`].
    pub fn add_mac(&mut self, mac: Mac) -> Result<(), Error> {
        let mut mac = sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: the port is open; the address is copied.
        let returned = unsafe { sys::rte_eth_dev_mac_addr_add(self.id(), &mut mac, 0) };
        check(&self.what("add an address to"), returned).map(|_| ())
    }

    /// Receives packets to this address no longer.
    pub fn remove_mac(&mut self, mac: Mac) -> Result<(), Error> {
        let mut mac = sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: the port is open; the address is only read.
        let returned = unsafe { sys::rte_eth_dev_mac_addr_remove(self.id(), &mut mac) };
        check(&self.what("remove an address from"), returned).map(|_| ())
    }

    /// The state of the link, without waiting for it.
    pub fn link(&self) -> Result<Link, Error> {
        let (mut speed, mut up, mut full_duplex) = (0, false, false);
        // SAFETY: the port is open.
        let returned = unsafe { sys::dpdk_shim_link(self.id(), &mut speed, &mut up, &mut full_duplex) };
        check(&self.what("ask for the link of"), returned)?;
        // DPDK says 0 or all ones for a speed that it does not know.
        let speed_mbps = Some(speed).filter(|&speed| speed != 0 && speed != u32::MAX);
        Ok(Link { up, speed_mbps, full_duplex })
    }

    /// What the port has counted.
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut raw = MaybeUninit::<sys::rte_eth_stats>::zeroed();
        // SAFETY: the port is open; the struct is zeroed, which is a value of it, and is filled in.
        let returned = unsafe { sys::rte_eth_stats_get(self.id(), raw.as_mut_ptr()) };
        check(&self.what("read the counters of"), returned)?;
        // SAFETY: as above.
        let raw = unsafe { raw.assume_init() };
        Ok(Stats {
            rx_packets: raw.ipackets,
            tx_packets: raw.opackets,
            rx_bytes: raw.ibytes,
            tx_bytes: raw.obytes,
            rx_missed: raw.imissed,
            rx_errors: raw.ierrors,
            tx_errors: raw.oerrors,
            rx_no_buffer: raw.rx_nombuf,
        })
    }
}

impl Shared {
    fn stop(&mut self) -> Result<(), Error> {
        if !*self.started.get_mut() {
            return Ok(());
        }
        clear_errno();
        // SAFETY: the port is open, and no handle polls or sends, since there is none.
        check(&format!("stop port {}", self.name), unsafe { sys::rte_eth_dev_stop(self.id) })?;
        *self.started.get_mut() = false;
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            log::warn!(target: "dpdk", "{error}");
        }
        // SAFETY: the port is open and nobody uses it any more.
        let returned = unsafe { sys::rte_eth_dev_close(self.id) };
        if let Err(error) = check(&format!("close port {}", self.name), returned) {
            log::warn!(target: "dpdk", "{error}");
        }
        OWNED[usize::from(self.id)].store(false, Ordering::SeqCst);
    }
}

/// A receive queue of a started port. One thread polls it.
#[derive(Debug)]
pub struct RxQueue {
    port: u16,
    queue: u16,
    _shared: Arc<Shared>,
    not_sync: PhantomData<Cell<()>>,
}

impl RxQueue {
    /// DPDK's number of the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The queue's number.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Appends received packets, as many as there are and fit, and returns how many.
    #[inline]
    pub fn receive<const N: usize>(&mut self, burst: &mut ArrayVec<Mbuf, N>) -> usize {
        let len = burst.len();
        let room = (N - len).min(usize::from(u16::MAX));
        // SAFETY: the port is started while this handle lives, and `&mut self` is the only poller.
        // An `Mbuf` is a pointer in memory; there is room for that many behind the array's
        // packets, and those that came are its own afterwards.
        unsafe {
            let behind = burst.as_mut_ptr().add(len).cast::<*mut sys::rte_mbuf>();
            let count = usize::from(sys::dpdk_shim_rx_burst(self.port, self.queue, behind, room as u16));
            burst.set_len(len + count);
            count
        }
    }
}

/// A transmit queue of a started port. One thread sends on it.
#[derive(Debug)]
pub struct TxQueue {
    port: u16,
    queue: u16,
    _shared: Arc<Shared>,
    not_sync: PhantomData<Cell<()>>,
}

impl TxQueue {
    /// DPDK's number of the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The queue's number.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Sends packets from the front of the burst, as many as the queue takes, and
    /// returns how many. The others stay, in order.
    #[inline]
    pub fn send<T: Transmit, const N: usize>(&mut self, burst: &mut ArrayVec<T, N>) -> usize {
        let wanted = burst.len().min(usize::from(u16::MAX)) as u16;
        // SAFETY: the port is started while this handle lives, and `&mut self` is the only sender.
        // A `Transmit` is a pointer to an owned packet; those that were taken are the port's, and
        // leave the array without being dropped.
        unsafe {
            let first = burst.as_mut_ptr().cast::<*mut sys::rte_mbuf>();
            let count = usize::from(sys::dpdk_shim_tx_burst(self.port, self.queue, first, wanted));
            forget_front(burst, count);
            count
        }
    }
}
