//! What a worker says of itself.

use crate::base::buffer::Buffer;
use crate::base::ids::ShardId;
use crate::base::time::{Duration, Instant};
use crate::flow::FlowIndex;
use crate::flow::flows::Flows;
use crate::worker::Worker;
use crate::worker::message::{Event, FlowSlice, SeenFlow, WorkerStatus};

/// Flows in one slice.
const SLICE_FLOWS: usize = 256;
/// Places looked at for one slice.
const SLICE_PLACES: u32 = 65_536;

impl<B: Buffer> Worker<B> {
    pub(super) fn report_sync(&mut self, now: Instant) {
        let peers: Vec<_> = self.mirror.progress().collect();
        for progress in peers {
            // What left one worker unknown stands in the report of the other one by then.
            let settled = progress.walk_done
                && self.moving.arriving.is_none()
                && now >= self.holds_since + super::SYNC_INTERVAL * 2
                && progress.oldest_since.is_none_or(|since| since > self.holds_since);
            let oldest = progress.oldest_since.map_or(Duration::ZERO, |since| now - since);
            self.say(Event::Sync {
                peer: progress.peer,
                session: progress.session,
                walk_done: progress.walk_done,
                oldest_unacknowledged: oldest,
                waiting: progress.waiting,
                settled: if settled { self.in_sync_epoch } else { 0 },
            });
        }
    }

    pub(super) fn report_flushed(&mut self) {
        let Some(peer) = self.quiesce else { return };
        let is_busy = self.moving.is_busy() || self.taking_up.is_some() || self.stragglers.are_handled();
        if !self.flushed && !is_busy && self.mirror.is_flushed(peer) {
            self.flushed = true;
            self.answer(Event::Flushed { peer });
        }
    }

    pub(super) fn status(&mut self, now: Instant) -> WorkerStatus {
        let mut status = WorkerStatus {
            held: self.hold.packets(),
            departed: self.mirror.departed(),
            protection_latency: self.protection_latency,
            held_for: self.held_for,
            streams: self.mirror.streams(),
            ..WorkerStatus::default()
        };
        status.flows = self.flows.table.len() as u64;
        self.flows.resting.clear_ended(now);
        status.ports_resting = self.flows.resting.len();
        status.mirrored = self.counts.mirrored();
        let owned = self.flows.owned();
        status.by_shard = owned.iter().map(|shard| (shard, self.counts.of_shard(shard))).collect();
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

    pub(super) fn flows_from(&self, now: Instant, from: FlowIndex) -> FlowSlice {
        let mut slice = FlowSlice::default();
        let Flows { table, last_seen, .. } = &self.flows;
        let end = table.places_end().0;
        let stop = end.min(from.0.saturating_add(SLICE_PLACES));
        for index in (from.0..stop).map(FlowIndex) {
            if slice.flows.len() == SLICE_FLOWS {
                slice.next = Some(index);
                return slice;
            }
            if let Some(flow) = table.get(index) {
                let idle = last_seen.idle(index, now).unwrap_or(Duration::ZERO);
                let protected = self.is_protected(flow.shard, index);
                let confirmed =
                    protected && self.mirror.is_confirmed_by(&self.in_sync, flow.shard, flow.changed.version);
                slice.flows.push(SeenFlow { flow, idle, protected, confirmed, because: self.because(index) });
            }
        }
        slice.next = (stop < end).then_some(FlowIndex(stop));
        slice
    }
}
