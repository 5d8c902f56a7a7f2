//! The sequence numbers of a TCP connection, as one between its ends sees them: whether a FIN or an RST is one that the
//! other end takes (REQ D8). RFC 9293 sections 3.4 and 3.10.7, RFC 5961 sections 3 and 5, RFC 7323 section 2.
//!
//! Of each end is known: what it sent up to, what the other one acknowledged of that, and how far the other one's window
//! let it go. A segment counts if it ends between the last two; one that does not changes nothing, so that numbers cannot be
//! led astray from outside.
//!
//! * **RST.** An end resets by a number at which the other one, having acknowledged it or more, expects data, up to
//!   the edge of its window; RFC 9293 section 3.10.7.4 takes that, RFC 5961 section 3.2 only the very next number. Which
//!   that is, one between the ends cannot know: an acknowledgement may be under way. So it is taken inside the window: of
//!   blindly sent ones, one in 2^32 / window. An answer to a SYN is held against what it acknowledges instead (RFC 9293
//!   section 3.10.7.3).
//! * **FIN.** It counts inside the window and not below what its end sent already. If the other end acknowledges more than that, it was
//!   none.
//! * **Window scale.** It is said in the SYNs alone. If one was missed, as after a takeover, windows are taken unscaled,
//!   and an end is believed up to [`REACH`] beyond what it sent, or was acknowledged, so far. A wider gap, which is of packets
//!   lost before they came here, is closed by the next acknowledgement; a FIN or RST that comes first is refused: then the
//!   flow ends by being idle. A blind RST is right once in 2^14.
//! * **Begun in the middle.** The first segment of each end is believed. Until the other end has acknowledged
//!   something, an end is held against its own numbers, [`REACH`] to both sides, or from its SYN on; and of an RST of an end
//!   of which nothing at all is known, [`Seen::ResetUnproven`] leaves the caller to decide.

use crate::base::memory::Plain;
use crate::flow::entry::Direction;

/// How far an end is believed beyond what is known of it, in bytes, if the other one's window is not known.
const REACH: u32 = 1 << 18;
/// The largest window (RFC 7323 section 2.3): no acknowledgement goes further ahead.
const WINDOW_MAX: u32 = 1 << 30;
/// The largest shift (RFC 7323 section 2.3). A larger one counts as this.
const SCALE_MAX: u8 = 14;

/// What is looked at of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number, if [`Numbers::has_ack`].
    pub ack: u32,
    /// Whether ACK is set.
    pub has_ack: bool,
    /// The window, as the header has it.
    pub window: u16,
    /// Bytes of payload.
    pub payload_len: u32,
    /// Whether SYN is set.
    pub syn: bool,
    /// Whether FIN is set.
    pub fin: bool,
    /// Whether RST is set: then SYN and FIN do not count.
    pub rst: bool,
    /// Of a SYN: the shift of its window scale option, if it has one.
    pub window_scale: Option<u8>,
}

/// What a segment says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Seen {
    /// Nothing.
    Nothing,
    /// Each end has sent FIN, and acknowledged the other's. Said once.
    Closed,
    /// An RST that the other end takes: the connection is over.
    Reset,
    /// An RST that the other end does not take: it must change nothing.
    ResetOutside,
    /// An RST of which it cannot be told, since nothing of its end was seen yet.
    ResetUnproven,
    /// A FIN that the other end does not take: it does not count.
    FinOutside,
}

/// A segment of this end was seen: [`End::next`] counts.
const SEEN: u8 = 1;
/// [`End::acked`] and [`End::edge`] count.
const BOUNDED: u8 = 2;
/// The other end has acknowledged something.
const CONFIRMED: u8 = 4;
/// Its SYN was seen.
const SYN: u8 = 8;
/// Its FIN was seen: [`End::next`] is behind it.
const FIN: u8 = 16;
/// Its SYN has a window scale.
const SCALES: u8 = 32;
/// [`Seen::Closed`] was said.
const CLOSED: u8 = 64;

