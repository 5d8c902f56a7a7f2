//! Hosts: neighbours, clients and servers on them.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use baton::master::frames::{self, Link};
use baton::wire::ethernet::{Frame, MacAddress};
use baton::wire::parse::{Network, parse};
use baton::wire::{IpProtocol, arp, icmpv6, ipv6, ndp};

use crate::agenda::{MS, Nanos};
use crate::client::Client;
use crate::packet::{Packet, is_ip};
use crate::pieces;
use crate::server::Server;

/// Between two questions for a neighbour.
const ASK_AGAIN: Nanos = 100 * MS;
/// Packets that wait for a neighbour.
const WAITING_MAX: usize = 64;

#[derive(Default)]
struct Neighbour {
    mac: Option<MacAddress>,
    asked_at: Nanos,
    waiting: VecDeque<Packet>,
}

/// Pieces that wait for others of their packet are forgotten after this time, or twice as long: identifications come again.
const PIECES_KEPT: Nanos = 500 * MS;

/// Longer datagrams leave in fragments.
const DATAGRAM_MTU: u16 = 800;

/// What runs on a host.
pub enum Program {
    Client(Client),
    Server(Server),
}

pub struct Host {
    pub mac: MacAddress,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    /// Where packets for other networks go.
    gateway: Option<(Ipv4Addr, Ipv6Addr)>,
    neighbours: BTreeMap<IpAddr, Neighbour>,
    pub program: Program,
    /// Of the packet sent last.
    identification: u32,
    /// Where packets in fragments are put together: of old and of young ones.
    pieces: [pieces::Host; 2],
    /// When the old ones are forgotten next.
    pieces_due: Nanos,
    /// Frames to send now.
    pub out: Vec<Vec<u8>>,
    /// What no host should ever see.
    pub complaints: Vec<String>,
    /// The earliest timer that is on the agenda.
    pub timer_at: Nanos,
}

impl Host {
    pub fn client(number: u8, client: Client) -> Host {
        Host::new(1, 50 + number, None, Program::Client(client))
    }

