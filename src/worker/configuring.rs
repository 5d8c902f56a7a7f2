//! Another generation of the configuration (REQ C10), between two bursts: a swap, after which the worker gives back what it
//! had. Nothing here takes or frees memory, but at a standby whose flows are of more services that the next generation does not
//! know than ever are retired; and no flow is looked at.
//!
//! What a flow needs of the configuration is in the flow itself: its server, its translation, its next hops. So those of a
//! server or of a virtual server that is gone go on.
//!
//! A standby that joins gets its leader's services behind the first records, of which it refuses those that name what it does not know.
//! When it does, it asks for all flows again.

use crate::base::buffer::Buffer;
use crate::base::counters::Counter;
use crate::worker::Worker;
use crate::worker::message::Event;
use crate::worker::tables::Generation;

impl<B: Buffer> Worker<B> {
    pub(super) fn configure(&mut self, next: Generation) {
        let Generation(mut next) = next;
        debug_assert!(self.coming.is_empty(), "places in the configuration that is left");
        // Before the others are released: who is in both keeps its place, and its link address.
        next.know_neighbours(&mut self.adjacencies);
        self.placer.change_methods(&mut next.methods);
        self.counts.go_on_in(&mut next.counts);
        core::mem::swap(&mut self.tables, &mut *next);
        next.forget_neighbours(&mut self.adjacencies);
        self.chosen.look_at_all();
        self.mirror.set_generation(self.tables.snapshot.generation);
        let refused = self.counters.value(Counter::MirrorRecordUnknownService);
        if refused != self.services_refused && !self.mirror.standing().leads {
            self.mirror.ask_for_all();
        }
        self.services_refused = refused;
        self.answer(Event::Configured(Generation(next)));
    }
}
