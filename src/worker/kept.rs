//! How much of everything a worker keeps, held against what it may keep: for tests that look now and then.

use crate::base::buffer::Buffer;
use crate::base::limits::{NEIGHBOUR_QUEUE_MAX, NEIGHBOURS_MAX};
use crate::mirror::Kept;
use crate::worker::{EVENTS_MAX, Worker, resting_capacity};

impl<B: Buffer> Worker<B> {
    /// All that is kept of flows, packets, ports and messages.
    pub fn kept(&self) -> Vec<Kept> {
        let capacity = self.flows.capacity();
        let parked = self.moving.arriving.as_ref().map_or(0, |arriving| arriving.parked.len());
        let (held, held_max) = (self.hold.packets(), self.hold.packets_max());
        let (stragglers, stragglers_max) = self.stragglers.kept();
        let (aside, aside_max) = self.aside.kept();
        let mut all = self.mirror.kept();
        all.extend([
            Kept::new("flows", self.flows.table.len(), capacity as usize),
            Kept::new("ports at rest", self.flows.resting.len(), resting_capacity(capacity) as usize),
            Kept::new("held packets", held, held_max),
            Kept::new("packets for a successor", stragglers, stragglers_max),
            Kept::new("frames of walks put aside", aside, aside_max),
            Kept::new("parked packets", parked, self.moving.parked_max),
            Kept::new(
                "packets for neighbours",
                self.adjacencies.waiting(),
                NEIGHBOURS_MAX * NEIGHBOUR_QUEUE_MAX,
            ),
            Kept::new("events", self.events.len(), EVENTS_MAX),
        ]);
        all
    }
}
