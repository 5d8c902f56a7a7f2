//! One worker: distributor, traffic manager and mirror, composed, still pure. Or without the first: packets then come
//! from distributors that have lcores of their own, and not from ports; to the worker that is all the same.
//!
//! Owned by one lcore. Each turn of its loop: [`Worker::handle_command`] for
//! what the master said, [`Worker::handle_burst`] for the packets of each of its
//! queues and for what other lcores handed over, then [`Worker::poll`] once,
//! and [`Worker::poll_event`] until `None`. With nothing to do it may rest until
//! [`Worker::next_deadline`].
//!
//! * `burst`: the way of packets of known flows, a whole burst in stages.
//! * `wide`: the same, what is peculiar to IPv6.
//! * `packet`: any packet's way.
//! * `placing`: whom a packet is for.
//! * `first`: the first packet of a flow.
//! * `fragments`: packets in pieces.
//! * `watching`: the sequence numbers of connections whose keys are remembered.
//! * `routed`: packets of no flow, from and to real servers.
//! * `ends`: flows that end.
//! * `choosing`: which flows are mirrored.
//! * `state`: what the mirror says of flows.
//! * `exchange`: mirror frames in and out; `disbelief`: those that are not believed.
//! * [`moving`], in `stages`, `leaving` and `arriving`: shards that go to another worker, or come from one.
//! * `stragglers`: packets that come while this appliance hands over.
//! * `configuring`: another generation of the configuration.
//! * `report`: what the worker says of itself; `kept`: how much it keeps, for tests.
//! * `setup`: what it is made from; `tables`: what it looks up.
//!
//! Not yet: the mirror on an lcore of its own.

mod arriving;
mod burst;
mod choosing;
mod configuring;
mod disbelief;
mod ends;
mod exchange;
mod first;
mod fragments;
mod kept;
mod leaving;
pub mod message;
pub mod moving;
mod packet;
mod placing;
mod report;
mod routed;
mod setup;
mod stages;
mod state;
mod stragglers;
mod tables;
mod watching;
mod wide;

use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::base::buffer::Buffer;
use crate::base::counters::{Counter, Counters};
use crate::base::ids::{NodeId, Term, WorkerId};
use crate::base::io::{Io, TxClass};
use crate::base::limits::{BURST_MAX, RESTING_MORE_THAN_FLOWS};
use crate::base::memory::NoMemory;
use crate::base::rng::Rng;
use crate::base::spans::Spans;
use crate::base::time::{Duration, Instant};
use crate::distributor::doors::Doors;
use crate::distributor::fragment::Reassembly;
use crate::distributor::place::{Placer, PlacerSetup, Work};
use crate::distributor::tell::Tell;
use crate::flow::FlowIndex;
use crate::flow::entry::FlowFlags;
use crate::flow::flows::{Flows, FlowsSetup};
use crate::flow::ports::PortSetup;
use crate::flow::shard::Owners;
use crate::flow::toeplitz::Toeplitz;
use crate::mirror::hold::Hold;
use crate::mirror::policy::Chosen;
use crate::mirror::{Mirror, MirrorSetup, Standing};
use crate::traffic::adjacency::{Adjacencies, Resolution, WaitingPacket};
use crate::traffic::counts::Counts;
use crate::wire::ethernet::MacAddress;

use burst::Note;
use choosing::TakingUp;
use disbelief::Disbelief;
use exchange::Aside;
use first::Coming;
use message::{Command, Event, Role};
use moving::Moving;
pub use setup::WorkerSetup;
use stragglers::Stragglers;
pub use tables::Generation;
use tables::Tables;
use watching::Watched;

/// Where a burst is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A queue of a port: anyone may have sent it.
    Port,
    /// A distributor's lcore, which handed it over as it came.
    Distributor,
    /// Another worker of this appliance, which handed it over.
    Worker,
}

/// Events that wait for the driver; more are dropped and counted, but for
/// answers, of which there is one for each command.
const EVENTS_MAX: usize = 4096;

/// Between two [`Event::Sync`].
const SYNC_INTERVAL: Duration = Duration::from_millis(10);

