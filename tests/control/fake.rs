//! An appliance that never was, and what it answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use baton::base::counters::{Counter, Counters};
use baton::base::ids::{NodeId, ShardId, Term, Version, WorkerId};
use baton::config::checked::Protocol;
use baton::control::Backend;
use baton::control::choosing::Wish;
use baton::control::maintenance::Maintenance;
use baton::control::rebalance::{MoveLine, RebalanceReport, Wanted};
use baton::control::reload::{NotReloaded, ReloadReport};
use baton::control::report::*;
use baton::control::rss::{RssReport, SpreadBy};
use baton::failover::State;
use baton::failover::role::Role;
use baton::worker::message::Choice;

/// An appliance that never was.
#[derive(Default)]
pub struct Fake {
    switchovers: AtomicU32,
    promotions: AtomicU32,
    reloads: AtomicU32,
}

pub fn flow(client: &str, protected: bool) -> FlowLine {
    FlowLine {
        protocol: Protocol::Tcp,
        client: client.parse().expect("an address"),
        virtual_address: "10.1.0.100:80".parse().expect("an address"),
        virtual_server: "www".to_owned(),
        source_nat: Some("10.2.0.100:4000".parse().expect("an address")),
        server: "10.2.0.10:80".parse().expect("an address"),
        state: "established".to_owned(),
        idle_ms: 12,
        shard: ShardId(7),
        worker: WorkerId(1),
        version: Version(99),
        protected,
        confirmed: Some(protected),
        mirrored: protected,
        because: if protected { "rule 2" } else { "operator" }.to_owned(),
    }
}

/// All that it has: one that is protected, one that is left out, and one that waits to be protected.
pub fn flows() -> [FlowLine; 3] {
    let waiting =
        FlowLine { mirrored: true, because: "virtual server".to_owned(), ..flow("10.1.0.8:1026", false) };
    [flow("10.1.0.7:1024", true), flow("[fd01::7]:1025", false), waiting]
}

impl Backend for Fake {
    fn status(&self) -> StatusReport {
        StatusReport {
            name: "baton-a".to_owned(),
            node: NodeId(1),
            role: Role::Active,
            state: State::ActiveAlone,
            term: Term { counter: 3, node: NodeId(1) },
            lease_ms: Some(31),
            in_sync: vec![NodeId(1), NodeId(2)],
            workers: vec![WorkerReport {
                cpu: 1,
                shards: 256,
                flows: 2,
                load_percent: Some(42.5),
                cycles_per_packet: Some(131.0),
                turns: 900,
                busy_turns: 400,
                busy_us: 425_000,
                empty_us: 575_000,
                packets: 8_435_000,
                progressing: true,
                ..Default::default()
            }],
            skew: Some(1.25),
            peers: vec![PeerReport {
                only: Vec::new(),
                node: NodeId(2),
                role: Some(Role::Standby),
                state: Some(State::Synchronizing),
                in_sync: true,
                hindrance: Some("it has answered nothing for 700 ms".to_owned()),
                can_lead: Some(true),
                maintenance: Some(true),
                ailing: Some(1),
                configuration: Some(3),
                same_services: Some(false),
                term: Some(Term { counter: 2, node: NodeId(2) }),
                own_key: Some("5eed0001".to_owned()),
                accepted_keys: vec!["5eed0001".to_owned(), "5eed0002".to_owned()],
                other_key: false,
                key: Some("5eed0002".to_owned()),
                disbelieved: Some(DisbelievedReport {
                    what: "mirror frames in the name of node 2 are refused".to_owned(),
                    ms_ago: 1_500,
                    count: 7,
                }),
                heard_ms_ago: Some(2),
                paths: vec![PathReport { port: "client".to_owned(), heard_ms_ago: Some(2), two_way: true }],
            }],
            flows: FlowTotals {
                active: 2,
                max: 1000,
                protected: 1,
                unprotected: 1,
                oldest_unprotected_ms: 4,
                left_out: 5,
                ports_resting: 3,
            },
            version: "0.1.0".to_owned(),
            leader: Some(NodeId(1)),
            waits_for_operator: false,
            witness: None,
            can_lead: false,
            maintenance: true,
            ailments: vec!["the link of port client is down".to_owned()],
            takeovers: 1,
            degraded: false,
            synchronized: true,
            generation: 1,
            uptime_ms: 61_000,
            buffers: BufferTotals { total: 16_384, in_use: 96 },
        }
    }

    fn flows(&self, filter: &FlowFilter) -> FlowReport {
        let flows: Vec<FlowLine> = flows().into_iter().filter(|flow| filter.wants(flow)).collect();
        FlowReport { matching: flows.len() as u64, flows: flows.into_iter().take(filter.limit).collect() }
    }

    fn choose(&self, wanted: &Wish) -> Result<String, String> {
        match wanted.choice {
            Choice::Auto => Err("there is no such flow".to_owned()),
            Choice::On | Choice::Off => Ok(format!("{:?} {} to {}", wanted.choice, wanted.client, wanted.to)),
        }
    }

    fn counters(&self) -> CounterReport {
        let (first, second) = (Counters::default(), Counters::default());
        first.add(Counter::RxPackets, 40);
        second.add(Counter::RxPackets, 2);
        CounterReport::read(&[("worker0", &first), ("worker1", &second)])
    }

