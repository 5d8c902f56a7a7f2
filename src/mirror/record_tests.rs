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

fn records(rng: &mut Rng) -> [Record; 10] {
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
        Record::Unbound { handle },
    ]
}

/// The first record of a frame.
fn written(record: &Record) -> Vec<u8> {
    behind(&mut nothing_said(), record)
}

fn nothing_said() -> Said {
    Said::new(Term::NONE)
}

/// A record behind others.
fn behind(said: &mut Said, record: &Record) -> Vec<u8> {
    let mut bytes = vec![0; RECORD_MAX];
    let len = write(record, said, &mut bytes).expect("room for the longest");
    bytes.truncate(len);
    bytes
}

fn read_first(bytes: &[u8]) -> Result<(Parsed, usize), Truncated> {
    read(bytes, &mut nothing_said())
}

#[test]
fn every_record_is_read_as_it_was_written_and_not_a_byte_more() {
    for seed in 0..500 {
        for record in records(&mut Rng::with_seed(seed)) {
            let mut bytes = written(&record);
            let len = bytes.len();
            bytes.extend([0xff; 9]);
            assert_eq!(read_first(&bytes), Ok((Parsed::Record(record), len)), "seed {seed}");
        }
    }
}

#[test]
fn a_record_without_room_is_not_written_and_one_cut_short_is_not_read() {
    for record in records(&mut Rng::with_seed(7)) {
        let bytes = written(&record);
        for len in 0..bytes.len() {
            let said = &mut nothing_said();
            assert_eq!(write(&record, said, &mut vec![0; len]), None, "{record:?} in {len} bytes");
            assert_eq!(read_first(&bytes[..len]), Err(Truncated), "{record:?} cut to {len} bytes");
            // What had no room was not said: with room, the same is written.
            assert_eq!(behind(said, &record), bytes);
        }
    }
}

#[test]
fn a_value_shorter_than_its_record_is_refused_and_a_longer_one_read() {
    for record in records(&mut Rng::with_seed(8)) {
        let mut bytes = written(&record);
        if bytes[0] & COMPACT != 0 {
            continue;
        }
        let len = bytes.len();
        bytes[2] -= 1;
        assert_eq!(read_first(&bytes), Ok((Parsed::Refused(Refusal::Inconsistent), len - 1)));
        // A later version adds to the end of a value.
        bytes[2] += 2;
        bytes.push(0);
        assert_eq!(read_first(&bytes), Ok((Parsed::Record(record), len + 1)));
    }
}

#[test]
fn an_unknown_record_is_skipped_unless_it_is_critical() {
    assert_eq!(read_first(&[0x05, 0, 2, 9, 9, 1]), Ok((Parsed::Skipped, 5)));
    assert_eq!(read_first(&[0x86, 0, 2, 9, 9, 1]), Ok((Parsed::Refused(Refusal::UnknownRecord), 5)));
    assert_eq!(read_first(&[0x05, 0, 3, 9, 9]), Err(Truncated));
    // What were upserts, updates and ends.
    for kind in [0x81, 0x88, 0x89] {
        assert_eq!(read_first(&[kind, 0, 1, 9]), Ok((Parsed::Refused(Refusal::UnknownRecord), 4)));
    }
}

#[test]
fn any_bytes_are_read_without_a_panic_and_reading_goes_on() {
    let mut rng = Rng::with_seed(9);
    for _ in 0..20_000 {
        let mut bytes: Vec<u8> = (0..rng.usize(0..200)).map(|_| rng.u8(..)).collect();
        if bytes.len() > 3 && rng.bool() {
            let kinds =
                [UPSERT, DELETE, UPDATE, UPDATE_LONG, END, WALK_END, WALK_BEGIN, FLOOR, DIGEST, REFUSED];
            bytes[0] = kinds[rng.usize(0..kinds.len())];
            (bytes[1], bytes[2]) = (0, rng.u8(0..140));
        }
        let (mut at, mut said) = (0, nothing_said());
        while let Ok((_, len)) = read(&bytes[at..], &mut said) {
            assert!(len >= HEADER_LEN);
            at += len;
        }
        assert!(at <= bytes.len());
    }
}

