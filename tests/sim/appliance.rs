//! One life of an appliance: workers, distributors, the liveness machine and the master on one
//! thread, with the queues that join them in the real process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use baton::base::counters::{Counter, Counters};
use baton::base::ids::{BootId, NodeId, PortId, Term, WorkerId};
use baton::base::io::{Punt, TxClass};
use baton::base::rng::Rng;
use baton::base::time::Instant;
use baton::config::snapshot::Snapshot;
use baton::distributor::spread::{Distributor, DistributorSetup};
use baton::failover::{
    Failover, FailoverEvent, FailoverSetup, FailoverStatus, Operator, PortSetup, Refusal, WorkerReport,
};
use baton::flow::toeplitz::{MICROSOFT_KEY, Toeplitz};
use baton::flow::{Flow, FlowIndex, Key, Stamp, TcpState};
use baton::master::rebalance::Outcome;
use baton::master::route::report_of;
use baton::master::{Master, MasterSetup};
use baton::mirror::Kept;
use baton::seal::{self, MemberInfo, Mirroring, Tracked};
use baton::traffic::routes::NextHop;
use baton::wire::ethernet::MacAddress;
use baton::worker::message::{Choice, ChoiceAnswer, Command, Event, WorkerStatus};
use baton::worker::moving::MoveEvent;
use baton::worker::{Worker, WorkerSetup};

use crate::agenda::{Agenda, Happening, Nanos, US};
use crate::clock::Clock;
use crate::division::{Division, Scaling, Steering};
use crate::flows::{self, Sight};
use crate::lcore::{Delayed, Departure, Lcore, Outside, Program, Slow};
use crate::variants::{DivisionVariant, Variants};
use crate::witness::Mail;

mod threads;

pub const PORTS: usize = 3;
/// After a thread failed, the process lasts so long at most: the driver's pause bound and some more.
const BROKEN_LEAVE_MAX: Nanos = 64_000 * US;
/// Liveness frames and others that wait for their thread.
const PUNTED_MAX: usize = 512;
pub const GROUP_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// What survives a crash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk {
    pub reserved: u64,
    pub boots: u64,
}

/// What an appliance is started with.
pub struct Start {
    /// Its place among the appliances.
    pub at: usize,
    /// Counts the lives of all appliances.
    pub life: u64,
    pub snapshot: Arc<Snapshot>,
    pub disk: Disk,
    pub variants: Variants,
    pub division: Division,
    pub steering: Steering,
    /// Threads look less often when there is nothing to do.
    pub light: bool,
    pub clock: Clock,
    /// Packets that a worker may hold.
    pub hold_packets_max: usize,
}

pub fn link_addresses(at: usize) -> Vec<[u8; 6]> {
    (0..PORTS as u8).map(|port| [2, 0, 0, 0, 0x10 + at as u8, port]).collect()
}

/// Under how many sessions streams to each node were opened.
pub type Sessions = BTreeMap<NodeId, u64>;

/// From the liveness thread to the master.
enum News {
    Role { active: bool },
    Event(FailoverEvent),
}

/// What the world is to be told.
pub enum Note {
    Happened(FailoverEvent),
    MayExit,
    Moved(Outcome),
}

pub struct Appliance {
    at: usize,
    life: u64,
    division: Division,
    variant: DivisionVariant,
    /// Workers, and then distributors.
    pub lcores: Vec<Lcore>,
    scaling: Scaling,
    pub failover: Failover,
    pub master: Master,
    /// Until when service packets may be sent: what workers read right before a transmit.
    pub lease: Instant,
    frames: VecDeque<(PortId, Vec<u8>)>,
    pub mail: Mail,
    reports: Delayed<WorkerReport>,
    durable: Option<u64>,
    role_epoch: u64,
    punted: VecDeque<(PortId, Vec<u8>)>,
    resolves: Delayed<NextHop>,
    /// What workers say of shards that move.
    moves: Delayed<(WorkerId, MoveEvent)>,
    news: Delayed<News>,
    pub notes: Vec<Note>,
    /// Sessions under which mirror streams were opened.
    pub sessions: Sessions,
    /// No thread runs: the process is stopped.
    pub paused: bool,
    /// How long threads sleep.
    naps: Naps,
    pub clock: Clock,
    /// A thread failed: nothing is sent for the service any more.
    pub broken: bool,
    /// The group was told.
    left: bool,
    /// The liveness thread failed.
    is_deaf: bool,
    /// The master thread failed.
    is_headless: bool,
}

