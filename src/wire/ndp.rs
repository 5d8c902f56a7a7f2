//! Neighbour discovery: RFC 4861 sections 4.3, 4.4, 4.6.1, 7.1 (solicitations and
//! advertisements of neighbours; routers' are not used: routes are static).

use core::fmt;
use core::net::Ipv6Addr;
use core::ops::Range;

use crate::wire::icmpv6::{Message, Type};
use crate::wire::{MacAddress, Malformed, array, ipv6};

/// Length of a message without options, in bytes.
pub const LEN: usize = 24;
/// Length of a message with a link-layer address, in bytes.
pub const LEN_WITH_MAC: usize = LEN + 8;
/// The hop limit that proves that no router forwarded it (RFC 4861 section 7.1).
pub const HOP_LIMIT: u8 = 255;

const FLAGS: usize = 4;
const TARGET: Range<usize> = 8..24;

const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

const OPTION_SOURCE_MAC: u8 = 1;
const OPTION_TARGET_MAC: u8 = 2;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repr {
    /// Asks for the target's MAC (RFC 4861 section 4.3).
    Solicitation {
        /// Who is asked for.
        target: Ipv6Addr,
        /// The MAC of who asks; none in a probe for duplicates.
        source_mac: Option<MacAddress>,
    },
    /// Tells the target's MAC (RFC 4861 section 4.4).
    Advertisement {
        /// The target is a router.
        router: bool,
        /// It answers a solicitation.
        solicited: bool,
        /// It replaces what the receiver knew.
        overrides: bool,
        /// Who it is about.
        target: Ipv6Addr,
        /// The target's MAC.
        target_mac: Option<MacAddress>,
    },
}

impl Repr {
    /// Reads a message; its buffer is exactly the ICMPv6 message. What depends on the IPv6
    /// header is checked by [`check_packet`].
    pub fn parse<T: AsRef<[u8]>>(message: &Message<T>) -> Result<Repr, Malformed> {
        let payload = message.payload();
        // RFC 4861 section 7.1: code 0, 24 bytes or more, no option of length zero.
        if message.code() != 0 || payload.len() < TARGET.len() {
            return Err(Malformed::NdpInvalid);
        }
        let target = Ipv6Addr::from(array::<16>(payload, 0));
        if target.is_multicast() {
            return Err(Malformed::NdpInvalid);
        }
        let options = &payload[TARGET.len()..];
        match message.kind() {
            Type::NEIGHBOUR_SOLICITATION => {
                Ok(Repr::Solicitation { target, source_mac: mac_option(options, OPTION_SOURCE_MAC)? })
            }
            Type::NEIGHBOUR_ADVERTISEMENT => {
                let flags = message.identifier().to_be_bytes()[0];
                Ok(Repr::Advertisement {
                    router: flags & FLAG_ROUTER != 0,
                    solicited: flags & FLAG_SOLICITED != 0,
                    overrides: flags & FLAG_OVERRIDE != 0,
                    target,
                    target_mac: mac_option(options, OPTION_TARGET_MAC)?,
                })
            }
            Type(_) => Err(Malformed::NdpInvalid),
        }
    }

    /// How many bytes [`Repr::emit`] writes.
    pub const fn len(&self) -> usize {
        match self {
            Repr::Solicitation { source_mac: None, .. } | Repr::Advertisement { target_mac: None, .. } => LEN,
            Repr::Solicitation { .. } | Repr::Advertisement { .. } => LEN_WITH_MAC,
        }
    }

    /// Never: a message has at least [`LEN`] bytes.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Writes the message, with its checksum, into [`Repr::len`] bytes.
    pub fn emit(&self, bytes: &mut [u8], source: Ipv6Addr, destination: Ipv6Addr) {
        bytes.fill(0);
        let (kind, flags, target, option, mac) = match *self {
            Repr::Solicitation { target, source_mac } => {
                (Type::NEIGHBOUR_SOLICITATION, 0, target, OPTION_SOURCE_MAC, source_mac)
            }
            Repr::Advertisement { router, solicited, overrides, target, target_mac } => {
                let flags = (u8::from(router) * FLAG_ROUTER)
                    | (u8::from(solicited) * FLAG_SOLICITED)
                    | (u8::from(overrides) * FLAG_OVERRIDE);
                (Type::NEIGHBOUR_ADVERTISEMENT, flags, target, OPTION_TARGET_MAC, target_mac)
            }
        };
        bytes[FLAGS] = flags;
        bytes[TARGET].copy_from_slice(&target.octets());
        if let Some(mac) = mac {
            bytes[LEN..LEN + 2].copy_from_slice(&[option, 1]);
            bytes[LEN + 2..LEN_WITH_MAC].copy_from_slice(&mac.0);
        }
        let mut message = Message::new_unchecked(bytes);
        message.set_kind(kind, 0);
        message.fill_checksum(source, destination);
    }
}

/// Checks what RFC 4861 section 7.1 asks of the IPv6 header and the checksum; `message`
/// is exactly the ICMPv6 message.
pub fn check_packet<T: AsRef<[u8]>>(
    packet: &ipv6::Packet<T>,
    message: &[u8],
    repr: &Repr,
) -> Result<(), Malformed> {
    // RFC 6980 section 5: nor with a fragment header, not even around a whole packet.
    if packet.hop_limit() != HOP_LIMIT || packet.chain()?.fragment.is_some() {
        return Err(Malformed::NdpInvalid);
    }
    let (source, destination) = (packet.source(), packet.destination());
    if !Message::new_checked(message)?.checksum_is_valid(source, destination) {
        return Err(Malformed::Checksum);
    }
    match repr {
        // Section 7.1.1: from nobody, only to the solicited-node group and without a MAC.
        Repr::Solicitation { target, source_mac } if source.is_unspecified() => {
            if destination != ipv6::solicited_node(*target) || source_mac.is_some() {
                return Err(Malformed::NdpInvalid);
            }
        }
        Repr::Solicitation { .. } => {}
        // Section 7.1.2: to a group, never as an answer.
        Repr::Advertisement { solicited, .. } => {
            if destination.is_multicast() && *solicited {
                return Err(Malformed::NdpInvalid);
            }
        }
    }
    Ok(())
}

