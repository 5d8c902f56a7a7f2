//! Shards that this worker gives to another one, or gets, while packets come (REQ E1). Led by the master, one
//! [`Move`] at a time:
//!
//! 1. The old owner *gathers* the places of the shards' flows, and those of flows made meanwhile.
//! 2. The new owner *expects* them: it parks their packets.
//! 3. Every other lcore that hands over packets is *redirected*: behind its last packet of these shards it puts a marker
//!    into its ring to the old owner, and from then on it hands over to the new one.
//! 4. When all markers have come, the old owner passes on what its own ports bring. It waits until the mirror is quiet about
//!    these shards, and then their flows leave, by way of the master, with all that is known of them.
//! 5. The new owner takes them in, and behind the last of them the parked packets, in their order; then it owns the shards.
//!
//! So a flow is never in two tables, packets of a flow keep their order, and what peers know of it they go on knowing.
//!
//! On a standby it goes the same way, without packets: shards go home when it no longer leads, since that is where the
//! leader's word comes to. Until then their home takes none of it: a flow would be in two tables. Nor does it while a move from
//! there, which began when this appliance led, is not over: of a flow that it took then, the leader would count on what the
//! walk's end removes when the flow is back.

use crate::base::buffer::Buffer;
use crate::base::counters::Counter;
use crate::base::ids::{ShardId, Version};
use crate::base::io::Io;
use crate::base::limits::PARKED_PACKETS_MAX;
use crate::base::time::{Duration, Instant};
use crate::distributor::tell::Tell;
use crate::flow::aging::Mark;
use crate::flow::entry::FlowFlags;
use crate::flow::image::Image;
use crate::flow::shard::{Move, ShardSet};
use crate::flow::{Flow, FlowIndex};
use crate::mirror::moving::{Bond, Known, MovedEnd};
use crate::mirror::policy::Facts;
use crate::worker::Worker;
use crate::worker::arriving::Arriving;
use crate::worker::leaving::Leaving;
use crate::worker::message::{Event, Role};
use crate::worker::stages::{Giving as Stage, Happened, Step, step};

/// Places of the table looked at in one turn, or marked.
const PLACES_PER_TURN: u32 = 8192;
/// Flows that leave in one turn, in one cargo.
const FLOWS_PER_TURN: usize = 1024;
/// Strays are waited for so long; then the move is not begun.
const SETTLE_MAX: Duration = Duration::from_millis(500);
/// The mirror may take so long to become quiet; what is on its way then is told again by the new owner.
const FLUSH_MAX: Duration = Duration::from_millis(500);
/// Neighbours' link addresses are waited for so long.
const NEIGHBOUR_MAX: Duration = Duration::from_millis(50);

/// To a worker, of a move.
#[derive(Clone, Debug)]
pub enum MoveCommand {
    /// Gather the flows of these shards; answered by [`MoveEvent::Gathered`] or [`MoveEvent::Refused`]. Then count markers, and
    /// let the flows go when this many came.
    Gather {
        /// Which, and to whom.
        these: Move,
        /// Lcores that hand over packets, but for this one.
        markers: u16,
        /// They go home, since this appliance does not lead any more: whatever the mirror does.
        home: bool,
    },
    /// These shards come, with about so many flows: answered by [`MoveEvent::Expecting`] or [`MoveEvent::Refused`].
    Expect {
        /// Which, and from whom.
        these: Move,
        /// Flows.
        flows: u32,
        /// They come home: whether there is room or not.
        home: bool,
    },
    /// To the old owner: there is room for so many flows of the shards at the new one, and so there may be no more of them.
    Room(u32),
    /// Hand over packets of these shards to their new owner, and put a marker behind the last one to the old owner.
    Redirect(Move),
    /// The move will not be: the new owner has no room.
    Cancel,
    /// Some of the flows.
    Take(Box<Cargo>),
}

/// From a worker, of a move. None of them may be lost.
#[derive(Clone, Debug)]
pub enum MoveEvent {
    /// So many flows were found.
    Gathered {
        /// Flows.
        flows: u32,
    },
    /// Packets of the shards will be parked.
    Expecting {
        /// Room is kept for so many flows.
        room: u32,
    },
    /// It will not be.
    Refused(MoveRefusal),
    /// Some of the flows, for the new owner.
    Cargo(Box<Cargo>),
    /// The new owner has all of them, and handles their packets.
    Settled {
        /// Flows that came.
        flows: u32,
    },
}

