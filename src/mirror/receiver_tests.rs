//! What becomes of flows that the leader names, and of those that it does not.

use super::*;
use crate::base::ids::{NodeId, PoolId, ServerId, Term, Version, VirtualServerId};
use crate::flow::flows::FlowsSetup;
use crate::flow::key::{Address, TCP};
use crate::flow::tcp_state::TcpState;
use crate::mirror::Variant;

/// Notes what is done, and lets so many flows be removed where any number may be.
#[derive(Default)]
struct Noted {
    made: usize,
    removed: Vec<ShardId>,
    room: usize,
    refuses: bool,
}

impl Effects for Noted {
    fn check(&self, _: ShardId, _: &FlowState) -> Result<(), Refusal> {
        if self.refuses { Err(Refusal::UnknownService) } else { Ok(()) }
    }
    fn made(&mut self, _: &mut Flows, _: FlowIndex, _: &Flow) {
        self.made += 1;
    }
    fn changed(&mut self, _: &mut Flows, _: FlowIndex) {}
    fn removed(&mut self, _: &mut Flows, _: FlowIndex, flow: &Flow) {
        self.removed.push(flow.shard);
    }
    fn may_remove(&self) -> bool {
        self.removed.len() < self.room
    }
}

struct Standby {
    received: Received,
    flows: Flows,
    noted: Noted,
    digests: Digests,
    /// Frames that came.
    sequence: u64,
}

impl Standby {
    /// In the leader's first walk.
    fn new() -> Standby {
        let flows = Flows::new(&FlowsSetup::alone(64));
        let mut received = Received::new(64, true).expect("memory");
        assert!(received.enter_walk(1));
        Standby {
            received,
            flows: flows.expect("memory"),
            noted: Noted::default(),
            digests: Digests::new(64, Variant::Sound).expect("memory"),
            sequence: 0,
        }
    }

    fn apply(&mut self, record: &Record) -> Applied {
        self.sequence += 1;
        self.apply_at(record, self.sequence)
    }

    /// A record of this frame.
    fn apply_at(&mut self, record: &Record, sequence: u64) -> Applied {
        let Standby { received, flows, noted, digests, .. } = self;
        let term = Term { counter: 1, node: NodeId(1) };
        let place = Place { sequence, newest: 0, term, is_current: true };
        received.apply(record, place, flows, digests, noted)
    }

    /// Its own, from when it led.
    fn own(&mut self, shard: ShardId, state: &FlowState) {
        assert!(matches!(self.flows.table.insert(&made_from(shard, state)), Insert::Done(_)));
    }

    /// Of each flow, its shard and the source port of its server's side.
    fn held(&self) -> Vec<(ShardId, u16)> {
        self.flows.table.iter().map(|(_, flow)| (flow.shard, flow.server.dst_port)).collect()
    }
}

/// A flow of the client's port, of which the server's packets go to this port.
fn state(client_port: u16, nat_port: u16, version: u64) -> FlowState {
    let client = Key {
        src: Address::v4([10, 1, 0, 50]),
        dst: Address::v4([10, 1, 0, 100]),
        src_port: client_port,
        dst_port: 80,
        vlan: 0,
        protocol: TCP,
    };
    let (src, dst) = (Address::v4([10, 2, 0, 10]), Address::v4([10, 2, 0, 100]));
    FlowState {
        stamp: Stamp { term: Term { counter: 1, node: NodeId(1) }, version: Version(version) },
        client,
        server: Key { src, dst, src_port: 8080, dst_port: nat_port, ..client },
        virtual_server: VirtualServerId(1),
        pool: PoolId(1),
        server_id: ServerId(1),
        tcp: TcpState::Established,
        full_nat: true,
        chosen: false,
    }
}

/// As [`state`], in a shard; its handle is the client's port.
fn upsert(shard: ShardId, client_port: u16, nat_port: u16, version: u64) -> Record {
    let handle = Handle { place: u32::from(client_port % 64), shard, generation: 7 };
    Record::Upsert { shard, flow: state(client_port, nat_port, version), handle }
}

