//! The Internet checksum: RFC 1071 (computing it), RFC 1624 (updating it),
//! RFC 768 and RFC 8200 section 8.1 (UDP's zero, the pseudo headers).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::IpProtocol;

/// A running one's complement sum over bytes. Slices may have odd lengths: what
/// follows an odd slice is summed as if the bytes had been in one piece.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// In the machine's byte order (RFC 1071 section 2 (B)); carries not yet folded in.
    native: u64,
    /// An odd number of bytes has been added so far.
    odd: bool,
}

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum { native: 0, odd: false };

    /// Adds the bytes of `data`.
    #[must_use]
    pub fn bytes(self, data: &[u8]) -> Sum {
        let mut words = data.chunks_exact(8);
        let mut native = 0u64;
        for word in words.by_ref() {
            let word = u64::from_ne_bytes(word.try_into().unwrap_or_default());
            // Below 2^33 each: no overflow before 2^31 words.
            native += (word >> 32) + (word & 0xffff_ffff);
        }
        let mut rest = [0; 8];
        for (to, from) in rest.iter_mut().zip(words.remainder()) {
            *to = *from;
        }
        let rest = u64::from_ne_bytes(rest);
        native += (rest >> 32) + (rest & 0xffff_ffff);
        let native = fold(native);
        // RFC 1071 section 2 (B): swapping the bytes of the sum is summing the swapped bytes.
        let native = if self.odd { native.swap_bytes() } else { native };
        Sum { native: self.native + u64::from(native), odd: self.odd ^ (data.len() % 2 == 1) }
    }

    /// Adds a 16-bit number, at an even place.
    #[must_use]
    pub fn word(self, word: u16) -> Sum {
        self.bytes(&word.to_be_bytes())
    }

    /// Adds the pseudo header of RFC 793 section 3.1 and RFC 768: `len` is that of the
    /// transport header and its payload.
    #[must_use]
    pub fn pseudo_v4(self, source: Ipv4Addr, destination: Ipv4Addr, protocol: IpProtocol, len: u16) -> Sum {
        let mut header = [0; 12];
        header[..4].copy_from_slice(&source.octets());
        header[4..8].copy_from_slice(&destination.octets());
        header[9] = protocol.0;
        header[10..].copy_from_slice(&len.to_be_bytes());
        self.bytes(&header)
    }

    /// Adds the pseudo header of RFC 8200 section 8.1.
    #[must_use]
    pub fn pseudo_v6(self, source: Ipv6Addr, destination: Ipv6Addr, protocol: IpProtocol, len: u32) -> Sum {
        let mut header = [0; 40];
        header[..16].copy_from_slice(&source.octets());
        header[16..32].copy_from_slice(&destination.octets());
        header[32..36].copy_from_slice(&len.to_be_bytes());
        header[39] = protocol.0;
        self.bytes(&header)
    }

    /// The sum in 16 bits. Data that carries its right checksum sums to `0xffff`.
    pub fn folded(self) -> u16 {
        u16::from_be(fold(self.native))
    }

    /// The checksum: what the checksum field (zero while summing) has to hold.
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// The checksum for UDP, which writes a computed zero as all ones, zero
    /// meaning "none" (RFC 768, RFC 8200 section 8.1).
    pub fn checksum_udp(self) -> u16 {
        never_zero(self.checksum())
    }

    /// Whether data that includes its checksum is right.
    pub fn is_valid(self) -> bool {
        self.folded() == 0xffff
    }
}

/// The UDP rule: a checksum computed as zero is sent as all ones.
pub const fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The checksum of `data` alone, as in an IPv4 header or ICMP message.
pub fn checksum(data: &[u8]) -> u16 {
    Sum::ZERO.bytes(data).checksum()
}

