//! Where a packet to an address goes next: by a port's own network, or by a
//! static route's gateway. Looked up once for a flow, never for a packet.

use core::net::IpAddr;

use crate::base::ids::PortId;
use crate::config::checked::{Checked, Cidr};

/// The neighbour that a packet is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// By this port.
    pub port: PortId,
    /// To the neighbour with this address.
    pub address: IpAddr,
}

/// The routes of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Longest prefix first.
    routes: Vec<(Cidr, PortId, Option<IpAddr>)>,
}

impl Routes {
    /// The networks of the ports, and the static routes.
    pub fn new(config: &Checked) -> Routes {
        let mut routes = Vec::new();
        for (i, port) in config.ports.iter().enumerate() {
            for network in port.addresses.iter().chain(&port.shared_addresses) {
                routes.push((*network, PortId(i as u16), None));
            }
        }
        routes.extend(config.routes.iter().map(|route| (route.destination, route.port, Some(route.gateway))));
        // A stable sort: at equal length a port's own network comes before a gateway.
        routes.sort_by_key(|(network, ..)| core::cmp::Reverse(network.prefix_len));
        Routes { routes }
    }

    /// The next hop towards an address; `None`: there is no route.
    pub fn next_hop(&self, address: IpAddr) -> Option<NextHop> {
        let (_, port, gateway) = self.routes.iter().find(|(network, ..)| contains(network, address))?;
        Some(NextHop { port: *port, address: gateway.unwrap_or(address) })
    }
}

fn contains(network: &Cidr, address: IpAddr) -> bool {
    let (net, host, bits) = match (network.address, address) {
        (IpAddr::V4(net), IpAddr::V4(host)) => (u128::from(net.to_bits()), u128::from(host.to_bits()), 32),
        (IpAddr::V6(net), IpAddr::V6(host)) => (net.to_bits(), host.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    let shift = bits - u32::from(network.prefix_len).min(bits);
    net.checked_shr(shift).unwrap_or(0) == host.checked_shr(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(list: &[(&str, u8, u16, Option<&str>)]) -> Routes {
        let mut routes: Vec<_> = list
            .iter()
            .map(|(net, len, port, gateway)| {
                let network = Cidr { address: net.parse().unwrap(), prefix_len: *len };
                (network, PortId(*port), gateway.map(|g| g.parse().unwrap()))
            })
            .collect();
        routes.sort_by_key(|(network, ..)| core::cmp::Reverse(network.prefix_len));
        Routes { routes }
    }

    #[test]
    fn the_longest_prefix_decides() {
        let routes = routes(&[
            ("0.0.0.0", 0, 0, Some("10.1.0.1")),
            ("10.1.0.2", 24, 0, None),
            ("10.2.0.2", 24, 1, None),
            ("::", 0, 0, Some("fd01::1")),
            ("fd02::2", 64, 1, None),
        ]);
        let hop = |a: &str| routes.next_hop(a.parse().unwrap()).map(|h| (h.port.0, h.address.to_string()));
        assert_eq!(hop("10.2.0.10"), Some((1, "10.2.0.10".to_string())));
        assert_eq!(hop("192.0.2.7"), Some((0, "10.1.0.1".to_string())));
        assert_eq!(hop("fd02::9"), Some((1, "fd02::9".to_string())));
        assert_eq!(hop("2001:db8::1"), Some((0, "fd01::1".to_string())));
    }

    #[test]
    fn without_a_route_there_is_no_next_hop() {
        assert_eq!(routes(&[("10.1.0.2", 24, 0, None)]).next_hop("192.0.2.7".parse().unwrap()), None);
    }
}
