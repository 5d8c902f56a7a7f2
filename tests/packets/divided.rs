//! The same traffic through one worker and through lcores with divided roles: what becomes of each flow is the same
//! (REQ E1, E2, D9).
//!
//! Every lcore's turns come in a seeded order, with stalls; rings and port queues keep their order. Ports give each
//! direction of a flow to any lcore that receives, always the same one, and each fragment to any.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use baton::base::counters::{Counter, Counters};
use baton::base::ids::{PortId, WorkerId};
use baton::base::io::{Punt, TxClass};
use baton::base::limits::BURST_MAX;
use baton::base::rng::Rng;
use baton::base::time::Instant;
use baton::config::checked::{ChosenMethod, HashMethod, Method};
use baton::config::snapshot::Snapshot;
use baton::distributor::spread::{Distributor, DistributorSetup};
use baton::distributor::tell::Told;
use baton::driver::memory::PlainBuffer;
use baton::wire::fragment::Fragment;
use baton::wire::parse::parse;
use baton::worker::Origin;
use baton::worker::message::{Command, Event, Role};

use crate::bench::*;
use crate::conversations::*;
use crate::moves::Moves;
use crate::pieces::{Host, pieces};

/// Which lcores there are: workers that do everything, workers that only hold flows, and distributors.
#[derive(Clone, Copy, Debug)]
struct Division {
    fused: u16,
    managers: u16,
    distributors: u16,
}

const FUSED: Division = Division { fused: 1, managers: 0, distributors: 0 };
const DIVIDED: [Division; 6] = [
    Division { fused: 0, managers: 1, distributors: 1 },
    Division { fused: 0, managers: 3, distributors: 1 },
    Division { fused: 0, managers: 2, distributors: 2 },
    Division { fused: 1, managers: 2, distributors: 1 },
    Division { fused: 2, managers: 0, distributors: 1 },
    Division { fused: 3, managers: 0, distributors: 0 },
];

impl Division {
    fn workers(self) -> u16 {
        self.fused + self.managers
    }

    fn lcores(self) -> usize {
        usize::from(self.workers() + self.distributors)
    }

    /// The lcores that receive.
    fn receivers(self) -> Vec<usize> {
        (0..usize::from(self.fused)).chain(usize::from(self.workers())..self.lcores()).collect()
    }
}

/// An appliance of several lcores: workers first, then distributors.
struct Appliance {
    division: Division,
    workers: Vec<Bench>,
    distributors: Vec<(Distributor, MemoryIo, Arc<Counters>)>,
    /// Of every lcore: what its ports' queues hold.
    rx: Vec<VecDeque<PlainBuffer>>,
    /// From every lcore to every worker.
    rings: Vec<Vec<VecDeque<PlainBuffer>>>,
    /// What every lcore was told by each other one, and has not heard.
    told: Vec<Vec<VecDeque<Told>>>,
    /// Workers choose traffic managers.
    chooses: bool,
    /// Shards that move at any time, if they do.
    moves: Option<Moves>,
    sent: Vec<Sent>,
    rng: Rng,
}

impl Appliance {
    fn new(division: Division, role: Role, seed: u64) -> Appliance {
        Appliance::selecting(division, role, seed, Method::Hash(HashMethod::Source))
    }

    fn selecting(division: Division, role: Role, seed: u64, select: Method) -> Appliance {
        let count = division.workers();
        let mut checked = snapshot(1).checked.clone();
        checked.lcores.workers = vec![checked.lcores.workers[0].clone(); usize::from(count)];
        checked.virtual_servers.iter_mut().for_each(|server| server.select = select);
        checked.distributor.max_keys = 4096;
        checked.distributor.remembers = !select.is_hash();
        checked.distributor.ratio = (1..=u32::from(count)).collect();
        let snapshot = Arc::new(Snapshot { generation: 1, checked });
        let worker = |id| {
            let mut bench = Bench::of(Arc::clone(&snapshot), id, count);
            bench.worker.set_serves(true);
            bench.know_neighbours();
            bench.command(Command::Role { epoch: 1, role, term: TERM });
            bench
        };
        let distributor = |number| {
            let counters = Arc::new(Counters::default());
            let setup = DistributorSetup {
                snapshot: Arc::clone(&snapshot),
                workers: count,
                link_addresses: OWN_MACS.to_vec(),
                toeplitz: toeplitz(),
                me: WorkerId(number),
                hash_seed: 5,
                now: Instant::ZERO,
                counters: Arc::clone(&counters),
            };
            (Distributor::new(setup).expect("memory"), MemoryIo::default(), counters)
        };
        let rings = |_| (0..count).map(|_| VecDeque::new()).collect();
        Appliance {
            division,
            workers: (0..count).map(worker).collect(),
            distributors: (count..count + division.distributors).map(distributor).collect(),
            rx: (0..division.lcores()).map(|_| VecDeque::new()).collect(),
            rings: (0..division.lcores()).map(rings).collect(),
            told: (0..division.lcores())
                .map(|_| (0..division.lcores()).map(|_| VecDeque::new()).collect())
                .collect(),
            chooses: !select.is_hash(),
            moves: None,
            sent: Vec::new(),
            rng: Rng::with_seed(seed),
        }
    }

