//! Since when a flow has waited, and in which order flows are named.

use super::*;
use crate::base::ids::{BootId, GroupId, NodeId, Term, VirtualServerId, WorkerId};
use crate::base::time::Duration;
use crate::flow::aging::TimeoutClass;
use crate::flow::entry::{Flow, FlowFlags, Stamp};
use crate::flow::flows::FlowsSetup;
use crate::flow::key::{Address, Key, TCP};
use crate::flow::resting::RestingPlace;
use crate::flow::table::Insert;
use crate::flow::tcp_state::TcpState;
use crate::mirror::digest::Digests;
use crate::mirror::header::Header;
use crate::mirror::record::{self, Parsed, RECORD_MAX, Record};
use crate::mirror::said::Said;
use crate::mirror::tombstone::{Buried, Departed};
use crate::mirror::{Mirror, MirrorSetup, Standing, Variant};
use crate::seal::member::tests::member;
use crate::seal::{MemberInfo, Mirroring, Session, Tracked};

fn lose(sync: &mut Sync, flow: u32, since: Instant) {
    assert_eq!(sync.flow_settled(ShardId(0), flow, Some(0), Fate::Lost, since), Settled::Nothing);
}

#[test]
fn a_flow_whose_first_state_is_lost_while_a_later_one_is_queued_has_waited_since_the_first() {
    let at = Instant::from_millis;
    let mut sync = Sync::new(16).expect("memory");
    sync.changed(at(1), ShardId(0), FlowIndex(3));
    sync.changed(at(2), ShardId(0), FlowIndex(4));
    assert_eq!(sync.take_dirty().map(|dirty| dirty.flow), Some(3));
    assert_eq!(sync.take_dirty().map(|dirty| dirty.flow), Some(4));
    sync.changed(at(5), ShardId(0), FlowIndex(3));
    lose(&mut sync, 3, at(1));
    assert_eq!(sync.oldest_since(), Some(at(1)));
    // The other one is sent again first.
    lose(&mut sync, 4, at(2));
    sync.changed(at(6), ShardId(0), FlowIndex(5));
    let sent: Vec<_> = core::iter::from_fn(|| sync.take_dirty()).map(|d| (d.flow, d.since)).collect();
    assert_eq!(sent, [(4, at(1)), (3, at(1)), (5, at(6))]);
    assert_eq!(sync.oldest_since(), None);
}

#[test]
fn a_later_state_of_a_flow_that_the_peer_knows_waits_only_since_it_came() {
    let at = Instant::from_millis;
    let mut sync = Sync::new(16).expect("memory");
    sync.flow_settled(ShardId(0), 3, Some(0), Fate::Applied, at(1));
    sync.changed(at(5), ShardId(0), FlowIndex(3));
    lose(&mut sync, 3, at(2));
    assert_eq!(sync.oldest_since(), Some(at(5)));
}

const SHARD: ShardId = ShardId(0);

/// So many flows of a shard, of which those at these places were seen then.
fn flows(count: u32, seen: &[(u32, Instant)]) -> Flows {
    let mut flows = Flows::new(&FlowsSetup::alone(count)).expect("memory");
    for number in 0..count {
        let virtual_address = Address::v4([10, 1, 0, 100]);
        let own = Address::v4([10, 1, (number >> 16) as u8, 7]);
        let src_port = number as u16;
        let client = Key { src: own, dst: virtual_address, src_port, dst_port: 80, vlan: 0, protocol: TCP };
        let server = Key { src: Address::v4([10, 2, 0, 10]), ..client.reversed() };
        let mut flow = Flow::new(client, server, TcpState::Established);
        (flow.shard, flow.flags) = (SHARD, FlowFlags::MIRRORED);
        flow.created = flows.next_version(SHARD);
        flow.changed.version = flow.created;
        assert_eq!(flows.table.insert(&flow), Insert::Done(FlowIndex(number)));
    }
    for (place, at) in seen {
        flows.last_seen.touch(FlowIndex(*place), TimeoutClass::Established, *at);
    }
    flows
}