/// A flow that its appliance takes for protected.
pub struct Protected {
    pub client: Key,
    pub server: Key,
    /// When it last changed, if digests were found equal since.
    pub confirmed: Option<Stamp>,
}

/// How long threads sleep at most when there is nothing to do, and at least.
#[derive(Clone, Copy)]
struct Naps {
    lcore: Nanos,
    liveness: [Nanos; 2],
    master: [Nanos; 2],
}

impl Naps {
    const USUAL: Naps =
        Naps { lcore: 700 * US, liveness: [300 * US, 1000 * US], master: [200 * US, 1000 * US] };
    const LONG: Naps =
        Naps { lcore: 4000 * US, liveness: [900 * US, 1000 * US], master: [1000 * US, 3000 * US] };
}

impl Appliance {
    pub fn start(start: Start, agenda: &mut Agenda) -> Appliance {
        let Start { at, life, snapshot, disk, variants, division, steering, light, clock, hold_packets_max } =
            start;
        let config = &snapshot.checked;
        let now = clock.read(agenda.now);
        let boot = BootId(agenda.rng.u64(1..));
        let toeplitz = Arc::new(Toeplitz::new(&MICROSOFT_KEY).expect("a good key"));
        let workers = division.workers() as u16;
        let first_owns_all = variants.division == DivisionVariant::FirstOwnsAll;
        let hash_seed = agenda.rng.u64(..);
        let mut program = |number: u16, counters: &Arc<Counters>| {
            if number >= workers {
                return Program::Distributor(Box::new(
                    Distributor::new(DistributorSetup {
                        snapshot: Arc::clone(&snapshot),
                        workers,
                        link_addresses: link_addresses(at),
                        toeplitz: Arc::clone(&toeplitz),
                        me: WorkerId(number),
                        hash_seed: 5,
                        now,
                        counters: Arc::clone(counters),
                    })
                    .expect("memory"),
                ));
            }
            let worker = Worker::new(WorkerSetup {
                id: WorkerId(number),
                workers: if number == 0 && first_owns_all { 1 } else { workers },
                boot,
                snapshot: Arc::clone(&snapshot),
                link_addresses: link_addresses(at),
                toeplitz: Arc::clone(&toeplitz),
                balance_secret: [7; 16],
                hash_seed,
                seed: agenda.rng.u64(..),
                boot_parity: (disk.boots > 0).then_some(disk.boots & 1 == 1),
                now,
                hold_packets_max,
                fragments_waiting_max: 512,
                counters: Arc::clone(counters),
                variant: variants.mirror,
            });
            Program::Worker(Box::new(worker.expect("memory")))
        };
        let lcores: Vec<Lcore> = (0..division.lcores())
            .map(|number| {
                let counters = Arc::new(Counters::default());
                let program = program(number as u16, &counters);
                Lcore::new(program, division.workers(), division.distributors, counters)
            })
            .collect();
        let last_seen = lcores
            .iter()
            .zip((0..).map(WorkerId))
            .filter_map(|(lcore, id)| Some((id, lcore.worker()?.flows().last_seen.clone())))
            .collect();
        let mirror = config.mirror.as_ref().expect("a pair mirrors");
        let member = MemberInfo {
            group: config.appliance.group,
            node: config.appliance.node,
            boot,
            version_min: 1,
            version_max: 1,
            capabilities: 0,
            workers,
            shards: 256,
            hash_keys: 5,
            udp_port: mirror.udp_port,
            generation: snapshot.generation,
            mirroring: Mirroring {
                tracked: Tracked::only(&mirror.only).expect("the check lets no more through"),
                is_periodic: mirror.maintenance_every.is_some(),
            },
        };
        let port = |(port, mac): (usize, [u8; 6])| PortSetup {
            id: PortId(port as u16),
            mac: MacAddress(mac),
            mirror: PortId(port as u16) == mirror.port,
        };
        let failover = Failover::new(
            FailoverSetup {
                member,
                peers: mirror.peers.iter().map(|peer| peer.node).collect(),
                ports: link_addresses(at).into_iter().enumerate().map(port).collect(),
                config: config.failover.clone(),
                keys: seal::Key::parse(GROUP_KEY).expect("a key").into(),
                reserved: Term { counter: disk.reserved, node: config.appliance.node },
                workers: division.workers(),
                lcores: division.lcores(),
                counters: Arc::new(Counters::default()),
                variant: variants.failover,
            },
            now,
        );
        let seed = agenda.rng.u64(..);
        let setup = MasterSetup {
            snapshot,
            link_addresses: link_addresses(at),
            last_seen,
            distributors: division.distributors as u16,
            now,
            seed,
        };
        let mut appliance = Appliance {
            at,
            life,
            division,
            variant: variants.division,
            lcores,
            scaling: Scaling::new(division, steering, &mut agenda.rng),
            failover,
            master: Master::new(setup),
            lease: Instant::ZERO,
            frames: VecDeque::new(),
            mail: Mail::default(),
            reports: Delayed::default(),
            durable: None,
            role_epoch: 0,
            punted: VecDeque::new(),
            resolves: Delayed::default(),
            moves: Delayed::default(),
            news: Delayed::default(),
            notes: Vec::new(),
            sessions: Sessions::default(),
            paused: false,
            naps: if light { Naps::LONG } else { Naps::USUAL },
            clock,
            broken: false,
            left: false,
            is_deaf: false,
            is_headless: false,
        };
        (0..division.lcores()).for_each(|lcore| appliance.wake(lcore, agenda.now, agenda));
        agenda.at(agenda.now + 5 * US, Happening::Liveness { at, life });
        agenda.at(agenda.now + 9 * US, Happening::Master { at, life });
        appliance
    }

