//! A burst's way (REQ E7): packets of known flows in stages over the whole burst, so that it waits for
//! memory together and not packet by packet; every other packet as [`Worker::handle_packet`] does it, in its
//! turn, so that no packet overtakes another one of its flow.
//!
//! 1. *Note*: which packets may be of a known flow: TCP or UDP over IPv4 or IPv6 without options, fragments or tags,
//!    and sound in all that [`parse_head`](crate::wire::parse::parse_head) asks for. The key's image is read and
//!    hashed, its bucket asked for. What is peculiar to IPv6 is in `wide`, so that IPv4 has none of it on its way.
//! 2. *Find*: the bucket names a flow; the flow's lines are asked for.
//! 3. *Forward*: if it is the packet's flow, the packet changes the flow's state as its flags say, is
//!    rewritten from what the flow's line holds, and sent.
//!
//! Where no flow is found, a packet that may begin one is noted for that in the second stage; then it is decided what the
//! flow will be, and the memory for it asked for; and the third stage makes it (see `first`).
//!
//! What a stage is not sure of it leaves to `handle_packet`, which would do the same to
//! every packet that is forwarded here.

use crate::base::buffer::{Buffer, ChecksumStatus};
use crate::base::counters::Counter;
use crate::base::io::{Io, TxClass};
use crate::base::limits::{BURST_MAX, PORTS_MAX};
use crate::base::time::Instant;
use crate::distributor::doors::{Doors, be16, door, word};
use crate::distributor::tell::Tell;
use crate::flow::aging::Mark;
use crate::flow::entry::FlowFlags;
use crate::flow::image::{Image, V4_OFFSET};
use crate::flow::index::Spot;
use crate::flow::key::{TCP, UDP};
use crate::flow::layout::Hot;
use crate::flow::table::{Candidate, Table};
use crate::flow::tcp_state::{Segment, TcpState, Transition};
use crate::flow::{Direction, Stamp};
use crate::traffic::adjacency::Link;
use crate::wire::{ethernet, tcp};
use crate::worker::{Origin, Worker, wide};

/// Bytes of headers that a note looks at: Ethernet, IPv4, and TCP without options.
const HEADERS: usize = ethernet::HEADER_LEN + 20 + 20;

/// The same with UDP, where a frame is not padded as Ethernet pads it.
const HEADERS_MIN: usize = ethernet::HEADER_LEN + 20 + 8;

/// Packets that go from one stage to the next together: a processor waits for some dozen lines at once, and each
/// packet asks for three.
const BLOCK: usize = 16;

/// States that a segment with nothing but an acknowledgement leaves as they are, in both directions: every
/// one from here on, TCP's and that of datagrams.
const SETTLED_FROM: u8 = TcpState::Established.number();

/// Flows of which a packet needs more than to be rewritten.
const UNUSUAL: FlowFlags = UNSURE.with(FlowFlags::REMEMBERED);

/// Flows whose packets all go the general way.
const UNSURE: FlowFlags =
    FlowFlags::FROM_PEER.with(FlowFlags::HELD).with(FlowFlags::MOVING).with(FlowFlags::AWAITED);

/// What is known of a packet between the stages.
#[derive(Clone, Copy)]
pub(super) struct Note {
    pub(super) image: Image,
    pub(super) spot: Spot,
    pub(super) candidate: Candidate,
    /// Bytes of the IP packet.
    pub(super) ip_len: u16,
    /// TCP flags, as far as they say something of a flow's state; of a datagram [`PLAIN`] and [`DATAGRAM`].
    pub(super) flags: u8,
    /// The number of the flow that it begins, among those of the burst; 0: none.
    pub(super) coming: u8,
}

/// Of a packet of no known flow: no flow has this image, so no packet that is noted so is forwarded.
const NOTHING: Note = Note {
    image: Image(u64::MAX, u64::MAX),
    spot: Spot::NONE,
    candidate: Candidate::NONE,
    ip_len: 0,
    flags: 0,
    coming: 0,
};

/// Room for the notes of a burst, which the worker keeps: making it anew for each would cost as much as one of its
/// packets.
pub(super) fn notes() -> Vec<Note> {
    vec![NOTHING; BURST_MAX]
}