    fn mirror(&self) -> MirrorReport {
        let bucket = |up_to_us, count| Bucket { up_to_us, count };
        let partial = MirrorPeerReport {
            only: vec!["www".to_owned()],
            node: NodeId(3),
            state: MirrorState::Synchronized,
            unprotected: None,
            oldest_unprotected_ms: Some(6),
            walk: Some(WalkReport { shards_done: 256, shards: 256, records: 20 }),
            ..Default::default()
        };
        MirrorReport {
            peers: vec![
                MirrorPeerReport {
                    node: NodeId(2),
                    state: MirrorState::Walking,
                    hindrance: Some("it is being told of the flows of 244 shards".to_owned()),
                    session: Some("4f".to_owned()),
                    streams: vec![StreamReport {
                        sent: 50,
                        checkpoints: 12,
                        acknowledged: 36,
                        in_flight: 2,
                        refused: 7,
                        refusal: Some("its table is full".to_owned()),
                        credit: 256,
                        latency: Some(LatencyReport { count: 40, p50_us: 21.5, p99_us: 90.3, max_us: 412.0 }),
                        sent_per_second: RateReport { records: 1200, bytes: 99_000 },
                        last_error: Some(ErrorReport { ago_ms: 70, what: "a frame was lost".to_owned() }),
                        ..Default::default()
                    }],
                    unprotected: Some(31),
                    oldest_unprotected_ms: Some(4),
                    walk: Some(WalkReport { shards_done: 12, shards: 256, records: 900 }),
                    digests: Some(DigestReport { agreed_ms: Some(410), differing: 1, found: 3 }),
                    ..Default::default()
                },
                partial,
            ],
            hold: HoldReport {
                held: 1,
                released: 9,
                timeouts: 0,
                latency: Histogram { buckets: vec![bucket(Some(100), 8), bucket(None, 1)] },
                waited: Some(LatencyReport { count: 9, p50_us: 60.0, p99_us: 130.0, max_us: 131.2 }),
            },
            protection: Some(LatencyReport { count: 48, p50_us: 70.5, p99_us: 120.0, max_us: 131.2 }),
            protected_after: Histogram { buckets: vec![bucket(Some(128), 47), bucket(None, 1)] },
        }
    }

    fn events(&self) -> EventReport {
        let message = "promoted: node 2 was not heard for 50 ms".to_owned();
        let kind = "role".to_owned();
        let event = EventLine {
            number: 1,
            unix_ms: 1_700_000_000_123,
            unix_us: 1_700_000_000_123_456,
            kind,
            silence_us: Some(50_007),
            message,
            ..EventLine::default()
        };
        EventReport { events: vec![event] }
    }

    fn ports(&self) -> PortReport {
        let rss = |by, why: Option<&str>| RssReport {
            by,
            hashes: Some("source of TCP and UDP".to_owned()),
            queues: 2,
            buckets: 128,
            why: why.map(str::to_owned),
        };
        let port = |name: &str, rss| PortLine { name: name.to_owned(), rss, ..Default::default() };
        let client = PortLine { link_up: true, rx_packets: 5, ..port("client", rss(SpreadBy::Port, None)) };
        let server = port("server", rss(SpreadBy::Software, Some("it offers no RSS")));
        PortReport { ports: vec![client, server, port("mirror", RssReport::default())] }
    }

    fn pools(&self) -> PoolReport {
        let address = "10.2.0.10:80".parse().expect("an address");
        let server = ServerLine { address, weight: 1, up: true, retired: false, flows: 2 };
        PoolReport {
            pools: vec![PoolLine { name: "web".to_owned(), servers: vec![server] }],
            virtual_servers: Vec::new(),
            source_nat: Vec::new(),
        }
    }

    fn rebalance(&self, wanted: &Wanted) -> Result<RebalanceReport, String> {
        match wanted.one {
            Some((shard, _)) if shard.0 > 255 => Err("there is no such shard".to_owned()),
            Some((shard, to)) => {
                let line = MoveLine { shard, to, flows: 9, ..MoveLine::default() };
                Ok(RebalanceReport {
                    dry_run: wanted.dry_run,
                    moves: vec![line],
                    ..RebalanceReport::default()
                })
            }
            None => Ok(RebalanceReport { dry_run: wanted.dry_run, ..RebalanceReport::default() }),
        }
    }

    fn reload(&self) -> Result<ReloadReport, NotReloaded> {
        match self.reloads.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(ReloadReport {
                generation: 2,
                changes: vec!["pool web: server 10.2.0.10:80: weight 3, was 1".to_owned()],
                warnings: Vec::new(),
            }),
            1 => Err(NotReloaded::Wrong("a.toml has an error:\n  a.toml:3: eal.buffers".to_owned())),
            _ => Err(NotReloaded::Failed("the appliance is ending".to_owned())),
        }
    }

    fn switchover(&self) -> Result<String, String> {
        match self.switchovers.fetch_add(1, Ordering::Relaxed) {
            0 => Ok("node 2 leads".to_owned()),
            _ => Err("this appliance does not lead".to_owned()),
        }
    }

    fn maintenance(&self, wanted: Maintenance) -> Result<String, String> {
        match wanted {
            Maintenance { on: true, force: false } => Err("no standby is in sync".to_owned()),
            Maintenance { on: true, force: true } => Ok("it is under maintenance".to_owned()),
            Maintenance { on: false, .. } => Ok("it is in service".to_owned()),
        }
    }

    fn promote(&self) -> Result<String, String> {
        match self.promotions.fetch_add(1, Ordering::Relaxed) {
            0 => Ok("it leads in term 4.1".to_owned()),
            _ => Err("it leads already".to_owned()),
        }
    }
}

pub fn fake() -> Arc<dyn Backend> {
    Arc::new(Fake::default())
}
