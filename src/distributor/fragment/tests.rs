//! Virtual reassembly against tables of cases, floods, and a reference that remembers every byte.

use std::collections::HashMap;

use super::*;
use crate::base::limits::FRAGMENTS_PER_DATAGRAM_MAX;
use crate::base::time::Duration;

/// A packet of the tests: who it is.
type Serial = usize;

const NOTHING: [Serial; 0] = [];

struct Bench {
    reassembly: Reassembly<Serial>,
    counters: Counters,
    now: Instant,
}

fn of_source(source: u32, identification: u32) -> Name {
    let fragment = Fragment { identification, offset: 0, len: 0, more: true, protocol: IpProtocol::UDP };
    Name::of(Address::v4(source.to_be_bytes()), Address::v4([10, 1, 0, 100]), 0, &fragment)
}

/// A fragment of 1,000 bytes of packet; a first one has the identification's lower half as source port.
fn arrival(name: Name, offset: u16, len: u16, more: bool) -> Arrival {
    let protocol = IpProtocol::UDP;
    let fragment = Fragment { identification: u32::from(name.low()), offset, len, more, protocol };
    Arrival { name, fragment, first: (offset == 0).then_some(((name.low(), 53), protocol)), len: 1000 }
}

impl Bench {
    fn new() -> Bench {
        let reassembly = Reassembly::new(WorkerId(0), 1, usize::MAX, 1, &mut Rng::with_seed(2));
        Bench { reassembly, counters: Counters::default(), now: Instant::from_millis(1000) }
    }

    /// What goes on, in order, when a fragment comes.
    fn came(&mut self, serial: Serial, arrival: Arrival) -> Vec<Serial> {
        let Some((packet, kinship)) = self.reassembly.handle(self.now, &arrival, serial, &self.counters)
        else {
            assert_eq!(self.reassembly.next_released(), None);
            return Vec::new();
        };
        assert_eq!(kinship.ports, (arrival.name.low(), 53), "those of its own datagram");
        let mut out = vec![packet];
        out.extend(core::iter::from_fn(|| self.reassembly.next_released()));
        out
    }

    fn count(&self, counter: Counter) -> u64 {
        self.counters.value(counter)
    }

    /// Packets dropped for whatever reason.
    fn dropped(&self) -> u64 {
        let drops = Counter::ALL.iter().filter(|counter| counter.name().starts_with("drop_"));
        drops.map(|counter| self.count(*counter)).sum()
    }

    /// Nothing is held, nothing is known, and every place is free.
    fn is_empty(&self) -> bool {
        let all = &self.reassembly;
        let sources = all.sources.len() - all.sources_free.len();
        (all.datagrams(), all.packets(), all.bytes, sources) == (0, 0, 0, 0)
    }
}

#[test]
fn what_goes_on_and_when() {
    type Case = (&'static str, &'static [(u16, u16, bool)], &'static [&'static [Serial]], &'static [Counter]);
    let table: &[Case] = &[
        ("in order", &[(0, 8, true), (8, 8, true), (16, 8, false)], &[&[0], &[1], &[2]], &[]),
        ("the first comes last", &[(16, 8, false), (8, 8, true), (0, 8, true)], &[&[], &[], &[2, 0, 1]], &[]),
        ("the first comes second", &[(8, 8, true), (0, 8, true), (16, 8, false)], &[&[], &[1, 0], &[2]], &[]),
        (
            "the first twice",
            &[(0, 8, true), (0, 8, true), (8, 8, false)],
            &[&[0], &[], &[2]],
            &[Counter::DropFragmentDuplicate],
        ),
        (
            "a later one twice, before the first",
            &[(8, 8, false), (8, 8, false), (0, 8, true)],
            &[&[], &[], &[2, 0]],
            &[Counter::DropFragmentDuplicate],
        ),
        (
            "an overlap after the first",
            &[(0, 16, true), (8, 16, true), (24, 8, false), (16, 8, true)],
            &[&[0], &[], &[], &[]],
            &[Counter::DropFragmentOverlap, Counter::DropFragmentGivenUp, Counter::DropFragmentGivenUp],
        ),
        (
            "an overlap with one that waits",
            &[(16, 16, true), (24, 16, true), (0, 16, true)],
            &[&[], &[], &[]],
            &[Counter::DropFragmentOverlap, Counter::DropFragmentGivenUp, Counter::DropFragmentGivenUp],
        ),
        (
            "a first one that overlaps one that waits",
            &[(8, 8, true), (0, 16, true)],
            &[&[], &[]],
            &[Counter::DropFragmentOverlap, Counter::DropFragmentGivenUp],
        ),
        (
            "two ends",
            &[(0, 8, true), (16, 8, false), (24, 8, false)],
            &[&[0], &[1], &[]],
            &[Counter::DropFragmentContradiction],
        ),
        (
            "the same again once it is whole",
            &[(0, 8, true), (8, 8, false), (0, 8, true), (8, 8, false)],
            &[&[0], &[1], &[2], &[3]],
            &[],
        ),
    ];
    for (name, pieces, expected, drops) in table {
        let mut bench = Bench::new();
        let one = of_source(1, 7);
        let arrivals = pieces.iter().map(|(at, len, more)| arrival(one, *at, *len, *more));
        let out: Vec<Vec<Serial>> = arrivals.enumerate().map(|(serial, a)| bench.came(serial, a)).collect();
        assert_eq!(out, expected.to_vec(), "{name}");
        let mut counted = Vec::new();
        for counter in Counter::ALL.iter().filter(|counter| counter.name().starts_with("drop_")) {
            counted.extend((0..bench.count(*counter)).map(|_| *counter));
        }
        assert_eq!(counted, drops.to_vec(), "{name}");
    }
}

