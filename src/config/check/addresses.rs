//! Who uses which address, and what is reachable.

use core::net::IpAddr;

use crate::base::ids::PortId;
use crate::config::checked::Cidr;
use crate::config::report::{Place, Report};

/// What an address is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// One of a port's `addresses`.
    Own,
    /// One of a port's `shared_addresses`.
    Shared,
    /// A route's gateway.
    Gateway,
    /// A virtual server's.
    Virtual,
    /// One of a virtual server's `snat_addresses`.
    Snat,
    /// A real server's.
    Server,
    /// Another member's.
    Peer,
}

impl Use {
    /// For a sentence: "… is ...".
    const fn text(self) -> &'static str {
        match self {
            Use::Own => "an own address",
            Use::Shared => "a shared address",
            Use::Gateway => "a gateway",
            Use::Virtual => "a virtual address",
            Use::Snat => "a source-NAT address",
            Use::Server => "a server's address",
            Use::Peer => "a peer's address",
        }
    }

    /// The uses that exclude this one. Those that come later in [`super::check`]
    /// name the earlier, so that each clash is told once.
    const fn excludes(self) -> &'static [Use] {
        match self {
            Use::Own | Use::Shared => &[Use::Own, Use::Shared],
            Use::Gateway => &[Use::Own, Use::Shared],
            Use::Virtual => &[Use::Own, Use::Gateway, Use::Snat],
            Use::Snat => &[Use::Own, Use::Shared, Use::Gateway, Use::Virtual],
            Use::Server => &[Use::Own, Use::Shared, Use::Virtual, Use::Snat],
            Use::Peer => {
                &[Use::Own, Use::Shared, Use::Gateway, Use::Virtual, Use::Snat, Use::Server, Use::Peer]
            }
        }
    }
}

/// The addresses seen so far.
#[derive(Debug, Default)]
pub struct Addresses {
    used: Vec<(IpAddr, Use, Place)>,
    /// The networks of the ports.
    pub networks: Vec<(Cidr, PortId)>,
    /// The destinations of the routes.
    pub routes: Vec<Cidr>,
    /// A port's or a route's address was wrong: nothing can be said of what is reachable.
    pub incomplete: bool,
}

impl Addresses {
    /// Notes that `address` is used, unless that clashes with an earlier use.
    pub fn claim(&mut self, address: IpAddr, used: Use, place: &Place, report: &mut Report) {
        let clash = self.used.iter().find(|(a, u, _)| *a == address && used.excludes().contains(u));
        match clash {
            Some((_, earlier, other)) => {
                let (earlier, path, line) = (earlier.text(), &other.path, other.line);
                report.refuse(
                    place,
                    format!("an address of its own: {address} is {earlier}, {path} on line {line}"),
                );
            }
            None => self.used.push((address, used, place.clone())),
        }
    }

    /// The port on whose network `address` lies; the longest prefix wins.
    pub fn port_of(&self, address: IpAddr) -> Option<PortId> {
        let on = self.networks.iter().filter(|(network, _)| network.contains(address));
        on.max_by_key(|(network, _)| network.prefix_len).map(|(_, port)| *port)
    }

    /// Refuses an address that no port's network and no route covers.
    pub fn require_reachable(&self, address: IpAddr, place: &Place, report: &mut Report) {
        let routed = self.routes.iter().any(|route| route.contains(address));
        if !self.incomplete && !routed && self.port_of(address).is_none() {
            report.refuse(place, "an address on a port's network, or one that a [[route]] covers");
        }
    }
}
