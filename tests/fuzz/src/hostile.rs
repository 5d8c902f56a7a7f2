//! A mirror, and a peer that has the group's key and says anything: records of any kind under any term, walk and
//! acknowledgement, in any order, more than once. Nothing of it breaks the mirror; a sound peer that comes after it
//! finds one that works.

use baton::base::ids::{BootId, GroupId, NodeId, PoolId, ServerId, ShardId, Term, Version, VirtualServerId};
use baton::base::time::{Duration, Instant};
use baton::flow::shard::ShardSet;
use baton::flow::{Stamp, TcpState};
use baton::mirror::Variant;
use baton::mirror::digest::Digest;
use baton::mirror::handle::Handle;
use baton::mirror::header::{Acknowledgement, HEADER_LEN, Header};
use baton::mirror::record::{self, FlowState, Record, Refusal};
use baton::mirror::said::Said;
use baton::seal::{Sealer, Session, StreamId, TAG_LEN};

use crate::input::Input;
use crate::side::{EVERY, FRAME_MAX, SHARDS_USED, Side, client_key, member, node, open_session, server_key};

/// Which side the mirror is, and which the peer.
const VICTIM: usize = 0;
const PEER: usize = 1;
/// Frames that are kept to be sent later, or again.
const KEPT_MAX: usize = 16;
/// The term of the sound peer that comes last; above all others.
const LAST_TERM: u64 = 1 << 20;
/// Within so many turns of a millisecond it and the mirror are equal.
const TURNS_MAX: usize = 5000;

/// The first byte says whether the mirror leads, and whether all that it says is to be acknowledged; each other one, and some after it, is something that happens.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let first = input.byte();
    let (leads, every) = (first & 1 == 1, (first >> 4 == 15).then_some(EVERY));
    let mut sides = [0, 1].map(|side| Side::new(side, BootId(side as u64 + 1), every, Variant::Sound));
    let mut peer = Peer {
        sealer: open_session_of_victim(&mut sides),
        boot: sides[PEER].boot,
        records: Vec::new(),
        said: Said::new(Term::NONE),
        kept: Vec::new(),
        term: Term { counter: 1, node: node(if leads { VICTIM } else { PEER }) },
    };
    peer.said.begin(peer.term);
    let victim = &mut sides[VICTIM];
    victim.stand(leads, peer.term);
    let mut now = Instant::from_millis(1);
    while let Some(event) = input.next() {
        match event % 16 {
            0..7 => peer.say(&record(&mut input)),
            7 => {
                let len = input.below(64);
                peer.records.extend_from_slice(input.bytes(len));
            }
            8..11 => {
                let mut frame = peer.frame(&mut input);
                let _ = victim.take(now, &mut frame);
            }
            11 => {
                let frame = peer.frame(&mut input);
                if peer.kept.len() < KEPT_MAX {
                    peer.kept.push(frame);
                }
            }
            12 if !peer.kept.is_empty() => {
                let mut frame = peer.kept[input.below(peer.kept.len())].clone();
                let _ = victim.take(now, &mut frame);
            }
            13 => {
                let steps = u64::from(input.byte());
                now += Duration::from_micros(steps * steps * 8);
                victim.poll(now);
            }
            14 => drop(victim.write(now)),
            _ if leads => victim.change(now, input.byte(), input.byte()),
            _ => victim.takes.refuses = (input.byte() & 1 == 1).then_some(Refusal::TableFull),
        }
        victim.check();
    }
    come_to_rest(&mut sides, leads, now);
}

/// The mirror has a session with one that says what it likes: the sealer of what it says.
fn open_session_of_victim(sides: &mut [Side; 2]) -> Sealer {
    let [ours, theirs] = [VICTIM, PEER].map(|side| member(side, sides[side].boot));
    let (ours, theirs) = Session::agree_in_memory(ours, theirs).expect("entropy");
    let victim = &mut sides[VICTIM];
    victim.mirror.open_session(node(PEER), &ours, &victim.flows);
    theirs.sealer(StreamId::mirror(0, 0)).expect("nobody took it")
}

struct Peer {
    sealer: Sealer,
    boot: BootId,
    /// Of the next frame.
    records: Vec<u8>,
    said: Said,
    kept: Vec<Vec<u8>>,
    term: Term,
}

impl Peer {
    fn say(&mut self, record: &Record) {
        let mut bytes = [0; record::RECORD_MAX];
        let Some(len) = record::write(record, &mut self.said, &mut bytes) else { return };
        if HEADER_LEN + self.records.len() + len + TAG_LEN <= FRAME_MAX {
            self.records.extend_from_slice(&bytes[..len]);
        }
    }

    /// Seals what was said: under the term that records go by, or another.
    fn frame(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let choice = input.byte();
        let term = match choice % 8 {
            0 => Term { counter: 0, node: self.term.node },
            1 => Term { counter: self.term.counter + 1, node: node(PEER) },
            2 => Term { counter: self.term.counter, node: NodeId(7) },
            _ => self.term,
        };
        let next = input.number(u64::MAX);
        let mut below = [0; 4];
        below[0] = match input.byte() % 4 {
            0 => 0,
            1 => u64::MAX,
            2 => 0x5555_5555_5555_5555,
            _ => u64::from(input.byte()),
        };
        let header = Header {
            elicits: choice & 8 != 0,
            walks: choice & 16 != 0,
            group: GroupId(0),
            boot: self.boot,
            stream: 0,
            sequence: 0,
            term,
            walk: input.number(u64::from(u32::MAX)) as u32,
            acknowledgement: Acknowledgement { next, below },
            credit: input.number(u64::from(u16::MAX)) as u16,
            generation: u32::from(input.byte()),
        };
        let mut head = [0; HEADER_LEN];
        header.write(&mut head);
        let mut body = std::mem::take(&mut self.records);
        self.said.begin(self.term);
        body.truncate(FRAME_MAX - HEADER_LEN - TAG_LEN);
        body.resize(body.len() + TAG_LEN, 0);
        self.sealer.seal_in_place(&mut head, &mut body).expect("there is room");
        [&head[..], &body].concat()
    }
}