/// The notes of a block of so many packets.
#[inline(always)]
fn block_of(notes: &mut [Note], block: usize, count: usize) -> &mut [Note] {
    notes.get_mut(block * BLOCK..((block + 1) * BLOCK).min(count)).unwrap_or_default()
}

/// Finish, synchronize, reset and acknowledge (RFC 9293 section 3.1).
pub(super) const FLAGS: u8 = 0x17;

/// An acknowledgement and nothing else that matters.
pub(super) const PLAIN: u8 = 0x10;

/// Not a TCP flag: the packet is a datagram.
pub(super) const DATAGRAM: u8 = 0x80;

/// Nor is this one: it is over IPv6.
pub(super) const WIDE: u8 = 0x40;

/// A segment that may begin a flow.
const OPENING: u8 = 0x02;

/// Whether the header of an IPv4 packet without options adds up (RFC 1071): a sum of 16-bit words in ones'
/// complement is the sum of longer ones modulo 2^16 - 1, whose multiples it has to be.
#[inline(always)]
fn header_adds_up<const LEN: usize>(bytes: &[u8; LEN]) -> bool {
    let at = ethernet::HEADER_LEN;
    let (a, b) = (u64::from_ne_bytes(word(bytes, at)), u64::from_ne_bytes(word(bytes, at + 8)));
    let (sum, carry) = a.overflowing_add(b);
    // With its carry a sum is never full, so the next two additions have one carry between them.
    let (sum, more) =
        (sum + u64::from(carry)).overflowing_add(u64::from(u32::from_ne_bytes(word(bytes, at + 16))));
    (sum + u64::from(more)) % 0xffff == 0
}

/// What packets are compared with, and where their flows are.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) doors: &'a Doors,
    pub(super) table: &'a Table,
}

/// Notes a packet, if it may be of a known flow; whether it did, and in `any_wide` whether it is over IPv6.
#[inline(always)]
fn note<B: Buffer>(packet: &B, known: Known<'_>, note: &mut Note, any_wide: &mut bool) -> bool {
    match packet.head().first_chunk() {
        Some(head) => note_head(head, packet, known, note, any_wide),
        None => note_short(packet, known, note, any_wide),
    }
}

/// A datagram whose frame ends before a TCP header would, as virtual devices give them: zeros behind it are no TCP
/// header, and of a datagram nothing there is looked at.
#[cold]
fn note_short<B: Buffer>(packet: &B, known: Known<'_>, note: &mut Note, any_wide: &mut bool) -> bool {
    let mut head = [0; HEADERS];
    let short = packet.head();
    if short.len() < HEADERS_MIN {
        return false;
    }
    head[..short.len()].copy_from_slice(short);
    note_head(&head, packet, known, note, any_wide)
}

#[inline(always)]
fn note_head<B: Buffer>(
    head: &[u8; HEADERS],
    packet: &B,
    known: Known<'_>,
    note: &mut Note,
    any_wide: &mut bool,
) -> bool {
    // EtherType, version and header length.
    let kind = u32::from_le_bytes(word(head, 12)) << 8;
    if kind != 0x4500_0800 {
        return wide::note(packet, known, note, any_wide);
    }
    let Known { doors, table } = known;
    let to = door(u64::from_le_bytes(word(head, 0)));
    if to != doors.virtual_v4 && to != doors.own[usize::from(packet.rx().port.0) % PORTS_MAX] {
        return false;
    }
    let ip_len = be16(head, 16);
    if usize::from(ip_len) + ethernet::HEADER_LEN > packet.total_len() {
        return false;
    }
    // Flags and fragment offset, but for "do not fragment"; at least two hops.
    let hops = u32::from_le_bytes(word(head, 20));
    if hops & 0xffbf != 0 || hops & 0xfe_0000 == 0 {
        return false;
    }
    match packet.rx_checksums() {
        ChecksumStatus::Good => {}
        ChecksumStatus::Unknown if header_adds_up(head) => {}
        ChecksumStatus::Unknown | ChecksumStatus::Bad => return false,
    }
    // Both protocols in one and without a branch: in mixed traffic every other one is foretold wrongly. What is
    // neither of them finds no flow.
    let is_udp = head[23] == UDP;
    let (of_udp, of_tcp) = (0_u16.wrapping_sub(u16::from(is_udp)), u16::from(is_udp).wrapping_sub(1));
    let len = (be16(head, 38) & of_udp) | ((u16::from(head[46] >> 4) * 4) & of_tcp);
    let len_min = (8 & of_udp) | (20 & of_tcp);
    let flags = ((PLAIN | DATAGRAM) & of_udp as u8) | (head[47] & FLAGS & of_tcp as u8);
    if len < len_min || u32::from(len) + 20 > u32::from(ip_len) {
        return false;
    }
    if flags & !DATAGRAM != PLAIN && !tcp::Flags(flags).are_sane() {
        return false;
    }
    note.image = Image::of_v4_packet(&word(head, V4_OFFSET));
    note.spot = table.spot(note.image);
    note.ip_len = ip_len;
    note.flags = flags;
    note.coming = 0;
    true
}

