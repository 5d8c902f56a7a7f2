//! What a packet is, before any flow is looked up.
//!
//! The shard of a packet: to a virtual address, the hash of its source address
//! and port; otherwise the hash of its destination (DESIGN "Shard"). So both
//! directions of a flow have one shard, on every member, without a table.

use crate::base::counters::Counter;
use crate::base::ids::{PortId, ShardId, WorkerId};
use crate::distributor::services::{Services, Whose};
use crate::flow::key::{Address, Key};
use crate::flow::toeplitz::Toeplitz;
use crate::wire::IpProtocol;
use crate::wire::parse::{Network, Notes, Parsed};

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A heartbeat or handshake: for the liveness thread.
    Liveness,
    /// ARP, neighbour discovery, echo: for the master core.
    Master,
    /// A mirror frame for this worker.
    Mirror(WorkerId),
    /// A packet of a service.
    Service {
        /// Its connection key.
        key: Key,
        /// The shard of the key.
        shard: ShardId,
    },
    /// It is dropped for this reason.
    Drop(Counter),
}

/// Where mirror frames come in.
#[derive(Clone, Copy, Debug)]
pub struct MirrorPort {
    /// The dedicated port.
    pub port: PortId,
    /// The first UDP port of the streams.
    pub udp_port: u16,
    /// How many workers listen from there on.
    pub workers: u16,
}

/// Whether a frame's destination is this appliance: the port's own address or
/// a virtual one, given as `mine`, or a group.
pub fn is_for(head: &[u8], parsed: &Parsed, mine: &[[u8; 6]]) -> bool {
    parsed.notes.has(Notes::MULTICAST) || head.get(..6).is_some_and(|to| mine.iter().any(|mac| mac == to))
}

/// Says what a packet is that came in by `port`.
pub fn classify(
    head: &[u8],
    parsed: &Parsed,
    port: PortId,
    services: &Services,
    toeplitz: &Toeplitz,
    mirror: Option<MirrorPort>,
) -> Class {
    match parsed.network {
        Network::Liveness => return Class::Liveness,
        Network::Arp => return Class::Master,
        Network::Other => return Class::Drop(Counter::DropNotIp),
        Network::Ipv4 | Network::Ipv6 => {}
    }
    let Some((src, dst)) = parsed.addresses(head) else { return Class::Drop(Counter::DropNotIp) };
    if matches!(parsed.protocol, IpProtocol::ICMP | IpProtocol::ICMPV6) {
        return if parsed.is_fragment() { Class::Drop(Counter::DropFragment) } else { Class::Master };
    }
    if parsed.notes.has(Notes::MULTICAST) {
        return Class::Drop(Counter::DropMulticast);
    }
    if parsed.is_fragment() {
        return Class::Drop(Counter::DropFragment);
    }
    let Some((src_port, dst_port)) = parsed.ports(head) else {
        return Class::Drop(Counter::DropProtocol);
    };
    let (src, dst) = (Address::from(src), Address::from(dst));
    let whose = services.whose(&dst);
    if let Some(Whose::Own(_)) = whose {
        return to_self(parsed, port, dst_port, mirror);
    }
    if parsed.vlan != 0 {
        return Class::Drop(Counter::DropVlan);
    }
    let key = Key { src, dst, src_port, dst_port, vlan: 0, protocol: parsed.protocol.0 };
    let shard = match whose {
        Some(Whose::Virtual) => toeplitz.shard_of(src, src_port),
        _ => toeplitz.shard_of(dst, dst_port),
    };
    Class::Service { key, shard }
}

fn to_self(parsed: &Parsed, port: PortId, dst_port: u16, mirror: Option<MirrorPort>) -> Class {
    match mirror {
        Some(mirror) if mirror.port == port && parsed.protocol == IpProtocol::UDP => {
            match dst_port.checked_sub(mirror.udp_port) {
                Some(worker) if worker < mirror.workers => Class::Mirror(WorkerId(worker)),
                _ => Class::Drop(Counter::DropNoListener),
            }
        }
        _ => Class::Drop(Counter::DropNoListener),
    }
}
