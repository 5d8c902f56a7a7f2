//! Handshake, keys and sealed frames: what members of a group say to each other
//! cannot be read, forged, changed or replayed without the group's key file.
//!
//! Owned by no thread: the handshake runs in the liveness thread (room
//! `failover`), each [`Sealer`] and [`Opener`] belongs to the worker or thread
//! that took it. In: the key file's text, handshake messages, frames, `now`.
//! Out: replies, a [`Session`] per peer, sealed and opened frames.
//!
//! - [`key`]: the group's key, and what is derived from it.
//! - [`member`]: what members say of themselves, and when they do not fit together.
//! - [`handshake`]: two boots of two members agree on a [`Session`].
//! - [`session`]: one key per direction and stream, each handed out once.
//! - [`frame`]: AES-256-GCM in place, no allocation, a key for each 2^24 frames.
//! - [`replay`]: which sequences were seen.
//! - [`datagram`]: single datagrams to a witness and from it, without a session.
//!
//! The only entropy is the operating system's, drawn inside `snow` and `ring`
//! and by [`key::boot_id`]; the simulator's seed never reaches a key or a nonce.
//!
//! Decided here:
//! - A session comes from `Noise_NNpsk0_25519_AESGCM_SHA256`: forward secret,
//!   authenticated by the key file alone. Members are equals, so whoever holds the key
//!   file can speak as any node; the node number is not proven beyond that.
//! - Frames of a stream are numbered from 1; 0 means "none yet".
//!
//! Not yet: changing the key file while members run.

pub mod datagram;
pub mod frame;
pub mod handshake;
pub mod key;
pub mod member;
pub mod replay;
pub mod session;

pub use frame::{Opener, Refused, SealError, Sealer, TAG_LEN};
pub use handshake::{Handled, Handshake, Message};
pub use key::{Key, KeyError};
pub use member::{MemberInfo, Mismatch};
pub use session::{Session, StreamId, StreamTaken};
