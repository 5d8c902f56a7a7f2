//! What a fragment says of itself, alike for both families: RFC 791 section 3.2, RFC 8200 section 4.5.

use crate::wire::checksum::Delta;
use crate::wire::parse::{Network, Parsed};
use crate::wire::{IpProtocol, ethernet, ipv4, ipv6};

/// One piece of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What the fragments of one packet share; of IPv4 its lower 16 bits.
    pub identification: u32,
    /// Where in the fragmented part this piece begins, in bytes.
    pub offset: u16,
    /// Its length, in bytes.
    pub len: u16,
    /// Whether pieces after this one follow.
    pub more: bool,
    /// What tells apart packets of one identification: IPv4's protocol. Of IPv6 always the fragment header, since the
    /// protocol that a later fragment names is of no meaning (RFC 8200 section 4.5).
    pub protocol: IpProtocol,
}

impl Fragment {
    /// What `head`, which was parsed as a fragment, says of itself.
    pub fn of(head: &[u8], parsed: &Parsed) -> Option<Fragment> {
        if !parsed.is_fragment() {
            return None;
        }
        let packet = head.get(parsed.l3_offset()..)?;
        match parsed.network {
            Network::Ipv4 => Some(Fragment::of_v4(&ipv4::Packet::new_unchecked(packet))),
            Network::Ipv6 => {
                let packet = ipv6::Packet::new_unchecked(packet);
                let header = packet.chain().ok()?.fragment?;
                Some(Fragment::of_v6(&packet, &header))
            }
            Network::Arp | Network::Liveness | Network::Other => None,
        }
    }

    pub(super) fn of_v4<T: AsRef<[u8]>>(packet: &ipv4::Packet<T>) -> Fragment {
        Fragment {
            identification: u32::from(packet.identification()),
            offset: packet.fragment_offset(),
            len: packet.total_len() - packet.header_len() as u16,
            more: packet.more_fragments(),
            protocol: packet.protocol(),
        }
    }

    pub(super) fn of_v6<T: AsRef<[u8]>>(packet: &ipv6::Packet<T>, header: &ipv6::Fragment) -> Fragment {
        Fragment {
            identification: header.identification,
            offset: header.offset,
            len: packet.payload_len() - (header.data_offset - ipv6::HEADER_LEN as u16),
            more: header.more,
            protocol: IpProtocol::FRAGMENT,
        }
    }

    /// Whether it is the piece with the transport header.
    pub const fn is_first(&self) -> bool {
        self.offset == 0
    }
}

/// Gives a packet, which was parsed as a fragment, another identification: all of IPv4's, the lower half of IPv6's.
pub fn set_identification(head: &mut [u8], parsed: &Parsed, low: u16) {
    let l4 = usize::from(parsed.l4_offset);
    let Some(packet) = head.get_mut(parsed.l3_offset()..).filter(|_| parsed.is_fragment()) else { return };
    match parsed.network {
        Network::Ipv4 => {
            let mut packet = ipv4::Packet::new_unchecked(&mut packet[..l4 - parsed.l3_offset()]);
            let changed = Delta::NONE.word(packet.identification(), low);
            let checksum = changed.apply(packet.checksum());
            packet.set_identification(low);
            packet.set_checksum(checksum);
        }
        Network::Ipv6 => {
            let chain = ipv6::Packet::new_unchecked(&*packet).chain();
            let Ok(ipv6::Chain { fragment: Some(header), .. }) = chain else { return };
            let end = usize::from(header.data_offset);
            packet[end - 2..end].copy_from_slice(&low.to_be_bytes());
        }
        Network::Arp | Network::Liveness | Network::Other => {}
    }
}

const _: () = assert!(
    ethernet::HEADER_LEN + ipv6::HEADER_LEN + ipv6::FRAGMENT_HEADER_LEN < 128,
    "in any first segment"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::fixtures::{self, bytes};
    use crate::wire::parse::{parse, parse_head};

    #[test]
    fn each_fragment_says_where_it_belongs() {
        let first = bytes(fixtures::UDP_V4_FRAGMENT_FIRST_HEAD);
        let last = bytes(fixtures::UDP_V4_FRAGMENT_LAST);
        let (first, last) = (
            Fragment::of(&first, &parse_head(&first, 1514).expect("a first fragment")).expect("a fragment"),
            Fragment::of(&last, &parse(&last).expect("a last fragment")).expect("a fragment"),
        );
        assert_eq!((first.offset, first.len, first.more, first.protocol), (0, 1480, true, IpProtocol::UDP));
        assert_eq!((last.offset, last.len, last.more), (1480, 2008 - 1480, false));
        assert_eq!(first.identification, last.identification);
        assert!(first.is_first() && !last.is_first());
    }

    #[test]
    fn each_fragment_of_ipv6_says_where_it_belongs() {
        let head = bytes(fixtures::UDP_V6_FRAGMENT_FIRST_HEAD);
        let last = bytes(fixtures::UDP_V6_FRAGMENT_LAST);
        let (first, last) = (
            Fragment::of(&head, &parse_head(&head, 1294).expect("a first fragment")).expect("a fragment"),
            Fragment::of(&last, &parse(&last).expect("a last fragment")).expect("a fragment"),
        );
        assert_eq!((first.offset, first.more), (0, true));
        assert_eq!((last.offset, last.offset + last.len, last.more), (first.len, 2008, false));
        assert_eq!((first.identification, first.protocol), (last.identification, IpProtocol::FRAGMENT));
    }

    #[test]
    fn a_whole_packet_says_nothing_of_fragments() {
        for whole in [fixtures::UDP_V4, fixtures::UDP_V6_EXTENSIONS] {
            let head = bytes(whole);
            assert_eq!(Fragment::of(&head, &parse(&head).expect("a packet")), None);
        }
    }

    #[test]
    fn another_identification_leaves_all_else_and_the_checksum_right() {
        let mut head = bytes(fixtures::UDP_V4_FRAGMENT_LAST);
        let parsed = parse(&head).expect("a last fragment");
        let before = Fragment::of(&head, &parsed).expect("a fragment");
        set_identification(&mut head, &parsed, 0xbeef);
        let after = Fragment::of(&head, &parse(&head).expect("a last fragment"));
        assert_eq!(after, Some(Fragment { identification: 0xbeef, ..before }));
        assert!(ipv4::Packet::new_unchecked(&head[14..]).checksum_is_valid());
    }

    #[test]
    fn the_upper_half_of_an_identification_of_ipv6_stays() {
        let mut head = bytes(fixtures::UDP_V6_FRAGMENT_LAST);
        let parsed = parse(&head).expect("a last fragment");
        let before = Fragment::of(&head, &parsed).expect("a fragment");
        set_identification(&mut head, &parsed, 0xbeef);
        let after = Fragment::of(&head, &parse(&head).expect("a last fragment"));
        let identification = before.identification & 0xffff_0000 | 0xbeef;
        assert_eq!(after, Some(Fragment { identification, ..before }));
    }
}
