//! One worker of one member: its mirror, its flows, and what it does of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use baton::base::counters::Counters;
use baton::base::ids::{BootId, GroupId, NodeId, ShardId, Term, WorkerId};
use baton::base::time::{Duration, Instant};
use baton::flow::entry::FlowFlags;
use baton::flow::flows::{Flows, FlowsSetup};
use baton::flow::key::{TCP, UDP};
use baton::flow::ports::PortSetup;
use baton::flow::resting::RestingPlace;
use baton::flow::table::Insert;
use baton::flow::toeplitz::{MICROSOFT_KEY, Toeplitz};
use baton::flow::{Address, Direction, Flow, FlowIndex, Key, Stamp, TcpState};
use baton::mirror::changes::Ended;
use baton::mirror::receiver::Effects;
use baton::mirror::record::{FlowState, Refusal};
use baton::mirror::tombstone::RestingPort;
use baton::mirror::{Frame, Mirror, MirrorSetup, Outcome, Standing, Variant};
use baton::seal::{MemberInfo, Session};

/// Flows of a side at most: few, so that a table is soon full.
pub const CAPACITY: u32 = 32;
/// Shards that flows are of; all 256 are owned.
pub const SHARDS_USED: u16 = 4;
/// Clients of each shard.
const CLIENTS: u8 = 12;
/// Bytes of a mirror frame at most.
pub const FRAME_MAX: usize = 1500;
/// Frames that a side writes at one time at most; more would be one that never ends.
const FRAMES_MAX: usize = 10_000;

/// How long a round of checkpoints takes where changes are not acknowledged.
pub const EVERY: Duration = Duration::from_millis(40);

/// One for all inputs: it is long in the making.
static TOEPLITZ: LazyLock<Arc<Toeplitz>> =
    LazyLock::new(|| Arc::new(Toeplitz::new(&MICROSOFT_KEY).expect("a good key")));

/// The node of a side.
pub fn node(side: usize) -> NodeId {
    NodeId(side as u16 + 1)
}

/// What a side says of itself.
pub fn member(side: usize, boot: BootId) -> MemberInfo {
    MemberInfo {
        group: GroupId(0),
        node: node(side),
        boot,
        version_min: 1,
        version_max: 1,
        capabilities: 0,
        workers: 1,
        shards: 256,
        hash_keys: 0,
        udp_port: 0,
        generation: 1,
        mirroring: Default::default(),
    }
}

/// Takes everything, or refuses it.
#[derive(Default)]
pub struct Takes {
    /// Why it refuses.
    pub refuses: Option<Refusal>,
}

impl Effects for Takes {
    fn check(&self, _: ShardId, _: &FlowState) -> Result<(), Refusal> {
        self.refuses.map_or(Ok(()), Err)
    }
    fn made(&mut self, flows: &mut Flows, place: FlowIndex, made: &Flow) {
        let known = flows.table.get(place).map(|flow| (flow.client, flow.server, flow.shard, flow.tcp));
        assert_eq!(known, Some((made.client, made.server, made.shard, made.tcp)), "what is made is there");
    }
    fn changed(&mut self, flows: &mut Flows, flow: FlowIndex) {
        assert!(flows.table.get(flow).is_some(), "one has changed that is not there");
    }
    fn removed(&mut self, _: &mut Flows, _: FlowIndex, _: &Flow) {}
    fn may_remove(&self) -> bool {
        true
    }
}

/// One side.
pub struct Side {
    /// Its mirror.
    pub mirror: Mirror,
    /// Its flows.
    pub flows: Flows,
    /// What it takes.
    pub takes: Takes,
    /// Its boot.
    pub boot: BootId,
    counters: Counters,
}

impl Side {
    /// One that has just started. `every`: how far connections have come is said without acknowledgement, in rounds that take so long.
    pub fn new(side: usize, boot: BootId, every: Option<Duration>, variant: Variant) -> Side {
        let ports = PortSetup {
            members: 2,
            rank: 0,
            boot_parity: None,
            booted: Instant::ZERO,
            quarantine: Duration::from_secs(60),
            resting_max: CAPACITY,
        };
        let flows = FlowsSetup {
            worker: WorkerId(0),
            workers: 1,
            capacity: CAPACITY,
            hash_seed: 1,
            toeplitz: Arc::clone(&TOEPLITZ),
            ports,
        };
        let mirror = MirrorSetup {
            worker: WorkerId(0),
            workers: 1,
            group: GroupId(0),
            boot,
            capacity: CAPACITY,
            peers: vec![node(1 - side)],
            walk_rate: 100_000,
            maintenance_every: every,
            variant,
        };
        Side {
            mirror: Mirror::new(mirror).expect("memory"),
            flows: Flows::new(&flows).expect("memory"),
            takes: Takes::default(),
            boot,
            counters: Counters::default(),
        }
    }

    /// Leads, or follows, under a term.
    pub fn stand(&mut self, leads: bool, term: Term) {
        self.mirror.set_standing(Standing { leads, term });
    }

    /// Takes a frame.
    pub fn take(&mut self, now: Instant, frame: &mut [u8]) -> Frame {
        self.mirror.handle_frame(now, frame, &mut self.flows, &mut self.takes, &self.counters)
    }

