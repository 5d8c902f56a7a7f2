//! How packets come to an lcore and go on from there to other threads: the receive queues that it owns, and its ends of
//! the rings to the workers, to the master and to the liveness thread. A distributor's lcore has nothing else.
//!
//! What goes to a worker is gathered and put into its ring in bursts. A full ring drops and counts, for each kind of
//! ring: nobody waits.

use std::sync::Arc;

use arrayvec::ArrayVec;
use dpdk::ring::{Consumer, Producer};
use dpdk::{Burst, Mempool, RxQueue};

use crate::base::buffer::{Buffer, Handed};
use crate::base::counters::{Counter, Counters};
use crate::base::ids::{PortId, ShardId, WorkerId};
use crate::base::io::{PassOn, Punt, TxClass};
use crate::base::limits::BURST_MAX;
use crate::base::time::{Duration, Instant};
use crate::distributor::spread::{Lookup, Order};
use crate::distributor::tell::{Tell, Told};
use crate::driver::clock::{Clock, std_duration};
use crate::driver::lcore::Site;
use crate::driver::mbuf::Packet;
use crate::driver::rings::{Frame, PassingEnds};
use crate::failover::FrameBytes;

/// See the file's documentation.
pub struct Intake {
    rx: Vec<(PortId, RxQueue)>,
    ends: PassingEnds,
    /// Only an lcore that only distributes has it: what the master says, and what it gets back.
    orders: Option<(Consumer<Order>, Producer<Box<Lookup>>)>,
    clock: Clock,
    counters: Arc<Counters>,
    /// For markers.
    pool: Mempool,
    /// Packets for each worker.
    handing: Vec<ArrayVec<Packet, BURST_MAX>>,
}

impl Intake {
    /// Of an lcore that owns these queues, and counts here.
    pub fn new(
        rx: Vec<(PortId, RxQueue)>,
        ends: PassingEnds,
        pool: Mempool,
        clock: Clock,
        counters: Arc<Counters>,
    ) -> Intake {
        let handing = ends.hand_over.iter().map(|_| ArrayVec::new()).collect();
        Intake { rx, ends, orders: None, pool, clock, counters, handing }
    }

    /// The same, told by this ring what the master says, and giving back by the other what it got so.
    #[must_use]
    pub fn told_by(self, orders: Consumer<Order>, spent: Producer<Box<Lookup>>) -> Intake {
        Intake { orders: Some((orders, spent)), ..self }
    }

    fn flush_to(&mut self, to: usize) {
        if let Some(Some(ring)) = self.ends.hand_over.get_mut(to) {
            ring.push(&mut self.handing[to]);
        }
        self.counters.add(Counter::DropHandOverFull, self.handing[to].len() as u64);
        self.handing[to].clear();
    }
}

impl PassOn for Intake {
    type Buf = Packet;

    fn punt(&mut self, to: Punt, packet: Packet) {
        let Intake { ends, counters, .. } = self;
        match to {
            Punt::Master => {
                if ends.to_master.push_one(packet).is_err() {
                    counters.bump(Counter::DropPuntFull);
                }
            }
            Punt::Liveness => {
                let bytes = (packet.total_len() == packet.head().len())
                    .then(|| FrameBytes::try_from(packet.head()).ok())
                    .flatten();
                let Some(bytes) = bytes else { return counters.bump(Counter::LivenessMalformed) };
                let port = packet.rx().port;
                let frame = Frame { port, class: TxClass::Own, bytes };
                let ring = ends.to_liveness.get_mut(usize::from(port.0));
                if ring.is_none_or(|ring| ring.push_one(frame).is_err()) {
                    counters.bump(Counter::DropLivenessFull);
                }
            }
        }
    }

    #[inline]
    fn hand_over(&mut self, to: WorkerId, packet: Packet) {
        let to = usize::from(to.0);
        if to >= self.handing.len() {
            return self.counters.bump(Counter::DropHandOverFull);
        }
        if self.handing[to].is_full() {
            self.flush_to(to);
        }
        self.handing[to].push(packet);
    }

    fn mark(&mut self, to: WorkerId, shard: ShardId) -> bool {
        let to = usize::from(to.0);
        if to >= self.handing.len() {
            return false;
        }
        let Some(mut marker) = Packet::alloc(&self.pool) else {
            self.counters.bump(Counter::DropNoBuffer);
            return false;
        };
        marker.set_handed(Handed::Marker(shard));
        if !self.handing[to].is_empty() {
            self.flush_to(to);
        }
        let ring = self.ends.hand_over.get_mut(to).and_then(Option::as_mut);
        ring.is_some_and(|ring| ring.push_one(marker).is_ok())
    }
}

impl Tell for Intake {
    fn room_to_tell(&self) -> usize {
        let rooms = self.ends.tell.iter().map(|ring| ring.capacity() - ring.len());
        rooms.min().unwrap_or(usize::MAX)
    }

    fn tell_others(&mut self, told: &Told) -> bool {
        // Nobody else puts anything in, so none of them is full below.
        self.room_to_tell() > 0 && self.ends.tell.iter_mut().all(|ring| ring.push_one(*told).is_ok())
    }
}

impl Site for Intake {
    #[inline]
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn sources(&self) -> usize {
        self.rx.len()
    }

    #[inline]
    fn receive(&mut self, source: usize, packets: &mut Vec<Packet>) {
        let Some((port, queue)) = self.rx.get_mut(source) else { return };
        let mut burst = Burst::<BURST_MAX>::new();
        queue.receive(&mut burst);
        for mbuf in &burst {
            mbuf.prefetch();
        }
        packets.reserve(burst.len());
        for mbuf in burst {
            mbuf.prefetch_head();
            match Packet::received(mbuf, *port) {
                Some(packet) => packets.push(packet),
                None => self.counters.bump(Counter::DropNoBuffer),
            }
        }
    }

    #[inline]
    fn hear(&mut self) -> Option<Told> {
        self.ends.heard.iter_mut().find_map(|ring| ring.pop_one())
    }

    // It is a worker that chooses.
    fn serves(&self) -> bool {
        false
    }

    #[inline]
    fn flush(&mut self) {
        for to in 0..self.handing.len() {
            if !self.handing[to].is_empty() {
                self.flush_to(to);
            }
        }
    }

    fn next_order(&mut self) -> Option<Order> {
        self.orders.as_mut()?.0.pop_one()
    }

    fn give_back(&mut self, spent: Box<Lookup>) {
        // There is as much room as orders can be: else it is dropped here.
        if let Some((_, ring)) = &mut self.orders {
            let _ = ring.push_one(spent);
        }
    }

    fn rest(&mut self, span: Duration) {
        std::thread::sleep(std_duration(span));
    }
}
