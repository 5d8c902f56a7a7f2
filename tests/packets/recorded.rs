//! Mirror frames of version 3 as they were recorded, opened: a header and its records. A later version has to read them, or must
//! have another number.
//!
//! One line for each frame: its name, and its bytes in hexadecimal digits. They are never written anew: a change of the format
//! is a new version with a file of its own. Of version 2 this one reads none.

use std::fmt::Write;

use baton::base::ids::{BootId, GroupId, NodeId, PoolId, ServerId, ShardId, Term, Version, VirtualServerId};
use baton::flow::key::{Address, Key, TCP, UDP};
use baton::flow::shard::ShardSet;
use baton::flow::{Stamp, TcpState};
use baton::mirror::digest::Digest;
use baton::mirror::handle::Handle;
use baton::mirror::header::{self, Acknowledgement, Header};
use baton::mirror::record::{self, FlowState, Parsed, Record, Refusal};
use baton::mirror::said::Said;

const RECORDED: &str = include_str!("recorded/version-3.txt");
const OLDER: &str = include_str!("recorded/version-2.txt");

/// What a frame says.
struct Frame {
    name: &'static str,
    header: Header,
    records: Vec<Parsed>,
}

fn header(sequence: u64, elicits: bool) -> Header {
    let mut acknowledgement = Acknowledgement::default();
    [40, 200, 201, 203, 300].into_iter().for_each(|sequence| acknowledgement.note(sequence));
    Header {
        elicits,
        walks: false,
        group: GroupId(3),
        boot: BootId(0x1122_3344_5566_7788),
        stream: 2 * 32 + 1,
        sequence,
        term: Term { counter: 0x0102_0304_0506, node: NodeId(7) },
        walk: 9,
        acknowledgement,
        credit: 200,
        generation: 0x0a0b_0c0d,
    }
}

fn stamp(version: u64) -> Stamp {
    Stamp { term: Term { counter: 0x0102_0304_0506, node: NodeId(7) }, version: Version(version) }
}

fn v4() -> FlowState {
    let client = Key {
        src: Address::v4([192, 0, 2, 1]),
        dst: Address::v4([192, 0, 2, 100]),
        src_port: 50_000,
        dst_port: 443,
        vlan: 12,
        protocol: TCP,
    };
    let (src, dst) = (Address::v4([198, 51, 100, 10]), Address::v4([198, 51, 100, 1]));
    FlowState {
        stamp: stamp(0x0a0b_0c0d_0e0f),
        client,
        server: Key { src, dst, src_port: 8443, dst_port: 1025, vlan: 0, ..client },
        virtual_server: VirtualServerId(0x2122_2324),
        pool: PoolId(0x3132_3334),
        server_id: ServerId(0x4142_4344),
        tcp: TcpState::Established,
        full_nat: true,
        chosen: false,
    }
}

/// Between an IPv6 client and an IPv4 server.
fn mixed() -> FlowState {
    let v6 = |last| {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        octets[15] = last;
        Address::v6(octets)
    };
    let client = Key { src: v6(1), dst: v6(2), vlan: 0, protocol: UDP, ..v4().client };
    let server = Key { protocol: UDP, ..v4().server };
    FlowState { client, server, tcp: TcpState::Datagram, full_nat: false, ..v4() }
}

/// As it began: its handle's generation is in its version.
fn another() -> FlowState {
    let flow = v4();
    let client = Key { src_port: 50_002, ..flow.client };
    FlowState { stamp: stamp(0x0c_0d0e_beef), client, server: Key { dst_port: 1026, ..flow.server }, ..flow }
}

/// Of an earlier term, and answered directly.
fn older() -> FlowState {
    let flow = v4();
    let client = Key { src_port: 50_001, ..flow.client };
    let server = Key { dst: client.src, dst_port: client.src_port, ..flow.server };
    let term = Term { counter: 0x0102_0304_0505, node: NodeId(9) };
    FlowState { stamp: Stamp { term, version: Version(0x0c_0d0e_0f10) }, client, server, ..flow }
}

fn shards(shards: &[u16]) -> ShardSet {
    shards.iter().map(|shard| ShardId(*shard)).collect()
}

