//! A burst's way (REQ E7): packets of known flows in stages over the whole burst, so that it waits for
//! memory together and not packet by packet; every other packet as [`Worker::handle_packet`] does it, in its
//! turn, so that no packet overtakes another one of its flow.
//!
//! 1. *Note*: which packets may be of a settled flow: IPv4 without options, fragments or tags, TCP with an
//!    acknowledgement and without SYN, FIN or RST, or UDP, and sound in all that
//!    [`parse_head`](crate::wire::parse::parse_head) asks for. The key's image is read and hashed,
//!    its bucket asked for.
//! 2. *Find*: the bucket names a flow; the flow's lines are asked for.
//! 3. *Forward*: if it is the packet's flow and in a state that such a packet does not change, the packet is
//!    rewritten from what the flow's line holds, and sent.
//!
//! What a stage is not sure of it leaves to `handle_packet`; so this file decides nothing about
//! packets, and without it only time would be lost.

use crate::base::buffer::{Buffer, ChecksumStatus};
use crate::base::counters::Counter;
use crate::base::io::{Io, TxClass};
use crate::base::limits::{BURST_MAX, PORTS_MAX};
use crate::base::time::Instant;
use crate::flow::aging::Mark;
use crate::flow::entry::FlowFlags;
use crate::flow::image::{Image, V4_OFFSET};
use crate::flow::index::Spot;
use crate::flow::key::{TCP, UDP};
use crate::flow::table::Candidate;
use crate::flow::tcp_state::TcpState;
use crate::wire::ethernet;
use crate::worker::Worker;
use crate::worker::message::Role;

/// Bytes of headers that a note looks at: Ethernet, IPv4, and UDP or TCP without options.
const UDP_HEADERS: usize = ethernet::HEADER_LEN + 20 + 8;
const TCP_HEADERS: usize = ethernet::HEADER_LEN + 20 + 20;

/// The lower six bytes of a word.
const MAC_BITS: u64 = 0xffff_ffff_ffff;

/// States that a segment with nothing but an acknowledgement leaves as they are, in both directions: every
/// one from here on, TCP's and that of datagrams.
const SETTLED_FROM: u8 = TcpState::Established.number();

/// Flows of which a packet needs more than to be rewritten.
const UNUSUAL: FlowFlags = FlowFlags::FROM_PEER.with(FlowFlags::HELD);

/// What is known of a packet between the stages.
#[derive(Clone, Copy, Default)]
struct Note {
    image: Image,
    spot: Spot,
    candidate: Option<Candidate>,
    /// Bytes of the IP packet; 0: not noted.
    ip_len: u16,
}

/// What a worker compares packets with, made when its addresses are known.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    /// Each port's own link address as a little-endian word.
    own: [u64; PORTS_MAX],
    virtual_v4: u64,
}

impl Doors {
    pub(super) fn new(own: &[[u8; 6]], virtual_v4: [u8; 6]) -> Doors {
        let word = |mac: &[u8; 6]| mac.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        // No link address of a port that is not there.
        let mut doors = Doors { own: [u64::MAX; PORTS_MAX], virtual_v4: word(&virtual_v4) };
        for (door, mac) in doors.own.iter_mut().zip(own) {
            *door = word(mac);
        }
        doors
    }
}

/// A word at a constant place; the compiler sees that it lies within.
#[inline(always)]
fn word<const N: usize, const LEN: usize>(bytes: &[u8; LEN], at: usize) -> [u8; N] {
    core::array::from_fn(|i| bytes[at + i])
}

#[inline(always)]
fn be16<const LEN: usize>(bytes: &[u8; LEN], at: usize) -> u16 {
    u16::from_be_bytes(word(bytes, at))
}

/// Whether the header of an IPv4 packet without options adds up (RFC 1071).
#[inline(always)]
fn header_adds_up<const LEN: usize>(bytes: &[u8; LEN]) -> bool {
    let at = ethernet::HEADER_LEN;
    let (a, b) = (u64::from_ne_bytes(word(bytes, at)), u64::from_ne_bytes(word(bytes, at + 8)));
    let c = u32::from_ne_bytes(word(bytes, at + 16));
    let sum = (a >> 32) + (a & 0xffff_ffff) + (b >> 32) + (b & 0xffff_ffff) + u64::from(c);
    // Below 2^35: three words of 16 bits and a little.
    let sum = (sum >> 32) + (sum >> 16 & 0xffff) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum == 0xffff
}

/// Notes a packet, if it may be of a settled flow: its key's image and the bytes of its IP packet.
#[inline(always)]
fn note<B: Buffer>(packet: &B, doors: &Doors) -> Option<(Image, u16)> {
    let head: &[u8; UDP_HEADERS] = packet.head().first_chunk()?;
    let rx = packet.rx();
    let to = u64::from_le_bytes(word(head, 0)) & MAC_BITS;
    if to != doors.virtual_v4 && to != doors.own[usize::from(rx.port.0) % PORTS_MAX] {
        return None;
    }
    // EtherType, version and header length; flags and fragment offset, but for "do not fragment".
    let kind = u32::from_be_bytes(word(head, 12)) >> 8;
    let ip_len = be16(head, 16);
    let available = packet.total_len() - ethernet::HEADER_LEN;
    if kind != 0x0008_0045 || be16(head, 20) & 0xbfff != 0 || usize::from(ip_len) > available || head[22] <= 1
    {
        return None;
    }
    match rx.ip_checksum {
        ChecksumStatus::Good => {}
        ChecksumStatus::Unknown if header_adds_up(head) => {}
        ChecksumStatus::Unknown | ChecksumStatus::Bad => return None,
    }
    if rx.l4_checksum == ChecksumStatus::Bad {
        return None;
    }
    let sound = match head[23] {
        UDP => {
            let len = be16(head, 38);
            len >= 8 && len.checked_add(20).is_some_and(|len| len <= ip_len)
        }
        TCP => {
            let head: &[u8; TCP_HEADERS] = packet.head().first_chunk()?;
            let header_len = u16::from(head[46] >> 4) * 4;
            header_len >= 20 && header_len + 20 <= ip_len && head[47] & 0x17 == 0x10
        }
        _ => false,
    };
    sound.then(|| (Image::of_v4_packet(&word(head, V4_OFFSET)), ip_len))
}