const OWN: ShardId = ShardId(1);
const LEADERS: ShardId = ShardId(2);
const NEXT: ShardId = ShardId(3);

fn all_shards() -> ShardSet {
    [OWN, LEADERS, NEXT].into_iter().collect()
}

/// Both members served, each without the other, and chose different traffic managers for one connection.
#[test]
fn the_leaders_flow_takes_the_place_of_ones_own_of_its_key_in_another_shard() {
    let mut standby = Standby::new();
    // Its versions are higher, since they are of another shard: that says nothing.
    standby.own(OWN, &state(4000, 1111, 900));
    assert_eq!(standby.apply(&upsert(LEADERS, 4000, 2222, 5)), Applied::Done);
    assert_eq!(standby.held(), [(LEADERS, 2222)]);
    assert_eq!((standby.noted.made, &standby.noted.removed[..]), (1, &[OWN][..]));
    assert_eq!(standby.apply(&Record::WalkEnd { shards: all_shards() }), Applied::Done);
    assert_eq!(standby.held(), [(LEADERS, 2222)], "the leader has named it");
}

#[test]
fn of_two_flows_of_a_key_that_the_leader_has_named_in_two_shards_the_second_is_refused() {
    let mut standby = Standby::new();
    assert_eq!(standby.apply(&upsert(LEADERS, 4000, 2222, 5)), Applied::Done);
    let next = upsert(NEXT, 4000, 3333, 9);
    assert_eq!(standby.apply(&next), Applied::Refused(Refusal::Inconsistent));
    assert_eq!(standby.held(), [(LEADERS, 2222)]);
    // A later walk has not named the first one.
    assert!(standby.received.enter_walk(2));
    assert_eq!(standby.apply(&next), Applied::Done);
    assert_eq!(standby.held(), [(NEXT, 3333)]);
}

#[test]
fn a_walks_end_that_may_not_remove_all_at_once_goes_on_when_it_comes_again() {
    let mut standby = Standby::new();
    for port in 0..10 {
        standby.own(OWN, &state(4000 + port, 1000 + port, 7));
    }
    assert_eq!(standby.apply(&upsert(OWN, 4003, 1003, 8)), Applied::Done);
    let end = Record::WalkEnd { shards: all_shards() };
    for (room, applied, left) in [(0, Applied::Later, 10), (4, Applied::Later, 6), (9, Applied::Done, 1)] {
        standby.noted.room = room;
        assert_eq!(standby.apply(&end), applied);
        assert_eq!(standby.held().len(), left);
    }
    assert_eq!(standby.held(), [(OWN, 1003)]);
}

#[test]
fn a_walks_end_looks_at_some_places_at_a_time_and_begins_anew_with_another_walk() {
    let mut standby = Standby::new();
    (standby.received.ended_per_call, standby.noted.room) = (4, 100);
    for port in 0..10 {
        standby.own(OWN, &state(4000 + port, 1000 + port, 7));
    }
    let end = Record::WalkEnd { shards: all_shards() };
    for left in [6, 2] {
        assert_eq!(standby.apply(&end), Applied::Later);
        assert_eq!(standby.held().len(), left);
    }
    // Places that it has been over are another's.
    for port in 0..3 {
        standby.own(OWN, &state(5000 + port, 2000 + port, 7));
    }
    assert!(standby.received.enter_walk(2));
    assert_eq!(standby.apply(&end), Applied::Later);
    assert_eq!(standby.apply(&end), Applied::Later);
    assert_eq!(standby.apply(&end), Applied::Done);
    assert_eq!(standby.held(), []);
    standby.own(OWN, &state(4000, 1000, 7));
    assert_eq!(standby.apply(&Record::WalkEnd { shards: one(NEXT) }), Applied::Later);
    assert_eq!(standby.apply(&end), Applied::Later, "another bracket begins at the first place");
}

fn one(shard: ShardId) -> ShardSet {
    [shard].into_iter().collect()
}

