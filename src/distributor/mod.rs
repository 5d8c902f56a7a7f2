//! The distributor: what a packet is and which worker it belongs to (REQ E2, D10).
//!
//! Either a part of a worker, which asks [`classify`] of the packets that its stages leave; or on an lcore of its own,
//! [`spread::Distributor`], which looks up no flow and hands every packet to the worker that owns its shard. In:
//! packets, the services of the configuration. Out: a [`classify::Class`] for each. Fragments go through
//! [`fragment::Reassembly`], of their designated worker, and come out with their datagram's ports (REQ D4).
//!
//! Keys whose shard is another than the hash says are held by a [`store::Store`], which [`signal::Signal`]s change and
//! [`shape::Shape`]s order (REQ D1, D3, D6, D7). A [`place::Placer`] asks it for both, and chooses where nothing is known
//! (REQ D2).

pub mod classify;
pub mod doors;
pub mod fragment;
pub mod named;
pub mod place;
pub mod select;
pub mod services;
pub mod shape;
pub mod signal;
pub mod spread;
pub mod store;
pub mod tell;
pub mod zones;
