//! Shards that come to this worker (see [`moving`](super::moving)): it parks their packets, takes their flows in, and then
//! handles what it has parked, in its order.

use std::collections::VecDeque;

use crate::base::buffer::{Buffer, Handed};
use crate::base::counters::Counter;
use crate::base::ids::ShardId;
use crate::base::io::Io;
use crate::base::limits::ARRIVING_SPARE;
use crate::base::time::Instant;
use crate::distributor::tell::Tell;
use crate::flow::Flow;
use crate::flow::entry::FlowFlags;
use crate::flow::resting::RestingPlace;
use crate::flow::shard::Move;
use crate::flow::table::Insert;
use crate::mirror::moving::Bond;
use crate::worker::message::{Event, Role};
use crate::worker::moving::{Cargo, MoveEvent, MoveRefusal, MovedFlow, MovedShard, Rest};
use crate::worker::state::{Applier, push_resolve};
use crate::worker::{Origin, Worker};

/// A packet that waits for its flow.
pub(super) struct Parked<B> {
    pub(super) packet: B,
    /// Where it is from; a fragment in which its designated worker wrote the ports: another worker.
    origin: Origin,
    is_noted: bool,
}

/// Shards that this worker gets.
pub(super) struct Arriving<B> {
    pub(super) these: Move,
    pub(super) parked: VecDeque<Parked<B>>,
    bonds: Vec<(ShardId, Vec<Option<Bond>>)>,
    /// Restarts of mirror streams when the first flows came.
    restarts: u64,
    flows: u32,
    /// Room that is kept for flows which are to come.
    pub(super) kept: usize,
    stage: Stage,
}

/// How far they have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// More flows come.
    Coming,
    /// All are here. The next turn begins by hearing all that other lcores told before.
    Here,
    /// All are here, and what was told before is heard.
    Heard,
}

impl<B> Arriving<B> {
    /// Whether all of their flows are here.
    pub(super) fn is_here(&self) -> bool {
        self.stage != Stage::Coming
    }
}

impl<B: Buffer> Worker<B> {
    /// Makes ready for shards that are to come: for how many flows it keeps room, until they are here.
    pub(super) fn expect(&mut self, these: Move, flows: u32, home: bool) -> Result<u32, MoveRefusal> {
        if self.moving.giving.is_some() || self.moving.arriving.is_some() || these.to != self.id {
            return Err(MoveRefusal::Otherwise);
        }
        let room = self.flows.capacity() as usize - self.flows.table.len();
        // Some more may be made until they come.
        let more = flows as usize + flows as usize / 8;
        if !home && room < more {
            return Err(MoveRefusal::NoRoom);
        }
        // What is left is shared with flows that begin here.
        let spare = (room.saturating_sub(more) / 2).min(ARRIVING_SPARE);
        let kept = if home { 0 } else { more + spare };
        self.moving.arriving = Some(Arriving {
            these,
            parked: VecDeque::new(),
            bonds: Vec::new(),
            restarts: 0,
            flows: 0,
            kept,
            stage: Stage::Coming,
        });
        Ok(if home { u32::MAX } else { kept as u32 })
    }

    /// Gives a packet to the owner of its shard, who is another worker; or parks it, if that is to be this one. With what is
    /// said of it to the owner. `is_noted`: it is a fragment in which its designated worker wrote the ports.
    pub(super) fn give_to_owner<I: Io<Buf = B> + Tell>(
        &mut self,
        shard: ShardId,
        mut packet: B,
        handed: Handed,
        is_noted: bool,
        io: &mut I,
    ) {
        let owner = self.owners.of(shard);
        let Some(arriving) = &mut self.moving.arriving else {
            return self.pass_on(owner, packet, handed, io);
        };
        if !arriving.these.shards.has(shard) {
            return self.pass_on(owner, packet, handed, io);
        }
        if arriving.parked.len() >= self.moving.parked_max {
            return self.counters.bump(Counter::DropParkedFull);
        }
        self.counters.bump(Counter::Parked);
        packet.set_handed(handed);
        arriving.parked.push_back(Parked { packet, origin: self.origin, is_noted });
    }

    /// Takes in flows of shards that come.
    pub(super) fn take(&mut self, now: Instant, cargo: Cargo) {
        let Some(mut arriving) = self.moving.arriving.take() else { return };
        for MovedShard { shard, version, bonds } in cargo.first.into_iter().flatten() {
            if let Some(order) = self.flows.shard_mut(shard) {
                order.saw_version(version);
            }
            self.flows.own(shard, true);
            self.mirror.adopt(shard);
            if self.role == Role::Active {
                let holding = self.mirror.holding(shard, &bonds);
                self.mirror.begin_anew(shard, holding);
            }
            arriving.bonds.push((shard, bonds));
            arriving.restarts = self.mirror.restarts();
        }
        for moved in cargo.flows {
            let holding = match arriving.bonds.iter().find(|(shard, _)| *shard == moved.flow.shard) {
                Some((shard, bonds)) if arriving.restarts == self.mirror.restarts() => {
                    self.mirror.holding(*shard, bonds)
                }
                Some(_) | None => 0,
            };
            arriving.kept = arriving.kept.saturating_sub(1);
            arriving.flows += u32::from(self.take_in(now, &moved, holding));
        }
        if let Some(rest) = cargo.last {
            self.take_rest(now, &rest);
            arriving.stage = Stage::Here;
        }
        self.moving.arriving = Some(arriving);
    }

