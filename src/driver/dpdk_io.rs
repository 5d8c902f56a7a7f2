//! A worker's world on DPDK: its queues of the ports, and its ends of the rings.
//!
//! What is to be sent is gathered for each port and sent at the turn's end. Right before
//! the transmits the clock is read again and compared with the lease; service packets
//! that it does not cover are dropped and counted (DESIGN "Lease").

use std::sync::Arc;

use arrayvec::ArrayVec;
use dpdk::{Burst, Mempool, RxQueue};

use crate::base::buffer::Buffer;
use crate::base::counters::{Counter, Counters};
use crate::base::ids::{PortId, WorkerId};
use crate::base::io::{Io, Punt, TxClass};
use crate::base::limits::BURST_MAX;
use crate::base::time::{Duration, Instant};
use crate::driver::clock::{Clock, std_duration};
use crate::driver::lcore::World;
use crate::driver::lease::Lease;
use crate::driver::mbuf::{Packet, SharedPacket};
use crate::driver::outbox::{Outbox, Relay};
use crate::driver::rings::{Frame, WorkerEnds};
use crate::failover::FrameBytes;
use crate::master::route::report_of;
use crate::worker::Origin;
use crate::worker::message::{Command, Event};

/// Liveness frames that are sent in one turn.
const FRAMES_PER_TURN: usize = BURST_MAX;

/// What a worker's world is made from.
pub struct DpdkIoSetup {
    /// Which worker.
    pub worker: WorkerId,
    /// Where packets are made.
    pub pool: Mempool,
    /// The time.
    pub clock: Clock,
    /// Until when service packets may be sent.
    pub lease: Arc<Lease>,
    /// The worker's own counters.
    pub counters: Arc<Counters>,
    /// The receive queues that it owns.
    pub rx: Vec<(PortId, RxQueue)>,
    /// Its way out to every port.
    pub outboxes: Vec<Outbox>,
    /// Packets of others for queues that it owns.
    pub relays: Vec<(PortId, Relay)>,
    /// Its ends of the rings.
    pub ends: WorkerEnds,
}

/// See the file's documentation.
pub struct DpdkIo {
    setup: DpdkIoSetup,
    /// Packets for each other worker.
    handing: Vec<ArrayVec<Packet, BURST_MAX>>,
    /// Commands of the master that were taken from the ring together, the first one at the end.
    commands: ArrayVec<Command, BURST_MAX>,
}

impl DpdkIo {
    /// The world of one worker; moved to its lcore.
    pub fn new(setup: DpdkIoSetup) -> DpdkIo {
        let handing = setup.ends.hand_over.iter().map(|_| ArrayVec::new()).collect();
        DpdkIo { setup, handing, commands: ArrayVec::new() }
    }

    fn flush_hand_over(&mut self, to: usize) {
        if let Some(Some(ring)) = self.setup.ends.hand_over.get_mut(to) {
            ring.push(&mut self.handing[to]);
        }
        self.setup.counters.add(Counter::DropHandOverFull, self.handing[to].len() as u64);
        self.handing[to].clear();
    }

    #[inline(never)]
    fn send_unready(&mut self, port: PortId, packet: Packet, class: TxClass) {
        let DpdkIoSetup { outboxes, clock, lease, counters, .. } = &mut self.setup;
        if let Some(outbox) = outboxes.get_mut(usize::from(port.0)) {
            outbox.push(packet, class, || lease.covers(clock.now()), counters);
        }
    }

    fn send_frame(&mut self, frame: &Frame) {
        let Some(mut packet) = self.alloc() else { return };
        if packet.set_len(frame.bytes.len()).is_ok() {
            packet.head_mut().copy_from_slice(&frame.bytes);
            self.send(frame.port, packet, frame.class);
        }
    }
}

impl Io for DpdkIo {
    type Buf = Packet;
    type Shared = SharedPacket;

    #[inline]
    fn alloc(&mut self) -> Option<Packet> {
        let packet = Packet::alloc(&self.setup.pool);
        if packet.is_none() {
            self.setup.counters.bump(Counter::DropNoBuffer);
        }
        packet
    }

    #[inline(always)]
    fn send(&mut self, port: PortId, packet: Packet, class: TxClass) {
        if let Some(outbox) = self.setup.outboxes.get_mut(usize::from(port.0))
            && let Err(packet) = outbox.offer(packet, class)
        {
            self.send_unready(port, packet, class);
        }
    }

