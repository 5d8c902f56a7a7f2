//! A world: a group of appliances, three LANs, clients and servers, in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::trace::Trace;
use baton::base::ids::{PortId, Term};
use baton::base::io::TxClass;
use baton::base::rng::Rng;
use baton::config::checked::{Checked, VirtualServer};
use baton::config::snapshot::Snapshot;
use baton::failover::{FailoverEvent, Role};
use baton::flow::Key;
use baton::flow::key::UDP;

use crate::agenda::{Agenda, Happening, MS, Nanos, Station};
use crate::appliance::{Appliance, Disk, Note, PORTS, Start};
use crate::checks::Checks;
use crate::client::{Client, Plan};
use crate::clock::Clock;
use crate::config::{self, SERVICES};
use crate::flows::{self, Order, Sight};
use crate::hosts::{Host, Program};
use crate::lcore::Departure;
use crate::link::{CLIENTS, Lan, MIRROR, SERVERS};
use crate::moves::{self, Moves};
use crate::ports;
use crate::scenario::Scenario;
use crate::script::Script;
use crate::variants::Variants;
use crate::witness::Site;

pub const CLIENT_HOSTS: usize = 3;
pub const SERVER_HOSTS: usize = 2;
/// A client uses these many ports in turn, so that they come again within a run.
const CLIENT_PORTS: u16 = 48;
/// A process ends so much later than it could.
const LAST_FRAMES: Nanos = 10 * MS;

/// An appliance's place in the world, whether it is up or not.
pub struct Node {
    snapshot: Arc<Snapshot>,
    pub disk: Disk,
    pub up: Option<Appliance>,
    pub life: u64,
    /// What its threads would have done while it was paused.
    pub deferred: Vec<Happening>,
    /// What leaves when it goes on.
    pub bursts: Vec<Departure>,
    /// The term that it led last.
    pub led: Term,
    /// It leads in that term.
    pub leads: bool,
    /// In which order packets came to it.
    order: Order,
    /// What it writes on its disk fails.
    pub disk_fails: bool,
}

pub struct World {
    pub agenda: Agenda,
    pub lans: [Lan; 3],
    pub hosts: Vec<Host>,
    pub nodes: Vec<Node>,
    pub scenario: Scenario,
    pub script: Script,
    pub checks: Checks,
    variants: Variants,
    /// When machines were started, whose clocks count from there.
    clocks: Rng,
    lives: u64,
    connections: u64,
    next_port: [u16; CLIENT_HOSTS],
    pub arrivals_until: Nanos,
    /// Frames that left the appliances.
    pub frames: u64,
    /// How much has happened.
    pub events: u64,
    pub moves: Moves,
    pub witness: Site,
    traces: bool,
}

impl World {
    pub fn new(seed: u64, scenario: Scenario, script: Script, variants: Variants, traces: bool) -> World {
        let client = |number| Host::client(number as u8, Client::default());
        let hosts = (0..CLIENT_HOSTS).map(client).chain((0..SERVER_HOSTS).map(|n| Host::server(n as u8)));
        let count = scenario.divisions.len();
        let nodes = scenario.divisions.iter().zip(1..).map(|(division, node)| Node {
            snapshot: config::snapshot(
                node,
                count as u16,
                &scenario.options,
                *division,
                scenario.flows_max(node),
            ),
            disk: Disk::default(),
            up: None,
            life: 0,
            deferred: Vec::new(),
            bursts: Vec::new(),
            led: Term::NONE,
            leads: false,
            order: Order::default(),
            disk_fails: false,
        });
        let mut lans: [Lan; 3] = Default::default();
        for (number, lan) in lans.iter_mut().enumerate() {
            lan.stations = (0..count).map(|at| Station::Appliance { at, port: number }).collect();
            lan.weather = scenario.weather[number];
        }
        lans[CLIENTS].stations.extend((0..CLIENT_HOSTS).map(Station::Host));
        lans[SERVERS].stations.extend((CLIENT_HOSTS..CLIENT_HOSTS + SERVER_HOSTS).map(Station::Host));
        let surroundings = scenario.witness;
        let mut world = World {
            agenda: Agenda::new(seed),
            lans,
            hosts: hosts.collect(),
            nodes: nodes.collect(),
            checks: Checks::default(),
            variants,
            clocks: Rng::with_seed(seed),
            lives: 0,
            connections: 0,
            next_port: [0; CLIENT_HOSTS],
            arrivals_until: 0,
            scenario,
            script,
            frames: 0,
            events: 0,
            moves: Moves::default(),
            witness: Site::new(variants.witness, surroundings, &mut Rng::with_seed(!seed)),
            traces,
        };
        if world.scenario.kind.has_witness() {
            world.witness.start(world.agenda.now);
        }
        world.agenda.at(0, Happening::Script);
        world.agenda.at(0, Happening::Look);
        if world.scenario.moves > 0 {
            world.agenda.at(0, Happening::Rebalance);
        }
        world
    }

