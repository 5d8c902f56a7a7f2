//! Sealed frames: AES-256-GCM in place, one key for a direction, a stream and
//! each 2^24 frames of it, so that no key nears the limits of RFC 8446 section 5.5.
//!
//! A frame is a header that travels in the clear but cannot be changed, and a
//! sealed payload with a 16-byte tag:
//!
//! ```text
//! | header ... sequence (8 bytes, big-endian) | payload ... | tag (16) |
//! ```
//!
//! The header is the caller's; its last 8 bytes are the sequence, which the
//! [`Sealer`] writes. The nonce is stream ‖ sequence. The sealer owns the
//! sequence, cannot be cloned, and a session hands out one per stream: no nonce
//! is ever used twice.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;

use super::replay::{Verdict, Window};
use super::session::StreamId;

/// Bytes that sealing adds behind the payload.
pub const TAG_LEN: usize = 16;

/// Bytes of the sequence at the header's end.
pub const SEQUENCE_LEN: usize = 8;

/// Frames under one key, as a power of two.
const KEY_FRAMES_LOG2: u32 = 24;

/// Why a frame could not be sealed. Nothing was sent or used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The header has no room for the sequence, or the buffer none for the tag.
    NoRoom,
    /// All 2^64 sequences were used: a new session is needed.
    Exhausted,
}

/// Why a frame was refused. The replay window did not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This sequence was accepted before.
    Replayed,
    /// Below the replay window.
    TooOld,
    /// It was not sealed with this stream's key, or was changed.
    Forged,
    /// Too short to be a sealed frame.
    Malformed,
}

/// The keys of one direction of one stream: a chain, one key for each epoch.
struct KeyChain {
    secret: hkdf::Prk,
    label: &'static [u8],
    stream: StreamId,
}

impl KeyChain {
    fn key(&self, epoch: u64) -> LessSafeKey {
        let (stream, epoch) = (self.stream.0.to_be_bytes(), epoch.to_be_bytes());
        let info: [&[u8]; 4] = [b"baton stream", self.label, &stream, &epoch];
        let key: UnboundKey = self
            .secret
            .expand(&info, &AES_256_GCM)
            .expect("a 32-byte key is within what HKDF-SHA256 gives")
            .into();
        LessSafeKey::new(key)
    }

    fn nonce(&self, sequence: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.stream.0.to_be_bytes());
        nonce[4..].copy_from_slice(&sequence.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

const fn epoch_of(sequence: u64) -> u64 {
    sequence >> KEY_FRAMES_LOG2
}

/// Seals the frames of one stream in one direction. There is one for each.
pub struct Sealer {
    chain: KeyChain,
    key: LessSafeKey,
    epoch: u64,
    next: u64,
}

impl Sealer {
    pub(super) fn new(secret: hkdf::Prk, label: &'static [u8], stream: StreamId) -> Sealer {
        let chain = KeyChain { secret, label, stream };
        let key = chain.key(0);
        Sealer { chain, key, epoch: 0, next: 1 }
    }

    /// The same stream's, with another secret; what was counted goes on.
    pub(super) fn renewed(&self, secret: hkdf::Prk) -> Sealer {
        let mut renewed = Sealer::new(secret, self.chain.label, self.chain.stream);
        renewed.next = self.next;
        renewed
    }

    /// The stream that it seals.
    pub fn stream(&self) -> StreamId {
        self.chain.stream
    }

    /// The sequence that the next sealed frame will have.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Seals a frame in place and gives its sequence. `header` ends with 8 bytes
    /// that the sequence is written to; `buffer` is the payload followed by
    /// [`TAG_LEN`] bytes that the tag is written to.
    pub fn seal_in_place(&mut self, header: &mut [u8], buffer: &mut [u8]) -> Result<u64, SealError> {
        let Some(at) = header.len().checked_sub(SEQUENCE_LEN) else { return Err(SealError::NoRoom) };
        let Some(payload_len) = buffer.len().checked_sub(TAG_LEN) else { return Err(SealError::NoRoom) };
        let sequence = self.next;
        if sequence == u64::MAX {
            return Err(SealError::Exhausted);
        }
        if epoch_of(sequence) != self.epoch {
            self.epoch = epoch_of(sequence);
            self.key = self.chain.key(self.epoch);
        }
        // Before anything can fail, so that the nonce cannot come again.
        self.next = sequence + 1;
        header[at..].copy_from_slice(&sequence.to_be_bytes());
        let (payload, tag) = buffer.split_at_mut(payload_len);
        let sealed = self
            .key
            .seal_in_place_separate_tag(self.chain.nonce(sequence), Aad::from(&*header), payload)
            .map_err(|_| SealError::NoRoom)?; // only a payload of 2^36 bytes fails
        tag.copy_from_slice(sealed.as_ref());
        Ok(sequence)
    }
}

/// An accepted frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Its place in the stream, from 1.
    pub sequence: u64,
    /// The payload is the buffer's first so many bytes.
    pub payload_len: usize,
}

/// Opens the frames of one stream in one direction.
pub struct Opener {
    chain: KeyChain,
    /// The newest accepted frame's key, and its predecessor for late frames.
    key: LessSafeKey,
    older: Option<LessSafeKey>,
    epoch: u64,
    window: Window,
}

impl Opener {
    pub(super) fn new(secret: hkdf::Prk, label: &'static [u8], stream: StreamId) -> Opener {
        let chain = KeyChain { secret, label, stream };
        let key = chain.key(0);
        Opener { chain, key, older: None, epoch: 0, window: Window::default() }
    }

