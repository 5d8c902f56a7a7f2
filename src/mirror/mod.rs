//! Mirroring: every flow of this worker, known to every peer before its loss
//! could hurt (REQ A1, B3–B5, B9, C6).
//!
//! Owned by one worker. In: flows that changed or ended, frames of peers, a
//! session for each peer. Out: frames, and [`Outcome`]s that let held
//! packets and source-NAT ports go. Frames go from one sending worker to one
//! receiving worker: a pair of [`stream`]s for each peer's worker. What is said of a shard
//! goes to the worker of the peer that is home to it, from the one that owns it here.
//!
//! * [`record`] and [`header`]: the wire format; `record_full`, [`said`]: of flows in full; `record_v4`: of most, written fast.
//! * [`sync`]: what a peer knows, what it is to be told next.
//! * [`walk`]: how far a peer was brought up to date.
//! * [`handle`]: short names of flows that a peer knows.
//! * [`digest`]: whether a peer has the same flows; [`asking`]: what it is asked of that.
//! * [`in_flight`]: what is on its way, and its loss.
//! * [`receiver`]: applying what a peer sends; `ahead`: reading it, and asking for memory that it will touch.
//! * [`tombstone`]: the ends of flows on both sides.
//! * [`statistics`]: what a stream counts.
//! * [`changes`]: what the worker says of its flows.
//! * [`policy`]: which flows are mirrored.
//! * [`moving`]: shards that go to another worker of this appliance, or come from one.
//! * [`maintenance`]: what is said of living flows without acknowledgement.
//! * `sessions`: streams that open and close with a peer's session; `standing`: what a change of the lead does to them.
//! * [`hold`]: packets that wait for an acknowledgement.
//! * `pace`: when something is to be done, and how fast a walk goes; `kept`: how much of everything is kept, and how much may be; `variant`: what tests break.
//!
//! Not yet: log records.

mod ahead;
pub mod asking;
pub mod changes;
pub mod digest;
pub mod handle;
pub mod header;
pub mod hold;
pub mod in_flight;
mod kept;
pub mod maintenance;
pub mod moving;
mod pace;
pub mod policy;
pub mod receiver;
pub mod record;
mod record_full;
mod record_v4;
mod report;
pub mod said;
mod sessions;
mod standing;
pub mod statistics;
pub mod stream;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod tombstone;
mod variant;
pub mod walk;

use crate::base::counters::{Counter, Counters};
use crate::base::ids::{BootId, GroupId, NodeId, ShardId, Term, WorkerId};
use crate::base::limits::SHARDS;
use crate::base::memory::NoMemory;
use crate::base::time::{Duration, Instant};
use crate::flow::FlowIndex;
use crate::flow::flows::Flows;
use crate::flow::shard::ShardSet;
use crate::mirror::digest::Digests;
use crate::mirror::header::Header;
use crate::mirror::maintenance::Round;
use crate::mirror::receiver::{Applied, Effects, Place};
use crate::mirror::record::{Parsed, Record, Refusal};
use crate::mirror::sessions::stream_of;
use crate::mirror::statistics::Trouble;
use crate::mirror::stream::{Room, Sender, Stream};
use crate::mirror::sync::Settled;
use crate::mirror::tombstone::{RestingPort, Tombstones};
use crate::seal::{self, Tracked};

pub use crate::mirror::kept::Kept;
pub use crate::mirror::report::{Progress, StreamStatus};
pub use crate::mirror::variant::Variant;

/// What a mirror is made from.
#[derive(Clone, Debug)]
pub struct MirrorSetup {
    /// This worker.
    pub worker: WorkerId,
    /// How many workers this appliance has.
    pub workers: u16,
    /// This appliance's group.
    pub group: GroupId,
    /// This appliance's boot.
    pub boot: BootId,
    /// Flows at most, of this worker.
    pub capacity: u32,
    /// The peers, in the configuration's order.
    pub peers: Vec<NodeId>,
    /// Walked records a second at most.
    pub walk_rate: u32,
    /// How far connections have come is said without acknowledgement, in rounds that take so long; `None`: it is acknowledged.
    pub maintenance_every: Option<Duration>,
    /// Soundness.
    pub variant: Variant,
}

