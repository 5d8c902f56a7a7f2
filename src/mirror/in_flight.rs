//! What is on its way to a peer: for each frame the flows that it named, never
//! its bytes. Bounded: [`ACK_SPAN`] frames of [`RECORDS_PER_FRAME_MAX`] records.
//!
//! A frame is lost when [`REORDER_MAX`] later ones were acknowledged or when
//! the retransmission time-out passed; then its flows are made dirty again.

use crate::base::ids::{ShardId, Version};
use crate::base::spans::Spans;
use crate::base::time::{Duration, Instant};
use crate::mirror::header::{ACK_SPAN, Acknowledgement};
use crate::mirror::record::RECORDS_PER_FRAME_MAX;

/// Later frames acknowledged until one is taken for lost.
const REORDER_MAX: u64 = 32;
/// The same for a frame of a walk, which others pass at the peer. Less than [`ACK_SPAN`]: a lost one keeps none of them back.
const REORDER_MAX_OF_WALKS: u64 = ACK_SPAN as u64 / 2;
/// The time-out before a round trip was measured.
const TIMEOUT_FIRST: Duration = Duration::from_millis(20);
/// The shortest time-out: above the pauses of a busy peer's core.
const TIMEOUT_MIN: Duration = Duration::from_millis(5);
/// Frames on their way while a walk names more, at least: a peer has always one to apply while the answer to another is on its way back.
const WALK_FRAMES_MIN: u32 = 4;
/// At most: the others are left to what is new.
const WALK_FRAMES_MAX: u32 = ACK_SPAN as u32 / 2;
/// So many parts of a frame are a whole one, where these numbers grow and shrink.
const PARTS: u32 = 16;
/// The longest time-out, after several in a row.
const TIMEOUT_MAX: Duration = Duration::from_millis(200);

/// What a sent record named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A flow in its state of this version.
    Flow {
        /// Its shard.
        shard: ShardId,
        /// Its place in the shard's table.
        flow: u32,
        /// The version that was sent.
        version: Version,
        /// It was named in full, in this round of walks; `None`: it went by its handle.
        in_full: Option<u8>,
    },
    /// A flow's end, by its place among the tombstones.
    Ended {
        /// Its shard.
        shard: ShardId,
        /// The tombstone's place.
        tombstone: u32,
    },
    /// That shards are walked again.
    WalkBegin,
    /// The end of a walk of shards.
    WalkEnd,
    /// The digest of a shard.
    Digest {
        /// The shard.
        shard: ShardId,
        /// The latest place in its order of changes then.
        version: Version,
        /// How much had been said of the shard by then, where not all is acknowledged ([`maintenance`](super::maintenance)).
        said: u32,
    },
    /// That frames below this sequence are not to be taken any more.
    Floor {
        /// The lowest one that may be taken.
        sequence: u64,
    },
    /// What is no longer waited for; its place in the frame stays, by which the peer refuses records.
    Nothing,
}

impl Named {
    /// Whether it is something that the peer is told, not asked.
    pub const fn is_state(&self) -> bool {
        match self {
            Named::Flow { .. } | Named::Ended { .. } => true,
            Named::WalkBegin | Named::WalkEnd | Named::Floor { .. } => true,
            Named::Digest { .. } | Named::Nothing => false,
        }
    }

    /// The shard that it is about, if it is about one.
    pub const fn shard(&self) -> Option<ShardId> {
        match self {
            Named::Flow { shard, .. } | Named::Ended { shard, .. } | Named::Digest { shard, .. } => {
                Some(*shard)
            }
            Named::WalkBegin | Named::WalkEnd | Named::Floor { .. } | Named::Nothing => None,
        }
    }

    /// Whether it is how far a connection has come that the peer knows by its handle: a checkpoint, if such are not acknowledged.
    pub const fn is_by_handle(&self) -> bool {
        match self {
            Named::Flow { in_full, .. } => in_full.is_none(),
            Named::Ended { .. } | Named::WalkBegin | Named::WalkEnd | Named::Floor { .. } => false,
            Named::Digest { .. } | Named::Nothing => false,
        }
    }
}