    /// The stream that it opens.
    pub fn stream(&self) -> StreamId {
        self.chain.stream
    }

    /// Sequences below this can never be accepted any more.
    pub fn window_floor(&self) -> u64 {
        self.window.floor()
    }

    /// Accepts nothing below this sequence from now on, as the sender asks: it is one that was accepted at most.
    pub fn raise_floor(&mut self, floor: u64) {
        self.window.raise_floor(floor);
    }

    /// The highest accepted sequence; 0 before the first.
    pub fn highest(&self) -> u64 {
        self.window.highest()
    }

    /// Opens a frame in place. `header` is as it was sealed, the sequence its
    /// last 8 bytes; `buffer` is payload and tag, of which the payload is left
    /// in the clear at the front. Of a refused frame the buffer's content is unspecified.
    pub fn open_in_place(&mut self, header: &[u8], buffer: &mut [u8]) -> Result<Opened, Refused> {
        let Some((_, sequence)) = header.split_last_chunk::<SEQUENCE_LEN>() else {
            return Err(Refused::Malformed);
        };
        let sequence = u64::from_be_bytes(*sequence);
        if buffer.len() < TAG_LEN {
            return Err(Refused::Malformed);
        }
        match self.window.check(sequence) {
            Verdict::Fresh => {}
            Verdict::Replayed => return Err(Refused::Replayed),
            Verdict::TooOld => return Err(Refused::TooOld),
        }
        let epoch = epoch_of(sequence);
        let mut newer = None;
        let key = if epoch == self.epoch {
            &self.key
        } else if epoch.checked_add(1) == Some(self.epoch) {
            match &self.older {
                Some(older) => older,
                None => return Err(Refused::TooOld),
            }
        } else if self.epoch.checked_add(1) == Some(epoch) {
            newer.insert(self.chain.key(epoch))
        } else {
            // Nobody loses 2^24 frames in a row and goes on.
            return Err(Refused::Forged);
        };
        let nonce = self.chain.nonce(sequence);
        let payload = key.open_in_place(nonce, Aad::from(header), buffer).map_err(|_| Refused::Forged)?;
        let payload_len = payload.len();
        self.window.accept(sequence);
        if let Some(newer) = newer {
            self.older = Some(core::mem::replace(&mut self.key, newer));
            self.epoch = epoch;
        }
        Ok(Opened { sequence, payload_len })
    }
}

/// Opens a frame of which nothing is remembered: whether it came before is the caller's to know. Gives the payload.
pub(super) fn open_any<'a>(
    secret: &hkdf::Prk,
    label: &'static [u8],
    stream: StreamId,
    header: &[u8],
    buffer: &'a mut [u8],
) -> Result<&'a [u8], Refused> {
    let Some((_, sequence)) = header.split_last_chunk::<SEQUENCE_LEN>() else {
        return Err(Refused::Malformed);
    };
    if buffer.len() < TAG_LEN {
        return Err(Refused::Malformed);
    }
    let sequence = u64::from_be_bytes(*sequence);
    let chain = KeyChain { secret: secret.clone(), label, stream };
    let payload = chain
        .key(epoch_of(sequence))
        .open_in_place(chain.nonce(sequence), Aad::from(header), buffer)
        .map_err(|_| Refused::Forged)?;
    Ok(payload)
}

impl core::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sealer").field("stream", &self.chain.stream).field("next", &self.next).finish()
    }
}

