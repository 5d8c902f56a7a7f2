//! A small world in virtual time: machines, their workers and mirrored flows, and one
//! LAN for each port number, with loss, delay, pauses, crashes and cuts. One seed, one run.

mod mirroring;
mod witnessing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::counters::Counters;
use crate::base::ids::{BootId, GroupId, NodeId, PortId, Term, VirtualServerId, WorkerId};
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::config::checked::{self, Partition, VrrpUse};
use crate::config::mirrored::Edition;
use crate::failover::event::Cause;
use crate::failover::witness::WitnessVariant;
use crate::failover::*;
use crate::seal::{Key, MemberInfo, Mirroring, Tracked};
use crate::wire::ethernet::{MacAddress, PortLinks};

pub const TICK_US: u64 = 500;
/// A standby is healthier for so long before it is handed over to.
pub const HOLD_MS: u64 = 200;
const WORKERS: usize = 2;
const PORTS: usize = 2;
/// The port that also carries the mirror.
const MIRROR: usize = 0;
/// Flows by number.
type Flows = BTreeSet<u64>;

pub struct Setup {
    pub nodes: u16,
    pub partition: Partition,
    pub lagging: checked::Lagging,
    pub variant: Variant,
    pub preempt: bool,
    pub loss_percent: u8,
    pub vrrp: VrrpUse,
    /// There is a command that fences.
    pub fences: bool,
    /// There is one, with these rules.
    pub witness: Option<WitnessVariant>,
    /// The place of the node that tracks a part of the virtual servers.
    pub partial: Option<usize>,
    /// The member that says how far connections have come without acknowledgements.
    pub periodic: Option<usize>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            nodes: 2,
            partition: Partition::Availability,
            lagging: checked::Lagging::Remove,
            variant: Variant::Sound,
            preempt: false,
            loss_percent: 0,
            vrrp: VrrpUse::Output,
            fences: false,
            witness: None,
            partial: None,
            periodic: None,
        }
    }
}

/// What the workers of one process hold.
#[derive(Default)]
struct Workers {
    role: Option<(u64, WorkerRole, Term)>,
    in_sync: (u64, Members),
    next_in_sync: Members,
    /// The epoch of the set that they installed, and the first flow that was not there yet.
    holds: (u64, u64),
    lease: Instant,
    sessions: BTreeMap<u16, u64>,
    known: Flows,
    acknowledged: BTreeMap<u16, Flows>,
    held: BTreeMap<u64, u64>,
    quiesce: Option<NodeId>,
    /// They send nothing of services, though the lease may cover it.
    holds_stragglers: bool,
    reports: Vec<(u64, WorkerReport)>,
}

pub struct Machine {
    pub failover: Failover,
    workers: Workers,
    inbox: Vec<(usize, Vec<u8>)>,
    /// Frames that wait for the worker that sends them.
    outbox: Vec<(usize, Vec<u8>)>,
    /// A thread panicked: no lease counts any more.
    revoked: bool,
    pub exited: bool,
}

pub struct Node {
    pub id: u16,
    pub up: Option<Machine>,
    pub disk: u64,
    pub priority: u8,
    /// It starts under maintenance.
    pub maintenance: bool,
    pub paused_until: u64,
    pub stuck_until: u64,
    /// It acknowledges no flows, since then.
    pub acknowledges_nothing_since: Option<u64>,
    /// Its workers take a role so much later than else.
    pub installs_after_us: u64,
    pub boots: u64,
    poll_phase: u64,
}

