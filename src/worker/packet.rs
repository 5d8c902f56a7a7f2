//! A packet's way through the worker (REQ E1, E2, C4).

use crate::base::buffer::{Buffer, Handed};
use crate::base::counters::Counter;
use crate::base::ids::ShardId;
use crate::base::io::{Io, Punt};
use crate::base::time::Instant;
use crate::distributor::classify::{Class, Here};
use crate::distributor::tell::Tell;
use crate::flow::entry::{ADJACENCY_UNKNOWN, FlowFlags};
use crate::flow::key::{Address, Key, TCP};
use crate::flow::layout::Hot;
use crate::flow::shard::owner_of;
use crate::flow::tcp_state::{Segment, Transition};
use crate::flow::{Direction, FlowIndex, Stamp};
use crate::mirror::hold::Held;
use crate::traffic::adjacency::Adjacencies;
use crate::traffic::forward::translate::{Translated, translate};
use crate::traffic::routes::Routes;
use crate::wire::parse::{Notes, Parsed};
use crate::wire::tcp;
use crate::worker::choosing;
use crate::worker::watching::{Verdict, judged};
use crate::worker::{HeldPacket, Origin, Worker};

impl<B: Buffer> Worker<B> {
    /// Any packet, whatever it is. A burst's stages, [`Worker::handle_burst`], do the same to the packets that they
    /// take upon them; tests hold them against this.
    pub fn handle_packet<I: Io<Buf = B> + Tell>(&mut self, now: Instant, packet: B, io: &mut I) {
        if self.origin != Origin::Port
            && let Handed::Marker(shard) = packet.handed()
        {
            return self.note_marker(now, shard);
        }
        let here = Here {
            link_addresses: &self.link_addresses,
            virtual_router: [self.virtual_v4, self.virtual_v6],
            services: &self.tables.services,
            toeplitz: &self.toeplitz,
            mirror: self.tables.mirror_port,
        };
        let (parsed, class) = match here.inspect(&packet) {
            Ok(found) => found,
            Err(counter) => return self.counters.bump(counter),
        };
        match class {
            Class::Liveness => io.punt(Punt::Liveness, packet),
            Class::Master => io.punt(Punt::Master, packet),
            Class::Mirror(worker) if worker == self.id => self.handle_mirror(now, packet, &parsed, io),
            Class::Mirror(worker) => self.pass_on(worker, packet, Handed::Plain, io),
            Class::Service { .. } | Class::Fragment { .. } | Class::Routed { .. } if !self.forwards => {
                self.take_straggler(now, packet, io);
            }
            Class::Fragment { designated } => {
                // Nothing but fragments is known there: it need not go with a shard that moves.
                let designated = owner_of(designated, self.workers);
                self.handle_fragment(now, packet, &parsed, designated, io);
            }
            Class::Service { key, shard } => {
                self.handle_placed(now, packet, &parsed, key, shard, io);
            }
            Class::Routed { shard } => self.handle_routed(now, packet, &parsed, shard, io),
            Class::Drop(counter) => self.counters.bump(counter),
        }
    }

    pub(super) fn pass_on<I: Io<Buf = B> + Tell>(
        &mut self,
        worker: crate::base::ids::WorkerId,
        mut packet: B,
        handed: Handed,
        io: &mut I,
    ) {
        self.counters.bump(Counter::HandedOver);
        packet.set_handed(handed);
        io.hand_over(worker, packet);
    }

