//! What the control interface asks of a running appliance, answered: from the liveness
//! thread's board, from counters, and by questions to the master thread.

use core::net::SocketAddr;
use core::time::Duration as StdDuration;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel, sync_channel};

use dpdk::Mempool;
use parking_lot::Mutex;

use crate::base::counters::{Counter, Counters};
use crate::base::ids::{NodeId, ShardId, Term, WorkerId};
use crate::base::limits::SHARDS;
use crate::base::spans::Spans;
use crate::base::time::Instant;
use crate::config::checked::{Checked, Protocol};
use crate::control::Backend;
use crate::control::choosing::{self, Wish};
use crate::control::maintenance::Maintenance;
use crate::control::mirroring::standing;
use crate::control::rebalance::{RebalanceReport, Wanted};
use crate::control::reload::{NotReloaded, ReloadReport};
use crate::control::report::{
    BufferTotals, CounterReport, DigestReport, DisbelievedReport, EventReport, FlowFilter, FlowLine,
    FlowReport, FlowTotals, Histogram, HoldReport, LatencyReport, MirrorPeerReport, MirrorReport,
    MirrorState, PeerReport, PoolLine, PoolReport, PortLine, PortReport, ServerLine, StatusReport,
    StreamReport, VirtualServerLine, WalkReport, WorkerReport,
};
use crate::control::rss::RssReport;
use crate::driver::clock::Clock;
use crate::driver::configuring::Published;
use crate::driver::events::EventLog;
use crate::driver::liveness::{Board, Request};
use crate::driver::load::Loads;
use crate::driver::master::{Question, mac_text};
use crate::driver::provoked::Provoked;
use crate::driver::rebalancing::{self, shard_flows};
use crate::driver::reload::Reloader;
use crate::failover::status::PeerStatus;
use crate::failover::{FailoverStatus, Operator, Role, State};
use crate::flow::TcpState;
use crate::flow::key::TCP;
use crate::flow::shard::owner_of;
use crate::flow::toeplitz::Toeplitz;
use crate::master::rebalance::skew;
use crate::worker::message::{SeenFlow, WorkerStatus};

/// How long an answer of other threads may take.
const ANSWER_TIMEOUT: StdDuration = StdDuration::from_secs(3);
/// How long a change of roles that someone asked for is followed.
const CHANGE_TIMEOUT: StdDuration = StdDuration::from_secs(3);
/// Between two looks at its progress.
const CHANGE_LOOK: StdDuration = StdDuration::from_millis(5);

/// Who owns the queues of a port, in the queues' order, and how the port fills them.
#[derive(Clone, Debug, Default)]
pub struct QueueOwners {
    /// Who receives.
    pub rx: Vec<WorkerId>,
    /// Who sends; other traffic managers send by them.
    pub tx: Vec<WorkerId>,
    /// How the port spreads packets over those who receive.
    pub rss: RssReport,
}

/// What answers are made from.
pub struct Appliance {
    /// The configuration.
    pub published: Arc<Published>,
    /// Who reads the configuration's file again.
    pub reloader: Reloader,
    /// The time.
    pub clock: Clock,
    /// What the liveness thread shares.
    pub board: Arc<Board>,
    /// How busy the workers are.
    pub loads: Arc<Loads>,
    /// Turns at the last look, for each worker.
    pub turns_seen: Mutex<Vec<u64>>,
    /// Who counts, and their counters.
    pub counters: Vec<(String, Arc<Counters>)>,
    /// What happened.
    pub events: Arc<EventLog>,
    /// The hash of shards.
    pub toeplitz: Arc<Toeplitz>,
    /// Packet buffers.
    pub pool: Mempool,
    /// Who has which queues of each port.
    pub queues: Vec<QueueOwners>,
    /// For tests: the control thread may be asked to panic.
    pub provoked: Provoked,
    /// To the master thread.
    pub questions: Mutex<Sender<Question>>,
}

