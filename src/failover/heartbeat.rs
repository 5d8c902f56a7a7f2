//! The frames of the liveness paths, on the wire. All numbers are big-endian.
//!
//! ```text
//! Ethernet (untagged or tagged), EtherType 0x88b5, to 03:62:61:74:6f:6e
//! 0  "bt"            2  format = 1     3  kind: 1 hello, 2 answer, 3 beat, 4 word of services
//! 4  from node       6  to node
//! hello, answer:     8  a message of the handshake
//! beat, word:        8  session id     16 stream   20 sequence   28 sealed content, tag
//! ```
//!
//! A beat's first 28 bytes are authenticated with it. Beats have one length, so
//! that what they say cannot be told from it. Words of services (`services.rs`) are framed alike.

use arrayvec::ArrayVec;

use super::members::Members;
use super::role::Role;
use super::state::{Facts, State};
use crate::base::ids::{BootId, GroupId, NodeId, Term};
use crate::base::limits::MEMBERS_MAX;
use crate::config::mirrored::Edition;
use crate::seal::{StreamId, TAG_LEN, handshake};
use crate::wire::ethernet::{EtherType, Frame, HEADER_LEN, MacAddress};

/// Where liveness frames are sent: a locally administered multicast address, "baton"
/// after its first byte.
pub const DESTINATION: MacAddress = MacAddress([0x03, 0x62, 0x61, 0x74, 0x6f, 0x6e]);

/// Their EtherType: IEEE 802 local experimental 1.
pub const ETHERTYPE: EtherType = EtherType::LOCAL_EXPERIMENTAL;

const FORMAT: u8 = 1;
const COMMON_LEN: usize = 8;

/// Bytes of a beat's header, its sequence last.
pub const BEAT_HEADER_LEN: usize = 28;

/// Bytes of a beat's content.
pub const BEAT_LEN: usize = 80;

/// Bytes of the content of a word of services.
pub const WORD_LEN: usize = 96;

/// The longest liveness frame.
pub const FRAME_MAX: usize = HEADER_LEN + COMMON_LEN + handshake::MESSAGE_MAX;

const _: () = assert!(HEADER_LEN + BEAT_HEADER_LEN + BEAT_LEN + TAG_LEN <= FRAME_MAX);
const _: () = assert!(HEADER_LEN + BEAT_HEADER_LEN + WORD_LEN + TAG_LEN <= FRAME_MAX);

/// A whole Ethernet frame.
pub type FrameBytes = ArrayVec<u8, FRAME_MAX>;

/// What a liveness frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A handshake's first message.
    Hello,
    /// Its answer.
    Answer,
    /// A sealed heartbeat.
    Beat,
    /// A sealed word of the leader's services.
    Word,
}

/// A liveness frame that was taken apart; nothing of it is proven yet.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// What it is.
    pub kind: Kind,
    /// Who says to have sent it.
    pub from: NodeId,
    /// Who it is for.
    pub to: NodeId,
    /// Everything behind the Ethernet header and its tags.
    pub bytes: &'a mut [u8],
}

/// The link address that a frame came from. `None`: it has none, or a group's.
pub fn source(frame: &[u8]) -> Option<MacAddress> {
    let source = Frame::new_checked(frame).ok()?.source();
    (!source.is_multicast()).then_some(source)
}

/// Takes a frame apart: up to two VLAN tags are skipped. `None`: not a liveness frame.
pub fn parse(frame: &mut [u8]) -> Option<Envelope<'_>> {
    let mut at = HEADER_LEN - 2;
    for _ in 0..3 {
        let ethertype = EtherType(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
        at += 2;
        if ethertype == ETHERTYPE {
            return envelope(frame.get_mut(at..)?);
        }
        if ethertype != EtherType::VLAN && ethertype != EtherType::SERVICE_VLAN {
            return None;
        }
        at += 2;
    }
    None
}

fn envelope(bytes: &mut [u8]) -> Option<Envelope<'_>> {
    let [b'b', b't', FORMAT, kind, f0, f1, t0, t1, ..] = *bytes else { return None };
    let kind = match kind {
        1 => Kind::Hello,
        2 => Kind::Answer,
        3 => Kind::Beat,
        4 => Kind::Word,
        _ => return None,
    };
    let (from, to) = (NodeId(u16::from_be_bytes([f0, f1])), NodeId(u16::from_be_bytes([t0, t1])));
    Some(Envelope { kind, from, to, bytes })
}

