//! Which addresses are ours, on which port, and from which MAC they speak.

use core::net::{IpAddr, Ipv4Addr};
use std::collections::{BTreeMap, BTreeSet};

use crate::base::ids::PortId;
use crate::base::io::TxClass;
use crate::config::checked::{Checked, Cidr};
use crate::wire::{MacAddress, ipv6};

/// In whose name an address of ours speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This appliance's, in any role.
    Own,
    /// The active appliance's: shared, virtual and source-NAT addresses.
    Service,
}

impl Holder {
    /// The class of packets from such an address.
    pub const fn class(self) -> TxClass {
        match self {
            Holder::Own => TxClass::Own,
            Holder::Service => TxClass::Service,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct PortAddresses {
    mac: MacAddress,
    own: Vec<Cidr>,
    networks: Vec<Cidr>,
}

/// The addresses of a configuration.
#[derive(Clone, Debug)]
pub struct Addresses {
    ports: Vec<PortAddresses>,
    on_link: BTreeMap<(PortId, IpAddr), Holder>,
    anywhere: BTreeMap<IpAddr, Holder>,
    virtual_router_id: u8,
}

impl Addresses {
    /// The addresses of `checked`; `macs` are the ports' own, by [`PortId`].
    pub fn new(checked: &Checked, macs: &[MacAddress]) -> Addresses {
        let mut all = Addresses {
            ports: Vec::with_capacity(checked.ports.len()),
            on_link: BTreeMap::new(),
            anywhere: BTreeMap::new(),
            virtual_router_id: checked.failover.virtual_router_id,
        };
        for (i, port) in checked.ports.iter().enumerate() {
            let networks = port.addresses.iter().chain(&port.shared_addresses).copied().collect();
            let mac = macs.get(i).copied().unwrap_or_default();
            all.ports.push(PortAddresses { mac, own: port.addresses.clone(), networks });
        }
        for (i, port) in checked.ports.iter().enumerate() {
            for own in &port.addresses {
                all.on_link.insert((PortId(i as u16), own.address), Holder::Own);
                all.anywhere.insert(own.address, Holder::Own);
            }
        }
        let shared = checked.ports.iter().flat_map(|port| &port.shared_addresses).map(|cidr| cidr.address);
        let service: BTreeSet<IpAddr> = shared.chain(virtual_addresses(checked)).collect();
        for address in service {
            // An address that is also an own one stays that: it answers in any role.
            all.anywhere.entry(address).or_insert(Holder::Service);
            for port in all.ports_holding(address).collect::<Vec<_>>() {
                all.on_link.entry((port, address)).or_insert(Holder::Service);
            }
        }
        all.add_link_locals();
        all
    }

    /// RFC 4291 section 2.8: every interface that speaks IPv6 has a link-local address; and so has a virtual router, made
    /// from its MAC (RFC 9568 section 5.2.9). One that is configured stands for them.
    fn add_link_locals(&mut self) {
        for port in (0..self.ports.len() as u16).map(PortId) {
            let mac = self.port_mac(port);
            // Where no ports' MACs are given, only service addresses are wanted.
            if mac != MacAddress::ZERO {
                self.add_link_local(port, Holder::Own, mac);
            }
            self.add_link_local(port, Holder::Service, self.virtual_mac(true));
        }
    }

    fn add_link_local(&mut self, port: PortId, holder: Holder, mac: MacAddress) {
        let speaks: Vec<IpAddr> = self.of(port, holder, true).collect();
        if !speaks.is_empty() && !speaks.into_iter().any(is_link_local) {
            let made = IpAddr::V6(ipv6::link_local(mac));
            self.on_link.entry((port, made)).or_insert(holder);
            self.anywhere.entry(made).or_insert(holder);
        }
    }

    /// The addresses of a family that a holder has on the link of `port`.
    pub fn of(&self, port: PortId, holder: Holder, ipv6: bool) -> impl Iterator<Item = IpAddr> {
        let here = self.on_link.range((port, IpAddr::V4(Ipv4Addr::UNSPECIFIED))..);
        here.take_while(move |((of, _), _)| *of == port)
            .filter(move |((_, address), of)| **of == holder && address.is_ipv6() == ipv6)
            .map(|((_, address), _)| *address)
    }

    /// Whether `address` is ours on the link of `port`, so that we answer for it there.
    pub fn on_link(&self, port: PortId, address: IpAddr) -> Option<Holder> {
        self.on_link.get(&(port, address)).copied()
    }

    /// Whether `address` is ours, by whichever port its packets come.
    pub fn anywhere(&self, address: IpAddr) -> Option<Holder> {
        self.anywhere.get(&address).copied()
    }

    /// Whether `address` is on a network of `port`; link-local ones are on any.
    pub fn is_neighbour(&self, port: PortId, address: IpAddr) -> bool {
        is_link_local(address)
            || self.port(port).is_some_and(|port| port.networks.iter().any(|net| net.contains(address)))
    }

    /// The ports whose networks hold `address`.
    pub fn ports_holding(&self, address: IpAddr) -> impl Iterator<Item = PortId> {
        let holds = move |port: &PortAddresses| port.networks.iter().any(|net| net.contains(address));
        (0..).map(PortId).zip(&self.ports).filter(move |(_, port)| holds(port)).map(|(id, _)| id)
    }

    /// This appliance's own address from which to speak to `peer` on `port`: in the peer's
    /// network if there is one, else any of its family.
    pub fn own_towards(&self, port: PortId, peer: IpAddr) -> Option<IpAddr> {
        let own = &self.port(port)?.own;
        let same_network = own.iter().find(|cidr| cidr.contains(peer));
        let same_family = || own.iter().find(|cidr| cidr.address.is_ipv4() == peer.is_ipv4());
        same_network.or_else(same_family).map(|cidr| cidr.address)
    }

    /// The first IPv4 address of a port itself.
    pub fn first_own_v4(&self, port: PortId) -> Option<IpAddr> {
        self.port(port)?.own.iter().map(|cidr| cidr.address).find(IpAddr::is_ipv4)
    }

    /// Every service address with the ports on whose links it is.
    pub fn service(&self) -> impl Iterator<Item = (PortId, IpAddr)> {
        self.on_link.iter().filter(|(_, holder)| **holder == Holder::Service).map(|(key, _)| *key)
    }

    /// How many ports there are.
    pub fn ports(&self) -> usize {
        self.ports.len()
    }

    /// The MAC of a port itself.
    pub fn port_mac(&self, port: PortId) -> MacAddress {
        self.port(port).map(|port| port.mac).unwrap_or_default()
    }

    /// The MAC from which `address` speaks on `port`.
    pub fn mac(&self, port: PortId, address: IpAddr, holder: Holder) -> MacAddress {
        match holder {
            Holder::Own => self.port_mac(port),
            Holder::Service => self.virtual_mac(address.is_ipv6()),
        }
    }

    /// The virtual MAC of a family (RFC 9568 section 7.3).
    pub const fn virtual_mac(&self, ipv6: bool) -> MacAddress {
        match ipv6 {
            false => MacAddress::virtual_router_v4(self.virtual_router_id),
            true => MacAddress::virtual_router_v6(self.virtual_router_id),
        }
    }

    /// Whether `mac` is one of the virtual MACs.
    pub fn is_virtual_mac(&self, mac: MacAddress) -> bool {
        mac == self.virtual_mac(false) || mac == self.virtual_mac(true)
    }

    fn port(&self, port: PortId) -> Option<&PortAddresses> {
        self.ports.get(usize::from(port.0))
    }
}

/// Whether an IPv6 address is of its link alone.
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Virtual and source-NAT addresses.
fn virtual_addresses(checked: &Checked) -> impl Iterator<Item = IpAddr> {
    checked
        .virtual_servers
        .iter()
        .flat_map(|server| core::iter::once(server.address).chain(server.all_sources()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::samples::{CLIENT, MIRROR, SERVER, checked, ip, macs};

    fn addresses() -> Addresses {
        Addresses::new(&checked(), &macs())
    }

    #[test]
    fn an_address_is_answered_on_the_ports_whose_networks_hold_it() {
        let all = addresses();
        assert_eq!(all.on_link(CLIENT, ip("10.1.0.2")), Some(Holder::Own));
        assert_eq!(all.on_link(SERVER, ip("10.1.0.2")), None);
        assert_eq!(all.on_link(CLIENT, ip("10.1.0.100")), Some(Holder::Service), "virtual");
        assert_eq!(all.on_link(SERVER, ip("10.2.0.1")), Some(Holder::Service), "shared");
        assert_eq!(all.on_link(SERVER, ip("10.2.0.100")), Some(Holder::Service), "source NAT");
        assert_eq!(all.on_link(CLIENT, ip("10.2.0.100")), None);
        assert_eq!(all.on_link(CLIENT, ip("fd01::100")), Some(Holder::Service));
        assert_eq!(all.on_link(CLIENT, ip("10.1.0.50")), None);
        assert_eq!(all.on_link(PortId(99), ip("10.1.0.2")), None);
    }

    #[test]
    fn a_virtual_address_on_no_network_is_ours_but_on_no_link() {
        let all = addresses();
        assert_eq!(all.anywhere(ip("192.0.2.80")), Some(Holder::Service));
        for port in [CLIENT, SERVER, MIRROR] {
            assert_eq!(all.on_link(port, ip("192.0.2.80")), None);
        }
    }

    #[test]
    fn own_addresses_speak_from_the_ports_mac_and_service_from_the_virtual_one() {
        let all = addresses();
        assert_eq!(all.mac(CLIENT, ip("10.1.0.2"), Holder::Own), macs()[0]);
        let service = |address| all.mac(CLIENT, ip(address), Holder::Service).to_string();
        assert_eq!(service("10.1.0.100"), "00:00:5e:00:01:33");
        assert_eq!(service("fd01::100"), "00:00:5e:00:02:33");
    }

    #[test]
    fn ports_and_the_virtual_router_have_link_local_addresses_where_they_speak_ipv6() {
        let all = addresses();
        let (own, of_router) = (ip("fe80::ff:fe00:101"), ip("fe80::200:5eff:fe00:233"));
        assert_eq!(all.on_link(CLIENT, own), Some(Holder::Own));
        assert_eq!(all.on_link(SERVER, own), None, "another port's");
        for port in [CLIENT, SERVER] {
            assert_eq!(all.on_link(port, of_router), Some(Holder::Service));
        }
        assert_eq!(all.on_link(MIRROR, of_router), None);
        let mut checked = checked();
        checked.ports[0].addresses.push(Cidr { address: ip("fe80::7"), prefix_len: 64 });
        let all = Addresses::new(&checked, &macs());
        assert_eq!(all.on_link(CLIENT, ip("fe80::7")), Some(Holder::Own));
        assert_eq!(all.on_link(CLIENT, own), None, "one is configured");
    }

    #[test]
    fn the_own_address_in_the_peers_network_is_chosen() {
        let all = addresses();
        assert_eq!(all.own_towards(CLIENT, ip("10.1.0.50")), Some(ip("10.1.0.2")));
        assert_eq!(all.own_towards(CLIENT, ip("fd01::50")), Some(ip("fd01::2")));
        assert_eq!(all.own_towards(CLIENT, ip("fe80::1")), Some(ip("fd01::2")));
        assert_eq!(all.own_towards(MIRROR, ip("fd01::50")), None);
    }
}