impl Appliance {
    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Question) -> Option<T> {
        let (answer, answered) = channel();
        self.questions.lock().send(question(answer)).ok()?;
        answered.recv_timeout(ANSWER_TIMEOUT).ok()
    }

    pub(super) fn workers(&self) -> Vec<WorkerStatus> {
        self.ask(Question::Status).unwrap_or_default()
    }

    pub(super) fn failover(&self) -> Option<FailoverStatus> {
        self.board.status.lock().clone()
    }

    /// Has the liveness thread do what an operator asks; the error is its refusal.
    fn request(&self, operator: Operator) -> Result<(), String> {
        let (answer, answered) = sync_channel(1);
        self.board.requests.lock().push_back(Request { operator, answer });
        answered
            .recv_timeout(ANSWER_TIMEOUT)
            .map_err(|_| "the liveness thread does not answer".to_owned())?
            .map_err(|refusal| refusal.to_string())
    }

    /// Follows a change of roles until `over` says what it came to; `None`: it takes too long.
    fn wait_until<T>(&self, over: impl Fn(&FailoverStatus) -> Option<T>) -> Option<T> {
        let mut waited = StdDuration::ZERO;
        while waited < CHANGE_TIMEOUT {
            let came_to = self.failover().as_ref().and_then(&over);
            if came_to.is_some() {
                return came_to;
            }
            std::thread::sleep(CHANGE_LOOK);
            waited += CHANGE_LOOK;
        }
        None
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.counters.iter().map(|(_, counters)| counters.value(counter)).sum()
    }

    fn flow_line(config: &Checked, worker: WorkerId, seen: &SeenFlow) -> FlowLine {
        let SeenFlow { flow, idle, protected, because, confirmed } = seen;
        let is_periodic = config.mirror.as_ref().is_some_and(|mirror| mirror.maintenance_every.is_some());
        let (client, server) = (&flow.client, &flow.server);
        let name = config.virtual_servers.iter().find(|server| server.id == flow.virtual_server);
        FlowLine {
            protocol: if client.protocol == TCP { Protocol::Tcp } else { Protocol::Udp },
            client: SocketAddr::new(client.src.ip(), client.src_port),
            virtual_address: SocketAddr::new(client.dst.ip(), client.dst_port),
            virtual_server: name.map_or_else(|| flow.virtual_server.to_string(), |found| found.name.clone()),
            source_nat: flow.is_full_nat().then(|| SocketAddr::new(server.dst.ip(), server.dst_port)),
            server: SocketAddr::new(server.src.ip(), server.src_port),
            state: state_text(flow.tcp).to_owned(),
            idle_ms: idle.millis(),
            shard: flow.shard,
            worker,
            version: flow.changed.version,
            protected: *protected,
            confirmed: is_periodic.then_some(*confirmed),
            mirrored: flow.is_mirrored(),
            because: choosing::why(*because),
        }
    }

    fn stream_reports(&self, now: Instant, workers: &[WorkerStatus], node: NodeId) -> Vec<StreamReport> {
        let all = workers.iter().enumerate().flat_map(|(from, status)| {
            status.streams.iter().map(move |stream| (WorkerId(from as u16), stream))
        });
        all.filter(|(_, stream)| stream.peer == node)
            .map(|(from, stream)| StreamReport::of(now, from, stream))
            .collect()
    }
}

/// The names of virtual servers, which have these ids.
fn names_of(config: &Checked, ids: &[u32]) -> Vec<String> {
    let name = |id: &u32| {
        let found = config.virtual_servers.iter().find(|server| server.id.0 == *id);
        found.map_or_else(|| format!("unknown here, number {id}"), |server| server.name.clone())
    };
    ids.iter().map(name).collect()
}

/// As the command line shows it.
const fn state_text(state: TcpState) -> &'static str {
    match state {
        TcpState::SynSeen => "syn-seen",
        TcpState::SynAckSeen => "syn-ack-seen",
        TcpState::Established => "established",
        TcpState::FinFromClient => "fin-from-client",
        TcpState::FinFromServer => "fin-from-server",
        TcpState::Closing => "closing",
        TcpState::Closed => "closed",
        TcpState::Datagram => "open",
    }
}

