//! Flows that end.
//!
//! The master's sweep names flows that look expired, many at a time. They are gathered, and go in stages, as the
//! packets of a burst do, so that they wait for memory together: first the words and lines of all are asked for, then
//! buckets, ports and marks, and then each flow is removed, in the order in which they were named.

use crate::base::buffer::Buffer;
use crate::base::counters::Counter;
use crate::base::time::Instant;
use crate::flow::aging::{Age, Timeouts};
use crate::flow::entry::FlowFlags;
use crate::flow::resting::RestingPlace;
use crate::flow::{FlowIndex, Stamp};
use crate::mirror::Variant;
use crate::mirror::changes::Ended;
use crate::mirror::tombstone::RestingPort;
use crate::worker::Worker;
use crate::worker::message::Role;

/// Flows that go from one stage to the next together: each asks for up to six lines.
const BLOCK: usize = 8;

impl<B: Buffer> Worker<B> {
    /// The master's sweep thinks that a flow expired. [`Worker::end_expired`] looks again, within this turn.
    pub(super) fn note_expired(&mut self, now: Instant, flow: FlowIndex) {
        self.flows.last_seen.prefetch(flow);
        self.flows.table.prefetch_flow(flow);
        self.expired.push(flow);
        if self.expired.is_full() {
            self.end_expired(now);
        }
    }

    /// Ends those flows that were named and have been idle for too long.
    pub(super) fn end_expired(&mut self, now: Instant) {
        if self.expired.is_empty() {
            return;
        }
        let named = core::mem::take(&mut self.expired);
        if self.role == Role::Standby {
            return; // A standby ages nothing (REQ C8).
        }
        let timeouts = Timeouts::from(&self.tables.snapshot.checked.flows);
        let bounds = self.flows.last_seen.bounds(now, &timeouts);
        // Each stage is a block behind the one before.
        for block in 0..named.len().div_ceil(BLOCK) + 1 {
            self.flows.resting.prefetch_oldest(now, BLOCK);
            for flow in named.iter().skip(block * BLOCK).take(BLOCK) {
                if self.flows.last_seen.judge(*flow, &bounds) == Age::Expired {
                    self.prefetch_end(*flow);
                }
            }
            for flow in named.iter().take(block * BLOCK).skip(block.saturating_sub(1) * BLOCK) {
                // Others have yet to hear of ends before. The master names it again.
                if !self.placer.can_wait(1) {
                    return;
                }
                if self.flows.last_seen.judge(*flow, &bounds) == Age::Expired
                    && self.on_its_way(*flow).is_none()
                {
                    self.counters.bump(Counter::FlowsExpired);
                    self.end_flow(now, *flow);
                }
            }
        }
    }

    /// Asks for the memory that [`Worker::end_flow`] will need.
    fn prefetch_end(&self, flow: FlowIndex) {
        if let Some(([_, answers], flags)) = self.flows.table.prefetch_removal(flow) {
            if flags.contains(FlowFlags::FULL_NAT) {
                self.flows.resting.prefetch(answers);
            }
            self.mirror.prefetch(flow);
        }
    }

    /// Removes a flow, tells the peers, and lets its source-NAT port rest.
    pub(super) fn end_flow(&mut self, now: Instant, place: FlowIndex) {
        let term = self.mirror.standing().term;
        let Some(flow) = self.flows.table.remove(place) else { return };
        self.forget_keys(now, &flow);
        self.flows.last_seen.release(place);
        self.counts.remove(&flow);
        self.adjacencies.release(flow.client_adjacency);
        self.adjacencies.release(flow.server_adjacency);
        let shard = flow.shard;
        self.moving.note_ended(shard, place);
        let version = self.flows.next_version(shard);
        let was_told = !flow.is_mirrored() && self.was_told(place, shard, flow.created);
        // They may not have heard yet that it is left out: its port waits until they have.
        let flags = if was_told { flow.flags.with(FlowFlags::MIRRORED) } else { flow.flags };
        let listeners = self.mirror.listeners(shard, flags, Some(flow.virtual_server));
        let [image, answers] = [&flow.client, &flow.server].map(|key| self.flows.table.imager().of(key));
        let mut port = RestingPort { image: answers, place: RestingPlace::NONE };
        if flow.is_full_nat() && self.mirror.variant() != Variant::PortReusedBeforeAcknowledged {
            self.moving.note_resting(shard, answers);
            if listeners == 0 {
                self.flows.rest(now, shard, &flow.server);
            } else {
                port.place = self.flows.rest_until_acknowledged(now, shard, &flow.server);
            }
        }
        // Packets that still wait belong to a connection that is over.
        if flow.flags.contains(FlowFlags::HELD) {
            let counters = &self.counters;
            self.hold.release(now, shard, place, |_| counters.bump(Counter::DropHoldEnded));
        }
        let stamp = Stamp { term, version };
        self.mirror.flow_ended(
            now,
            &Ended { shard, place, client: &flow.client, image, port, created: flow.created, stamp },
            listeners,
        );
    }
}
