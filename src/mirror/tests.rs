//! Two appliances' mirrors, of different worker counts, joined by a link that loses,
//! repeats and reorders frames. The leader's flows come and go at random, roles change
//! hands, sessions are renewed; in the end both tables must be equal, and at any time
//! the follower must have what the leader says that it knows.

mod counts;
mod credit;
mod damage;
mod followed;
mod partial;
mod periodic;
mod three;
mod urgent;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::base::ids::VirtualServerId;
use crate::base::rng::Rng;
use crate::flow::entry::FlowFlags;
use crate::flow::flows::FlowsSetup;
use crate::flow::key::{Address, Key, TCP};
use crate::flow::resting::RestingPlace;
use crate::flow::shard::{Owners, owner_of};
use crate::flow::table::Insert;
use crate::flow::tcp_state::TcpState;
use crate::flow::toeplitz::{MICROSOFT_KEY, Toeplitz};
use crate::flow::{Flow, Stamp};
use crate::mirror::asking::Agreement;
use crate::mirror::changes::Ended;
use crate::mirror::record::FlowState;
use crate::seal::handshake::{Handled, Handshake};
use crate::seal::{Key as GroupKey, MemberInfo, Mirroring, Tracked};

const SHARDS_USED: u16 = 6;
const FRAME_MAX: usize = 1500;
const WORKERS: [u16; 2] = [1, 3];
const TURN: Duration = Duration::from_micros(200);

/// Takes everything, or for want of room nothing.
struct Anything {
    refuses: bool,
}

impl Effects for Anything {
    fn check(&self, _: ShardId, _: &FlowState) -> Result<(), Refusal> {
        if self.refuses { Err(Refusal::TableFull) } else { Ok(()) }
    }
    fn made(&mut self, _: &mut Flows, _: FlowIndex, _: &Flow) {}
    fn changed(&mut self, _: &mut Flows, _: FlowIndex) {}
    fn removed(&mut self, _: &mut Flows, _: FlowIndex, _: &Flow) {}
    fn may_remove(&self) -> bool {
        true
    }
}

struct Worker {
    mirror: Mirror,
    flows: Flows,
}

struct Packet {
    due: Instant,
    to: (usize, WorkerId),
    bytes: Vec<u8>,
}

struct World {
    /// Of every side: the worker that owns each shard.
    owners: [Owners; 2],
    rng: Rng,
    now: Instant,
    key: GroupKey,
    sides: [Vec<Worker>; 2],
    link: Vec<Packet>,
    counters: Counters,
    terms: u64,
    lossy: bool,
    refuses: bool,
    /// Times that a digest was found to differ.
    differences: usize,
    /// Of every side: the virtual servers of which it tracks the flows.
    tracked: [Tracked; 2],
}

fn node(side: usize) -> NodeId {
    NodeId(side as u16 + 1)
}

fn member(side: usize) -> MemberInfo {
    MemberInfo {
        group: GroupId(0),
        node: node(side),
        boot: BootId(side as u64 + 1),
        version_min: 1,
        version_max: 1,
        capabilities: 0,
        workers: WORKERS[side],
        shards: 256,
        hash_keys: 0,
        udp_port: 0,
        generation: 1,
        mirroring: Default::default(),
    }
}

fn flows(side: usize, id: u16, toeplitz: &Arc<Toeplitz>) -> Flows {
    let alone = FlowsSetup::alone(64 * u32::from(SHARDS_USED));
    let (worker, toeplitz) = (WorkerId(id), Arc::clone(toeplitz));
    Flows::new(&FlowsSetup { worker, workers: WORKERS[side], toeplitz, ..alone }).expect("memory")
}

impl World {
    fn new(seed: u64, variant: Variant) -> World {
        World::maintaining(seed, variant, None)
    }