/// Why a worker does not take part in a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveRefusal {
    /// It does not lead.
    Standby,
    /// Its shards are not these, or it is in another move.
    Otherwise,
    /// A peer has not been told of every flow.
    Walking,
    /// A peer has not acknowledged that it takes nothing more of what was taken for lost.
    Unacknowledged,
    /// The table has no room for so many flows.
    NoRoom,
}

/// Flows on their way from one worker to another one, in the order in which they left.
#[derive(Clone, Debug)]
pub struct Cargo {
    /// Of which move.
    pub these: Move,
    /// With the first flows: the shards.
    pub first: Option<Vec<MovedShard>>,
    /// Flows.
    pub flows: Vec<MovedFlow>,
    /// Behind the last flow.
    pub last: Option<Rest>,
}

/// A shard on its way.
#[derive(Clone, Debug)]
pub struct MovedShard {
    /// Which.
    pub shard: ShardId,
    /// Its newest version.
    pub version: Version,
    /// Under which session each peer was told of it.
    pub bonds: Vec<Option<Bond>>,
}

/// What comes behind the last flow.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// Ends that some peer has not acknowledged.
    pub ends: Vec<MovedEnd>,
    /// Source-NAT ports that rest, and until when.
    pub ports: Vec<(Image, Instant)>,
}

/// One flow on its way.
#[derive(Clone, Copy, Debug)]
pub struct MovedFlow {
    /// The flow, as its old owner had it.
    pub flow: Flow,
    pub(super) seen: Option<Mark>,
    pub(super) known: Known,
    pub(super) facts: Option<Facts>,
}

/// Shards that this worker gives away.
pub(super) struct Giving {
    these: Move,
    stage: Stage,
    /// Since when.
    since: Instant,
    home: bool,
    markers: u16,
    came: u16,
    flows: Leaving,
    /// More flows than these have no room at the new owner.
    room: usize,
    /// Places of resting ports that were looked at.
    looked: u32,
    ports: Vec<Image>,
    /// Places that were marked, and flows that left.
    done: usize,
    known: Vec<Known>,
    first: Option<Vec<MovedShard>>,
    ends: Vec<MovedEnd>,
}

/// The moves that this worker has a part in.
pub(super) struct Moving<B> {
    pub(super) giving: Option<Giving>,
    /// The shards of which flows that are made, and ports that come to rest, are to be noted.
    noted: ShardSet,
    pub(super) arriving: Option<Arriving<B>>,
    /// Whose marker is not in its ring yet.
    redirecting: Option<Move>,
    pub(super) parked_max: usize,
}

impl<B> Moving<B> {
    pub(super) fn new(parked_max: usize) -> Moving<B> {
        Moving {
            giving: None,
            noted: ShardSet::default(),
            arriving: None,
            redirecting: None,
            parked_max: parked_max.min(PARKED_PACKETS_MAX),
        }
    }

    /// Whether a new flow of a shard would take the room of one that is to come to this worker, or leave with the others and
    /// find none. `room`: flows that the table has room for.
    #[inline]
    pub(super) fn has_no_room(&self, shard: ShardId, room: usize) -> bool {
        self.arriving.as_ref().is_some_and(|arriving| room <= arriving.kept)
            || (self.noted.has(shard)
                && self.giving.as_ref().is_some_and(|giving| giving.flows.flows() >= giving.room))
    }

    /// A flow was made.
    #[inline]
    pub(super) fn note_made(&mut self, shard: ShardId, place: FlowIndex) {
        if self.noted.has(shard)
            && let Some(giving) = &mut self.giving
        {
            giving.flows.note_made(place);
        }
    }

    /// A flow ended.
    #[inline]
    pub(super) fn note_ended(&mut self, shard: ShardId, place: FlowIndex) {
        if self.noted.has(shard)
            && let Some(giving) = &mut self.giving
        {
            giving.flows.note_ended(place);
        }
    }

    /// A flow's source-NAT port came to rest.
    #[inline]
    pub(super) fn note_resting(&mut self, shard: ShardId, answers: Image) {
        if self.noted.has(shard)
            && let Some(giving) = &mut self.giving
        {
            giving.ports.push(answers);
        }
    }

    /// Whether a flow of this shard is on its way, and not to be ended.
    pub(super) fn is_in_transit(&self, shard: ShardId) -> bool {
        let leaves = |giving: &Giving| {
            matches!(giving.stage, Stage::Marking | Stage::Flushing | Stage::Sending)
                && giving.these.shards.has(shard)
        };
        self.giving.as_ref().is_some_and(leaves)
            || self.arriving.as_ref().is_some_and(|arriving| arriving.these.shards.has(shard))
    }