    fn punt(&mut self, to: Punt, packet: Packet) {
        let DpdkIoSetup { ends, counters, .. } = &mut self.setup;
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
                let frame = Frame { port: packet.rx().port, class: TxClass::Own, bytes };
                if ends.to_liveness.push_one(frame).is_err() {
                    counters.bump(Counter::DropLivenessFull);
                }
            }
        }
    }

    #[inline]
    fn hand_over(&mut self, to: WorkerId, packet: Packet) {
        let to = usize::from(to.0);
        if to >= self.handing.len() {
            return self.setup.counters.bump(Counter::DropHandOverFull);
        }
        if self.handing[to].is_full() {
            self.flush_hand_over(to);
        }
        self.handing[to].push(packet);
    }

    fn clone_shared(&mut self, packet: &Packet) -> Option<SharedPacket> {
        let shared = packet.share(&self.setup.pool);
        if shared.is_none() {
            self.setup.counters.bump(Counter::DropNoBuffer);
        }
        shared
    }

    fn send_shared(&mut self, port: PortId, packet: SharedPacket, class: TxClass) {
        let DpdkIoSetup { outboxes, clock, lease, counters, .. } = &mut self.setup;
        if let Some(outbox) = outboxes.get_mut(usize::from(port.0)) {
            outbox.push_shared(packet, class, || lease.covers(clock.now()), counters);
        }
    }
}

impl World for DpdkIo {
    #[inline]
    fn now(&self) -> Instant {
        self.setup.clock.now()
    }

    #[inline]
    fn command(&mut self) -> Option<Command> {
        if self.commands.is_empty() {
            let [of_liveness, of_master] = &mut self.setup.ends.commands;
            if let Some(command) = of_liveness.pop_one() {
                return Some(command);
            }
            of_master.pop(&mut self.commands);
            self.commands.reverse();
        }
        self.commands.pop()
    }

    fn sources(&self) -> usize {
        self.setup.rx.len() + self.setup.ends.handed.len()
    }

    #[inline]
    fn origin(&self, source: usize) -> Origin {
        if source < self.setup.rx.len() { Origin::Port } else { Origin::Worker }
    }

    #[inline]
    fn receive(&mut self, source: usize, packets: &mut Vec<Packet>) {
        if let Some((port, queue)) = self.setup.rx.get_mut(source) {
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
                    None => self.setup.counters.bump(Counter::DropNoBuffer),
                }
            }
        } else if let Some(ring) = self.setup.ends.handed.get_mut(source - self.setup.rx.len()) {
            let mut burst = ArrayVec::<Packet, BURST_MAX>::new();
            ring.pop(&mut burst);
            packets.extend(burst);
        }
    }

    fn relay(&mut self) -> usize {
        let mut count = 0;
        for _ in 0..FRAMES_PER_TURN {
            let Some(frame) = self.setup.ends.frames.as_mut().and_then(|frames| frames.pop_one()) else {
                break;
            };
            self.send_frame(&frame);
            count += 1;
        }
        let DpdkIoSetup { relays, outboxes, clock, lease, counters, .. } = &mut self.setup;
        for (port, relay) in relays {
            if let Some(outbox) = outboxes.get_mut(usize::from(port.0)) {
                count += relay.relay(outbox, || lease.covers(clock.now()), counters);
            }
        }
        count
    }

    #[inline]
    fn flush(&mut self) {
        for to in 0..self.handing.len() {
            if !self.handing[to].is_empty() {
                self.flush_hand_over(to);
            }
        }
        let DpdkIoSetup { outboxes, clock, lease, counters, .. } = &mut self.setup;
        // Asked right before the first transmit that needs it, for one burst of each queue.
        let mut covered = None;
        for outbox in outboxes {
            outbox.flush(|| *covered.get_or_insert_with(|| lease.covers(clock.now())), counters);
        }
    }

    fn tell(&mut self, event: Event) -> Result<(), Event> {
        let DpdkIoSetup { worker, ends, counters, .. } = &mut self.setup;
        match report_of(*worker, &event) {
            Some(report) => ends.reports.push_one(report).map_err(|_| event),
            None => {
                // Neighbours are asked for again, and who asked for an answer does not wait for ever.
                if ends.events.push_one(event).is_err() {
                    counters.bump(Counter::EventsDropped);
                }
                Ok(())
            }
        }
    }

    fn rest(&mut self, span: Duration) {
        std::thread::sleep(std_duration(span));
    }
}