    fn maintaining(seed: u64, variant: Variant, maintenance_every: Option<Duration>) -> World {
        let toeplitz = Arc::new(Toeplitz::new(&MICROSOFT_KEY).expect("a good key"));
        let worker = |side: usize, id: u16| Worker {
            mirror: Mirror::new(MirrorSetup {
                worker: WorkerId(id),
                workers: WORKERS[side],
                group: GroupId(0),
                boot: BootId(side as u64 + 1),
                capacity: 64 * u32::from(SHARDS_USED),
                peers: vec![node(1 - side)],
                walk_rate: 100_000,
                maintenance_every,
                variant,
            })
            .expect("memory"),
            flows: flows(side, id, &toeplitz),
        };
        let mut world = World {
            owners: WORKERS.map(Owners::even),
            rng: Rng::with_seed(seed),
            now: Instant::from_millis(1),
            key: GroupKey::generate().expect("entropy"),
            sides: [0, 1].map(|side| (0..WORKERS[side]).map(|id| worker(side, id)).collect()),
            link: Vec::new(),
            counters: Counters::default(),
            terms: 0,
            lossy: true,
            refuses: false,
            differences: 0,
            tracked: [Tracked::ALL; 2],
        };
        world.renew_session();
        world.lead(0);
        world
    }

    fn renew_session(&mut self) {
        for (side, session) in self.sessions().iter().enumerate() {
            for worker in &mut self.sides[side] {
                worker.mirror.open_session(node(1 - side), session, &worker.flows);
            }
        }
    }

    fn sessions(&self) -> [Arc<seal::Session>; 2] {
        let member = |side: usize| MemberInfo {
            mirroring: Mirroring { tracked: self.tracked[side], is_periodic: false },
            ..member(side)
        };
        let mut ours = Handshake::new(&self.key, member(0), node(1));
        let mut theirs = Handshake::new(&self.key, member(1), node(0));
        let hello = ours.poll(Instant::ZERO, true).expect("a hello");
        let Handled::Reply(answer) = theirs.handle_hello(Instant::ZERO, &hello) else { panic!("an answer") };
        let Handled::Completed(session) = ours.handle_answer(&answer) else { panic!("a session") };
        [session, theirs.confirm().expect("the same session")]
    }

    /// A side leads under a new term.
    fn lead(&mut self, side: usize) {
        self.terms += 1;
        let term = Term { counter: self.terms, node: node(side) };
        self.stand(side, Standing { leads: true, term });
    }

    fn follow(&mut self, side: usize) {
        let term = Term { counter: self.terms, node: node(1 - side) };
        self.stand(side, Standing { leads: false, term });
        // Where the leader's word comes to.
        self.go_home(side);
    }

    fn stand(&mut self, side: usize, standing: Standing) {
        self.sides[side].iter_mut().for_each(|worker| worker.mirror.set_standing(standing));
    }

    /// One random change of the flows of a side that leads.
    fn change(&mut self, side: usize) {
        let id = ShardId(self.rng.u16(0..SHARDS_USED));
        let worker = &mut self.sides[side][usize::from(self.owners[side].of(id).0)];
        let Worker { mirror, flows } = worker;
        let term = mirror.standing().term;
        let client = Key {
            src: Address::v4([10, 1, 0, self.rng.u8(0..12)]),
            dst: Address::v4([10, 1, 0, 100]),
            src_port: id.0,
            dst_port: 80,
            vlan: 0,
            protocol: TCP,
        };
        let found = flows.table.lookup(&client).map(|found| found.0);
        match (found, self.rng.u8(0..3)) {
            (Some(index), 0) => {
                let flow = flows.table.remove(index).expect("a flow");
                let stamp = Stamp { term, version: flows.next_version(id) };
                let [image, answers] = [&flow.client, &flow.server].map(|key| flows.table.imager().of(key));
                let port = RestingPort { image: answers, place: RestingPlace::NONE };
                let created = flow.created;
                let ended =
                    Ended { shard: id, place: index, client: &flow.client, image, port, created, stamp };
                mirror.flow_ended(
                    self.now,
                    &ended,
                    mirror.listeners(id, flow.flags, Some(flow.virtual_server)),
                );
            }
            (Some(index), _) => {
                let stamp = Stamp { term, version: flows.next_version(id) };
                let tcp = TcpState::ALL[self.rng.usize(0..8)];
                flows.table.update(index, |flow| (flow.changed, flow.tcp) = (stamp, tcp));
                mirror.flow_changed(self.now, id, index, self.rng.bool(), &flows.table);
            }
            (None, _) => {
                let server = Key {
                    src: Address::v4([10, 2, 0, 10]),
                    dst: Address::v4([10, 2, 0, 100]),
                    src_port: 8080,
                    dst_port: self.rng.u16(0..10) << 8 | id.0,
                    ..client
                };
                let mut flow = Flow::new(client, server, TcpState::SynSeen);
                flow.flags = FlowFlags::MIRRORED;
                flow.shard = id;
                flow.virtual_server = VirtualServerId(u32::from(server.dst_port >> 8) % 3);
                flow.created = flows.next_version(id);
                flow.changed = Stamp { term, version: flow.created };
                if let Insert::Done(index) = flows.table.insert(&flow) {
                    mirror.flow_changed(self.now, id, index, true, &flows.table);
                }
            }
        }
    }