#[test]
fn a_walk_that_begins_again_removes_what_it_does_not_name_and_nothing_of_other_shards() {
    let mut standby = Standby::new();
    for (shard, port) in [(OWN, 4000), (OWN, 4001), (NEXT, 4002)] {
        let named = upsert(shard, port, port - 3000, 5);
        assert_eq!(standby.apply(&named), Applied::Done);
    }
    assert_eq!(standby.apply(&Record::WalkBegin { shards: one(OWN) }), Applied::Done);
    // What is here may be wrong, whatever its version says.
    let again = upsert(OWN, 4001, 1001, 4);
    assert_eq!((standby.apply(&again), standby.apply(&again)), (Applied::Done, Applied::Stale));
    assert_eq!(standby.apply(&upsert(NEXT, 4002, 1002, 4)), Applied::Stale);
    standby.noted.room = 1;
    assert_eq!(standby.apply(&Record::WalkEnd { shards: one(OWN) }), Applied::Done);
    assert_eq!(standby.held(), [(OWN, 1001), (NEXT, 1002)]);
}

/// They were taken for lost and said again, and come after all that they were about is over.
#[test]
fn a_late_begin_and_a_late_end_of_a_walk_remove_nothing() {
    let mut standby = Standby::new();
    let shards = one(OWN);
    assert_eq!(standby.apply_at(&Record::WalkBegin { shards }, 20), Applied::Done);
    assert_eq!(standby.apply_at(&upsert(OWN, 4000, 1000, 5), 30), Applied::Done);
    assert_eq!(standby.apply_at(&Record::WalkEnd { shards }, 60), Applied::Done);
    assert_eq!(standby.apply_at(&Record::WalkBegin { shards }, 10), Applied::Stale);
    assert_eq!(standby.apply_at(&Record::WalkEnd { shards }, 50), Applied::Stale);
    assert_eq!(standby.held(), [(OWN, 1000)]);
}

#[test]
fn however_often_a_shard_is_walked_again_others_stay_named() {
    let mut standby = Standby::new();
    assert_eq!(standby.apply(&upsert(NEXT, 4002, 1002, 9)), Applied::Done);
    let shards = one(OWN);
    for round in 0..600 {
        assert_eq!(standby.apply(&Record::WalkBegin { shards }), Applied::Done);
        let named = upsert(OWN, 4000, 1000, 5);
        assert_eq!((standby.apply(&named), standby.apply(&named)), (Applied::Done, Applied::Stale));
        assert_eq!(standby.apply(&Record::WalkEnd { shards }), Applied::Done);
        let older = upsert(NEXT, 4002, 1002, 8);
        assert_eq!(standby.apply(&older), Applied::Stale, "round {round}");
        assert_eq!(standby.held().len(), 2);
    }
}

#[test]
fn a_digest_is_compared_unless_something_newer_was_said_of_the_shard() {
    let mut standby = Standby::new();
    assert_eq!(standby.apply_at(&upsert(OWN, 4000, 1000, 5), 7), Applied::Done);
    let digest = standby.digests.of(OWN);
    assert_eq!(digest.flows, 1);
    let right = Record::Digest { shard: OWN, digest };
    let wrong = Record::Digest { shard: OWN, digest: Digest { sum: digest.sum ^ 1, ..digest } };
    assert_eq!((standby.apply_at(&right, 7), standby.apply_at(&right, 8)), (Applied::Done, Applied::Done));
    assert_eq!(standby.apply_at(&wrong, 7), Applied::Refused(Refusal::Differs));
    assert_eq!((standby.apply_at(&right, 6), standby.apply_at(&wrong, 6)), (Applied::Stale, Applied::Stale));
    let stamp = Stamp { version: Version(6), ..state(4000, 1000, 5).stamp };
    let client = state(4000, 1000, 5).client;
    assert_eq!(standby.apply_at(&Record::Delete { shard: OWN, stamp, client }, 9), Applied::Done);
    assert_eq!(standby.apply_at(&right, 8), Applied::Stale);
    assert_eq!(standby.apply_at(&right, 10), Applied::Refused(Refusal::Differs));
    assert_eq!(standby.digests.of(OWN), Digest::default());
}

