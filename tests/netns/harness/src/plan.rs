//! Who has which address, and what the links are called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One of the appliances: of a pair the first two, of a group of three all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Node 1.
    A,
    /// Node 2.
    B,
    /// Node 3.
    C,
}

impl Side {
    /// Both of a pair.
    pub const BOTH: [Side; 2] = [Side::A, Side::B];
    /// All of a group of three.
    pub const THREE: [Side; 3] = [Side::A, Side::B, Side::C];

    /// Its namespace's short name and the first letter of its links.
    pub const fn letter(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
            Side::C => "c",
        }
    }

    /// Its node number.
    pub const fn node(self) -> u16 {
        match self {
            Side::A => 1,
            Side::B => 2,
            Side::C => 3,
        }
    }

    /// The last part of its own addresses on the client and server networks.
    pub const fn host(self) -> u8 {
        match self {
            Side::A => 2,
            Side::B => 3,
            Side::C => 4,
        }
    }
}

/// One of an appliance's links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// To the clients.
    Client,
    /// To the servers.
    Server,
    /// To the other appliances.
    Mirror,
}

impl Link {
    /// All of them.
    pub const ALL: [Link; 3] = [Link::Client, Link::Server, Link::Mirror];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Link::Client => "client",
            Link::Server => "server",
            Link::Mirror => "mirror",
        }
    }

    /// The interface's name: the same in the appliance's namespace and, for the other end, in the switch.
    pub fn interface(self, side: Side) -> String {
        format!("{}-{}", side.letter(), self.name())
    }

    /// The bridge that it is plugged into.
    pub const fn bridge(self) -> &'static str {
        match self {
            Link::Client => "lan-client",
            Link::Server => "lan-server",
            Link::Mirror => "lan-mirror",
        }
    }
}

/// An address of the client network, IPv4.
pub const fn client4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, host)
}

/// An address of the server network, IPv4.
pub const fn server4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 2, 0, host)
}

/// An address of the mirror network.
pub const fn mirror4(side: Side) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 0, side.node() as u8)
}

/// An address of the client network, IPv6; hosts are written as in IPv4 (`fd01::100` is host 100).
pub fn client6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, spelt_in_hex(host))
}

/// An address of the server network, IPv6; hosts are written as in IPv4.
pub fn server6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, spelt_in_hex(host))
}

/// 100 becomes 0x100, so that both families read alike.
fn spelt_in_hex(host: u8) -> u16 {
    u16::from_str_radix(&host.to_string(), 16).unwrap_or(u16::MAX)
}

/// An address of the network between the appliances' kernels and the witness.
pub const fn management4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 8, 0, host)
}

/// The witness's host number on that network; the appliances have their node numbers.
pub const WITNESS_HOST: u8 = 9;
/// Where the witness listens.
pub const WITNESS_PORT: u16 = 7878;

/// The client's host number on its network.
pub const CLIENT_HOST: u8 = 10;
/// Hosts of the client's further addresses, one for each client of a DNS load.
pub const DNS_CLIENT_HOSTS: std::ops::Range<u8> = 20..28;
/// The first server's host number; further ones count up.
pub const FIRST_SERVER_HOST: u8 = 10;
/// Virtual servers with translated destination.
pub const VIRTUAL_NAT_HOST: u8 = 100;
/// Virtual servers with both ends translated.
pub const VIRTUAL_FULL_NAT_HOST: u8 = 101;
/// The servers' gateway, which floats with the role.
pub const GATEWAY_HOST: u8 = 1;
/// The source addresses of full translation on the server network.
pub const SNAT_HOST: u8 = 100;
/// The virtual router id of the pair; the last byte of the virtual MAC.
pub const VIRTUAL_ROUTER_ID: u8 = 51;

/// A virtual server's kind of translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Translation {
    /// Destination only.
    Nat,
    /// Both ends.
    FullNat,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The virtual address that serves this translation and family.
pub fn virtual_address(translation: Translation, family: Family) -> IpAddr {
    let host = match translation {
        Translation::Nat => VIRTUAL_NAT_HOST,
        Translation::FullNat => VIRTUAL_FULL_NAT_HOST,
    };
    match family {
        Family::V4 => client4(host).into(),
        Family::V6 => client6(host).into(),
    }
}

/// Every source address that only the active appliance may send from: virtual, shared, source-NAT.
pub fn service_addresses() -> Vec<IpAddr> {
    let mut all = Vec::new();
    for translation in [Translation::Nat, Translation::FullNat] {
        for family in [Family::V4, Family::V6] {
            all.push(virtual_address(translation, family));
        }
    }
    for host in [GATEWAY_HOST, SNAT_HOST] {
        all.push(server4(host).into());
        all.push(server6(host).into());
    }
    all
}

/// The link-local address of the pair's virtual router, made from its virtual MAC (RFC 4291 appendix A).
pub const fn virtual_link_local() -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0200, 0x5eff, 0xfe00, 0x0200 | VIRTUAL_ROUTER_ID as u16)
}

/// The virtual MAC addresses of the pair, IPv4's and IPv6's (RFC 9568 section 7.3).
pub fn virtual_macs() -> [String; 2] {
    [format!("00:00:5e:00:01:{VIRTUAL_ROUTER_ID:02x}"), format!("00:00:5e:00:02:{VIRTUAL_ROUTER_ID:02x}")]
}
