//! Flows by number: each has a client's address and port of its own.
//!
//! Neighbouring numbers are different clients, as in real traffic; ports count up when
//! all clients have been named.

/// Clients that there are: the low 16 bits of their addresses.
pub const CLIENTS: u64 = 1 << 16;
/// A client's first port.
pub const PORT_MIN: u16 = 1024;
/// Ports of each client.
pub const PORTS: u64 = (1 << 16) - PORT_MIN as u64;
/// Flows that can be told apart. Greater numbers begin anew.
pub const FLOWS_MAX: u64 = CLIENTS * PORTS;
/// The first client's IPv4 address, 10.64.0.0; of IPv6 addresses the last 32 bits.
pub const HOST_FIRST: u32 = 0x0a40_0000;

/// The client's end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// Its IPv4 address, or the last 32 bits of its IPv6 address.
    pub host: u32,
    /// Its port.
    pub port: u16,
}

/// The client's end of the flow with this number.
#[inline]
pub const fn source(flow: u64) -> Source {
    Source { host: HOST_FIRST + (flow % CLIENTS) as u32, port: PORT_MIN + (flow / CLIENTS % PORTS) as u16 }
}

/// The number of the flow that a client's end belongs to, below [`FLOWS_MAX`].
#[inline]
pub const fn number(source: Source) -> u64 {
    (source.host.wrapping_sub(HOST_FIRST)) as u64 + source.port.wrapping_sub(PORT_MIN) as u64 * CLIENTS
}