impl Envelope<'_> {
    /// The message, of a hello or answer. Padding of short frames is no concern:
    /// handshake messages are longer than that.
    pub fn message(&self) -> &[u8] {
        &self.bytes[COMMON_LEN..]
    }

    /// Session and stream, of a beat or a word.
    pub fn beat_of(&self) -> Option<(u64, StreamId)> {
        let header: &[u8; BEAT_HEADER_LEN] = self.bytes.first_chunk()?;
        let stream = u32::from_be_bytes([header[16], header[17], header[18], header[19]]);
        Some((u64_at(header, 8), StreamId(stream)))
    }

    /// A beat's header, and its sealed content.
    pub fn beat_parts(&mut self) -> Option<(&[u8], &mut [u8])> {
        self.sealed_parts(BEAT_LEN)
    }

    /// The same of a word of services.
    pub fn word_parts(&mut self) -> Option<(&[u8], &mut [u8])> {
        self.sealed_parts(WORD_LEN)
    }

    fn sealed_parts(&mut self, len: usize) -> Option<(&[u8], &mut [u8])> {
        let sealed = self.bytes.get_mut(..BEAT_HEADER_LEN + len + TAG_LEN)?;
        let (header, content) = sealed.split_at_mut(BEAT_HEADER_LEN);
        Some((header, content))
    }
}

fn open_frame(source: MacAddress, kind: u8, from: NodeId, to: NodeId) -> FrameBytes {
    let mut frame = FrameBytes::new();
    for part in [&DESTINATION.0[..], &source.0, &ETHERTYPE.0.to_be_bytes(), b"bt", &[FORMAT, kind]] {
        put(&mut frame, part);
    }
    put(&mut frame, &from.0.to_be_bytes());
    put(&mut frame, &to.0.to_be_bytes());
    frame
}

fn put(frame: &mut FrameBytes, bytes: &[u8]) {
    frame.try_extend_from_slice(bytes).expect("FRAME_MAX holds every kind of frame");
}

/// A frame with a hello or an answer.
pub fn handshake_frame(
    source: MacAddress,
    kind: Kind,
    from: NodeId,
    to: NodeId,
    message: &handshake::Message,
) -> FrameBytes {
    let code = if kind == Kind::Hello { 1 } else { 2 };
    let mut frame = open_frame(source, code, from, to);
    put(&mut frame, message);
    frame
}

/// A frame with a beat that is yet to be sealed: see [`beat_parts_mut`].
pub fn beat_frame(
    source: MacAddress,
    from: NodeId,
    to: NodeId,
    session: u64,
    stream: StreamId,
    content: &[u8; BEAT_LEN],
) -> FrameBytes {
    sealed_frame(open_frame(source, 3, from, to), session, stream, content)
}

/// The same with a word of services.
pub fn word_frame(
    source: MacAddress,
    from: NodeId,
    to: NodeId,
    session: u64,
    content: &[u8; WORD_LEN],
) -> FrameBytes {
    sealed_frame(open_frame(source, 4, from, to), session, StreamId::SERVICES, content)
}

fn sealed_frame(mut frame: FrameBytes, session: u64, stream: StreamId, content: &[u8]) -> FrameBytes {
    put(&mut frame, &session.to_be_bytes());
    put(&mut frame, &stream.0.to_be_bytes());
    put(&mut frame, &[0; 8]);
    put(&mut frame, content);
    put(&mut frame, &[0; TAG_LEN]);
    frame
}

/// Header and content of a frame made by [`beat_frame`] or [`word_frame`], for sealing.
pub fn beat_parts_mut(frame: &mut FrameBytes) -> (&mut [u8], &mut [u8]) {
    frame[HEADER_LEN..].split_at_mut(BEAT_HEADER_LEN)
}