    pub(super) fn handle_service<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        packet: B,
        parsed: &Parsed,
        key: Key,
        shard: ShardId,
        io: &mut I,
    ) {
        self.received += 1;
        // A later fragment has its ports from the first one, and nothing else: it neither changes a flow's state nor
        // begins a flow.
        let is_later = parsed.notes.has(Notes::FRAGMENT_LATER);
        let segment = (key.protocol == TCP && !is_later).then(|| segment_of(packet.head(), parsed));
        let Some((index, direction)) = self.flows.table.lookup(&key) else {
            if self.tables.services.routes(&key.src, &key.dst) {
                return self.route(now, packet, parsed, io);
            }
            if is_later {
                return self.counters.bump(Counter::DropNoFlow);
            }
            return self.handle_first(now, packet, parsed, key, shard, segment, io);
        };
        let verdict = match (segment, self.flows.table.get(index)) {
            (Some(_), Some(flow)) if flow.flags.contains(FlowFlags::REMEMBERED) => {
                if flow.flags.contains(FlowFlags::FROM_PEER) {
                    self.watched.begin(index);
                }
                let at = usize::from(parsed.l4_offset);
                self.watch(now, index, direction, (packet.head(), at, parsed.end().saturating_sub(at)))
            }
            _ => Verdict::Plain,
        };
        let is_awaited = |hot: &Hot| hot.flags().contains(FlowFlags::AWAITED);
        if !is_later && self.flows.table.hot(index).is_some_and(is_awaited) {
            self.await_payload(now, index, direction, choosing::payload(packet.head(), parsed), io);
        }
        let segment = segment.map(|segment| judged(segment, verdict));
        match self.see(now, index, direction, segment, ip_len(parsed)) {
            Seen::Gone => self.counters.bump(Counter::DropNoFlow),
            Seen::Reopened { .. } if is_later => self.counters.bump(Counter::DropNoFlow),
            Seen::Reopened { shard } => self.handle_first(now, packet, parsed, key, shard, segment, io),
            Seen::Forward { shard, adjacency, translated, held } => {
                let flow = (shard, index);
                self.forward(now, packet, parsed, &key, &translated, flow, held, adjacency, io);
                if verdict == Verdict::Last && !held && self.placer.can_wait(1) {
                    self.end_flow(now, index);
                }
            }
        }
    }

    /// Takes note of a packet of a known flow.
    fn see(
        &mut self,
        now: Instant,
        index: FlowIndex,
        direction: Direction,
        segment: Option<Segment>,
        bytes: u64,
    ) -> Seen {
        let term = self.mirror.standing().term;
        let Some(mut flow) = self.flows.table.get(index) else { return Seen::Gone };
        let shard = flow.shard;
        if flow.flags.contains(FlowFlags::FROM_PEER) {
            // What passed by the former active since its last record cannot be known.
            flow.tcp = flow.tcp.after_takeover();
            flow.flags = flow.flags.without(FlowFlags::FROM_PEER);
        }
        // It has arrived.
        flow.flags = flow.flags.without(FlowFlags::MOVING);
        let transition = match segment {
            Some(segment) => flow.tcp.on_segment(direction, segment),
            None => Transition::Unchanged,
        };
        let mut is_news = false;
        match transition {
            Transition::Reopen if !self.placer.can_wait(2) => return Seen::Gone,
            Transition::Reopen => {
                self.counters.bump(Counter::FlowsReopened);
                self.end_flow(now, index);
                return Seen::Reopened { shard };
            }
            Transition::To(state) if flow.tcp.is_same_to_peers(state) => flow.tcp = state,
            Transition::To(state) => {
                flow.tcp = state;
                is_news = true;
                flow.changed = Stamp { term, version: self.flows.next_version(flow.shard) };
            }
            Transition::Unchanged => {}
        }
        flow.packets += 1;
        flow.bytes += bytes;
        let translated = flow.translated(direction);
        let adjacency = match direction {
            Direction::FromClient => &mut flow.server_adjacency,
            Direction::FromServer => &mut flow.client_adjacency,
        };
        if *adjacency == ADJACENCY_UNKNOWN
            && let Some(known) = known_hop(&self.tables.routes, &mut self.adjacencies, translated.dst)
        {
            *adjacency = known;
        }
        let adjacency = *adjacency;
        self.flows.table.put(index, &flow);
        self.flows.last_seen.touch(index, flow.tcp.timeout_class(), now);
        if is_news && flow.is_mirrored() {
            self.mirror.flow_changed(now, flow.shard, index, false, &self.flows.table);
        }
        Seen::Forward { shard, adjacency, translated, held: flow.flags.contains(FlowFlags::HELD) }
    }

    /// Rewrites a packet of a flow and sends it, or lets it wait behind held ones.
    #[expect(clippy::too_many_arguments, reason = "a packet with all that is known of it")]
    pub(super) fn forward<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        mut packet: B,
        parsed: &Parsed,
        key: &Key,
        translated: &Key,
        flow: (ShardId, FlowIndex),
        held: bool,
        adjacency: u32,
        io: &mut I,
    ) {
        match translate(packet.head_mut(), parsed, key, translated) {
            Translated::Done => {}
            Translated::HopsExceeded => return self.counters.bump(Counter::DropHopsExceeded),
            Translated::Families => return self.counters.bump(Counter::DropFamilies),
        }
        if held {
            self.keep(now, packet, flow, adjacency);
        } else {
            self.emit(now, packet, adjacency, io);
        }
    }

    /// Holds a rewritten packet until its flow is known to the in-sync set.
    pub(super) fn keep(&mut self, now: Instant, packet: B, flow: (ShardId, FlowIndex), adjacency: u32) {
        match self.hold.hold(now, flow.0, flow.1, HeldPacket { packet, adjacency }) {
            Held::Yes => {
                self.flows.table.set_flag(flow.1, FlowFlags::HELD, true);
                self.counters.bump(Counter::Held);
            }
            Held::Full => self.counters.bump(Counter::DropHoldFull),
        }
    }
}

/// The next hop of a flow that came from a peer when there was no room for its neighbour.
#[cold]
fn known_hop<B>(routes: &Routes, adjacencies: &mut Adjacencies<B>, to: Address) -> Option<u32> {
    let index = adjacencies.index_of(routes.next_hop(to.ip())?)?;
    adjacencies.acquire(index);
    Some(index)
}

/// What a packet of a known flow leads to.
enum Seen {
    /// There is no such flow.
    Gone,
    /// The flow, of this shard, ended: the packet begins a new one.
    Reopened { shard: ShardId },
    /// It goes on with this key, to this neighbour, perhaps behind packets of its flow that are held.
    Forward { shard: ShardId, adjacency: u32, translated: Key, held: bool },
}

/// Bytes of the IP packet.
pub(super) fn ip_len(parsed: &Parsed) -> u64 {
    (parsed.end() - parsed.l3_offset()) as u64
}

pub(super) fn segment_of(head: &[u8], parsed: &Parsed) -> Segment {
    let flags = head.get(usize::from(parsed.l4_offset) + tcp::FLAGS).copied().unwrap_or(0);
    Segment::from_flags(flags)
}
