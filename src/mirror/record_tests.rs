//! Records are read as they were written, and whatever else comes is read too.

use super::*;
use crate::base::rng::Rng;
use crate::flow::key::{TCP, UDP};
use crate::flow::layout::STAMP_MAX;

fn address(rng: &mut Rng, v6: bool) -> Address {
    if v6 { Address::v6([rng.u8(0x20..0x30); 16]) } else { Address::v4(rng.u32(..).to_be_bytes()) }
}

fn key(rng: &mut Rng, protocol: u8, vlan: u16) -> Key {
    let (src, dst) = (rng.bool(), rng.bool());
    Key {
        src: address(rng, src),
        dst: address(rng, dst),
        src_port: rng.u16(..),
        dst_port: rng.u16(..),
        protocol,
        vlan,
    }
}

fn records(rng: &mut Rng) -> [Record; 9] {
    let protocol = if rng.bool() { TCP } else { UDP };
    let term = Term { counter: rng.u64(0..=STAMP_MAX), node: NodeId(rng.u16(..)) };
    let stamp = Stamp { term, version: Version(rng.u64(0..=STAMP_MAX)) };
    let shard = ShardId(rng.u16(0..256));
    let vlan = rng.u16(0..4096);
    let client = key(rng, protocol, vlan);
    let flow = FlowState {
        stamp,
        client,
        server: key(rng, protocol, 0),
        virtual_server: VirtualServerId(rng.u32(..)),
        pool: PoolId(rng.u32(..)),
        server_id: ServerId(rng.u32(..)),
        tcp: TcpState::ALL[rng.usize(0..TcpState::ALL.len())],
        full_nat: rng.bool(),
        chosen: rng.bool(),
    };
    let reasons = [
        Refusal::TableFull,
        Refusal::Inconsistent,
        Refusal::UnknownService,
        Refusal::UnknownRecord,
        Refusal::Differs,
        Refusal::UnknownHandle,
    ];
    let handle = Handle { place: rng.u32(..PLACES_MAX), shard, generation: rng.u16(..) };
    let reason = reasons[rng.usize(0..reasons.len())];
    [
        Record::Upsert { shard, flow, handle },
        Record::Update { handle, version: stamp.version, tcp: flow.tcp },
        Record::End { handle, version: stamp.version },
        Record::Delete { shard, stamp, client },
        Record::WalkEnd { shards: [shard, ShardId(rng.u16(0..256))].into_iter().collect() },
        Record::WalkBegin { shards: [shard, ShardId(rng.u16(0..256))].into_iter().collect() },
        Record::Digest { shard, digest: Digest { sum: rng.u64(..), flows: rng.u32(..) } },
        Record::Floor { sequence: rng.u64(..) },
        Record::Refused { sequence: rng.u64(..), which: rng.u64(..), reason },
    ]
}

fn written(record: &Record) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_MAX];
    let len = write(record, &mut bytes).expect("room for the longest");
    bytes.truncate(len);
    bytes
}

#[test]
fn every_record_is_read_as_it_was_written_and_not_a_byte_more() {
    for seed in 0..500 {
        for record in records(&mut Rng::with_seed(seed)) {
            let mut bytes = written(&record);
            let len = bytes.len();
            bytes.extend([0xff; 9]);
            assert_eq!(read(&bytes), Ok((Parsed::Record(record), len)), "seed {seed}");
        }
    }
}

#[test]
fn a_record_without_room_is_not_written_and_one_cut_short_is_not_read() {
    for record in records(&mut Rng::with_seed(7)) {
        let bytes = written(&record);
        for len in 0..bytes.len() {
            assert_eq!(write(&record, &mut vec![0; len]), None, "{record:?} in {len} bytes");
            assert_eq!(read(&bytes[..len]), Err(Truncated), "{record:?} cut to {len} bytes");
        }
    }
}

#[test]
fn a_value_shorter_than_its_record_is_refused_and_a_longer_one_read() {
    for record in records(&mut Rng::with_seed(8)) {
        let mut bytes = written(&record);
        let len = bytes.len();
        bytes[2] -= 1;
        assert_eq!(read(&bytes), Ok((Parsed::Refused(Refusal::Inconsistent), len - 1)));
        // A later version adds to the end of a value.
        bytes[2] += 2;
        bytes.push(0);
        assert_eq!(read(&bytes), Ok((Parsed::Record(record), len + 1)));
    }
}

#[test]
fn an_unknown_record_is_skipped_unless_it_is_critical() {
    assert_eq!(read(&[0x05, 0, 2, 9, 9, 1]), Ok((Parsed::Skipped, 5)));
    assert_eq!(read(&[0x86, 0, 2, 9, 9, 1]), Ok((Parsed::Refused(Refusal::UnknownRecord), 5)));
    assert_eq!(read(&[0x05, 0, 3, 9, 9]), Err(Truncated));
}

#[test]
fn any_bytes_are_read_without_a_panic_and_reading_goes_on() {
    let mut rng = Rng::with_seed(9);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect();
        if bytes.len() > 3 && rng.bool() {
            let kinds = [UPSERT, DELETE, UPDATE, END, WALK_END, WALK_BEGIN, FLOOR, DIGEST, REFUSED];
            bytes[0] = kinds[rng.usize(0..kinds.len())];
            (bytes[1], bytes[2]) = (0, rng.u8(0..140));
        }
        let mut at = 0;
        while let Ok((_, len)) = read(&bytes[at..]) {
            assert!(len >= HEADER_LEN);
            at += len;
        }
        assert!(at <= bytes.len());
    }
}

/// The number above the highest place is counted with at the receiver.
#[test]
fn a_place_or_a_state_that_there_is_not_is_refused() {
    let refused = Ok(Parsed::Refused(Refusal::Inconsistent));
    let of = |bytes: &[u8]| read(bytes).map(|(parsed, _)| parsed);
    let [upsert, update, ..] = records(&mut Rng::with_seed(10));
    let Record::Upsert { shard, flow, handle } = upsert else { panic!("the first is an upsert") };
    for (place, is_good) in [(PLACES_MAX - 1, true), (PLACES_MAX, false), (u32::MAX, false)] {
        let record = Record::Upsert { shard, flow, handle: Handle { place, ..handle } };
        assert_eq!(of(&written(&record)) != refused, is_good, "{place:#x}");
    }
    let Record::Update { handle, version, .. } = update else { panic!("the second is an update") };
    let in_state = |tcp| {
        let flow = FlowState { tcp, ..flow };
        [Record::Upsert { shard, flow, handle }, Record::Update { handle, version, tcp }]
    };
    // The state's byte is the one that differs.
    for (one, other) in in_state(TcpState::Closed).iter().zip(&in_state(TcpState::Established)) {
        let (mut bytes, others) = (written(one), written(other));
        let at = bytes.iter().zip(&others).position(|(one, other)| one != other).expect("a state");
        bytes[at] |= 0xf0;
        assert_eq!(of(&bytes), refused, "{one:?}");
    }
}