/// A rewritten packet that waits for its flow to be known to the in-sync set.
struct HeldPacket<B> {
    packet: B,
    adjacency: u32,
}

/// One worker, for packets in buffers of type `B`.
pub struct Worker<B: Buffer> {
    id: WorkerId,
    workers: u16,
    /// Which worker owns each shard.
    owners: Owners,
    role: Role,
    /// It is active, and does not hold packets for a successor.
    forwards: bool,
    stragglers: Stragglers<B>,
    tables: Tables,
    toeplitz: Arc<Toeplitz>,
    balance_secret: [u8; 16],
    link_addresses: Vec<[u8; 6]>,
    virtual_v4: [u8; 6],
    virtual_v6: [u8; 6],
    flows: Flows,
    /// Which shard a packet is of where its hash does not say it.
    placer: Placer,
    /// Sequence numbers of connections whose keys are remembered.
    watched: Watched,
    busy_per_mille: u16,
    /// Packets that this worker had to forward so far, as a traffic manager.
    received: u64,
    /// Packets of services that it sent.
    completed: u64,
    /// A role that was taken and not said, since others have to hear of keys first.
    uninstalled: Option<u64>,
    /// What packets are compared with, made of the link addresses.
    doors: Doors,
    /// Where the bursts that come now are from.
    origin: Origin,
    /// Datagrams in fragments.
    reassembly: Reassembly<B>,
    /// The flows that the packets of a burst begin; empty between bursts.
    coming: Vec<Coming>,
    /// Of a burst's packets; nothing between bursts.
    notes: Vec<Note>,
    adjacencies: Adjacencies<B>,
    counts: Counts,
    mirror: Mirror,
    /// Frames of walks that came and are not applied yet.
    aside: Aside<B>,
    /// What is known of flows of virtual servers with rules about what is mirrored.
    chosen: Chosen,
    /// A handover begins, and flows that were left out are taken up.
    taking_up: Option<TakingUp>,
    /// Records that were refused for want of services, when the configuration was last another one.
    services_refused: u64,
    in_sync: Vec<NodeId>,
    /// Of the set's command.
    in_sync_epoch: u64,
    /// What changed until then may have been let go for fewer members; or a flow that some peer does not know came from
    /// another worker, or went to one.
    holds_since: Instant,
    /// Flows that the master named and that were not looked at yet; empty between turns.
    expired: ArrayVec<FlowIndex, BURST_MAX>,
    /// Shards that come or go.
    moving: Moving<B>,
    hold: Hold<HeldPacket<B>>,
    /// Empty but while packets are being released.
    released: Vec<HeldPacket<B>>,
    hold_timeout: Duration,
    overdue_at: Instant,
    /// Mirror frames that were not believed.
    disbelief: Disbelief,
    /// The successor that everything is flushed to; no new flow begins.
    quiesce: Option<NodeId>,
    flushed: bool,
    sync_at: Instant,
    events: VecDeque<Event>,
    /// How long flows waited to be known to a peer.
    protection_latency: Spans,
    /// How long the first packets of flows were held.
    held_for: Spans,
    counters: Arc<Counters>,
    rng: Rng,
}

