//! One lcore with its queues: what the loop of a worker or of a distributor does, a turn at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use baton::base::buffer::{Buffer, Handed, RxMeta};
use baton::base::counters::{Counter, Counters};
use baton::base::ids::{PortId, ShardId, WorkerId};
use baton::base::io::{Io, PassOn, Punt, TxClass};
use baton::base::limits::BURST_MAX;
use baton::base::time::Instant;
use baton::distributor::spread::Distributor;
use baton::distributor::tell::{Tell, Told};
use baton::driver::memory::{PlainBuffer, SharedPlainBuffer};
use baton::flow::shard::Move;
use baton::worker::message::{Command, Event};
use baton::worker::moving::{Cargo, MoveCommand};
use baton::worker::{Origin, Worker};

use crate::agenda::Nanos;
use crate::clock::Clock;
use crate::flows::Sight;

/// Frames that wait in a port's queue of one lcore.
const RX_MAX: usize = 256;
/// Packets that wait in the ring from one lcore to another.
const HANDED_MAX: usize = 256;
/// What one lcore has told another and it has not heard.
const TOLD_MAX: usize = 256;
/// How slow an lcore is.
#[derive(Clone, Copy, Debug)]
pub struct Slow {
    /// It takes so many frames of a port in a turn.
    pub frames: usize,
    /// A turn takes so long.
    pub turn: Nanos,
}

/// A frame on its way out.
pub struct Departure {
    pub port: PortId,
    pub frame: Vec<u8>,
    pub class: TxClass,
    /// Of a service's packet: what it was when it came, or what is wrong with its flow.
    pub came_as: Option<Result<Sight, String>>,
}

/// What a turn led to outside of the lcore.
#[derive(Default)]
pub struct Outside {
    pub sent: Vec<Departure>,
    pub punted: Vec<(Punt, PortId, Vec<u8>)>,
    pub handed: Vec<(WorkerId, PlainBuffer)>,
    pub events: Vec<Event>,
    pub told: Vec<Told>,
    /// How much others have room for.
    pub room_to_tell: usize,
}

impl PassOn for Outside {
    type Buf = PlainBuffer;

    fn punt(&mut self, to: Punt, packet: PlainBuffer) {
        self.punted.push((to, packet.rx().port, packet.to_bytes()));
    }

    fn hand_over(&mut self, to: WorkerId, packet: PlainBuffer) {
        self.handed.push((to, packet));
    }

    fn mark(&mut self, to: WorkerId, shard: ShardId) -> bool {
        let mut marker = PlainBuffer::new();
        marker.set_handed(Handed::Marker(shard));
        self.handed.push((to, marker));
        true
    }
}

impl Tell for Outside {
    fn room_to_tell(&self) -> usize {
        self.room_to_tell - self.told.len()
    }

    fn tell_others(&mut self, told: &Told) -> bool {
        let has_room = self.room_to_tell() > 0;
        if has_room {
            self.told.push(*told);
        }
        has_room
    }
}

impl Io for Outside {
    type Shared = SharedPlainBuffer;

    fn alloc(&mut self) -> Option<PlainBuffer> {
        Some(PlainBuffer::new())
    }

    fn send(&mut self, port: PortId, mut packet: PlainBuffer, class: TxClass) {
        packet.finish().expect("what is asked of the port makes sense");
        self.sent.push(Departure { port, frame: packet.to_bytes(), class, came_as: None });
    }

    fn clone_shared(&mut self, packet: &PlainBuffer) -> Option<SharedPlainBuffer> {
        Some(packet.share())
    }

    fn send_shared(&mut self, port: PortId, packet: SharedPlainBuffer, class: TxClass) {
        let mut packet = packet.finish().expect("what is asked of the port makes sense");
        packet.finish().expect("what is asked of the port makes sense");
        self.sent.push(Departure { port, frame: packet.to_bytes(), class, came_as: None });
    }
}

/// A queue whose entries take a while to be seen, in order.
pub struct Delayed<T>(VecDeque<(Nanos, T)>);

impl<T> Default for Delayed<T> {
    fn default() -> Delayed<T> {
        Delayed(VecDeque::new())
    }
}

impl<T> Delayed<T> {
    pub fn push(&mut self, seen_at: Nanos, item: T) {
        let last = self.0.back().map_or(0, |(at, _)| *at);
        self.0.push_back((seen_at.max(last), item));
    }

    pub fn pop(&mut self, now: Nanos) -> Option<T> {
        if self.0.front().is_some_and(|(at, _)| *at <= now) {
            self.0.pop_front().map(|(_, item)| item)
        } else {
            None
        }
    }

    pub fn next_at(&self) -> Option<Nanos> {
        self.0.front().map(|(at, _)| *at)
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|(_, item)| item)
    }
}

/// What an lcore runs.
pub enum Program {
    Worker(Box<Worker<PlainBuffer>>),
    Distributor(Box<Distributor>),
}

pub struct Lcore {
    program: Program,
    pub counters: Arc<Counters>,
    rx: VecDeque<(PortId, Vec<u8>)>,
    pub rx_dropped: u64,
    /// The rings from every lcore, and where those packets are from.
    rings: Vec<(VecDeque<PlainBuffer>, Origin)>,
    /// What every lcore has told this one.
    told: Vec<VecDeque<Told>>,
    pub commands: Delayed<Command>,
    pub injects: Delayed<Departure>,
    /// Shards that move, of which a distributor is told.
    pub moves: Delayed<Move>,
    pub outbox: Vec<Departure>,
    /// A transmit is on the agenda.
    pub transmits: bool,
    /// When its next turn is; turns on the agenda for another time are void.
    pub turn_at: Nanos,
    /// It went round since the liveness thread looked.
    pub moved: bool,
    /// It stands still until then.
    pub stalled_until: Nanos,
    /// It is slower than others.
    pub slow: Option<Slow>,
}