pub struct World {
    pub now_us: u64,
    pub rng: Rng,
    pub setup: Setup,
    pub nodes: Vec<Node>,
    pub key: Key,
    wire: BTreeMap<(u64, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    /// (port, from, to): nothing passes.
    pub cut: BTreeSet<(usize, usize, usize)>,
    pub witness: witnessing::Site,
    /// Who asked for whom to be fenced.
    pub fencing: Vec<(usize, u64, NodeId)>,
    pub log: Vec<(u64, u16, FailoverEvent)>,
    /// What workers were told, in order: (node, what).
    pub told: Vec<(u16, &'static str)>,
    /// Reservations are written, but the answer does not come.
    pub disk_hangs: bool,
    /// Nodes whose reservations cannot be written.
    pub disk_full: BTreeSet<usize>,
    /// Every frame that was sent: (from, port, frame).
    pub recorded: Option<Vec<(usize, usize, Vec<u8>)>>,
    pub announced: Vec<(u64, u16)>,
    /// Who was given whose services.
    pub services: Vec<(usize, NodeId, Edition, Vec<u8>)>,
    /// Who relayed, when, and where to.
    pub relayed: Vec<(u64, u16, PortLinks)>,
    next_flow: u64,
    /// Flows that were released as protected, by nobody's loss to be lost.
    released: Flows,
    /// Every turn in which more than one sent: who.
    pub doubles: Vec<(u64, Vec<u16>)>,
    pub silent_for: u64,
    pub longest_silence: u64,
    /// Flows released without one that believed to be in sync: (when, that one).
    pub early: Vec<(u64, u16)>,
    /// Protected flows that an undegraded leader did not know: (when, who, how many).
    pub lost: Vec<(u64, u16, usize)>,
}

impl World {
    pub fn new(seed: u64, setup: Setup) -> World {
        let mut rng = Rng::with_seed(seed);
        let nodes = (1..=setup.nodes).map(|id| Node {
            id,
            up: None,
            disk: 0,
            priority: 100,
            maintenance: false,
            paused_until: 0,
            stuck_until: 0,
            acknowledges_nothing_since: None,
            installs_after_us: 0,
            boots: 0,
            poll_phase: rng.u64(0..2),
        });
        let nodes = nodes.collect();
        World {
            now_us: 1_000_000,
            rng,
            setup,
            nodes,
            key: Key::parse("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f").unwrap(),
            wire: BTreeMap::new(),
            sent: 0,
            cut: BTreeSet::new(),
            witness: witnessing::Site::default(),
            fencing: Vec::new(),
            log: Vec::new(),
            told: Vec::new(),
            disk_hangs: false,
            disk_full: BTreeSet::new(),
            recorded: None,
            announced: Vec::new(),
            services: Vec::new(),
            relayed: Vec::new(),
            next_flow: 0,
            released: Flows::new(),
            doubles: Vec::new(),
            silent_for: 0,
            longest_silence: 0,
            lost: Vec::new(),
            early: Vec::new(),
        }
    }

    /// A world in which all nodes were started together and one of them leads, in sync with the others.
    pub fn settled(seed: u64, setup: Setup) -> World {
        let mut world = World::new(seed, setup);
        world.start_witness();
        for at in 0..world.nodes.len() {
            world.start(at);
        }
        world.run_ms(400);
        world
    }

    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.now_us * 1000)
    }

    pub fn config(&self, at: usize) -> checked::Failover {
        checked::Failover {
            virtual_router_id: 1,
            priority: self.nodes[at].priority,
            heartbeat_interval: Duration::from_millis(5),
            lease: Duration::from_millis(36),
            takeover_after: Duration::from_millis(50),
            boot_wait: Duration::from_millis(300),
            partition: self.setup.partition,
            lagging: self.setup.lagging,
            preempt: self.setup.preempt,
            vrrp: self.setup.vrrp,
            vrrp_interval: Duration::from_millis(1000),
            vrrp_checksum: checked::VrrpChecksum::PseudoHeader,
            state_dir: "/nowhere".into(),
            witness: self.setup.witness.map(|_| "192.0.2.1:7878".parse().unwrap()),
            fence: self.setup.fences.then(|| checked::Hook {
                program: "/nowhere".into(),
                arguments: Vec::new(),
                timeout: Duration::from_millis(1000),
            }),
            notify: None,
            maintenance: self.nodes[at].maintenance,
            track: checked::Track { ports: Vec::new(), script: None, hold: Duration::from_millis(HOLD_MS) },
        }
    }