fn said() -> Vec<Frame> {
    let handle = Handle { place: 0x0678_9abc, shard: ShardId(200), generation: 0xbeef };
    let records = |records: &[Record]| records.iter().copied().map(Parsed::Record).collect();
    vec![
        Frame { name: "an-acknowledgement", header: header(0, false), records: Vec::new() },
        Frame {
            name: "flows-in-full",
            header: header(1, true),
            records: records(&[
                Record::Upsert { shard: ShardId(200), flow: v4(), handle },
                Record::Upsert { shard: ShardId(200), flow: mixed(), handle },
            ]),
        },
        Frame {
            name: "by-handle-and-by-key",
            header: header(2, true),
            records: records(&[
                Record::Update { handle, version: Version(0x0a0b_0c0d_0e10), tcp: TcpState::Closing },
                Record::End { handle, version: Version(0x0a0b_0c0d_0e11) },
                Record::Delete { shard: ShardId(200), stamp: stamp(18), client: v4().client },
                Record::Delete { shard: ShardId(0), stamp: stamp(19), client: mixed().client },
            ]),
        },
        Frame {
            name: "a-walk-and-questions",
            header: header(u64::MAX >> 1, true),
            records: records(&[
                Record::WalkBegin { shards: shards(&[0, 255]) },
                Record::WalkEnd { shards: shards(&[1, 64, 200]) },
                Record::Floor { sequence: 0x0102_0304_0506_0708 },
                Record::Digest {
                    shard: ShardId(255),
                    digest: Digest { sum: 0xfedc_ba98_7654_3210, flows: 77 },
                },
            ]),
        },
        Frame {
            name: "refusals",
            header: header(3, false),
            records: [
                Refusal::TableFull,
                Refusal::Inconsistent,
                Refusal::UnknownService,
                Refusal::UnknownRecord,
                Refusal::Differs,
                Refusal::UnknownHandle,
            ]
            .map(|reason| Parsed::Record(Record::Refused { sequence: 5, which: 1 << 63 | 5, reason }))
            .to_vec(),
        },
        Frame {
            name: "flows-that-an-operator-chose",
            header: header(4, true),
            records: [v4(), mixed()]
                .map(|flow| FlowState { chosen: true, ..flow })
                .map(|flow| Parsed::Record(Record::Upsert { shard: ShardId(200), flow, handle }))
                .to_vec(),
        },
        Frame {
            name: "flows-with-much-in-common",
            header: header(6, true),
            records: records(&[
                Record::Upsert { shard: ShardId(200), flow: another(), handle },
                Record::Upsert { shard: ShardId(200), flow: older(), handle },
                Record::Upsert { shard: ShardId(200), flow: another(), handle },
                Record::Upsert { shard: ShardId(200), flow: older(), handle },
                Record::Update { handle, version: Version(0x0b_0c0d_0e10), tcp: TcpState::Closing },
                Record::End { handle, version: Version(0x0b_0c0d_0e11) },
            ]),
        },
        Frame {
            name: "checkpoints-that-nobody-acknowledges",
            header: header(7, false),
            records: records(&[
                Record::Update { handle, version: Version(0x0b_0c0d_0e10), tcp: TcpState::Closing },
                Record::Unbound { handle },
            ]),
        },
        Frame {
            name: "a-frame-of-a-walk",
            header: Header { walks: true, ..header(8, true) },
            records: records(&[Record::Upsert { shard: ShardId(200), flow: v4(), handle }]),
        },
    ]
}

fn written(said: &Frame) -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    let (head, body) = bytes.split_first_chunk_mut::<{ header::HEADER_LEN }>().expect("room");
    said.header.write(head);
    let (mut at, mut in_front) = (0, Said::new(said.header.term));
    for parsed in &said.records {
        let Parsed::Record(record) = parsed else { panic!("this version writes {parsed:?}") };
        at += record::write(record, &mut in_front, &mut body[at..]).expect("room");
    }
    bytes.truncate(header::HEADER_LEN + at);
    bytes
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

fn recorded(lines: &'static str) -> Vec<(&'static str, Vec<u8>)> {
    let line = |line: &'static str| {
        let (name, digits) = line.split_once(' ').expect("a name and bytes");
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
        (name, (0..digits.len()).step_by(2).map(byte).collect())
    };
    lines.lines().map(line).collect()
}

#[test]
fn recorded_frames_are_read_as_what_they_said_then() {
    let (recorded, said) = (recorded(RECORDED), said());
    let lines: Vec<String> =
        said.iter().map(|s| format!("{} {}", s.name, hexadecimal(&written(s)))).collect();
    assert_eq!(recorded.len(), said.len(), "this version writes:\n{}", lines.join("\n"));
    for ((name, bytes), said) in recorded.iter().zip(&said) {
        assert_eq!(*name, said.name);
        assert_eq!(Header::read(bytes), Some(said.header), "{name}");
        let (mut at, mut records) = (header::HEADER_LEN, Vec::new());
        let mut in_front = Said::new(said.header.term);
        while at < bytes.len() {
            let (parsed, len) = record::read(&bytes[at..], &mut in_front).expect("whole records");
            records.push(parsed);
            at += len;
        }
        assert_eq!(records, said.records, "{name}");
    }
}

#[test]
fn this_version_writes_what_was_recorded() {
    assert_eq!(header::VERSION, 3, "another version has a file of its own, and this test goes by it");
    for ((name, bytes), said) in recorded(RECORDED).iter().zip(&said()) {
        assert_eq!(hexadecimal(bytes), hexadecimal(&written(said)), "{name}");
    }
}

/// Whatever is cut off or changed of them, nothing panics, and reading comes to an end.
#[test]
fn recorded_frames_that_are_damaged_are_read_without_a_panic() {
    for (_, bytes) in recorded(RECORDED) {
        for at in 0..bytes.len() {
            for damaged in
                [bytes[..at].to_vec(), [&bytes[..at], &[bytes[at] ^ 0xff], &bytes[at + 1..]].concat()]
            {
                let _ = Header::read(&damaged);
                let mut records = damaged.get(header::HEADER_LEN..).unwrap_or_default();
                let mut in_front = Said::new(Term::NONE);
                while let Ok((_, len)) = record::read(records, &mut in_front) {
                    records = &records[len..];
                }
                assert!(records.len() <= damaged.len());
            }
        }
    }
}

#[test]
fn recorded_frames_of_an_older_version_are_not_taken_for_frames_of_this_one() {
    let older = recorded(OLDER);
    assert_eq!(older.len(), 6);
    for (name, bytes) in older {
        assert_eq!(Header::read(&bytes), None, "{name}");
    }
}