    /// A frame comes by a port; packets of one `stream` come to one lcore, those of none to any.
    fn receive(&mut self, port: PortId, frame: &[u8], stream: Option<u64>) {
        let receivers = self.division.receivers();
        let nth = stream.map_or_else(|| self.rng.usize(..), |stream| (stream >> 7) as usize);
        self.rx[receivers[nth % receivers.len()]].push_back(frame_received(port, frame));
    }

    /// Lcores turn in any order until nothing is left to do, some of them standing still for a while.
    fn settle(&mut self) {
        let begins = 8;
        let mut begun = 0;
        while self.rx.iter().any(|queue| !queue.is_empty())
            || self.rings.iter().flatten().any(|ring| !ring.is_empty())
            || self.moves.as_ref().is_some_and(Moves::is_busy)
        {
            let lcore = self.rng.usize(0..self.division.lcores());
            self.turn(lcore);
            if let Some(moves) = &mut self.moves {
                if begun < begins && self.rng.u8(..) < 40 {
                    begun += u32::from(moves.begin(&mut self.rng));
                }
                moves.turn(&mut self.rng);
                self.no_flow_is_in_two_tables();
            }
        }
    }

    fn no_flow_is_in_two_tables(&self) {
        let mut seen = HashSet::new();
        for bench in &self.workers {
            for (_, flow) in bench.worker.flows().table.iter() {
                assert!(seen.insert(flow.client), "{} is in two tables", flow.client);
            }
        }
    }

    fn turn(&mut self, lcore: usize) {
        let take = |queue: &mut VecDeque<PlainBuffer>| -> Vec<PlainBuffer> {
            queue.drain(..queue.len().min(BURST_MAX)).collect()
        };
        let mut received = take(&mut self.rx[lcore]);
        let first_distributor = self.workers.len();
        let heard: Vec<Told> = self.told[lcore].iter_mut().flat_map(|ring| ring.drain(..)).collect();
        let (handed, told) = if let Some(bench) = self.workers.get_mut(lcore) {
            for command in self.moves.iter_mut().flat_map(|moves| moves.commands[lcore].drain(..)) {
                bench.worker.handle_command(bench.now, Command::Move(command), &mut bench.io);
            }
            heard.iter().for_each(|told| bench.worker.hear(bench.now, told));
            bench.worker.set_origin(Origin::Port);
            bench.worker.handle_burst(bench.now, &mut received, &mut bench.io);
            for from in 0..self.rings.len() {
                let mut burst = take(&mut self.rings[from][lcore]);
                let origin = if from < first_distributor { Origin::Worker } else { Origin::Distributor };
                bench.worker.set_origin(origin);
                bench.worker.handle_burst(bench.now, &mut burst, &mut bench.io);
            }
            bench.worker.poll(bench.now, &mut bench.io);
            for event in bench.events() {
                if let (Event::Move(event), Some(moves)) = (event, &mut self.moves) {
                    moves.said.push_back((WorkerId(lcore as u16), event));
                }
            }
            let sent = bench.take_sent().into_iter().filter(|sent| sent.class == TxClass::Service);
            self.sent.extend(sent);
            (std::mem::take(&mut bench.io.handed), std::mem::take(&mut bench.io.told))
        } else {
            let (distributor, io, _) = &mut self.distributors[lcore - first_distributor];
            if let Some(moves) = &mut self.moves
                && let Some(these) = moves.redirections[lcore - first_distributor].pop_front()
            {
                distributor.redirect(these, io);
            }
            heard.iter().for_each(|told| distributor.hear(Instant::ZERO, told));
            distributor.handle_burst(Instant::ZERO, &mut received, io);
            distributor.poll(Instant::ZERO, io);
            assert!(io.sent.is_empty(), "it sends nothing itself");
            (std::mem::take(&mut io.handed), std::mem::take(&mut io.told))
        };
        for (_, rings) in self.told.iter_mut().enumerate().filter(|(other, _)| *other != lcore) {
            rings[lcore].extend(&told);
        }
        for (WorkerId(to), packet) in handed {
            if self.division.fused == 0 && lcore < first_distributor && self.moves.is_none() && !self.chooses
            {
                let bytes = packet.to_bytes();
                let fragment = Fragment::of(&bytes, &parse(&bytes).expect("a sound packet"));
                assert!(fragment.is_some(), "a distributor knew whose packet it is");
            }
            self.rings[lcore][usize::from(to)].push_back(packet);
        }
    }