    /// A shard of a side goes to another of its workers, once the mirror is quiet about it.
    fn move_shard(&mut self, side: usize, to_home: Option<ShardId>) {
        let shard = to_home.unwrap_or(ShardId(self.rng.u16(0..SHARDS_USED)));
        let home = owner_of(shard, WORKERS[side]);
        let to = if to_home.is_some() { home } else { WorkerId(self.rng.u16(0..WORKERS[side])) };
        let from = self.owners[side].of(shard);
        if from == to {
            return;
        }
        let shards = [shard].into_iter().collect();
        for _ in 0..2000 {
            if self.sides[side][usize::from(from.0)].mirror.is_quiet(&shards) {
                break;
            }
            self.turn();
        }
        let Worker { mirror, flows } = &mut self.sides[side][usize::from(from.0)];
        let is_quiet = mirror.is_quiet(&shards);
        let version = flows.version(shard);
        let places: Vec<FlowIndex> =
            flows.table.iter().filter(|(_, flow)| flow.shard == shard).map(|(place, _)| place).collect();
        let known: Vec<_> = places.iter().map(|place| mirror.standing_of(shard, *place, is_quiet)).collect();
        places.iter().for_each(|place| mirror.flow_left(self.now, shard, *place));
        let bonds = mirror.bonds(shard);
        let ends = mirror.part_with(shard);
        flows.own(shard, false);
        let leave = |place: &FlowIndex| {
            mirror.flow_is_gone(*place);
            flows.table.remove(*place).expect("a flow")
        };
        let moved: Vec<Flow> = places.iter().map(leave).collect();
        // Some time passes, in which others begin anew.
        if self.rng.u8(0..8) == 0 {
            self.renew_session();
        }
        for _ in 0..self.rng.u32(0..20) {
            self.turn();
        }
        let Worker { mirror, flows } = &mut self.sides[side][usize::from(to.0)];
        if let Some(order) = flows.shard_mut(shard) {
            order.saw_version(version);
        }
        flows.own(shard, true);
        mirror.adopt(shard);
        let holding = mirror.holding(shard, &bonds);
        if mirror.standing().leads {
            mirror.begin_anew(shard, holding);
        }
        let holding = mirror.holding(shard, &bonds) & holding;
        for (flow, known) in moved.iter().zip(known) {
            let is_known = || flows.table.lookup(&flow.client).or(flows.table.lookup(&flow.server)).is_some();
            if !is_known()
                && let Insert::Done(place) = flows.table.insert(flow)
            {
                mirror.flow_came(self.now, shard, place, &flows.table, known, holding);
            }
        }
        for end in &ends {
            let imager = flows.table.imager().clone();
            mirror.end_came(self.now, end, &imager, RestingPlace::NONE);
        }
        mirror.arrived(&shards);
        self.owners[side].set(shard, to);
    }

    /// All shards of a side that does not lead go home.
    fn go_home(&mut self, side: usize) {
        for shard in (0..SHARDS_USED).map(ShardId) {
            self.move_shard(side, Some(shard));
        }
    }

    /// One turn of both sides.
    fn turn(&mut self) {
        self.now += TURN;
        let mut effects = Anything { refuses: self.refuses };
        let mut arrived = Vec::new();
        let mut i = 0;
        while i < self.link.len() {
            if self.link[i].due <= self.now { arrived.push(self.link.swap_remove(i)) } else { i += 1 }
        }
        for Packet { to: (side, worker), mut bytes, .. } in arrived {
            let Worker { mirror, flows } = &mut self.sides[side][usize::from(worker.0)];
            if !mirror.standing().leads && !flows.has_all_home() {
                continue; // As a worker does.
            }
            mirror.handle_frame(self.now, &mut bytes, flows, &mut effects, &self.counters);
        }
        for side in 0..2 {
            for worker in &mut self.sides[side] {
                worker.mirror.poll(self.now, &mut worker.flows, &mut effects);
                let outcomes = worker.mirror.take_outcomes();
                let differs = |outcome: &&Outcome| matches!(outcome, Outcome::Differs { .. });
                self.differences += outcomes.iter().filter(differs).count();
                let mut bytes = vec![0; FRAME_MAX];
                while let Some(written) = worker.mirror.write_frame(self.now, &worker.flows, true, &mut bytes)
                {
                    let copies = match self.rng.u8(0..10) {
                        0..2 if self.lossy => 0,
                        2 if self.lossy => 2,
                        _ => 1,
                    };
                    for _ in 0..copies {
                        let late = if self.lossy { self.rng.u64(0..3000) } else { 0 };
                        self.link.push(Packet {
                            due: self.now + Duration::from_micros(late),
                            to: (1 - side, written.worker),
                            bytes: bytes[..written.len].to_vec(),
                        });
                    }
                }
            }
        }
    }

