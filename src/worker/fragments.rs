//! Fragments of services' packets (REQ D4): they go the way of their flow, whichever worker they came to.
//!
//! Ports steer fragments by addresses at most, and only a first one has ports. So each datagram has a *designated*
//! worker, by its addresses, that knows the ports or waits for them; and from there its fragments go to the owner of
//! their shard, with the ports written where the link address of their sender was, which is of no more use. A port's
//! packet goes to the designated worker (a distributor's comes there at once), that worker's packet to the owner, and
//! the owner's to nobody: no fragment changes hands more than twice. What is written in an address is believed only of
//! packets that another worker handed over, and to a worker that is not the designated one only that one hands
//! fragments.

use crate::base::buffer::{Buffer, Handed};
use crate::base::counters::Counter;
use crate::base::ids::WorkerId;
use crate::base::io::Io;
use crate::base::time::Instant;
use crate::distributor::classify::shard_of;
use crate::distributor::fragment::{Arrival, Name};
use crate::distributor::tell::Tell;
use crate::flow::key::{Address, Key};
use crate::wire::IpProtocol;
use crate::wire::fragment::{Fragment, set_identification};
use crate::wire::parse::{Parsed, parse_head};
use crate::worker::message::Role;
use crate::worker::{Origin, Worker};

/// Where ports and protocol are written for the owner: the sender's link address.
const NOTE: core::ops::Range<usize> = 6..11;

impl<B: Buffer> Worker<B> {
    pub(super) fn handle_fragment<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        packet: B,
        parsed: &Parsed,
        designated: WorkerId,
        io: &mut I,
    ) {
        let head = packet.head();
        let (Some(fragment), Some((src, dst))) = (Fragment::of(head, parsed), parsed.addresses(head)) else {
            return self.counters.bump(Counter::DropNotIp);
        };
        let (src, dst) = (Address::from(src), Address::from(dst));
        // One that another worker knows to be elsewhere has been here: its ports are written, and its flow may be here.
        let was_here = self.origin == Origin::Worker && packet.handed() != Handed::Plain;
        if designated != self.id || was_here {
            return match self.origin {
                Origin::Port | Origin::Distributor => self.pass_on(designated, packet, Handed::Plain, io),
                Origin::Worker => self.handle_noted(now, packet, parsed, (src, dst), io),
            };
        }
        let arrival = Arrival {
            name: Name::of(src, dst, parsed.vlan, &fragment),
            fragment,
            first: parsed.ports(head).map(|ports| (ports, parsed.protocol)),
            len: packet.total_len(),
        };
        let Some((packet, kinship)) = self.reassembly.handle(now, &arrival, packet, &self.counters) else {
            return;
        };
        let (src_port, dst_port) = kinship.ports;
        let key = Key { src, dst, src_port, dst_port, vlan: parsed.vlan, protocol: kinship.protocol.0 };
        self.distribute(now, packet, &key, kinship.identification, io);
        while let Some(packet) = self.reassembly.next_released() {
            self.distribute(now, packet, &key, kinship.identification, io);
        }
    }

    /// Gives a fragment whose key is known to the owner of its shard.
    fn distribute<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        mut packet: B,
        key: &Key,
        identification: u16,
        io: &mut I,
    ) {
        let parsed = match parse_head(packet.head(), packet.total_len()) {
            Ok(parsed) => parsed,
            Err(malformed) => return self.counters.bump(malformed.counter()),
        };
        set_identification(packet.head_mut(), &parsed, identification);
        let shard = shard_of(key, &self.tables.services, &self.toeplitz);
        let [a, b] = key.src_port.to_be_bytes();
        let [c, d] = key.dst_port.to_be_bytes();
        packet.head_mut()[NOTE].copy_from_slice(&[a, b, c, d, key.protocol]);
        // What was said of it was said by who did not know its key.
        packet.set_handed(Handed::Plain);
        self.handle_placed(now, packet, &parsed, *key, shard, io);
    }

    /// A fragment that its designated worker, perhaps this one, gave to this one as the owner of its shard, when its flow was
    /// on its way.
    pub(super) fn handle_parked_fragment<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        packet: B,
        io: &mut I,
    ) {
        if self.role == Role::Standby {
            return self.counters.bump(Counter::DropStandby);
        }
        let parsed = match parse_head(packet.head(), packet.total_len()) {
            Ok(parsed) => parsed,
            Err(malformed) => return self.counters.bump(malformed.counter()),
        };
        match parsed.addresses(packet.head()) {
            Some((src, dst)) => self.handle_noted(now, packet, &parsed, (src.into(), dst.into()), io),
            None => self.counters.bump(Counter::DropNotIp),
        }
    }

    /// A fragment from its datagram's designated worker.
    fn handle_noted<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        packet: B,
        parsed: &Parsed,
        (src, dst): (Address, Address),
        io: &mut I,
    ) {
        let Some(&[a, b, c, d, protocol]) = packet.head().get(NOTE).and_then(|note| note.first_chunk())
        else {
            return self.counters.bump(Counter::DropNotIp);
        };
        let (src_port, dst_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let key = Key { src, dst, src_port, dst_port, vlan: parsed.vlan, protocol };
        let shard = shard_of(&key, &self.tables.services, &self.toeplitz);
        if !matches!(IpProtocol(protocol), IpProtocol::TCP | IpProtocol::UDP) {
            return self.counters.bump(Counter::DropNoFlow);
        }
        self.handle_placed(now, packet, parsed, key, shard, io);
    }
}