/// Until the leader has begun anew, it asks about what this standby had before it followed somebody else.
#[test]
fn a_digest_is_not_compared_from_when_the_leader_is_to_begin_anew_until_it_does() {
    let mut standby = Standby::new();
    assert_eq!(standby.apply(&upsert(OWN, 4000, 1000, 5)), Applied::Done);
    let wrong = Record::Digest { shard: OWN, digest: Digest::default() };
    assert_eq!(standby.apply(&wrong), Applied::Refused(Refusal::Differs));
    standby.received.ask_anew();
    assert!(standby.received.enter_walk(1));
    assert_eq!(standby.apply(&wrong), Applied::Stale);
    assert!(standby.received.enter_walk(2));
    assert_eq!(standby.apply(&wrong), Applied::Refused(Refusal::Differs));
    // A session's first walk is no answer to what was asked under it.
    standby.received.open_session();
    standby.received.ask_anew();
    assert!(standby.received.enter_walk(1));
    assert_eq!(standby.apply(&wrong), Applied::Stale);
    standby.received.open_session();
    assert!(standby.received.enter_walk(1));
    assert_eq!(standby.apply(&wrong), Applied::Refused(Refusal::Differs));
}

const HANDLE: Handle = Handle { place: 5, shard: OWN, generation: 7 };
const UNKNOWN: Applied = Applied::Refused(Refusal::UnknownHandle);

fn update(handle: Handle, version: u64) -> Record {
    Record::Update { handle, version: Version(version), tcp: TcpState::Closed }
}

fn end(handle: Handle, version: u64) -> Record {
    Record::End { handle, version: Version(version) }
}

/// The flow of a client's port, in full.
fn name(port: u16, version: u64, handle: Handle) -> Record {
    Record::Upsert { shard: handle.shard, flow: state(port, port, version), handle }
}

#[test]
fn a_flow_goes_by_its_handle_until_that_is_another_flows_or_the_flow_is_gone() {
    let mut standby = Standby::new();
    assert_eq!((standby.apply(&update(HANDLE, 6)), standby.apply(&end(HANDLE, 6))), (UNKNOWN, UNKNOWN));
    assert_eq!(standby.apply(&name(4000, 5, HANDLE)), Applied::Done);
    let again = (standby.apply(&update(HANDLE, 6)), standby.apply(&update(HANDLE, 6)));
    assert_eq!(again, (Applied::Done, Applied::Stale));
    let flow = standby.flows.table.iter().next().expect("a flow").1;
    assert_eq!((flow.tcp, flow.changed.version), (TcpState::Closed, Version(6)));
    assert_eq!(standby.flows.version(OWN), Version(6));
    let mut anew = Digests::new(64, Variant::Sound).expect("memory");
    standby.flows.table.iter().for_each(|(place, _)| anew.note(&standby.flows.table, place));
    assert_eq!(standby.digests.of(OWN), anew.of(OWN));
    // An earlier tenant of the sender's place, or a later one.
    let other = Handle { generation: 8, ..HANDLE };
    assert_eq!((standby.apply(&update(other, 7)), standby.apply(&end(other, 7))), (UNKNOWN, UNKNOWN));
    assert_eq!(standby.apply(&name(4001, 8, other)), Applied::Done);
    assert_eq!((standby.apply(&end(HANDLE, 9)), standby.held().len()), (UNKNOWN, 2));
    assert_eq!((standby.apply(&end(other, 9)), standby.held()), (Applied::Done, vec![(OWN, 4000)]));
    assert_eq!(standby.apply(&end(other, 9)), UNKNOWN, "it is gone");
    // Its place here is another flow's, of another handle.
    let third = Handle { place: 6, ..HANDLE };
    assert_eq!(standby.apply(&name(4002, 10, third)), Applied::Done);
    assert_eq!((standby.apply(&update(other, 11)), standby.apply(&end(other, 11))), (UNKNOWN, UNKNOWN));
    // A late state of one that ended comes to nothing, and its handle too.
    let late = (standby.apply(&name(4001, 8, other)), standby.apply(&update(other, 12)));
    assert_eq!(late, (Applied::Stale, UNKNOWN));
    // The sender has more places than there are here, and two share one.
    let far = Handle { place: 64 + third.place, ..HANDLE };
    assert_eq!(standby.apply(&update(far, 14)), UNKNOWN);
    assert_eq!(standby.apply(&name(4003, 13, far)), Applied::Done);
    assert_eq!(
        (standby.apply(&update(far, 14)), standby.apply(&update(third, 14))),
        (Applied::Done, UNKNOWN)
    );
}

