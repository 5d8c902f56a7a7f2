//! A world: two appliances, three LANs, clients and servers, in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::trace::Trace;
use baton::base::ids::Term;
use baton::base::io::TxClass;
use baton::config::checked::{Checked, VirtualServer};
use baton::config::snapshot::Snapshot;
use baton::failover::{FailoverEvent, Operator, Role};
use baton::flow::Key;
use baton::flow::key::UDP;

use crate::agenda::{Agenda, Happening, MS, Nanos, Station, US};
use crate::appliance::{Appliance, Disk, Note, PORTS, Start};
use crate::checks::Checks;
use crate::client::{Client, Plan};
use crate::config::{self, SERVICES};
use crate::flows::{self, Order, Sight};
use crate::hosts::{Host, Program};
use crate::lcore::Departure;
use crate::link::{CLIENTS, Lan, MIRROR, SERVERS};
use crate::moves::{self, Moves};
use crate::scenario::{Scenario, Script};
use crate::variants::Variants;

pub const CLIENT_HOSTS: usize = 3;
pub const SERVER_HOSTS: usize = 2;
/// A client uses these many ports in turn, so that they come again within a run.
const CLIENT_PORTS: u16 = 48;

/// An appliance's place in the world, whether it is up or not.
pub struct Node {
    snapshot: Arc<Snapshot>,
    pub disk: Disk,
    pub up: Option<Appliance>,
    pub life: u64,
    /// What its threads would have done while it was paused.
    deferred: Vec<Happening>,
    /// What leaves when it goes on.
    bursts: Vec<Departure>,
    /// The term that it led last.
    pub led: Term,
    /// It leads in that term.
    pub leads: bool,
    /// In which order packets came to it.
    order: Order,
    /// What it writes on its disk fails.
    disk_fails: bool,
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
    lives: u64,
    connections: u64,
    next_port: [u16; CLIENT_HOSTS],
    pub arrivals_until: Nanos,
    /// Frames that left the appliances.
    pub frames: u64,
    pub moves: Moves,
    traces: bool,
}