    /// Lets time go on.
    pub fn poll(&mut self, now: Instant) {
        self.mirror.poll(now, &mut self.flows, &mut self.takes);
        let mut outcomes: Vec<Outcome> = self.mirror.take_outcomes();
        outcomes.clear();
        self.mirror.give_back(outcomes);
    }

    /// Every frame that is due.
    pub fn write(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let (mut frames, mut buffer) = (Vec::new(), [0; FRAME_MAX]);
        while let Some(written) = self.mirror.write_frame(now, &self.flows, true, &mut buffer) {
            frames.push(buffer[..written.len].to_vec());
            assert!(frames.len() < FRAMES_MAX, "there is always one more frame to write");
        }
        frames
    }

    /// A flow of a side that leads begins, changes or ends, as two bytes choose.
    pub fn change(&mut self, now: Instant, which: u8, how: u8) {
        let shard = ShardId(u16::from(which) % SHARDS_USED);
        let client = client_key(which);
        let term = self.mirror.standing().term;
        match self.flows.table.lookup(&client).map(|found| found.0) {
            Some(place) if how.is_multiple_of(3) => {
                let flow = self.flows.table.remove(place).expect("it was found");
                let stamp = Stamp { term, version: self.flows.next_version(flow.shard) };
                let [image, answers] =
                    [&flow.client, &flow.server].map(|key| self.flows.table.imager().of(key));
                let port = RestingPort { image: answers, place: RestingPlace::NONE };
                let (shard, created) = (flow.shard, flow.created);
                let ended = Ended { shard, place, client: &flow.client, image, port, created, stamp };
                self.mirror.flow_ended(
                    now,
                    &ended,
                    self.mirror.listeners(flow.shard, flow.flags, Some(flow.virtual_server)),
                );
            }
            Some(place) => {
                let shard = self.flows.table.get(place).expect("it was found").shard;
                let stamp = Stamp { term, version: self.flows.next_version(shard) };
                let tcp = TcpState::ALL[usize::from(how) % TcpState::ALL.len()];
                self.flows.table.update(place, |flow| (flow.changed, flow.tcp) = (stamp, tcp));
                self.mirror.flow_changed(now, shard, place, how & 8 != 0, &self.flows.table);
            }
            None => {
                let mut flow = Flow::new(client, server_key(which, how), TcpState::SynSeen);
                flow.flags = FlowFlags::MIRRORED;
                flow.shard = shard;
                flow.created = self.flows.next_version(shard);
                flow.changed = Stamp { term, version: flow.created };
                if let Insert::Done(place) = self.flows.table.insert(&flow) {
                    self.mirror.flow_changed(now, shard, place, true, &self.flows.table);
                }
            }
        }
    }

    /// What its flows are, as another one would go on with them.
    pub fn known(&self) -> BTreeMap<Key, (ShardId, Key, TcpState)> {
        let all = self.flows.table.iter();
        all.map(|(_, flow)| (flow.client, (flow.shard, flow.server, flow.tcp.after_takeover()))).collect()
    }

    /// The table is as a table has to be.
    pub fn check(&self) {
        let mut count = 0;
        for (place, flow) in self.flows.table.iter() {
            count += 1;
            let [client, server] = [&flow.client, &flow.server].map(|key| self.flows.table.lookup(key));
            assert_eq!(client, Some((place, Direction::FromClient)), "{}", flow.client);
            assert_eq!(server, Some((place, Direction::FromServer)), "{}", flow.server);
        }
        assert!(count <= CAPACITY, "{count} flows");
    }
}

/// Both sides agree on new keys.
pub fn open_session(sides: &mut [Side; 2]) -> [Session; 2] {
    let [ours, theirs] = [0, 1].map(|side| member(side, sides[side].boot));
    let (ours, theirs) = Session::agree_in_memory(ours, theirs).expect("entropy");
    let sessions = [ours, theirs];
    for (number, (side, session)) in sides.iter_mut().zip(&sessions).enumerate() {
        side.mirror.open_session(node(1 - number), session, &side.flows);
    }
    sessions
}

/// The key of one of a few clients: IPv4 for most, IPv6 for some; TCP for most, UDP for some.
pub fn client_key(which: u8) -> Key {
    let number = which / SHARDS_USED as u8 % CLIENTS;
    let is_v6 = number % 4 == 3;
    Key {
        src: address(is_v6, 1, number),
        dst: address(is_v6, 1, 100),
        src_port: u16::from(which) % SHARDS_USED + 1000,
        dst_port: 80,
        vlan: 0,
        protocol: if number % 5 == 4 { UDP } else { TCP },
    }
}

/// The key of a server's answers to it.
pub fn server_key(which: u8, how: u8) -> Key {
    let client = client_key(which);
    let is_v6 = !client.src.is_v4();
    Key {
        src: address(is_v6, 2, how % 3),
        dst: address(is_v6, 2, 100),
        src_port: 8080,
        dst_port: u16::from(how % 16) << 8 | u16::from(which % 64),
        ..client
    }
}

fn address(is_v6: bool, net: u8, host: u8) -> Address {
    if is_v6 {
        Address::v6([0x20, 1, 0xd, 0xb8, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host])
    } else {
        Address::v4([10, net, 0, host])
    }
}
