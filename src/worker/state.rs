//! What the mirror's outcomes do to held packets and source-NAT ports, and what records of a peer do here.

use arrayvec::ArrayVec;

use crate::base::buffer::Buffer;
use crate::base::counters::{Counter, Counters};
use crate::base::ids::ShardId;
use crate::base::io::Io;
use crate::base::time::{Duration, Instant};
use crate::distributor::place::Placer;
use crate::distributor::services::{Services, Whose, number};
use crate::distributor::tell::Tell;
use crate::flow::entry::FlowFlags;
use crate::flow::flows::Flows;
use crate::flow::shard::owner_of;
use crate::flow::toeplitz::Toeplitz;
use crate::flow::{Flow, FlowIndex, Key};
use crate::mirror::Outcome;
use crate::mirror::receiver::Effects;
use crate::mirror::record::{FlowState, Refusal};
use crate::traffic::adjacency::Adjacencies;
use crate::traffic::counts::Counts;
use crate::traffic::routes::NextHop;
use crate::worker::Worker;
use crate::worker::message::Event;
use crate::worker::placing::keys_elsewhere;
use crate::worker::tables::Tables;

/// Between two looks at packets held too long.
const OVERDUE_INTERVAL: Duration = Duration::from_millis(10);

impl<B: Buffer> Worker<B> {
    pub(super) fn poll_mirror(&mut self, now: Instant) {
        let Worker { mirror, flows, tables, toeplitz, placer, adjacencies, counts, events, .. } = self;
        let mut applier = Applier {
            now,
            tables,
            toeplitz,
            workers: self.workers,
            worker: self.id,
            placer,
            counters: &self.counters,
            adjacencies,
            counts,
            resolve: |hop| push_resolve(events, hop),
        };
        mirror.poll(now, flows, &mut applier);
    }

    /// Acts on what came of what was sent.
    pub(super) fn settle<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        let mut outcomes = self.mirror.take_outcomes();
        for outcome in outcomes.drain(..) {
            match outcome {
                Outcome::Known { shard, flow, since } => {
                    self.protection_latency.add(now - since);
                    self.release_answered(now, shard, flow, io);
                }
                // The flow goes on unprotected, once all others know it; the peer says why in its counters.
                Outcome::Refused { shard, flow } => self.release_answered(now, shard, flow, io),
                Outcome::Departed(port) => self.flows.resting.acknowledged(now, port.place, port.image),
                Outcome::Differs { peer, shard, is_news: true } => self.say(Event::Differs { peer, shard }),
                Outcome::Differs { .. } => {}
            }
        }
        self.mirror.give_back(outcomes);
    }

    fn release_answered<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        shard: ShardId,
        flow: FlowIndex,
        io: &mut I,
    ) {
        if self.hold.packets() > 0 && self.mirror.is_answered_by(&self.in_sync, shard, flow) {
            self.release(now, shard, flow, io);
        }
    }

    /// A peer begins anew: flows whose packets wait are said first, not when the walk names them.
    pub(super) fn say_held_again(&mut self, now: Instant) {
        if self.mirror.take_restarted() {
            for (shard, flow) in self.hold.flows() {
                self.mirror.flow_changed(now, shard, flow, true, &self.flows.table);
            }
        }
    }

    /// Lets go what no longer has to wait: the in-sync set changed.
    pub(super) fn release_known<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        let known: Vec<_> = self
            .hold
            .flows()
            .filter(|(shard, flow)| self.mirror.is_answered_by(&self.in_sync, *shard, *flow))
            .collect();
        for (shard, flow) in known {
            self.release(now, shard, flow, io);
        }
    }

    pub(super) fn release<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        shard: ShardId,
        flow: FlowIndex,
        io: &mut I,
    ) {
        if !self.hold.holds(shard, flow) {
            return;
        }
        self.flows.table.set_flag(flow, FlowFlags::HELD, false);
        let mut released = std::mem::take(&mut self.released);
        if let Some(waited) = self.hold.release(now, shard, flow, |packet| released.push(packet)) {
            self.held_for.add(waited);
        }
        for held in released.drain(..) {
            self.emit(now, held.packet, held.adjacency, io);
        }
        self.released = released;
    }

    /// Says which peer keeps a packet waiting for too long.
    pub(super) fn check_overdue(&mut self, now: Instant) {
        if now < self.overdue_at {
            return;
        }
        let Some((shard, flow, since)) = self.hold.oldest() else { return };
        if now - since < self.hold_timeout {
            return;
        }
        self.overdue_at = now + OVERDUE_INTERVAL;
        self.counters.bump(Counter::HoldTimeouts);
        let lagging: Vec<_> = self.mirror.lagging(&self.in_sync, shard, flow).collect();
        for peer in lagging {
            self.say(Event::HoldOverdue { peer });
        }
    }
}

pub(super) fn push_resolve(events: &mut std::collections::VecDeque<Event>, hop: NextHop) {
    if events.len() < super::EVENTS_MAX {
        events.push_back(Event::Resolve { hop });
    }
}

/// What records of a peer do to this worker besides its tables.
pub(super) struct Applier<'a, B, F> {
    pub(super) now: Instant,
    pub(super) tables: &'a Tables,
    pub(super) toeplitz: &'a Toeplitz,
    pub(super) workers: u16,
    pub(super) worker: crate::base::ids::WorkerId,
    pub(super) placer: &'a mut Placer,
    pub(super) counters: &'a Counters,
    pub(super) adjacencies: &'a mut Adjacencies<B>,
    pub(super) counts: &'a mut Counts,
    pub(super) resolve: F,
}