#[test]
fn a_walk_names_the_busiest_flows_first_and_each_once() {
    let at = |secs| Instant::ZERO + Duration::from_secs(secs);
    let now = at(1000);
    let seen = [(0, at(1)), (1, at(995)), (2, now), (3, at(900)), (4, now), (5, at(996)), (6, at(999))];
    let flows = flows(8, &seen);
    let mut sync = Sync::new(8).expect("memory");
    let mut digests = Digests::new(8, Variant::Sound).expect("memory");
    sync.begin([SHARD].into_iter().collect(), Mirroring::default());
    let mut named = Vec::new();
    let mut out = [0; RECORD_MAX];
    for _ in 0..40 {
        if let Some((_, sent)) = sync.write_walked(now, &flows, &mut digests, &mut out) {
            named.push(sent.named);
            sync.settle(sent, Fate::Applied, &flows);
        }
    }
    let places: Vec<u32> = named
        .iter()
        .filter_map(|named| match named {
            Named::Flow { flow, .. } => Some(*flow),
            _ => None,
        })
        .collect();
    // The last one was never seen.
    assert_eq!(places, [2, 4, 6, 1, 5, 0, 3, 7]);
    assert!(sync.walk_done() && named.last() == Some(&Named::WalkEnd), "{named:?}");
    assert_eq!(digests.of(SHARD).flows, 8);
    // Once more, as when a digest differed.
    sync.walk.again(SHARD);
    let mut again = 0;
    for _ in 0..40 {
        if let Some((_, sent)) = sync.write_walked(now, &flows, &mut digests, &mut out) {
            again += usize::from(matches!(sent.named, Named::Flow { .. }));
            sync.settle(sent, Fate::Applied, &flows);
        }
    }
    assert!(again == 8 && sync.walk_done(), "{again}");
}

/// The end would have the peer remove what was not looked at.
#[test]
fn a_walk_goes_on_behind_more_places_than_one_call_looks_at_though_they_have_nothing_to_name() {
    let count = PLACES_PER_CALL + 10;
    let flows = flows(count, &[]);
    let mut sync = Sync::new(count).expect("memory");
    let mut digests = Digests::new(count, Variant::Sound).expect("memory");
    sync.begin([SHARD].into_iter().collect(), Mirroring::default());
    for place in 0..PLACES_PER_CALL {
        sync.flow_settled(SHARD, place, Some(0), Fate::Applied, Instant::ZERO);
    }
    let (mut named, mut out) = (Vec::new(), [0; RECORD_MAX]);
    for _ in 0..100 {
        if let Some((_, sent)) = sync.write_walked(Instant::ZERO, &flows, &mut digests, &mut out) {
            if let Named::Flow { flow, .. } = sent.named {
                named.push(flow);
            }
            sync.settle(sent, Fate::Applied, &flows);
        }
    }
    assert!(sync.walk_done() && named == Vec::from_iter(PLACES_PER_CALL..count), "{named:?}");
}

#[test]
fn changes_that_find_the_queue_full_are_said_all_the_same_and_no_shard_is_settled_before() {
    let count = DIRTY_MAX as u32 + 10;
    let flows = flows(count, &[]);
    let mut sync = Sync::new(count).expect("memory");
    let mut digests = Digests::new(count, Variant::Sound).expect("memory");
    let (tombstones, mut out) = (Tombstones::default(), [0; RECORD_MAX]);
    sync.shards.set(SHARD, true);
    (0..count).for_each(|place| sync.changed(Instant::from_millis(5), SHARD, FlowIndex(place)));
    assert_eq!((sync.waiting(), sync.queued().0), (count as usize, DIRTY_MAX));
    let mut said = 0;
    // One call looks for them in some of the places.
    for _ in 0..count / PLACES_PER_CALL + 2 {
        while let Some((_, sent)) = sync.write_next(&flows, &tombstones, &mut digests, &mut out) {
            said += 1;
            sync.settle(sent, Fate::Applied, &flows);
            assert_eq!(sync.is_settled(SHARD), said == count, "{said}");
        }
    }
    assert_eq!((said, sync.known(), sync.oldest_since()), (count, count.into(), None));
}

/// A flow changes, and that is written; what came of it is up to the caller.
fn change(sync: &mut Sync, flows: &mut Flows, place: u32, out: &mut [u8]) -> Sent {
    let version = flows.next_version(SHARD);
    flows.table.update(FlowIndex(place), |flow| flow.changed.version = version);
    sync.changed(Instant::ZERO, SHARD, FlowIndex(place));
    next(sync, flows, out)
}

fn next(sync: &mut Sync, flows: &Flows, out: &mut [u8]) -> Sent {
    let mut digests = Digests::new(8, Variant::Sound).expect("memory");
    let tombstones = Tombstones::default();
    sync.write_next(flows, &tombstones, &mut digests, out).expect("a record").1
}

