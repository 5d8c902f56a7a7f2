//! The traffic manager: which virtual server a first packet is for, which real
//! server answers it, how packets are translated and where they go next.
//!
//! Owned by one worker. In: packets with their keys, the configuration's
//! snapshot, neighbours that the master resolved. Out: rewritten packets,
//! neighbours to resolve. Not yet: bind ids, DSR and tunnels, buddy flows,
//! ICMP errors of translated flows, health.

pub mod adjacency;
pub mod balance;
pub mod counts;
pub mod forward;
pub mod routes;