    pub fn start(&mut self, at: usize) {
        let config = self.config(at);
        let is_partial = self.setup.partial == Some(at);
        let node = &mut self.nodes[at];
        node.boots += 1;
        let member = MemberInfo {
            group: GroupId(0),
            node: NodeId(node.id),
            boot: BootId(self.rng.u64(1..)),
            version_min: 1,
            version_max: 1,
            capabilities: 0,
            workers: WORKERS as u16,
            shards: 256,
            hash_keys: 5,
            udp_port: 7000,
            generation: 1,
            mirroring: Mirroring {
                tracked: Tracked::only(&[VirtualServerId(1)][..usize::from(is_partial)]).expect("few"),
                is_periodic: self.setup.periodic == Some(at),
            },
        };
        let all = 1..=self.setup.nodes;
        let setup = FailoverSetup {
            member,
            peers: all.filter(|other| *other != node.id).map(NodeId).collect(),
            ports: (0..PORTS)
                .map(|port| PortSetup {
                    id: PortId(port as u16),
                    mac: MacAddress([2, 0, 0, 0, node.id as u8, port as u8]),
                    mirror: port == MIRROR,
                })
                .collect(),
            config,
            keys: self.key.clone().into(),
            reserved: Term { counter: node.disk, node: NodeId(node.id) },
            workers: WORKERS,
            lcores: WORKERS,
            counters: Arc::new(Counters::default()),
            variant: self.setup.variant,
        };
        node.paused_until = 0;
        node.stuck_until = 0;
        let now = Instant::from_nanos(self.now_us * 1000);
        let failover = Failover::new(setup, now);
        self.nodes[at].up = Some(Machine {
            failover,
            workers: Workers::default(),
            inbox: Vec::new(),
            outbox: Vec::new(),
            revoked: false,
            exited: false,
        });
    }

    pub fn kill(&mut self, at: usize) {
        self.nodes[at].up = None;
    }

    pub fn pause_ms(&mut self, at: usize, millis: u64) {
        self.nodes[at].paused_until = self.now_us + millis * 1000;
    }

    pub fn machine(&self, at: usize) -> &Machine {
        self.nodes[at].up.as_ref().expect("it is up")
    }

    pub fn status(&self, at: usize) -> FailoverStatus {
        self.machine(at).failover.status()
    }

    pub fn role(&self, at: usize) -> Role {
        self.machine(at).failover.role()
    }

    pub fn operator(&mut self, at: usize, operator: Operator) -> Result<(), Refusal> {
        let now = self.now();
        self.nodes[at].up.as_mut().expect("it is up").failover.handle_operator(now, operator)
    }

    /// What its tracked things are found to be.
    pub fn health(&mut self, at: usize, health: Health) {
        self.nodes[at].up.as_mut().expect("it is up").failover.handle_health(health);
    }

    /// A thread of its process panics: its lease is revoked, and then it is told.
    pub fn panic(&mut self, at: usize) {
        let now = self.now();
        let up = self.nodes[at].up.as_mut().expect("it is up");
        (up.revoked, up.workers.lease) = (true, Instant::ZERO);
        up.failover.handle_broken(now);
    }

    /// Every port and direction between two nodes.
    pub fn cut_all(&mut self, from: usize, to: usize) {
        self.cut.extend((0..PORTS).map(|port| (port, from, to)));
    }

    /// Index of the one node that serves now.
    pub fn leader(&self) -> usize {
        let senders = self.senders();
        assert_eq!(senders.len(), 1, "one sender at {} us", self.now_us);
        senders[0]
    }

    pub fn runs(&self, node: &Node) -> bool {
        node.up.is_some() && node.paused_until <= self.now_us
    }

    /// Who would send service packets in this very turn.
    pub fn senders(&self) -> Vec<usize> {
        let now = self.now();
        let sends = |node: &Node| {
            self.runs(node)
                && node.stuck_until <= self.now_us
                && node.up.as_ref().is_some_and(|up| {
                    up.workers.role.is_some_and(|(_, role, _)| role == WorkerRole::Active)
                        && !up.workers.holds_stragglers
                        && now < up.workers.lease
                })
        };
        (0..self.nodes.len()).filter(|at| sends(&self.nodes[*at])).collect()
    }

    pub fn events(&self, at: usize) -> Vec<&FailoverEvent> {
        let id = self.nodes[at].id;
        self.log.iter().filter(|(_, node, _)| *node == id).map(|(_, _, event)| event).collect()
    }

    pub fn story(&self) -> String {
        self.log.iter().map(|(at, node, event)| format!("{at:>9} node {node}: {event}\n")).collect()
    }

