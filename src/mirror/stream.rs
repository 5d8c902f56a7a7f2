//! One stream and its opposite: from one worker here to one worker of a peer,
//! and back. Each direction has its own key; acknowledgements of one ride on
//! the frames of the other.

use std::collections::VecDeque;

use crate::base::ids::{BootId, GroupId, Term, WorkerId};
use crate::base::memory::NoMemory;
use crate::base::time::{Duration, Instant};
use crate::flow::flows::Flows;
use crate::flow::shard::ShardSet;
use crate::mirror::digest::Digests;
use crate::mirror::header::{self, Acknowledgement, Header};
use crate::mirror::in_flight::{InFlight, Named, Sent};
use crate::mirror::receiver::Received;
use crate::mirror::record::{self, RECORD_MAX, RECORDS_PER_FRAME_MAX, Record};
use crate::mirror::statistics::StreamStatistics;
use crate::mirror::sync::Sync;
use crate::mirror::tombstone::Tombstones;
use crate::seal::Mirroring;
use crate::seal::frame::{Opener, Sealer, TAG_LEN};
use crate::seal::session::StreamId;

/// Frames that a receiver takes at once, if it has room for all ends that they may name: as many as one acknowledgement
/// covers.
const CREDIT_MAX: usize = header::ACK_SPAN;
/// What is new fills so much of a frame before a walk that is due, in quarters: however much is new, a walk goes on.
const LIVE_QUARTERS: usize = 3;
/// Records of a walk in a frame: a peer applies it in some ten microseconds, for which what packets wait for waits at most.
pub(super) const WALKED_MAX: usize = 24;
/// So many flows that begin fill a frame, with IPv4, translated sources and an MTU of 1,500: then it
/// leaves.
const FULL: usize = 48;
/// A record for which no packet waits, waits this long for company: so much later than at once a peer hears of it at most, and a
/// crash within that time finds it unprotected. From 96,000 flows a second of a worker on, frames are full before.
pub const GATHER: Duration = Duration::from_micros(500);
/// Refusals kept until they are sent; further refused frames are not answered,
/// and so are taken for lost and come again.
pub(super) const REFUSALS_MAX: usize = 64;

/// Who sends, as it stands in every frame, and what it has to say.
#[derive(Clone, Copy)]
pub struct Sender<'a> {
    /// Its group.
    pub group: GroupId,
    /// Its boot.
    pub boot: BootId,
    /// Its term.
    pub term: Term,
    /// Its configuration generation.
    pub generation: u32,
    /// Whether it leads, and so sends state.
    pub leads: bool,
    /// Its flows.
    pub flows: &'a Flows,
    /// The ends of its flows.
    pub tombstones: &'a Tombstones,
    /// Shards of which not all flows are here: nothing is asked of them.
    pub arriving: ShardSet,
}

/// The memory of a stream, which outlives its session: a worker makes no new one
/// when the same peer comes back.
pub struct Room {
    /// The peer's worker at the other end.
    pub(super) peer_worker: WorkerId,
    pub(super) in_flight: InFlight,
    pub(super) sync: Sync,
    pub(super) received: Received,
}

/// One stream and its opposite.
pub struct Stream {
    /// The peer's worker at the other end.
    pub peer_worker: WorkerId,
    /// The stream's number in this direction.
    pub number: StreamId,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) in_flight: InFlight,
    pub(super) sync: Sync,
    pub(super) received: Received,
    pub(super) acknowledgement: Acknowledgement,
    pub(super) acknowledgement_due: bool,
    pub(super) refusals: VecDeque<Record>,
    pub(super) walk: u32,
    /// A held packet waits for what is in the queue.
    pub(super) urgent: bool,
    /// A frame of a walk was written in this turn.
    pub(super) walked_in_turn: bool,
    /// The peer is to be told of a floor.
    floor_due: bool,
    /// Frames that the peer takes at once, by the newest frame that came of it, which is the one below this.
    pub(super) credit: u16,
    pub(super) heard_below: u64,
    /// Since when nothing was answered of what asks for an answer, changes or not: so a stream that comes to nothing is seen
    /// although nothing changes, by its questions about digests.
    pub(super) unanswered_since: Option<Instant>,
    /// What it counts.
    pub statistics: StreamStatistics,
    sent: Vec<Sent>,
}

impl Room {
    /// For a stream to this worker of a peer.
    pub(super) fn new(peer_worker: WorkerId, capacity: u32, keeps_graves: bool) -> Result<Room, NoMemory> {
        Ok(Room {
            peer_worker,
            in_flight: InFlight::default(),
            sync: Sync::new(capacity)?,
            received: Received::new(capacity, keeps_graves)?,
        })
    }

