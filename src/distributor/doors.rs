//! Link addresses, and other fields at constant places of a packet's head, as words: how packets are looked at by
//! the hundred million.

use crate::base::limits::PORTS_MAX;

/// What packets' destinations are compared with, made when the addresses are known.
#[derive(Clone, Debug)]
pub struct Doors {
    /// Each port's own link address, as [`door`] has it.
    pub own: [u64; PORTS_MAX],
    /// The virtual router's for IPv4.
    pub virtual_v4: u64,
    /// The virtual router's for IPv6.
    pub virtual_v6: u64,
}

impl Doors {
    /// Of the ports' own link addresses, and of the virtual router's for IPv4 and IPv6.
    pub fn new(own: &[[u8; 6]], virtual_router: [[u8; 6]; 2]) -> Doors {
        let word =
            |mac: &[u8; 6]| door(u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0]));
        // No link address of a port that is not there.
        let [virtual_v4, virtual_v6] = virtual_router.map(|mac| word(&mac));
        let mut doors = Doors { own: [u64::MAX; PORTS_MAX], virtual_v4, virtual_v6 };
        for (door, mac) in doors.own.iter_mut().zip(own) {
            *door = word(mac);
        }
        doors
    }
}

/// A link address of the eight bytes that it begins, read as a little-endian word.
#[inline(always)]
pub const fn door(word: u64) -> u64 {
    word << 16
}

/// A word at a constant place; the compiler sees that it lies within.
#[inline(always)]
pub fn word<const N: usize, const LEN: usize>(bytes: &[u8; LEN], at: usize) -> [u8; N] {
    <[u8; N]>::try_from(&bytes[at..at + N]).unwrap_or([0; N])
}

/// A number of two bytes at a constant place.
#[inline(always)]
pub fn be16<const LEN: usize>(bytes: &[u8; LEN], at: usize) -> u16 {
    u16::from_be_bytes(word(bytes, at))
}