#[test]
fn datagrams_are_told_apart_by_everything_in_their_name() {
    let mut bench = Bench::new();
    let fragment =
        |identification, protocol| Fragment { identification, offset: 0, len: 8, more: true, protocol };
    let (a, b) = (Address::v4([1; 4]), Address::v4([2; 4]));
    let udp = fragment(7, IpProtocol::UDP);
    let names = [
        Name::of(a, b, 0, &udp),
        Name::of(b, a, 0, &udp),
        Name::of(a, a, 0, &udp),
        Name::of(a, b, 3, &udp),
        Name::of(a, b, 0, &fragment(8, IpProtocol::UDP)),
        Name::of(a, b, 0, &fragment(7 << 16, IpProtocol::UDP)),
        Name::of(a, b, 0, &fragment(7, IpProtocol::TCP)),
    ];
    for (serial, name) in names.iter().enumerate() {
        assert_eq!(bench.came(serial, arrival(*name, 0, 8, true)), [serial]);
    }
    assert_eq!(bench.reassembly.datagrams(), names.len());
    for (serial, name) in names.iter().enumerate() {
        assert_eq!(bench.came(serial, arrival(*name, 8, 8, false)), [serial]);
    }
    assert!(bench.is_empty());
}

#[test]
fn each_datagram_leaves_with_an_identification_of_its_worker() {
    for workers in [1, 3, 16] {
        let mut seen = HashMap::new();
        for worker in 0..workers {
            let mut reassembly =
                Reassembly::new(WorkerId(worker), workers, 64, 1, &mut Rng::with_seed(u64::from(worker)));
            for datagram in 0..4000 {
                let first = arrival(of_source(1, datagram), 0, 8, true);
                let counters = Counters::default();
                let (_, a) = reassembly.handle(Instant::ZERO, &first, 0, &counters).expect("the first");
                let last = arrival(of_source(1, datagram), 8, 8, false);
                let (_, b) = reassembly.handle(Instant::ZERO, &last, 1, &counters).expect("the last");
                assert_eq!(a.identification, b.identification);
                assert_eq!(seen.insert(a.identification, worker), None, "of {workers}");
            }
        }
    }
}

#[test]
fn what_waits_too_long_is_dropped_and_what_came_long_ago_is_forgotten() {
    let mut bench = Bench::new();
    bench.came(0, arrival(of_source(1, 1), 8, 8, true));
    bench.came(1, arrival(of_source(1, 2), 0, 8, true));
    assert_eq!(bench.reassembly.next_deadline(), Some(bench.now + FRAGMENT_TIMEOUT));
    bench.now += FRAGMENT_TIMEOUT - Duration::from_millis(1);
    bench.reassembly.expire(bench.now, &bench.counters);
    assert_eq!((bench.reassembly.datagrams(), bench.reassembly.packets()), (2, 1));
    // The first of it comes at the last moment: its others have their time from then on.
    assert_eq!(bench.came(2, arrival(of_source(1, 1), 0, 8, true)), [2, 0]);
    bench.now += Duration::from_millis(1);
    bench.reassembly.expire(bench.now, &bench.counters);
    assert_eq!((bench.reassembly.datagrams(), bench.count(Counter::FragmentedIncomplete)), (1, 1));
    assert_eq!(bench.came(3, arrival(of_source(1, 2), 8, 8, false)), NOTHING);
    bench.now += FRAGMENT_TIMEOUT;
    bench.reassembly.expire(bench.now, &bench.counters);
    assert_eq!(bench.count(Counter::DropFragmentTimeout), 1);
    assert!(bench.is_empty() && bench.reassembly.next_deadline().is_none());
}