    pub fn server(number: u8) -> Host {
        let gateway = (Ipv4Addr::new(10, 2, 0, 1), Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1));
        Host::new(2, 10 + number, Some(gateway), Program::Server(Server::default()))
    }

    fn new(net: u8, number: u8, gateway: Option<(Ipv4Addr, Ipv6Addr)>, program: Program) -> Host {
        // The file writes fd01::50 for 10.1.0.50.
        let digits = u16::from(number / 10) << 4 | u16::from(number % 10);
        Host {
            mac: MacAddress([2, 0, 0, 0, net, number]),
            v4: Ipv4Addr::new(10, net, 0, number),
            v6: Ipv6Addr::new(0xfd00 | u16::from(net), 0, 0, 0, 0, 0, 0, digits),
            gateway,
            neighbours: BTreeMap::new(),
            program,
            identification: 0,
            pieces: Default::default(),
            pieces_due: PIECES_KEPT,
            out: Vec::new(),
            complaints: Vec::new(),
            timer_at: Nanos::MAX,
        }
    }

    /// When it wants to be woken.
    pub fn next_deadline(&self) -> Nanos {
        let asks = self.neighbours.values().filter(|n| n.mac.is_none() && !n.waiting.is_empty());
        let asks = asks.map(|n| n.asked_at + ASK_AGAIN).min().unwrap_or(Nanos::MAX);
        match &self.program {
            Program::Client(client) => asks.min(client.next_deadline()),
            Program::Server(server) => asks.min(server.next_deadline()),
        }
    }

    /// Time passed.
    pub fn poll(&mut self, now: Nanos) {
        let mut out = Vec::new();
        match &mut self.program {
            Program::Client(client) => client.poll(now, &mut out, &mut self.complaints),
            Program::Server(server) => server.poll(now, &mut out),
        }
        self.send(now, out);
        let due: Vec<IpAddr> = self
            .neighbours
            .iter()
            .filter(|(_, n)| n.mac.is_none() && !n.waiting.is_empty() && now >= n.asked_at + ASK_AGAIN)
            .map(|(address, _)| *address)
            .collect();
        due.into_iter().for_each(|address| self.ask(now, address));
    }

    /// A frame came.
    pub fn handle(&mut self, now: Nanos, bytes: &[u8]) {
        let to = Frame::new_unchecked(bytes).destination();
        if to != self.mac && !to.is_multicast() {
            return;
        }
        let parsed = match parse(bytes) {
            Ok(parsed) => parsed,
            Err(malformed) => return self.complaints.push(format!("a malformed frame: {malformed}")),
        };
        if parsed.network == Network::Arp {
            let packet = arp::Packet::new_unchecked(&bytes[parsed.l3_offset()..]);
            return self.handle_arp(now, &arp::Repr::parse(&packet));
        }
        if !is_ip(&parsed) {
            return;
        }
        if parsed.protocol == IpProtocol::ICMPV6 {
            let source = ipv6::Packet::new_unchecked(&bytes[parsed.l3_offset()..]).source();
            let message = icmpv6::Message::new_unchecked(&bytes[usize::from(parsed.l4_offset)..parsed.end()]);
            if let Ok(repr) = ndp::Repr::parse(&message) {
                self.handle_ndp(now, source, repr);
            }
            return;
        }
        let is_piece = parsed.is_fragment();
        let whole;
        let (bytes, parsed) = if parsed.is_fragment() {
            let Some(frame) = self.put_together(now, bytes) else { return };
            whole = frame;
            match parse(&whole) {
                Ok(parsed) => (&whole[..], parsed),
                Err(malformed) => {
                    return self.complaints.push(format!("a malformed packet in fragments: {malformed}"));
                }
            }
        } else {
            (bytes, parsed)
        };
        match Packet::read(bytes, &parsed) {
            Ok(Some(packet)) => self.handle_packet(now, &packet),
            Ok(None) => {}
            // Pieces of two packets with one identification (RFC 4963), which comes again now and then.
            Err(_) if is_piece => {}
            Err(checksum) => self.complaints.push(format!("a wrong {checksum}")),
        }
    }

    /// The whole packet, if this was the last of its pieces.
    fn put_together(&mut self, now: Nanos, piece: &[u8]) -> Option<Vec<u8>> {
        if now >= self.pieces_due {
            self.pieces_due = now + PIECES_KEPT;
            let [old, young] = &mut self.pieces;
            *old = std::mem::take(young);
        }
        let [old, young] = &mut self.pieces;
        let (whole, other) = (old.came(piece), young.came(piece));
        whole.or(other)
    }

    fn handle_packet(&mut self, now: Nanos, packet: &Packet) {
        if packet.to.ip() != IpAddr::V4(self.v4) && packet.to.ip() != IpAddr::V6(self.v6) {
            return self
                .complaints
                .push(format!("a packet of somebody else: {} > {}", packet.from, packet.to));
        }
        let mut out = Vec::new();
        match &mut self.program {
            Program::Client(client) => client.handle(now, packet, &mut out, &mut self.complaints),
            Program::Server(server) => server.handle(now, packet, &mut out, &mut self.complaints),
        }
        self.send(now, out);
    }

    /// Sends packets, or asks for their next hop first.
    pub fn send(&mut self, now: Nanos, packets: Vec<Packet>) {
        for packet in packets {
            let hop = self.next_hop(packet.to);
            let neighbour = self.neighbours.entry(hop).or_default();
            match neighbour.mac {
                Some(mac) => {
                    let mtu = if packet.tcp.is_none() { DATAGRAM_MTU } else { u16::MAX };
                    self.identification += 1;
                    let frame = packet.frame(self.mac, mac);
                    self.out.extend(frames::fragments(frame, mtu, self.identification));
                }
                None => {
                    let asks = neighbour.waiting.is_empty();
                    if neighbour.waiting.len() < WAITING_MAX {
                        neighbour.waiting.push_back(packet);
                    }
                    if asks {
                        self.ask(now, hop);
                    }
                }
            }
        }
    }

    fn next_hop(&self, to: SocketAddr) -> IpAddr {
        match (to.ip(), self.gateway) {
            (IpAddr::V4(to), Some((gateway, _))) if to.octets()[..3] != self.v4.octets()[..3] => {
                gateway.into()
            }
            (IpAddr::V6(to), Some((_, gateway))) if to.segments()[..4] != self.v6.segments()[..4] => {
                gateway.into()
            }
            (to, _) => to,
        }
    }

    fn ask(&mut self, now: Nanos, address: IpAddr) {
        if let Some(neighbour) = self.neighbours.get_mut(&address) {
            neighbour.asked_at = now;
        }
        self.out.push(match address {
            IpAddr::V4(target_ip) => frames::arp(
                &Link::new(self.mac, MacAddress::BROADCAST),
                &arp::Repr {
                    operation: arp::Operation::Request,
                    sender_mac: self.mac,
                    sender_ip: self.v4,
                    target_mac: MacAddress::ZERO,
                    target_ip,
                },
            ),
            IpAddr::V6(target) => {
                let group = ipv6::solicited_node(target);
                let repr = ndp::Repr::Solicitation { target, source_mac: Some(self.mac) };
                frames::ndp(&Link::new(self.mac, MacAddress::multicast_v6(group)), self.v6, group, &repr)
            }
        });
    }

    fn learn(&mut self, now: Nanos, address: IpAddr, mac: MacAddress) {
        let Some(neighbour) = self.neighbours.get_mut(&address) else { return };
        neighbour.mac = Some(mac);
        let waiting = std::mem::take(&mut neighbour.waiting);
        self.send(now, waiting.into());
    }

    fn handle_arp(&mut self, now: Nanos, packet: &arp::Repr) {
        self.learn(now, packet.sender_ip.into(), packet.sender_mac);
        if packet.operation == arp::Operation::Request && packet.target_ip == self.v4 {
            let reply = arp::Repr {
                operation: arp::Operation::Reply,
                sender_mac: self.mac,
                sender_ip: self.v4,
                target_mac: packet.sender_mac,
                target_ip: packet.sender_ip,
            };
            self.out.push(frames::arp(&Link::new(self.mac, packet.sender_mac), &reply));
        }
    }

    fn handle_ndp(&mut self, now: Nanos, source: Ipv6Addr, packet: ndp::Repr) {
        match packet {
            ndp::Repr::Solicitation { target, source_mac: Some(mac) } => {
                self.learn(now, source.into(), mac);
                if target == self.v6 {
                    let repr = ndp::Repr::Advertisement {
                        router: false,
                        solicited: true,
                        overrides: true,
                        target,
                        target_mac: Some(self.mac),
                    };
                    self.out.push(frames::ndp(&Link::new(self.mac, mac), self.v6, source, &repr));
                }
            }
            ndp::Repr::Solicitation { source_mac: None, .. } => {}
            ndp::Repr::Advertisement { target, target_mac: Some(mac), .. } => {
                self.learn(now, target.into(), mac);
            }
            ndp::Repr::Advertisement { target_mac: None, .. } => {}
        }
    }
}
