//! The generator: which flow is next, what its frames look like, and what a real server
//! answers. Bytes in, bytes out: no clock, no ports, no allocation after the start, so that
//! one CPU makes and takes more packets than an appliance can forward.
//!
//! A flow is a number. Its client's address and port are computed from it
//! ([`population`]), so ten million flows take no memory and no cache here. Frames come from
//! a [`frame::Template`] whose checksums are summed once; what differs from frame to frame
//! is added to them.
//!
//! Everything is checked against baton's own parser in the tests of this module.

pub mod answer;
pub mod connection;
pub mod draw;
pub mod frame;
pub mod neighbour;
pub mod population;
pub mod sizes;
#[cfg(test)]
mod tests;

pub use draw::{Draw, Spread};
pub use frame::{Place, Shape, Template};
pub use population::Source;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}