    /// Once a turn, behind its packets: if all flows have come, the shards are this worker's.
    pub(super) fn poll_arriving<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        let Some(arriving) = &mut self.moving.arriving else { return };
        match arriving.stage {
            Stage::Coming => return,
            Stage::Here => {
                arriving.stage = Stage::Heard;
                return;
            }
            Stage::Heard => {}
        }
        let Some(arriving) = self.moving.arriving.take() else { return };
        let these = arriving.these;
        self.mirror.arrived(&these.shards);
        these.shards.iter().for_each(|shard| self.owners.set(shard, self.id));
        self.counters.add(Counter::ShardsMoved, these.shards.len() as u64);
        self.counters.add(Counter::FlowsMoved, arriving.flows.into());
        let origin = self.origin;
        for Parked { packet, origin, is_noted } in arriving.parked {
            self.origin = origin;
            if is_noted {
                self.handle_parked_fragment(now, packet, io)
            } else {
                self.handle_packet(now, packet, io)
            }
        }
        self.origin = origin;
        self.answer(Event::Move(MoveEvent::Settled { flows: arriving.flows }));
    }

    /// Whether all shards that are home to this worker are here, with all their flows, and none of them is about to leave: what
    /// the leader says of it would be acknowledged here, and leave with it.
    pub(super) fn is_all_home(&self) -> bool {
        let stays = |shard| !self.flows.is_home(shard);
        self.moving.arriving.is_none() && self.flows.has_all_home() && self.moving.given().iter().all(stays)
    }

    /// Takes in a flow, unless the leader has said better; whether it did.
    fn take_in(&mut self, now: Instant, moved: &MovedFlow, holding: u8) -> bool {
        let flow = &moved.flow;
        let stands_by = self.role == Role::Standby;
        for key in [&flow.client, &flow.server] {
            let Some((place, _)) = self.flows.table.lookup(key) else { continue };
            let known = self.flows.table.changed(place).unwrap_or_default();
            if stands_by || known >= flow.changed {
                self.forget_keys_of_none(now, flow);
                return false;
            }
            if let Some(older) = self.flows.table.remove(place) {
                // It may be of another shard, if its traffic manager was chosen twice.
                self.mirror.flow_left(now, older.shard, place);
                self.flows.last_seen.release(place);
                self.counts.remove(&older);
                self.adjacencies.release(older.client_adjacency);
                self.adjacencies.release(older.server_adjacency);
            }
        }
        let flags = flow.flags.without(FlowFlags::HELD).with(FlowFlags::MOVING);
        let Insert::Done(place) = self.flows.table.insert(&Flow { flags, ..*flow }) else {
            self.counters.bump(Counter::FlowsNotMoved);
            self.forget_keys_of_none(now, flow);
            return false;
        };
        let Worker { flows, tables, toeplitz, placer, counters, adjacencies, counts, events, .. } = self;
        let mut applier = Applier {
            now,
            tables,
            toeplitz,
            workers: self.workers,
            worker: self.id,
            placer,
            counters,
            adjacencies,
            counts,
            resolve: |hop| push_resolve(events, hop),
        };
        applier.settle_in(flows, place, flow);
        self.watched.begin(place);
        if let Some(facts) = moved.facts {
            self.chosen.put(place, facts);
        }
        if let Some(seen) = moved.seen {
            self.flows.last_seen.mark(place, seen);
        }
        if self.mirror.listeners(flow.shard, flags, Some(flow.virtual_server)) & !(moved.known.flow & holding)
            != 0
        {
            self.holds_since = now;
        }
        self.mirror.flow_came(now, flow.shard, place, &self.flows.table, moved.known, holding);
        true
    }

    /// A flow that came is not taken in: its keys are forgotten, but for those that a flow has that is here.
    fn forget_keys_of_none(&mut self, now: Instant, flow: &Flow) {
        if flow.flags.contains(FlowFlags::REMEMBERED) {
            let mut keys = self.keys_elsewhere(flow);
            keys.retain(|key| self.flows.table.lookup(key).is_none());
            self.placer.forget(now, &keys, flow.shard);
        }
    }

    fn take_rest(&mut self, now: Instant, rest: &Rest) {
        for (image, until) in &rest.ports {
            self.flows.resting.rest_until(now, *image, *until);
        }
        for end in &rest.ends {
            let resting = match end.rests {
                true => self.flows.resting.wait(now, end.answers),
                false => RestingPlace::NONE,
            };
            if !self.mirror.end_came(now, end, self.flows.table.imager(), resting) {
                self.flows.resting.acknowledged(now, resting, end.answers);
            }
        }
    }
}