/// A frame that was written, to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// To this peer, by its place in the configuration.
    pub peer: usize,
    /// To this worker of it.
    pub worker: WorkerId,
    /// Bytes of the frame.
    pub len: usize,
}

/// What came of what was sent.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// A peer knows this flow, for the first time; its state had waited since then.
    Known {
        /// Its shard.
        shard: ShardId,
        /// Its place.
        flow: FlowIndex,
        /// Since when it waited.
        since: Instant,
    },
    /// A peer refused this flow: it stays unprotected. Packets wait for the other peers alone.
    Refused {
        /// Its shard.
        shard: ShardId,
        /// Its place.
        flow: FlowIndex,
    },
    /// No peer has to be told any more that the flow ended to which this port belonged.
    Departed(RestingPort),
    /// A peer's flows of a shard are not this appliance's: the shard is walked again.
    Differs {
        /// The peer.
        peer: NodeId,
        /// The shard.
        shard: ShardId,
        /// They agreed when the peer was asked before.
        is_news: bool,
    },
}

/// What became of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// It was opened; its records, if any, were applied.
    Taken,
    /// It was opened, but its sender may not lead: its records were not applied.
    WrongTerm,
    /// It is not sealed with the key of its peer's stream, or came before: not looked at further.
    Refused {
        /// Whose stream it is.
        peer: NodeId,
        /// What was wrong with it.
        why: seal::Refused,
    },
    /// It is of no process and worker with which there is a session.
    Unknown,
    /// It was not taken, or a part of it was applied and the rest has to come again: to be counted.
    Dropped(Counter),
}

/// Whether this worker leads, and under which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It is the active's, and sends state; else it applies what the active sends.
    pub leads: bool,
    /// Its own term, or the highest under which it was led.
    pub term: Term,
}

struct Peer {
    node: NodeId,
    boot: Option<BootId>,
    /// The id of its session, if it has one.
    session: u64,
    /// Whether every shard has its stream.
    complete: bool,
    streams: Vec<Stream>,
    /// How many workers it had when it last had a session.
    workers: u16,
    /// For streams to come: taken at the start, or of streams whose session is over.
    rooms: Vec<Room>,
    /// Index of the stream of each shard; `u8::MAX`: not of this worker.
    stream_of: Vec<u8>,
    /// It is told of flows of these virtual servers alone.
    tracked: Tracked,
}

/// The mirror of one worker.
pub struct Mirror {
    setup: MirrorSetup,
    standing: Standing,
    generation: u32,
    peers: Vec<Peer>,
    tombstones: Tombstones,
    digests: Digests,
    /// Shards of which flows are still to come from another worker.
    arriving: ShardSet,
    walk_tokens: u32,
    walk_refilled: Instant,
    round: Round,
    outcomes: Vec<Outcome>,
    reading: ahead::Reading,
    restarted: bool,
    restarts: u64,
    /// Only for [`Variant::AcknowledgedBeforeApplied`].
    late: Vec<(Instant, usize, usize, Place, Record)>,
}

impl Mirror {
    /// No peer is known yet.
    pub fn new(setup: MirrorSetup) -> Result<Mirror, NoMemory> {
        // Without peers there is nothing to agree about.
        let capacity = if setup.peers.is_empty() { 0 } else { setup.capacity };
        let digests = Digests::new(capacity, setup.variant)?;
        let peers = setup
            .peers
            .iter()
            .map(|node| Peer {
                node: *node,
                boot: None,
                session: 0,
                complete: false,
                streams: Vec::new(),
                workers: 0,
                rooms: Vec::new(),
                stream_of: vec![u8::MAX; SHARDS],
                tracked: Tracked::ALL,
            })
            .collect();
        Ok(Mirror {
            round: Round::new(setup.maintenance_every),
            setup,
            standing: Standing { leads: false, term: Term::NONE },
            generation: 0,
            peers,
            tombstones: Tombstones::default(),
            digests,
            arriving: ShardSet::default(),
            walk_tokens: 0,
            walk_refilled: Instant::ZERO,
            outcomes: Vec::new(),
            reading: ahead::Reading::new(),
            restarted: false,
            restarts: 0,
            late: Vec::new(),
        })
    }