fn is_in_full(sent: &Sent) -> bool {
    matches!(sent.named, Named::Flow { in_full: Some(_), .. })
}

/// One flow, of which the peer knows the handle.
fn known(out: &mut [u8]) -> (Sync, Flows) {
    let mut flows = flows(1, &[]);
    let mut sync = Sync::new(8).expect("memory");
    sync.shards.set(SHARD, true);
    let first = change(&mut sync, &mut flows, 0, out);
    let settled = sync.settle(first, Fate::Applied, &flows);
    assert!(is_in_full(&first) && matches!(settled, Settled::Known { .. }));
    (sync, flows)
}

#[test]
fn a_flow_goes_by_its_handle_once_that_is_known_and_in_full_when_the_peer_refuses_it() {
    let mut out = [0; RECORD_MAX];
    let (mut sync, mut flows) = known(&mut out);
    let sent = [(); 2].map(|()| change(&mut sync, &mut flows, 0, &mut out));
    assert!(!sent.iter().any(is_in_full));
    // Both are refused: that is the handle's fault, not the flow's.
    for sent in sent {
        assert_eq!(sync.settle(sent, Fate::Refused, &flows), Settled::Nothing);
    }
    assert_eq!((sync.refused(), sync.waiting(), sync.is_settled(SHARD)), (0, 1, false));
    let again = next(&mut sync, &flows, &mut out);
    assert!(is_in_full(&again));
    assert!(matches!(sync.settle(again, Fate::Refused, &flows), Settled::Refused { .. }));
    assert_eq!(sync.refused(), 1);
    // Another beginning: nothing is known of what the peer has.
    let (mut sync, mut flows) = known(&mut out);
    sync.restart();
    assert!(is_in_full(&change(&mut sync, &mut flows, 0, &mut out)));
    // Of another term than the frame's.
    let (mut sync, flows) = known(&mut out);
    sync.changed(Instant::ZERO, SHARD, FlowIndex(0));
    sync.said.begin(Term { counter: 1, node: NodeId(1) });
    let mut digests = Digests::new(8, Variant::Sound).expect("memory");
    let said = sync.write_next(&flows, &Tombstones::default(), &mut digests, &mut out);
    assert!(is_in_full(&said.expect("a record").1));
}

#[test]
fn an_end_goes_by_the_handle_and_in_full_when_it_was_lost_or_refused() {
    let mut out = [0; RECORD_MAX];
    for fate in [Fate::Lost, Fate::Refused] {
        let (mut sync, mut flows) = known(&mut out);
        let flow = flows.table.remove(FlowIndex(0)).expect("the flow");
        let [client, answers] = [flow.client, flow.server].map(|key| flows.table.imager().of(&key));
        let stamp = Stamp { version: flows.next_version(SHARD), ..flow.changed };
        let resting = RestingPlace::NONE;
        let mut tombstones = Tombstones::default();
        let departed = Departed { client, answers, stamp, resting, shard: SHARD, waiting: 1 };
        let Buried::At(place) = tombstones.bury(departed, &flow.client) else { panic!("there is room") };
        sync.ended(Instant::ZERO, SHARD, FlowIndex(0), flow.created, Some(place));
        let mut digests = Digests::new(8, Variant::Sound).expect("memory");
        let mut say = |sync: &mut Sync| {
            let (len, sent) = sync.write_next(&flows, &tombstones, &mut digests, &mut out)?;
            Some((record::read(&out[..len], &mut Said::new(Term::NONE)), sent))
        };
        let (said, sent) = say(&mut sync).expect("the end");
        let handle = Handle::new(FlowIndex(0), SHARD, flow.created);
        let end = Record::End { handle, version: stamp.version };
        assert_eq!(said.map(|said| said.0), Ok(Parsed::Record(end)));
        assert_eq!(sync.settle(sent, fate, &flows), Settled::Nothing);
        let (said, sent) = say(&mut sync).expect("the end again");
        let delete = Record::Delete { shard: SHARD, stamp, client: flow.client };
        assert_eq!(said.map(|said| said.0), Ok(Parsed::Record(delete)));
        assert_eq!(sync.settle(sent, Fate::Applied, &flows), Settled::Ended { tombstone: place });
    }
}