    /// The shards that this worker is about to give away.
    pub(super) fn given(&self) -> ShardSet {
        self.giving.as_ref().map(|giving| giving.these.shards).unwrap_or_default()
    }

    /// Whether something is on its way that peers may have to be told of.
    pub(super) fn is_busy(&self) -> bool {
        self.arriving.is_some()
            || self.giving.as_ref().is_some_and(|giving| match giving.stage {
                Stage::Gathering | Stage::Settling | Stage::Draining => false,
                Stage::Marking | Stage::Flushing | Stage::Sending => true,
            })
    }

    /// Whether there is something to do in every turn.
    pub(super) fn is_idle(&self) -> bool {
        self.redirecting.is_none()
            && self.arriving.as_ref().is_none_or(|arriving| !arriving.is_here())
            && self.giving.as_ref().is_none_or(|giving| giving.stage == Stage::Draining)
    }

    /// Lets all parked packets go.
    pub(super) fn drop_parked(&mut self, mut each: impl FnMut(B)) {
        if let Some(arriving) = &mut self.arriving {
            arriving.parked.drain(..).for_each(|parked| each(parked.packet));
        }
    }
}

impl<B: Buffer> Worker<B> {
    /// Handles what the master says of a move.
    pub(super) fn handle_move<I: Io<Buf = B>>(&mut self, now: Instant, command: MoveCommand, io: &mut I) {
        match command {
            MoveCommand::Gather { these, markers, home } => {
                if let Err(why) = self.begin_giving(now, these, markers, home) {
                    self.answer(Event::Move(MoveEvent::Refused(why)));
                }
            }
            MoveCommand::Expect { these, flows, home } => {
                let said = match self.expect(these, flows, home) {
                    Ok(room) => MoveEvent::Expecting { room },
                    Err(why) => MoveEvent::Refused(why),
                };
                self.answer(Event::Move(said));
            }
            MoveCommand::Room(room) => {
                if let Some(giving) = &mut self.moving.giving {
                    giving.room = room as usize;
                }
            }
            MoveCommand::Redirect(these) => {
                self.moving.redirecting = Some(these);
                self.redirect(io);
            }
            MoveCommand::Cancel => self.happened(now, Happened::Cancelled),
            MoveCommand::Take(cargo) => self.take(now, *cargo),
        }
    }

    fn begin_giving(
        &mut self,
        now: Instant,
        these: Move,
        markers: u16,
        home: bool,
    ) -> Result<(), MoveRefusal> {
        let owns = these.shards.iter().all(|shard| self.owners.of(shard) == self.id);
        if !owns || self.moving.giving.is_some() || self.moving.arriving.is_some() || these.to == self.id {
            return Err(MoveRefusal::Otherwise);
        }
        if !home && self.role == Role::Standby {
            return Err(MoveRefusal::Standby);
        }
        // It may lead by now.
        let home = home && self.role == Role::Standby;
        if !home && (self.mirror.is_walking() || self.quiesce.is_some()) {
            return Err(MoveRefusal::Walking);
        }
        self.moving.noted = these.shards;
        self.moving.giving = Some(Giving {
            these,
            stage: Stage::Gathering,
            since: now,
            home,
            markers,
            came: 0,
            flows: Leaving::new(these.shards),
            room: usize::MAX,
            looked: 0,
            ports: Vec::new(),
            done: 0,
            known: Vec::new(),
            first: None,
            ends: Vec::new(),
        });
        Ok(())
    }

    /// Puts the marker into the ring to the old owner, if there is room, and from then on hands over to the new one.
    fn redirect<I: Io<Buf = B>>(&mut self, io: &mut I) {
        let Some(these) = self.moving.redirecting else { return };
        if these.from != self.id && !io.mark(these.from, these.name()) {
            return; // The next turn tries again.
        }
        self.moving.redirecting = None;
        // Its own they are when they are here.
        if these.to != self.id {
            these.shards.iter().for_each(|shard| self.owners.set(shard, these.to));
        }
    }

    /// A marker came: behind it, its sender hands over nothing more of these shards.
    pub(super) fn note_marker(&mut self, now: Instant, name: ShardId) {
        let Some(giving) = &mut self.moving.giving else { return };
        if giving.these.name() == name {
            giving.came += 1;
            if giving.came >= giving.markers {
                self.happened(now, Happened::LastMarker);
            }
        }
    }

