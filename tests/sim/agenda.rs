//! Virtual time: what is to happen, in order, and the one seed from which all chance comes.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use baton::base::rng::Rng;

/// Nanoseconds of virtual time.
pub type Nanos = u64;

pub const US: Nanos = 1_000;
pub const MS: Nanos = 1_000_000;

/// Something with a network port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Station {
    /// A port of an appliance, by place.
    Appliance { at: usize, port: usize },
    /// A host, by place.
    Host(usize),
}

/// What can happen. What belongs to one life of an appliance carries its number.
#[derive(Debug)]
pub enum Happening {
    /// A frame reaches the switch of a LAN.
    AtSwitch { lan: usize, from: Station, frame: Vec<u8> },
    /// A frame reaches a station.
    AtStation { to: Station, frame: Vec<u8> },
    /// An lcore has a turn.
    Turn { at: usize, life: u64, lcore: usize },
    /// A worker sends what it gathered: the lease is asked right before.
    Transmit { at: usize, life: u64, lcore: usize },
    /// The liveness thread wakes.
    Liveness { at: usize, life: u64 },
    /// The master thread wakes.
    Master { at: usize, life: u64 },
    /// The disk has written a reserved term.
    Durable { at: usize, life: u64, counter: u64 },
    /// A request of an appliance reaches the witness.
    AtWitness { at: usize, life: u64, mail: Vec<u8> },
    /// Its answer reaches the appliance's machine.
    Answered { at: usize, life: u64, mail: Vec<u8> },
    /// The process ends.
    Exit { at: usize, life: u64 },
    /// A host's timer.
    Host(usize),
    /// The next connection begins.
    Arrival,
    /// The operator has shards moved.
    Rebalance,
    /// The scenario goes on.
    Script,
    /// The checkers look.
    Look,
}

struct Entry {
    at: Nanos,
    order: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What is to happen.
pub struct Agenda {
    pub now: Nanos,
    pub rng: Rng,
    order: u64,
    entries: BinaryHeap<Reverse<Entry>>,
}

impl Agenda {
    pub fn new(seed: u64) -> Agenda {
        // Not zero: some rooms take the start of time for "never".
        Agenda { now: 1000 * MS, rng: Rng::with_seed(seed), order: 0, entries: BinaryHeap::new() }
    }

    /// Plans something for a point in time; what is in the past happens now.
    pub fn at(&mut self, at: Nanos, what: Happening) {
        self.order += 1;
        self.entries.push(Reverse(Entry { at: at.max(self.now), order: self.order, what }));
    }

    /// The next happening before `end`; time goes on to it.
    pub fn next(&mut self, end: Nanos) -> Option<Happening> {
        if self.entries.peek().is_none_or(|Reverse(entry)| entry.at >= end) {
            self.now = end;
            return None;
        }
        let Reverse(entry) = self.entries.pop()?;
        self.now = entry.at;
        Some(entry.what)
    }

    /// A span between `from` and `to`.
    pub fn span(&mut self, from: Nanos, to: Nanos) -> Nanos {
        self.rng.u64(from..=to)
    }

    /// True so many times in a million.
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.rng.u32(0..1_000_000) < per_million
    }
}