    /// Has memory put behind what it keeps of each flow.
    pub(super) fn populate(&self) {
        self.sync.populate();
        self.received.populate();
    }

    /// For another stream to the same worker.
    pub(super) fn again(mut self) -> Room {
        self.in_flight.clear();
        self
    }
}

impl Stream {
    /// A stream under a new session, about these shards, of which the peer is told so. `patience`: see [`Sync::maintain`].
    pub(super) fn open(
        sealer: Sealer,
        opener: Opener,
        mut room: Room,
        shards: ShardSet,
        mirroring: Mirroring,
        patience: Option<Duration>,
    ) -> Stream {
        room.received.open_session();
        room.sync.maintain(patience);
        room.sync.begin(shards, mirroring);
        Stream {
            peer_worker: room.peer_worker,
            number: sealer.stream(),
            sealer,
            opener,
            in_flight: room.in_flight,
            sync: room.sync,
            received: room.received,
            acknowledgement: Acknowledgement::default(),
            acknowledgement_due: false,
            refusals: VecDeque::with_capacity(REFUSALS_MAX),
            walk: 1,
            urgent: false,
            walked_in_turn: false,
            floor_due: false,
            credit: CREDIT_MAX as u16,
            heard_below: 0,
            unanswered_since: None,
            statistics: StreamStatistics::default(),
            sent: Vec::with_capacity(RECORDS_PER_FRAME_MAX),
        }
    }

    /// The session is over: the room is kept for the next one.
    pub(super) fn close(self) -> Room {
        Room {
            peer_worker: self.peer_worker,
            in_flight: self.in_flight,
            sync: self.sync,
            received: self.received,
        }
    }

    /// Forgets what the peer knows and brings it up to date from the start.
    pub(super) fn restart(&mut self) {
        self.in_flight.begin_anew();
        self.sync.restart();
        self.walk += 1;
        self.urgent = false;
        self.unanswered_since = None;
    }

    /// The peer has acknowledged or refused something, or not.
    pub(super) fn answered(&mut self, now: Instant, is_answered: bool) {
        if is_answered {
            self.unanswered_since = (self.in_flight.waiting() > 0).then_some(now);
        }
    }

    /// The peer was refused some records of a frame; `false` when too many wait to be told.
    pub(super) fn refuse(&mut self, refused: Record) -> bool {
        if self.refusals.len() == REFUSALS_MAX {
            return false;
        }
        self.refusals.push_back(refused);
        true
    }

    /// Whether a frame that is waited for no longer could still come to the peer, and be taken. If so, the peer is told to
    /// take none that is so old.
    pub(super) fn shut_out_strays(&mut self) -> bool {
        let strays = self.in_flight.may_have_strays();
        let is_floor = |named: &Named| matches!(named, Named::Floor { .. });
        self.floor_due = strays && !self.in_flight.has(is_floor);
        strays
    }

    /// Whether a frame is to be sent now.
    pub(super) fn is_due(&self, now: Instant, leads: bool, may_walk: bool) -> bool {
        if self.acknowledgement_due || !self.refusals.is_empty() {
            return true;
        }
        if !leads || !self.has_room(now, may_walk) {
            return false;
        }
        self.floor_due
            || self.is_new_due(now)
            || (may_walk && self.may_walk(now))
            || self.sync.asks_at().is_some_and(|due| now >= due)
    }

    /// Whether what is new has waited for company for long enough.
    fn is_new_due(&self, now: Instant) -> bool {
        let waiting = self.sync.waiting();
        (waiting > 0 && (self.urgent || waiting >= FULL))
            || self.sync.oldest_since().is_some_and(|since| now - since >= GATHER)
    }

    /// Whether a frame may carry something to say. However much is new, one frame is left to a walk.
    fn has_room(&self, now: Instant, may_walk: bool) -> bool {
        let (sequence, credit) = (self.sealer.next_sequence(), self.credit);
        self.in_flight.has_room(sequence, credit)
            && (may_walk
                || credit <= 1
                || self.in_flight.has_room(sequence + 1, credit - 1)
                || self.in_flight.walks()
                || !self.sync.has_walk_to_send(now))
    }

    /// Whether a walk has something to say, and says it now: a frame in a turn, so that what comes meanwhile waits for no more.
    pub(super) fn may_walk(&self, now: Instant) -> bool {
        self.sync.has_walk_to_send(now)
            && !self.walked_in_turn
            && self.in_flight.may_walk(self.credit)
            && self.in_flight.has_room(self.sealer.next_sequence(), self.credit)
    }

    /// When this stream has something to do by itself.
    pub(super) fn next_deadline(&self, leads: bool) -> Option<Instant> {
        let gather = self.sync.oldest_since().map(|since| since + GATHER);
        let asks = self.sync.asks_at().filter(|_| leads);
        gather.into_iter().chain(asks).chain(self.in_flight.next_deadline()).min()
    }

