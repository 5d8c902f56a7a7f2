//! The master core's slow work: neighbours, answers for our addresses, takeover
//! announcements, VRRP, the aging sweep, shards that move between workers; [`machine::Master`] composes them (REQ E4).
//!
//! Owned by the master thread. In: `now`, a checked configuration, and the frames that
//! workers punt (ARP, neighbour discovery, echo, VRRP), all chosen by whoever is on the
//! link. Out: frames to send with their class, link addresses of neighbours for the
//! workers, and what was seen of rivals. Pure: it reads no clock and opens nothing.
//!
//! Not here yet: VLANs of our own (a tagged query is answered in its VLAN, neighbours
//! are sought untagged), router discovery.

pub mod addresses;
pub mod announce;
pub mod answers;
pub mod foreign;
pub mod frames;
pub mod health;
pub mod machine;
pub mod neighbours;
pub mod reassembly;
pub mod rebalance;
pub mod rivals;
pub mod route;
pub mod sweep;
pub mod vrrp;

#[cfg(test)]
pub(crate) mod samples;

pub use machine::{Master, MasterOutput, MasterSetup};
