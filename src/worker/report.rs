//! What a worker says of itself.

use crate::base::buffer::Buffer;
use crate::base::ids::ShardId;
use crate::base::limits::SHARDS;
use crate::base::time::{Duration, Instant};
use crate::flow::FlowIndex;
use crate::worker::Worker;
use crate::worker::message::{Event, FlowSlice, WorkerStatus};

/// Flows in one slice.
const SLICE_FLOWS: usize = 256;
/// Places looked at for one slice.
const SLICE_PLACES: usize = 65_536;

impl<B: Buffer> Worker<B> {
    pub(super) fn report_sync(&mut self, now: Instant) {
        let peers: Vec<_> = self.mirror.progress().collect();
        for progress in peers {
            let oldest = progress.oldest_since.map_or(Duration::ZERO, |since| now - since);
            self.say(Event::Sync {
                peer: progress.peer,
                session: progress.session,
                walk_done: progress.walk_done,
                oldest_unacknowledged: oldest,
                waiting: progress.waiting,
            });
        }
    }

    pub(super) fn report_flushed(&mut self) {
        let Some(peer) = self.quiesce else { return };
        if !self.flushed && self.mirror.is_flushed(peer) {
            self.flushed = true;
            self.answer(Event::Flushed { peer });
        }
    }

    pub(super) fn status(&mut self, now: Instant) -> WorkerStatus {
        let mut status = WorkerStatus {
            held: self.hold.packets(),
            departed: self.mirror.departed(),
            protection_latency: self.protection_latency.to_vec(),
            streams: self.mirror.streams(),
            ..WorkerStatus::default()
        };
        for shard in self.shards.iter_mut().flatten() {
            status.ports_resting += shard.ports.resting(now);
            status.flows += shard.table.len() as u64;
        }
        status.mirrored = self.counts.mirrored();
        status.protected = self.mirror.known_to_all(&self.in_sync);
        status.oldest_unacknowledged = status.streams.iter().filter_map(|stream| stream.oldest_since).min();
        let config = &self.tables.snapshot.checked;
        let servers = config.pools.iter().flat_map(|pool| &pool.servers);
        status.by_virtual_server = config
            .virtual_servers
            .iter()
            .map(|server| (server.id.0, self.counts.of_virtual_server(server.id)))
            .collect();
        status.by_server = servers.map(|server| (server.id.0, self.counts.of_server(server.id))).collect();
        status
    }

    fn is_protected(&self, shard: ShardId, flow: FlowIndex) -> bool {
        !self.in_sync.is_empty() && self.mirror.is_known_to(&self.in_sync, shard, flow)
    }

    pub(super) fn flows_from(&self, now: Instant, shard: ShardId, from: FlowIndex) -> FlowSlice {
        let mut slice = FlowSlice::default();
        let mut from = from;
        let mut looked = 0;
        for id in shard.0..SHARDS as u16 {
            let Some(shard) = &self.shards[usize::from(id)] else { continue };
            while let Some(index) = shard.table.next_occupied(from) {
                if slice.flows.len() == SLICE_FLOWS || looked == SLICE_PLACES {
                    slice.next = Some((ShardId(id), index));
                    return slice;
                }
                if let Some(flow) = shard.table.get(index) {
                    let idle = shard.last_seen.idle(index, now).unwrap_or(Duration::ZERO);
                    slice.flows.push((*flow, idle, self.is_protected(ShardId(id), index)));
                }
                looked += 1;
                from = FlowIndex(index.0 + 1);
            }
            from = FlowIndex(0);
        }
        slice
    }
}
