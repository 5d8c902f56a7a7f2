//! Packets of no flow from and to real servers' own addresses: routed past the flows, as a plain router does it (REQ D10,
//! RFC 1812). Nothing is remembered of them, so a peer need not know of them, and a takeover does not concern them.
//!
//! Those with ports come here when no flow has them, at the worker that owns the shard of their key, as any packet of a
//! service does; those without at the worker of their pair of addresses. So none overtakes another of its connection.
//!
//! Not yet: ICMP errors, so whoever sends what is too large or has no hop left is not told; fragmentation; and whose flow it
//! is that an ICMP error speaks of.

use crate::base::buffer::{Buffer, Handed};
use crate::base::counters::Counter;
use crate::base::ids::ShardId;
use crate::base::io::Io;
use crate::base::time::Instant;
use crate::distributor::tell::Tell;
use crate::flow::shard::owner_of;
use crate::traffic::forward::hop::{Hopped, hop};
use crate::wire::parse::Parsed;
use crate::worker::Worker;
use crate::worker::packet::ip_len;

impl<B: Buffer> Worker<B> {
    /// A packet without ports, which no flow can have.
    pub(super) fn handle_routed<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        packet: B,
        parsed: &Parsed,
        shard: ShardId,
        io: &mut I,
    ) {
        // It need not go with a shard that moves: nothing is known of it there.
        let owner = owner_of(shard, self.workers);
        if owner == self.id {
            self.received += 1;
            self.route(now, packet, parsed, io);
        } else {
            self.pass_on(owner, packet, Handed::Plain, io);
        }
    }

    /// Sends a packet on to the next hop of its destination, if it may go on.
    pub(super) fn route<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        mut packet: B,
        parsed: &Parsed,
        io: &mut I,
    ) {
        let adjacency = match self.way_on(packet.head(), parsed) {
            Ok(adjacency) => adjacency,
            Err(counter) => return self.counters.bump(counter),
        };
        match hop(packet.head_mut(), parsed) {
            Hopped::Done => {
                self.counters.bump(Counter::Routed);
                self.emit(now, packet, adjacency, io);
            }
            Hopped::Exceeded => self.counters.bump(Counter::DropHopsExceeded),
            Hopped::NotIp => self.counters.bump(Counter::DropNotIp),
        }
    }

    /// The neighbour that a packet goes to next.
    fn way_on(&mut self, head: &[u8], parsed: &Parsed) -> Result<u32, Counter> {
        let (_, to) = parsed.addresses(head).ok_or(Counter::DropNotIp)?;
        let hop = self.tables.routes.next_hop(to).ok_or(Counter::DropNoRoute)?;
        if self.tables.mirror_port.is_some_and(|mirror| mirror.port == hop.port) {
            return Err(Counter::DropNoRoute); // It is the members' own.
        }
        let ports = &self.tables.snapshot.checked.ports;
        let mtu = ports.get(usize::from(hop.port.0)).map_or(0, |port| port.mtu);
        if ip_len(parsed) > u64::from(mtu) {
            return Err(Counter::DropTooLarge);
        }
        self.adjacencies.index_of(hop).ok_or(Counter::DropNeighbour)
    }
}
