//! The first packet of a flow: virtual server, pool, real server, source-NAT
//! port, new flow with both keys (REQ C1, C3, C4).
//!
//! In two steps. What the flow will be is decided from the configuration alone ([`Worker::decide`]); then it is made
//! ([`Worker::make`]), which looks at the table, the ports and the neighbours. Before each of them a burst asks for the memory
//! that it will look at, and does other work meanwhile ([`Worker::note_first`], [`Worker::decide_noted`],
//! [`Worker::make_noted`]).

use crate::base::buffer::Buffer;
use crate::base::counters::Counter;
use crate::base::ids::ShardId;
use crate::base::io::Io;
use crate::base::time::Instant;
use crate::distributor::tell::Tell;
use crate::flow::entry::FlowFlags;
use crate::flow::image::Image;
use crate::flow::index::Spot;
use crate::flow::key::{Key, UDP};
use crate::flow::ports::{Allocation, Draw, Wanted};
use crate::flow::table::{Insert, Probe};
use crate::flow::tcp_state::Segment;
use crate::flow::{Direction, Flow, FlowIndex, Stamp, TcpState};
use crate::mirror::policy::FirstPacket;
use crate::traffic::forward::translate::{Translated, has_hops, translate};
use crate::wire::parse::Parsed;
use crate::worker::Worker;
use crate::worker::choosing;
use crate::worker::packet::ip_len;
use crate::worker::tables::{Backend, Listener, Tables};

/// A flow to be: all that is decided before any memory of flows is touched.
#[derive(Clone, Copy)]
pub(super) struct Coming {
    client: Key,
    probe: Probe,
    shard: ShardId,
    /// The virtual server's place in the configuration.
    listener: usize,
    /// What the balancer chooses by.
    hash: u64,
    /// The real server's place in its pool; `None`: none was chosen, or not yet.
    server: Option<usize>,
    draw: Draw,
}

impl Coming {
    fn of<'a>(&self, tables: &'a Tables) -> Result<(&'a Listener, &'a Backend), Counter> {
        let listener = &tables.listeners[self.listener];
        let server = self.server.ok_or(listener.refusal)?;
        Ok((listener, &tables.backends[listener.pool][server]))
    }
}

/// A flow that was made.
struct Made {
    index: FlowIndex,
    flow: Flow,
    /// Its first packet waits.
    holds: bool,
}

