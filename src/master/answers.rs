//! Answers for our addresses: ARP (RFC 826), neighbour solicitations (RFC 4861 section
//! 7.2), echo (RFC 792, RFC 4443 section 4). Own addresses answer from the port's MAC in
//! any role; shared, virtual and source-NAT addresses only while active, from the
//! virtual MAC (RFC 9568 sections 7.3, 8.1.2 and 8.2.2).

use core::net::{IpAddr, Ipv6Addr};

use crate::base::ids::PortId;
use crate::base::io::TxClass;
use crate::config::checked::Checked;
use crate::master::addresses::{Addresses, Holder};
use crate::master::frames::{self, Link};
use crate::wire::ethernet::{Frame, MacAddress};
use crate::wire::parse::{Network, Notes, Parsed, parse};
use crate::wire::vlan::Tag;
use crate::wire::{IpProtocol, Malformed, arp, ethernet, icmp, icmpv6, ipv4, ipv6, ndp};

/// What a frame came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send this by the port it came from.
    Send {
        /// The frame.
        frame: Vec<u8>,
        /// In whose name.
        class: TxClass,
    },
    /// It is a fragment of an echo request to us: answer when it is whole.
    Fragment,
    /// It asks for a service address, and this appliance is not active.
    NotActive,
    /// Someone else uses an address of ours, or (while active) a virtual MAC.
    Rival {
        /// The address, if it is about one.
        address: Option<IpAddr>,
        /// Who.
        mac: MacAddress,
    },
    /// It asks for an address of ours, but who asks is not on the link.
    OffLink,
    /// It asks nothing of us.
    NotForUs,
    /// It is not what it should be.
    Malformed(Malformed),
}

/// Answers for the addresses of one configuration.
#[derive(Clone, Debug)]
pub struct Answers {
    addresses: Addresses,
}

/// A frame on its way through this file.
struct Query<'a> {
    port: PortId,
    frame: &'a [u8],
    parsed: Parsed,
    /// Who sent it, on the link.
    from: MacAddress,
    active: bool,
}

impl Query<'_> {
    /// Back in the same VLAN, with the same priority.
    fn link(&self, source: MacAddress, destination: MacAddress) -> Link {
        let tag = || Tag::new_unchecked(&self.frame[ethernet::HEADER_LEN..]);
        let vlan = self.parsed.notes.has(Notes::TAGGED).then(|| (tag().id(), tag().priority()));
        Link { source, destination, vlan }
    }

    /// The network header and what follows it.
    fn l3(&self) -> &[u8] {
        &self.frame[self.parsed.l3_offset()..]
    }

    /// The whole transport message, if it is all there.
    fn message(&self) -> Result<&[u8], Answer> {
        let message = self.frame.get(usize::from(self.parsed.l4_offset)..self.parsed.end());
        message.ok_or(Answer::Malformed(Malformed::IcmpTruncated))
    }
}

impl Answers {
    /// Answers for `checked`; `macs` are the ports' own, by [`PortId`].
    pub fn new(checked: &Checked, macs: &[MacAddress]) -> Answers {
        Answers { addresses: Addresses::new(checked, macs) }
    }

    /// Looks at a whole frame that came in by `port`.
    pub fn handle_packet(&self, port: PortId, frame: &[u8], active: bool) -> Answer {
        let parsed = match parse(frame) {
            Ok(parsed) => parsed,
            Err(malformed) => return Answer::Malformed(malformed),
        };
        let link = Frame::new_unchecked(frame);
        let (from, to) = (link.source(), link.destination());
        if !from.is_unicast() {
            return Answer::NotForUs;
        }
        // The virtual MACs are ours alone while active; else it is the active that we hear.
        if active && self.addresses.is_virtual_mac(from) {
            return Answer::Rival { address: None, mac: from };
        }
        let to_us = to == self.addresses.port_mac(port) || active && self.addresses.is_virtual_mac(to);
        if !to_us && !parsed.notes.has(Notes::MULTICAST) {
            return Answer::NotForUs;
        }
        let query = Query { port, frame, parsed, from, active };
        let answer = match (parsed.network, parsed.protocol) {
            (Network::Arp, _) => self.arp(&query),
            (Network::Ipv4, IpProtocol::ICMP) if !parsed.is_fragment() => self.icmp(&query),
            (Network::Ipv6, IpProtocol::ICMPV6) if !parsed.is_fragment() => self.icmpv6(&query),
            (Network::Ipv4 | Network::Ipv6, IpProtocol::ICMP | IpProtocol::ICMPV6)
                if parsed.is_fragment() =>
            {
                self.fragment(&query)
            }
            (Network::Ipv4 | Network::Ipv6 | Network::Liveness | Network::Other, _) => Err(Answer::NotForUs),
        };
        answer.unwrap_or_else(|refusal| refusal)
    }