/// What is known of what one end sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Plain)]
struct End {
    /// Behind all that it sent.
    next: u32,
    /// What the other end acknowledged.
    acked: u32,
    /// Behind all that the other end's window ever let it send.
    edge: u32,
    notes: u8,
    /// The shift of the windows that this end announces.
    scale: u8,
}

impl End {
    const fn has(&self, note: u8) -> bool {
        self.notes & note != 0
    }

    const fn is_finished(&self) -> bool {
        self.has(FIN) && self.has(BOUNDED) && self.acked == self.next
    }
}

/// Both ends of one connection. All zero: nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Plain)]
pub struct Sequences {
    ends: [End; 2],
}

const _: () = assert!(size_of::<Sequences>() <= 32);

/// How far `to` lies behind `from`, on the circle of numbers (RFC 9293 section 3.4): negative if before.
const fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from) as i32
}

/// Whether a number lies between two, both included.
const fn is_within(number: u32, first: u32, last: u32) -> bool {
    distance(first, number) >= 0 && distance(number, last) >= 0
}

/// The later of two numbers.
const fn later(a: u32, b: u32) -> u32 {
    if distance(a, b) > 0 { b } else { a }
}

impl Sequences {
    /// Of a connection of which nothing was seen.
    pub const NEW: Sequences =
        Sequences { ends: [End { next: 0, acked: 0, edge: 0, notes: 0, scale: 0 }; 2] };

    /// Looks at a segment, in the order in which they pass. A SYN that opens a new connection with the ports of an ended
    /// one is the caller's affair: it begins with [`Sequences::NEW`].
    pub fn see(&mut self, direction: Direction, segment: &Numbers) -> Seen {
        let (from, to) = (direction as usize, direction.reversed() as usize);
        if segment.rst {
            return self.on_reset(from, to, segment);
        }
        let end = segment
            .seq
            .wrapping_add(segment.payload_len)
            .wrapping_add(u32::from(segment.syn))
            .wrapping_add(u32::from(segment.fin));
        let is_first = self.is_first(from, to, segment);
        if is_first {
            self.begin(from, segment, end);
        }
        let (left, right) = self.window(from, to);
        let before = self.ends[from];
        let in_window = is_within(end, left, right);
        let mut seen = Seen::Nothing;
        if segment.fin {
            // Behind a FIN there is nothing, and before what was sent there is none. The first segment has made `next`.
            let is_last = if before.has(FIN) { end == before.next } else { distance(before.next, end) >= 0 };
            if in_window && is_last {
                self.ends[from].next = end;
                self.ends[from].notes |= FIN;
            } else {
                seen = Seen::FinOutside;
            }
        } else if in_window && !before.has(FIN) {
            self.ends[from].next = later(before.next, end);
        }
        // What was sent again, or keeps a connection alive, lies before the window, and its acknowledgement is a new one.
        let width = (right.wrapping_sub(left)).max(u32::from(u16::MAX));
        if segment.has_ack && is_within(end, left.wrapping_sub(width), right) {
            self.acknowledge(from, to, segment, is_first);
        }
        let [a, b] = &mut self.ends;
        if a.is_finished() && b.is_finished() && !a.has(CLOSED) {
            a.notes |= CLOSED;
            return Seen::Closed;
        }
        seen
    }

    /// Whether a segment says where its end's numbers begin.
    fn is_first(&self, from: usize, to: usize, segment: &Numbers) -> bool {
        let (this, other) = (&self.ends[from], &self.ends[to]);
        // Until the other end answers, a SYN with other numbers is another attempt. And what answers a SYN is right,
        // whatever of an earlier connection came before it.
        let answers = segment.has_ack && other.has(SYN) && is_within(segment.ack, other.acked, other.next);
        !this.has(SEEN) || (segment.syn && (!other.has(SEEN) || (answers && !this.has(SYN))))
    }