    /// What is wrong with it, if anything.
    pub fn variant(&self) -> Variant {
        self.setup.variant
    }

    /// Whether this worker leads, and under which term.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The generation of the configuration, told to peers.
    pub fn set_generation(&mut self, generation: u64) {
        self.generation = generation as u32;
    }
}

impl Mirror {
    /// What came of what was sent, oldest first. [`Mirror::give_back`] the list, empty.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// Takes back the list's room, so that no new one is made.
    pub fn give_back(&mut self, outcomes: Vec<Outcome>) {
        if self.outcomes.is_empty() {
            self.outcomes = outcomes;
        }
    }

    /// Finds what timed out, and lets the walk go on at its rate.
    pub fn poll(&mut self, now: Instant, flows: &mut Flows, effects: &mut impl Effects) {
        self.refill(now);
        self.digests.audit(now, &flows.table);
        self.maintain(now, flows);
        for (i, peer) in self.peers.iter_mut().enumerate() {
            for stream in &mut peer.streams {
                stream.walked_in_turn = false;
                let Stream { in_flight, sync, statistics, .. } = stream;
                let (outcomes, tombstones) = (&mut self.outcomes, &mut self.tombstones);
                in_flight.time_out(now, |sent, fate| {
                    statistics.loses(now, u64::from(sent.named.is_state()));
                    conclude((i, peer.node), sync.settle(sent, fate, flows), tombstones, outcomes);
                });
            }
        }
        self.apply_late(now, flows, effects);
    }

    /// Only [`Variant::AcknowledgedBeforeApplied`] has anything here.
    fn apply_late(&mut self, now: Instant, flows: &mut Flows, effects: &mut impl Effects) {
        while let Some((due, peer, stream, place, record)) = self.late.first().copied() {
            if due > now {
                break;
            }
            self.late.remove(0);
            if let Some(stream) = self.peers[peer].streams.get_mut(stream) {
                stream.received.apply(&record, place, flows, &mut self.digests, effects);
            }
        }
    }

    /// Writes the next frame that is due, into a buffer of a whole frame's size; or, if nothing of walks is to be said now, the next one
    /// without it. Call until `None`; a stream is not asked twice for want of room.
    pub fn write_frame(
        &mut self,
        now: Instant,
        flows: &Flows,
        may_walk: bool,
        out: &mut [u8],
    ) -> Option<Written> {
        let may_walk = may_walk && self.walk_tokens > 0;
        // Then those alone that have a walk: others that are due have had their turn.
        let walks = may_walk && self.may_walk(now);
        let sender = Sender {
            group: self.setup.group,
            boot: self.setup.boot,
            term: self.standing.term,
            generation: self.generation,
            leads: self.standing.leads,
            flows,
            tombstones: &self.tombstones,
            arriving: self.arriving,
        };
        for (i, peer) in self.peers.iter_mut().enumerate() {
            for stream in &mut peer.streams {
                let is_due =
                    if walks { stream.may_walk(now) } else { stream.is_due(now, sender.leads, may_walk) };
                if is_due {
                    let Mirror { digests, walk_tokens, .. } = self;
                    let budget = may_walk.then_some(walk_tokens);
                    let len = stream.write_frame(now, &sender, digests, budget, out);
                    if let Some(len) = len {
                        return Some(Written { peer: i, worker: stream.peer_worker, len });
                    }
                }
            }
        }
        None
    }

