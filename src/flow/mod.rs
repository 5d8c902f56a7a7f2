//! Flows: what is known of every connection, and how packets find it.
//!
//! Owner: each [`shard::Shard`] belongs to one worker, which alone calls it. One
//! thing is shared: the array of last-seen ticks, which the worker writes and the
//! master's sweep reads ([`aging`]).
//!
//! In: keys made from packets, flows made by the traffic room or received from a
//! peer, `now`, a seeded generator. Out: which flow a packet belongs to and in
//! which direction it goes, what a segment changes, which flows have been idle
//! too long, which source-NAT port is free.
//!
//! Not yet: a slab of its own for IPv4 flows (all flows take 192 bytes), huge pages
//! under the tables, prefetch of index buckets over a burst (at a million flows a
//! lookup waits for memory several times), sequence numbers in the TCP state (REQ D8),
//! buddy links (REQ C9).

pub mod aging;
pub mod entry;
pub mod key;
pub mod ports;
pub mod resting;
pub mod shard;
pub mod table;
pub mod tcp_state;
pub mod toeplitz;

pub use entry::{Direction, Flow, FlowIndex, Stamp};
pub use key::{Address, Key};
pub use tcp_state::TcpState;