/// Of all workers together.
fn spans_of(workers: &[WorkerStatus], spans: impl Fn(&WorkerStatus) -> &Spans) -> Spans {
    let mut all = Spans::default();
    workers.iter().for_each(|status| all.merge(spans(status)));
    all
}

fn sum_of(workers: &[WorkerStatus], list: impl Fn(&WorkerStatus) -> &[(u32, u64)], id: u32) -> u64 {
    workers.iter().flat_map(list).filter(|(of, _)| *of == id).map(|(_, count)| count).sum()
}

impl Backend for Appliance {
    fn status(&self) -> StatusReport {
        self.provoked.panic_if_asked("control");
        let snapshot = self.published.newest();
        let config = &snapshot.checked;
        let workers = self.workers();
        let failover = self.failover();
        let failover = failover.as_ref();
        let role = failover.map_or(Role::Booting, |status| status.role);
        let now = self.clock.now();
        let sum = |of: fn(&WorkerStatus) -> u64| workers.iter().map(of).sum::<u64>();
        let (mirrored, protected) = (sum(|status| status.mirrored), sum(|status| status.protected));
        let oldest = workers.iter().filter_map(|status| status.oldest_unacknowledged).min();
        let mut in_sync: Vec<NodeId> = failover.iter().flat_map(|status| status.members.iter()).collect();
        let peers: Vec<NodeId> =
            failover.iter().flat_map(|status| &status.peers).map(|peer| peer.node).collect();
        let synchronized =
            role.claims() && !peers.is_empty() && peers.iter().all(|node| in_sync.contains(node));
        if role.claims() {
            in_sync.push(config.appliance.node);
            in_sync.sort_unstable();
        }
        let (spent, loads) = (self.loads.spent(), self.loads.read());
        let counts: Vec<u64> = spent.iter().map(|spent| spent.turns).collect();
        let seen = core::mem::replace(&mut *self.turns_seen.lock(), counts.clone());
        let worker_reports = config.lcores.workers.iter().enumerate().map(|(number, lcore)| {
            let worker = WorkerId(number as u16);
            let owned = || workers.get(number).into_iter().flat_map(|status| &status.by_shard);
            let is_moved =
                |(shard, _): &&(ShardId, u64)| owner_of(*shard, config.lcores.managers()) != worker;
            let spent = spent.get(number).copied().unwrap_or_default();
            let load = loads.get(number).copied().unwrap_or_default();
            WorkerReport {
                worker,
                cpu: lcore.cpu,
                roles: lcore.roles.clone(),
                shards: owned().count() as u32,
                moved: owned().filter(is_moved).count() as u32,
                flows: workers.get(number).map_or(0, |status| status.flows),
                load_percent: load.percent,
                cycles_per_packet: load.cycles_per_packet,
                turns: spent.turns,
                busy_turns: spent.busy_turns,
                busy_us: spent.busy.micros(),
                empty_us: spent.empty.micros(),
                packets: spent.packets,
                progressing: counts.get(number) != seen.get(number),
            }
        });
        let port_name = |port: crate::base::ids::PortId| {
            config.ports.get(usize::from(port.0)).map_or_else(String::new, |port| port.name.clone())
        };
        let own_edition = failover.map(|status| status.edition).unwrap_or_default();
        let hindrance = |peer: &PeerStatus| {
            let streams = workers.iter().flat_map(|status| &status.streams);
            let streams = streams.filter(|stream| stream.peer == peer.node);
            role.claims().then(|| standing(now, (peer.session, peer.walk_done), streams).1).flatten()
        };
        let lease_left = failover.map_or(0, |status| status.lease_left_us);
        StatusReport {
            name: config.appliance.name.clone(),
            node: config.appliance.node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role,
            state: failover.map_or(State::Booting, |status| status.state),
            leader: failover.and_then(|status| status.leader),
            waits_for_operator: failover.is_some_and(|status| status.waits_for_operator),
            witness: failover.and_then(|status| status.witness),
            can_lead: failover.is_some_and(|status| status.can_lead),
            maintenance: failover.is_some_and(|status| status.maintenance),
            ailments: self.board.ailments.lock().clone(),
            takeovers: failover.map_or(0, |status| status.takeovers),
            degraded: failover.is_some_and(|status| status.degraded),
            synchronized,
            term: failover.map_or(Term::NONE, |status| status.term),
            generation: snapshot.generation,
            uptime_ms: self.clock.uptime().millis(),
            lease_ms: (lease_left > 0).then_some(lease_left / 1000),
            in_sync,
            workers: worker_reports.collect(),
            skew: skew(&shard_flows(&workers)),
            peers: failover
                .iter()
                .flat_map(|status| &status.peers)
                .map(|peer| PeerReport {
                    only: names_of(config, &peer.only),
                    hindrance: hindrance(peer),
                    ..PeerReport::new(peer, own_edition, port_name)
                })
                .collect(),
            flows: FlowTotals {
                active: sum(|status| status.flows),
                max: config.flows.max.into(),
                protected,
                unprotected: mirrored.saturating_sub(protected),
                left_out: sum(|status| status.flows).saturating_sub(mirrored),
                oldest_unprotected_ms: oldest.map_or(0, |since| (now - since).millis()),
                ports_resting: sum(|status| status.ports_resting as u64),
            },
            buffers: BufferTotals { total: self.pool.size().into(), in_use: self.pool.in_use().into() },
        }
    }