/// What a heartbeat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The sender's group.
    pub group: GroupId,
    /// The sender.
    pub node: NodeId,
    /// The sender's boot.
    pub boot: BootId,
    /// Numbers what the sender says, from 1; the same on all its ports.
    pub beat: u64,
    /// The newest beat that it heard of the receiver; 0: none yet.
    pub echo: u64,
    /// The term that it leads or follows.
    pub term: Term,
    /// What it is.
    pub role: Role,
    /// At boot the higher one leads.
    pub priority: u8,
    /// As a standby: it believes to be in its leader's in-sync set.
    pub in_sync: bool,
    /// It wants to lead when it is in sync and has the higher priority.
    pub preempts: bool,
    /// It could take a term: its term file can be written, and it is not under maintenance. One that does not say is
    /// taken to be able to.
    pub can_lead: bool,
    /// Its operator has taken it out of service.
    pub maintenance: bool,
    /// It resigned from its term and names this successor; node 0: nobody.
    pub successor: NodeId,
    /// As a leader: who it counts as in sync, itself not among them.
    pub members: Members,
    /// Microseconds since it heard its leader directly; `u32::MAX`: never.
    pub leader_age_us: u32,
    /// The receiver's ports, a bit each, that it lately heard beats from.
    pub hears: u16,
    /// The services that it goes by. One that does not say is not followed in them.
    pub edition: Edition,
    /// Things tracked by the operator that have failed. One that does not say is taken to be well.
    pub failed: u8,
}

impl Beat {
    /// What the sender is to its operator.
    pub fn state(&self) -> State {
        let Beat { in_sync, maintenance, .. } = *self;
        let followed = !self.members.is_empty();
        // Everyone hears others' VRRP for themselves.
        State::of(self.role, Facts { in_sync, followed, maintenance, outranked: false })
    }

    /// On the wire.
    pub fn encode(&self) -> [u8; BEAT_LEN] {
        let mut out = [0; BEAT_LEN];
        out[0..2].copy_from_slice(&self.group.0.to_be_bytes());
        out[2..4].copy_from_slice(&self.node.0.to_be_bytes());
        out[4..12].copy_from_slice(&self.boot.0.to_be_bytes());
        out[12..20].copy_from_slice(&self.beat.to_be_bytes());
        out[20..28].copy_from_slice(&self.echo.to_be_bytes());
        out[28..36].copy_from_slice(&self.term.counter.to_be_bytes());
        out[36..38].copy_from_slice(&self.term.node.0.to_be_bytes());
        out[38] = self.role.code();
        out[39] = self.priority;
        out[40] = u8::from(self.in_sync)
            | u8::from(self.preempts) << 1
            | u8::from(!self.can_lead) << 2
            | u8::from(self.maintenance) << 3;
        out[41] = self.members.len() as u8;
        out[42..44].copy_from_slice(&self.successor.0.to_be_bytes());
        out[44..48].copy_from_slice(&self.leader_age_us.to_be_bytes());
        out[48..50].copy_from_slice(&self.hears.to_be_bytes());
        for (slot, node) in out[50..].chunks_exact_mut(2).zip(self.members.iter()) {
            slot.copy_from_slice(&node.0.to_be_bytes());
        }
        out[EDITION_AT..EDITION_AT + 8].copy_from_slice(&self.edition.generation.to_be_bytes());
        out[EDITION_AT + 8..EDITION_AT + 16].copy_from_slice(&self.edition.digest.to_be_bytes());
        out[FAILED_AT] = self.failed;
        out
    }

    /// The reverse of [`Beat::encode`]; `None`: not what a member of this version says.
    pub fn decode(bytes: &[u8]) -> Option<Beat> {
        let bytes: &[u8; BEAT_LEN] = bytes.first_chunk()?;
        let node_at = |at: usize| NodeId(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let count = usize::from(bytes[41]);
        if count > MEMBERS_MAX {
            return None;
        }
        let mut members = Members::NONE;
        for at in 0..count {
            members.insert(node_at(50 + 2 * at));
        }
        Some(Beat {
            group: GroupId(node_at(0).0),
            node: node_at(2),
            boot: BootId(u64_at(bytes, 4)),
            beat: u64_at(bytes, 12),
            echo: u64_at(bytes, 20),
            term: Term { counter: u64_at(bytes, 28), node: node_at(36) },
            role: Role::of_code(bytes[38])?,
            priority: bytes[39],
            in_sync: bytes[40] & 1 != 0,
            preempts: bytes[40] & 2 != 0,
            can_lead: bytes[40] & 4 == 0,
            maintenance: bytes[40] & 8 != 0,
            successor: node_at(42),
            members,
            leader_age_us: u32::from_be_bytes([bytes[44], bytes[45], bytes[46], bytes[47]]),
            hears: node_at(48).0,
            edition: Edition { generation: u64_at(bytes, EDITION_AT), digest: u64_at(bytes, EDITION_AT + 8) },
            failed: bytes[FAILED_AT],
        })
    }
}

/// Says in a beat's content what its sender proves in the session that it is sealed for.
pub fn set_proof(content: &mut [u8; BEAT_LEN], proof: u32) {
    content[PROOF_AT..PROOF_AT + 4].copy_from_slice(&proof.to_be_bytes());
}

/// What a beat's content proves; 0: nothing.
pub fn proof(content: &[u8]) -> u32 {
    let said = content.get(PROOF_AT..).and_then(<[u8]>::first_chunk);
    said.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(out)
}

/// Where it stands in a beat.
const FAILED_AT: usize = BEAT_LEN - 1;

/// The same of the services' edition.
const EDITION_AT: usize = 58;

/// The same of the proof, which is another one for each session.
const PROOF_AT: usize = EDITION_AT + 16;

const _: () = assert!(50 + 2 * MEMBERS_MAX <= EDITION_AT && PROOF_AT + 4 <= FAILED_AT);

#[cfg(test)]
mod tests {
    use super::*;