fn record(input: &mut Input<'_>) -> Record {
    let shard = match input.byte() {
        byte @ 0..250 => ShardId(u16::from(byte) % SHARDS_USED),
        byte => ShardId(u16::from(byte) << 8 | 255),
    };
    let version = Version(input.number(u64::MAX));
    let stamp = |term: u8| Stamp { term: Term { counter: u64::from(term % 4), node: node(PEER) }, version };
    let tcp = |byte: u8| TcpState::ALL[usize::from(byte) % TcpState::ALL.len()];
    let kind = input.byte();
    // By handles of flows that it has named, or has not.
    let mut handle = || {
        let shard = ShardId(u16::from(input.byte()) % SHARDS_USED);
        Handle { place: input.byte().into(), shard, generation: u16::from(input.byte() % 8 == 7) }
    };
    let kind = match kind {
        238 | 239 => return Record::Unbound { handle: handle() },
        240..=243 => return Record::Update { handle: handle(), version, tcp: tcp(kind) },
        244..=247 => return Record::End { handle: handle(), version },
        248..=251 => return Record::WalkBegin { shards: shards(input) },
        252..=255 => {
            let digest = Digest { sum: input.number(u64::MAX), flows: input.byte().into() };
            return Record::Digest { shard, digest };
        }
        _ => kind % 16,
    };
    match kind {
        0..8 => {
            let which = input.byte();
            // With keys that do not belong together now and then.
            let server = if input.byte().is_multiple_of(8) { input.byte() } else { which };
            let mut flow = FlowState {
                stamp: stamp(input.byte()),
                client: client_key(which),
                server: server_key(server, input.byte()),
                virtual_server: VirtualServerId(u32::from(input.byte())),
                pool: PoolId(1),
                server_id: ServerId(1),
                tcp: tcp(input.byte()),
                full_nat: false,
                chosen: false,
            };
            let flags = input.byte();
            (flow.full_nat, flow.chosen) = (flags & 1 == 1, flags & 2 == 2);
            let handle = Handle { place: which.into(), shard, generation: 0 };
            Record::Upsert { shard, flow, handle }
        }
        8 | 9 => Record::Delete { shard, stamp: stamp(input.byte()), client: client_key(input.byte()) },
        10 | 11 => Record::WalkEnd { shards: shards(input) },
        12 | 13 => Record::Floor { sequence: input.number(u64::MAX) },
        _ => {
            let which = match input.byte() % 3 {
                0 => u64::MAX,
                1 => 1,
                _ => u64::from(input.byte()),
            };
            let reasons = [
                Refusal::TableFull,
                Refusal::Inconsistent,
                Refusal::UnknownService,
                Refusal::UnknownRecord,
                Refusal::Differs,
                Refusal::UnknownHandle,
            ];
            Record::Refused {
                sequence: input.number(u64::MAX),
                which,
                reason: reasons[input.below(reasons.len())],
            }
        }
    }
}

/// All, none or some of those that are used.
fn shards(input: &mut Input<'_>) -> ShardSet {
    let bits = input.byte();
    let last = if bits & 0x80 == 0 { SHARDS_USED } else { 256 };
    (0..last).filter(|shard| bits >> (shard % 4) & 1 == 1).map(ShardId).collect()
}

/// A sound peer comes; both have the same in the end.
fn come_to_rest(sides: &mut [Side; 2], leads: bool, mut now: Instant) {
    sides.iter_mut().for_each(|side| side.takes.refuses = None);
    sides[PEER] = Side::new(PEER, BootId(99), None, Variant::Sound);
    open_session(sides);
    let leader = if leads { VICTIM } else { PEER };
    let term = Term { counter: LAST_TERM, node: node(leader) };
    for (side, place) in sides.iter_mut().enumerate() {
        place.stand(side == leader, term);
    }
    for which in 0..8 {
        sides[leader].change(now, which * 5, 1);
    }
    let members = [node(1 - leader)];
    for _ in 0..TURNS_MAX {
        now += Duration::from_millis(1);
        for side in 0..2 {
            sides[side].poll(now);
            for mut frame in sides[side].write(now) {
                let _ = sides[1 - side].take(now, &mut frame);
            }
        }
        sides.iter().for_each(Side::check);
        let [ours, theirs] = [&sides[leader], &sides[1 - leader]];
        if ours.mirror.is_flushed(members[0])
            && ours.mirror.known_to_all(&members) == ours.flows.table.iter().count() as u64
        {
            assert_eq!(ours.known(), theirs.known(), "all is acknowledged, and they differ");
            return;
        }
    }
    panic!("after {TURNS_MAX} turns a sound peer is not as the mirror is");
}