/// A sent record and how long its state has been waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// What it named.
    pub named: Named,
    /// Since when the state it carried waits to be acknowledged.
    pub since: Instant,
}

/// What became of a frame's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The peer applied it.
    Applied,
    /// The peer received and refused it.
    Refused,
    /// It is taken for lost.
    Lost,
}

struct Frame {
    sequence: u64,
    sent_at: Instant,
    /// It has records of a walk.
    walks: bool,
    /// Records of this frame; empty: nothing waits here.
    records: Vec<Sent>,
}

/// The frames in flight on one stream.
pub struct InFlight {
    frames: Vec<Frame>,
    /// Frames that still wait.
    waiting: usize,
    /// Those of them that have records of a walk.
    walking: usize,
    /// No frame below waits.
    oldest: u64,
    /// One above the newest recorded frame.
    next: u64,
    smoothed: Option<Duration>,
    deviation: Duration,
    /// Of every frame that was acknowledged.
    latency: Spans,
    /// The shortest of those of walks.
    shortest: Option<Duration>,
    /// Frames on their way while a walk names more, in [`PARTS`].
    walk_room: u32,
    backoff: u32,
    /// One above the newest frame that is waited for no longer, and may come all the same.
    lost_below: u64,
    /// The peer takes no frame below this one any more.
    floor: u64,
}

impl Default for InFlight {
    fn default() -> InFlight {
        let frame = || Frame {
            sequence: 0,
            sent_at: Instant::ZERO,
            walks: false,
            records: Vec::with_capacity(RECORDS_PER_FRAME_MAX),
        };
        InFlight::over((0..ACK_SPAN).map(|_| frame()).collect())
    }
}

impl InFlight {
    /// Nothing was sent; this is room for frames, which hold no record.
    fn over(frames: Vec<Frame>) -> InFlight {
        InFlight {
            frames,
            waiting: 0,
            walking: 0,
            oldest: 0,
            next: 0,
            smoothed: None,
            deviation: Duration::ZERO,
            latency: Spans::default(),
            shortest: None,
            walk_room: WALK_FRAMES_MIN * PARTS,
            backoff: 0,
            lost_below: 0,
            floor: 0,
        }
    }

    /// Waits for nothing any more: what is on its way may come or not.
    pub fn begin_anew(&mut self) {
        let (lost_below, floor) = (self.lost_below.max(self.next), self.floor);
        let (latency, shortest) = (self.latency, self.shortest);
        self.clear();
        (self.lost_below, self.floor) = (lost_below, floor);
        (self.latency, self.shortest) = (latency, shortest);
    }

    /// Forgets all, for another session; keeps the room.
    pub fn clear(&mut self) {
        self.frames.iter_mut().for_each(|frame| frame.records.clear());
        *self = InFlight::over(core::mem::take(&mut self.frames));
    }

    /// Whether a frame waits that names one of these.
    pub fn has(&self, named: impl Fn(&Named) -> bool) -> bool {
        self.waiting > 0 && self.frames.iter().flat_map(|frame| &frame.records).any(|sent| named(&sent.named))
    }

    /// Waits no longer for what was sent of these.
    pub fn forget(&mut self, named: impl Fn(&Named) -> bool) {
        for frame in &mut self.frames {
            let mut left = 0;
            for sent in &mut frame.records {
                if named(&sent.named) {
                    sent.named = Named::Nothing;
                    self.lost_below = self.lost_below.max(frame.sequence + 1);
                }
                left += usize::from(sent.named != Named::Nothing);
            }
            if left == 0 && !frame.records.is_empty() {
                frame.records.clear();
                self.waiting -= 1;
                self.walking -= usize::from(frame.walks);
            }
        }
        self.advance();
    }

    /// Whether a frame that is waited for no longer could still come, and be taken.
    pub fn may_have_strays(&self) -> bool {
        self.lost_below > self.floor
    }

    /// The lowest frame that waits, or `next` if none does.
    pub fn lowest(&self, next: u64) -> u64 {
        if self.waiting == 0 { next } else { self.oldest }
    }

    /// Whether a frame with the next sequence may carry records, where the peer takes so many frames at once.
    pub fn has_room(&self, sequence: u64, credit: u16) -> bool {
        self.waiting == 0 || (self.waiting < usize::from(credit) && sequence < self.oldest + ACK_SPAN as u64)
    }