/// Bug: a change by handle was acknowledged, so the walk ended without having named the flow, and the peer removed it.
#[test]
fn a_walk_over_flows_that_are_known_does_not_end_before_each_was_named_in_full() {
    let mut out = [0; RECORD_MAX];
    let (mut sync, mut flows) = known(&mut out);
    let mut digests = Digests::new(8, Variant::Sound).expect("memory");
    let mut walk = |sync: &mut Sync, flows: &Flows| {
        let said = sync.write_walked(Instant::ZERO, flows, &mut digests, &mut [0; RECORD_MAX]);
        said.map(|said| said.1)
    };
    let before = change(&mut sync, &mut flows, 0, &mut out);
    sync.walk.again(SHARD);
    let begin = walk(&mut sync, &flows).expect("a begin");
    // In full, and before the peer knew that the walk begins again.
    let round = Some(sync.walk.round());
    sync.settle(begin, Fate::Applied, &flows);
    let named = walk(&mut sync, &flows).expect("the flow");
    assert!(!is_in_full(&before) && is_in_full(&named));
    sync.settle(before, Fate::Applied, &flows);
    sync.flow_settled(SHARD, 0, round, Fate::Applied, Instant::ZERO);
    sync.flow_settled(SHARD, 0, None, Fate::Refused, Instant::ZERO);
    assert!(is_in_full(&next(&mut sync, &flows, &mut out)));
    assert_eq!(walk(&mut sync, &flows), None, "the walk's own record is on its way");
    sync.settle(named, Fate::Lost, &flows);
    let again = next(&mut sync, &flows, &mut out);
    assert!(is_in_full(&again) && walk(&mut sync, &flows).is_none());
    sync.settle(again, Fate::Applied, &flows);
    assert_eq!(walk(&mut sync, &flows).map(|sent| sent.named), Some(Named::WalkEnd));
    assert!(!is_in_full(&change(&mut sync, &mut flows, 0, &mut out)));
}

/// It leads, and its peer is to be told of all of these.
fn leader(flows: &Flows) -> Mirror {
    let member = |number| MemberInfo { workers: 1, mirroring: Mirroring::default(), ..member(number) };
    let mut mirror = Mirror::new(MirrorSetup {
        worker: WorkerId(0),
        workers: 1,
        group: GroupId(0),
        boot: BootId(1),
        capacity: 200,
        peers: vec![NodeId(2)],
        walk_rate: 1_000_000,
        maintenance_every: None,
        variant: Variant::Sound,
    })
    .expect("memory");
    mirror.set_standing(Standing { leads: true, term: Term { counter: 1, node: NodeId(1) } });
    let (session, _) = Session::agree_in_memory(member(1), member(2)).expect("entropy");
    mirror.open_session(NodeId(2), &session, flows);
    mirror
}

/// However much changes, a walk goes on; and of what changes, most goes first.
#[test]
fn a_frame_full_of_changes_has_room_for_a_walk() {
    let now = Instant::from_millis(500);
    let seen: Vec<_> = (0..100).map(|place| (place, now)).collect();
    let flows = flows(200, &seen);
    let mut mirror = leader(&flows);
    (100..200).for_each(|place| mirror.flow_changed(now, SHARD, FlowIndex(place), true, &flows.table));
    mirror.refill(now);
    let mut out = [0; 1500];
    mirror.write_frame(now, &flows, true, &mut out).expect("a frame");
    let is_walked = |named: &Named| matches!(named, Named::Flow { flow: 0..100, .. });
    let is_change = |named: &Named| matches!(named, Named::Flow { flow: 100..200, .. });
    let in_flight = &mirror.peers[0].streams[0].in_flight;
    assert!(in_flight.has(is_walked) && in_flight.has(is_change));
    assert!(in_flight.walks() && !Header::says_that_it_walks(&out), "packets may wait for what is in it");
    let waiting = mirror.peers[0].streams[0].sync.waiting();
    assert!((46..=54).contains(&waiting), "{waiting} of 100 changes still wait");
}

/// However much is new, and however few frames the peer takes.
#[test]
fn one_frame_on_its_way_is_left_to_a_walk() {
    let now = Instant::from_millis(500);
    let seen: Vec<_> = (0..100).map(|place| (place, now)).collect();
    let flows = flows(200, &seen);
    for credit in [2, 3, 5] {
        let mut mirror = leader(&flows);
        mirror.peers[0].streams[0].credit = credit;
        mirror.refill(now);
        let mut out = [0; 1500];
        let mut write = |mirror: &mut Mirror, may_walk| {
            let one = |_| {
                (100..200).for_each(|place| {
                    mirror.flow_changed(now, SHARD, FlowIndex(place), true, &flows.table);
                });
                mirror.write_frame(now, &flows, may_walk, &mut out)
            };
            (0..10).map_while(one).count()
        };
        assert_eq!(write(&mut mirror, false), usize::from(credit) - 1, "what is new takes all but one");
        assert!(!mirror.is_due(now, false) && mirror.is_due(now, true));
        assert_eq!(write(&mut mirror, true), 1);
        assert!(mirror.peers[0].streams[0].in_flight.walks());
    }
}