#[test]
fn a_state_that_there_is_not_is_refused() {
    let refused = Ok(Parsed::Refused(Refusal::Inconsistent));
    let of = |bytes: &[u8]| read_first(bytes).map(|(parsed, _)| parsed);
    let [upsert, update, ..] = records(&mut Rng::with_seed(10));
    let Record::Upsert { shard, flow, .. } = upsert else { panic!("the first is an upsert") };
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

#[test]
fn a_compact_record_of_an_unknown_type_ends_the_frame() {
    let known = [UPSERT, UPDATE, UPDATE_LONG, END, END_LONG];
    for kind in (0..=u8::MAX).filter(|kind| kind & COMPACT != 0 && !known.contains(kind)) {
        assert_eq!(read_first(&[[kind].as_slice(), &[0; 200]].concat()), Err(Truncated), "{kind:#x}");
    }
}

/// A flow of one of few services, and of one of few servers.
fn of_few(rng: &mut Rng) -> Record {
    let [mut record, ..] = records(rng);
    let Record::Upsert { flow, handle, .. } = &mut record else { panic!("the first is an upsert") };
    let (service, server) = (rng.u8(0..3), rng.u8(0..5));
    flow.virtual_server = VirtualServerId(u32::from(service));
    flow.pool = PoolId(u32::from(service) / 2);
    flow.client = Key {
        dst: Address::v4([192, 0, 2, service]),
        dst_port: 80,
        vlan: 0,
        protocol: if service == 0 { UDP } else { TCP },
        ..flow.client
    };
    flow.server_id = ServerId(u32::from(server));
    let src = if server == 0 { Address::v6([0x20; 16]) } else { Address::v4([10, 0, 0, server]) };
    flow.server = Key { src, src_port: 8080, protocol: flow.client.protocol, ..flow.server };
    match rng.u8(0..3) {
        0 => (flow.server.dst, flow.server.dst_port) = (flow.client.src, flow.client.src_port),
        1 => flow.stamp.term = Term { counter: 4, node: NodeId(1) },
        _ => handle.generation = flow.stamp.version.0 as u16,
    }
    record
}

#[test]
fn what_records_have_in_common_is_said_once_and_each_is_read_as_it_was_written() {
    let term = Term { counter: 4, node: NodeId(1) };
    let mut shortened = 0;
    for seed in 0..300 {
        let rng = &mut Rng::with_seed(seed);
        let (mut writing, mut reading) = (Said::new(term), Said::new(term));
        for _frame in 0..3 {
            writing.begin(term);
            reading.begin(term);
            for _ in 0..64 {
                let one = if rng.u8(..) < 200 { of_few(rng) } else { records(rng)[rng.usize(0..9)] };
                let bytes = behind(&mut writing, &one);
                let read = read(&bytes, &mut reading);
                assert_eq!(read, Ok((Parsed::Record(one), bytes.len())), "seed {seed}");
                shortened += usize::from(bytes.len() < written(&one).len());
            }
        }
    }
    assert!(shortened > 30_000, "{shortened}");
}

#[test]
fn what_a_frame_has_said_is_forgotten_with_it_and_what_it_has_not_said_is_refused() {
    let record = records(&mut Rng::with_seed(3))[0];
    let mut said = nothing_said();
    let (first, second) = (behind(&mut said, &record), behind(&mut said, &record));
    assert!(second.len() < first.len());
    let mut reading = nothing_said();
    assert_eq!(read(&first, &mut reading), Ok((Parsed::Record(record), first.len())));
    assert_eq!(read(&second, &mut reading), Ok((Parsed::Record(record), second.len())));
    reading.begin(Term::NONE);
    let refused = Ok((Parsed::Refused(Refusal::Inconsistent), second.len()));
    assert_eq!(read(&second, &mut reading), refused);
    said.begin(Term::NONE);
    assert_eq!(behind(&mut said, &record), first);
}

/// A record behind one that is refused must not be taken for one of what stood in the place before.
#[test]
fn what_a_refused_record_says_counts_for_those_behind_it() {
    let rng = &mut Rng::with_seed(11);
    let (one, mut other) = (records(rng)[0], records(rng)[0]);
    let mut writing = nothing_said();
    let [one_bytes, mut other_bytes] = [&one, &other].map(|record| behind(&mut writing, record));
    let again = behind(&mut writing, &other);
    // Both in one place, and the second with a state that there is not.
    let places = [one_bytes[2] & 0x3f, one_bytes[3] & 0x3f];
    (other_bytes[2], other_bytes[3]) = (other_bytes[2] & 0xc0 | places[0], other_bytes[3] & 0xc0 | places[1]);
    other_bytes[4] |= 0xf0;
    let again = [&again[..2], &places, &again[4..]].concat();
    let mut reading = nothing_said();
    let mut parsed = |bytes: &[u8]| read(bytes, &mut reading).map(|read| read.0);
    assert_eq!(parsed(&one_bytes), Ok(Parsed::Record(one)));
    assert_eq!(parsed(&other_bytes), Ok(Parsed::Refused(Refusal::Inconsistent)));
    assert_eq!(parsed(&again), Ok(Parsed::Record(other)));
    if let Record::Upsert { flow, .. } = &mut other {
        flow.virtual_server = VirtualServerId(flow.virtual_server.0 ^ 1);
    }
    assert_ne!(parsed(&again), Ok(Parsed::Record(other)));
}

#[test]
fn an_upsert_with_a_place_and_an_address_or_with_answers_twice_is_refused() {
    let record = records(&mut Rng::with_seed(3))[0];
    let mut said = nothing_said();
    let first = behind(&mut said, &record);
    let second = behind(&mut said, &record);
    for (at, bit) in [(2, 0x40), (3, 0x40)] {
        let mut reading = nothing_said();
        assert!(matches!(read(&first, &mut reading), Ok((Parsed::Record(_), _))));
        let mut damaged = second.clone();
        damaged[at] |= bit;
        let refused = Ok((Parsed::Refused(Refusal::Inconsistent), damaged.len()));
        assert_eq!(read(&damaged, &mut reading), refused);
    }
    // A term without its service: there are bytes for it, but it would be nobody's.
    let mut reading = nothing_said();
    assert!(matches!(read(&first, &mut reading), Ok((Parsed::Record(_), _))));
    let mut damaged = second.clone();
    assert_eq!(damaged[1] & 4, 0);
    damaged[1] |= 4;
    damaged.extend([0; 8]);
    assert_eq!(read(&damaged, &mut reading), Ok((Parsed::Refused(Refusal::Inconsistent), damaged.len())));
    let mut damaged = first;
    damaged[1] |= 0xc0;
    assert!(matches!(read_first(&damaged), Ok((Parsed::Refused(Refusal::Inconsistent), _))));
}
