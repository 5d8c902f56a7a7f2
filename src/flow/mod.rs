//! Flows: what is known of every connection, and how packets find it.
//!
//! Owner: all of it, [`flows::Flows`], belongs to one worker, which alone calls it. One
//! thing is shared: the array of last-seen ticks, which the worker writes and the
//! master's sweep reads ([`aging`]).
//!
//! In: keys made from packets, flows made by the traffic room or received from a
//! peer, `now`, a seeded generator. Out: which flow a packet belongs to and in
//! which direction it goes, what a segment changes, which flows have been idle
//! too long, which source-NAT port is free.
//!
//! * [`flows`]: all flows of a worker: the table and the shards.
//! * [`table`], on [`index`] (buckets of one line), [`layout`] (a flow in parts) and [`image`] (a key in
//!   sixteen bytes): what every packet goes through.
//! * [`entry`]: a flow as a value; [`key`]: its keys; [`tcp_state`]: what flags say;
//!   [`sequence`]: which of them the other end takes.
//! * [`shard`]: an order of changes and its [`ports`], of which some are [`resting`]; [`toeplitz`]: which one.
//!
//! Not yet: a flow that asks [`sequence`] (REQ D8), buddy links (REQ C9).

pub mod aging;
pub mod entry;
pub mod flows;
pub mod image;
pub mod index;
pub mod key;
pub mod layout;
pub mod ports;
pub mod resting;
pub mod sequence;
pub mod shard;
pub mod table;
pub mod tcp_state;
pub mod toeplitz;

pub use entry::{Direction, Flow, FlowIndex, Stamp};
pub use key::{Address, Key};
pub use tcp_state::TcpState;