    /// Gives an lcore its next turn at `when`, unless one is due earlier.
    fn wake(&mut self, number: usize, when: Nanos, agenda: &mut Agenda) {
        let lcore = &mut self.lcores[number];
        let when = when.max(lcore.stalled_until);
        if self.paused {
            return;
        }
        if lcore.turn_at > agenda.now && lcore.turn_at <= when {
            return;
        }
        lcore.turn_at = when.max(agenda.now + 1);
        let at = lcore.turn_at;
        agenda.at(at, Happening::Turn { at: self.at, life: self.life, lcore: number });
    }

    /// A frame reaches a port, which hands it to some lcore; how often that choice changed until now.
    pub fn receive(&mut self, port: usize, frame: Vec<u8>, key: Option<&Key>, agenda: &mut Agenda) -> u64 {
        let lcore = self.scaling.lcore(port, &frame, key, &mut agenda.rng);
        self.lcores[lcore].receive(PortId(port as u16), frame);
        let when = agenda.now + agenda.span(2 * US, 20 * US);
        self.wake(lcore, when, agenda);
        self.scaling.epoch
    }

    /// From now on ports give flows to other lcores than before.
    pub fn rehash(&mut self, agenda: &mut Agenda) {
        self.scaling.rehash(&mut agenda.rng);
    }

    pub fn turn(&mut self, number: usize, agenda: &mut Agenda) {
        if self.lcores[number].turn_at != agenda.now {
            return;
        }
        if self.lcores[number].stalled_until > agenda.now {
            let until = self.lcores[number].stalled_until;
            self.lcores[number].turn_at = 0;
            return self.wake(number, until, agenda);
        }
        let (now, room) = (self.clock.read(agenda.now), self.room_to_tell(number));
        let outside = self.lcores[number].turn(now, agenda.now, now < self.lease, room);
        self.take_outside(number, outside, agenda);
        let mut work = agenda.span(2 * US, 20 * US);
        if let Some(Slow { turn, .. }) = self.lcores[number].slow {
            work = turn;
            let lcore = &mut self.lcores[number];
            lcore.stalled_until = lcore.stalled_until.max(agenda.now + turn);
        }
        let next = self.lcores[number].next_turn(agenda.now, &self.clock, work, self.naps.lcore);
        self.wake(number, next, agenda);
    }