impl World {
    pub fn new(seed: u64, scenario: Scenario, script: Script, variants: Variants, traces: bool) -> World {
        let client = |number| Host::client(number as u8, Client::default());
        let hosts = (0..CLIENT_HOSTS).map(client).chain((0..SERVER_HOSTS).map(|n| Host::server(n as u8)));
        let nodes = (1..=2).map(|node| Node {
            snapshot: config::snapshot(node, &scenario.options, scenario.divisions[usize::from(node) - 1]),
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
            lan.stations = (0..2).map(|at| Station::Appliance { at, port: number }).collect();
            lan.weather = scenario.weather[number];
        }
        lans[CLIENTS].stations.extend((0..CLIENT_HOSTS).map(Station::Host));
        lans[SERVERS].stations.extend((CLIENT_HOSTS..CLIENT_HOSTS + SERVER_HOSTS).map(Station::Host));
        let mut world = World {
            agenda: Agenda::new(seed),
            lans,
            hosts: hosts.collect(),
            nodes: nodes.collect(),
            checks: Checks::default(),
            variants,
            lives: 0,
            connections: 0,
            next_port: [0; CLIENT_HOSTS],
            arrivals_until: 0,
            scenario,
            script,
            frames: 0,
            moves: Moves::default(),
            traces,
        };
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
            Happening::Script => crate::scenario::go_on(self),
            Happening::Look => {
                crate::checks::look(self);
                self.agenda.at(self.agenda.now + 20 * MS, Happening::Look);
            }
            Happening::Turn { at, life, .. }
            | Happening::Transmit { at, life, .. }
            | Happening::Liveness { at, life }
            | Happening::Master { at, life }
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
                let sent = appliance.transmit(lcore, self.agenda.instant());
                self.send_all(at, sent, false);
            }
            Happening::Liveness { .. } => {
                appliance.liveness(&mut self.agenda);
                self.take_notes(at);
            }
            Happening::Master { .. } => {
                appliance.master(&mut self.agenda);
                self.take_notes(at);
            }
            Happening::Durable { counter, .. } => appliance.reserved(counter),
            _ => {}
        }
    }

    /// Frames leave an appliance.
    fn send_all(&mut self, at: usize, sent: Vec<Departure>, burst: bool) {
        for Departure { port, frame, class, came_as } in sent {
            let (node, now) = (&mut self.nodes[at], self.agenda.now);
            match came_as {
                Some(Ok(sight)) if !node.order.leaves(&sight) => {
                    if !may_overtake(&node.snapshot.checked, &sight.key) {
                        self.checks.overtaken(now, at, &sight);
                    }
                }
                Some(Err(complaint)) => self.checks.complain(now, at, &complaint),
                Some(Ok(_)) | None => {}
            }
            if class == TxClass::Service && !burst {
                self.checks.service_frame(now, at, node.led);
            }
            self.frames += 1;
            let sessions = node.up.as_ref().map_or(0, |up| up.sessions);
            self.checks.sealed_frame(now, (at, node.life), sessions, &frame);
            self.say(|| {
                format!(
                    "{} {} {}",
                    ["a", "b"][at],
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

    fn take_notes(&mut self, at: usize) {
        let Some(appliance) = &mut self.nodes[at].up else { return };
        for note in std::mem::take(&mut appliance.notes) {
            match note {
                Note::MayExit => {
                    if let Some(up) = self.nodes[at].up.take() {
                        self.checks.retire(&up);
                    }
                    self.nodes[at].leads = false;
                    return;
                }
                Note::Happened(event) => self.happened(at, event),
                Note::Moved(outcome) => moves::ended(self, at, &outcome),
            }
        }
    }

    fn happened(&mut self, at: usize, event: FailoverEvent) {
        self.say(|| format!("== {} {event}", ["a", "b"][at]));
        let node = &mut self.nodes[at];
        match &event {
            FailoverEvent::Promoted { term, .. } => (node.led, node.leads) = (*term, true),
            FailoverEvent::InSync { term, .. } | FailoverEvent::OutOfSync { term, .. } => node.led = *term,
            FailoverEvent::Following { .. } | FailoverEvent::Resigned { .. } => node.leads = false,
            _ => {}
        }
        self.checks.happened(self.agenda.now, at, &event);
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
        };
        node.order = Order::default();
        node.disk.boots += 1;
        let appliance = Appliance::start(start, &mut self.agenda);
        self.nodes[at].up = Some(appliance);
        self.say(|| format!("** {} starts", ["a", "b"][at]));
    }

    /// Everything in memory is lost; the disk stays.
    pub fn crash(&mut self, at: usize) {
        self.say(|| format!("** {} crashes", ["a", "b"][at]));
        if let Some(up) = self.nodes[at].up.take() {
            self.checks.retire(&up);
        }
        self.nodes[at].leads = false;
    }

    pub fn pause(&mut self, at: usize) {
        self.say(|| format!("** {} is stopped", ["a", "b"][at]));
        let node = &mut self.nodes[at];
        if let Some(appliance) = &mut node.up {
            node.bursts = appliance.pause(&mut self.agenda);
        }
    }

    pub fn go_on(&mut self, at: usize) {
        self.say(|| format!("** {} is continued", ["a", "b"][at]));
        let node = &mut self.nodes[at];
        let Some(appliance) = &mut node.up else { return };
        if !appliance.paused {
            return;
        }
        appliance.go_on(&mut self.agenda);
        let bursts = std::mem::take(&mut node.bursts);
        for what in std::mem::take(&mut node.deferred) {
            if !matches!(what, Happening::Turn { .. }) {
                let when = self.agenda.now + self.agenda.span(US, 2000 * US);
                self.agenda.at(when, what);
            }
        }
        self.send_all(at, bursts, true);
    }

    pub fn operator(&mut self, at: usize, operator: Operator) {
        self.say(|| format!("** the operator asks {} for {operator:?}", ["a", "b"][at]));
        if let Some(appliance) = &mut self.nodes[at].up {
            let result = appliance.operator(operator, &mut self.agenda);
            self.say(|| format!("** {result:?}"));
        }
        self.take_notes(at);
    }

    /// The place of the one that serves, and of the one that follows it in sync.
    pub fn pair(&self) -> Option<(usize, usize)> {
        let active = self.active()?;
        let other = 1 - active;
        let (led, following) = (self.nodes[active].up.as_ref()?, self.nodes[other].up.as_ref()?);
        let status = led.status();
        let settled = following.failover.role() == Role::Standby
            && !following.paused
            && !led.paused
            && following.status().in_sync
            && following.failover.term() == led.failover.term()
            && !status.members_changing
            && status.members.contains(following.node());
        settled.then_some((active, other))
    }

    /// The place of the one that serves, when it is one.
    pub fn active(&self) -> Option<usize> {
        let serves = |at: &usize| {
            let up = self.nodes[*at].up.as_ref();
            up.is_some_and(|up| up.failover.role() == Role::Active && up.lease > self.agenda.instant())
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
            rounds: if short {
                1
            } else if long {
                rng.u64(6..20)
            } else {
                rng.u64(1..4)
            },
            answer_len: rng.u32(1..2000),
            think: if long { rng.u64(20 * MS..120 * MS) } else { rng.u64(0..30 * MS) },
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
            let interval = self.agenda.span(4 * MS, 25 * MS);
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

    /// Cuts, or mends, all ways from one appliance to the other on these LANs.
    pub fn cut(&mut self, from: usize, to: usize, lans: &[usize], cut: bool) {
        self.say(|| format!("** {} {} to {} on {lans:?}", if cut { "cut" } else { "mended" }, from, to));
        for lan in lans {
            let station = |at| Station::Appliance { at, port: *lan };
            self.lans[*lan].set_cut(station(from), station(to), cut);
        }
    }

    /// No liveness path works both ways, after more than a single fault.
    pub fn is_parted(&self) -> bool {
        let works = |lan: &usize| {
            let (a, b) = (Station::Appliance { at: 0, port: *lan }, Station::Appliance { at: 1, port: *lan });
            let cut = &self.lans[*lan].cut;
            !cut.contains(&(a, b)) && !cut.contains(&(b, a))
        };
        let kind = self.scenario.kind;
        !kind.is_single() && !kind.is_safe() && !ALL.iter().any(works)
    }

    /// The ports of an appliance give flows to other lcores from now on.
    pub fn rehash(&mut self, at: usize) {
        self.say(|| format!("** the ports of {at} change their hash"));
        if let Some(appliance) = &mut self.nodes[at].up {
            appliance.rehash(&mut self.agenda);
        }
    }

    /// Some lcores of an appliance stand still, each for as long as `span` at most; the first one for all of it.
    pub fn stall(&mut self, at: usize, count: usize, span: Nanos) {
        let Some(appliance) = &mut self.nodes[at].up else { return };
        let all = appliance.lcores.len();
        let first = self.agenda.rng.usize(..all);
        for nth in 0..count.min(all) {
            let lasts = if nth == 0 { span } else { self.agenda.span(0, span) };
            appliance.stall((first + nth) % all, self.agenda.now + lasts);
        }
        self.say(|| {
            format!(
                "** {count} lcores of {} from {first} on stand still for {} us",
                ["a", "b"][at],
                span / US
            )
        });
    }

    /// Keys that several workers of an appliance have in their tables.
    pub fn doubles(&self) -> Vec<(usize, String)> {
        let up = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.up.as_ref()?)));
        up.flat_map(|(at, up)| flows::doubles(&up.lcores).into_iter().map(move |double| (at, double)))
            .collect()
    }

    /// Frames pass a port in one direction only: in, or else out.
    pub fn cut_one_way(&mut self, at: usize, lan: usize, inwards: bool) {
        let way = if inwards { "come in" } else { "leave" };
        self.say(|| format!("** frames of {} in {lan} only {way}", ["a", "b"][at]));
        self.lans[lan].cut_one_way(Station::Appliance { at, port: lan }, inwards);
    }

    pub fn forget_addresses(&mut self) {
        self.say(|| "** switches forget which addresses are where".to_owned());
        self.lans.iter_mut().for_each(Lan::forget);
    }

    pub fn disk(&mut self, at: usize, fails: bool) {
        self.say(|| format!("** the disk of {} {}", ["a", "b"][at], if fails { "fails" } else { "works" }));
        self.nodes[at].disk_fails = fails;
    }

    /// Pulls the cable of a port.
    pub fn pull_cable(&mut self, at: usize, lan: usize) {
        self.say(|| format!("** the cable of {} in {lan} is pulled", ["a", "b"][at]));
        self.lans[lan].pull_cable(Station::Appliance { at, port: lan });
    }

    pub fn mend_cables(&mut self) {
        self.lans.iter_mut().for_each(|lan| lan.cut.clear());
    }

    pub fn fair_weather(&mut self) {
        self.lans.iter_mut().for_each(|lan| lan.weather = Default::default());
    }
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
