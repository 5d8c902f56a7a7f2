//! Owning, safe wrappers over `dpdk-sys`.
//!
//! Raw bindings stay private to this crate. What DPDK gives by pointer or by
//! number is owned here by a value whose `Drop` gives it back; a null pointer or
//! a negative number becomes an [`Error`] in one place. What may be used by one
//! thread at a time (a queue, an end of a ring) is `Send` and neither `Sync` nor
//! `Clone`.
//!
//! ```no_run
//! # fn main() -> Result<(), dpdk::Error> {
//! let eal = dpdk::Eal::init(["app", "--no-pci", "--no-huge", "-m", "64", "--vdev", "net_null0"])?;
//! let pool = dpdk::Mempool::new(&eal, "packets", &dpdk::mempool::Config::default())?;
//! let mut port = dpdk::Port::open(&eal, "net_null0")?;
//! port.configure(&dpdk::port::Config::default(), &pool)?;
//! let mut queues = port.start()?;
//! let mut burst = dpdk::Burst::<32>::new();
//! queues.rx[0].receive(&mut burst);
//! queues.tx[0].send(&mut burst);
//! # Ok(()) }
//! ```

pub mod clock;
pub mod descriptors;
pub mod eal;
mod error;
#[cfg(feature = "hash")]
pub mod hash;
mod kept;
pub mod lcore;
mod logging;
pub mod mbuf;
pub mod mempool;
mod offload;
pub mod port;
pub mod ring;
pub mod rss;
mod unique;

pub use eal::{Eal, Running};
pub use error::Error;
pub use mbuf::{Mbuf, SharedMbuf};
pub use mempool::Mempool;
pub use port::{Port, RxQueue, TxQueue};
pub use unique::Unique;

/// Packets of one poll, at most `N`, in order.
pub type Burst<const N: usize> = arrayvec::ArrayVec<Mbuf, N>;