#[test]
fn a_late_record_by_the_handle_of_an_earlier_flow_touches_no_later_one() {
    let mut standby = Standby::new();
    assert_eq!(standby.apply(&name(4000, 5, HANDLE)), Applied::Done);
    assert_eq!(standby.apply(&end(HANDLE, 6)), Applied::Done);
    // Versions of different shards are often alike.
    let next = Handle { shard: NEXT, ..HANDLE };
    assert_eq!(standby.apply(&name(4001, 5, next)), Applied::Done);
    assert_eq!((standby.apply(&update(HANDLE, 9)), standby.apply(&end(HANDLE, 9))), (UNKNOWN, UNKNOWN));
    assert_eq!((standby.apply(&end(next, 9)), standby.held().len()), (Applied::Done, 0));
    // And after so many changes of a shard one begins with the same low bits.
    let later = 1 << 16;
    assert_eq!(standby.apply(&name(4002, later + 5, HANDLE)), Applied::Done);
    assert_eq!((standby.apply(&update(HANDLE, 7)), standby.apply(&end(HANDLE, 8))), (UNKNOWN, UNKNOWN));
    assert_eq!(standby.apply(&update(HANDLE, later + 6)), Applied::Done);
    // A late state of an earlier connection of the same client is not this flow's name.
    let earlier = Handle { place: 9, ..HANDLE };
    assert_eq!(standby.apply(&name(4002, 3, earlier)), Applied::Stale);
    assert_eq!(
        (standby.apply(&end(earlier, 4)), standby.apply(&end(HANDLE, later + 7))),
        (UNKNOWN, Applied::Done)
    );
}

/// The place is another flow's by now, which happens to have the same generation.
#[test]
fn what_was_sent_before_a_flow_was_named_says_nothing_of_it_and_takes_no_handle_from_it() {
    let mut standby = Standby::new();
    let later = 1 << 16;
    assert_eq!(standby.apply_at(&name(4000, 5, HANDLE), 1), Applied::Done);
    assert_eq!(standby.apply_at(&name(4001, later + 5, HANDLE), 4), Applied::Done);
    // The first one's end, and an older state of it.
    assert_eq!(standby.apply_at(&end(HANDLE, later + 9), 3), UNKNOWN);
    assert_eq!(standby.apply_at(&name(4000, 6, HANDLE), 2), Applied::Done);
    assert_eq!(standby.apply_at(&update(HANDLE, later + 6), 5), Applied::Done);
    let now = standby.flows.table.lookup(&state(4001, 4001, 0).client).expect("the flow").0;
    assert_eq!(standby.flows.table.changed(now).map(|changed| changed.version), Some(Version(later + 6)));
    // Frames of the next session have numbers from the start, and are later all the same.
    standby.received.open_session();
    assert_eq!(standby.apply_at(&name(4002, later + 7, HANDLE), 1), Applied::Done);
    assert_eq!(standby.apply_at(&update(HANDLE, later + 8), 1), UNKNOWN, "not told of yet");
    assert_eq!(standby.apply_at(&update(HANDLE, later + 8), 2), Applied::Done);
}

#[test]
fn a_flow_that_is_here_and_refused_outlives_the_walk_and_another_one_of_its_client_does_not() {
    let mut standby = Standby::new();
    for port in [4000, 4001] {
        assert_eq!(standby.apply(&upsert(OWN, port, port, 5)), Applied::Done);
    }
    let shards = one(OWN);
    assert_eq!(standby.apply(&Record::WalkBegin { shards }), Applied::Done);
    standby.noted.refuses = true;
    let refused = Applied::Refused(Refusal::UnknownService);
    assert_eq!(standby.apply(&upsert(OWN, 4000, 4000, 6)), refused);
    assert_eq!(standby.apply(&upsert(OWN, 4001, 1111, 7)), refused);
    standby.noted.room = 1;
    assert_eq!(standby.apply(&Record::WalkEnd { shards }), Applied::Done);
    assert_eq!(standby.held(), [(OWN, 4000)]);
}

