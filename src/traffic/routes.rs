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
    v4: Vec<Route<u32>>,
    v6: Vec<Route<u128>>,
}

/// One route; of all, the longest prefix comes first.
#[derive(Clone, Copy, Debug)]
struct Route<A> {
    network: A,
    mask: A,
    port: PortId,
    gateway: Option<IpAddr>,
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
        Routes::of(routes)
    }

    fn of(mut routes: Vec<(Cidr, PortId, Option<IpAddr>)>) -> Routes {
        // A stable sort: at equal length a port's own network comes before a gateway.
        routes.sort_by_key(|(network, ..)| core::cmp::Reverse(network.prefix_len));
        let mut sorted = Routes::default();
        for (cidr, port, gateway) in routes {
            let host_bits = |bits: u32| bits.saturating_sub(u32::from(cidr.prefix_len));
            match cidr.address {
                IpAddr::V4(address) => {
                    let mask = u32::MAX.checked_shl(host_bits(32)).unwrap_or(0);
                    let network = address.to_bits() & mask;
                    sorted.v4.push(Route { network, mask, port, gateway });
                }
                IpAddr::V6(address) => {
                    let mask = u128::MAX.checked_shl(host_bits(128)).unwrap_or(0);
                    let network = address.to_bits() & mask;
                    sorted.v6.push(Route { network, mask, port, gateway });
                }
            }
        }
        sorted
    }

    /// The next hop towards an address; `None`: there is no route.
    pub fn next_hop(&self, address: IpAddr) -> Option<NextHop> {
        let (port, gateway) = match address {
            IpAddr::V4(to) => {
                let route = self.v4.iter().find(|route| to.to_bits() & route.mask == route.network)?;
                (route.port, route.gateway)
            }
            IpAddr::V6(to) => {
                let route = self.v6.iter().find(|route| to.to_bits() & route.mask == route.network)?;
                (route.port, route.gateway)
            }
        };
        Some(NextHop { port, address: gateway.unwrap_or(address) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(list: &[(&str, u8, u16, Option<&str>)]) -> Routes {
        let routes = list
            .iter()
            .map(|(net, len, port, gateway)| {
                let network = Cidr { address: net.parse().unwrap(), prefix_len: *len };
                (network, PortId(*port), gateway.map(|g| g.parse().unwrap()))
            })
            .collect();
        Routes::of(routes)
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
