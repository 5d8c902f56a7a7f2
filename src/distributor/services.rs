//! The addresses that this appliance answers for, and what each is: looked up
//! once for a packet that has no flow.

use core::net::IpAddr;

use foldhash::fast::FixedState;

use crate::base::ids::{PortId, ShardId, VirtualServerId};
use crate::base::limits::SHARDS;
use crate::config::checked::{Checked, HashMethod, Protocol, VirtualServer};
use crate::flow::image::V4Endpoints;
use crate::flow::key::{Address, Key, TCP, UDP};
use crate::flow::toeplitz::Toeplitz;

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The appliance's own, on this port.
    Own(PortId),
    /// Shared: it floats with the role.
    Shared,
    /// A virtual server's.
    Virtual,
    /// Sources are translated to it.
    SourceNat,
}

/// Hashed alike in every process, so that a packet costs the same after each start. The network puts nothing in: nobody can
/// choose keys that collide.
type HashMap<K, V> = hashbrown::HashMap<K, V, FixedState>;
type HashSet<K> = hashbrown::HashSet<K, FixedState>;

/// The services of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Services {
    addresses: HashMap<Address, Whose>,
    /// The same over IPv4, by the bytes of a packet.
    addresses_v4: HashMap<[u8; 4], Whose>,
    listeners: HashMap<(Address, u16, u8), usize>,
    /// The same over IPv4, by the bytes of a packet.
    listeners_v4: HashMap<u64, usize>,
    by_id: HashMap<VirtualServerId, usize>,
    /// The real servers to and from which packets are routed; none, unless that is configured.
    routed: HashSet<Address>,
    /// What is hashed of keys to each virtual server, by its place in the configuration.
    hashes: Vec<HashMethod>,
    /// Of all of them source address and port.
    all_by_source: bool,
}

impl Services {
    /// The services of a configuration.
    pub fn new(config: &Checked) -> Services {
        let mut services = Services::default();
        for source in config.virtual_servers.iter().flat_map(VirtualServer::all_sources) {
            services.addresses.insert(Address::from(source), Whose::SourceNat);
        }
        for (i, port) in config.ports.iter().enumerate() {
            for own in &port.addresses {
                services.addresses.insert(own.address.into(), Whose::Own(PortId(i as u16)));
            }
            for shared in &port.shared_addresses {
                services.addresses.insert(shared.address.into(), Whose::Shared);
            }
        }
        // Retired ones are the last: whoever listens at the address of one now takes its place.
        for (i, server) in config.virtual_servers.iter().enumerate().rev() {
            let protocol = number(server.protocol);
            services.addresses.insert(server.address.into(), Whose::Virtual);
            services.listeners.insert((server.address.into(), server.port, protocol), i);
            if let IpAddr::V4(address) = server.address {
                let key = key_v4(u32::from_le_bytes(address.octets()), server.port.to_be(), protocol);
                services.listeners_v4.insert(key, i);
            }
            services.by_id.insert(server.id, i);
        }
        let v4 =
            services.addresses.iter().filter_map(|(address, whose)| Some((address.v4_octets()?, *whose)));
        services.addresses_v4 = v4.collect();
        if config.distributor.route_to_servers {
            let servers = config.pools.iter().flat_map(|pool| &pool.servers);
            services.routed = servers.map(|server| server.address.into()).collect();
        }
        services.hashes = config.virtual_servers.iter().map(|server| server.select.hash()).collect();
        services.all_by_source = services.hashes.iter().all(|hash| *hash == HashMethod::Source);
        services
    }

    /// Whose an address is; `None`: nobody's here.
    pub fn whose(&self, address: &Address) -> Option<Whose> {
        self.addresses.get(address).copied()
    }

    /// As [`Services::whose`], of an IPv4 address in the order of the wire.
    #[inline]
    pub fn whose_v4(&self, address: [u8; 4]) -> Option<Whose> {
        self.addresses_v4.get(&address).copied()
    }

    /// Whether a packet that is of no flow is routed past the flows: from or to a real server's own address, and neither
    /// from nor to one of ours or one that is of no use beyond its link (REQ D10).
    pub fn routes(&self, src: &Address, dst: &Address) -> bool {
        !self.routed.is_empty()
            && (self.routed.contains(dst) || self.routed.contains(src))
            && [src, dst].iter().all(|end| self.whose(end).is_none() && crosses_links(end.ip()))
    }

    /// Whether what is hashed of every key to a virtual address is its source address and port.
    #[inline(always)]
    pub fn all_by_source(&self) -> bool {
        self.all_by_source
    }

    /// The shard of the hash of a packet's key, given whose its destination is.
    #[inline]
    pub fn shard_of(&self, key: &Key, whose: Option<Whose>, toeplitz: &Toeplitz) -> ShardId {
        match whose {
            Some(Whose::Virtual) if self.all_by_source => toeplitz.shard_of(key.src, key.src_port),
            Some(Whose::Virtual) => self.shard_by_method(key, toeplitz),
            Some(Whose::Own(_) | Whose::Shared | Whose::SourceNat) | None => {
                toeplitz.shard_of(key.dst, key.dst_port)
            }
        }
    }

    fn shard_by_method(&self, key: &Key, toeplitz: &Toeplitz) -> ShardId {
        let listener = self.listener(key.dst, key.dst_port, key.protocol);
        let hash = listener.and_then(|listener| self.hashes.get(listener)).copied();
        let source = || toeplitz.shard_of(key.src, key.src_port);
        let destination = || toeplitz.shard_of(key.dst, key.dst_port);
        match hash.unwrap_or(HashMethod::Source) {
            HashMethod::Source => source(),
            HashMethod::SourceAddress => toeplitz.shard_of(key.src, 0),
            HashMethod::Destination => destination(),
            HashMethod::Key => ShardId((source().0 ^ destination().0) % SHARDS as u16),
        }
    }

    /// The virtual server that listens here, by its place in the configuration.
    pub fn listener(&self, address: Address, port: u16, protocol: u8) -> Option<usize> {
        self.listeners.get(&(address, port, protocol)).copied()
    }

    /// As [`Services::listener`], for the destination of an IPv4 packet as [`V4Endpoints`] has it.
    #[inline]
    pub fn listener_v4(&self, to: V4Endpoints, protocol: u8) -> Option<usize> {
        self.listeners_v4.get(&key_v4(to.dst, to.dst_port, protocol)).copied()
    }

    /// A virtual server's place in the configuration.
    pub fn by_id(&self, id: VirtualServerId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }
}

/// Whether packets from or to an address may leave their link (RFC 1812 section 5.3.7, RFC 3927 section 7, RFC 4291
/// sections 2.5.2, 2.5.3, 2.5.6).
const fn crosses_links(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let stays = v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0;
            !stays && !v4.is_loopback() && !v4.is_multicast()
        }
        IpAddr::V6(v6) => {
            let stays = v6.is_unicast_link_local() || v6.is_unspecified();
            !stays && !v6.is_loopback() && !v6.is_multicast()
        }
    }
}

/// Address and port as little-endian loads of the packet's bytes.
const fn key_v4(address: u32, port: u16, protocol: u8) -> u64 {
    address as u64 | (port as u64) << 32 | (protocol as u64) << 48
}

/// The number of a transport protocol in an IP header.
pub const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

/// Whether two addresses are of one family.
pub const fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}