impl<B: Buffer> Worker<B> {
    /// A standby without flows.
    pub fn new(setup: WorkerSetup) -> Result<Worker<B>, NoMemory> {
        let config = &setup.snapshot.checked;
        let me = config.appliance.node;
        let peers: Vec<NodeId> =
            config.mirror.iter().flat_map(|mirror| mirror.peers.iter().map(|peer| peer.node)).collect();
        let ports = PortSetup {
            members: peers.len() as u8 + 1,
            rank: peers.iter().filter(|node| **node < me).count() as u8,
            boot_parity: setup.boot_parity,
            booted: setup.now,
            quarantine: config.flows.port_quarantine,
            resting_max: resting_capacity(worker_capacity(config.flows.max, setup.workers)),
        };
        let flows = Flows::new(&FlowsSetup {
            worker: setup.id,
            workers: setup.workers,
            capacity: worker_capacity(config.flows.max, setup.workers),
            hash_seed: setup.hash_seed,
            toeplitz: Arc::clone(&setup.toeplitz),
            ports,
        })?;
        let placer =
            Placer::new(PlacerSetup { me: setup.id, config, hash_seed: setup.hash_seed, now: setup.now })?;
        let watched = Watched::new(flows.capacity(), placer.is_in_use())?;
        let mirror = config.mirror.as_ref();
        // Without peers there are neither rules nor choices.
        let chosen = Chosen::new(mirror.map_or(0, |_| flows.capacity()))?;
        let virtual_router = config.failover.virtual_router_id;
        let mut mirror_room = Mirror::new(MirrorSetup {
            worker: setup.id,
            workers: setup.workers,
            group: config.appliance.group,
            boot: setup.boot,
            capacity: flows.capacity(),
            peers,
            walk_rate: mirror.map_or(0, |mirror| mirror.walk_rate),
            maintenance_every: mirror.and_then(|mirror| mirror.maintenance_every),
            variant: setup.variant,
        })?;
        mirror_room.set_generation(setup.snapshot.generation);
        let mut worker = Worker {
            id: setup.id,
            workers: setup.workers,
            owners: Owners::even(setup.workers),
            role: Role::Standby,
            forwards: false,
            stragglers: Stragglers::new(setup.hold_packets_max),
            hold_timeout: mirror.map_or(Duration::ZERO, |mirror| mirror.hold_timeout),
            tables: Tables::new(Arc::clone(&setup.snapshot), setup.workers),
            toeplitz: setup.toeplitz,
            balance_secret: setup.balance_secret,
            doors: Doors::new(
                &setup.link_addresses,
                [MacAddress::virtual_router_v4, MacAddress::virtual_router_v6].map(|of| of(virtual_router).0),
            ),
            notes: burst::notes(),
            link_addresses: setup.link_addresses,
            virtual_v4: MacAddress::virtual_router_v4(virtual_router).0,
            virtual_v6: MacAddress::virtual_router_v6(virtual_router).0,
            flows,
            watched,
            placer,
            busy_per_mille: 0,
            received: 0,
            completed: 0,
            uninstalled: None,
            origin: Origin::Port,
            reassembly: Reassembly::new(
                setup.id,
                setup.workers,
                setup.fragments_waiting_max,
                setup.hash_seed,
                &mut Rng::with_seed(setup.seed),
            ),
            coming: Vec::with_capacity(BURST_MAX),
            adjacencies: Adjacencies::new(
                [MacAddress::virtual_router_v4, MacAddress::virtual_router_v6].map(|of| of(virtual_router).0),
            ),
            counts: Counts::default(),
            mirror: mirror_room,
            aside: Aside::new(setup.hold_packets_max),
            chosen,
            taking_up: None,
            services_refused: 0,
            in_sync: Vec::new(),
            in_sync_epoch: 0,
            holds_since: setup.now,
            expired: ArrayVec::new(),
            moving: Moving::new(setup.hold_packets_max),
            hold: Hold::new(setup.hold_packets_max),
            released: Vec::new(),
            overdue_at: Instant::ZERO,
            disbelief: Disbelief::new(),
            quiesce: None,
            flushed: false,
            sync_at: setup.now,
            events: VecDeque::with_capacity(EVENTS_MAX),
            protection_latency: Spans::default(),
            held_for: Spans::default(),
            counters: setup.counters,
            rng: Rng::with_seed(setup.seed),
        };
        worker.tables.know_neighbours(&mut worker.adjacencies);
        if worker.tables.has_policies() {
            worker.chosen.populate();
        }
        Ok(worker)
    }

    /// Has memory put behind what each IPv4 flow needs, so that no packet waits for it: before the first one. What rules need of
    /// flows has it already, if there are rules at the start.
    pub fn populate(&mut self) {
        self.flows.populate();
        self.mirror.populate(&self.flows);
    }

    /// The flows of this worker: the master's sweep takes their last-seen array.
    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    /// The flows, to be changed behind the worker's back: as a fault of the machine would, for a test to see who notices.
    pub fn flows_mut(&mut self) -> &mut Flows {
        &mut self.flows
    }