#[test]
fn a_datagram_in_too_many_pieces_is_given_up() {
    let mut bench = Bench::new();
    let name = of_source(1, 1);
    for piece in 0..FRAGMENTS_PER_DATAGRAM_MAX {
        assert_eq!(bench.came(piece, arrival(name, piece as u16 * 8, 8, true)), [piece]);
    }
    for piece in 0..2 {
        assert_eq!(
            bench.came(piece, arrival(name, (FRAGMENTS_PER_DATAGRAM_MAX + piece) as u16 * 8, 8, true)),
            NOTHING
        );
    }
    assert_eq!(bench.count(Counter::DropFragmentTooMany), 1);
    assert_eq!(bench.count(Counter::DropFragmentGivenUp), 1);
}

#[test]
fn a_flood_takes_no_more_than_its_share_and_lets_others_pass() {
    type Flood = fn(u32) -> Arrival;
    let floods: [(&str, Flood); 6] = [
        ("first ones of many sources", |n| arrival(of_source(n, n), 0, 8, true)),
        ("later ones of many sources", |n| arrival(of_source(n, n), 8, 8, true)),
        ("first ones of one source", |n| arrival(of_source(9, n), 0, 8, true)),
        ("later ones of one source", |n| arrival(of_source(9, n), 8, 8, true)),
        ("large later ones", |n| Arrival { len: 9000, ..arrival(of_source(n / 50, n), 8, 8, true) }),
        ("pieces of few datagrams", |n| {
            arrival(of_source(n / 300, n / 60), 8 + (n % 60) as u16 * 8, 8, true)
        }),
    ];
    for (name, flood) in floods {
        let mut bench = Bench::new();
        let reserved = |all: &Reassembly<Serial>| {
            (
                all.datagrams.capacity(),
                all.datagrams_free.capacity(),
                all.sources.capacity(),
                all.sources_free.capacity(),
            )
        };
        let before = reserved(&bench.reassembly);
        let mut passed = 0;
        for n in 0..50_000_u32 {
            // A microsecond each: a gigabit of small packets.
            bench.now += Duration::from_micros(1);
            passed += bench.came(n as usize, flood(n)).len() as u64;
            if n % 1000 == 0 {
                // Somebody else's datagram, its fragments close behind each other and out of order.
                let own = of_source(0xffff_0000, n);
                assert_eq!(bench.came(1, arrival(own, 16, 8, false)), NOTHING, "{name}");
                passed += bench.came(n as usize, flood(n + 60_000)).len() as u64;
                assert_eq!(bench.came(2, arrival(own, 0, 8, true)), [2, 1], "{name}");
                assert_eq!(bench.came(3, arrival(own, 8, 8, true)), [3], "{name}");
            }
            let all = &bench.reassembly;
            assert!(all.datagrams() <= FRAGMENTED_DATAGRAMS_MAX && all.packets() <= FRAGMENTS_WAITING_MAX);
            assert!(all.bytes <= FRAGMENT_BYTES_WAITING_MAX);
            let most = all.sources.iter().map(|source| source.datagrams).max();
            assert!(n % 512 != 0 || most <= Some(FRAGMENTED_DATAGRAMS_PER_SOURCE_MAX));
        }
        assert_eq!(reserved(&bench.reassembly), before, "nothing was allocated: {name}");
        let waiting = bench.reassembly.packets() as u64;
        assert_eq!(
            passed + bench.dropped() + waiting,
            50_000 + 50,
            "each is passed, dropped or waits: {name}"
        );
        bench.reassembly.clear(Counter::DropStandby, &bench.counters);
        assert_eq!(bench.count(Counter::DropStandby), waiting);
        assert!(bench.is_empty(), "{name}");
    }
}