    fn count(&self, counter: Counter) -> u64 {
        let workers = self.workers.iter().map(|bench| &bench.counters);
        let all = workers.chain(self.distributors.iter().map(|(_, _, counters)| counters));
        all.map(|counters| counters.value(counter)).sum()
    }

    /// All that was counted, but for what tells of the way within.
    fn counted(&self) -> BTreeMap<&'static str, u64> {
        let within = [
            Counter::HandedOver,
            Counter::EventsDropped,
            Counter::Parked,
            Counter::ShardsMoved,
            Counter::FlowsMoved,
            Counter::KeysChosen,
            // All segments of a conversation have the same number here.
            Counter::FinsOutside,
        ];
        let told = Counter::ALL.iter().filter(|counter| !within.contains(counter));
        told.map(|counter| (counter.name(), self.count(*counter))).collect()
    }

    fn take_punted(&mut self) -> Vec<(bool, Vec<u8>)> {
        let workers = self.workers.iter_mut().map(|bench| &mut bench.io);
        let all = workers.chain(self.distributors.iter_mut().map(|(_, io, _)| io));
        let mut punted: Vec<_> = all
            .flat_map(|io| std::mem::take(&mut io.punted))
            .map(|(to, bytes)| (to == Punt::Master, bytes))
            .collect();
        punted.sort();
        punted
    }
}

/// What became of it all.
#[derive(Debug, PartialEq)]
struct Outcome {
    flows: Vec<(Seen, Seen)>,
    punted: Vec<(bool, Vec<u8>)>,
    counted: BTreeMap<&'static str, u64>,
    flows_held: u64,
    /// Shards and flows that moved, and packets that were parked.
    moved: [u64; 3],
}

fn converse(division: Division, seed: u64, moves: bool) -> Outcome {
    converse_selecting(division, seed, moves, Method::Hash(HashMethod::Source))
}

fn converse_selecting(division: Division, seed: u64, moves: bool, select: Method) -> Outcome {
    let mut appliance = Appliance::selecting(division, Role::Active, seed ^ 0x5eed, select);
    let mut all = conversations(seed, 60);
    if moves {
        let client = |one: &Conversation| from_client(one.port, one.to, one.to_port, None).from;
        let shard = |(address, port): (std::net::IpAddr, u16)| toeplitz().shard_of(address.into(), port);
        let shards = all.iter().map(client).map(shard).collect();
        appliance.moves = Some(Moves::new(division.workers(), division.distributors, shards));
    }
    let mut rng = Rng::with_seed(seed);
    let (mut server, mut client) = (Host::default(), Host::default());
    let mut identification = 0;
    for (port, frame) in noise(&mut rng) {
        appliance.receive(port, &frame, None);
    }
    for round in 0..ROUNDS {
        for from_client in [true, false] {
            let mut speaking: Vec<_> = all
                .iter()
                .map(|one| if from_client { one.asks(round) } else { one.answers(round) })
                .map(VecDeque::from)
                .collect();
            // The flows' packets among each other, each flow's in order.
            while speaking.iter().any(|packets| !packets.is_empty()) {
                let flow = rng.usize(0..speaking.len());
                let Some(packet) = speaking[flow].pop_front() else { continue };
                let (port, frame) = (if from_client { CLIENT_PORT } else { SERVER_PORT }, packet.bytes());
                if frame.len() > WHOLE_MAX {
                    identification += 1;
                    for piece in pieces(&frame, identification, 1024) {
                        appliance.receive(port, &piece, None);
                    }
                } else {
                    let stream =
                        (flow as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) + u64::from(from_client);
                    appliance.receive(port, &frame, Some(stream));
                }
            }
            appliance.settle();
            let mut sent = std::mem::take(&mut appliance.sent);
            sent.retain(|sent| sent.class == TxClass::Service);
            for sent in sent {
                let (host, port) =
                    if from_client { (&mut server, SERVER_PORT) } else { (&mut client, CLIENT_PORT) };
                assert_eq!(sent.port, port);
                let is_piece =
                    Fragment::of(&sent.bytes, &parse(&sent.bytes).expect("a sound packet")).is_some();
                let whole = if is_piece { host.came(&sent.bytes) } else { Some(sent.bytes) };
                // The rest of the noise, the sums of some of it wrong as they came.
                let Some(whole) = whole.filter(|whole| !whole.ends_with(b"hello")) else { continue };
                let packet = Packet::read(&whole);
                let flow = packet.payload.first_chunk().map(|port| u16::from_be_bytes(*port));
                let one = all.iter_mut().find(|one| Some(one.port) == flow).expect("a conversation's packet");
                let from = if from_client && packet.from.1 != one.port {
                    // Which of its source-NAT ports a shard gives a flow depends on what came before.
                    (packet.from.0, 0)
                } else {
                    packet.from
                };
                let seen = (from, packet.flags, packet.hops, packet.payload.clone());
                if from_client {
                    one.at_server.push(seen);
                    one.asked = Some(packet);
                } else {
                    assert_eq!((packet.to.1, packet.to_mac), (one.port, CLIENT_MAC));
                    one.at_client.push(seen);
                }
            }
        }
    }
    let drops: Vec<_> = appliance.counted().into_iter().filter(|(_, count)| *count > 0).collect();
    let told = format!("{division:?}, seed {seed}, moves: {moves}, {select:?}: {drops:?}");
    assert_eq!((server.waiting(), client.waiting()), (0, 0), "{told}");
    let sort = |one: Conversation| {
        let (mut at_server, mut at_client) = (one.at_server, one.at_client);
        if one.large || (!select.is_hash() && !one.is_tcp) {
            // Of datagrams in fragments nothing is promised but that they come; nor of those that come before others have
            // heard which traffic manager was chosen.
            at_server.sort();
            at_client.sort();
        }
        (at_server, at_client)
    };
    Outcome {
        punted: appliance.take_punted(),
        counted: appliance.counted(),
        flows_held: appliance.workers.iter_mut().map(|bench| bench.status().flows).sum(),
        moved: [Counter::ShardsMoved, Counter::FlowsMoved, Counter::Parked].map(|of| appliance.count(of)),
        flows: all.into_iter().map(sort).collect(),
    }
}