    pub fn say(&self, line: impl FnOnce() -> String) {
        if self.traces {
            println!("{:>12.6} {}", self.agenda.now as f64 / 1e9, line());
        }
    }

    /// Lets time go on.
    pub fn run_until(&mut self, end: Nanos) {
        while !self.script.is_over() {
            let Some(what) = self.agenda.next(end) else { return };
            self.happen(what);
            self.events += 1;
            if self.script.waited_for(self.events) {
                crate::script::go_on(self);
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::AtSwitch { lan, from, frame } => self.lans[lan].switch(from, &frame, &mut self.agenda),
            Happening::AtStation { to, frame } => self.arrive(to, frame),
            Happening::Host(at) => {
                if self.hosts[at].timer_at == self.agenda.now {
                    self.hosts[at].timer_at = Nanos::MAX;
                    self.hosts[at].poll(self.agenda.now);
                    self.after_host(at);
                }
            }
            Happening::Arrival => self.arrival(),
            Happening::Rebalance => moves::rebalance(self),
            Happening::Script => crate::script::go_on(self),
            Happening::Look => {
                crate::checks::look(self);
                self.agenda.at(self.agenda.now + 20 * MS, Happening::Look);
            }
            Happening::AtWitness { at, life, mail } => self.at_witness(at, life, mail),
            Happening::Answered { at, life, mail } => self.answered(at, life, mail),
            Happening::Turn { at, life, .. }
            | Happening::Transmit { at, life, .. }
            | Happening::Liveness { at, life }
            | Happening::Master { at, life }
            | Happening::Exit { at, life }
            | Happening::Durable { at, life, .. } => self.on_appliance(at, life, what),
        }
    }

    fn on_appliance(&mut self, at: usize, life: u64, what: Happening) {
        let node = &mut self.nodes[at];
        if let (Happening::Durable { counter, .. }, true) = (&what, node.disk_fails) {
            // As the driver does.
            let again = Happening::Durable { at, life, counter: *counter };
            return self.agenda.at(self.agenda.now + 1000 * MS, again);
        }
        if let (Happening::Durable { counter, .. }, true) = (&what, node.life == life && node.up.is_some()) {
            // The disk is not stopped with the process.
            node.disk.reserved = node.disk.reserved.max(*counter);
        }
        let Some(appliance) = node.up.as_mut().filter(|_| node.life == life) else { return };
        if appliance.paused {
            return node.deferred.push(what);
        }
        match what {
            Happening::Turn { lcore, .. } => appliance.turn(lcore, &mut self.agenda),
            Happening::Transmit { lcore, .. } => {
                let sent = appliance.transmit(lcore, self.agenda.now);
                self.send_all(at, sent, false);
            }
            Happening::Liveness { .. } => {
                appliance.liveness(&mut self.agenda);
                self.take_notes(at);
            }
            Happening::Master { .. } => {
                for port in [CLIENTS, SERVERS] {
                    let up = self.lans[port].has_link(Station::Appliance { at, port });
                    appliance.master.handle_link(PortId(port as u16), up);
                }
                appliance.master(&mut self.agenda);
                self.take_notes(at);
            }
            Happening::Durable { counter, .. } => appliance.reserved(counter),
            Happening::Exit { .. } => self.exit(at),
            _ => {}
        }
    }

    /// Frames leave an appliance.
    pub fn send_all(&mut self, at: usize, sent: Vec<Departure>, burst: bool) {
        for Departure { port, frame, class, came_as } in sent {
            let (node, now) = (&mut self.nodes[at], self.agenda.now);
            match came_as {
                Some(Ok(sight)) => {
                    if !node.order.leaves(&sight) && !may_overtake(&node.snapshot.checked, &sight.key) {
                        self.checks.overtaken(now, at, &sight);
                    }
                    ports::begun(self, at, &sight);
                }
                Some(Err(complaint)) => self.checks.complain(now, at, &complaint),
                None => {}
            }
            if class == TxClass::Service && !burst {
                let (led, kind) = (self.nodes[at].led, self.scenario.kind);
                if !kind.may_go_back() {
                    self.checks.service_frame(now, at, led);
                }
                let may_send = |node: &Node| node.up.as_ref().is_some_and(|up| up.may_send(now));
                let other = (0..self.nodes.len()).find(|other| *other != at && may_send(&self.nodes[*other]));
                if let Some(other) = other.filter(|_| kind.is_safe()) {
                    self.checks.second_sender(now, at, other);
                }
            }
            let node = &self.nodes[at];
            self.frames += 1;
            let sessions = node.up.as_ref().map(|up| &up.sessions);
            self.checks.sealed_frame(now, (at, node.life), sessions, &frame);
            self.say(|| {
                format!(
                    "{} {} {}",
                    name(at),
                    ["client", "server", "mirror"][usize::from(port.0)],
                    Trace(&frame)
                )
            });
            let from = Station::Appliance { at, port: usize::from(port.0) };
            let number = usize::from(port.0);
            self.lans[number].send(number, from, frame, &mut self.agenda);
        }
    }

    fn arrive(&mut self, to: Station, frame: Vec<u8>) {
        match to {
            Station::Appliance { at, port } => {
                let Node { up, order, .. } = &mut self.nodes[at];
                if let Some(appliance) = up {
                    let sight = Sight::of(&frame).filter(|_| port != MIRROR);
                    let key = sight.as_ref().map(|sight| &sight.key);
                    let epoch = appliance.receive(port, frame, key, &mut self.agenda);
                    sight.inspect(|sight| order.came(sight, epoch));
                }
            }
            Station::Host(at) => {
                self.hosts[at].handle(self.agenda.now, &frame);
                self.after_host(at);
            }
        }
    }

    fn lan_of(host: usize) -> usize {
        if host < CLIENT_HOSTS { CLIENTS } else { SERVERS }
    }

    /// Sends what a host has to send, and sets its timer.
    fn after_host(&mut self, at: usize) {
        let lan = World::lan_of(at);
        for frame in std::mem::take(&mut self.hosts[at].out) {
            self.say(|| format!("host {at} {}", Trace(&frame)));
            self.lans[lan].send(lan, Station::Host(at), frame, &mut self.agenda);
        }
        for complaint in std::mem::take(&mut self.hosts[at].complaints) {
            self.checks.violate(self.agenda.now, format!("host {at}: {complaint}"));
        }
        let due = self.hosts[at].next_deadline();
        if due < self.hosts[at].timer_at {
            self.hosts[at].timer_at = due.max(self.agenda.now + 1);
            self.agenda.at(self.hosts[at].timer_at, Happening::Host(at));
        }
    }

    pub fn take_notes(&mut self, at: usize) {
        self.post(at);
        let Some(appliance) = &mut self.nodes[at].up else { return };
        for note in std::mem::take(&mut appliance.notes) {
            match note {
                Note::MayExit => {
                    // What was said last leaves before, as in the driver.
                    let (life, when) = (self.nodes[at].life, self.agenda.now + LAST_FRAMES);
                    self.nodes[at].leads = false;
                    self.agenda.at(when, Happening::Exit { at, life });
                }
                Note::Happened(event) => self.happened(at, event),
                Note::Moved(outcome) => moves::ended(self, at, &outcome),
            }
        }
    }

    /// The process ends.
    pub fn exit(&mut self, at: usize) {
        if let Some(up) = self.nodes[at].up.take() {
            self.checks.retire(&up);
        }
        self.nodes[at].leads = false;
    }

    fn happened(&mut self, at: usize, event: FailoverEvent) {
        self.say(|| format!("== {} {event}", name(at)));
        let node = &mut self.nodes[at];
        match &event {
            FailoverEvent::Promoted { term, .. } => (node.led, node.leads) = (*term, true),
            FailoverEvent::InSync { term, .. } | FailoverEvent::OutOfSync { term, .. } => node.led = *term,
            FailoverEvent::Following { .. } | FailoverEvent::Resigned { .. } => node.leads = false,
            _ => {}
        }
        self.checks.happened(self.agenda.now, at, &event);
        let followed = self.group().is_some();
        self.checks.followed(self.agenda.now, followed);
    }

    /// Starts an appliance; it knows what is on its disk.
    pub fn start(&mut self, at: usize) {
        self.lives += 1;
        let node = &mut self.nodes[at];
        node.life = self.lives;
        node.deferred.clear();
        node.bursts.clear();
        let start = Start {
            at,
            life: node.life,
            snapshot: Arc::clone(&node.snapshot),
            disk: node.disk,
            variants: self.variants,
            division: self.scenario.divisions[at],
            steering: self.scenario.steering,
            light: self.scenario.light,
            clock: Clock::new(self.scenario.rates[at], &mut self.clocks),
            hold_packets_max: self.scenario.hold_packets_max,
        };
        node.order = Order::default();
        node.disk.boots += 1;
        let appliance = Appliance::start(start, &mut self.agenda);
        self.nodes[at].up = Some(appliance);
        self.say(|| format!("** {} starts", name(at)));
    }

    /// The place of the one that serves, and of those that follow it in sync, if any.
    pub fn group(&self) -> Option<(usize, Vec<usize>)> {
        let active = self.active()?;
        let led = self.nodes[active].up.as_ref().filter(|led| !led.paused)?;
        let status = led.status();
        if status.members_changing {
            return None;
        }
        let in_sync = |at: &usize| {
            self.nodes[*at].up.as_ref().is_some_and(|following| {
                following.failover.role() == Role::Standby
                    && !following.paused
                    && following.status().in_sync
                    && following.failover.term() == led.failover.term()
                    && status.members.contains(following.node())
            })
        };
        let standbys: Vec<usize> = (0..self.nodes.len()).filter(in_sync).collect();
        (!standbys.is_empty()).then_some((active, standbys))
    }

    /// One serves, and all others are in sync with it: all of the group, or all that are up.
    pub fn is_settled(&self, all: bool) -> bool {
        let up = self.nodes.iter().filter(|node| all || node.up.is_some()).count();
        self.active().is_some_and(|active| {
            let partial = self.scenario.kind.partial().filter(|at| *at != active);
            let missing = partial.filter(|at| all || self.nodes[*at].up.is_some());
            // One that tracks a part only is never in sync, but follows.
            let standbys = self.group().map_or(0, |(_, standbys)| standbys.len());
            let followers = standbys + usize::from(missing.is_some());
            followers > 0
                && followers + 1 == up
                && missing.is_none_or(|at| self.partial_follower() == Some(at))
        })
    }

    /// The place of the one that tracks a part only, if it follows whoever serves.
    pub fn partial_follower(&self) -> Option<usize> {
        let at = self.scenario.kind.partial()?;
        let led = self.nodes[self.active()?].up.as_ref()?;
        let follows = |following: &Appliance| {
            following.failover.role() == Role::Standby && following.failover.term() == led.failover.term()
        };
        self.nodes[at].up.as_ref().is_some_and(follows).then_some(at)
    }

    /// The place of the one that serves, when it is one.
    pub fn active(&self) -> Option<usize> {
        let serves = |at: &usize| {
            let up = self.nodes[*at].up.as_ref();
            up.is_some_and(|up| up.serves(self.agenda.now))
        };
        let mut serving = (0..self.nodes.len()).filter(serves);
        serving.next().filter(|_| serving.next().is_none())
    }

    /// Clients connect, and query, until then.
    pub fn begin_traffic(&mut self, until: Nanos) {
        self.arrivals_until = until;
        self.agenda.at(0, Happening::Arrival);
        self.query(Nanos::MAX);
    }

    fn arrival(&mut self) {
        if self.agenda.now >= self.arrivals_until {
            return;
        }
        self.connect(false);
        let mean = 1_000_000_000 / self.scenario.rate;
        let next = self.agenda.now + self.agenda.span(0, 2 * mean);
        self.agenda.at(next, Happening::Arrival);
    }

    /// A client opens a connection to some service; its name.
    pub fn connect(&mut self, short: bool) -> Option<u64> {
        let rng = &mut self.agenda.rng;
        let host = rng.usize(..CLIENT_HOSTS);
        let tcp: Vec<usize> = (0..SERVICES.len()).filter(|place| !SERVICES[*place].udp).collect();
        let service = tcp[rng.usize(..tcp.len())];
        let long = !short && rng.u8(..) < self.scenario.long;
        let plan = Plan {
            id: self.connections + 1,
            service,
            rounds: match (long, self.scenario.light) {
                _ if short => 1,
                (true, true) => rng.u64(4..12),
                (true, false) => rng.u64(6..20),
                (false, _) => rng.u64(1..4),
            },
            answer_len: rng.u32(1..2000),
            think: match (long, self.scenario.light) {
                (true, true) => rng.u64(15 * MS..70 * MS),
                (true, false) => rng.u64(20 * MS..120 * MS),
                (false, _) => rng.u64(0..30 * MS),
            },
        };
        let iss = rng.u32(..);
        let remote = SERVICES[service].address();
        let port = (0..CLIENT_PORTS).find_map(|_| {
            let port = 20_000 + self.next_port[host];
            self.next_port[host] = (self.next_port[host] + 1) % CLIENT_PORTS;
            let local = self.local(host, remote, port);
            let Program::Client(client) = &self.hosts[host].program else { return None };
            (!client.uses(local, remote)).then_some(local)
        })?;
        self.connections += 1;
        let now = self.agenda.now;
        let mut out = Vec::new();
        let Program::Client(client) = &mut self.hosts[host].program else { return None };
        client.connect(now, port, remote, iss, plan, &mut out);
        self.hosts[host].send(now, out);
        self.after_host(host);
        Some(plan.id)
    }

    fn local(&self, host: usize, remote: SocketAddr, port: u16) -> SocketAddr {
        let host = &self.hosts[host];
        if remote.is_ipv4() { (host.v4, port).into() } else { (host.v6, port).into() }
    }

    /// Clients send UDP queries from now on.
    pub fn query(&mut self, until: Nanos) {
        let now = self.agenda.now;
        for (number, place) in (0..SERVICES.len()).filter(|place| SERVICES[*place].udp).enumerate() {
            let host = number % CLIENT_HOSTS;
            let remote = SERVICES[place].address();
            let local = self.local(host, remote, 30_000 + number as u16);
            let light = self.scenario.light;
            let interval =
                if light { self.agenda.span(15 * MS, 50 * MS) } else { self.agenda.span(4 * MS, 25 * MS) };
            if let Program::Client(client) = &mut self.hosts[host].program {
                client.query(now, local, remote, interval, until);
            }
            self.hosts[host].poll(now);
            self.after_host(host);
        }
    }

    /// Every connection of every client.
    pub fn connections(&self) -> impl Iterator<Item = &crate::client::Connection> {
        self.clients().flat_map(|client| &client.connections)
    }

    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.hosts.iter().filter_map(|host| match &host.program {
            Program::Client(client) => Some(client),
            Program::Server(_) => None,
        })
    }

    pub fn servers(&self) -> impl Iterator<Item = &crate::server::Server> {
        self.hosts.iter().filter_map(|host| match &host.program {
            Program::Client(_) => None,
            Program::Server(server) => Some(server),
        })
    }

    /// Keys that several workers of an appliance have in their tables.
    pub fn doubles(&self) -> Vec<(usize, String)> {
        let up = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.up.as_ref()?)));
        up.flat_map(|(at, up)| flows::doubles(&up.lcores).into_iter().map(move |double| (at, double)))
            .collect()
    }
}

/// What traces call an appliance.
pub fn name(at: usize) -> &'static str {
    ["a", "b", "c"][at]
}

/// All LANs.
pub const ALL: [usize; PORTS] = [CLIENTS, SERVERS, MIRROR];

/// Where a traffic manager is chosen, datagrams of a new flow go by their home until the others have heard of it: those that
/// take the shorter way then may overtake the last ones by the longer way.
fn may_overtake(config: &Checked, key: &Key) -> bool {
    let is_it = |server: &&VirtualServer| key.dst == server.address.into() && key.dst_port == server.port;
    let server = config.virtual_servers.iter().find(is_it);
    key.protocol == UDP && server.is_some_and(|server| !server.select.is_hash())
}