    fn flows(&self, filter: &FlowFilter) -> FlowReport {
        let (mut report, snapshot) = (FlowReport::default(), self.published.newest());
        let (answer, slices) = channel();
        if self.questions.lock().send(Question::Flows(answer)).is_err() {
            return report;
        }
        // The master drops its sender behind the last slice.
        while let Ok((worker, slice)) = slices.recv_timeout(ANSWER_TIMEOUT) {
            for seen in &slice.flows {
                let line = Appliance::flow_line(&snapshot.checked, worker, seen);
                if filter.wants(&line) {
                    report.matching += 1;
                    if report.flows.len() < filter.limit {
                        report.flows.push(line);
                    }
                }
            }
        }
        report
    }

    fn choose(&self, wanted: &Wish) -> Result<String, String> {
        let said = self.ask(|answer| Question::Choose(wanted.key(), wanted.choice, answer));
        let Some(said) = said else {
            log::warn!(
                "an operator's wish {} may be done later: the workers do not answer",
                wanted.to_query()
            );
            return Err("the workers do not answer; it may be done later: look at `baton flows`".to_owned());
        };
        let said = choosing::outcome(wanted, &said)?;
        log::info!("as an operator wants: {said}");
        self.events.add("mirror", format!("as an operator wants: {said}"));
        Ok(said)
    }

    fn counters(&self) -> CounterReport {
        let owners: Vec<(&str, &Counters)> =
            self.counters.iter().map(|(name, counters)| (name.as_str(), &**counters)).collect();
        CounterReport::read(&owners)
    }