    /// Frames that wait for an acknowledgement.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The smoothed round-trip time; `None` before the first.
    pub fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    /// How long frames waited to be acknowledged, under this session.
    pub fn latency(&self) -> &Spans {
        &self.latency
    }

    /// How many frames of a walk may be on their way, where the peer takes so many frames at once: so many that it always has one to
    /// apply, and that the last of them does not wait there for longer than a round trip takes anyway.
    pub fn walk_room(&self, credit: u16) -> usize {
        ((self.walk_room / PARTS) as usize).min(usize::from(credit) / 2).max(1)
    }

    /// Whether a frame of a walk waits for an acknowledgement.
    pub fn walks(&self) -> bool {
        self.walking > 0
    }

    /// Whether a walk may say more now.
    pub fn may_walk(&self, credit: u16) -> bool {
        self.walking < self.walk_room(credit)
    }

    /// Takes note of a frame sent now, and whether it has records of a walk. The caller asked [`InFlight::has_room`].
    pub fn note(&mut self, now: Instant, sequence: u64, records: &[Sent], walks: bool) {
        self.next = sequence + 1;
        if records.is_empty() {
            if self.waiting == 0 {
                self.oldest = self.next;
            }
            return;
        }
        debug_assert!(self.has_room(sequence, u16::MAX) && records.len() <= RECORDS_PER_FRAME_MAX);
        if self.waiting == 0 {
            self.oldest = sequence;
        }
        let frame = &mut self.frames[(sequence % ACK_SPAN as u64) as usize];
        frame.sequence = sequence;
        frame.sent_at = now;
        frame.walks = walks;
        frame.records.clear();
        frame.records.extend_from_slice(records);
        self.waiting += 1;
        self.walking += usize::from(walks);
    }

    /// The peer acknowledged: calls `each` with the records of every frame that it covers, or that is lost now.
    pub fn acknowledge(
        &mut self,
        now: Instant,
        acknowledgement: &Acknowledgement,
        mut each: impl FnMut(&[Sent], Fate),
    ) {
        if acknowledgement.next > self.next {
            return; // It acknowledges what was never sent.
        }
        for sequence in self.span() {
            if acknowledgement.covers(sequence) {
                let mut floor = self.floor;
                let applied = |records: &[Sent]| {
                    let floors = records.iter().filter_map(|sent| match sent.named {
                        Named::Floor { sequence } => Some(sequence),
                        Named::Flow { .. }
                        | Named::Ended { .. }
                        | Named::WalkBegin
                        | Named::WalkEnd
                        | Named::Digest { .. }
                        | Named::Nothing => None,
                    });
                    floor = floors.fold(floor, u64::max);
                    each(records, Fate::Applied);
                };
                let walks = self.is_of_walk(sequence);
                if let Some(sent_at) = self.settle(sequence, applied) {
                    self.measure(now - sent_at);
                    if walks {
                        self.make_room(now - sent_at);
                    }
                }
                self.floor = floor;
            } else if acknowledgement.next > sequence + self.reorder_max(sequence)
                && self.settle(sequence, |records| each(records, Fate::Lost)).is_some()
            {
                self.lost_below = self.lost_below.max(sequence + 1);
            }
        }
        self.advance();
    }

    /// The peer received frame `sequence` and applied all but the records in `refused`.
    pub fn refuse(&mut self, sequence: u64, refused: u64, mut each: impl FnMut(Sent, Fate)) {
        let fate = |i: usize| if refused >> i & 1 == 1 { Fate::Refused } else { Fate::Applied };
        self.settle(sequence, |records| {
            records.iter().enumerate().for_each(|(i, sent)| each(*sent, fate(i)));
        });
        self.advance();
    }

