//! The first packet of a flow: virtual server, pool, real server, source-NAT
//! port, new flow with both keys (REQ C1, C3, C4).

use crate::base::buffer::Buffer;
use crate::base::counters::Counter;
use crate::base::ids::ShardId;
use crate::base::io::Io;
use crate::base::time::Instant;
use crate::config::checked::{Commit, MirrorMode};
use crate::flow::entry::FlowFlags;
use crate::flow::key::{Address, Key, UDP};
use crate::flow::ports::{Allocation, Wanted};
use crate::flow::table::Insert;
use crate::flow::tcp_state::Segment;
use crate::flow::{Flow, FlowIndex, Stamp, TcpState};
use crate::traffic::forward::translate::{Translated, has_hops, translate};
use crate::wire::parse::Parsed;
use crate::worker::Worker;
use crate::worker::packet::ip_len;

impl<B: Buffer> Worker<B> {
    #[expect(clippy::too_many_arguments, reason = "a packet with all that is known of it")]
    pub(super) fn handle_first<I: Io<Buf = B>>(
        &mut self,
        now: Instant,
        packet: B,
        parsed: &Parsed,
        key: Key,
        shard: ShardId,
        segment: Option<Segment>,
        io: &mut I,
    ) {
        if self.quiesce.is_some() {
            return self.counters.bump(Counter::DropQuiescing);
        }
        // A flow is made only if its first packet goes on: a later one would overtake the
        // acknowledgement that the first should have waited for.
        if !has_hops(packet.head(), parsed) {
            return self.counters.bump(Counter::DropHopsExceeded);
        }
        match self.make_flow(now, key, shard, segment, ip_len(parsed)) {
            Ok((index, place, flow)) => {
                let (translated, adjacency) = (flow.server.reversed(), flow.server_adjacency);
                let holds = flow.is_mirrored() && self.holds_first(place);
                if flow.is_mirrored() {
                    self.mirror.flow_changed(now, shard, index, holds);
                }
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

    /// Whether first packets of a virtual server wait for the in-sync members.
    fn holds_first(&self, place: usize) -> bool {
        self.tables.virtual_server(place).mirror == MirrorMode::Checkpoint(Commit::Hold)
            && self.tables.is_mirrored(place)
            && !self.in_sync.is_empty()
    }

    /// Makes the flow of a first packet; its place, that of its virtual server, and the flow.
    fn make_flow(
        &mut self,
        now: Instant,
        client: Key,
        id: ShardId,
        segment: Option<Segment>,
        bytes: u64,
    ) -> Result<(FlowIndex, usize, Flow), Counter> {
        let listener = self.tables.services.listener(client.dst, client.dst_port, client.protocol);
        let Some(place) = listener else {
            let ours = self.tables.services.whose(&client.dst).is_some();
            return Err(if ours { Counter::DropNoListener } else { Counter::DropNoFlow });
        };
        if segment.is_some_and(|segment| !segment.may_begin_flow()) {
            return Err(Counter::DropNoFlow);
        }
        let (virtual_id, pool) = {
            let server = self.tables.virtual_server(place);
            (server.id, server.pool)
        };
        if self.holds_first(place) && !self.hold.has_room() {
            return Err(Counter::DropHoldFull);
        }
        let hash = client.shared_hash(&self.balance_secret);
        let chosen = self.tables.balancers[pool].choose(hash).ok_or(Counter::DropNoServer)?;
        let config = &self.tables.snapshot.checked;
        let (pool_id, server) = (config.pools[pool].id, &config.pools[pool].servers[chosen]);
        let (server_id, server_address, server_port) = (server.id, server.address, server.port);
        let to_client = self.tables.routes.next_hop(client.src.ip()).ok_or(Counter::DropNoRoute)?;
        let to_server = self.tables.routes.next_hop(server_address).ok_or(Counter::DropNoRoute)?;
        let server_key = self.server_key(now, &client, id, place, server_address.into(), server_port)?;
        let mut flow = Flow::new(
            client,
            server_key,
            if client.protocol == UDP { TcpState::Datagram } else { TcpState::SynSeen },
        );
        flow.client_adjacency = self.adjacencies.index_of(to_client).ok_or(Counter::DropNeighbour)?;
        flow.server_adjacency = self.adjacencies.index_of(to_server).ok_or(Counter::DropNeighbour)?;
        if self.adjacencies.hop(flow.client_adjacency) != Some(to_client) {
            // No flow used it until now, and the server's hop took its place.
            return Err(Counter::DropNeighbour);
        }
        flow.virtual_server = virtual_id;
        flow.pool = pool_id;
        flow.server_id = server_id;
        (flow.packets, flow.bytes) = (1, bytes);
        if self.tables.is_mirrored(place) {
            flow.flags = flow.flags.with(FlowFlags::MIRRORED);
        }
        if !self.tables.source_nat[place].is_empty() {
            flow.flags = flow.flags.with(FlowFlags::FULL_NAT);
        }
        flow.shard = id;
        let term = self.mirror.standing().term;
        flow.created = self.flows.next_version(id);
        flow.changed = Stamp { term, version: flow.created };
        match self.flows.table.insert(&flow) {
            Insert::Done(index) => {
                self.flows.last_seen.touch(index, flow.tcp.timeout_class(), now);
                self.counts.add(&flow);
                self.adjacencies.acquire(flow.client_adjacency);
                self.adjacencies.acquire(flow.server_adjacency);
                self.counters.bump(Counter::FlowsMade);
                Ok((index, place, flow))
            }
            Insert::Full => Err(Counter::DropTableFull),
            Insert::ClientKeyTaken | Insert::ServerKeyTaken => Err(Counter::DropKeyTaken),
        }
    }

    /// The key that the server's packets will carry.
    fn server_key(
        &mut self,
        now: Instant,
        client: &Key,
        id: ShardId,
        place: usize,
        server: Address,
        server_port: u16,
    ) -> Result<Key, Counter> {
        let snat = &self.tables.source_nat[place];
        let wanted = Wanted { snat, server, server_port, protocol: client.protocol, vlan: 0 };
        if snat.is_empty() {
            return Ok(wanted.server_key(client.src, client.src_port));
        }
        let shard = self.flows.shard(id).ok_or(Counter::DropNoFlow)?;
        let in_use = |key: &Key| self.flows.table.lookup(key).is_some();
        match shard.ports.allocate(now, &mut self.rng, &wanted, in_use) {
            Allocation::Port(address, port) => Ok(wanted.server_key(address, port)),
            Allocation::Exhausted => Err(Counter::DropPortsExhausted),
        }
    }
}