const fn fold(mut sum: u64) -> u16 {
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 32) + (sum & 0xffff_ffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// What a change of some 16-bit words does to a checksum (RFC 1624 equation 3:
/// `HC' = ~(~HC + ~m + m')`). Deltas of several changes add up, in any order, and
/// one delta fits every packet of a flow whose same words are changed the same way.
///
/// Zero: `~HC` of a right checksum is never zero and neither is a sum with it, so
/// the result is what computing anew would give, never the other of the two
/// zeros of one's complement (RFC 1624 section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u16);

impl Delta {
    /// No change.
    pub const NONE: Delta = Delta(0);

    /// The delta as a number that may be stored, and its inverse [`Delta::from_folded`].
    pub const fn folded(self) -> u16 {
        self.0
    }

    /// A delta from its stored number.
    #[inline(always)]
    pub const fn from_folded(folded: u16) -> Delta {
        Delta(folded)
    }

    /// Both changes.
    #[must_use]
    pub const fn and(self, other: Delta) -> Delta {
        Delta(fold(self.0 as u64 + other.0 as u64))
    }

    /// And a 16-bit word (a port) that changes.
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Delta {
        Delta(fold(self.0 as u64 + !old as u64 + new as u64))
    }

    /// And a port that changes.
    #[must_use]
    pub const fn port(self, old: u16, new: u16) -> Delta {
        self.word(old, new)
    }

    /// And a 32-bit number at an even place (a sequence number) that changes.
    #[must_use]
    pub const fn dword(self, old: u32, new: u32) -> Delta {
        Delta(fold(self.0 as u64 + !old as u64 + new as u64))
    }

    /// And two 32-bit numbers at even places that change.
    #[must_use]
    pub const fn dwords(self, [(a, to_a), (b, to_b)]: [(u32, u32); 2]) -> Delta {
        Delta(fold(self.0 as u64 + !a as u64 + to_a as u64 + !b as u64 + to_b as u64))
    }

    /// And two 16-bit words that change.
    #[must_use]
    pub const fn words(self, [(a, to_a), (b, to_b)]: [(u16, u16); 2]) -> Delta {
        Delta(fold(self.0 as u64 + !a as u64 + to_a as u64 + !b as u64 + to_b as u64))
    }

    /// And an IPv4 address that changes.
    #[must_use]
    pub const fn address_v4(self, old: Ipv4Addr, new: Ipv4Addr) -> Delta {
        self.dword(old.to_bits(), new.to_bits())
    }

    /// And an IPv6 address that changes.
    #[must_use]
    pub const fn address_v6(self, old: Ipv6Addr, new: Ipv6Addr) -> Delta {
        let (old, new) = (old.to_bits(), new.to_bits());
        self.dword((old >> 96) as u32, (new >> 96) as u32)
            .dword((old >> 64) as u32, (new >> 64) as u32)
            .dword((old >> 32) as u32, (new >> 32) as u32)
            .dword(old as u32, new as u32)
    }

    /// And an address that changes, also into one of the other family (as the
    /// pseudo header's sum sees it).
    #[must_use]
    pub fn address(self, old: IpAddr, new: IpAddr) -> Delta {
        let v6 = |address| match address {
            IpAddr::V4(v4) => Ipv6Addr::from_bits(u128::from(Ipv4Addr::to_bits(v4))),
            IpAddr::V6(v6) => v6,
        };
        match (old, new) {
            (IpAddr::V4(old), IpAddr::V4(new)) => self.address_v4(old, new),
            (old, new) => self.address_v6(v6(old), v6(new)),
        }
    }

    /// For [`Delta::apply_swapped`]: the same changes to a checksum that was read in the machine's own byte order.
    #[must_use]
    pub const fn swapped(self) -> Delta {
        Delta(u16::from_be(self.0))
    }

    /// As [`Delta::apply`] for a [`Delta::swapped`] one: a sum in ones' complement does not care for the order of
    /// bytes (RFC 1071 section 2 (B)), so nothing has to be turned around for each packet.
    #[inline(always)]
    pub const fn apply_swapped(self, checksum: u16) -> u16 {
        self.apply(checksum)
    }

    /// What undoes these changes.
    #[must_use]
    pub const fn undone(self) -> Delta {
        Delta(!self.0)
    }

    /// The checksum after the change: IPv4 header, TCP, ICMP.
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        // Both below 2^16: one carry at most, and none after it.
        let sum = !checksum as u32 + self.0 as u32;
        !((sum >> 16) + sum) as u16
    }

    /// The checksum after the change, for UDP: zero (none) stays zero, and a
    /// checksum never becomes zero.
    #[inline(always)]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 { 0 } else { never_zero(self.apply(checksum)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 as it is written: word by word.
    fn slow(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.bytes(&data).folded(), 0xddf2);
        assert_eq!(checksum(&data), 0x220d);
    }

    #[test]
    fn the_sum_agrees_with_the_slow_one_at_every_length_and_in_pieces() {
        let mut rng = fastrand::Rng::with_seed(1);
        for len in 0..300 {
            let data: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
            assert_eq!(Sum::ZERO.bytes(&data).folded(), slow(&data), "length {len}");
            let (a, b) = data.split_at(rng.usize(0..=len));
            let (b, c) = b.split_at(rng.usize(0..=b.len()));
            assert_eq!(Sum::ZERO.bytes(a).bytes(b).bytes(c).folded(), slow(&data), "length {len} in pieces");
        }
        let ones = vec![0xff; 65_535];
        assert_eq!(Sum::ZERO.bytes(&ones).folded(), slow(&ones));
    }

    #[test]
    fn an_update_equals_computing_anew() {
        let mut rng = fastrand::Rng::with_seed(2);
        for round in 0..20_000 {
            let mut data: Vec<u8> =
                (0..40).map(|_| if rng.bool() { rng.u8(..) } else { 0xff * rng.u8(0..2) }).collect();
            data[0] = 0x45; // a header is never all zero
            data[10..12].fill(0);
            let before = checksum(&data);
            let mut delta = Delta::NONE;
            for _ in 0..rng.usize(0..4) {
                let at = [2, 4, 8, 16, 20][rng.usize(0..5)];
                let new = [0, 0xffff, rng.u16(..)][rng.usize(0..3)];
                let old = u16::from_be_bytes([data[at], data[at + 1]]);
                data[at..at + 2].copy_from_slice(&new.to_be_bytes());
                delta = delta.and(Delta::NONE.word(old, new));
            }
            let old = u128::from_be_bytes(data[24..40].try_into().unwrap());
            let new = rng.u128(..);
            data[24..40].copy_from_slice(&new.to_be_bytes());
            delta = delta.address_v6(Ipv6Addr::from_bits(old), Ipv6Addr::from_bits(new));
            let old = u32::from_be_bytes(data[12..16].try_into().unwrap());
            let new = rng.u32(..);
            data[12..16].copy_from_slice(&new.to_be_bytes());
            delta = delta.address_v4(old.into(), new.into());
            assert_eq!(delta.apply(before), checksum(&data), "round {round}");
            assert_eq!(Delta::from_folded(delta.folded()).apply(before), checksum(&data));
        }
    }

    #[test]
    fn the_example_of_rfc_1624_gives_plus_zero() {
        // Section 4: HC 0xdd2f, m 0x5555 becomes m' 0x3285; the right answer is 0x0000.
        assert_eq!(Delta::NONE.word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn an_update_of_nothing_changes_nothing() {
        for sum in 0..=0xffffu16 {
            assert_eq!(Delta::NONE.apply(sum), sum);
            assert_eq!(Delta::NONE.apply_udp(sum), sum);
        }
        for sum in 0..0xffffu16 {
            assert_eq!(Delta::NONE.word(80, 80).apply(sum), sum);
        }
    }

    #[test]
    fn there_and_back_is_where_it_was() {
        let there = Delta::NONE.word(80, 8080);
        let back = Delta::NONE.word(8080, 80);
        for sum in 0..0xffffu16 {
            assert_eq!(back.apply(there.apply(sum)), sum);
        }
    }

    #[test]
    fn udp_without_a_checksum_stays_without_and_with_one_never_loses_it() {
        assert_eq!(Delta::NONE.word(1, 2).apply_udp(0), 0);
        // 0xdd2f with this change computes to zero: sent as all ones.
        assert_eq!(Delta::NONE.word(0x5555, 0x3285).apply_udp(0xdd2f), 0xffff);
        // All ones means a computed zero: changing back finds the old value.
        assert_eq!(Delta::NONE.word(0x3285, 0x5555).apply_udp(0xffff), 0xdd2f);
        assert_eq!(Sum::ZERO.word(0xffff).checksum_udp(), 0xffff);
    }

    #[test]
    fn pseudo_headers_are_those_of_the_rfcs() {
        let v4 = Sum::ZERO.pseudo_v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), IpProtocol::TCP, 20);
        assert_eq!(v4.folded(), slow(&[10, 0, 0, 1, 10, 0, 0, 2, 0, 6, 0, 20]));
        let (a, b) = (Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 2));
        let v6 = Sum::ZERO.pseudo_v6(a, b, IpProtocol::UDP, 0x1_0008);
        let mut flat = [a.octets(), b.octets()].concat();
        flat.extend([0, 1, 0, 8, 0, 0, 0, 17]);
        assert_eq!(v6.folded(), slow(&flat));
    }

    #[test]
    fn an_address_of_the_other_family_changes_the_sum_as_its_bytes_do() {
        let (v4, v6) = (Ipv4Addr::new(10, 2, 0, 10), Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 0x10));
        let before = Sum::ZERO.word(7).bytes(&v4.octets()).checksum();
        let after = Sum::ZERO.word(7).bytes(&v6.octets()).checksum();
        assert_eq!(Delta::NONE.address(v4.into(), v6.into()).apply(before), after);
    }
}