    fn take_outside(&mut self, number: usize, outside: Outside, agenda: &mut Agenda) {
        let Outside { mut sent, punted, handed, events, told, .. } = outside;
        for (_, other) in self.lcores.iter_mut().enumerate().filter(|(other, _)| *other != number) {
            other.be_told(number, told.iter().copied());
        }
        let of_services = sent.iter_mut().filter(|departure| departure.class == TxClass::Service);
        let seen = of_services.filter_map(|departure| Some((Sight::of(&departure.frame)?, departure)));
        let mut seen: Vec<(Sight, &mut Departure)> = seen.collect();
        let leaves = |event: &Event| matches!(event, Event::Move(MoveEvent::Cargo(_)));
        let ends = seen.iter().any(|(sight, _)| sight.resets) || events.iter().any(leaves);
        for (sight, departure) in &mut seen {
            departure.came_as = flows::sent_by(&self.lcores, number, *sight, ends);
        }
        flows::forget_replaced(&self.lcores[number], &mut seen);
        let lcore = &mut self.lcores[number];
        lcore.outbox.extend(sent);
        if !lcore.outbox.is_empty() && !lcore.transmits {
            lcore.transmits = true;
            // Nothing else is done before that.
            // Preempted in between, once in a while.
            let after =
                if agenda.rng.u16(..) < 100 { agenda.span(US, 2000 * US) } else { agenda.span(US, 8 * US) };
            let at = agenda.now + after;
            lcore.stalled_until = lcore.stalled_until.max(at + 1);
            agenda.at(at, Happening::Transmit { at: self.at, life: self.life, lcore: number });
        }
        for (to, port, frame) in punted {
            let ring = match to {
                Punt::Liveness => &mut self.frames,
                Punt::Master => &mut self.punted,
            };
            if ring.len() < PUNTED_MAX {
                ring.push_back((port, frame));
            }
        }
        for (to, packet) in handed {
            let to = self.ring_to(number, usize::from(to.0), agenda);
            if !self.lcores[to].take_over(number, packet) {
                self.lcores[number].counters.bump(Counter::DropHandOverFull);
            }
            let when = agenda.now + agenda.span(US, 20 * US);
            self.wake(to, when, agenda);
        }
        let id = WorkerId(number as u16);
        for event in events {
            let seen_at = agenda.now + agenda.span(US, 300 * US);
            match report_of(id, &event) {
                Some(report) => self.reports.push(seen_at, report),
                None => match event {
                    Event::Resolve { hop } => self.resolves.push(seen_at, hop),
                    Event::Move(event) => self.moves.push(seen_at, (id, event)),
                    _ => {}
                },
            }
        }
    }

    fn room_to_tell(&self, from: usize) -> usize {
        let others = self.lcores.iter().enumerate().filter(|(other, _)| *other != from);
        others.map(|(_, lcore)| lcore.room_to_be_told(from)).min().unwrap_or(usize::MAX)
    }

    /// The worker that gets what an lcore hands over to `to`.
    fn ring_to(&self, from: usize, to: usize, agenda: &mut Agenda) -> usize {
        let workers = self.division.workers();
        let strays = self.variant == DivisionVariant::Strays && from >= workers && agenda.rng.u8(..) < 32;
        if strays { (to + 1) % workers } else { to }
    }

    /// Takes what a worker sends now: the lease is asked here.
    pub fn transmit(&mut self, number: usize, now: Nanos) -> Vec<Departure> {
        let (now, lease) = (self.clock.read(now), self.lease);
        let lcore = &mut self.lcores[number];
        lcore.transmits = false;
        let mut sent = std::mem::take(&mut lcore.outbox);
        sent.retain(|departure| {
            let covered = departure.class == TxClass::Own || now < lease;
            // An answer to a neighbour's question is no loss: whoever serves next announces itself.
            let is_carried = departure.came_as.is_some();
            match covered {
                true => lcore.counters.bump(Counter::TxPackets),
                false if is_carried => lcore.counters.bump(Counter::DropTxLease),
                false => {}
            }
            covered
        });
        sent
    }

    pub fn operator(&mut self, operator: Operator, agenda: &mut Agenda) -> Result<(), Refusal> {
        let result = self.failover.handle_operator(self.clock.read(agenda.now), operator);
        self.execute(agenda);
        result
    }

    pub fn status(&self) -> FailoverStatus {
        self.failover.status()
    }

    pub fn node(&self) -> NodeId {
        self.status().node
    }