    pub fn run_ms(&mut self, millis: u64) {
        for _ in 0..millis * 1000 / TICK_US {
            self.turn();
        }
    }

    pub fn turn(&mut self) {
        self.now_us += TICK_US;
        self.deliver();
        self.witness_turn();
        // Workers look at the lease before the liveness thread has its turn: the worst order.
        self.serve();
        for at in 0..self.nodes.len() {
            if self.runs(&self.nodes[at]) {
                self.turn_of(at);
            }
        }
        self.mirror();
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now_us {
                return;
            }
            let (to, port, frame) = entry.remove();
            if let Some(up) = &mut self.nodes[to].up
                && up.inbox.len() < 512
            {
                up.inbox.push((port, frame));
            }
        }
    }

    /// The check: who sends now?
    fn serve(&mut self) {
        let senders = self.senders();
        if senders.len() > 1 {
            let ids = senders.iter().map(|at| self.nodes[*at].id).collect();
            self.doubles.push((self.now_us, ids));
        }
        if senders.is_empty() {
            self.silent_for += TICK_US;
            self.longest_silence = self.longest_silence.max(self.silent_for);
        } else {
            self.silent_for = 0;
        }
        for at in senders {
            if self.rng.u8(0..8) == 0 {
                self.client_comes(at);
            }
        }
    }

    /// Flows whose first packet waits at this node.
    pub fn held(&self, at: usize) -> usize {
        self.machine(at).workers.held.len()
    }

    /// A client comes to a node that serves.
    pub fn client_comes(&mut self, at: usize) {
        let flow = self.next_flow;
        self.next_flow += 1;
        let workers = &mut self.nodes[at].up.as_mut().unwrap().workers;
        if workers.quiesce.is_none() {
            workers.known.insert(flow);
            workers.held.insert(flow, self.now_us);
        }
    }

    fn turn_of(&mut self, at: usize) {
        let now_us = self.now_us;
        let now = self.now();
        let stuck = self.nodes[at].stuck_until > now_us;
        let polls = (now_us / TICK_US) % 2 == self.nodes[at].poll_phase;
        let node = &mut self.nodes[at];
        let up = node.up.as_mut().expect("it runs");
        // Just awake: the thread may run before the workers have brought in what waits at the ports.
        let late = now_us - node.paused_until.min(now_us) < 3 * TICK_US && node.boots % 2 == 0;
        if !stuck {
            let waiting = core::mem::take(&mut up.outbox);
            waiting.into_iter().for_each(|(port, frame)| self.send(at, port, &frame));
        }
        self.take_answers(at);
        let up = self.nodes[at].up.as_mut().expect("it runs");
        if !stuck && !late {
            // Frames come in by the workers.
            for (port, mut frame) in core::mem::take(&mut up.inbox) {
                up.failover.handle_frame(now, PortId(port as u16), &mut frame);
            }
            let due = up.workers.reports.extract_if(.., |(due, _)| *due <= now_us);
            for (_, report) in due.collect::<Vec<_>>() {
                if matches!(report, WorkerReport::InSyncInstalled { epoch, .. } if epoch == up.workers.in_sync.0)
                {
                    up.workers.in_sync.1 = up.workers.next_in_sync;
                    up.workers.holds = (up.workers.in_sync.0, self.next_flow);
                }
                up.failover.handle_report(now, report);
            }
        }
        if polls {
            let workers_moved = if stuck { 0b10 } else { 0b11 };
            up.failover.poll(now, Progress { workers_moved, drained: true });
        }
        while let Some(output) = self.nodes[at].up.as_mut().and_then(|up| up.failover.poll_output()) {
            self.perform(at, output);
        }
        if self.nodes[at].up.as_ref().is_some_and(|up| up.exited) {
            self.nodes[at].up = None;
        }
    }

    fn perform(&mut self, at: usize, output: Output) {
        let due = self.now_us + self.rng.u64(0..3) * TICK_US;
        let id = self.nodes[at].id;
        let now_us = self.now_us;
        let node = &mut self.nodes[at];
        let up = node.up.as_mut().expect("it runs");
        let workers = &mut up.workers;
        let told = match &output {
            Output::Lease { until } if *until == Instant::ZERO => Some("no lease"),
            Output::Lease { .. } => Some("lease"),
            Output::Role { role: WorkerRole::Active, .. } => Some("active"),
            Output::Role { role: WorkerRole::Standby, .. } => Some("standby"),
            Output::Announce { .. } => Some("announce"),
            _ => None,
        };
        self.told.extend(told.map(|what| (id, what)));
        match output {
            Output::SendFrame { port, frame } if node.stuck_until > now_us => {
                up.outbox.push((port.0.into(), frame.to_vec()));
            }
            Output::SendFrame { port, frame } => self.send(at, port.0.into(), &frame),
            Output::Witness { datagram } => self.ask_witness(at, datagram.to_vec()),
            Output::Lease { until } => workers.lease = if up.revoked { Instant::ZERO } else { until },
            Output::Role { epoch, role, term } => {
                let was_active = workers.role.is_some_and(|(_, role, _)| role == WorkerRole::Active);
                workers.role = Some((epoch, role, term));
                workers.quiesce = None;
                workers.holds_stragglers = false;
                if role == WorkerRole::Standby || !was_active {
                    workers.held.clear();
                    workers.acknowledged.clear();
                }
                let due = due + node.installs_after_us;
                for worker in (0..WORKERS as u16).map(WorkerId) {
                    workers.reports.push((due, WorkerReport::Installed { worker, epoch }));
                }
            }
            Output::InSync { epoch, members, .. } => {
                (workers.in_sync.0, workers.next_in_sync) = (epoch, members);
                for worker in (0..WORKERS as u16).map(WorkerId) {
                    workers.reports.push((due, WorkerReport::InSyncInstalled { worker, epoch }));
                }
            }
            Output::PeerSession { node, session } => {
                workers.sessions.insert(node.0, session.id());
                workers.acknowledged.remove(&node.0);
            }
            Output::PeerLost { node } => {
                workers.sessions.remove(&node.0);
                workers.acknowledged.remove(&node.0);
            }
            Output::Services { from, edition, text } => self.services.push((at, from, edition, text)),
            Output::Fence { attempt, node, .. } => self.fencing.push((at, attempt, node)),
            Output::Quiesce { peer } => workers.quiesce = Some(peer),
            Output::Hold { peer } => {
                workers.quiesce = Some(peer);
                workers.holds_stragglers = true;
            }
            Output::Relay { links } => self.relayed.push((now_us, id, links)),
            Output::Announce { .. } => self.announced.push((now_us, id)),
            // The driver tries again of itself: tests do that.
            Output::ReserveTerm { .. } if self.disk_full.contains(&at) => {}
            Output::ReserveTerm { counter } => {
                // The disk is quick here: the machine is told before the next poll.
                node.disk = counter;
                if !self.disk_hangs {
                    up.failover.handle_reserved(counter);
                }
            }
            Output::MayExit => up.exited = true,
            Output::Event(Happened { event, .. }) => {
                if let FailoverEvent::Promoted { degraded: false, cause, .. } = &event
                    && !matches!(cause, Cause::Boot | Cause::Alone | Cause::Operator)
                {
                    let missing = self.released.difference(&workers.known).count();
                    if missing > 0 {
                        self.lost.push((now_us, id, missing));
                    }
                }
                if let FailoverEvent::Promoted { .. } = &event {
                    // What it does not know is lost now, however it came to lead.
                    self.released = self.released.intersection(&workers.known).copied().collect();
                }
                self.log.push((now_us, id, event));
            }
        }
    }

    fn send(&mut self, from: usize, port: usize, frame: &[u8]) {
        if let Some(recorded) = &mut self.recorded {
            recorded.push((from, port, frame.to_vec()));
        }
        for to in 0..self.nodes.len() {
            let lost = self.rng.u8(0..100) < self.setup.loss_percent;
            if to == from || lost || self.cut.contains(&(port, from, to)) {
                continue;
            }
            self.sent += 1;
            let delay = 100 + self.rng.u64(0..1200);
            self.wire.insert((self.now_us + delay, self.sent), (to, port, frame.to_vec()));
        }
    }
}
