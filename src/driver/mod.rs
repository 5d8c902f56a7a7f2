//! The outside: clocks, threads, DPDK's environment, ports and buffers, files, signals.
//! The only room, with `control` and `cli`, that touches any of it.
//!
//! Threads of an appliance, started by [`run`]:
//!
//! - a worker on each lcore ([`lcore`] on [`dpdk_io`]), or a distributor alone ([`spreading`] on [`intake`]), owners of
//!   their queues: receive queue `q` of a port belongs to the `q`-th lcore that distributes, transmit queue `q` to the
//!   `q`-th traffic manager;
//! - the liveness thread ([`liveness`]), real-time where it may be, which runs `failover`;
//! - the master ([`master`]) on the process's first thread: neighbours, answers, ageing, log, and what the service manager is
//!   told ([`service`]);
//! - the control listeners (room `control`), which ask through [`backend`];
//! - a writer of terms ([`state`]), and who reads the configuration file again ([`reload`]);
//! - if there are such, runners of the operator's commands ([`notify`], [`fence`]) and one of the tracking script ([`track`]).
//!
//! They are joined by [`rings`] and by single numbers ([`lease`]). In: a checked
//! configuration; packets from ports; signals. Out: packets to ports; the log; terms on disk.
//!
//! [`witness`] is a process of its own, and the liveness thread's link to it.
//!
//! With the feature `dpdk`, packets are mbufs and ports are DPDK's; [`memory`] has the same
//! buffers in plain memory, for tests and for the simulator.
//!
//! Not yet: an lcore for the mirror alone, a tap for the kernel's share.

#![expect(clippy::disallowed_methods, reason = "this is the room that reads clocks and waits")]

#[cfg(feature = "dpdk")]
pub mod backend;
#[cfg(feature = "dpdk")]
mod broken;
pub mod checksum;
#[cfg(feature = "dpdk")]
mod child;
pub mod clock;
#[cfg(feature = "dpdk")]
pub mod configuring;
#[cfg(feature = "dpdk")]
pub mod dpdk_io;
pub mod eal;
pub mod events;
#[cfg(feature = "dpdk")]
pub mod fence;
#[cfg(feature = "dpdk")]
mod helpers;
pub mod idle;
#[cfg(feature = "dpdk")]
pub mod intake;
pub mod lcore;
pub mod lease;
#[cfg(feature = "dpdk")]
mod link;
#[cfg(feature = "dpdk")]
pub mod liveness;
pub mod load;
#[cfg(feature = "dpdk")]
mod locked;
#[cfg(feature = "dpdk")]
pub mod master;
#[cfg(feature = "dpdk")]
pub mod mbuf;
pub mod memory;
#[cfg(feature = "dpdk")]
mod nodes;
#[cfg(feature = "dpdk")]
pub mod notify;
#[cfg(feature = "dpdk")]
pub mod outbox;
#[cfg(feature = "dpdk")]
pub mod ports;
#[cfg(feature = "dpdk")]
pub mod priority;
#[cfg(feature = "dpdk")]
pub mod provoked;
#[cfg(feature = "dpdk")]
mod rebalancing;
#[cfg(feature = "dpdk")]
pub mod reload;
#[cfg(feature = "dpdk")]
pub mod rings;
pub mod rss;
#[cfg(feature = "dpdk")]
pub mod run;
pub mod secrets;
pub mod service;
#[cfg(feature = "dpdk")]
mod sharing;
pub mod spreading;
pub mod state;
#[cfg(feature = "dpdk")]
mod steering;
#[cfg(feature = "dpdk")]
mod track;
pub mod witness;