    /// Whether this worker forwards.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Says where the bursts that come from now on are from: of fragments it matters. At first: from ports.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = origin;
    }

    /// Handles what the master or the liveness thread said.
    pub fn handle_command<I: Io<Buf = B> + Tell>(&mut self, now: Instant, command: Command, io: &mut I) {
        if !matches!(command, Command::Expire { .. }) {
            self.end_expired(now); // In the order in which they were said.
            self.empty_aside(now, io);
        }
        match command {
            Command::Role { epoch, role, term } => self.take_role(now, epoch, role, term),
            Command::PeerSession { node, session } => {
                self.mirror.open_session(node, &session, &self.flows);
                self.settle(now, io);
            }
            Command::PeerLost { node } => {
                self.mirror.close_session(node);
                self.settle(now, io);
            }
            Command::InSync { epoch, term, peers } => {
                self.in_sync = peers;
                (self.in_sync_epoch, self.holds_since) = (epoch, now);
                self.mirror.set_standing(Standing { term, ..self.mirror.standing() });
                self.release_known(now, io);
                self.answer(Event::InSyncInstalled { epoch });
            }
            Command::Quiesce { peer } => {
                self.gather_stragglers(now);
                self.begin_taking_up(now);
                self.quiesce = Some(peer);
                self.mirror.rest_rounds(true);
                self.flushed = false;
            }
            Command::Hold { peer } => {
                self.hold_stragglers(now);
                self.taking_up = None;
                self.quiesce = Some(peer);
                self.mirror.rest_rounds(true);
                self.flushed = false;
            }
            Command::Relay { links } => self.relay_stragglers(now, links),
            Command::Neighbour { hop, link } => {
                let Worker { counters, completed, adjacencies, .. } = self;
                adjacencies.learn(hop, link, |WaitingPacket { mut packet, class }| match link {
                    Some(link) => {
                        packet.head_mut()[..6].copy_from_slice(&link);
                        *completed += u64::from(class == TxClass::Service);
                        io.send(hop.port, packet, class);
                    }
                    None => counters.bump(Counter::DropNeighbour),
                });
            }
            Command::Expire { flow } => self.note_expired(now, flow),
            Command::Move(command) => self.handle_move(now, command, io),
            Command::Configure(next) => self.configure(next),
            Command::Choose { key, choice } => self.handle_choice(now, &key, choice, io),
            Command::Status => {
                let status = self.status(now);
                self.answer(Event::Status(Box::new(status)));
            }
            Command::Flows { from } => {
                let slice = self.flows_from(now, from);
                self.answer(Event::Flows(Box::new(slice)));
            }
        }
    }

    fn take_role(&mut self, now: Instant, epoch: u64, role: Role, term: Term) {
        if role == Role::Active && self.role == Role::Standby {
            // Idle time counts from the takeover (REQ C8).
            self.flows.last_seen.touch_all(now);
            self.chosen.begin_era();
        }
        if role == Role::Standby {
            self.stop_stragglers(now);
            self.in_sync.clear();
            for (_, flow) in self.hold.flows() {
                self.flows.table.set_flag(flow, FlowFlags::HELD, false);
            }
            self.hold.clear(|_| self.counters.bump(Counter::DropHoldStandby));
            self.reassembly.clear(Counter::DropStandby, &self.counters);
            self.moving.drop_parked(|_| self.counters.bump(Counter::DropStandby));
        }
        let was = core::mem::replace(&mut self.role, role);
        self.forwards = false;
        (self.quiesce, self.taking_up) = (None, None);
        self.mirror.rest_rounds(false);
        self.mirror.set_standing(Standing { leads: role == Role::Active, term });
        if role == Role::Active {
            self.call_off_stragglers(was);
        }
        self.uninstalled = Some(epoch);
    }

    /// Once a turn, after the bursts: all that is due.
    pub fn poll<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        self.poll_promptly(now, io);
        self.poll_walks(now, io);
    }

    /// The first half of [`Worker::poll`], behind which what it sent is to leave at once: time-outs, mirror frames, overdue packets.
    pub fn poll_promptly<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        self.end_expired(now);
        self.reassembly.expire(now, &self.counters);
        self.poll_stragglers(now, io);
        self.poll_mirror(now);
        self.settle(now, io);
        self.poll_choosing(now, io);
        self.say_held_again(now);
        self.check_overdue(now);
        self.tell_disbelieved(now);
        self.poll_moving(now, io);
        self.send_frames(now, io);
        if self.role == Role::Active && now >= self.sync_at {
            self.sync_at = now + SYNC_INTERVAL;
            self.report_sync(now);
        }
        self.report_flushed();
        let Worker { received, completed, busy_per_mille, .. } = *self;
        let flows = self.flows.table.len() as u32;
        self.placer.report(now, Work { flows, received, completed, busy_per_mille });
        let all_told = self.placer.poll(now, io);
        self.say_installed(all_told);
    }

    /// A role is said to be taken when the others have been told of all keys that are known here: then none is chosen
    /// for twice.
    fn say_installed(&mut self, all_told: bool) {
        if all_told && let Some(epoch) = self.uninstalled.take() {
            self.answer(Event::Installed { epoch });
        }
    }

    /// What there is to say to the master and the liveness thread.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When there is something to do even if nothing arrives.
    pub fn next_deadline(&self) -> Instant {
        if !self.moving.is_idle() || self.taking_up.is_some() || !self.aside.is_empty() {
            return Instant::ZERO;
        }
        let sync = (self.role == Role::Active).then_some(self.sync_at);
        let fragments = self.reassembly.next_deadline();
        sync.into_iter()
            .chain(self.mirror.next_deadline())
            .chain(fragments)
            .chain(self.stragglers.next_deadline())
            .chain(self.disbelief.next_deadline())
            .min()
            .unwrap_or(Instant::FAR_FUTURE)
    }

    /// An event that may be lost.
    fn say(&mut self, event: Event) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        } else {
            self.counters.bump(Counter::EventsDropped);
        }
    }

    /// An event that answers a command.
    fn answer(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Sends a rewritten packet to a neighbour, or lets it wait for its link address.
    fn emit<I: Io<Buf = B> + Tell>(&mut self, now: Instant, mut packet: B, adjacency: u32, io: &mut I) {
        let Some(hop) = self.adjacencies.hop(adjacency) else {
            self.counters.bump(Counter::DropNeighbour);
            return;
        };
        let from = if hop.address.is_ipv4() { self.virtual_v4 } else { self.virtual_v6 };
        packet.head_mut()[6..12].copy_from_slice(&from);
        self.send_by(now, packet, adjacency, TxClass::Service, io);
    }

    /// Sends a packet that has its source link address.
    fn send_by<I: Io<Buf = B> + Tell>(
        &mut self,
        now: Instant,
        mut packet: B,
        adjacency: u32,
        class: TxClass,
        io: &mut I,
    ) {
        let Some(hop) = self.adjacencies.hop(adjacency) else {
            self.counters.bump(Counter::DropNeighbour);
            return;
        };
        match self.adjacencies.resolve(now, adjacency) {
            Resolution::Known(link) => {
                packet.head_mut()[..6].copy_from_slice(&link);
                self.completed += u64::from(class == TxClass::Service);
                io.send(hop.port, packet, class);
            }
            Resolution::Unknown { ask } => {
                if ask {
                    self.say(Event::Resolve { hop });
                }
                if self.adjacencies.wait(adjacency, WaitingPacket { packet, class }).is_some() {
                    self.counters.bump(Counter::DropNeighbour);
                }
            }
        }
    }
}

/// Places in a worker's table: its share of all flows and, with several workers, an eighth
/// more, since hashing does not divide them evenly.
fn worker_capacity(flows_max: u32, workers: u16) -> u32 {
    let share = flows_max.div_ceil(u32::from(workers.max(1)));
    if workers > 1 { share + share / 8 + 16 } else { share }
}

/// Ports of a worker that may rest.
fn resting_capacity(flows_max: u32) -> u32 {
    flows_max + flows_max / 4 + RESTING_MORE_THAN_FLOWS
}