    /// As either side would go on with them.
    fn flows(&self, side: usize) -> BTreeMap<Key, (ShardId, FlowState)> {
        let all = self.sides[side].iter().flat_map(|worker| worker.flows.table.iter());
        all.map(|(_, flow)| (flow.client, (flow.shard, sync::state(&flow)))).collect()
    }

    /// Both sides have the same digests, of what is in their tables, and the leader knows of it.
    fn check_digests(&self, leader: usize) -> Result<(), String> {
        for shard in (0..SHARDS_USED).map(ShardId) {
            let [ours, theirs] = [leader, 1 - leader].map(|side| {
                let worker = &self.sides[side][usize::from(self.owners[side].of(shard).0)];
                let counting = if side == leader { self.tracked[1 - leader] } else { Tracked::ALL };
                let anew = Digests::new(64 * u32::from(SHARDS_USED), Variant::Sound).expect("memory");
                let mut anew = anew;
                anew.track(&[counting]);
                worker.flows.table.iter().for_each(|(place, _)| anew.note(&worker.flows.table, place));
                let kept = &worker.mirror.digests;
                (kept.of_tracked(&counting, shard), anew.of_tracked(&counting, shard))
            });
            if ours.0 != ours.1 || theirs.0 != theirs.1 || ours.0 != theirs.0 {
                return Err(format!("digests of {shard}, kept and made anew: {ours:?}, {theirs:?}"));
            }
        }
        for status in self.sides[leader].iter().flat_map(|worker| worker.mirror.streams()) {
            let Agreement { rounds, differing, .. } = status.agreement;
            if differing > 0 || rounds == 0 && status.known > 0 {
                return Err(format!("{differing} digests differ, {rounds} rounds"));
            }
        }
        Ok(())
    }

    /// What the leader says that the follower knows, the follower has.
    fn check_known(&self, leader: usize) -> Result<(), String> {
        let all = self.sides[1 - leader].iter().flat_map(|worker| worker.flows.table.iter());
        let theirs: BTreeMap<Key, _> = all.map(|(_, flow)| (flow.client, flow)).collect();
        for worker in &self.sides[leader] {
            for (index, flow) in worker.flows.table.iter() {
                let (peer, it) = ([node(1 - leader)], theirs.get(&flow.client));
                let known = worker.mirror.is_known_to(&peer, flow.shard, index);
                if known && it.map(|it| it.server) != Some(flow.server) {
                    return Err(format!("at {}: {} is said to be known", self.now, flow.client));
                }
                let version = flow.changed.version;
                let is_confirmed = known && worker.mirror.is_confirmed_by(&peer, flow.shard, version);
                if is_confirmed && it.map(|it| it.changed) < Some(flow.changed) {
                    return Err(format!("at {}: {} is said to be known as it is", self.now, flow.client));
                }
            }
        }
        Ok(())
    }

    /// Without loss, until everything is acknowledged: then both tables are equal.
    fn settle(&mut self, leader: usize) -> Result<(), String> {
        self.lossy = false;
        for _ in 0..4000 {
            self.turn();
            self.check_known(leader)?;
        }
        self.sides[leader].iter_mut().for_each(|worker| worker.mirror.rest_rounds(true));
        (0..20).for_each(|_| self.turn());
        self.sides[leader].iter_mut().for_each(|worker| worker.mirror.rest_rounds(false));
        self.lossy = true;
        let flushed = self.sides[leader].iter().all(|worker| worker.mirror.is_flushed(node(1 - leader)));
        let (mut ours, theirs) = (self.flows(leader), self.flows(1 - leader));
        ours.retain(|_, (_, flow)| self.tracked[1 - leader].has(flow.virtual_server));
        if !flushed {
            return Err("not everything was acknowledged".to_string());
        }
        let known: u64 =
            self.sides[leader].iter().map(|worker| worker.mirror.known_to_all(&[node(1 - leader)])).sum();
        if known != ours.len() as u64 {
            return Err(format!("{known} flows are said to be known, of {}", ours.len()));
        }
        if self.sides[leader].iter().any(|worker| worker.mirror.departed() != 0) {
            return Err("ends of flows wait for ever".to_string());
        }
        if ours != theirs {
            return Err(format!("tables differ:\n{ours:?}\n{theirs:?}"));
        }
        self.check_digests(leader)
    }
}