/// The link-layer address in the first option of `kind` (RFC 4861 section 4.6.1).
fn mac_option(mut options: &[u8], kind: u8) -> Result<Option<MacAddress>, Malformed> {
    while !options.is_empty() {
        let [found, units, ..] = *options else { return Err(Malformed::NdpInvalid) };
        let len = usize::from(units) * 8;
        if len == 0 || len > options.len() {
            return Err(Malformed::NdpInvalid);
        }
        if found == kind && len == 8 {
            return Ok(Some(MacAddress(array(options, 2))));
        }
        options = &options[len..];
    }
    Ok(None)
}

impl fmt::Display for Repr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = match self {
            Repr::Solicitation { target, source_mac } => {
                write!(f, "ndp who has {target}?")?;
                source_mac
            }
            Repr::Advertisement { router, solicited, overrides, target, target_mac } => {
                let flags = [(router, "R"), (solicited, "S"), (overrides, "O")];
                write!(f, "ndp {target} is [")?;
                for (_, letter) in flags.iter().filter(|(set, _)| **set) {
                    f.write_str(letter)?;
                }
                f.write_str("]")?;
                target_mac
            }
        };
        match mac {
            Some(mac) => write!(f, " at {mac}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::IpProtocol;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const A: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2);
    const SOLICITATION: Repr = Repr::Solicitation { target: B, source_mac: Some(MAC) };
    const ADVERTISEMENT: Repr = Repr::Advertisement {
        router: false,
        solicited: true,
        overrides: true,
        target: A,
        target_mac: Some(MAC),
    };

    fn message(repr: Repr, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let mut bytes = vec![0xff; repr.len()];
        repr.emit(&mut bytes, source, destination);
        bytes
    }

    fn checked(repr: Repr, source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8) -> Result<(), Malformed> {
        let message = message(repr, source, destination);
        let mut header = [0; ipv6::HEADER_LEN];
        let mut packet = ipv6::Packet::new_unchecked(&mut header[..]);
        let payload_len = message.len() as u16;
        ipv6::Repr { source, destination, protocol: IpProtocol::ICMPV6, payload_len, hop_limit }
            .emit(&mut packet);
        check_packet(&packet, &message, &repr)
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let probe = Repr::Solicitation { target: B, source_mac: None };
        for repr in [SOLICITATION, ADVERTISEMENT, probe] {
            let bytes = message(repr, A, B);
            let view = Message::new_checked(&bytes[..]).unwrap();
            assert_eq!(Repr::parse(&view), Ok(repr));
            assert!(view.checksum_is_valid(A, B));
        }
        assert_eq!(SOLICITATION.to_string(), "ndp who has fd01::2? at 02:00:00:00:00:01");
        assert_eq!(ADVERTISEMENT.to_string(), "ndp fd01::1 is [SO] at 02:00:00:00:00:01");
    }

    #[test]
    fn a_message_that_a_router_forwarded_is_refused() {
        assert_eq!(checked(SOLICITATION, A, B, 255), Ok(()));
        assert_eq!(checked(SOLICITATION, A, B, 254), Err(Malformed::NdpInvalid));
    }

    #[test]
    fn a_probe_for_duplicates_must_go_to_the_solicited_node_group_without_a_mac() {
        let nobody = Ipv6Addr::UNSPECIFIED;
        let probe = Repr::Solicitation { target: B, source_mac: None };
        assert_eq!(checked(probe, nobody, ipv6::solicited_node(B), 255), Ok(()));
        assert_eq!(checked(probe, nobody, B, 255), Err(Malformed::NdpInvalid));
        assert_eq!(checked(SOLICITATION, nobody, ipv6::solicited_node(B), 255), Err(Malformed::NdpInvalid));
    }

    #[test]
    fn an_answer_to_a_group_is_refused() {
        assert_eq!(checked(ADVERTISEMENT, A, ipv6::ALL_NODES, 255), Err(Malformed::NdpInvalid));
        assert_eq!(checked(ADVERTISEMENT, A, B, 255), Ok(()));
    }

    #[test]
    fn options_of_length_zero_or_beyond_the_end_are_refused_and_unknown_ones_skipped() {
        let mut bytes = message(SOLICITATION, A, B);
        bytes[LEN + 1] = 0;
        assert_eq!(Repr::parse(&Message::new_unchecked(&bytes[..])), Err(Malformed::NdpInvalid));
        bytes[LEN + 1] = 2;
        assert_eq!(Repr::parse(&Message::new_unchecked(&bytes[..])), Err(Malformed::NdpInvalid));
        bytes[LEN..].copy_from_slice(&[14, 1, 0, 0, 0, 0, 0, 0]); // a nonce (RFC 3971)
        bytes.extend([1, 1, 2, 0, 0, 0, 0, 1]);
        assert_eq!(Repr::parse(&Message::new_unchecked(&bytes[..])), Ok(SOLICITATION));
        bytes.truncate(LEN - 1);
        assert_eq!(Repr::parse(&Message::new_unchecked(&bytes[..])), Err(Malformed::NdpInvalid));
    }
}