impl<B, F: FnMut(NextHop)> Applier<'_, B, F> {
    /// A standby resolves its flows' neighbours before it needs them.
    fn neighbour(&mut self, address: core::net::IpAddr) -> u32 {
        let Some(hop) = self.tables.routes.next_hop(address) else { return u32::MAX };
        let Some(index) = self.adjacencies.index_of(hop) else { return u32::MAX };
        if let crate::traffic::adjacency::Resolution::Unknown { ask: true } =
            self.adjacencies.resolve(self.now, index)
        {
            (self.resolve)(hop);
        }
        index
    }

    /// A flow is here from now on: its neighbours keep their places.
    pub(super) fn settle_in(&mut self, flows: &mut Flows, index: FlowIndex, flow: &Flow) {
        // Taken one by one, so that the second cannot be given the place of the first.
        let client = self.neighbour(flow.client.src.ip());
        self.adjacencies.acquire(client);
        let server = self.neighbour(flow.server.src.ip());
        self.adjacencies.acquire(server);
        if let Some(hot) = flows.table.hot_mut(index) {
            hot.set_adjacencies(client, server);
        }
        self.counts.add(flow);
    }

    fn keys_elsewhere(&self, flow: &Flow) -> ArrayVec<Key, 2> {
        let keys = [&flow.client, &flow.server];
        keys_elsewhere(self.placer, flow.shard, keys, &self.tables.services, self.toeplitz)
    }

    /// The packets of both directions of a flow find their way to its shard: by hash or, where keys are remembered, by the
    /// connection store. A source-NAT port is always of its flow's shard.
    fn belongs(&self, shard: ShardId, client: &Key, server: &Key) -> bool {
        let services = &self.tables.services;
        let elsewhere = keys_elsewhere(self.placer, shard, [client, server], services, self.toeplitz);
        let is_full_nat = services.whose(&server.dst) == Some(Whose::SourceNat);
        elsewhere.is_empty() || (self.placer.is_in_use() && !(is_full_nat && elsewhere.contains(server)))
    }

    /// Before this appliance takes over, its distributors know what is not where its hash leads.
    fn remember(&mut self, flows: &mut Flows, index: FlowIndex, flow: &Flow) {
        // Where nothing is remembered, `check` takes no flow whose keys are elsewhere.
        if !self.placer.is_in_use() {
            return;
        }
        let keys = self.keys_elsewhere(flow);
        if keys.is_empty() {
            return;
        }
        match self.placer.hold(self.now, &keys, flow.shard) {
            Ok(()) => flows.table.set_flag(index, FlowFlags::REMEMBERED, true),
            Err(_) => self.counters.bump(Counter::KeysRefused),
        }
    }
}

impl<B, F: FnMut(NextHop)> Effects for Applier<'_, B, F> {
    fn check(&self, shard: ShardId, flow: &FlowState) -> Result<(), Refusal> {
        let services: &Services = &self.tables.services;
        let place = services.by_id(flow.virtual_server).ok_or(Refusal::UnknownService)?;
        let server = self.tables.virtual_server(place);
        let listens = flow.client.dst == server.address.into()
            && flow.client.dst_port == server.port
            && flow.client.protocol == number(server.protocol);
        if !listens {
            return Err(Refusal::UnknownService);
        }
        let sound = flow.server.protocol == flow.client.protocol
            && flow.client.src.is_v4() == flow.client.dst.is_v4()
            && flow.server.src.is_v4() == flow.client.src.is_v4()
            && flow.server.dst.is_v4() == flow.client.src.is_v4()
            && self.belongs(shard, &flow.client, &flow.server)
            && owner_of(shard, self.workers) == self.worker;
        if !sound {
            return Err(Refusal::Inconsistent);
        }
        // What could not be forwarded here must not count as protected.
        if !self.placer.may_hold() {
            return Err(Refusal::TableFull);
        }
        let routes = &self.tables.routes;
        let reached = [flow.client.src, flow.server.src].map(|to| routes.next_hop(to.ip()).is_some());
        if reached == [true, true] { Ok(()) } else { Err(Refusal::UnknownService) }
    }

    fn made(&mut self, flows: &mut Flows, index: FlowIndex, flow: &Flow) {
        self.settle_in(flows, index, flow);
        flows.last_seen.touch(index, flow.tcp.after_takeover().timeout_class(), self.now);
        self.remember(flows, index, flow);
    }

    fn changed(&mut self, flows: &mut Flows, index: FlowIndex) {
        let Some(flow) = flows.table.get(index) else { return };
        flows.last_seen.touch(index, flow.tcp.after_takeover().timeout_class(), self.now);
    }

    fn removed(&mut self, flows: &mut Flows, place: FlowIndex, flow: &Flow) {
        if flow.flags.contains(FlowFlags::REMEMBERED) {
            self.placer.forget(self.now, &self.keys_elsewhere(flow), flow.shard);
        }
        flows.last_seen.release(place);
        self.counts.remove(flow);
        self.adjacencies.release(flow.client_adjacency);
        self.adjacencies.release(flow.server_adjacency);
        if flow.is_full_nat() {
            // The leader waits for acknowledgements; here a rest covers what is in flight.
            flows.rest(self.now, flow.shard, &flow.server);
        }
    }

    fn may_remove(&self) -> bool {
        self.placer.can_wait(1)
    }
}