/// It was taken for lost, and a newer state was acknowledged.
#[test]
fn a_late_state_from_before_a_walk_began_again_takes_nothing_back_and_names_nothing() {
    let mut standby = Standby::new();
    let shards = one(OWN);
    assert_eq!(standby.apply_at(&upsert(OWN, 4000, 1000, 6), 10), Applied::Done);
    assert_eq!(standby.apply_at(&Record::WalkBegin { shards }, 20), Applied::Done);
    assert_eq!(standby.apply_at(&upsert(OWN, 4000, 1000, 5), 9), Applied::Stale);
    assert_eq!(standby.apply_at(&upsert(OWN, 4000, 1000, 7), 11), Applied::Done);
    standby.noted.room = 1;
    assert_eq!(standby.apply_at(&Record::WalkEnd { shards }, 30), Applied::Done);
    assert_eq!(standby.held(), [], "the walk has not named it");
}

/// As when a virtual server's flows were not mirrored, and are now.
#[test]
fn a_flow_that_was_not_mirrored_is_when_the_leader_has_told_of_it() {
    let mut standby = Standby::new();
    let here = made_from(OWN, &state(4000, 1000, 5));
    let flags = here.flags.without(FlowFlags::MIRRORED);
    assert!(matches!(standby.flows.table.insert(&Flow { flags, ..here }), Insert::Done(_)));
    assert_eq!(standby.apply(&upsert(OWN, 4000, 1000, 6)), Applied::Done);
    assert!(standby.flows.table.iter().all(|(_, flow)| flow.is_mirrored()));
    assert_eq!((standby.digests.of(OWN).flows, standby.noted.made, standby.noted.removed.len()), (1, 1, 1));
}

/// Aged out, or gone to another worker.
#[test]
fn a_flow_that_no_record_ended_has_no_handle_and_what_comes_to_its_place_neither() {
    let mut standby = Standby::new();
    assert_eq!(standby.apply(&name(4000, 5, HANDLE)), Applied::Done);
    let (place, _) = standby.flows.table.lookup(&state(4000, 4000, 5).client).expect("the flow");
    standby.flows.table.remove(place).expect("it");
    standby.received.forget(place);
    standby.own(OWN, &state(4001, 4001, 6));
    assert_eq!(standby.flows.table.lookup(&state(4001, 4001, 6).client).map(|found| found.0), Some(place));
    assert_eq!((standby.apply(&update(HANDLE, 7)), standby.apply(&end(HANDLE, 7))), (UNKNOWN, UNKNOWN));
}

/// The handles of a stream know nothing of what another one, to which the shard has moved at the sender, ended and made meanwhile.
#[test]
fn a_late_record_by_a_handle_of_one_stream_touches_no_flow_that_another_has_put_in_its_place() {
    let mut standby = Standby::new();
    assert_eq!(standby.apply(&name(4000, 8, HANDLE)), Applied::Done);
    let (place, _) = standby.flows.table.lookup(&state(4000, 4000, 8).client).expect("the flow");
    let before = std::mem::replace(&mut standby.received, Received::new(64, true).expect("memory"));
    assert!(standby.received.enter_walk(1));
    let elsewhere = Handle { place: 7, ..HANDLE };
    assert_eq!(standby.apply(&name(4000, 9, elsewhere)), Applied::Done);
    assert_eq!(standby.apply(&end(elsewhere, 11)), Applied::Done);
    // One that began before, and was refused till now.
    assert_eq!(standby.apply(&name(4001, 5, elsewhere)), Applied::Done);
    let state_of = |standby: &Standby| standby.flows.table.get(place).map(|flow| (flow.tcp, flow.changed));
    let known = state_of(&standby);
    assert!(known.is_some(), "it has the other's place");
    standby.received = before;
    assert_eq!(standby.apply(&update(HANDLE, 10)), UNKNOWN);
    assert_eq!(state_of(&standby), known);
}
