//! What neighbours say: ARP (RFC 826) and neighbour discovery (RFC 4861 sections 7.2.3
//! and 7.2.5).

use core::net::{IpAddr, Ipv6Addr};

use super::state::{Event, State};
use super::{Neighbours, Place};
use crate::base::ids::PortId;
use crate::base::time::Instant;
use crate::wire::ethernet::{Frame, MacAddress};
use crate::wire::parse::{Network, Notes, Parsed, parse};
use crate::wire::{IpProtocol, Malformed, arp, icmpv6, ipv6, ndp};

/// What a frame told of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A neighbour answered us.
    Answer,
    /// A known neighbour's address was heard, or one who asks us was noted.
    Address,
    /// Nothing that is of use here: of nobody we know, or not about addresses.
    Nothing,
    /// It is not what it should be.
    Malformed(Malformed),
}

impl Neighbours {
    /// Looks at a whole frame that came in by `port`. An unknown neighbour is noted only
    /// when it asks for an address of ours (RFC 826: "if I am the target"); what it says
    /// unasked, changes what is known and adds nothing.
    pub fn handle_packet(&mut self, now: Instant, port: PortId, frame: &[u8]) -> Heard {
        let parsed = match parse(frame) {
            Ok(parsed) => parsed,
            Err(malformed) => return Heard::Malformed(malformed),
        };
        let (from, to) = (Frame::new_unchecked(frame).source(), Frame::new_unchecked(frame).destination());
        // Neighbours are sought untagged; VLAN 0 is a priority alone.
        let ours = self.addresses.is_virtual_mac(from) || from == self.addresses.port_mac(port);
        if parsed.vlan != 0 || ours || !from.is_unicast() {
            return Heard::Nothing;
        }
        let for_us = parsed.notes.has(Notes::MULTICAST) || to == self.addresses.port_mac(port);
        let for_us = for_us || self.addresses.is_virtual_mac(to);
        match (parsed.network, parsed.protocol) {
            (Network::Arp, _) if for_us => {
                let packet = arp::Packet::new_unchecked(&frame[parsed.l3_offset()..]);
                self.hear_arp(now, port, to, &arp::Repr::parse(&packet))
            }
            (Network::Ipv6, IpProtocol::ICMPV6) if for_us && !parsed.is_fragment() => {
                self.hear_icmpv6(now, port, frame, &parsed).unwrap_or_else(Heard::Malformed)
            }
            (Network::Arp | Network::Ipv4 | Network::Ipv6 | Network::Liveness | Network::Other, _) => {
                Heard::Nothing
            }
        }
    }

    fn hear_arp(&mut self, now: Instant, port: PortId, to: MacAddress, packet: &arp::Repr) -> Heard {
        let (sender, target) = (IpAddr::V4(packet.sender_ip), IpAddr::V4(packet.target_ip));
        let asks_us = match packet.operation {
            arp::Operation::Request => self.addresses.on_link(port, target).is_some(),
            arp::Operation::Reply => false,
            arp::Operation::Other(_) => return Heard::Nothing,
        };
        let answers_us = packet.operation == arp::Operation::Reply
            && to == self.addresses.port_mac(port)
            && self.addresses.own_towards(port, sender) == Some(target);
        self.hear(now, port, sender, packet.sender_mac, asks_us, answers_us)
    }

    fn hear_icmpv6(
        &mut self,
        now: Instant,
        port: PortId,
        frame: &[u8],
        parsed: &Parsed,
    ) -> Result<Heard, Malformed> {
        let packet = ipv6::Packet::new_unchecked(&frame[parsed.l3_offset()..]);
        let bytes =
            frame.get(usize::from(parsed.l4_offset)..parsed.end()).ok_or(Malformed::Icmpv6Truncated)?;
        let message = icmpv6::Message::new_checked(bytes)?;
        match message.kind() {
            icmpv6::Type::NEIGHBOUR_SOLICITATION | icmpv6::Type::NEIGHBOUR_ADVERTISEMENT => {}
            // Routers' messages are ignored: routes are static.
            icmpv6::Type(_) => return Ok(Heard::Nothing),
        }
        let repr = ndp::Repr::parse(&message)?;
        ndp::check_packet(&packet, bytes, &repr)?;
        Ok(match repr {
            // RFC 4861 section 7.2.3.
            ndp::Repr::Solicitation { target, source_mac: Some(mac) } => {
                let asks_us = self.addresses.on_link(port, target.into()).is_some();
                self.hear(now, port, packet.source().into(), mac, asks_us, false)
            }
            ndp::Repr::Solicitation { source_mac: None, .. } => Heard::Nothing,
            ndp::Repr::Advertisement { solicited, overrides, target, target_mac, .. } => {
                let to_own = |own| own == Some(IpAddr::V6(packet.destination()));
                let answers_us = solicited && to_own(self.addresses.own_towards(port, target.into()));
                self.hear_advertisement(now, port, target, target_mac, answers_us, overrides)
            }
        })
    }

    /// RFC 4861 section 7.2.5.
    fn hear_advertisement(
        &mut self,
        now: Instant,
        port: PortId,
        target: Ipv6Addr,
        mac: Option<MacAddress>,
        answers_us: bool,
        overrides: bool,
    ) -> Heard {
        let target = IpAddr::V6(target);
        let known = self.known(port, target);
        match (known, mac) {
            // Without an address in it, it speaks of the known one.
            (Some(known), None) => self.hear(now, port, target, known, false, answers_us),
            (None, None) => Heard::Nothing,
            (Some(known), Some(mac)) if known != mac && !overrides => {
                if let Some(at) = self.by_address.get(&(port, target)) {
                    self.step(now, *at, Event::Doubted);
                }
                Heard::Nothing
            }
            (Some(_) | None, Some(mac)) => self.hear(now, port, target, mac, false, answers_us),
        }
    }

    /// `ip` says that it is at `mac`.
    fn hear(
        &mut self,
        now: Instant,
        port: PortId,
        ip: IpAddr,
        mac: MacAddress,
        asks_us: bool,
        answers_us: bool,
    ) -> Heard {
        if !mac.is_unicast() || self.addresses.is_virtual_mac(mac) {
            return Heard::Nothing;
        }
        let at = match self.by_address.get(&(port, ip)) {
            Some(at) => *at,
            None if asks_us => match self.place(now, port, ip, false) {
                Place::At(at) => at,
                Place::NotNeighbour | Place::NoAddress | Place::Full => return Heard::Nothing,
            },
            None => return Heard::Nothing,
        };
        if asks_us {
            self.entries[at].used = now;
        }
        // Only who was asked can answer: else it is heard by the way.
        let asked = match self.entries[at].state {
            State::Incomplete { .. } | State::Probe { .. } => true,
            State::Reachable | State::Stale | State::Failed => false,
        };
        let same = self.entries[at].mac == Some(mac);
        match (answers_us && asked, same) {
            (true, _) => self.learn(now, at, mac, Event::Confirmed),
            (false, true) => self.learn(now, at, mac, Event::HeardSame),
            (false, false) => self.learn(now, at, mac, Event::HeardNew),
        }
        if answers_us && asked { Heard::Answer } else { Heard::Address }
    }
}