    /// Takes for lost what waited longer than the time-out.
    pub fn time_out(&mut self, now: Instant, mut each: impl FnMut(Sent, Fate)) {
        let timeout = self.timeout();
        if self.next_deadline().is_none_or(|due| now < due) {
            return; // Frames are sent in order: the oldest one is the first to be late.
        }
        let mut any = false;
        for sequence in self.span() {
            let frame = &self.frames[(sequence % ACK_SPAN as u64) as usize];
            if frame.sequence == sequence && !frame.records.is_empty() && now - frame.sent_at >= timeout {
                any = true;
                self.lost_below = self.lost_below.max(sequence + 1);
                self.settle(sequence, |records| records.iter().for_each(|sent| each(*sent, Fate::Lost)));
            }
        }
        if any {
            self.backoff = (self.backoff + 1).min(6);
            self.advance();
        }
    }

    /// When [`InFlight::time_out`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.waiting == 0 {
            return None;
        }
        let timeout = self.timeout();
        self.span()
            .map(|sequence| &self.frames[(sequence % ACK_SPAN as u64) as usize])
            .find(|frame| !frame.records.is_empty())
            .map(|frame| frame.sent_at + timeout)
    }

    /// The sequences that may wait: frames without records may have gone far beyond them.
    fn span(&self) -> core::ops::Range<u64> {
        self.oldest..self.next.min(self.oldest + ACK_SPAN as u64)
    }

    /// Since when the oldest unacknowledged state waits. A digest is none.
    pub fn oldest_since(&self) -> Option<Instant> {
        if self.waiting == 0 {
            return None;
        }
        let sent = self.frames.iter().flat_map(|frame| &frame.records);
        sent.filter(|sent| sent.named.is_state()).map(|sent| sent.since).min()
    }

    fn timeout(&self) -> Duration {
        let base = match self.smoothed {
            Some(smoothed) => (smoothed + self.deviation * 4).max(TIMEOUT_MIN),
            None => TIMEOUT_FIRST,
        };
        (base * (1 << self.backoff)).min(TIMEOUT_MAX)
    }

    /// Whether the frame in the place of this one has records of a walk.
    fn is_of_walk(&self, sequence: u64) -> bool {
        self.frames[(sequence % ACK_SPAN as u64) as usize].walks
    }

    fn reorder_max(&self, sequence: u64) -> u64 {
        if self.is_of_walk(sequence) { REORDER_MAX_OF_WALKS } else { REORDER_MAX }
    }

    /// Frame `sequence` does not wait any more; when it was sent, if it did.
    fn settle(&mut self, sequence: u64, each: impl FnOnce(&[Sent])) -> Option<Instant> {
        let frame = &mut self.frames[(sequence % ACK_SPAN as u64) as usize];
        if frame.sequence != sequence || frame.records.is_empty() {
            return None;
        }
        each(&frame.records);
        frame.records.clear();
        self.waiting -= 1;
        self.walking -= usize::from(frame.walks);
        Some(frame.sent_at)
    }

    /// RFC 6298 section 2, with nanoseconds.
    fn measure(&mut self, round_trip: Duration) {
        self.latency.add(round_trip);
        self.backoff = 0;
        match self.smoothed {
            None => {
                self.smoothed = Some(round_trip);
                self.deviation = round_trip / 2;
            }
            Some(smoothed) => {
                let error = (smoothed - round_trip).max(round_trip - smoothed);
                self.deviation = (self.deviation * 3 + error) / 4;
                self.smoothed = Some((smoothed * 7 + round_trip) / 8);
            }
        }
    }

    /// A frame of a walk was acknowledged after this time: it waited at the peer, or else there is room for more.
    fn make_room(&mut self, round_trip: Duration) {
        let shortest = self.shortest.map_or(round_trip, |shortest| shortest.min(round_trip));
        self.shortest = Some(shortest);
        self.walk_room = if round_trip > shortest * 2 {
            (self.walk_room - self.walk_room / PARTS).max(WALK_FRAMES_MIN * PARTS)
        } else {
            (self.walk_room + 1).min(WALK_FRAMES_MAX * PARTS)
        };
    }

    fn advance(&mut self) {
        if self.waiting == 0 {
            self.oldest = self.next;
        }
        for _ in self.span() {
            let frame = &self.frames[(self.oldest % ACK_SPAN as u64) as usize];
            if frame.sequence == self.oldest && !frame.records.is_empty() {
                break;
            }
            self.oldest += 1;
        }
    }
}

#[cfg(test)]
#[path = "in_flight_tests.rs"]
mod tests;
