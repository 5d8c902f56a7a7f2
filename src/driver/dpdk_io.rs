//! A worker's world on DPDK: its queues of the ports, and its ends of the rings.
//!
//! What is to be sent is gathered for each port and sent at the turn's end. Right before
//! the transmits the clock is read again and compared with the lease; service packets
//! that it does not cover are dropped and counted (DESIGN "Lease").

use std::sync::Arc;

use arrayvec::ArrayVec;
use dpdk::ring::{Consumer, Producer};
use dpdk::{Mempool, RxQueue};

use crate::base::buffer::Buffer;
use crate::base::counters::{Counter, Counters};
use crate::base::ids::{PortId, ShardId, WorkerId};
use crate::base::io::{Io, PassOn, Punt, TxClass};
use crate::base::limits::BURST_MAX;
use crate::base::time::{Duration, Instant};
use crate::distributor::tell::{Tell, Told};
use crate::driver::clock::Clock;
use crate::driver::intake::Intake;
use crate::driver::lcore::{Site, World};
use crate::driver::lease::Lease;
use crate::driver::mbuf::{Packet, SharedPacket};
use crate::driver::outbox::{Outbox, Relay};
use crate::driver::rings::{Frame, WorkerEnds};
use crate::failover::WorkerReport;
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
    worker: WorkerId,
    pool: Mempool,
    clock: Clock,
    lease: Arc<Lease>,
    counters: Arc<Counters>,
    outboxes: Vec<Outbox>,
    relays: Vec<(PortId, Relay)>,
    intake: Intake,
    /// Rings by which packets come, and where they are from.
    handed: Vec<(Origin, Consumer<Packet>)>,
    frames: Option<Consumer<Frame>>,
    commands_of: [Consumer<Command>; 2],
    reports: Producer<WorkerReport>,
    events: Producer<Event>,
    /// Commands of the master that were taken from the ring together, the first one at the end.
    commands: ArrayVec<Command, BURST_MAX>,
}

impl DpdkIo {
    /// The world of one worker; moved to its lcore.
    pub fn new(setup: DpdkIoSetup) -> DpdkIo {
        let DpdkIoSetup { worker, pool, clock, lease, counters, rx, outboxes, relays, ends } = setup;
        let WorkerEnds { passing, distributed, handed, frames, commands: commands_of, reports, events } =
            ends;
        let distributed = distributed.into_iter().map(|ring| (Origin::Distributor, ring));
        let handed = distributed.chain(handed.into_iter().map(|ring| (Origin::Worker, ring))).collect();
        let intake = Intake::new(rx, passing, pool.clone(), clock, Arc::clone(&counters));
        let commands = ArrayVec::new();
        DpdkIo {
            worker,
            pool,
            clock,
            lease,
            counters,
            outboxes,
            relays,
            intake,
            handed,
            frames,
            commands_of,
            reports,
            events,
            commands,
        }
    }