    fn arp(&self, query: &Query<'_>) -> Result<Answer, Answer> {
        let packet = arp::Repr::parse(&arp::Packet::new_unchecked(query.l3()));
        if !packet.sender_mac.is_unicast() {
            return Err(Answer::NotForUs);
        }
        self.refuse_rival(query, packet.sender_ip.into(), packet.sender_mac)?;
        if packet.operation != arp::Operation::Request {
            return Err(Answer::NotForUs);
        }
        let (sender, target) = (packet.sender_ip, IpAddr::V4(packet.target_ip));
        let holder = self.holder_on_link(query, target)?;
        // A probe comes from nobody (RFC 5227 section 2.1.1), and is answered to defend the address.
        if !sender.is_unspecified() && !self.addresses.is_neighbour(query.port, sender.into()) {
            return Err(Answer::OffLink);
        }
        let mac = self.addresses.mac(query.port, target, holder);
        let reply = arp::Repr {
            operation: arp::Operation::Reply,
            sender_mac: mac,
            sender_ip: packet.target_ip,
            target_mac: packet.sender_mac,
            target_ip: sender,
        };
        let frame = frames::arp(&query.link(mac, packet.sender_mac), &reply);
        Ok(Answer::Send { frame, class: holder.class() })
    }

    fn icmp(&self, query: &Query<'_>) -> Result<Answer, Answer> {
        let packet = ipv4::Packet::new_unchecked(query.l3());
        let bytes = query.message()?;
        let message = icmp::Message::new_checked(bytes).map_err(Answer::Malformed)?;
        if message.kind() != icmp::Type::ECHO_REQUEST || message.code() != 0 {
            return Err(Answer::NotForUs);
        }
        let (source, destination) = (packet.source(), packet.destination());
        let holder = self.echo_holder(query, source.into(), destination.into())?;
        if !packet.checksum_is_valid() || !message.checksum_is_valid() {
            return Err(Answer::Malformed(Malformed::Checksum));
        }
        let mac = self.addresses.mac(query.port, destination.into(), holder);
        let frame = frames::echo_reply_v4(&query.link(mac, query.from), destination, source, bytes);
        Ok(Answer::Send { frame, class: holder.class() })
    }

    fn icmpv6(&self, query: &Query<'_>) -> Result<Answer, Answer> {
        let packet = ipv6::Packet::new_unchecked(query.l3());
        let bytes = query.message()?;
        let message = icmpv6::Message::new_checked(bytes).map_err(Answer::Malformed)?;
        match message.kind() {
            icmpv6::Type::NEIGHBOUR_SOLICITATION | icmpv6::Type::NEIGHBOUR_ADVERTISEMENT => {
                let repr = ndp::Repr::parse(&message).map_err(Answer::Malformed)?;
                ndp::check_packet(&packet, bytes, &repr).map_err(Answer::Malformed)?;
                self.ndp(query, packet.source(), packet.destination(), repr)
            }
            icmpv6::Type::ECHO_REQUEST if message.code() == 0 => {
                let (source, destination) = (packet.source(), packet.destination());
                let holder = self.echo_holder(query, source.into(), destination.into())?;
                if !message.checksum_is_valid(source, destination) {
                    return Err(Answer::Malformed(Malformed::Checksum));
                }
                let mac = self.addresses.mac(query.port, destination.into(), holder);
                let frame = frames::echo_reply_v6(&query.link(mac, query.from), destination, source, bytes);
                Ok(Answer::Send { frame, class: holder.class() })
            }
            icmpv6::Type(_) => Err(Answer::NotForUs),
        }
    }

