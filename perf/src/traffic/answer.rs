//! What a received frame is, and the real server's answer to it: the same frame turned
//! around, so that the appliance's translation is honoured. Swapping both ends leaves every
//! checksum as it is.

use crate::traffic::Protocol;
use crate::traffic::frame::{ETHERNET, STAMP};

/// A received frame of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Where its transport header begins.
    pub l4: usize,
}

impl Seen {
    /// Where its payload begins, when its TCP header has no options.
    pub const fn payload(self) -> usize {
        self.l4
            + match self.protocol {
                Protocol::Udp => 8,
                Protocol::Tcp => 20,
            }
    }
}

/// Looks at a frame; `None` for what is not UDP or TCP over IP without options or tags:
/// neighbour discovery, heartbeats.
#[inline]
pub fn look(frame: &[u8]) -> Option<Seen> {
    let (l4, protocol) = match *frame.get(12..15)? {
        [0x08, 0x00, 0x45] => (ETHERNET + 20, *frame.get(23)?),
        [0x86, 0xdd, _] => (ETHERNET + 40, *frame.get(20)?),
        _ => return None,
    };
    let protocol = match protocol {
        17 => Protocol::Udp,
        6 => Protocol::Tcp,
        _ => return None,
    };
    let seen = Seen { protocol, l4 };
    (frame.len() >= seen.payload()).then_some(seen)
}

/// Turns a frame around: sender and receiver change places on all three layers.
#[inline]
pub fn turn(frame: &mut [u8], seen: Seen) {
    swap(frame, 0, 6, 6);
    if seen.l4 == ETHERNET + 20 {
        swap(frame, 26, 30, 4);
    } else {
        swap(frame, 22, 38, 16);
    }
    swap(frame, seen.l4, seen.l4 + 2, 2);
}

#[inline]
fn swap(bytes: &mut [u8], first: usize, second: usize, len: usize) {
    let (before, from_second) = bytes.split_at_mut(second);
    before[first..first + len].swap_with_slice(&mut from_second[..len]);
}

/// The stamp that the generator put into a frame; 0: none.
#[inline]
pub fn stamp(frame: &[u8], seen: Seen) -> u64 {
    let at = seen.payload();
    frame.get(at..at + STAMP).and_then(|stamp| stamp.try_into().ok()).map_or(0, u64::from_be_bytes)
}