impl<B: Buffer> Worker<B> {
    /// Handles packets of one queue, or ones that another lcore handed over. Empties `packets`.
    pub fn handle_burst<I: Io<Buf = B> + Tell>(&mut self, now: Instant, packets: &mut Vec<B>, io: &mut I) {
        if self.origin == Origin::Port {
            self.counters.add(Counter::RxPackets, packets.len() as u64);
        }
        self.end_expired(now);
        if !self.forwards {
            for packet in packets.drain(..) {
                self.handle_packet(now, packet, io);
            }
            return;
        }
        let turn = Turn { now, marks: marks(now) };
        let mut notes = core::mem::take(&mut self.notes);
        while !packets.is_empty() {
            let count = packets.len().min(BURST_MAX);
            let mut leaving = packets.drain(..count);
            let mut any_wide = false;
            let (mut decided, mut unusual) = (0, 0);
            // Each stage is a block behind the one before: so what waits for memory is spread over the burst.
            for block in 0..count.div_ceil(BLOCK) + 2 {
                let gone = count - leaving.len();
                let coming = leaving.as_slice().get(block * BLOCK - gone..).unwrap_or_default();
                let known = Known { doors: &self.doors, table: &self.flows.table };
                for (note, packet) in block_of(&mut notes, block, count).iter_mut().zip(coming) {
                    if !self::note(packet, known, note, &mut any_wide) {
                        *note = NOTHING;
                    }
                }
                for note in block_of(&mut notes, block, count) {
                    self.flows.table.prefetch(note.spot);
                }
                if block >= 1 {
                    for note in block_of(&mut notes, block - 1, count) {
                        note.candidate = self.flows.table.candidate(note.spot);
                        // A hint needs no place that there is.
                        self.flows.table.prefetch_flow(note.candidate.flow());
                        self.flows.last_seen.prefetch(note.candidate.flow());
                        if note.candidate == Candidate::NONE {
                            self.note_opening(note);
                        }
                    }
                    if any_wide {
                        wide::prefetch(&self.flows.table, block_of(&mut notes, block - 1, count));
                    }
                }
                if block >= 2 {
                    for note in block_of(&mut notes, block - 2, count) {
                        let Some(packet) = leaving.next() else { break };
                        if let Some(packet) = self.forward_noted(&turn, note, packet, io) {
                            unusual += 1;
                            self.handle_unusual(&turn, note, packet, io);
                        }
                    }
                }
                if decided < self.coming.len() {
                    decided = self.decide_noted(decided);
                }
            }
            self.coming.clear();
            self.note_forwarded(count - unusual);
        }
        self.notes = notes;
    }

    /// So many packets came and were sent.
    fn note_forwarded(&mut self, count: usize) {
        self.received += count as u64;
        self.completed += count as u64;
    }

    /// Takes note of a packet that no flow is known for, if it may begin one.
    #[cold]
    fn note_opening(&mut self, note: &mut Note) {
        let may_begin = note.image.is_v4()
            && match note.image.v4_protocol() {
                TCP => note.flags == OPENING,
                UDP => true,
                _ => false,
            };
        if may_begin {
            note.coming = self.note_first(note.image, note.spot).unwrap_or(0);
        }
    }