    /// Takes a frame that came to this worker's stream port, from the header on.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        flows: &mut Flows,
        effects: &mut impl Effects,
        counters: &Counters,
    ) -> Frame {
        let Some((head, body)) = frame.split_first_chunk_mut::<{ header::HEADER_LEN }>() else {
            return Frame::Dropped(Counter::MirrorMalformed);
        };
        let Some(header) = Header::read(head) else { return Frame::Dropped(Counter::MirrorMalformed) };
        let found = self.peers.iter().position(|peer| peer.boot == Some(header.boot));
        let (Some(i), true) = (found, header.group == self.setup.group) else {
            return Frame::Unknown;
        };
        let (sending, receiving) = (WorkerId(header.stream / 32), WorkerId(header.stream % 32));
        let streams = &mut self.peers[i].streams;
        let place = streams.iter().position(|stream| stream.peer_worker == sending);
        let (Some(place), true) = (place, receiving == self.setup.worker) else {
            return Frame::Unknown;
        };
        let stream = &mut streams[place];
        let opened = match stream.opener.open_in_place(head, body) {
            Ok(opened) => opened,
            Err(why) => {
                stream.statistics.fails(now, Trouble::Unopened);
                return Frame::Refused { peer: self.peers[i].node, why };
            }
        };
        stream.statistics.receives(now, header::HEADER_LEN + body.len());
        stream.received.pass(stream.opener.window_floor());
        if header.sequence + 1 >= stream.heard_below {
            (stream.heard_below, stream.credit) = (header.sequence + 1, header.credit);
        }
        if self.standing.leads && stream.received.begins_anew(header.walk) {
            // It took another role and gave it up, or followed somebody else: what it acknowledged before counts no more.
            self.restart_stream(i, place);
        }
        let node = self.peers[i].node;
        let stream = &mut self.peers[i].streams[place];
        if self.standing.leads {
            let Stream { in_flight, sync, statistics, .. } = stream;
            let (outcomes, tombstones) = (&mut self.outcomes, &mut self.tombstones);
            let acknowledged = &header.acknowledgement;
            let mut is_answered = false;
            in_flight.acknowledge(now, acknowledged, |records, fate| {
                is_answered |= fate == in_flight::Fate::Applied;
                statistics.settles(now, fate, stream::states(records));
                // So that all of the frame waits for memory together.
                records.iter().for_each(|sent| sync.prefetch_settled(sent, flows, tombstones));
                for sent in records {
                    conclude((i, node), sync.settle(*sent, fate, flows), tombstones, outcomes);
                }
            });
            stream.answered(now, is_answered);
        }
        self.take_records(now, i, place, &header, &body[..opened.payload_len], flows, effects, counters)
    }

    /// Applies the records of an opened frame and takes note of it for the next
    /// acknowledgement.
    #[expect(clippy::too_many_arguments, reason = "the one place where a frame meets the worker's state")]
    fn take_records(
        &mut self,
        now: Instant,
        peer: usize,
        place: usize,
        header: &Header,
        body: &[u8],
        flows: &mut Flows,
        effects: &mut impl Effects,
        counters: &Counters,
    ) -> Frame {
        let sender = self.peers[peer].node;
        let led_by_sender =
            !self.standing.leads && header.term >= self.standing.term && header.term.node == sender;
        if led_by_sender {
            self.follow(header.term);
            self.standing.term = header.term;
        }
        let stream = &mut self.peers[peer].streams[place];
        let is_current = stream.received.enter_walk(header.walk);
        let newest = stream.acknowledgement.next.max(header.sequence + 1) - 1;
        let stands = Place { sequence: header.sequence, newest, term: header.term, is_current };
        let tables = led_by_sender.then_some((&stream.received, &*flows, &self.digests));
        self.reading.begin(header.term, body, tables);
        let (mut index, mut refused, mut reason) = (0, 0u64, Refusal::Inconsistent);
        let mut is_state = header.elicits;
        while let Some(next) = self.reading.next(body) {
            let Ok(parsed) = next else {
                // What follows was not applied: the frame is not acknowledged.
                counters.bump(Counter::MirrorMalformed);
                stream.statistics.fails(now, Trouble::Malformed);
                return Frame::Taken;
            };
            let applied = match *parsed {
                Parsed::Record(Record::Refused { sequence, which, reason }) => {
                    let Stream { in_flight, sync, statistics, .. } = stream;
                    let (outcomes, tombstones) = (&mut self.outcomes, &mut self.tombstones);
                    in_flight.refuse(sequence, which, |sent, fate| {
                        statistics.settles(now, fate, sent.named.is_state().into());
                        let settled = sync.settle(sent, fate, flows);
                        match settled {
                            Settled::Differs { .. } => statistics.digests_differing += 1,
                            Settled::Refused { .. } => {
                                statistics.records_refused += 1;
                                statistics.refusal = Some(reason);
                                statistics.fails(now, Trouble::Refused(reason));
                            }
                            Settled::Known { .. } | Settled::Ended { .. } | Settled::Nothing => {}
                        }
                        conclude((peer, sender), settled, tombstones, outcomes);
                    });
                    stream.answered(now, true);
                    continue;
                }
                Parsed::Record(Record::Unbound { handle }) => {
                    stream.sync.unbound(now, handle, flows);
                    continue;
                }
                Parsed::Record(_) if !led_by_sender => {
                    is_state = true;
                    continue;
                }
                Parsed::Record(Record::Floor { sequence }) => {
                    stream.opener.raise_floor(sequence);
                    Applied::Done
                }
                Parsed::Record(record) if self.setup.variant == Variant::AcknowledgedBeforeApplied => {
                    let due = now + Duration::from_millis(20);
                    self.late.push((due, peer, place, stands, record));
                    Applied::Done
                }
                Parsed::Record(ref record) => {
                    stream.received.apply(record, stands, flows, &mut self.digests, effects)
                }
                Parsed::Skipped => Applied::Done,
                Parsed::Refused(reason) => Applied::Refused(reason),
            };
            let is_question = matches!(parsed, Parsed::Record(Record::Digest { .. }));
            stream.statistics.records_received += u64::from(!is_question);
            if applied == Applied::Later {
                // The frame is not acknowledged, so it is said again.
                let was_full = !effects.may_remove();
                return if was_full { Frame::Dropped(Counter::DropTellFull) } else { Frame::Taken };
            }
            if let Applied::Refused(why) = applied {
                counters.bump(why.counter());
                stream.statistics.fails(now, Trouble::RefusedHere(why));
                if refused == 0 || reason == Refusal::UnknownHandle {
                    reason = why;
                }
                refused |= 1u64.checked_shl(index).unwrap_or(0);
                if !header.elicits
                    && let Parsed::Record(Record::Update { handle, .. }) = *parsed
                {
                    // Nobody remembers what the frame said. If this is not told, it is when the flow is named again.
                    stream.refuse(Record::Unbound { handle });
                }
            }
            index += 1;
        }
        if is_state && !led_by_sender {
            stream.statistics.fails(now, Trouble::WrongTerm);
            return Frame::WrongTerm;
        }
        let told = refused == 0
            || !header.elicits
            || stream.refuse(Record::Refused { sequence: header.sequence, which: refused, reason });
        if told && (refused == 0 || !header.elicits) {
            stream.acknowledgement.note(header.sequence);
        }
        stream.acknowledgement_due |= header.elicits && refused == 0;
        Frame::Taken
    }
}

fn conclude(
    (peer, node): (usize, NodeId),
    settled: Settled,
    tombstones: &mut Tombstones,
    outcomes: &mut Vec<Outcome>,
) {
    match settled {
        Settled::Differs { shard, is_news } => outcomes.push(Outcome::Differs { peer: node, shard, is_news }),
        Settled::Known { shard, flow, since } => outcomes.push(Outcome::Known { shard, flow, since }),
        Settled::Refused { shard, flow } => outcomes.push(Outcome::Refused { shard, flow }),
        Settled::Ended { tombstone } => {
            outcomes.extend(
                tombstones.acknowledged(tombstone, peer).map(|departed| Outcome::Departed(departed.port())),
            );
        }
        Settled::Nothing => {}
    }
}