    /// Believes the first segment of an end.
    fn begin(&mut self, from: usize, segment: &Numbers, end: u32) {
        let this = &mut self.ends[from];
        this.next = end;
        this.notes |= SEEN;
        if segment.syn {
            // The other end expects what follows the SYN, and lets it send what it carries.
            (this.acked, this.edge) = (segment.seq.wrapping_add(1), end);
            // What it acknowledged before this SYN was of another, or is not its last word.
            this.notes = SEEN | BOUNDED | SYN;
        }
        if let (true, Some(scale)) = (segment.syn, segment.window_scale) {
            this.notes |= SCALES;
            this.scale = scale.min(SCALE_MAX);
        }
    }

    /// The shift of an end's windows; `None`: the SYN that says it was missed.
    fn scale_of(&self, end: usize) -> Option<u8> {
        let says = |end: &End| end.has(SYN).then_some(end.has(SCALES));
        match (says(&self.ends[0]), says(&self.ends[1])) {
            (Some(true), Some(true)) => Some(self.ends[end].scale),
            // RFC 7323 section 2.2: both or neither.
            (Some(false), _) | (_, Some(false)) => Some(0),
            (Some(true), None) | (None, Some(true)) | (None, None) => None,
        }
    }

    /// Between which numbers a segment of this end may end.
    fn window(&self, from: usize, to: usize) -> (u32, u32) {
        let this = &self.ends[from];
        let believed = this.next.wrapping_add(REACH);
        if !this.has(BOUNDED) {
            return (this.next.wrapping_sub(REACH), believed);
        }
        // Without the other end's word, it may have said more where it was not seen.
        let is_known = this.has(CONFIRMED) && self.scale_of(to).is_some();
        let right = later(this.edge, if is_known { this.next } else { believed });
        // A FIN, or one byte that asks whether the window is still shut, goes beyond it.
        (this.acked, right.wrapping_add(1))
    }

    /// Takes over what an end says of the other's numbers.
    fn acknowledge(&mut self, from: usize, to: usize, segment: &Numbers, is_first: bool) {
        let scale = if segment.syn { 0 } else { self.scale_of(from).unwrap_or(0) };
        let edge = segment.ack.wrapping_add(u32::from(segment.window) << scale);
        let other = &mut self.ends[to];
        if !other.has(BOUNDED) || (is_first && !other.has(CONFIRMED)) {
            // It knows best what it expects.
            let is_known =
                other.has(SEEN) && (!other.has(BOUNDED) || is_within(segment.ack, other.acked, other.next));
            other.next = if is_known { later(other.next, segment.ack) } else { segment.ack };
            (other.acked, other.edge) = (segment.ack, edge);
            other.notes |= BOUNDED | CONFIRMED;
            return;
        }
        let ahead = distance(other.acked, segment.ack);
        if ahead < 0 || ahead as u32 > WINDOW_MAX {
            return;
        }
        other.acked = segment.ack;
        other.edge = later(other.edge, edge);
        other.notes |= CONFIRMED;
        if distance(other.next, segment.ack) > 0 {
            // It has more than was seen here; a FIN before that was none.
            other.next = segment.ack;
            other.notes &= !FIN;
        }
    }

    fn on_reset(&self, from: usize, to: usize, segment: &Numbers) -> Seen {
        let (this, other) = (&self.ends[from], &self.ends[to]);
        let answers_syn = segment.has_ack && other.has(SYN) && !this.has(CONFIRMED);
        if answers_syn && is_within(segment.ack, other.acked, other.next) {
            return Seen::Reset;
        }
        if !this.has(SEEN | BOUNDED) {
            return if answers_syn { Seen::ResetOutside } else { Seen::ResetUnproven };
        }
        let (left, right) = self.window(from, to);
        if is_within(segment.seq, left, right) { Seen::Reset } else { Seen::ResetOutside }
    }
}

#[cfg(test)]
mod tests;
