//! One worker's loop, whatever its packets come from: DPDK's ports, or memory in tests.
//!
//! A turn: commands, packets of every source, the worker's own work, transmits, events,
//! and then perhaps a rest. The clock is read once a turn; transmits read it again. How busy the
//! worker is comes out of those readings: a turn lasts until the next one begins.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use crate::base::io::{Io, PassOn};
use crate::base::limits::BURST_MAX;
use crate::base::time::{Duration, Instant};
use crate::distributor::spread::{Lookup, Order};
use crate::distributor::tell::{Tell, Told};
use crate::driver::idle::Idler;
use crate::driver::lease::Turns;
use crate::worker::message::{Command, Event};
use crate::worker::{Origin, Worker};

/// Commands handled in one turn; more wait for the next.
const COMMANDS_PER_TURN: usize = 64;

/// Between two looks at how busy an lcore is.
const BUSY_INTERVAL: Duration = Duration::from_millis(10);

/// Where any lcore's packets come from, and which time it is there. Besides it gathers what is passed on to others.
pub trait Site: PassOn + Tell {
    /// The time now.
    fn now(&self) -> Instant;
    /// Sources of packets: queues of ports, and rings of other lcores.
    fn sources(&self) -> usize;
    /// Adds a burst from a source.
    fn receive(&mut self, source: usize, packets: &mut Vec<Self::Buf>);
    /// What another lcore told, oldest first of each.
    fn hear(&mut self) -> Option<Told>;
    /// Whether this appliance serves now: what others tell is drained after this was asked.
    fn serves(&self) -> bool;
    /// Passes on and sends what was gathered. Service packets beyond the lease are dropped and counted.
    fn flush(&mut self);
    /// What the master says next to an lcore that only distributes; workers are told by commands.
    fn next_order(&mut self) -> Option<Order> {
        None
    }
    /// Gives back what an lcore that only distributes looked up by until now.
    fn give_back(&mut self, _spent: Box<Lookup>) {}
    /// Stands still for a moment.
    fn rest(&mut self, span: Duration);
}

/// The world of one worker's loop: besides its packets, where its commands come from, and where
/// its events go. It is the worker's [`Io`] too, which gathers what is to be sent.
pub trait World: Io + Site {
    /// The next command, in the order of its sender.
    fn command(&mut self) -> Option<Command>;
    /// Where a source's packets are from.
    fn origin(&self, source: usize) -> Origin;
    /// Takes over what others want sent by queues of this worker; how many there were.
    fn relay(&mut self) -> usize;
    /// Passes an event on; gives it back when there is no room and it must not be lost.
    fn tell(&mut self, event: Event) -> Result<(), Event>;
}

/// How an lcore's turns follow each other: they are counted, their time is accounted for, and it rests between them.
pub struct Pace {
    idler: Idler,
    turns: Arc<Turns>,
    /// The turn before this one.
    last: Option<LastTurn>,
    /// How busy the lcore is, as it was last measured.
    busy: Busy,
}

/// How busy an lcore is.
#[derive(Default)]
struct Busy {
    per_mille: u16,
    at: Instant,
    worked: Duration,
    again_at: Instant,
}

impl Busy {
    #[cold]
    fn measure(&mut self, now: Instant, worked: Duration) {
        let (span, part) =
            ((now - self.at).nanos().max(1), worked.nanos().saturating_sub(self.worked.nanos()));
        self.per_mille = (part.saturating_mul(1000) / span).min(1000) as u16;
        (self.at, self.worked, self.again_at) = (now, worked, now + BUSY_INTERVAL);
    }
}

/// A turn whose end is not known until the next one begins.
struct LastTurn {
    began: Instant,
    worked: bool,
    packets: u64,
}

impl Pace {
    /// Before the first turn.
    pub fn new(idler: Idler, turns: Arc<Turns>) -> Pace {
        Pace { idler, turns, last: None, busy: Busy::default() }
    }

    /// The part of the last hundredth of a second that was worked, of 1,000.
    #[inline]
    pub fn busy(&mut self, now: Instant) -> u16 {
        if now >= self.busy.again_at {
            self.busy.measure(now, self.turns.spent().busy);
        }
        self.busy.per_mille
    }

    /// After a turn, and after all that others may see of it: how long to rest, if at all; never beyond `deadline`.
    #[inline]
    pub fn turned(
        &mut self,
        began: Instant,
        worked: bool,
        packets: u64,
        deadline: Instant,
    ) -> Option<Duration> {
        self.turns.bump();
        if let Some(last) = self.last.replace(LastTurn { began, worked, packets }) {
            self.turns.account(last.worked, began - last.began, last.packets);
        }
        self.idler.after_turn(worked, began, deadline)
    }
}

/// Also when a panic unwinds the loop: what waits in its outboxes is never sent then.
impl Drop for Pace {
    fn drop(&mut self) {
        self.turns.end();
    }
}

/// A worker and its world.
pub struct Lcore<W: World> {
    // Dropped first: the others may take their time.
    pace: Pace,
    worker: Worker<W::Buf>,
    world: W,
    packets: Vec<W::Buf>,
    /// An event for which there was no room.
    untold: Option<Event>,
}

impl<W: World> Lcore<W> {
    /// A loop that has not begun.
    pub fn new(worker: Worker<W::Buf>, world: W, idler: Idler, turns: Arc<Turns>) -> Lcore<W> {
        let packets = Vec::with_capacity(2 * BURST_MAX);
        Lcore { pace: Pace::new(idler, turns), worker, world, packets, untold: None }
    }

    /// Runs until `stop`, and then once more, so that last words are sent.
    pub fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            if let Some(span) = self.turn() {
                self.world.rest(span);
            }
        }
        self.turn();
    }

    /// One turn; how long to rest after it, if at all.
    pub fn turn(&mut self) -> Option<Duration> {
        let now = self.world.now();
        if self.worker.remembers() {
            self.worker.set_serves(self.world.serves());
            self.worker.set_busy(self.pace.busy(now));
            self.hear(now);
        }
        let mut worked = self.obey(now);
        let mut packets = 0;
        for source in 0..self.world.sources() {
            self.world.receive(source, &mut self.packets);
            if !self.packets.is_empty() {
                worked = true;
                packets += self.packets.len() as u64;
                self.hear(now);
                self.worker.set_origin(self.world.origin(source));
                self.worker.handle_burst(now, &mut self.packets, &mut self.world);
            }
        }
        worked |= self.world.relay() > 0;
        self.worker.poll_promptly(now, &mut self.world);
        self.world.flush();
        if self.worker.poll_walks(now, &mut self.world) {
            worked = true;
            self.world.flush();
        }
        // After the transmits: who says that it stopped has sent its last.
        self.speak();
        self.pace.turned(now, worked, packets, self.worker.next_deadline())
    }

    /// After a burst was taken and before it is looked at: what its packets depend on was told before they were sent.
    fn hear(&mut self, now: Instant) {
        while let Some(told) = self.world.hear() {
            self.worker.hear(now, &told);
        }
    }

    fn obey(&mut self, now: Instant) -> bool {
        for count in 0..COMMANDS_PER_TURN {
            let Some(command) = self.world.command() else { return count > 0 };
            self.worker.handle_command(now, command, &mut self.world);
        }
        true
    }

    fn speak(&mut self) {
        while let Some(event) = self.untold.take().or_else(|| self.worker.poll_event()) {
            if let Err(event) = self.world.tell(event) {
                self.untold = Some(event);
                return;
            }
        }
    }
}
