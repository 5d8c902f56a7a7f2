//! What a packet is, before any flow is looked up.
//!
//! The shard of a packet: to a virtual address, the hash of its source address
//! and port; otherwise the hash of its destination (DESIGN "Shard"). So both
//! directions of a flow have one shard, on every member, without a table.

use crate::base::buffer::{Buffer, ChecksumStatus};
use crate::base::counters::Counter;
use crate::base::ids::{PortId, ShardId, WorkerId};
use crate::config::checked::Checked;
use crate::distributor::services::{Services, Whose};
use crate::flow::key::{Address, Key};
use crate::flow::toeplitz::Toeplitz;
use crate::wire::IpProtocol;
use crate::wire::parse::{Network, Notes, Parsed, parse_head};
use crate::wire::{icmpv6, ipv4};

/// What a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A heartbeat or handshake: for the liveness thread.
    Liveness,
    /// ARP, neighbour discovery, echo, VRRP: for the master core.
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
    /// A fragment of a service's packet: its key is known together with its datagram's first one.
    Fragment {
        /// The shard whose owner is designated for the datagram: of its addresses, since they are all that every
        /// fragment has.
        designated: ShardId,
    },
    /// A packet without ports, ICMP for one, from or to a real server: no flow can have it, and it is routed past the flows
    /// (REQ D10). One with ports is a [`Class::Service`] first.
    Routed {
        /// The shard of its addresses: all of a pair's packets have one, and so keep their order.
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

impl MirrorPort {
    /// Of a configuration; `None`: nothing is mirrored.
    pub fn of(config: &Checked, workers: u16) -> Option<MirrorPort> {
        let mirror = config.mirror.as_ref()?;
        Some(MirrorPort { port: mirror.port, udp_port: mirror.udp_port, workers })
    }
}

/// What there is to know of an appliance to say what a packet is to it.
#[derive(Clone, Copy)]
pub struct Here<'a> {
    /// The ports' own link addresses, in their order.
    pub link_addresses: &'a [[u8; 6]],
    /// The virtual router's link addresses for IPv4 and IPv6.
    pub virtual_router: [[u8; 6]; 2],
    /// Its services.
    pub services: &'a Services,
    /// The hash of shards.
    pub toeplitz: &'a Toeplitz,
    /// Where mirror frames come in.
    pub mirror: Option<MirrorPort>,
}

impl Here<'_> {
    /// Says what a packet is, if it is sound as far as it was looked at, and to this appliance; else why it is dropped.
    #[inline]
    pub fn inspect<B: Buffer>(&self, packet: &B) -> Result<(Parsed, Class), Counter> {
        let head = packet.head();
        let parsed = parse_head(head, packet.total_len()).map_err(|malformed| malformed.counter())?;
        let rx = packet.rx();
        let own = self.link_addresses.get(usize::from(rx.port.0)).ok_or(Counter::DropOtherHost)?;
        let [virtual_v4, virtual_v6] = self.virtual_router;
        if !is_for(head, &parsed, &[*own, virtual_v4, virtual_v6]) {
            return Err(Counter::DropOtherHost);
        }
        // Of a fragment a port can say nothing, whatever it says: the sum is the whole datagram's.
        let is_l4_bad = rx.l4_checksum == ChecksumStatus::Bad && !parsed.is_fragment();
        if rx.ip_checksum == ChecksumStatus::Bad || is_l4_bad {
            return Err(Counter::DropChecksum);
        }
        // RFC 1812 section 5.2.2: what the port has not verified is verified here. The transport's is its ends' affair.
        if rx.ip_checksum == ChecksumStatus::Unknown
            && parsed.network == Network::Ipv4
            && !ipv4::Packet::new_unchecked(&head[parsed.l3_offset()..]).checksum_is_valid()
        {
            return Err(Counter::DropChecksum);
        }
        Ok((parsed, classify(head, &parsed, rx.port, self)))
    }
}

/// Whether a frame's destination is this appliance: the port's own address or
/// a virtual one, given as `mine`, or a group.
fn is_for(head: &[u8], parsed: &Parsed, mine: &[[u8; 6]]) -> bool {
    parsed.notes.has(Notes::MULTICAST) || head.get(..6).is_some_and(|to| mine.iter().any(|mac| mac == to))
}

