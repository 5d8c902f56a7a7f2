//! Who has which address on both sides of the appliance.
//!
//! ```text
//! generator: clients behind 10.1.0.1 ── 10.1.0.2 appliance 10.2.0.2 ── real servers: generator
//!                                    virtual 10.1.0.100
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::traffic::Family;

/// The last byte of the virtual link address.
pub const VIRTUAL_ROUTER_ID: u8 = 51;
/// Real servers.
pub const SERVERS: u16 = 32;
/// Source-NAT addresses. With all servers they give room for some sixty million flows.
pub const SNAT_ADDRESSES: u16 = 32;
/// The virtual server's and the real servers' port.
pub const SERVICE_PORT: u16 = 80;

const fn v6(network: u16, group: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(network, 0, 0, 0, 0, 0, group, host))
}

/// The clients' gateway, which the generator is.
pub const fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1)),
        Family::V6 => v6(0xfd01, 0, 1),
    }
}

/// The virtual server's address.
pub const fn virtual_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 1, 0, 100)),
        Family::V6 => v6(0xfd01, 0, 0x100),
    }
}

/// A real server, from 0.
pub const fn server(family: Family, number: u16) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 2, 1, number as u8)),
        Family::V6 => v6(0xfd02, 1, number),
    }
}

/// A source-NAT address, from 0.
pub const fn snat(family: Family, number: u16) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 2, 2, number as u8)),
        Family::V6 => v6(0xfd02, 2, number),
    }
}

/// Whether the generator has this address on the clients' side.
pub fn is_client_side(address: IpAddr) -> bool {
    [Family::V4, Family::V6].into_iter().any(|family| gateway(family) == address)
}

/// Whether the generator has this address on the servers' side.
pub fn is_server_side(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [10, 2, 1],
        IpAddr::V6(address) => address.segments()[..7] == [0xfd02, 0, 0, 0, 0, 0, 1],
    }
}