impl<B: Buffer> Worker<B> {
    #[expect(clippy::too_many_arguments, reason = "a packet with all that is known of it")]
    pub(super) fn handle_first<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        packet: B,
        parsed: &Parsed,
        key: Key,
        shard: ShardId,
        segment: Option<Segment>,
        io: &mut I,
    ) {
        // A flow is made only if its first packet goes on: a later one would overtake the
        // acknowledgement that the first should have waited for.
        if !has_hops(packet.head(), parsed) {
            return self.counters.bump(Counter::DropHopsExceeded);
        }
        let Some(listener) = self.tables.services.listener(key.dst, key.dst_port, key.protocol) else {
            let ours = self.tables.services.whose(&key.dst).is_some();
            return self.counters.bump(if ours { Counter::DropNoListener } else { Counter::DropNoFlow });
        };
        if segment.is_some_and(|segment| !segment.may_begin_flow()) {
            return self.counters.bump(Counter::DropNoFlow);
        }
        if self.begins_none() {
            // Ports are written into a fragment, and later ones cannot wait for it: it would reach the successor alone.
            return match parsed.is_fragment() {
                true => self.counters.bump(Counter::DropQuiescing),
                false => self.gather_straggler(now, packet),
            };
        }
        let probe = self.flows.table.probe(&key);
        let mut coming = self.coming(key, probe, shard, listener);
        self.decide(&mut coming);
        let has_rules = self.tables.listeners[listener].policy.is_some();
        let first = has_rules.then(|| choosing::first_packet(packet.head(), parsed));
        match self.make(now, &coming, (1, ip_len(parsed)), first) {
            Ok(Made { index, flow, holds }) => {
                match self.remember(now, index, &flow, io) {
                    Ok(true) if segment.is_some() => {
                        let at = usize::from(parsed.l4_offset);
                        let segment = (packet.head(), at, parsed.end().saturating_sub(at));
                        self.watch(now, index, Direction::FromClient, segment);
                    }
                    Ok(_) => {}
                    Err(counter) => return self.counters.bump(counter),
                }
                let (translated, adjacency) = (flow.server.reversed(), flow.server_adjacency);
                if holds {
                    let mut packet = packet;
                    match translate(packet.head_mut(), parsed, &key, &translated) {
                        Translated::Done => self.keep(now, packet, (shard, index), adjacency),
                        Translated::HopsExceeded => self.counters.bump(Counter::DropHopsExceeded),
                        Translated::Families => self.counters.bump(Counter::DropFamilies),
                    }
                } else {
                    let flow = (shard, index);
                    self.forward(now, packet, parsed, &key, &translated, flow, false, adjacency, io);
                }
            }
            Err(counter) => self.counters.bump(counter),
        }
    }

    /// Notes a packet that may begin a flow, over IPv4, and asks for the memory that making it will touch; its number in
    /// the burst, from 1. `None`: this packet goes the way of all others.
    pub(super) fn note_first(&mut self, image: Image, spot: Spot) -> Option<u8> {
        let ends = image.v4_endpoints();
        let listener = self.tables.services.listener_v4(ends, image.v4_protocol())?;
        let is_plain = self.placer.is_plain(listener);
        let of = &self.tables.listeners[listener];
        // What its rules ask for is in the packet.
        if self.begins_none() || of.waits || of.policy.is_some() || !is_plain {
            return None;
        }
        let key = image.v4_key()?;
        let shard = self.toeplitz.shard_of(key.src, key.src_port);
        if self.owners.of(shard) != self.id {
            return None;
        }
        let coming = self.coming(key, Probe::at(image, spot), shard, listener);
        self.tables.balancers[self.tables.listeners[listener].pool].prefetch(coming.hash);
        self.coming.push(coming);
        u8::try_from(self.coming.len()).ok()
    }

    /// Decides what the flows of noted packets will be, from one of them on, and asks for the memory that making them will
    /// touch; how many there are.
    pub(super) fn decide_noted(&mut self, from: usize) -> usize {
        for at in from..self.coming.len() {
            let mut coming = self.coming[at];
            self.decide(&mut coming);
            self.coming[at] = coming;
            let Ok((listener, backend)) = coming.of(&self.tables) else { continue };
            let wanted = wanted(&coming, listener, backend);
            let answers = match listener.source_nat.is_empty() {
                true => Some(wanted.server_key(coming.client.src, coming.client.src_port)),
                false => self.flows.ports.first_choice(coming.draw, &wanted),
            };
            if let Some(answers) = answers {
                self.flows.prefetch_taken(&answers);
            }
            // All before `from` are made by now.
            let place = self.flows.table.prefetch_new(at - from);
            self.flows.last_seen.prefetch(place);
        }
        self.coming.len()
    }

    /// Makes the flow of a packet that was noted; the packet is then forwarded, and counted, as any of a known flow. `None`:
    /// it goes the way of all others.
    pub(super) fn make_noted(&mut self, now: Instant, number: u8) -> Option<Result<FlowIndex, Counter>> {
        let coming = *self.coming.get(usize::from(number).checked_sub(1)?)?;
        if self.flows.table.has(&coming.probe, &coming.client) {
            return None; // An earlier packet of the burst made it.
        }
        Some(self.make(now, &coming, (0, 0), None).map(|made| made.index))
    }

    /// A flow to be, nothing of which is decided.
    fn coming(&mut self, client: Key, probe: Probe, shard: ShardId, listener: usize) -> Coming {
        let hash = client.shared_hash(&self.balance_secret);
        Coming { client, probe, shard, listener, hash, server: None, draw: Draw::new(&mut self.rng) }
    }

    /// Decides what a flow will be.
    fn decide(&mut self, coming: &mut Coming) {
        let balancer = &mut self.tables.balancers[self.tables.listeners[coming.listener].pool];
        coming.server = balancer.choose(coming.hash);
    }

    /// Makes a flow, of which so many packets and bytes were counted. `first`: if its virtual server has rules.
    fn make(
        &mut self,
        now: Instant,
        coming: &Coming,
        counted: (u64, u64),
        first: Option<FirstPacket<'_>>,
    ) -> Result<Made, Counter> {
        let (listener, backend) = coming.of(&self.tables)?;
        let choice = Tables::choice(listener, now, (&coming.client, backend.port), counted, first);
        let mut flags = listener.flags;
        if let Some((facts, decision)) = &choice {
            let awaited = if facts.awaits_payload() { FlowFlags::AWAITED } else { FlowFlags::NONE };
            let left_out = if decision.mirror { FlowFlags::NONE } else { FlowFlags::MIRRORED };
            flags = flags.with(awaited).without(left_out);
        }
        let holds = listener.waits && flags.contains(FlowFlags::MIRRORED) && !self.in_sync.is_empty();
        if holds && !self.hold.has_room() {
            return Err(Counter::DropHoldFull);
        }
        let room = self.flows.capacity() as usize - self.flows.table.len();
        if self.moving.has_no_room(coming.shard, room) {
            return Err(Counter::DropTableFull);
        }
        let client = coming.client;
        let to_client = self.tables.routes.next_hop(client.src.ip()).ok_or(Counter::DropNoRoute)?;
        let answers = self.server_key(now, coming, listener, backend)?;
        let tcp = if client.protocol == UDP { TcpState::Datagram } else { TcpState::SynSeen };
        let mut flow = Flow::new(client, answers, tcp);
        flow.client_adjacency = self.adjacencies.index_of(to_client).ok_or(Counter::DropNeighbour)?;
        flow.server_adjacency = match backend.adjacency {
            Some(index) => index,
            None => {
                let hop = self.tables.routes.next_hop(backend.address.ip()).ok_or(Counter::DropNoRoute)?;
                self.adjacencies.index_of(hop).ok_or(Counter::DropNeighbour)?
            }
        };
        if self.adjacencies.hop(flow.client_adjacency) != Some(to_client) {
            // No flow used it until now, and the server's hop took its place.
            return Err(Counter::DropNeighbour);
        }
        flow.virtual_server = listener.id;
        flow.pool = listener.pool_id;
        flow.server_id = backend.id;
        flow.flags = flags;
        (flow.packets, flow.bytes) = counted;
        flow.shard = coming.shard;
        let term = self.mirror.standing().term;
        flow.created = self.flows.next_version(coming.shard);
        flow.changed = Stamp { term, version: flow.created };
        let probes = [coming.probe, self.flows.table.probe(&answers)];
        match self.flows.table.insert_probed(&flow, &probes) {
            Insert::Done(index) => {
                self.flows.last_seen.touch(index, flow.tcp.timeout_class(), now);
                self.counts.add(&flow);
                self.moving.note_made(flow.shard, index);
                self.adjacencies.acquire(flow.client_adjacency);
                self.adjacencies.acquire(flow.server_adjacency);
                self.counters.bump(Counter::FlowsMade);
                if let Some((facts, _)) = choice {
                    self.chosen.put(index, facts.named(flow.shard, flow.created));
                }
                if flow.flags.contains(FlowFlags::MIRRORED) {
                    self.mirror.flow_changed(now, coming.shard, index, holds, &self.flows.table);
                }
                Ok(Made { index, flow, holds })
            }
            Insert::Full => Err(Counter::DropTableFull),
            Insert::ClientKeyTaken | Insert::ServerKeyTaken => Err(Counter::DropKeyTaken),
        }
    }

    /// The key that the server's packets will carry.
    fn server_key(
        &self,
        now: Instant,
        coming: &Coming,
        listener: &Listener,
        backend: &Backend,
    ) -> Result<Key, Counter> {
        let wanted = wanted(coming, listener, backend);
        if listener.source_nat.is_empty() {
            return Ok(wanted.server_key(coming.client.src, coming.client.src_port));
        }
        let in_use = |key: &Key| self.flows.is_taken(now, key);
        match self.flows.ports.allocate(now, coming.draw, &wanted, in_use) {
            Allocation::Port(address, port) => Ok(wanted.server_key(address, port)),
            Allocation::Exhausted => Err(Counter::DropPortsExhausted),
        }
    }
}

/// What a flow wants of source NAT.
fn wanted<'a>(coming: &Coming, listener: &'a Listener, backend: &Backend) -> Wanted<'a> {
    Wanted {
        shard: coming.shard,
        snat: &listener.source_nat,
        server: backend.address,
        server_port: backend.port,
        protocol: coming.client.protocol,
        vlan: 0,
    }
}