    fn beat() -> Beat {
        let mut members = Members::NONE;
        members.insert(NodeId(7));
        members.insert(NodeId(300));
        Beat {
            group: GroupId(1),
            node: NodeId(2),
            boot: BootId(3),
            beat: 4,
            echo: 5,
            term: Term { counter: 6, node: NodeId(7) },
            role: Role::Quiescing,
            priority: 8,
            in_sync: true,
            preempts: true,
            can_lead: false,
            maintenance: true,
            successor: NodeId(9),
            members,
            leader_age_us: 10,
            hears: 0x8001,
            edition: Edition { generation: 11, digest: 0x8000_0000_0000_0012 },
            failed: 3,
        }
    }

    #[test]
    fn what_a_beat_says_survives_the_wire() {
        assert_eq!(Beat::decode(&beat().encode()), Some(beat()));
        for role in Role::ALL {
            let said = Beat { role, in_sync: false, can_lead: true, maintenance: false, ..beat() };
            assert_eq!(Beat::decode(&said.encode()), Some(said));
        }
    }

    #[test]
    fn one_that_says_nothing_of_its_term_file_can_lead() {
        let mut bytes = beat().encode();
        bytes[40] = 0;
        assert!(Beat::decode(&bytes).unwrap().can_lead);
    }

    #[test]
    fn one_that_says_nothing_of_its_health_is_well() {
        let mut bytes = beat().encode();
        bytes[FAILED_AT] = 0;
        assert_eq!(Beat::decode(&bytes), Some(Beat { failed: 0, ..beat() }));
    }

    #[test]
    fn a_beat_of_an_unknown_role_or_with_too_many_members_is_refused() {
        let mut bytes = beat().encode();
        bytes[38] = 99;
        assert_eq!(Beat::decode(&bytes), None);
        let mut bytes = beat().encode();
        bytes[41] = MEMBERS_MAX as u8 + 1;
        assert_eq!(Beat::decode(&bytes), None);
        assert_eq!(Beat::decode(&bytes[..BEAT_LEN - 1]), None);
    }

    #[test]
    fn frames_are_found_behind_vlan_tags_and_any_cut_is_survived() {
        let source = MacAddress([2, 0, 0, 0, 0, 1]);
        let stream = StreamId::heartbeat(0);
        let frame = beat_frame(source, NodeId(1), NodeId(2), 77, stream, &beat().encode());
        for tags in 0..3 {
            let mut tagged = frame[..12].to_vec();
            for _ in 0..tags {
                tagged.extend([0x81, 0, 0, 5]);
            }
            tagged.extend(&frame[12..]);
            let mut envelope = parse(&mut tagged).unwrap();
            assert_eq!((envelope.kind, envelope.from, envelope.to), (Kind::Beat, NodeId(1), NodeId(2)));
            assert_eq!(envelope.beat_of(), Some((77, stream)));
            assert!(envelope.beat_parts().is_some());
            for len in 0..tagged.len() {
                if let Some(mut cut) = parse(&mut tagged[..len]) {
                    assert!(cut.beat_parts().is_none(), "cut at {len}");
                    cut.message();
                    cut.beat_of();
                }
            }
        }
        let mut three_tags = frame[..12].to_vec();
        three_tags.extend([0x81, 0, 0, 5, 0x81, 0, 0, 5, 0x81, 0, 0, 5]);
        three_tags.extend(&frame[12..]);
        assert!(parse(&mut three_tags).is_none());
    }
}