    /// Forwards a packet that was noted to begin a flow, and any other one as all packets are.
    #[cold]
    fn handle_unusual<I: Io<Buf = B> + Tell>(&mut self, turn: &Turn, note: &Note, packet: B, io: &mut I) {
        let packet = match self.make_noted(turn.now, note.coming) {
            Some(Ok(flow)) => {
                let note = Note { candidate: Candidate::new(flow, Direction::FromClient), ..*note };
                let rest = self.forward_noted(turn, &note, packet, io);
                self.note_forwarded(usize::from(rest.is_none()));
                rest
            }
            Some(Err(counter)) => {
                self.received += 1;
                return self.counters.bump(counter);
            }
            None => Some(packet),
        };
        if let Some(packet) = packet {
            self.handle_packet(turn.now, packet, io);
        }
    }

    /// Forwards a packet if all about it is as usual, else gives it back as it was.
    #[inline(always)]
    fn forward_noted<I: Io<Buf = B> + Tell>(
        &mut self,
        turn: &Turn,
        note: &Note,
        mut packet: B,
        io: &mut I,
    ) -> Option<B> {
        let (flow, direction) = (note.candidate.flow(), note.candidate.direction());
        let Some(hot) = self.flows.table.hot_at(note.candidate, note.image) else { return Some(packet) };
        let Some(link) = self.adjacencies.link(hot.adjacency_slot(direction)) else { return Some(packet) };
        let flags = hot.flags();
        if flags.has_any(UNUSUAL) {
            return self.forward_watched(turn, note, flags, packet, io);
        }
        let state = hot.tcp_number();
        if note.flags & !DATAGRAM != PLAIN || state < SETTLED_FROM {
            return self.forward_changing(turn, note, packet, io);
        }
        carry(hot, direction, link, note, &mut packet);
        self.flows.last_seen.mark(flow, turn.mark(state));
        io.send(link.port, packet, TxClass::Service);
        None
    }

    /// As [`Worker::forward_noted`], a packet of an unusual flow. If all that is unusual is that its keys are remembered, and
    /// the packet says neither SYN nor FIN nor RST, then it is watched, and goes on as any.
    #[cold]
    fn forward_watched<I: Io<Buf = B> + Tell>(
        &mut self,
        turn: &Turn,
        note: &Note,
        flags: FlowFlags,
        packet: B,
        io: &mut I,
    ) -> Option<B> {
        if flags.has_any(UNSURE) || note.flags & FLAGS != PLAIN {
            return Some(packet);
        }
        if note.flags & DATAGRAM == 0 {
            let (flow, direction) = (note.candidate.flow(), note.candidate.direction());
            let header = if note.flags & WIDE == 0 { 20 } else { 40 };
            let len = usize::from(note.ip_len).saturating_sub(header);
            self.watch(turn.now, flow, direction, (packet.head(), ethernet::HEADER_LEN + header, len));
        }
        self.forward_changing(turn, note, packet, io)
    }

    /// As [`Worker::forward_noted`], a packet that may change its flow's state, or is over IPv6; what
    /// [`Worker::forward_noted`] looks at first is as it should be.
    #[inline(never)]
    fn forward_changing<I: Io<Buf = B> + Tell>(
        &mut self,
        turn: &Turn,
        note: &Note,
        mut packet: B,
        io: &mut I,
    ) -> Option<B> {
        let (flow, direction) = (note.candidate.flow(), note.candidate.direction());
        // Before anything changes: an image over IPv6 may be another flow's too.
        let way = if note.flags & WIDE == 0 {
            None
        } else {
            let Some(way) = wide::way(&packet, &self.flows.table, note) else { return Some(packet) };
            Some(way)
        };
        if !self.changed_state(turn, note) {
            return Some(packet);
        }
        let Some(hot) = self.flows.table.hot_mut(flow) else { return Some(packet) };
        let Some(link) = self.adjacencies.link(hot.adjacency_slot(direction)) else { return Some(packet) };
        let state = hot.tcp_number();
        match way {
            None => carry(hot, direction, link, note, &mut packet),
            Some(way) => {
                hot.count(u64::from(note.ip_len));
                wide::rewrite(packet.head_mut(), hot, direction, link, note.flags, &way);
            }
        }
        self.flows.last_seen.mark(flow, turn.mark(state));
        io.send(link.port, packet, TxClass::Service);
        None
    }