    /// Every flow in the tables, and on its way from one to another.
    pub fn flows(&self) -> impl Iterator<Item = Flow> + '_ {
        let workers = self.lcores.iter().filter_map(|lcore| lcore.worker());
        let held = workers.flat_map(|worker| worker.flows().table.iter().map(|(_, flow)| flow));
        let events = self.moves.iter().filter_map(|(_, event)| match event {
            MoveEvent::Cargo(cargo) => Some(cargo),
            _ => None,
        });
        let on_their_way = events.chain(self.lcores.iter().flat_map(Lcore::cargo));
        held.chain(on_their_way.flat_map(|cargo| cargo.flows.iter().map(|moved| moved.flow)))
    }

    /// The flow of a key, of either side, as some worker has it.
    pub fn flow(&self, key: &Key) -> Option<Flow> {
        let tables = self.lcores.iter().filter_map(|lcore| Some(&lcore.worker()?.flows().table));
        tables.filter_map(|table| table.get(table.lookup(key)?.0)).next()
    }

    /// A flow of some worker that is mirrored is in another state; the client's key.
    pub fn damage(&mut self, rng: &mut Rng) -> Option<Key> {
        let mut workers: Vec<_> = self.lcores.iter_mut().filter_map(Lcore::worker_mut).collect();
        let at = rng.usize(..workers.len());
        let table = &mut workers[at].flows_mut().table;
        let all: Vec<_> = table.iter().filter(|(_, flow)| flow.is_mirrored()).collect();
        let (place, flow) = all.get(rng.usize(..all.len().max(1)))?;
        let closed = if flow.tcp == TcpState::Closed { TcpState::Established } else { TcpState::Closed };
        table.update(*place, |flow| flow.tcp = closed);
        Some(flow.client)
    }

    /// What its workers keep, and how much of it they may keep.
    pub fn kept(&self) -> impl Iterator<Item = (usize, Kept)> + '_ {
        let workers = self.lcores.iter().filter_map(Lcore::worker).enumerate();
        workers.flat_map(|(number, worker)| worker.kept().into_iter().map(move |kept| (number, kept)))
    }

    /// An operator says of some flow whether it is mirrored, and hears what came of it.
    pub fn choose(&mut self, agenda: &mut Agenda) -> Option<(Key, Choice, ChoiceAnswer)> {
        let worker = agenda.rng.usize(..self.division.workers());
        let table = &self.lcores[worker].worker()?.flows().table;
        let place = FlowIndex(agenda.rng.u32(..table.places_end().0.max(1)));
        let key = table.get(table.next_occupied(place)?)?.client;
        let choice = [Choice::On, Choice::Off, Choice::Auto][agenda.rng.usize(..3)];
        let said = self.ask(worker, Command::Choose { key, choice }, agenda);
        let answer = said.into_iter().find_map(|event| match event {
            Event::Chosen(answer) => Some(answer),
            _ => None,
        });
        Some((key, choice, answer?))
    }

    /// What each worker says of itself.
    pub fn worker_status(&mut self, agenda: &mut Agenda) -> Vec<WorkerStatus> {
        let mut all = Vec::new();
        for worker in 0..self.division.workers() {
            for event in self.ask(worker, Command::Status, agenda) {
                if let Event::Status(status) = event {
                    all.push(*status);
                }
            }
        }
        all
    }

    /// The flows that the workers take for protected now.
    pub fn protected(&mut self, agenda: &mut Agenda) -> Vec<Protected> {
        let mut all = Vec::new();
        for worker in 0..self.division.workers() {
            let mut next = Some(baton::flow::FlowIndex(0));
            while let Some(from) = next.take() {
                for event in self.ask(worker, Command::Flows { from }, agenda) {
                    if let Event::Flows(slice) = event {
                        let protected = slice.flows.iter().filter(|seen| seen.protected);
                        all.extend(protected.map(|seen| Protected {
                            client: seen.flow.client,
                            server: seen.flow.server,
                            confirmed: seen.confirmed.then_some(seen.flow.changed),
                        }));
                        next = slice.next;
                    }
                }
            }
        }
        all
    }

    /// Asks a worker between two turns; what it says besides goes its usual way.
    fn ask(&mut self, worker: usize, command: Command, agenda: &mut Agenda) -> Vec<Event> {
        let mut outside = Outside { room_to_tell: self.room_to_tell(worker), ..Outside::default() };
        let Some(asked) = self.lcores[worker].worker_mut() else { return Vec::new() };
        asked.handle_command(self.clock.read(agenda.now), command, &mut outside);
        let events = std::iter::from_fn(|| asked.poll_event());
        let is_answer =
            |event: &Event| matches!(event, Event::Status(_) | Event::Flows(_) | Event::Chosen(_));
        let (answers, others) = events.partition(is_answer);
        outside.events = others;
        self.take_outside(worker, outside, agenda);
        answers
    }

    /// Something counted by the lcores.
    pub fn count(&self, counter: Counter) -> u64 {
        self.lcores.iter().map(|lcore| lcore.count(counter)).sum()
    }
}