    /// The shard of the flow at a place, if it is on its way: then neither its packets are handled here nor is it ended.
    pub(super) fn on_its_way(&self, place: FlowIndex) -> Option<ShardId> {
        let hot = self.flows.table.hot(place).filter(|hot| hot.flags().contains(FlowFlags::MOVING))?;
        Some(hot.shard()).filter(|shard| self.moving.is_in_transit(*shard))
    }

    /// Once a turn.
    pub(super) fn poll_moving<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        self.poll_arriving(now, io);
        if self.moving.redirecting.is_some() {
            self.redirect(io);
        }
        let Some(giving) = &self.moving.giving else { return };
        match giving.stage {
            Stage::Gathering => self.gather(now),
            Stage::Settling => self.wait_for_strays(now),
            Stage::Draining => {
                if giving.came >= giving.markers {
                    self.happened(now, Happened::LastMarker);
                }
            }
            Stage::Marking => self.mark_flows(now),
            Stage::Flushing => self.wait_for_quiet(now),
            Stage::Sending => self.send_flows(now),
        }
    }

    fn happened(&mut self, now: Instant, happened: Happened) {
        let Some(giving) = &mut self.moving.giving else { return };
        match step(giving.stage, happened) {
            Step::Stay => {}
            Step::To(stage) => (giving.stage, giving.since) = (stage, now),
            Step::SayGathered => {
                giving.stage = Stage::Draining;
                let flows = giving.flows.flows() as u32;
                self.answer(Event::Move(MoveEvent::Gathered { flows }));
            }
            Step::LetGo => {
                (giving.stage, giving.done) = (Stage::Marking, 0);
                let these = giving.these;
                self.mirror.pass_over(these.shards);
                these.shards.iter().for_each(|shard| self.owners.set(shard, these.to));
            }
            Step::Part => self.part(now),
            Step::End => {
                self.moving.giving = None;
                self.moving.noted = ShardSet::default();
            }
        }
    }

    /// Looks for flows of the shards, and for ports of theirs that rest.
    fn gather(&mut self, now: Instant) {
        let Some(giving) = &mut self.moving.giving else { return };
        let shards = giving.these.shards;
        if giving.flows.look(&self.flows.table, PLACES_PER_TURN) {
            return;
        }
        let (from, end) = (giving.looked, self.flows.resting.places_end());
        if from < end {
            let to = end.min(from + PLACES_PER_TURN);
            let resting = (from..to).filter_map(|place| self.flows.resting.at(now, place));
            let may_be_theirs = |image: &Image| self.tables.may_rest_in(*image, &shards, &self.toeplitz);
            giving.ports.extend(resting.map(|(image, _)| image).filter(may_be_theirs));
            giving.looked = to;
            return;
        }
        self.happened(now, Happened::AllFound);
    }

    fn wait_for_strays(&mut self, now: Instant) {
        let Some(giving) = &self.moving.giving else { return };
        if giving.home || !self.mirror.may_have_strays(&giving.these.shards) {
            self.happened(now, Happened::NoStrays);
        } else if now - giving.since >= SETTLE_MAX {
            self.answer(Event::Move(MoveEvent::Refused(MoveRefusal::Unacknowledged)));
            self.happened(now, Happened::Cancelled);
        }
    }

    fn mark_flows(&mut self, now: Instant) {
        let Some(giving) = &mut self.moving.giving else { return };
        let slice = giving.flows.places().iter().skip(giving.done).take(PLACES_PER_TURN as usize);
        for place in slice {
            if self.flows.table.hot(*place).is_some_and(|hot| giving.these.shards.has(hot.shard())) {
                self.flows.table.set_flag(*place, FlowFlags::MOVING, true);
            }
        }
        giving.done += PLACES_PER_TURN as usize;
        if giving.done >= giving.flows.places().len() {
            self.happened(now, Happened::AllMarked);
        }
    }

    fn wait_for_quiet(&mut self, now: Instant) {
        let Some(giving) = &self.moving.giving else { return };
        let shards = giving.these.shards;
        let waited = now - giving.since;
        let holds = self.hold.packets() > 0 && self.hold.flows().any(|(shard, _)| shards.has(shard));
        let is_quiet = !holds && self.mirror.is_quiet(&shards) || waited >= FLUSH_MAX;
        if is_quiet && self.none_waits_for_neighbours(waited >= NEIGHBOUR_MAX) {
            self.happened(now, Happened::Quiet);
        }
    }

    /// Whether no packet to a neighbour of the flows that leave waits for its link address: it would leave behind those that
    /// the new owner sends. `gives_up`: such packets are dropped.
    fn none_waits_for_neighbours(&mut self, gives_up: bool) -> bool {
        let Some(giving) = &self.moving.giving else { return true };
        if self.adjacencies.waiting() == 0 {
            return true;
        }
        for place in giving.flows.places() {
            let Some(flow) = self.flows.table.get(*place) else { continue };
            if !giving.these.shards.has(flow.shard) {
                continue;
            }
            for adjacency in [flow.client_adjacency, flow.server_adjacency] {
                if gives_up {
                    let dropped = self.adjacencies.give_up(adjacency);
                    self.counters.add(Counter::DropNeighbour, dropped as u64);
                } else if self.adjacencies.has_waiting(adjacency) {
                    return false;
                }
            }
        }
        true
    }

    /// Reads what peers know, and says nothing more of the shards.
    fn part(&mut self, now: Instant) {
        let shards = self.moving.noted;
        // What could not be told in all this time begins anew at the new owner, and waits there.
        let held: Vec<_> = self.hold.flows().filter(|(shard, _)| shards.has(*shard)).collect();
        held.into_iter().for_each(|(_, place)| self.end_flow(now, place));
        self.end_those_without_room(now);
        let Some(mut giving) = self.moving.giving.take() else { return };
        let is_quiet = self.mirror.is_quiet(&shards);
        giving.flows.name_once(&self.flows.table);
        for place in giving.flows.places() {
            let Some(hot) = self.flows.table.hot(*place) else { continue };
            let shard = hot.shard();
            let known = self.mirror.standing_of(shard, *place, is_quiet);
            let flags = hot.flags();
            let of = self.flows.table.named(*place).map(|(_, names)| names.virtual_server);
            if self.mirror.listeners(shard, flags, of) & !known.flow != 0 {
                self.holds_since = now;
            }
            giving.known.push(known);
            self.mirror.flow_left(now, shard, *place);
        }
        self.mirror.pass_over(ShardSet::default());
        let heads = shards.iter().map(|shard| MovedShard {
            shard,
            version: self.flows.version(shard),
            bonds: self.mirror.bonds(shard),
        });
        giving.first = Some(heads.collect());
        for shard in shards.iter() {
            giving.ends.extend(self.mirror.part_with(shard));
            self.flows.own(shard, false);
        }
        (giving.stage, giving.done) = (Stage::Sending, 0);
        self.moving.giving = Some(giving);
    }

    /// Ends flows for which the new owner has no room, and tells peers so: the newest, made before its word came.
    fn end_those_without_room(&mut self, now: Instant) {
        let Some(giving) = &mut self.moving.giving else { return };
        let newest = giving.flows.take_newest(&self.flows.table, giving.room);
        self.counters.add(Counter::FlowsNotMoved, newest.len() as u64);
        newest.into_iter().for_each(|place| self.end_flow(now, place));
    }

    /// Lets some flows leave.
    fn send_flows(&mut self, now: Instant) {
        let Some(mut giving) = self.moving.giving.take() else { return };
        let from = giving.done;
        let places = giving.flows.places();
        let to = places.len().min(from + FLOWS_PER_TURN);
        let mut flows = Vec::with_capacity(to - from);
        for (place, known) in places[from..to].iter().zip(&giving.known[from..to]) {
            flows.extend(self.let_leave(*place, *known));
        }
        giving.done = to;
        let is_last = to == places.len();
        let rests = |image: &Image| {
            let until = self.flows.resting.until(now, *image)?;
            Some((*image, until))
        };
        let cargo = Cargo {
            these: giving.these,
            first: giving.first.take(),
            flows,
            last: is_last.then(|| Rest {
                ends: core::mem::take(&mut giving.ends),
                ports: giving.ports.iter().filter_map(rests).collect(),
            }),
        };
        self.moving.giving = Some(giving);
        self.answer(Event::Move(MoveEvent::Cargo(Box::new(cargo))));
        if is_last {
            self.happened(now, Happened::AllSent);
        }
    }

    fn let_leave(&mut self, place: FlowIndex, known: Known) -> Option<MovedFlow> {
        let seen = self.flows.last_seen.mark_of(place);
        let flow = self.flows.table.remove(place)?;
        let facts = self.chosen.of(place, flow.shard, flow.created);
        self.flows.last_seen.release(place);
        self.mirror.flow_is_gone(place);
        self.counts.remove(&flow);
        self.adjacencies.release(flow.client_adjacency);
        self.adjacencies.release(flow.server_adjacency);
        Some(MovedFlow { flow, seen, known, facts })
    }
}