    /// Lets a packet change its flow's state as its flags say; whether it is still the flow's, and not a new one's.
    #[inline(always)]
    fn changed_state(&mut self, turn: &Turn, note: &Note) -> bool {
        let (flow, direction) = (note.candidate.flow(), note.candidate.direction());
        let Some(hot) = self.flows.table.hot_mut(flow) else { return false };
        if note.flags & FLAGS == PLAIN && hot.tcp_number() >= SETTLED_FROM {
            return true;
        }
        let (before, shard, facts) = (TcpState::from_number(hot.tcp_number()), hot.shard(), hot.flags());
        let Some(before) = before else { return false };
        match before.on_segment(direction, Segment::from_flags(note.flags & FLAGS)) {
            Transition::Unchanged => {}
            Transition::To(after) => {
                hot.set_state(after);
                if !before.is_same_to_peers(after) {
                    let version = self.flows.next_version(shard);
                    let stamp = Stamp { term: self.mirror.standing().term, version };
                    self.flows.table.set_changed(flow, stamp);
                    if facts.contains(FlowFlags::MIRRORED) {
                        self.mirror.flow_changed(turn.now, shard, flow, false, &self.flows.table);
                    }
                }
            }
            Transition::Reopen => return false,
        }
        true
    }
}

/// Counts a packet of a flow, and rewrites it.
#[inline(always)]
fn carry<B: Buffer>(hot: &mut Hot, direction: Direction, link: &Link, note: &Note, packet: &mut B) {
    hot.count(u64::from(note.ip_len));
    match packet.head_mut().first_chunk_mut() {
        Some(head) => rewrite(head, hot, direction, link, note),
        None => rewrite_short(packet.head_mut(), hot, direction, link, note),
    }
}

/// See [`note_short`].
#[cold]
fn rewrite_short(short: &mut [u8], hot: &Hot, direction: Direction, link: &Link, note: &Note) {
    let mut head = [0; HEADERS];
    head[..short.len()].copy_from_slice(short);
    rewrite(&mut head, hot, direction, link, note);
    short.copy_from_slice(&head[..short.len()]);
}

/// The same for all packets of a burst.
struct Turn {
    now: Instant,
    /// What a packet leaves at a flow of each state, by its number.
    marks: [Mark; 16],
}

impl Turn {
    #[inline(always)]
    fn mark(&self, state: u8) -> Mark {
        self.marks[usize::from(state) % self.marks.len()]
    }
}

/// Writes link addresses, a hop less, checksums, and the endpoints: of the answer, reversed.
#[inline(always)]
fn rewrite(head: &mut [u8; HEADERS], hot: &Hot, direction: Direction, link: &Link, note: &Note) {
    let is_udp = note.flags & DATAGRAM != 0;
    let at = if is_udp { 40 } else { 50 };
    let old = u16::from_ne_bytes([head[at], head[at + 1]]);
    let new = hot.transport(direction).apply_swapped(old);
    let new = if old == 0 || new == 0 { zero(is_udp, old, new) } else { new };
    head[at..at + 2].copy_from_slice(&new.to_ne_bytes());
    head[..12].copy_from_slice(&link.addresses);
    head[22] -= 1;
    let checksum = hot.network(direction).apply_swapped(u16::from_ne_bytes(word(head, 24)));
    head[24..26].copy_from_slice(&checksum.to_ne_bytes());
    let answer = hot.answer(direction).v4_endpoints();
    head[26..30].copy_from_slice(&answer.dst.to_le_bytes());
    head[30..34].copy_from_slice(&answer.src.to_le_bytes());
    head[34..36].copy_from_slice(&answer.dst_port.to_le_bytes());
    head[36..38].copy_from_slice(&answer.src_port.to_le_bytes());
}

/// UDP's zero is no checksum, and stays none; one that comes to zero is sent as all ones (RFC 768).
#[cold]
fn zero(is_udp: bool, old: u16, new: u16) -> u16 {
    match (is_udp, old) {
        (false, _) => new,
        (true, 0) => 0,
        (true, _) => 0xffff,
    }
}

/// What packets of this moment leave at flows of each state, by its number.
fn marks(now: Instant) -> [Mark; 16] {
    let mut marks = [Mark::default(); 16];
    for state in TcpState::ALL {
        marks[usize::from(state.number())] = Mark::new(state.timeout_class(), now);
    }
    marks
}