#[test]
fn what_becomes_of_a_flow_does_not_depend_on_how_roles_are_divided() {
    for seed in 0..12 {
        let fused = converse(FUSED, seed, false);
        for ((at_server, at_client), one) in fused.flows.iter().zip(conversations(seed, 60)) {
            let (asked, answered) = if one.is_tcp { (20, 23) } else { (4 * ROUNDS, 3 * ROUNDS) };
            assert_eq!((at_server.len(), at_client.len()), (asked, answered), "{} {}", one.to, one.port);
        }
        assert!(fused.punted.len() >= 3, "ARP, a heartbeat, an echo request");
        for division in DIVIDED {
            let divided = converse(division, seed, false);
            assert_eq!(divided.counted, fused.counted, "{division:?}, seed {seed}");
            assert_eq!(divided, fused, "{division:?}, seed {seed}");
        }
    }
}

/// The same, where traffic managers are chosen, and shards move meanwhile or do not.
#[test]
fn what_becomes_of_a_flow_does_not_depend_on_which_traffic_manager_was_chosen() {
    let methods = [ChosenMethod::RoundRobin, ChosenMethod::LeastConnections, ChosenMethod::StaticRatio];
    let mut moved = [0; 3];
    for (seed, method) in (20..29).zip(methods.iter().cycle()) {
        let fused = converse(FUSED, seed, false);
        for division in DIVIDED {
            for moves in [false, true] {
                if moves && division.workers() == 1 {
                    continue;
                }
                let chosen = converse_selecting(division, seed, moves, Method::Chosen(*method));
                moved.iter_mut().zip(chosen.moved).for_each(|(sum, count)| *sum += count);
                let told = format!("{method:?}, {division:?}, seed {seed}, moves: {moves}");
                assert_eq!(chosen.counted, fused.counted, "{told}");
                let sorted = conversations(seed, 60).into_iter().zip(fused.flows.iter().cloned());
                let fused_flows: Vec<(Seen, Seen)> = sorted
                    .map(|(one, (mut server, mut client))| {
                        if !one.is_tcp {
                            server.sort();
                            client.sort();
                        }
                        (server, client)
                    })
                    .collect();
                assert_eq!(chosen.flows, fused_flows, "{told}");
                assert_eq!(chosen.flows_held, fused.flows_held, "{told}");
            }
        }
    }
    assert!(moved.iter().all(|count| *count > 80), "moves, flows in them, and parked packets: {moved:?}");
}