    /// Writes and seals one frame into `out`: its length. What the walk adds is taken from `walk_budget`; `None`: it adds nothing.
    /// Returns `None` when there was nothing to say or no sequence left.
    pub(super) fn write_frame(
        &mut self,
        now: Instant,
        sender: &Sender<'_>,
        digests: &mut Digests,
        mut walk_budget: Option<&mut u32>,
        out: &mut [u8],
    ) -> Option<usize> {
        let sequence = self.sealer.next_sequence();
        let (head, body) = out.split_first_chunk_mut::<{ header::HEADER_LEN }>()?;
        let body_max = body.len().checked_sub(TAG_LEN)?;
        self.sync.said.begin(sender.term);
        let (mut at, mut walked) = (0, 0);
        while let Some(refused) = self.refusals.front() {
            let said = &mut self.sync.said;
            let Some(len) = record::write(refused, said, &mut body[at..body_max]) else { break };
            at += len;
            self.refusals.pop_front();
        }
        let refused = at;
        self.sent.clear();
        if sender.leads && self.has_room(now, walk_budget.is_some()) {
            let floor = self.in_flight.lowest(sequence);
            let (record, said) = (Record::Floor { sequence: floor }, &mut self.sync.said);
            if self.floor_due
                && let Some(len) = record::write(&record, said, &mut body[at..body_max])
            {
                at += len;
                self.sent.push(Sent { named: Named::Floor { sequence: floor }, since: now });
                self.floor_due = false;
            }
            let Sender { flows, tombstones, .. } = sender;
            let mut may_walk = walk_budget.is_some() && self.may_walk(now);
            // What is new has frames of its own: only where these left no room, or took the last, it goes with a walk.
            let says_new = walk_budget.is_none() || self.is_new_due(now);
            while self.sent.len() < RECORDS_PER_FRAME_MAX && body_max - at >= RECORD_MAX {
                let room = &mut body[at..body_max];
                let mut next = None;
                // What is new goes first, and the walk last; but some room is the walk's.
                if says_new && (!may_walk || at < body_max / 4 * LIVE_QUARTERS) {
                    next = self.sync.write_next(flows, tombstones, digests, room);
                }
                if next.is_none()
                    && may_walk
                    && walked < WALKED_MAX
                    && let Some(budget @ 1..) = walk_budget.as_deref_mut()
                {
                    next = self.sync.write_walked(now, flows, digests, room);
                    *budget -= u32::from(next.is_some());
                    walked += usize::from(next.is_some());
                }
                match next {
                    Some((len, sent)) => {
                        at += len;
                        self.sent.push(sent);
                    }
                    // The walk looked in vain for now, or may name no more: the room is for what is new after all.
                    None if may_walk => may_walk = false,
                    None => break,
                }
            }
            self.walked_in_turn |= walked > 0;
            if self.sync.waiting() == 0 {
                self.urgent = false;
            }
            // What this frame says of a shard is on its way: only of others it asks.
            let room = &mut body[at..body_max];
            at += self.sync.write_questions(now, sender, digests, room, &mut self.sent);
        }
        if at == 0 && !self.acknowledgement_due {
            return None;
        }
        let needs_answer = !self.sync.needs_no_answer(&self.sent);
        Header {
            elicits: needs_answer && !self.sent.is_empty(),
            walks: walked > 0 && walked == self.sent.len() && refused == 0,
            group: sender.group,
            boot: sender.boot,
            stream: self.number.0 as u16,
            sequence,
            term: sender.term,
            walk: self.walk,
            acknowledgement: self.acknowledgement,
            credit: (self.received.room() / RECORDS_PER_FRAME_MAX).min(CREDIT_MAX) as u16,
            generation: sender.generation,
        }
        .write(head);
        self.acknowledgement_due = false;
        self.sealer.seal_in_place(head, &mut body[..at + TAG_LEN]).ok()?;
        let states = states(&self.sent);
        if !needs_answer {
            self.sync.said_for_now(&self.sent);
            self.sent.clear();
            self.statistics.checkpoints_sent += states;
        }
        self.in_flight.note(now, sequence, &self.sent, walked > 0);
        if !self.sent.is_empty() {
            self.unanswered_since.get_or_insert(now);
        }
        let len = header::HEADER_LEN + at + TAG_LEN;
        self.statistics.sends(now, len, states);
        Some(len)
    }
}

/// How many of them tell of something.
pub(super) fn states(sent: &[Sent]) -> u64 {
    sent.iter().filter(|sent| sent.named.is_state()).count() as u64
}