impl Lcore {
    /// Of an appliance of so many workers and distributors.
    pub fn new(program: Program, workers: usize, distributors: usize, counters: Arc<Counters>) -> Lcore {
        let from_workers = (0..workers).map(|_| Origin::Worker);
        let from_distributors = (0..distributors).map(|_| Origin::Distributor);
        let origins = from_workers.chain(from_distributors);
        Lcore {
            program,
            counters,
            rx: VecDeque::new(),
            rx_dropped: 0,
            rings: origins.map(|origin| (VecDeque::new(), origin)).collect(),
            told: vec![VecDeque::new(); workers + distributors],
            commands: Delayed::default(),
            injects: Delayed::default(),
            moves: Delayed::default(),
            outbox: Vec::new(),
            transmits: false,
            turn_at: 0,
            moved: false,
            stalled_until: 0,
            slow: None,
        }
    }

    /// The worker, if it is one.
    pub fn worker(&self) -> Option<&Worker<PlainBuffer>> {
        match &self.program {
            Program::Worker(worker) => Some(worker),
            Program::Distributor(_) => None,
        }
    }

    pub fn worker_mut(&mut self) -> Option<&mut Worker<PlainBuffer>> {
        match &mut self.program {
            Program::Worker(worker) => Some(worker),
            Program::Distributor(_) => None,
        }
    }

    /// Flows of other workers that it has been given, and has not seen yet.
    pub fn cargo(&self) -> impl Iterator<Item = &Box<Cargo>> {
        self.commands.iter().filter_map(|command| match command {
            Command::Move(MoveCommand::Take(cargo)) => Some(cargo),
            _ => None,
        })
    }

    /// A frame in the port's queue; a full one drops.
    pub fn receive(&mut self, port: PortId, frame: Vec<u8>) {
        if self.rx.len() < RX_MAX {
            self.rx.push_back((port, frame));
        } else {
            self.rx_dropped += 1;
        }
    }

    /// A packet that another lcore received; whether there was room in the ring.
    pub fn take_over(&mut self, from: usize, packet: PlainBuffer) -> bool {
        let (ring, _) = &mut self.rings[from];
        // A marker that finds no room comes again: here it waits in the ring.
        let has_room = ring.len() < HANDED_MAX || matches!(packet.handed(), Handed::Marker(_));
        if has_room {
            ring.push_back(packet);
        }
        has_room
    }

    /// How much more another lcore may tell this one.
    pub fn room_to_be_told(&self, from: usize) -> usize {
        TOLD_MAX - self.told[from].len()
    }

    pub fn be_told(&mut self, from: usize, told: impl Iterator<Item = Told>) {
        self.told[from].extend(told);
    }

    /// One turn of the loop, at this time of the appliance and of the world. `serves`: the lease covers it;
    /// `room_to_tell`: what all others have room for.
    pub fn turn(&mut self, now: Instant, world_now: Nanos, serves: bool, room_to_tell: usize) -> Outside {
        let mut outside = Outside { room_to_tell, ..Outside::default() };
        self.moved = true;
        let count = self.rx.len().min(self.slow.map_or(BURST_MAX, |slow| slow.frames));
        let received = |(port, frame): (PortId, Vec<u8>)| {
            PlainBuffer::from_bytes(&frame).received(RxMeta { port, ..RxMeta::default() })
        };
        let mut burst: Vec<PlainBuffer> = self.rx.drain(..count).map(received).collect();
        let worker = match &mut self.program {
            Program::Worker(worker) => worker,
            Program::Distributor(distributor) => {
                if let Some(these) = self.moves.pop(world_now) {
                    distributor.redirect(these, &mut outside);
                }
                for told in self.told.iter_mut().flat_map(|ring| ring.drain(..)) {
                    distributor.hear(now, &told);
                }
                distributor.handle_burst(now, &mut burst, &mut outside);
                distributor.poll(now, &mut outside);
                return outside;
            }
        };
        if worker.remembers() {
            worker.set_serves(serves);
            worker.set_busy((count * 1000 / BURST_MAX) as u16);
            for told in self.told.iter_mut().flat_map(|ring| ring.drain(..)) {
                worker.hear(now, &told);
            }
        }
        while let Some(command) = self.commands.pop(world_now) {
            worker.handle_command(now, command, &mut outside);
        }
        while let Some(departure) = self.injects.pop(world_now) {
            outside.sent.push(departure);
        }
        worker.set_origin(Origin::Port);
        worker.handle_burst(now, &mut burst, &mut outside);
        for (ring, origin) in self.rings.iter_mut().filter(|(ring, _)| !ring.is_empty()) {
            burst.extend(ring.drain(..ring.len().min(BURST_MAX)));
            worker.set_origin(*origin);
            worker.handle_burst(now, &mut burst, &mut outside);
        }
        worker.poll(now, &mut outside);
        outside.events.extend(std::iter::from_fn(|| worker.poll_event()));
        outside
    }

    /// When the next turn is due: at once when something waits, and after `idle` at the latest.
    pub fn next_turn(&self, now: Nanos, clock: &Clock, work: Nanos, idle: Nanos) -> Nanos {
        if !self.rx.is_empty() || self.rings.iter().any(|(ring, _)| !ring.is_empty()) {
            return now + work;
        }
        let deadline = self.worker().map_or(Nanos::MAX, |worker| clock.when(worker.next_deadline()));
        let waiting = [self.commands.next_at(), self.injects.next_at(), self.moves.next_at()]
            .into_iter()
            .flatten()
            .min();
        let due = deadline.min(waiting.unwrap_or(Nanos::MAX)).max(now + work);
        due.min(now + idle)
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.counters.value(counter)
    }
}
