//! The header of a mirror frame, in the clear and authenticated with the rest.
//!
//! ```text
//! offset  bytes
//!  0      1   version
//!  1      1   flags: 1 = carries records that ask for an acknowledgement, 2 = carries nothing but a walk
//!  2      2   group
//!  4      8   boot id of the sender
//! 12      2   stream: sending worker * 32 + receiving worker
//! 14     10   term of the sender
//! 24      4   walk: raised when the sender begins to bring the receiver up to date
//! 28      8   largest sequence received on the opposite stream, plus one; 0: none
//! 36     32   bit i: largest - 1 - i was received too
//! 68      2   credit: frames the receiver takes at once
//! 70      4   configuration generation
//! 74      8   sequence on the stream, last because sealing writes it
//! ```
//!
//! Acknowledged means applied (DESIGN "Mirroring"). A frame is never sent
//! again: what is lost makes its flows dirty, and their newest state is sent.

use crate::base::ids::{BootId, GroupId, NodeId, Term};

/// Bytes of the header.
pub const HEADER_LEN: usize = 82;

/// The version of the frame format that this build speaks.
pub const VERSION: u8 = 3;

/// Sequences below the largest that one acknowledgement covers.
pub const ACK_SPAN: usize = 256;

const ELICITS: u8 = 1;
const WALKS: u8 = 2;

/// What was received on a stream: the largest sequence and those just below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The largest sequence received, plus one; 0: none yet.
    pub next: u64,
    /// Bit i (of word i / 64): sequence `next - 2 - i` was received.
    pub below: [u64; ACK_SPAN / 64],
}

impl Acknowledgement {
    /// Whether `sequence` was received, as far as this can tell.
    pub fn covers(&self, sequence: u64) -> bool {
        if sequence + 1 == self.next {
            return true;
        }
        match self.next.checked_sub(sequence + 2) {
            Some(distance) if distance < ACK_SPAN as u64 => {
                self.below[(distance / 64) as usize] >> (distance % 64) & 1 == 1
            }
            _ => false,
        }
    }

    /// Takes note of a received sequence.
    pub fn note(&mut self, sequence: u64) {
        if sequence + 1 > self.next {
            let shift = if self.next == 0 { None } else { Some(sequence + 1 - self.next) };
            self.next = sequence + 1;
            match shift {
                Some(by) => {
                    self.shift(by);
                    self.set(by - 1);
                }
                None => self.below = [0; ACK_SPAN / 64],
            }
        } else if sequence + 1 < self.next {
            self.set(self.next - 2 - sequence);
        }
    }

    fn set(&mut self, distance: u64) {
        if distance < ACK_SPAN as u64 {
            self.below[(distance / 64) as usize] |= 1 << (distance % 64);
        }
    }

    fn shift(&mut self, by: u64) {
        if by >= ACK_SPAN as u64 {
            self.below = [0; ACK_SPAN / 64];
            return;
        }
        let words = (by / 64) as usize;
        let bits = by % 64;
        for i in (0..self.below.len()).rev() {
            let low = if i >= words { self.below[i - words] } else { 0 };
            let carry = if bits > 0 && i > words { self.below[i - words - 1] >> (64 - bits) } else { 0 };
            self.below[i] = (low << bits) | carry;
        }
    }
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the frame carries records that ask for an acknowledgement.
    pub elicits: bool,
    /// Whether it carries a walk's records and nothing else: others may be applied before it.
    pub walks: bool,
    /// The group of both.
    pub group: GroupId,
    /// The sender's boot.
    pub boot: BootId,
    /// The stream.
    pub stream: u16,
    /// The frame's sequence on its stream.
    pub sequence: u64,
    /// The sender's term.
    pub term: Term,
    /// Which bring-up of the receiver this frame belongs to.
    pub walk: u32,
    /// What the sender received on the opposite stream.
    pub acknowledgement: Acknowledgement,
    /// Frames the sender of this header takes at once.
    pub credit: u16,
    /// The sender's configuration generation.
    pub generation: u32,
}