impl core::fmt::Debug for Opener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Opener")
            .field("stream", &self.chain.stream)
            .field("highest", &self.highest())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::hkdf::{HKDF_SHA256, Salt};

    fn pair() -> (Sealer, Opener) {
        let secret = Salt::new(HKDF_SHA256, b"test").extract(b"a secret");
        let stream = StreamId(33);
        (Sealer::new(secret.clone(), b"a", stream), Opener::new(secret, b"a", stream))
    }

    fn seal(sealer: &mut Sealer, text: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut header = b"header  --------".to_vec();
        let mut buffer = text.to_vec();
        buffer.extend([0; TAG_LEN]);
        sealer.seal_in_place(&mut header, &mut buffer).unwrap();
        (header, buffer)
    }

    #[test]
    fn what_was_sealed_opens_once_and_reads_the_same() {
        let (mut sealer, mut opener) = pair();
        let (header, mut buffer) = seal(&mut sealer, b"records");
        assert_ne!(&buffer[..7], b"records");
        let mut again = buffer.clone();
        assert_eq!(opener.open_in_place(&header, &mut buffer), Ok(Opened { sequence: 1, payload_len: 7 }));
        assert_eq!(&buffer[..7], b"records");
        assert_eq!(opener.open_in_place(&header, &mut again), Err(Refused::Replayed));
    }

    #[test]
    fn any_changed_byte_is_a_forgery_and_leaves_the_window_alone() {
        let (mut sealer, mut opener) = pair();
        let (header, buffer) = seal(&mut sealer, b"records");
        for at in 0..header.len() + buffer.len() {
            let (mut h, mut b) = (header.clone(), buffer.clone());
            if at < h.len() {
                h[at] ^= 1
            } else {
                b[at - h.len()] ^= 1
            }
            let refused = opener.open_in_place(&h, &mut b).unwrap_err();
            // A sequence turned into 0 is too old before it is forged.
            assert!(matches!(refused, Refused::Forged | Refused::TooOld), "byte {at}: {refused:?}");
            assert_eq!(opener.highest(), 0);
        }
        let mut b = buffer.clone();
        assert!(opener.open_in_place(&header, &mut b).is_ok());
    }

    #[test]
    fn short_frames_are_malformed() {
        let (mut sealer, mut opener) = pair();
        assert_eq!(opener.open_in_place(&[1; 7], &mut [0; 64]), Err(Refused::Malformed));
        assert_eq!(opener.open_in_place(&[1; 28], &mut [0; TAG_LEN - 1]), Err(Refused::Malformed));
        assert_eq!(sealer.seal_in_place(&mut [0; 7], &mut [0; 64]), Err(SealError::NoRoom));
        assert_eq!(sealer.seal_in_place(&mut [0; 8], &mut [0; 15]), Err(SealError::NoRoom));
        assert_eq!(sealer.next_sequence(), 1);
    }

    #[test]
    fn frames_out_of_order_open_and_those_below_the_window_do_not() {
        let (mut sealer, mut opener) = pair();
        let mut frames: Vec<_> = (0..1026).map(|_| seal(&mut sealer, b"x")).collect();
        let (header, buffer) = &mut frames[1025];
        assert_eq!(opener.open_in_place(header, buffer).unwrap().sequence, 1026);
        assert_eq!(opener.window_floor(), 3);
        let (header, buffer) = &mut frames[1];
        assert_eq!(opener.open_in_place(header, buffer), Err(Refused::TooOld));
        let (header, buffer) = &mut frames[2];
        assert_eq!(opener.open_in_place(header, buffer).unwrap().sequence, 3);
    }

    #[test]
    fn keys_change_every_2_to_the_24_frames_and_late_frames_of_the_last_key_open() {
        let (mut sealer, mut opener) = pair();
        sealer.next = (1 << 24) - 2;
        let mut frames: Vec<_> = (0..4).map(|_| seal(&mut sealer, b"x")).collect();
        for at in [0, 3, 1, 2] {
            let (header, buffer) = &mut frames[at];
            assert_eq!(opener.open_in_place(header, buffer).unwrap().sequence, (1 << 24) - 2 + at as u64);
        }
        // A whole epoch cannot have been lost.
        sealer.next = 3 << 24;
        let (header, mut buffer) = seal(&mut sealer, b"x");
        assert_eq!(opener.open_in_place(&header, &mut buffer), Err(Refused::Forged));
    }

    #[test]
    fn the_last_sequence_is_never_used() {
        let (mut sealer, _) = pair();
        sealer.next = u64::MAX;
        assert_eq!(sealer.seal_in_place(&mut [0; 8], &mut [0; 16]), Err(SealError::Exhausted));
    }

    #[test]
    fn a_stream_does_not_open_another_streams_or_directions_frames() {
        let secret = Salt::new(HKDF_SHA256, b"test").extract(b"a secret");
        let mut sealer = Sealer::new(secret.clone(), b"a", StreamId(1));
        let (header, buffer) = seal(&mut sealer, b"x");
        for (label, stream) in [(b"a", StreamId(2)), (b"b", StreamId(1))] {
            let mut opener = Opener::new(secret.clone(), label, stream);
            assert_eq!(opener.open_in_place(&header, &mut buffer.clone()), Err(Refused::Forged));
        }
    }
}