impl<B: Buffer> Worker<B> {
    /// Handles packets of one queue, or ones that another worker handed over. Empties `packets`.
    pub fn handle_burst<I: Io<Buf = B>>(&mut self, now: Instant, packets: &mut Vec<B>, io: &mut I) {
        self.counters.add(Counter::RxPackets, packets.len() as u64);
        if self.role == Role::Standby {
            for packet in packets.drain(..) {
                self.handle_packet(now, packet, io);
            }
            return;
        }
        let marks = marks(now);
        while !packets.is_empty() {
            let count = packets.len().min(BURST_MAX);
            let mut notes = [Note::default(); BURST_MAX];
            for (note, packet) in notes.iter_mut().zip(&packets[..count]) {
                if let Some((image, ip_len)) = self::note(packet, &self.doors) {
                    let spot = self.flows.table.spot(image);
                    self.flows.table.prefetch(spot);
                    *note = Note { image, spot, candidate: None, ip_len };
                }
            }
            for note in &mut notes[..count] {
                if note.ip_len != 0 {
                    note.candidate = self.flows.table.candidate(note.spot);
                    if let Some(candidate) = note.candidate {
                        self.flows.table.prefetch_flow(candidate.flow());
                        self.flows.last_seen.prefetch(candidate.flow());
                    }
                }
            }
            for (note, packet) in notes.iter().zip(packets.drain(..count)) {
                if let Some(packet) = self.forward_noted(note, packet, &marks, io) {
                    self.handle_packet(now, packet, io);
                }
            }
        }
    }

    /// Forwards a packet if all about it is as usual, else gives it back as it was.
    #[inline(always)]
    fn forward_noted<I: Io<Buf = B>>(
        &mut self,
        note: &Note,
        mut packet: B,
        marks: &[Mark; TcpState::ALL.len() + 1],
        io: &mut I,
    ) -> Option<B> {
        let Some(candidate) = note.candidate else { return Some(packet) };
        let Some(hot) = self.flows.table.hot_at(candidate, note.image) else { return Some(packet) };
        let direction = candidate.direction();
        let state = usize::from(hot.tcp_number());
        if hot.tcp_number() < SETTLED_FROM || hot.flags().has_any(UNUSUAL) || state >= marks.len() {
            return Some(packet);
        }
        let Some(link) = self.adjacencies.link(hot.adjacency(direction)) else { return Some(packet) };
        let head = packet.head_mut();
        // It goes out as the answer's reverse.
        let ends = hot.answer(direction).v4_endpoints();
        let (network, transport) = (hot.network(direction), hot.transport(direction));
        if head.len() >= TCP_HEADERS && head[23] == TCP {
            let Some(head) = head.first_chunk_mut::<TCP_HEADERS>() else { return Some(packet) };
            let checksum = transport.apply(be16(head, 50));
            head[50..52].copy_from_slice(&checksum.to_be_bytes());
            rewrite(head, &link.addresses, network, ends);
        } else {
            let Some(head) = head.first_chunk_mut::<UDP_HEADERS>() else { return Some(packet) };
            let checksum = transport.apply_udp(be16(head, 40));
            head[40..42].copy_from_slice(&checksum.to_be_bytes());
            rewrite(head, &link.addresses, network, ends);
        }
        let port = link.port;
        hot.count(u64::from(note.ip_len));
        self.flows.last_seen.mark(candidate.flow(), marks[state]);
        io.send(port, packet, TxClass::Service);
        None
    }
}

/// Writes link addresses, a hop less, the header's checksum, and the endpoints: of the answer, reversed.
#[inline(always)]
fn rewrite<const LEN: usize>(
    head: &mut [u8; LEN],
    link: &[u8; 12],
    network: crate::wire::checksum::Delta,
    answer: crate::flow::image::V4Endpoints,
) {
    head[..12].copy_from_slice(link);
    head[22] -= 1;
    let checksum = network.apply(be16(head, 24));
    head[24..26].copy_from_slice(&checksum.to_be_bytes());
    head[26..30].copy_from_slice(&answer.dst.to_le_bytes());
    head[30..34].copy_from_slice(&answer.src.to_le_bytes());
    head[34..36].copy_from_slice(&answer.dst_port.to_le_bytes());
    head[36..38].copy_from_slice(&answer.src_port.to_le_bytes());
}

/// What packets of this moment leave at flows of each state, by its number.
fn marks(now: Instant) -> [Mark; TcpState::ALL.len() + 1] {
    let mut marks = [Mark::default(); TcpState::ALL.len() + 1];
    for state in TcpState::ALL {
        marks[usize::from(state.number())] = Mark::new(state.timeout_class(), now);
    }
    marks
}
