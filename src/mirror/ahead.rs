//! The records of a frame are read before the first of them is applied, and memory that they will need is asked for: a standby's
//! tables are touched at random, and the waits for them overlap. That is no more than a hint: records are judged
//! afterwards.

use arrayvec::ArrayVec;

use crate::base::ids::Term;
use crate::flow::flows::Flows;
use crate::mirror::digest::Digests;
use crate::mirror::receiver::Received;
use crate::mirror::record::{self, Parsed, RECORDS_PER_FRAME_MAX, Record, Truncated};
use crate::mirror::said::Said;

/// The records of one frame at a time.
pub(super) struct Reading {
    said: Said,
    read: ArrayVec<Parsed, RECORDS_PER_FRAME_MAX>,
    /// Of those, how many were given out.
    given: usize,
    /// Bytes that were read.
    at: usize,
    is_cut_short: bool,
}

impl Reading {
    /// No frame.
    pub fn new() -> Reading {
        let said = Said::new(Term::NONE);
        Reading { said, read: ArrayVec::new(), given: 0, at: 0, is_cut_short: false }
    }

    /// Reads the records of `body`, of a frame of this term, as many as a sound peer writes; and asks for what they will
    /// touch of these tables, if they are to be applied.
    pub fn begin(&mut self, term: Term, body: &[u8], tables: Option<(&Received, &Flows, &Digests)>) {
        self.said.begin(term);
        (self.at, self.is_cut_short) = (0, false);
        self.read_on(body);
        if let Some((received, flows, digests)) = tables {
            self.ask(received, flows, digests);
        }
    }

    fn read_on(&mut self, body: &[u8]) {
        self.read.clear();
        self.given = 0;
        while self.at < body.len() && !self.read.is_full() {
            let Ok((parsed, len)) = record::read(&body[self.at..], &mut self.said) else {
                self.is_cut_short = true;
                return;
            };
            self.at += len;
            self.read.push(parsed);
        }
    }

    /// The next record of that body; an error: the rest of it is not a sequence of records.
    pub fn next(&mut self, body: &[u8]) -> Option<Result<&Parsed, Truncated>> {
        if self.given == self.read.len() && !self.is_cut_short && self.at < body.len() {
            self.read_on(body);
        }
        let given = self.given;
        self.given += 1;
        self.read.get(given).map(Ok).or_else(|| self.is_cut_short.then_some(Err(Truncated)))
    }

    /// Asks for what the records will touch: buckets of both keys and the line of the next place for a flow in full, all of a
    /// flow that goes by its handle.
    fn ask(&self, received: &Received, flows: &Flows, digests: &Digests) {
        let mut made = 0;
        for parsed in &self.read {
            let Parsed::Record(record) = parsed else { continue };
            match record {
                Record::Upsert { flow, handle, .. } => {
                    for image in [&flow.client, &flow.server].map(|key| flows.table.imager().of(key)) {
                        flows.table.prefetch(flows.table.spot(image));
                    }
                    received.prefetch(handle.place);
                    // It may be there already; then this one is asked for in vain.
                    let place = flows.table.prefetch_new(made);
                    digests.prefetch(place);
                    flows.last_seen.prefetch(place);
                    made += 1;
                }
                Record::Update { handle, .. } | Record::End { handle, .. } => received.prefetch(handle.place),
                Record::Delete { .. }
                | Record::WalkEnd { .. }
                | Record::WalkBegin { .. }
                | Record::Digest { .. }
                | Record::Floor { .. }
                | Record::Refused { .. }
                | Record::Unbound { .. } => {}
            }
        }
        for parsed in &self.read {
            let Parsed::Record(Record::Update { handle, .. } | Record::End { handle, .. }) = parsed else {
                continue;
            };
            let Some(place) = received.place_of(handle.place) else { continue };
            flows.table.prefetch_flow(place);
            flows.table.prefetch_tenant(place);
            digests.prefetch(place);
            flows.last_seen.prefetch(place);
        }
    }
}
