//! Bytes, to the parsers of what members and the witness send each other; but for the words of services, which are read
//! behind their seal only (`src/failover/services.rs` has tests of its own). What is understood is written and understood
//! again alike.

use baton::base::ids::{BootId, NodeId, Term};
use baton::base::time::Instant;
use baton::failover::heartbeat::{self, Beat};
use baton::failover::witness::words::{Answer, Request, decode_report};
use baton::mirror::header::{self, Header};
use baton::mirror::record::{self, Parsed, RECORD_MAX};
use baton::mirror::said::Said;
use baton::seal::{Handshake, Key};

use crate::side::{member, node};

/// The first byte says what the others are.
pub fn run(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 4 {
        0 => records(bytes),
        1 => header(bytes),
        2 => liveness(bytes),
        _ => witness(bytes),
    }
}

fn records(mut bytes: &[u8]) {
    let term = Term { counter: 7, node: NodeId(1) };
    // What the frame has said, and the same as it would be written: that may be shorter.
    let [mut said, mut written_said, mut reread_said] = [(); 3].map(|()| Said::new(term));
    while let Ok((parsed, len)) = record::read(bytes, &mut said) {
        assert!(len >= record::HEADER_LEN && len <= bytes.len(), "{len} of {} bytes", bytes.len());
        if let Parsed::Record(record) = parsed {
            let mut again = [0; RECORD_MAX];
            let written = record::write(&record, &mut written_said, &mut again).expect("no record is longer");
            let (reread, _) = record::read(&again[..written], &mut reread_said).expect("it is whole");
            assert_eq!(reread, parsed);
        }
        bytes = &bytes[len..];
    }
}

fn header(bytes: &[u8]) {
    if let Some(header) = Header::read(bytes) {
        let mut again = [0; header::HEADER_LEN];
        header.write(&mut again);
        assert_eq!(Header::read(&again), Some(header));
    }
}

fn liveness(bytes: &[u8]) {
    let _ = heartbeat::source(bytes);
    let mut frame = bytes.to_vec();
    if let Some(mut envelope) = heartbeat::parse(&mut frame) {
        let _ = (envelope.message().len(), envelope.beat_of());
        let _ = envelope.beat_parts();
        let _ = envelope.word_parts();
    }
    if let Some(beat) = Beat::decode(bytes) {
        assert_eq!(Beat::decode(&beat.encode()), Some(beat));
    }
    let key = Key::generate().expect("entropy");
    let mut handshake = Handshake::new(&key, member(0, BootId(1)), node(1));
    let _ = handshake.handle_hello(Instant::ZERO, bytes);
    let _ = handshake.poll(Instant::ZERO, true);
    let _ = handshake.handle_answer(bytes);
}

fn witness(bytes: &[u8]) {
    if let Some(request) = Request::decode(bytes) {
        assert_eq!(Request::decode(&request.encode()), Some(request));
    }
    if let Some(answer) = Answer::decode(bytes) {
        assert_eq!(Answer::decode(&answer.encode()), Some(answer));
    }
    let _ = decode_report(bytes);
}