/// What is new does not wait behind all of a walk.
#[test]
fn of_a_walk_few_frames_are_on_their_way_at_first_and_no_more_than_half_of_what_the_peer_takes() {
    let now = Instant::from_millis(500);
    let seen: Vec<_> = (0..200).map(|place| (place, now)).collect();
    let flows = flows(200, &seen);
    let few = leader(&flows).peers[0].streams[0].in_flight.walk_room(256);
    assert!((2..8).contains(&few), "the flows are nine frames");
    for (credit, frames) in [(256, few), (2, 1), (1, 1)] {
        let mut mirror = leader(&flows);
        mirror.peers[0].streams[0].credit = credit;
        mirror.refill(now);
        let mut out = [0; 1500];
        let mut turn = || {
            mirror.peers[0].streams[0].walked_in_turn = false;
            core::iter::from_fn(|| mirror.write_frame(now, &flows, true, &mut out)).count()
        };
        let written: Vec<usize> =
            core::iter::from_fn(|| Some(turn()).filter(|written| *written > 0)).collect();
        assert_eq!(written, vec![1; frames], "of {credit}, one a turn");
    }
}

/// A question was asked, and something else said of the shard went before it: the peer compared nothing.
#[test]
fn where_not_all_is_acknowledged_an_answer_counts_only_if_nothing_was_said_since_not_even_again() {
    for says_again in [false, true] {
        let mut out = [0; RECORD_MAX];
        let (mut sync, mut flows) = known(&mut out);
        sync.maintain(Some(Duration::from_secs(1)));
        let newest = change(&mut sync, &mut flows, 0, &mut out);
        sync.settle(newest, Fate::Applied, &flows);
        sync.asking.ask(SHARD);
        let (version, said) = (flows.version(SHARD), sync.said_of[0]);
        if says_again {
            sync.changed(Instant::ZERO, SHARD, FlowIndex(0));
            next(&mut sync, &flows, &mut out);
        }
        sync.answered(SHARD, (Instant::ZERO, version), said, Fate::Applied, &flows);
        assert_eq!(sync.agreed(SHARD) == version, !says_again);
    }
}

/// Of 3000 flows the peer tracks two.
#[test]
fn a_walk_looks_at_few_flows_in_vain_in_one_call() {
    let mut flows = flows(3000, &[]);
    for place in [1500, 2900] {
        flows.table.update(FlowIndex(place), |flow| flow.virtual_server = VirtualServerId(7));
    }
    let mut sync = Sync::new(3000).expect("memory");
    let mut digests = Digests::new(3000, Variant::Sound).expect("memory");
    let tracked = Tracked::only(&[VirtualServerId(7)]).expect("few enough");
    digests.track(&[tracked]);
    sync.begin([SHARD].into_iter().collect(), Mirroring { tracked, ..Mirroring::default() });
    let (mut now, mut out) = (Instant::from_millis(9), [0; RECORD_MAX]);
    let (mut calls, mut in_vain, mut named) = (0, 0, Vec::new());
    while !sync.walk_done() && calls < 1000 {
        calls += 1;
        if let Some((_, sent)) = sync.write_walked(now, &flows, &mut digests, &mut out) {
            named.extend(Some(sent.named).filter(|named| matches!(named, Named::Flow { .. })));
            sync.settle(sent, Fate::Applied, &flows);
        } else if !sync.walk_done() {
            in_vain += usize::from(!sync.has_walk_to_send(now));
            now += Duration::from_micros(1);
            assert!(sync.has_walk_to_send(now), "in the next turn it is asked again");
        }
    }
    // Nobody saw any of them, so only the last turn of the walk looks at them.
    let calls_in_vain = 2998 / 128;
    assert!((calls_in_vain..calls_in_vain + 10).contains(&calls), "{calls} calls");
    assert!((20..=2998 / 128).contains(&in_vain), "{in_vain} times it is not asked again in the same turn");
    assert_eq!(named.len(), 2, "{named:?}");
    assert_eq!(digests.of_tracked(&tracked, SHARD), Some(digests.of(SHARD)));
    assert_eq!(digests.of(SHARD).flows, 2);
}
