//! A plain Linux router in an appliance's place, and packets that are wrong on purpose.

use std::net::Ipv4Addr;

use netns_harness::command::{inside, ip};
use netns_harness::{Context, Link, Result, Side, World, ensure, plan};
use socket2::{Domain, Protocol, Socket, Type};

/// Makes a side's namespace route between clients and servers, as their kernel does it.
pub fn route(world: &World, side: Side) -> Result<()> {
    let (client, server) = (Link::Client.interface(side), Link::Server.interface(side));
    let namespace = world.namespace(side.letter());
    inside(&namespace, || {
        for interface in [&client, &server] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"), "0")?;
        }
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        Ok(())
    })?;
    let (host, gateway) = (side.host(), plan::GATEWAY_HOST);
    ip(
        &namespace,
        &format!(
            "link set {client} arp on\nlink set {server} arp on\n\
             addr add {}/24 dev {client}\naddr add {}/64 dev {client} nodad\n\
             addr add {}/24 dev {server}\naddr add {}/64 dev {server} nodad\n",
            plan::client4(host),
            plan::client6(host),
            plan::server4(gateway),
            plan::server6(gateway),
        ),
    )?;
    for interface in [&client, &server] {
        world.wait_ipv6_ready(side.letter(), interface)?;
    }
    ip(
        &world.namespace("client"),
        &format!(
            "route add 10.2.0.0/24 via {}\nroute add fd02::/64 via {}\n",
            plan::client4(host),
            plan::client6(host)
        ),
    )
}

/// Gives a side an address on the client network, so that it can send there.
pub fn place_on_client_network(world: &World, side: Side) -> Result<()> {
    let client = Link::Client.interface(side);
    ip(
        &world.namespace(side.letter()),
        &format!("link set {client} arp on\naddr add {}/24 dev {client}\n", plan::client4(side.host())),
    )
}

/// A TCP packet without payload, with these flags; its checksum is right or deliberately wrong.
pub struct Tcp {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    pub flags: u8,
    pub checksum: Checksum,
}

/// What a packet carries as its checksum.
#[derive(Clone, Copy, PartialEq)]
pub enum Checksum {
    Right,
    Wrong,
    /// The right one is 0, and it is written as Linux does, 0xffff, which verifies too.
    ZeroAsOnes,
}

pub const ACK: u8 = 0x10;
pub const RST: u8 = 0x04;

/// Sends a packet as it is from a namespace.
pub fn send(world: &World, short: &str, packet: &Tcp) -> Result<()> {
    let mut tcp = [0u8; 20];
    tcp[0..2].copy_from_slice(&40000u16.to_be_bytes());
    tcp[2..4].copy_from_slice(&9u16.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = packet.flags;
    let right = checksum(packet, &tcp);
    let written = match packet.checksum {
        Checksum::Right => right,
        Checksum::Wrong => right ^ 0x5555,
        Checksum::ZeroAsOnes => {
            // What the checksum would be, added as a sequence number, makes it zero.
            tcp[6..8].copy_from_slice(&right.to_be_bytes());
            ensure!(checksum(packet, &tcp) == 0, "the checksum is not 0");
            0xffff
        }
    };
    tcp[16..18].copy_from_slice(&written.to_be_bytes());

    let mut whole = vec![0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0];
    whole.extend(packet.from.octets());
    whole.extend(packet.to.octets());
    whole.extend(tcp);
    let socket = inside(&world.namespace(short), || {
        Ok(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?)
    })?;
    let to = std::net::SocketAddr::from((packet.to, 0));
    socket.send_to(&whole, &to.into()).with_context(|| format!("cannot send from {short}"))?;
    Ok(())
}

/// The TCP checksum over the pseudo header and this segment (RFC 9293 section 3.1).
fn checksum(packet: &Tcp, tcp: &[u8]) -> u16 {
    let mut sum = 6 + tcp.len() as u32;
    let bytes = [&packet.from.octets()[..], &packet.to.octets()[..], tcp].concat();
    for pair in bytes.chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