/// Shards with flows go from one worker to another one at any time, while packets come: nothing that an end of a flow sees is
/// another thing, or in another order.
#[test]
fn what_becomes_of_a_flow_does_not_depend_on_where_its_shard_goes_meanwhile() {
    let mut moved = [0; 3];
    for seed in 0..12 {
        let fused = converse(FUSED, seed, false);
        for division in DIVIDED.iter().filter(|division| division.workers() > 1) {
            let divided = converse(*division, seed, true);
            moved.iter_mut().zip(divided.moved).for_each(|(sum, count)| *sum += count);
            assert_eq!(divided.counted, fused.counted, "{division:?}, seed {seed}");
            let mut flows = divided.flows.iter().zip(&fused.flows).zip(conversations(seed, 60));
            if let Some(((ours, theirs), one)) = flows.find(|((ours, theirs), _)| ours != theirs) {
                let stamps =
                    |seen: &Seen| -> Vec<_> { seen.iter().map(|seen| (seen.1, seen.3[2])).collect() };
                let both = |(server, client): &(Seen, Seen)| [stamps(server), stamps(client)];
                let (ours, theirs) = (both(ours), both(theirs));
                panic!("{division:?}, seed {seed}: {} {}: {ours:?} for {theirs:?}", one.to, one.port);
            }
            assert_eq!(divided.flows_held, fused.flows_held, "{division:?}, seed {seed}");
        }
    }
    assert!(moved.iter().all(|count| *count > 200), "moves, flows in them, and parked packets: {moved:?}");
}

#[test]
fn on_a_standby_distributors_pass_on_what_workers_drop() {
    for division in DIVIDED {
        let mut appliance = Appliance::new(division, Role::Standby, 1);
        let syn = from_client(4000, "10.1.0.100", 80, Some(SYN)).bytes();
        let large = Packet { payload: vec![1; 3000], ..from_client(4001, "10.1.0.102", 53, None) }.bytes();
        for stream in 0..100 {
            appliance.receive(CLIENT_PORT, &syn, Some(stream << 7));
        }
        for piece in pieces(&large, 7, 1024) {
            appliance.receive(CLIENT_PORT, &piece, None);
        }
        appliance.settle();
        assert!(appliance.sent.is_empty());
        assert_eq!((appliance.count(Counter::DropStandby), appliance.count(Counter::RxPackets)), (103, 103));
    }
}

#[test]
fn ports_written_in_a_link_address_are_not_believed_of_what_a_distributor_passes_on() {
    let mut appliance = Appliance::new(DIVIDED[2], Role::Active, 2);
    let datagram = Packet { payload: vec![3; 2000], ..from_client(5353, "10.1.0.102", 53, None) };
    for piece in pieces(&datagram.bytes(), 7, 1024) {
        appliance.receive(CLIENT_PORT, &piece, None);
    }
    appliance.settle();
    assert_eq!(appliance.sent.len(), 2);
    appliance.sent.clear();
    // A later fragment of another datagram claims the ports of the flow that is there; it comes twice to every worker.
    let mut forged = pieces(&datagram.bytes(), 8, 1024).remove(1);
    forged[6..11].copy_from_slice(&[5353_u16.to_be_bytes()[0], 5353_u16.to_be_bytes()[1], 0, 53, 17]);
    for worker in 0..2 {
        for distributor in 0..2 {
            let from = appliance.workers.len() + distributor;
            appliance.rings[from][worker].push_back(frame_received(CLIENT_PORT, &forged));
        }
    }
    appliance.settle();
    assert!(appliance.sent.is_empty());
    assert_eq!(appliance.count(Counter::DropFragmentDuplicate), 3, "it waits, and comes again");
}

#[test]
fn mirror_frames_go_straight_to_the_worker_that_they_are_for() {
    let mut appliance = Appliance::new(DIVIDED[1], Role::Standby, 3);
    let first = snapshot(1).checked.mirror.as_ref().expect("it mirrors").udp_port;
    for worker in 0..4 {
        let frame = Packet { to_mac: OWN_MACS[2], ..from_client(77, "10.9.0.1", first + worker, None) };
        appliance.receive(PortId(2), &frame.bytes(), None);
    }
    appliance.settle();
    // They are no frames of a peer, which only the worker can tell; and for a fourth worker there is none.
    for bench in &appliance.workers {
        assert_eq!((bench.count(Counter::MirrorMalformed), bench.count(Counter::HandedOver)), (1, 0));
    }
    assert_eq!(appliance.distributors[0].2.value(Counter::DropNoListener), 1);
}
