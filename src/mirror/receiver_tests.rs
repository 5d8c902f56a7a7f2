//! What becomes of flows that the leader names, and of those that it does not.

use std::sync::Arc;

use super::*;
use crate::base::ids::{NodeId, PoolId, ServerId, Term, Version, VirtualServerId, WorkerId};
use crate::base::time::{Duration, Instant};
use crate::flow::flows::FlowsSetup;
use crate::flow::key::{Address, TCP};
use crate::flow::ports::PortSetup;
use crate::flow::tcp_state::TcpState;
use crate::flow::toeplitz::{MICROSOFT_KEY, Toeplitz};
use crate::mirror::Variant;

/// Notes what is done, and lets so many flows be removed where any number may be.
#[derive(Default)]
struct Noted {
    made: usize,
    removed: Vec<ShardId>,
    room: usize,
}

impl Effects for Noted {
    fn check(&self, _: ShardId, _: &FlowState) -> Result<(), Refusal> {
        Ok(())
    }
    fn made(&mut self, _: &mut Flows, _: FlowIndex) {
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
        let flows = Flows::new(&FlowsSetup {
            worker: WorkerId(0),
            workers: 1,
            capacity: 64,
            hash_seed: 1,
            toeplitz: Arc::new(Toeplitz::new(&MICROSOFT_KEY).expect("a good key")),
            ports: PortSetup {
                members: 2,
                rank: 0,
                boot_parity: None,
                booted: Instant::ZERO,
                quarantine: Duration::from_secs(60),
                resting_max: 64,
            },
        });
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
        let place = Place { sequence, newest: 0, is_current: true };
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
    }
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
    assert_eq!(standby.apply(&Record::Upsert { shard: LEADERS, flow: state(4000, 2222, 5) }), Applied::Done);
    assert_eq!(standby.held(), [(LEADERS, 2222)]);
    assert_eq!((standby.noted.made, &standby.noted.removed[..]), (1, &[OWN][..]));
    assert_eq!(standby.apply(&Record::WalkEnd { shards: all_shards() }), Applied::Done);
    assert_eq!(standby.held(), [(LEADERS, 2222)], "the leader has named it");
}

#[test]
fn of_two_flows_of_a_key_that_the_leader_has_named_in_two_shards_the_second_is_refused() {
    let mut standby = Standby::new();
    assert_eq!(standby.apply(&Record::Upsert { shard: LEADERS, flow: state(4000, 2222, 5) }), Applied::Done);
    let next = Record::Upsert { shard: NEXT, flow: state(4000, 3333, 9) };
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
    assert_eq!(standby.apply(&Record::Upsert { shard: OWN, flow: state(4003, 1003, 8) }), Applied::Done);
    let end = Record::WalkEnd { shards: all_shards() };
    for (room, applied, left) in [(0, Applied::Later, 10), (4, Applied::Later, 6), (9, Applied::Done, 1)] {
        standby.noted.room = room;
        assert_eq!(standby.apply(&end), applied);
        assert_eq!(standby.held().len(), left);
    }
    assert_eq!(standby.held(), [(OWN, 1003)]);
}

fn one(shard: ShardId) -> ShardSet {
    [shard].into_iter().collect()
}

#[test]
fn a_walk_that_begins_again_removes_what_it_does_not_name_and_nothing_of_other_shards() {
    let mut standby = Standby::new();
    for (shard, port) in [(OWN, 4000), (OWN, 4001), (NEXT, 4002)] {
        let named = Record::Upsert { shard, flow: state(port, port - 3000, 5) };
        assert_eq!(standby.apply(&named), Applied::Done);
    }
    assert_eq!(standby.apply(&Record::WalkBegin { shards: one(OWN) }), Applied::Done);
    // What is here may be wrong, whatever its version says.
    let again = Record::Upsert { shard: OWN, flow: state(4001, 1001, 4) };
    assert_eq!((standby.apply(&again), standby.apply(&again)), (Applied::Done, Applied::Stale));
    assert_eq!(standby.apply(&Record::Upsert { shard: NEXT, flow: state(4002, 1002, 4) }), Applied::Stale);
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
    assert_eq!(
        standby.apply_at(&Record::Upsert { shard: OWN, flow: state(4000, 1000, 5) }, 30),
        Applied::Done
    );
    assert_eq!(standby.apply_at(&Record::WalkEnd { shards }, 60), Applied::Done);
    assert_eq!(standby.apply_at(&Record::WalkBegin { shards }, 10), Applied::Stale);
    assert_eq!(standby.apply_at(&Record::WalkEnd { shards }, 50), Applied::Stale);
    assert_eq!(standby.held(), [(OWN, 1000)]);
}

#[test]
fn however_often_a_shard_is_walked_again_others_stay_named() {
    let mut standby = Standby::new();
    assert_eq!(standby.apply(&Record::Upsert { shard: NEXT, flow: state(4002, 1002, 9) }), Applied::Done);
    let shards = one(OWN);
    for round in 0..600 {
        assert_eq!(standby.apply(&Record::WalkBegin { shards }), Applied::Done);
        let named = Record::Upsert { shard: OWN, flow: state(4000, 1000, 5) };
        assert_eq!((standby.apply(&named), standby.apply(&named)), (Applied::Done, Applied::Stale));
        assert_eq!(standby.apply(&Record::WalkEnd { shards }), Applied::Done);
        let older = Record::Upsert { shard: NEXT, flow: state(4002, 1002, 8) };
        assert_eq!(standby.apply(&older), Applied::Stale, "round {round}");
        assert_eq!(standby.held().len(), 2);
    }
}

#[test]
fn a_digest_is_compared_unless_something_newer_was_said_of_the_shard() {
    let mut standby = Standby::new();
    assert_eq!(
        standby.apply_at(&Record::Upsert { shard: OWN, flow: state(4000, 1000, 5) }, 7),
        Applied::Done
    );
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