impl Header {
    /// Writes the header.
    pub fn write(&self, out: &mut [u8; HEADER_LEN]) {
        out[0] = VERSION;
        out[1] = if self.elicits { ELICITS } else { 0 } | if self.walks { WALKS } else { 0 };
        out[2..4].copy_from_slice(&self.group.0.to_be_bytes());
        out[4..12].copy_from_slice(&self.boot.0.to_be_bytes());
        out[12..14].copy_from_slice(&self.stream.to_be_bytes());
        out[74..82].copy_from_slice(&self.sequence.to_be_bytes());
        out[14..22].copy_from_slice(&self.term.counter.to_be_bytes());
        out[22..24].copy_from_slice(&self.term.node.0.to_be_bytes());
        out[24..28].copy_from_slice(&self.walk.to_be_bytes());
        out[28..36].copy_from_slice(&self.acknowledgement.next.to_be_bytes());
        for (word, place) in self.acknowledgement.below.iter().zip(out[36..68].chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        out[68..70].copy_from_slice(&self.credit.to_be_bytes());
        out[70..74].copy_from_slice(&self.generation.to_be_bytes());
    }

    /// Whether a frame says that it carries nothing but a walk. Nobody has verified it yet: it may decide about nothing but the order in
    /// which frames are looked at.
    pub fn says_that_it_walks(frame: &[u8]) -> bool {
        matches!(frame, [VERSION, flags, ..] if flags & WALKS != 0)
    }

    /// Reads a header, or `None` when it is too short or of another version.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        if bytes[0] != VERSION {
            return None;
        }
        let u16_at = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) << 16 | u32::from(u16_at(at + 2));
        let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
        let mut acknowledgement = Acknowledgement { next: u64_at(28), ..Acknowledgement::default() };
        for (i, word) in acknowledgement.below.iter_mut().enumerate() {
            *word = u64_at(36 + 8 * i);
        }
        Some(Header {
            elicits: bytes[1] & ELICITS != 0,
            walks: bytes[1] & WALKS != 0,
            group: GroupId(u16_at(2)),
            boot: BootId(u64_at(4)),
            stream: u16_at(12),
            sequence: u64_at(74),
            term: Term { counter: u64_at(14), node: NodeId(u16_at(22)) },
            walk: u32_at(24),
            acknowledgement,
            credit: u16_at(68),
            generation: u32_at(70),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut acknowledgement = Acknowledgement::default();
        [3, 5, 70, 68].into_iter().for_each(|s| acknowledgement.note(s));
        let header = Header {
            elicits: true,
            walks: true,
            group: GroupId(7),
            boot: BootId(0x0102_0304_0506_0708),
            stream: 33,
            sequence: 1 << 40,
            term: Term { counter: 9, node: NodeId(2) },
            walk: 4,
            acknowledgement,
            credit: 256,
            generation: 3,
        };
        let mut bytes = [0; HEADER_LEN];
        header.write(&mut bytes);
        assert_eq!(Header::read(&bytes), Some(header));
        assert_eq!(Header::read(&bytes[..81]), None);
        assert!(Header::says_that_it_walks(&bytes));
        bytes[1] &= !WALKS;
        assert!(!Header::says_that_it_walks(&bytes) && !Header::says_that_it_walks(&[]));
        bytes[0] = VERSION - 1;
        assert_eq!(Header::read(&bytes), None);
    }

    #[test]
    fn an_acknowledgement_covers_just_what_was_noted() {
        for seed in 0..200 {
            let mut rng = crate::base::rng::Rng::with_seed(seed);
            let mut acknowledgement = Acknowledgement::default();
            let mut noted = std::collections::BTreeSet::new();
            let mut at = rng.u64(0..5);
            for _ in 0..400 {
                let step_max = if rng.u8(..) < 3 { 300 } else { 4 };
                at += rng.u64(0..step_max);
                let sequence = at.saturating_sub(rng.u64(0..8));
                acknowledgement.note(sequence);
                noted.insert(sequence);
                let largest = *noted.last().unwrap();
                for probe in largest.saturating_sub(ACK_SPAN as u64)..=largest + 2 {
                    assert_eq!(
                        acknowledgement.covers(probe),
                        noted.contains(&probe),
                        "seed {seed} probe {probe}"
                    );
                }
            }
        }
    }
}
