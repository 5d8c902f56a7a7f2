//! The loop of an lcore that only distributes, whatever its packets come from: DPDK's ports, or memory in tests.
//!
//! A turn: packets of every source, each burst handed to workers or punted; then what was gathered for the rings; and
//! then perhaps a rest. It takes no commands but that shards move and that another configuration holds, since it does the
//! same in every role, and sends nothing itself.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::base::limits::BURST_MAX;
use crate::base::time::{Duration, Instant};
use crate::distributor::spread::{Distributor, Order};
use crate::driver::idle::Idler;
use crate::driver::lcore::{Pace, Site};
use crate::driver::lease::Turns;

/// A distributor and where its packets come from.
pub struct SpreadingLcore<S: Site> {
    // Dropped first: the others may take their time.
    pace: Pace,
    distributor: Distributor,
    site: S,
    packets: Vec<S::Buf>,
}

impl<S: Site> SpreadingLcore<S> {
    /// A loop that has not begun.
    pub fn new(distributor: Distributor, site: S, idler: Idler, turns: Arc<Turns>) -> SpreadingLcore<S> {
        let packets = Vec::with_capacity(2 * BURST_MAX);
        SpreadingLcore { pace: Pace::new(idler, turns), distributor, site, packets }
    }

    /// Runs until `stop`.
    pub fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            if let Some(span) = self.turn() {
                self.site.rest(span);
            }
        }
    }

    /// One turn; how long to rest after it, if at all.
    pub fn turn(&mut self) -> Option<Duration> {
        let now = self.site.now();
        match self.site.next_order() {
            Some(Order::Move(these)) => self.distributor.redirect(these, &mut self.site),
            Some(Order::Configure(mut next)) => {
                self.distributor.configure(&mut next);
                self.site.give_back(next);
            }
            None => {}
        }
        self.distributor.go_on(&mut self.site);
        let mut packets = 0;
        self.hear(now);
        for source in 0..self.site.sources() {
            self.site.receive(source, &mut self.packets);
            if !self.packets.is_empty() {
                packets += self.packets.len() as u64;
                self.hear(now);
                self.distributor.handle_burst(now, &mut self.packets, &mut self.site);
            }
        }
        self.distributor.poll(now, &mut self.site);
        self.site.flush();
        self.pace.turned(now, packets > 0, packets, Instant::FAR_FUTURE)
    }

    fn hear(&mut self, now: Instant) {
        while let Some(told) = self.site.hear() {
            self.distributor.hear(now, &told);
        }
    }
}