/// A datagram as the reference sees it: every byte remembered.
struct Reference {
    bytes: Vec<bool>,
    pieces: Vec<(u16, u16)>,
    total: Option<usize>,
    waiting: Vec<Serial>,
    first: bool,
    given_up: bool,
}

impl Default for Reference {
    fn default() -> Reference {
        let bytes = vec![false; 1 << 10];
        Reference {
            bytes,
            pieces: Vec::new(),
            total: None,
            waiting: Vec::new(),
            first: false,
            given_up: false,
        }
    }
}

impl Reference {
    /// What goes on; whether the datagram is whole.
    fn came(&mut self, serial: Serial, at: u16, len: u16, more: bool) -> (Vec<Serial>, bool) {
        let (from, to) = (usize::from(at), usize::from(at) + usize::from(len));
        let furthest = self.bytes.iter().rposition(|there| *there).map_or(0, |last| last + 1);
        let ends_elsewhere = match (self.total, more) {
            (Some(total), false) => total != to,
            (Some(total), true) => to >= total,
            (None, false) => to < furthest,
            (None, true) => false,
        };
        let mine = self.pieces.contains(&(at, len));
        if self.given_up {
            return (Vec::new(), false);
        }
        // One that is whole and last cannot also be one with more behind it.
        if mine && !ends_elsewhere && (more || self.total.is_some()) {
            return (Vec::new(), false);
        }
        if ends_elsewhere || self.bytes[from..to].iter().any(|there| *there) {
            self.given_up = true;
            self.waiting.clear();
            return (Vec::new(), false);
        }
        self.bytes[from..to].fill(true);
        self.pieces.push((at, len));
        self.total = if more { self.total } else { Some(to) };
        let out = match (self.first, at) {
            (true, _) => vec![serial],
            (false, 0) => {
                self.first = true;
                core::iter::once(serial).chain(self.waiting.drain(..)).collect()
            }
            (false, _) => {
                self.waiting.push(serial);
                Vec::new()
            }
        };
        let whole = self.total.is_some_and(|total| self.bytes[..total].iter().all(|there| *there));
        (out, whole && self.first)
    }
}

/// Datagrams in pieces, shuffled among each other; some pieces twice, some wrong.
fn traffic(rng: &mut Rng) -> Vec<Arrival> {
    let mut all = Vec::new();
    let flawed = rng.bool();
    for datagram in 0..rng.u32(1..6) {
        let name = of_source(rng.u32(0..2), datagram);
        let count = rng.u16(1..12);
        let mut at = 0;
        for piece in 0..count {
            let last = piece + 1 == count;
            let len = if last { rng.u16(1..40) } else { 8 * rng.u16(1..6) };
            all.push(arrival(name, at, len, !last));
            if flawed && rng.u8(0..10) == 0 {
                all.push(arrival(name, at, len, !last));
            }
            if flawed && rng.u8(0..20) == 0 {
                all.push(arrival(name, 8 * rng.u16(0..at / 8 + 2), 8 * rng.u16(1..6), rng.bool()));
            }
            at += len;
        }
    }
    match rng.u8(0..3) {
        0 => rng.shuffle(&mut all),
        1 => all.reverse(),
        _ => {}
    }
    all
}

#[test]
fn any_traffic_goes_on_as_the_reference_has_it() {
    let (mut whole, mut given_up) = (0, 0);
    for seed in 0..3000 {
        let mut rng = Rng::with_seed(seed);
        let mut bench = Bench::new();
        let mut reference: HashMap<(Address, u16), Reference> = HashMap::new();
        for (serial, arrival) in traffic(&mut rng).into_iter().enumerate() {
            let Fragment { offset, len, more, .. } = arrival.fragment;
            let name = (arrival.name.source(), arrival.name.low());
            let datagram = reference.entry(name).or_default();
            let (expected, is_whole) = datagram.came(serial, offset, len, more);
            given_up += u32::from(datagram.given_up);
            if is_whole {
                reference.remove(&name);
                whole += 1;
            }
            assert_eq!(bench.came(serial, arrival), expected, "seed {seed}, packet {serial}: {arrival:?}");
        }
        let waiting: usize = reference.values().map(|datagram| datagram.waiting.len()).sum();
        assert_eq!(
            (bench.reassembly.datagrams(), bench.reassembly.packets()),
            (reference.len(), waiting),
            "seed {seed}"
        );
    }
    assert!(whole > 3000 && given_up > 1000, "{whole} whole, {given_up} packets of ones given up");
}