    fn mirror(&self) -> MirrorReport {
        let workers = self.workers();
        let failover = self.failover();
        let leads = failover.as_ref().is_some_and(|status| status.role.claims());
        let now = self.clock.now();
        let peers = failover.iter().flat_map(|status| &status.peers).map(|peer| {
            let streams = || {
                workers.iter().flat_map(|status| &status.streams).filter(|stream| stream.peer == peer.node)
            };
            let to_walk: usize = streams().map(|stream| stream.shards_to_walk).sum();
            let (state, hindrance) = match (peer.session, leads) {
                (false, false) => (MirrorState::Down, None),
                (true, false) => (MirrorState::Receiving, None),
                (_, true) => standing(now, (peer.session, peer.walk_done), streams()),
            };
            let told = leads && peer.session;
            let mirrored: u64 = workers.iter().map(|status| status.mirrored).sum();
            let known: u64 = streams().map(|stream| stream.known).sum();
            let oldest = streams().filter_map(|stream| stream.oldest_since).min().filter(|_| told);
            MirrorPeerReport {
                only: names_of(&self.published.newest().checked, &peer.only),
                unprotected: (leads && peer.only.is_empty()).then(|| mirrored.saturating_sub(known)),
                oldest_unprotected_ms: oldest.map(|since| (now - since).millis()),
                digests: told.then(|| DigestReport::of(now, streams())),
                disbelieved: peer.disbelieved.as_ref().map(DisbelievedReport::new),
                hindrance,
                node: peer.node,
                state,
                session: peer.boot.filter(|_| peer.session).map(|boot| format!("{:016x}", boot.0)),
                in_sync: peer.in_sync,
                streams: self.stream_reports(now, &workers, peer.node),
                walk: leads.then(|| WalkReport {
                    shards_done: SHARDS.saturating_sub(to_walk) as u32,
                    shards: SHARDS as u32,
                    records: streams().map(|stream| stream.statistics.records_sent).sum(),
                }),
            }
        });
        let held: usize = workers.iter().map(|status| status.held).sum();
        let held_for = spans_of(&workers, |status| &status.held_for);
        let protected_after = spans_of(&workers, |status| &status.protection_latency);
        MirrorReport {
            peers: peers.collect(),
            protection: LatencyReport::of(&protected_after),
            protected_after: Histogram::of(&protected_after),
            hold: HoldReport {
                held: held as u64,
                released: self.counted(Counter::Held).saturating_sub(held as u64),
                timeouts: self.counted(Counter::HoldTimeouts),
                latency: Histogram::of(&held_for),
                waited: LatencyReport::of(&held_for),
            },
        }
    }

    fn events(&self) -> EventReport {
        self.events.report()
    }

    fn ports(&self) -> PortReport {
        let states = self.ask(Question::Ports).unwrap_or_default();
        let snapshot = self.published.newest();
        let lines = snapshot.checked.ports.iter().enumerate().map(|(number, port)| {
            let state = states.get(number).copied().unwrap_or_default();
            let owners = self.queues.get(number).cloned().unwrap_or_default();
            PortLine {
                port: crate::base::ids::PortId(number as u16),
                name: port.name.clone(),
                device: port.device.clone(),
                mac: mac_text(state.mac),
                link_up: state.link_up,
                received_by: owners.rx,
                sent_by: owners.tx,
                rss: owners.rss,
                rx_packets: state.stats.rx_packets,
                rx_bytes: state.stats.rx_bytes,
                rx_missed: state.stats.rx_missed.saturating_add(state.stats.rx_no_buffer),
                rx_errors: state.stats.rx_errors,
                tx_packets: state.stats.tx_packets,
                tx_bytes: state.stats.tx_bytes,
                tx_errors: state.stats.tx_errors,
            }
        });
        PortReport { ports: lines.collect() }
    }

    fn pools(&self) -> PoolReport {
        let workers = self.workers();
        let snapshot = self.published.newest();
        let config = &snapshot.checked;
        let pools = config.pools.iter().filter(|pool| !pool.servers.is_empty()).map(|pool| PoolLine {
            name: pool.name.clone(),
            servers: pool
                .servers
                .iter()
                .map(|server| ServerLine {
                    address: SocketAddr::new(server.address, server.port),
                    weight: server.weight,
                    up: true,
                    retired: server.retired,
                    flows: sum_of(&workers, |status| &status.by_server, server.id.0),
                })
                .collect(),
        });
        let virtual_servers = config.virtual_servers.iter().map(|server| VirtualServerLine {
            name: server.name.clone(),
            address: SocketAddr::new(server.address, server.port),
            protocol: server.protocol,
            pool: config.pools[server.pool].name.clone(),
            retired: server.retired,
            flows: sum_of(&workers, |status| &status.by_virtual_server, server.id.0),
        });
        PoolReport {
            pools: pools.collect(),
            virtual_servers: virtual_servers.collect(),
            source_nat: Vec::new(),
        }
    }

    fn rebalance(&self, wanted: &Wanted) -> Result<RebalanceReport, String> {
        rebalancing::rebalance(self, wanted)
    }

