//! A packet that goes on as it is, with one hop less (RFC 1812 section 5.3.1, RFC 8200 section 3).

use crate::wire::checksum::Delta;
use crate::wire::parse::{Network, Parsed};
use crate::wire::{ipv4, ipv6};

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hopped {
    /// It has one hop less now.
    Done,
    /// Its hops are used up: it is as it was.
    Exceeded,
    /// It has no hops.
    NotIp,
}

/// Takes a hop from the packet in `head`, which was parsed as `parsed`; over IPv4 its checksum follows (RFC 1624).
pub fn hop(head: &mut [u8], parsed: &Parsed) -> Hopped {
    let header = &mut head[parsed.l3_offset()..usize::from(parsed.l4_offset).max(parsed.l3_offset())];
    match parsed.network {
        Network::Ipv4 => {
            let mut packet = ipv4::Packet::new_unchecked(header);
            let ttl = packet.ttl();
            if ttl <= 1 {
                return Hopped::Exceeded;
            }
            let less = Delta::NONE.word(u16::from(ttl) << 8, u16::from(ttl - 1) << 8);
            let checksum = less.apply(packet.checksum());
            packet.set_ttl(ttl - 1);
            packet.set_checksum(checksum);
        }
        Network::Ipv6 => {
            let mut packet = ipv6::Packet::new_unchecked(header);
            let hops = packet.hop_limit();
            if hops <= 1 {
                return Hopped::Exceeded;
            }
            packet.set_hop_limit(hops - 1);
        }
        Network::Arp | Network::Liveness | Network::Other => return Hopped::NotIp,
    }
    Hopped::Done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::parse::parse;

    fn echo(ttl: u8) -> Vec<u8> {
        let mut frame = vec![0; 14 + 28];
        frame[12] = 8;
        frame[14..34]
            .copy_from_slice(&[0x45, 0, 0, 28, 0, 1, 0, 0, ttl, 1, 0, 0, 10, 1, 0, 50, 10, 2, 0, 10]);
        frame[34] = 8;
        ipv4::Packet::new_unchecked(&mut frame[14..34]).fill_checksum();
        frame
    }

    #[test]
    fn every_ttl_but_the_last_goes_down_by_one_and_the_checksum_follows() {
        for ttl in 0..=255 {
            let before = echo(ttl);
            let mut frame = before.clone();
            let parsed = parse(&frame).expect("a sound packet");
            let hopped = hop(&mut frame, &parsed);
            if ttl <= 1 {
                assert_eq!((hopped, frame), (Hopped::Exceeded, before));
            } else {
                assert_eq!((hopped, frame), (Hopped::Done, echo(ttl - 1)));
            }
        }
    }
}
