//! A session: what two boots of two members agreed on in a handshake, and the
//! keys of its streams. Shared by reference between the threads of a process.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use ring::hkdf::{self, HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::frame::{Opener, Sealer};
use super::key::{KeyName, NoEntropy, expand};
use super::member::MemberInfo;
use crate::base::limits::{PORTS_MAX, WORKERS_MAX};

/// A stream of a session, each direction with keys and sequences of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// The receiving worker is counted in steps of one, the sending one in steps of this.
const WORKER_STEP: u32 = 32;

/// Streams below this are the mirror's.
const HEARTBEATS: u32 = 1024;

/// The stream of the leader's services, behind the heartbeats.
const SERVICES: u32 = HEARTBEATS + PORTS_MAX as u32;

/// Streams of a session in each direction.
const STREAMS: usize = SERVICES as usize + 1;

const _: () = assert!(WORKERS_MAX as u32 <= WORKER_STEP && WORKER_STEP * WORKER_STEP <= HEARTBEATS);

impl StreamId {
    /// The mirror stream from the sender's worker `from` to the receiver's worker
    /// `to`, both below `WORKERS_MAX`.
    pub const fn mirror(from: u16, to: u16) -> StreamId {
        StreamId(from as u32 * WORKER_STEP + to as u32)
    }

    /// The heartbeats that the sender sends by its port `port`.
    pub const fn heartbeat(port: u16) -> StreamId {
        StreamId(HEARTBEATS + port as u32)
    }

    /// What is said of the leader's services, by whichever port.
    pub const SERVICES: StreamId = StreamId(SERVICES);

    /// The sender's port, of a heartbeat stream.
    pub fn heartbeat_port(self) -> Option<u16> {
        let port = self.0.checked_sub(HEARTBEATS)?;
        (port < PORTS_MAX as u32).then_some(port as u16)
    }
}

/// The sealer of this stream was taken before: a second one would use nonces again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamTaken(pub StreamId);

impl fmt::Display for StreamTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {} of this session has a sealer already, or does not exist", self.0.0)
    }
}

impl std::error::Error for StreamTaken {}

/// Which side of the handshake this is; only to tell the two directions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Initiator,
    Responder,
}

/// What two boots of two members agreed on.
pub struct Session {
    id: u64,
    local: MemberInfo,
    peer: MemberInfo,
    version: u16,
    side: Side,
    key: KeyName,
    secret: hkdf::Prk,
    taken: [AtomicU64; STREAMS.div_ceil(64)],
}

impl Session {
    /// `transcript` is the handshake's hash, `secret` what only the two sides know.
    pub(super) fn new(
        (side, key): (Side, KeyName),
        local: MemberInfo,
        peer: MemberInfo,
        transcript: &[u8],
        secret: &[u8],
    ) -> Session {
        let secret = Salt::new(HKDF_SHA256, transcript).extract(secret);
        Session {
            id: u64::from_be_bytes(*expand(&secret, &[b"baton session id"])),
            local,
            peer,
            version: local.version_max.min(peer.version_max),
            side,
            key,
            secret,
            taken: [const { AtomicU64::new(0) }; STREAMS.div_ceil(64)],
        }
    }

    /// Both ends of a session, agreed within one process over entropy of the operating
    /// system: for tests of what runs over a session. Members agree by the handshake.
    pub fn agree_in_memory(a: MemberInfo, b: MemberInfo) -> Result<(Session, Session), NoEntropy> {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| NoEntropy)?;
        let [left, right] = [(Side::Initiator, a, b), (Side::Responder, b, a)].map(|(side, local, peer)| {
            Session::new((side, KeyName(0)), local, peer, b"agreed in memory", &secret)
        });
        Ok((left, right))
    }

    /// Its name: the same on both sides, different for each session.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it was agreed with.
    pub fn key(&self) -> KeyName {
        self.key
    }

    /// What both sides know, and nobody else: whatever is bound to it is of this session.
    pub(super) fn binder(&self) -> Zeroizing<[u8; 32]> {
        expand(&self.secret, &[b"baton session binder"])
    }

    /// What this appliance said of itself.
    pub fn local(&self) -> &MemberInfo {
        &self.local
    }

    /// What the peer said of itself.
    pub fn peer(&self) -> &MemberInfo {
        &self.peer
    }

    /// The highest protocol version that both speak.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// What both can do beyond the version's base.
    pub fn capabilities(&self) -> u32 {
        self.local.capabilities & self.peer.capabilities
    }

    /// The sealer of what this appliance sends on a stream. It is given once in
    /// the life of a session.
    pub fn sealer(&self, stream: StreamId) -> Result<Sealer, StreamTaken> {
        let at = stream.0 as usize;
        if at >= STREAMS {
            return Err(StreamTaken(stream));
        }
        let bit = 1 << (at % 64);
        if self.taken[at / 64].fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return Err(StreamTaken(stream));
        }
        Ok(Sealer::new(self.secret.clone(), self.label(true), stream))
    }

    /// The opener of what the peer sends on a stream. A second one would accept
    /// again what the first one accepted: keep the one.
    pub fn opener(&self, stream: StreamId) -> Opener {
        Opener::new(self.secret.clone(), self.label(false), stream)
    }

    fn label(&self, sending: bool) -> &'static [u8] {
        match (self.side, sending) {
            (Side::Initiator, true) | (Side::Responder, false) => b" initiator",
            (Side::Responder, true) | (Side::Initiator, false) => b" responder",
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::frame::TAG_LEN;
    use crate::seal::member::tests::member;

    #[test]
    fn both_sides_derive_the_same_keys_for_each_direction() {
        let (a, b) = Session::agree_in_memory(member(1), member(2)).unwrap();
        assert_eq!(a.id(), b.id());
        for (from, to) in [(&a, &b), (&b, &a)] {
            let stream = StreamId::mirror(1, 0);
            let (mut header, mut buffer) = ([0; 28], [0; 4 + TAG_LEN]);
            from.sealer(stream).unwrap().seal_in_place(&mut header, &mut buffer).unwrap();
            // Not even the sender opens its own frames: nothing can be reflected.
            assert!(from.opener(stream).open_in_place(&header, &mut buffer.clone()).is_err());
            assert_eq!(to.opener(stream).open_in_place(&header, &mut buffer).unwrap().payload_len, 4);
        }
    }

    #[test]
    fn a_streams_sealer_is_given_once() {
        let (session, _) = Session::agree_in_memory(member(1), member(2)).unwrap();
        let stream = StreamId::heartbeat(15);
        assert!(session.sealer(stream).is_ok());
        assert_eq!(session.sealer(stream).unwrap_err(), StreamTaken(stream));
        assert!(session.sealer(StreamId::heartbeat(14)).is_ok());
        assert!(session.sealer(StreamId::SERVICES).is_ok());
        assert!(session.sealer(StreamId(StreamId::SERVICES.0 + 1)).is_err(), "no such stream");
    }

    #[test]
    fn mirror_and_heartbeat_streams_never_meet() {
        let last = WORKERS_MAX as u16 - 1;
        assert!(StreamId::mirror(last, last) < StreamId::heartbeat(0));
        assert_eq!(StreamId::heartbeat(3).heartbeat_port(), Some(3));
        assert_eq!(StreamId::mirror(last, last).heartbeat_port(), None);
        assert_eq!(StreamId::SERVICES.heartbeat_port(), None);
        assert!(StreamId::heartbeat(PORTS_MAX as u16 - 1) < StreamId::SERVICES);
        assert_eq!(StreamId(u32::MAX).heartbeat_port(), None);
    }
}