    fn reload(&self) -> Result<ReloadReport, NotReloaded> {
        self.reloader.reload()
    }

    fn switchover(&self) -> Result<String, String> {
        self.request(Operator::Switchover)?;
        let over = self.wait_until(|status| {
            let leader = status.leader.filter(|_| status.role == Role::Standby)?;
            Some(format!("node {leader} leads in term {}", status.term))
        });
        over.ok_or_else(|| "the handover did not come to an end in time: see `baton events`".to_owned())
    }

    fn maintenance(&self, wanted: Maintenance) -> Result<String, String> {
        let changes = |status: &FailoverStatus| status.maintenance_changes;
        let (before, was_on) =
            self.failover().as_ref().map_or((0, false), |status| (changes(status), status.maintenance));
        self.request(Operator::Maintenance { on: wanted.on, force: wanted.force })?;
        if !wanted.on {
            return Ok("it is in service".to_owned());
        }
        let over = self.wait_until(|status| {
            // What was published before says nothing of it.
            if !was_on && changes(status) == before {
                return None;
            }
            if !status.maintenance {
                return Some(Err("nobody in sync can take over any more: it serves on".to_owned()));
            }
            if status.role.claims() {
                return None;
            }
            let leader = status.leader.filter(|_| status.role == Role::Standby);
            let Some(leader) = leader else {
                // Whoever is to lead may not have said so yet.
                let nobody = wanted.force || status.peers.iter().all(|peer| !peer.heard);
                return nobody.then(|| Ok("it is under maintenance; no leader is heard".to_owned()));
            };
            let follows = leader != status.node;
            follows
                .then(|| Ok(format!("it is under maintenance; node {leader} leads in term {}", status.term)))
        });
        over.unwrap_or_else(|| {
            Ok("it is under maintenance; no leader is heard yet: see `baton events`".to_owned())
        })
    }

    fn promote(&self) -> Result<String, String> {
        let promotions = |status: &FailoverStatus| status.promotions;
        let before = self.failover().as_ref().map_or(0, promotions);
        self.request(Operator::Promote)?;
        let led = self.wait_until(|status| {
            // What was published before it was promoted says nothing of it.
            if promotions(status) <= before {
                return None;
            }
            let lost = if status.degraded { "; it was not in sync, some flows may be lost" } else { "" };
            if status.role == Role::Active {
                return Some(Ok(format!("it leads in term {}{lost}", status.term)));
            }
            let leader = status.leader.filter(|_| status.role == Role::Standby)?;
            Some(Err(format!("node {leader} leads in term {}, which is higher", status.term)))
        });
        led.unwrap_or_else(|| Err("it took a term, and does not serve yet: see `baton events`".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use std::path::Path;

    use super::*;
    use crate::base::time::Duration;
    use crate::config::load;
    use crate::flow::Flow;
    use crate::flow::key::Key;
    use crate::worker::message::Because;

    /// REQ B6.
    #[test]
    fn whether_peers_have_a_flows_newest_state_is_said_where_that_is_not_acknowledged() {
        let mut config =
            load(Path::new("a.toml"), include_str!("../../config/example.toml")).expect("it is good");
        let key = Key {
            src: Ipv4Addr::new(10, 1, 0, 7).into(),
            dst: Ipv4Addr::new(10, 1, 0, 100).into(),
            src_port: 1024,
            dst_port: 80,
            vlan: 0,
            protocol: TCP,
        };
        let seen = |confirmed| SeenFlow {
            flow: Flow::new(key, key.reversed(), TcpState::Established),
            idle: Duration::ZERO,
            protected: true,
            confirmed,
            because: Because::VirtualServer,
        };
        let said = |config: &Checked, confirmed| {
            Appliance::flow_line(config, WorkerId(0), &seen(confirmed)).confirmed
        };
        assert_eq!(said(&config, false), None);
        let mirror = config.mirror.as_mut().expect("it has one");
        mirror.maintenance_every = Some(Duration::from_millis(1000));
        assert_eq!([false, true].map(|confirmed| said(&config, confirmed)), [Some(false), Some(true)]);
    }
}