    /// Whether a fragment is to be put together with others is said by the addresses, which all of them have.
    fn fragment(&self, query: &Query<'_>) -> Result<Answer, Answer> {
        let (source, destination) = query.parsed.addresses(query.frame).ok_or(Answer::NotForUs)?;
        self.echo_holder(query, source, destination)?;
        let checked = query.parsed.network != Network::Ipv4
            || ipv4::Packet::new_unchecked(query.l3()).checksum_is_valid();
        if checked { Ok(Answer::Fragment) } else { Err(Answer::Malformed(Malformed::Checksum)) }
    }

    fn ndp(
        &self,
        query: &Query<'_>,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        repr: ndp::Repr,
    ) -> Result<Answer, Answer> {
        let (target, source_mac) = match repr {
            ndp::Repr::Solicitation { target, source_mac } => (target, source_mac),
            ndp::Repr::Advertisement { target, target_mac, .. } => {
                self.refuse_rival(query, target.into(), target_mac.unwrap_or(query.from))?;
                return Err(Answer::NotForUs);
            }
        };
        let holder = self.holder_on_link(query, target.into())?;
        if destination != target && destination != ipv6::solicited_node(target) {
            return Err(Answer::NotForUs);
        }
        // RFC 4861 section 7.2.4: who asks from nobody (a probe for duplicates) is answered to all nodes.
        let probe = source.is_unspecified();
        let (to, to_mac) = match probe {
            true => (ipv6::ALL_NODES, MacAddress::multicast_v6(ipv6::ALL_NODES)),
            false => (source, source_mac.filter(|mac| mac.is_unicast()).unwrap_or(query.from)),
        };
        if !probe && !self.addresses.is_neighbour(query.port, source.into()) {
            return Err(Answer::OffLink);
        }
        let mac = self.addresses.mac(query.port, target.into(), holder);
        let reply = ndp::Repr::Advertisement {
            // We forward packets; shared addresses are gateways (RFC 9568 section 8.2.2).
            router: true,
            solicited: !probe,
            overrides: true,
            target,
            target_mac: Some(mac),
        };
        let frame = frames::ndp(&query.link(mac, to_mac), target, to, &reply);
        Ok(Answer::Send { frame, class: holder.class() })
    }

    /// Who answers for `address` on the query's link, if it is to be answered now.
    fn holder_on_link(&self, query: &Query<'_>, address: IpAddr) -> Result<Holder, Answer> {
        match (self.addresses.on_link(query.port, address), query.active) {
            (None, _) => Err(Answer::NotForUs),
            (Some(Holder::Service), false) => Err(Answer::NotActive),
            (Some(holder), _) => Ok(holder),
        }
    }

    /// Who answers an echo to `address`, by whichever port it came. Never one sent to a
    /// group, on the link or above it (RFC 1122 section 3.2.2.6), nor one from ourselves.
    fn echo_holder(&self, query: &Query<'_>, source: IpAddr, address: IpAddr) -> Result<Holder, Answer> {
        let from_ourselves = self.addresses.anywhere(source).is_some();
        if query.parsed.notes.has(Notes::MULTICAST) || source.is_unspecified() || from_ourselves {
            return Err(Answer::NotForUs);
        }
        match (self.addresses.anywhere(address), query.active) {
            (None, _) => Err(Answer::NotForUs),
            (Some(Holder::Service), false) => Err(Answer::NotActive),
            (Some(holder), _) => Ok(holder),
        }
    }

    /// Says so when `mac` claims an address of ours. A standby hears the active claim
    /// service addresses from the virtual MAC, and that is no rival.
    fn refuse_rival(&self, query: &Query<'_>, address: IpAddr, mac: MacAddress) -> Result<(), Answer> {
        let ours = mac == self.addresses.port_mac(query.port) || self.addresses.is_virtual_mac(mac);
        match self.addresses.on_link(query.port, address) {
            Some(Holder::Own | Holder::Service) if !ours => {
                Err(Answer::Rival { address: Some(address), mac })
            }
            Some(Holder::Own | Holder::Service) | None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
