//! Handshake, keys and sealed frames: what members of a group say to each other
//! cannot be read, forged, changed or replayed without the group's key file, or the node's own where keys are pinned.
//!
//! Owned by no thread: the handshake runs in the liveness thread (room
//! `failover`), each [`Sealer`] and [`Opener`] belongs to the worker or thread
//! that took it. In: the key file's text, handshake messages, frames, `now`.
//! Out: replies, a [`Session`] per peer, sealed and opened frames.
//!
//! - [`key`]: a key, and what is derived from it; [`keyring`]: those of the group's key file.
//! - [`node`]: a node's own pair of keys.
//! - [`credentials`]: what members prove themselves with, and how one thing is changed for another.
//! - [`member`]: what members say of themselves, and when they do not fit together.
//! - [`mirroring`]: how a member is to be mirrored to.
//! - [`handshake`]: two boots of two members agree on a [`Session`].
//! - [`session`]: one key per direction and stream, each handed out once.
//! - [`frame`]: AES-256-GCM in place, no allocation, a key for each 2^24 frames.
//! - [`replay`]: which sequences were seen.
//! - [`distrust`]: why something is not believed.
//! - [`datagram`]: single datagrams to a witness and from it, without a session.
//!
//! The only entropy is the operating system's, drawn inside `snow` and `ring`
//! and by [`key::boot_id`]; the simulator's seed never reaches a key or a nonce.
//!
//! Decided here:
//! - A session comes from `Noise_NNpsk0_25519_AESGCM_SHA256`: forward secret,
//!   authenticated by the key file alone. Members are equals, so whoever holds the key
//!   file can speak as any node; the node number is not proven beyond that.
//! - With pinned keys it comes from `Noise_KK_25519_AESGCM_SHA256`: forward secret as well, and each node is proven by
//!   its own key. The key file is then for the hashes of flows and for a witness alone.
//! - Frames of a stream are numbered from 1; 0 means "none yet".
//! - What is accepted of peers can change while members run. Their sessions go on if they prove what is left.

pub mod credentials;
pub mod datagram;
pub mod distrust;
pub mod frame;
pub mod handshake;
pub mod key;
pub mod keyring;
pub mod member;
pub mod mirroring;
pub mod node;
pub mod replay;
pub mod session;

pub use credentials::{Credentials, Keys};
pub use distrust::Distrust;
pub use frame::{Opener, Refused, SealError, Sealer, TAG_LEN};
pub use handshake::{Handled, Handshake, Message};
pub use key::{Key, KeyError};
pub use keyring::KeyRing;
pub use member::{MemberInfo, Mismatch};
pub use mirroring::{Mirroring, Tracked};
pub use session::{Session, StreamId, StreamTaken};
