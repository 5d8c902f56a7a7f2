//! Why a packet is refused: one reason for each check.

use core::fmt;

use crate::base::counters::Counter;

macro_rules! malformed {
    ($($(#[doc = $doc:literal])+ $name:ident $counter:ident,)+) => {
        /// Why bytes are not the packet they should be: one reason for each check,
        /// each with a counter of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Malformed { $($(#[doc = $doc])+ $name,)+ }

        impl Malformed {
            /// Every reason.
            pub const ALL: &[Malformed] = &[$(Malformed::$name,)+];

            /// The counter of packets dropped for this reason.
            pub const fn counter(self) -> Counter {
                match self { $(Malformed::$name => Counter::$counter,)+ }
            }
        }

        impl fmt::Display for Malformed {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Malformed::$name => concat!($($doc),+).trim(),)+ })
            }
        }

        impl core::error::Error for Malformed {}
    };
}

malformed! {
    /// Shorter than an Ethernet header.
    EthernetTruncated DropEthernetTruncated,
    /// The VLAN tag is cut off.
    VlanTruncated DropVlanTruncated,
    /// More than one VLAN tag, or a service tag (IEEE 802.1ad): not supported.
    VlanStacked DropVlanStacked,
    /// The ARP packet is cut off.
    ArpTruncated DropArpTruncated,
    /// ARP for another kind of link or network than Ethernet and IPv4.
    ArpFormat DropArpFormat,
    /// Shorter than an IPv4 header.
    Ipv4Truncated DropIpv4Truncated,
    /// Ethernet said IPv4, the version field says otherwise.
    Ipv4Version DropIpv4Version,
    /// IPv4 header length below 20, or beyond the bytes there are.
    Ipv4HeaderLength DropIpv4HeaderLength,
    /// IPv4 total length below the header's, or beyond the bytes there are.
    Ipv4TotalLength DropIpv4TotalLength,
    /// An IPv4 or IPv6 source address that no host may use (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7).
    SourceAddress DropSourceAddress,
    /// A fragment without data, or one that is not the last and whose length is not a multiple of 8.
    FragmentLength DropFragmentLength,
    /// A fragment reaches beyond 65,535 bytes.
    FragmentOverrun DropFragmentOverrun,
    /// A first fragment without the whole transport header, or one meant to overwrite it (RFC 1858, RFC 7112).
    FragmentTiny DropFragmentTiny,
    /// Shorter than an IPv6 header.
    Ipv6Truncated DropIpv6Truncated,
    /// Ethernet said IPv6, the version field says otherwise.
    Ipv6Version DropIpv6Version,
    /// IPv6 payload length beyond the bytes there are.
    Ipv6PayloadLength DropIpv6PayloadLength,
    /// An IPv6 extension header is cut off.
    Ipv6ExtensionTruncated DropIpv6ExtensionTruncated,
    /// More IPv6 extension headers than are walked.
    Ipv6ExtensionsTooMany DropIpv6ExtensionsTooMany,
    /// IPv6 hop-by-hop options that are not the first header (RFC 8200 section 4.1).
    Ipv6HopByHopPlace DropIpv6HopByHopPlace,
    /// An IPv6 routing header of type 0 with segments left (RFC 5095).
    Ipv6RoutingType0 DropIpv6RoutingType0,
    /// The TCP header is cut off.
    TcpTruncated DropTcpTruncated,
    /// TCP data offset below 20 bytes, or beyond the packet.
    TcpDataOffset DropTcpDataOffset,
    /// TCP flags that no sender may combine: SYN with FIN or RST, or none at all.
    TcpFlags DropTcpFlags,
    /// The UDP header is cut off.
    UdpTruncated DropUdpTruncated,
    /// UDP length below 8, or beyond the packet.
    UdpLength DropUdpLength,
    /// UDP over IPv6 without a checksum (RFC 8200 section 8.1).
    UdpChecksumMissing DropUdpChecksumMissing,
    /// The ICMP message is cut off.
    IcmpTruncated DropIcmpTruncated,
    /// The ICMPv6 message is cut off.
    Icmpv6Truncated DropIcmpv6Truncated,
    /// A neighbour discovery message that RFC 4861 section 6.1 or 7.1 tells to discard.
    NdpInvalid DropNdpInvalid,
    /// A VRRP message that is shorter than its header and addresses.
    VrrpTruncated DropVrrpTruncated,
    /// A VRRP message whose TTL or hop limit is not 255: it did not come from this link (RFC 9568 section 7.1).
    VrrpHopLimit DropVrrpHopLimit,
    /// A VRRP message of another version than 3.
    VrrpVersion DropVrrpVersion,
    /// A VRRP message of another type than advertisement.
    VrrpType DropVrrpType,
    /// A VRRP message without any address (RFC 9568 section 5.2.5).
    VrrpCount DropVrrpCount,
    /// A VRRP message whose checksum is wrong.
    VrrpChecksum DropVrrpChecksum,
    /// A checksum is wrong.
    Checksum DropChecksum,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own_and_a_sentence() {
        for (i, a) in Malformed::ALL.iter().enumerate() {
            assert!(a.to_string().ends_with('.'), "{a:?}");
            for b in &Malformed::ALL[i + 1..] {
                assert_ne!(a.counter(), b.counter(), "{a:?} and {b:?}");
            }
        }
    }
}