/// Says what a packet is that came in by `port`.
fn classify(head: &[u8], parsed: &Parsed, port: PortId, here: &Here<'_>) -> Class {
    let Here { services, toeplitz, mirror, .. } = *here;
    match parsed.network {
        Network::Liveness => return Class::Liveness,
        Network::Arp => return Class::Master,
        Network::Other => return Class::Drop(Counter::DropNotIp),
        Network::Ipv4 | Network::Ipv6 => {}
    }
    let Some((src, dst)) = parsed.addresses(head) else { return Class::Drop(Counter::DropNotIp) };
    let (src, dst) = (Address::from(src), Address::from(dst));
    if matches!(parsed.protocol, IpProtocol::ICMP | IpProtocol::ICMPV6) {
        if !is_neighbour_discovery(head, parsed)
            && let Some(routed) = routed(parsed, (src, dst), here)
        {
            return routed;
        }
        // An echo request in fragments is put together there.
        let is_ours = || services.whose(&dst).is_some();
        let is_wanted = !parsed.is_fragment() || is_ours();
        return if is_wanted { Class::Master } else { Class::Drop(Counter::DropFragmentIcmp) };
    }
    if parsed.notes.has(Notes::MULTICAST) {
        let is_vrrp = parsed.protocol == IpProtocol::VRRP && !parsed.is_fragment() && parsed.vlan == 0;
        return if is_vrrp { Class::Master } else { Class::Drop(Counter::DropMulticast) };
    }
    if parsed.is_fragment() {
        return of_fragment(parsed, (src, dst), here);
    }
    let Some((src_port, dst_port)) = parsed.ports(head) else {
        return routed(parsed, (src, dst), here).unwrap_or(Class::Drop(Counter::DropProtocol));
    };
    let whose = services.whose(&dst);
    if let Some(Whose::Own(_)) = whose {
        return to_self(parsed, port, dst_port, mirror);
    }
    if parsed.vlan != 0 {
        return Class::Drop(Counter::DropVlan);
    }
    let key = Key { src, dst, src_port, dst_port, vlan: 0, protocol: parsed.protocol.0 };
    Class::Service { key, shard: services.shard_of(&key, whose, toeplitz) }
}

/// The shard of the hash of a packet's key.
pub fn shard_of(key: &Key, services: &Services, toeplitz: &Toeplitz) -> ShardId {
    services.shard_of(key, services.whose(&key.dst), toeplitz)
}

/// What a fragment is, of anything but ICMP and to nobody's group.
fn of_fragment(parsed: &Parsed, (src, dst): (Address, Address), here: &Here<'_>) -> Class {
    if let Some(Whose::Own(_)) = here.services.whose(&dst) {
        return Class::Drop(Counter::DropNoListener);
    }
    if parsed.vlan != 0 {
        return Class::Drop(Counter::DropVlan);
    }
    // What a later fragment of IPv6 carries is said by the first one alone.
    let may_have_ports = match (parsed.network, parsed.notes.has(Notes::FRAGMENT_FIRST)) {
        (Network::Ipv6, false) => {
            parsed.protocol.is_extension() || matches!(parsed.protocol, IpProtocol::TCP | IpProtocol::UDP)
        }
        (_, true) => parsed.has_ports(),
        (_, false) => matches!(parsed.protocol, IpProtocol::TCP | IpProtocol::UDP),
    };
    if !may_have_ports {
        return routed(parsed, (src, dst), here).unwrap_or(Class::Drop(Counter::DropProtocol));
    }
    Class::Fragment { designated: shard_of_pair((src, dst), here.toeplitz) }
}

/// A packet in which no ports are looked for, if it is routed past the flows.
fn routed(parsed: &Parsed, ends: (Address, Address), here: &Here<'_>) -> Option<Class> {
    // RFC 1812 section 5.3.4: what came to a whole link is not passed on.
    let stays = parsed.vlan != 0 || parsed.notes.has(Notes::MULTICAST);
    let is_routed = !stays && here.services.routes(&ends.0, &ends.1);
    is_routed.then(|| Class::Routed { shard: shard_of_pair(ends, here.toeplitz) })
}

/// The shard of two addresses, the same in both directions.
fn shard_of_pair((src, dst): (Address, Address), toeplitz: &Toeplitz) -> ShardId {
    ShardId(toeplitz.shard_of(src, 0).0 ^ toeplitz.shard_of(dst, 0).0)
}

/// Whether it speaks of its link alone (RFC 4861): a host may do so from and to addresses of any scope.
fn is_neighbour_discovery(head: &[u8], parsed: &Parsed) -> bool {
    let kind = head.get(usize::from(parsed.l4_offset)).copied().unwrap_or(0);
    let is_whole = parsed.protocol == IpProtocol::ICMPV6 && !parsed.is_fragment();
    is_whole && (icmpv6::Type::ROUTER_SOLICITATION.0..=icmpv6::Type::REDIRECT.0).contains(&kind)
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