fn run(seed: u64, variant: Variant, moves: bool) -> Result<(), String> {
    World::new(seed, variant).run(moves)
}

impl World {
    fn run(self, moves: bool) -> Result<(), String> {
        let mut world = self;
        world.follow(1);
        let mut leader = 0;
        for _ in 0..5 {
            for _ in 0..world.rng.u32(50..400) {
                (0..world.rng.u8(0..4)).for_each(|_| world.change(leader));
                world.turn();
                world.check_known(leader)?;
                if moves && world.rng.u8(0..40) == 0 {
                    world.move_shard(leader, None);
                    world.check_known(leader)?;
                }
            }
            match world.rng.u8(0..5) {
                0 => world.settle(leader)?,
                1 => world.renew_session(),
                2 => {
                    // The other takes over; the former leader learns of it when it wakes.
                    leader = 1 - leader;
                    world.lead(leader);
                    for _ in 0..world.rng.u32(0..50) {
                        world.change(leader);
                        if world.rng.bool() {
                            world.change(1 - leader);
                        }
                        world.turn();
                    }
                    world.follow(1 - leader);
                }
                3 => {
                    // The other takes over, and gives way to the one that led all along.
                    world.lead(1 - leader);
                    for _ in 0..world.rng.u32(1..50) {
                        world.change(leader);
                        world.change(1 - leader);
                        world.turn();
                    }
                    world.terms += 1;
                    let term = Term { counter: world.terms, node: node(leader) };
                    world.stand(leader, Standing { leads: true, term });
                    world.follow(1 - leader);
                    // From its first frame on the leader knows: an answer about a digest at the latest, each tenth of a second.
                    world.lossy = false;
                    for _ in 0..600 {
                        world.turn();
                    }
                    world.lossy = true;
                }
                _ => {
                    world.follow(leader);
                    leader = 1 - leader;
                    world.lead(leader);
                }
            }
        }
        world.settle(leader)?;
        match world.differences {
            // What a lost frame said without asking for an acknowledgement is a difference.
            _ if world.sides[0][0].mirror.setup.maintenance_every.is_some() => Ok(()),
            0 => Ok(()),
            differences => Err(format!("{differences} digests differed")),
        }
    }
}

/// Nobody has to touch them for that.
#[test]
fn flows_that_a_peer_refused_for_want_of_room_are_told_again_when_it_has_some() {
    for seed in 0..4 {
        let mut world = World::new(seed, Variant::Sound);
        world.follow(1);
        world.settle(0).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        world.refuses = true;
        for _ in 0..300 {
            (0..world.rng.u8(0..4)).for_each(|_| world.change(0));
            world.turn();
        }
        assert!(world.flows(0).len() > world.flows(1).len());
        world.refuses = false;
        world.settle(0).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        let told = world.sides[0].iter().flat_map(|worker| worker.mirror.streams());
        let refused: Vec<_> = told.map(|status| (status.refused, status.statistics.refusal)).collect();
        assert!(refused.contains(&(0, Some(Refusal::TableFull))), "{refused:?}");
    }
}

#[test]
fn a_lossy_link_role_changes_and_new_sessions_leave_both_tables_equal() {
    for seed in 0..60 {
        run(seed, Variant::Sound, false).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn shards_that_go_from_worker_to_worker_leave_both_tables_equal_and_what_is_known_known() {
    for seed in 0..60 {
        run(seed, Variant::Sound, true).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
}

#[test]
fn the_checks_see_what_is_acknowledged_before_it_is_applied_and_ends_forgotten_early() {
    for variant in [Variant::AcknowledgedBeforeApplied, Variant::TombstoneDroppedEarly] {
        assert!((0..60).any(|seed| run(seed, variant, false).is_err()), "{variant:?}");
    }
}
