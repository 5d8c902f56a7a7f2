//! What a new active says to the links (DESIGN "Takeover: install, then announce"):
//! gratuitous ARP (RFC 5227 section 3) and unsolicited neighbour advertisements
//! (RFC 4861 section 7.2.6), as RFC 9568 section 6.4.1 asks of a router that becomes
//! active. Hosts keep their entries, since the virtual MAC moves with the role;
//! bridges learn where it is now.

use core::net::IpAddr;

use crate::base::ids::PortId;
use crate::config::checked::Checked;
use crate::master::addresses::Addresses;
use crate::master::frames::{self, Link};
use crate::wire::{MacAddress, arp, ipv6, ndp};

/// One frame for every service address on every port whose network holds it; all of
/// class [`crate::base::io::TxClass::Service`].
pub fn announcements(checked: &Checked) -> Vec<(PortId, Vec<u8>)> {
    let addresses = Addresses::new(checked, &[]);
    addresses.service().map(|(port, address)| (port, announcement(&addresses, address))).collect()
}

fn announcement(addresses: &Addresses, address: IpAddr) -> Vec<u8> {
    let mac = addresses.virtual_mac(address.is_ipv6());
    match address {
        // RFC 5227 section 3: an announcement is a request with both addresses alike, since
        // old implementations take a sender's address from requests alone.
        IpAddr::V4(address) => {
            let repr = arp::Repr {
                operation: arp::Operation::Request,
                sender_mac: mac,
                sender_ip: address,
                target_mac: MacAddress::ZERO,
                target_ip: address,
            };
            frames::arp(&Link::new(mac, MacAddress::BROADCAST), &repr)
        }
        // RFC 9568 section 6.4.1: router and override set, solicited clear.
        IpAddr::V6(address) => {
            let repr = ndp::Repr::Advertisement {
                router: true,
                solicited: false,
                overrides: true,
                target: address,
                target_mac: Some(mac),
            };
            let link = Link::new(mac, MacAddress::multicast_v6(ipv6::ALL_NODES));
            frames::ndp(&link, address, ipv6::ALL_NODES, &repr)
        }
    }
}

/// The frame that the active sends by each port from each virtual MAC in use there, at
/// each interval, so that bridges never forget where it is; class `Service`.
pub fn keep_alives(checked: &Checked) -> Vec<(PortId, Vec<u8>)> {
    let addresses = Addresses::new(checked, &[]);
    let mut wanted: Vec<_> = addresses.service().map(|(port, address)| (port, address.is_ipv6())).collect();
    wanted.dedup();
    wanted.into_iter().map(|(port, ipv6)| (port, frames::link_update(addresses.virtual_mac(ipv6)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::samples::{CLIENT, SERVER, checked};
    use crate::wire::parse::{Network, Trace, parse};

    #[test]
    fn every_service_address_is_announced_on_its_links() {
        let lines: Vec<_> = announcements(&checked())
            .iter()
            .map(|(port, frame)| format!("{port} {}", Trace(frame)))
            .collect();
        let arp = |port, ip| {
            format!(
                "{port} 00:00:5e:00:01:33 > ff:ff:ff:ff:ff:ff arp: \
                 arp who has {ip}? tell {ip} at 00:00:5e:00:01:33"
            )
        };
        let ndp = |port, ip| {
            format!(
                "{port} 00:00:5e:00:02:33 > 33:33:00:00:00:01 ipv6: {ip} > ff02::1 icmpv6 hops 255 length 32: \
                 ndp {ip} is [RO] at 00:00:5e:00:02:33"
            )
        };
        let expected = [
            arp(CLIENT, "10.1.0.100"),
            ndp(CLIENT, "fd01::100"),
            ndp(CLIENT, "fe80::200:5eff:fe00:233"),
            arp(SERVER, "10.2.0.1"),
            arp(SERVER, "10.2.0.100"),
            ndp(SERVER, "fd02::1"),
            ndp(SERVER, "fe80::200:5eff:fe00:233"),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn announcements_are_valid_neighbour_discovery() {
        for (_, frame) in announcements(&checked()) {
            let parsed = parse(&frame).unwrap();
            if parsed.network == Network::Ipv6 {
                let message = &frame[usize::from(parsed.l4_offset)..parsed.end()];
                let repr = ndp::Repr::parse(&crate::wire::icmpv6::Message::new_unchecked(message)).unwrap();
                let packet = ipv6::Packet::new_unchecked(&frame[parsed.l3_offset()..]);
                assert_eq!(ndp::check_packet(&packet, message, &repr), Ok(()));
            }
        }
    }

    #[test]
    fn each_virtual_mac_is_kept_alive_where_it_is_in_use_and_nowhere_else() {
        let frames = keep_alives(&checked());
        let lines: Vec<_> = frames.iter().map(|(port, frame)| format!("{port} {}", Trace(frame))).collect();
        let line = |port, mac| format!("{port} {mac} > ff:ff:ff:ff:ff:ff ethertype 0x0006 length 60");
        let (v4, v6) = ("00:00:5e:00:01:33", "00:00:5e:00:02:33");
        assert_eq!(lines, [line(CLIENT, v4), line(CLIENT, v6), line(SERVER, v4), line(SERVER, v6)]);
        assert_eq!(frames[0].1[14..20], [0x00, 0x01, 0xaf, 0x81, 0x01, 0x00]);
    }
}
