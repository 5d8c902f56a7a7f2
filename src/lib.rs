//! baton: a traffic manager on DPDK that never drops a connection.
//!
//! Rooms, lowest first; a room may use those on lines above it and none below
//! (`tests/tidy` holds it):
//!
//! ```text
//! base                      time, rng, ids, limits, counters, buffers, I/O
//! config                    file, checked, snapshot
//! wire                      packet headers
//! seal                      handshake, keys, sealed frames
//! flow                      key, shard, table, entry, ageing, TCP state
//! distributor traffic mirror
//! worker                    one worker, composed, still pure
//! failover                  role, liveness, term, lease, announce
//! master                    neighbours, sweep, statistics
//! driver control cli        the outside
//! ```
//!
//! Everything below `driver` is a pure state machine: input, `now` and a seed
//! go in, packets and events come out.

pub mod base;
pub mod cli;
pub mod config;
pub mod control;
pub mod distributor;
pub mod driver;
pub mod failover;
pub mod flow;
pub mod master;
pub mod mirror;
pub mod seal;
pub mod traffic;
pub mod wire;
pub mod worker;

/// No lcore waits for a line that another one writes without meaning it.
#[global_allocator]
static ALLOCATOR: base::memory::WholeLines = base::memory::WholeLines;
