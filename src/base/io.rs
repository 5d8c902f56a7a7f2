//! What a worker may do to the world, as a trait: the driver does it with DPDK,
//! tests and the simulator in memory. All of it is infallible for the caller:
//! what cannot be done is dropped and counted by the implementation.

use crate::base::buffer::Buffer;
use crate::base::ids::{PortId, ShardId, WorkerId};

/// In whose name a packet is sent. Right before the transmit, the driver reads
/// the clock again and drops service packets when the lease does not cover them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxClass {
    /// From a virtual, shared or source-NAT address or the virtual MAC: only
    /// the active appliance, under its lease, may send it.
    Service,
    /// From the appliance's own addresses: any role may send it.
    Own,
}

/// Who a punted packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punt {
    /// The master core: ARP, neighbour discovery, echo, VRRP, traffic to own addresses.
    Master,
    /// The liveness thread: heartbeats and handshakes.
    Liveness,
}

/// What may be done with packets that another thread of this appliance is to handle: all that a distributor does.
pub trait PassOn {
    /// The packet buffers of this world.
    type Buf: Buffer;

    /// Gives a packet to another thread of this appliance. A full ring drops and counts.
    fn punt(&mut self, to: Punt, packet: Self::Buf);
    /// Gives a packet to the worker that owns its shard. A full ring drops and counts.
    fn hand_over(&mut self, to: WorkerId, packet: Self::Buf);
    /// Puts a [`Handed::Marker`](crate::base::buffer::Handed::Marker) of this shard behind all that was handed over to a worker
    /// before. Whether it is in its ring: if there is no room or no buffer, it is to be tried again.
    fn mark(&mut self, to: WorkerId, shard: ShardId) -> bool;
}

/// The world of one worker.
pub trait Io: PassOn {
    /// A second reference to a packet whose bytes cannot be written through it.
    type Shared;

    /// An empty packet, or `None` when the pool is exhausted (counted there).
    fn alloc(&mut self) -> Option<Self::Buf>;
    /// Sends a packet by a port at the burst's end. A full port drops and counts.
    fn send(&mut self, port: PortId, packet: Self::Buf, class: TxClass);
    /// A reference to the same bytes that cannot be written, for sending twice.
    fn clone_shared(&mut self, packet: &Self::Buf) -> Option<Self::Shared>;
    /// Sends a shared reference, as `send` does.
    fn send_shared(&mut self, port: PortId, packet: Self::Shared, class: TxClass);
}