    #[inline(never)]
    fn send_unready(&mut self, port: PortId, packet: Packet, class: TxClass) {
        let DpdkIo { outboxes, clock, lease, counters, .. } = self;
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

impl PassOn for DpdkIo {
    type Buf = Packet;

    fn punt(&mut self, to: Punt, packet: Packet) {
        self.intake.punt(to, packet);
    }

    #[inline]
    fn hand_over(&mut self, to: WorkerId, packet: Packet) {
        self.intake.hand_over(to, packet);
    }

    fn mark(&mut self, to: WorkerId, shard: ShardId) -> bool {
        self.intake.mark(to, shard)
    }
}

impl Io for DpdkIo {
    type Shared = SharedPacket;

    #[inline]
    fn alloc(&mut self) -> Option<Packet> {
        let packet = Packet::alloc(&self.pool);
        if packet.is_none() {
            self.counters.bump(Counter::DropNoBuffer);
        }
        packet
    }

    #[inline(always)]
    fn send(&mut self, port: PortId, packet: Packet, class: TxClass) {
        if let Some(outbox) = self.outboxes.get_mut(usize::from(port.0))
            && let Err(packet) = outbox.offer(packet, class)
        {
            self.send_unready(port, packet, class);
        }
    }

    fn clone_shared(&mut self, packet: &Packet) -> Option<SharedPacket> {
        let shared = packet.share(&self.pool);
        if shared.is_none() {
            self.counters.bump(Counter::DropNoBuffer);
        }
        shared
    }

    fn send_shared(&mut self, port: PortId, packet: SharedPacket, class: TxClass) {
        let DpdkIo { outboxes, clock, lease, counters, .. } = self;
        if let Some(outbox) = outboxes.get_mut(usize::from(port.0)) {
            outbox.push_shared(packet, class, || lease.covers(clock.now()), counters);
        }
    }
}

impl Tell for DpdkIo {
    fn room_to_tell(&self) -> usize {
        self.intake.room_to_tell()
    }

    fn tell_others(&mut self, told: &Told) -> bool {
        self.intake.tell_others(told)
    }
}

impl Site for DpdkIo {
    #[inline]
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn sources(&self) -> usize {
        self.intake.sources() + self.handed.len()
    }

    #[inline]
    fn receive(&mut self, source: usize, packets: &mut Vec<Packet>) {
        match source.checked_sub(self.intake.sources()) {
            None => self.intake.receive(source, packets),
            Some(ring) => {
                let Some((_, ring)) = self.handed.get_mut(ring) else { return };
                let mut burst = ArrayVec::<Packet, BURST_MAX>::new();
                ring.pop(&mut burst);
                packets.extend(burst);
            }
        }
    }

    #[inline]
    fn hear(&mut self) -> Option<Told> {
        self.intake.hear()
    }

    fn serves(&self) -> bool {
        self.lease.covers(self.clock.now())
    }

    #[inline]
    fn flush(&mut self) {
        self.intake.flush();
        let DpdkIo { outboxes, clock, lease, counters, .. } = self;
        // Asked right before the first transmit that needs it, for one burst of each queue.
        let mut covered = None;
        for outbox in outboxes {
            outbox.flush(|| *covered.get_or_insert_with(|| lease.covers(clock.now())), counters);
        }
    }

    fn rest(&mut self, span: Duration) {
        self.intake.rest(span);
    }
}

impl World for DpdkIo {
    #[inline]
    fn command(&mut self) -> Option<Command> {
        if self.commands.is_empty() {
            let [of_liveness, of_master] = &mut self.commands_of;
            if let Some(command) = of_liveness.pop_one() {
                return Some(command);
            }
            of_master.pop(&mut self.commands);
            self.commands.reverse();
        }
        self.commands.pop()
    }

    #[inline]
    fn origin(&self, source: usize) -> Origin {
        let ring = source.checked_sub(self.intake.sources()).and_then(|ring| self.handed.get(ring));
        ring.map_or(Origin::Port, |(origin, _)| *origin)
    }

    fn relay(&mut self) -> usize {
        let mut count = 0;
        for _ in 0..FRAMES_PER_TURN {
            let Some(frame) = self.frames.as_mut().and_then(|frames| frames.pop_one()) else {
                break;
            };
            self.send_frame(&frame);
            count += 1;
        }
        let DpdkIo { relays, outboxes, clock, lease, counters, .. } = self;
        for (port, relay) in relays {
            if let Some(outbox) = outboxes.get_mut(usize::from(port.0)) {
                count += relay.relay(outbox, || lease.covers(clock.now()), counters);
            }
        }
        count
    }

    fn tell(&mut self, event: Event) -> Result<(), Event> {
        let DpdkIo { worker, reports, events, counters, .. } = self;
        match report_of(*worker, &event) {
            Some(report) => reports.push_one(report).map_err(|_| event),
            // Flows may be in it; or what is to be dropped elsewhere, by who waits for it.
            None if matches!(event, Event::Move(_) | Event::Configured(_)) => events.push_one(event),
            None => {
                // Neighbours are asked for again, and who asked for an answer does not wait for ever.
                if events.push_one(event).is_err() {
                    counters.bump(Counter::EventsDropped);
                }
                Ok(())
            }
        }
    }
}
