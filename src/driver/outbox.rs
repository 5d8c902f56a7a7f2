//! Packets on their way out of a worker, gathered for each port and sent at the burst's
//! end. A worker that owns no transmit queue of a port passes them to one that does.
//!
//! Service packets leave only under the lease: whether it covers them is asked right
//! before the transmit (DESIGN "Lease"), by whoever owns the queue.

use arrayvec::ArrayVec;
use dpdk::mbuf::Outgoing;
use dpdk::ring::{Consumer, Producer};
use dpdk::{Running, TxQueue, ring};

use crate::base::counters::{Counter, Counters};
use crate::base::io::TxClass;
use crate::base::limits::BURST_MAX;
use crate::driver::checksum::Unsendable;
use crate::driver::mbuf::{Packet, SharedPacket, TxAbilities};

/// A packet that is ready for its port, and in whose name it is sent.
#[derive(Debug)]
pub struct Departure {
    packet: Outgoing,
    class: TxClass,
}

/// Where packets leave a worker.
enum Exit {
    /// By a queue of the port that this worker owns.
    Queue(TxQueue),
    /// By a worker that owns one.
    Owner(Producer<Departure>),
}

/// The packets of one worker for one port.
pub struct Outbox {
    exit: Exit,
    abilities: TxAbilities,
    waiting: ArrayVec<Outgoing, BURST_MAX>,
    /// Bit i: packet i is the appliance's own. The others, nearly all of them, are services'.
    own: u64,
}

const _: () = assert!(BURST_MAX <= u64::BITS as usize);

/// The other end of an [`Outbox`] that passes packets on: the queue's owner has it.
pub struct Relay(Consumer<Departure>);

impl Outbox {
    /// Sends by a queue that the worker owns.
    pub fn of_queue(queue: TxQueue, abilities: TxAbilities) -> Outbox {
        Outbox { exit: Exit::Queue(queue), abilities, waiting: ArrayVec::new(), own: 0 }
    }

    /// Passes packets to the owner of a queue, who empties the relay into its own
    /// outbox; at most `capacity` wait between the two.
    pub fn of_owner(
        running: &Running,
        name: &str,
        capacity: u32,
        abilities: TxAbilities,
    ) -> Result<(Outbox, Relay), dpdk::Error> {
        let (producer, consumer) = ring::ring(running, name, capacity)?;
        let outbox = Outbox { exit: Exit::Owner(producer), abilities, waiting: ArrayVec::new(), own: 0 };
        Ok((outbox, Relay(consumer)))
    }

    /// Takes a packet for the next [`Outbox::flush`], or gives it back: it is not ready, or there is no room.
    #[inline(always)]
    pub fn offer(&mut self, packet: Packet, class: TxClass) -> Result<(), Packet> {
        if self.waiting.is_full() {
            return Err(packet);
        }
        let packet = packet.ready(&self.abilities)?;
        self.put(packet, class);
        Ok(())
    }

    /// As [`Outbox::offer`], whatever has to be done for it: a full outbox is flushed first.
    pub fn push(
        &mut self,
        packet: Packet,
        class: TxClass,
        may_serve: impl FnOnce() -> bool,
        counters: &Counters,
    ) {
        let ready = packet.finish(&self.abilities);
        self.take(ready, class, may_serve, counters);
    }

    /// As [`Outbox::push`].
    pub fn push_shared(
        &mut self,
        packet: SharedPacket,
        class: TxClass,
        may_serve: impl FnOnce() -> bool,
        counters: &Counters,
    ) {
        let ready = packet.finish(&self.abilities);
        self.take(ready, class, may_serve, counters);
    }

    fn take(
        &mut self,
        ready: Result<Outgoing, Unsendable>,
        class: TxClass,
        may_serve: impl FnOnce() -> bool,
        counters: &Counters,
    ) {
        match ready {
            Ok(packet) => self.depart(packet, class, may_serve, counters),
            Err(unsendable) => counters.bump(unsendable.counter()),
        }
    }

    fn depart(
        &mut self,
        packet: Outgoing,
        class: TxClass,
        may_serve: impl FnOnce() -> bool,
        counters: &Counters,
    ) {
        if self.waiting.is_full() {
            // That leaves the outbox empty.
            self.flush(may_serve, counters);
        }
        self.put(packet, class);
    }

    #[inline(always)]
    fn put(&mut self, packet: Outgoing, class: TxClass) {
        match class {
            TxClass::Own => self.own |= 1 << self.waiting.len(),
            TxClass::Service => {}
        }
        self.waiting.push(packet);
    }

    /// Sends what waits, and leaves nothing waiting: what the port or the owner does
    /// not take is dropped and counted. `may_serve` says whether the lease covers this
    /// instant; it is asked once, and only if a service packet waits.
    pub fn flush(&mut self, may_serve: impl FnOnce() -> bool, counters: &Counters) {
        if self.waiting.is_empty() {
            return;
        }
        let waiting = u64::MAX >> (u64::BITS as usize - self.waiting.len());
        let service = !core::mem::take(&mut self.own) & waiting;
        match &mut self.exit {
            Exit::Queue(queue) => {
                if service != 0 && !may_serve() {
                    let mut place = 0;
                    self.waiting.retain(|_| {
                        place += 1;
                        service >> (place - 1) & 1 == 0
                    });
                    counters.add(Counter::DropTxLease, u64::from(service.count_ones()));
                }
                counters.add(Counter::TxPackets, queue.send(&mut self.waiting) as u64);
                if !self.waiting.is_empty() {
                    counters.add(Counter::DropTxFull, self.waiting.len() as u64);
                    self.waiting.clear();
                }
            }
            Exit::Owner(ring) => {
                let class = |place: usize| match service >> place & 1 {
                    0 => TxClass::Own,
                    _ => TxClass::Service,
                };
                let mut burst: ArrayVec<Departure, BURST_MAX> = ArrayVec::new();
                burst.extend(
                    self.waiting
                        .drain(..)
                        .enumerate()
                        .map(|(place, packet)| Departure { packet, class: class(place) }),
                );
                ring.push(&mut burst);
                counters.add(Counter::DropTxRelayFull, burst.len() as u64);
            }
        }
    }
}

impl Relay {
    /// Moves one burst of packets at most into the owner's outbox, which flushes it.
    /// Says how many there were.
    pub fn relay(&mut self, outbox: &mut Outbox, may_serve: impl Fn() -> bool, counters: &Counters) -> usize {
        let mut burst: ArrayVec<Departure, BURST_MAX> = ArrayVec::new();
        let count = self.0.pop(&mut burst);
        for departure in burst {
            outbox.depart(departure.packet, departure.class, &may_serve, counters);
        }
        count
    }
}
