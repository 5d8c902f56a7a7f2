//! No line of memory that one lcore writes with its packets is touched by another one.
//!
//! What an lcore holds alone (a worker, its tables, buffers and lists) is on lines of its own because everything that is
//! allocated is, and slabs are whole pages. Of what several threads hold this is the list:
//!
//! | what | written by | read by others |
//! |---|---|---|
//! | `Counters`, `Turns` | their lcore | master, control: when somebody asks, ten times a second |
//! | `LastSeen` | its worker, in a slab; at a takeover beside the slab's address | the master's sweep, each line once a second |
//! | `Lease` | liveness thread, every few milliseconds | every sender, once a turn |
//! | rings | each end its own line | the other end, once a turn: that is what they are for |
//! | `Toeplitz`, `Snapshot`, counts of `Arc`s | at the start | every lcore |
//!
//! DPDK's own memory (packets, pools' caches, devices' queues) is DPDK's business; of its rings the shim asserts it.

use std::ops::Range;
use std::sync::Arc;

use baton::base::counters::Counters;
use baton::base::ids::WorkerId;
use baton::base::memory::LINES;
use baton::config::checked::Idle;
use baton::distributor::spread::{Distributor, DistributorSetup};
use baton::driver::clock::Clock;
use baton::driver::dpdk_io::{DpdkIo, DpdkIoSetup};
use baton::driver::idle::Idler;
use baton::driver::intake::Intake;
use baton::driver::lcore::Lcore;
use baton::driver::lease::{Lease, Turns};
use baton::driver::rings;
use baton::driver::spreading::SpreadingLcore;
use baton::flow::toeplitz::Toeplitz;
use dpdk::Eal;

use crate::common::with_eal;
use crate::wires::{self, Near, RINGS, Wires};

/// Bytes that an lcore, or another thread, writes with each packet or each turn, and what they are.
struct Written {
    by: String,
    what: &'static str,
    lines: Range<usize>,
}

fn written<T: ?Sized>(by: impl ToString, what: &'static str, place: &T) -> Written {
    let start = std::ptr::from_ref(place).cast::<u8>().addr();
    let end = start + size_of_val(place);
    Written { by: by.to_string(), what, lines: start / LINES * LINES..end.next_multiple_of(LINES) }
}

/// Makes an appliance's lcores as `driver::run` does, in its order, and says what each of them writes. `look` sees it
/// while all of it lives, and what they all read.
fn with_lcores(eal: &Eal, managers: usize, distributors: usize, look: impl FnOnce(&[Written], &[Written])) {
    let role = |roles: &str, count| vec![format!("{{ cpu = 0, roles = [{roles}] }}"); count];
    let fused = r#""distributor", "traffic-manager""#;
    let roles = match distributors {
        0 => role(fused, managers),
        _ => [role(r#""traffic-manager""#, managers), role(r#""distributor""#, distributors)].concat(),
    };
    let snapshot = wires::snapshot(&roles.join(", "));
    let receivers = if distributors == 0 { managers } else { distributors };
    let count = managers + distributors;
    let (wires, Near { rx, outboxes }) = Wires::open(eal, &snapshot, receivers, managers);
    let mut rx = rx.into_iter();
    let ends = rings::make(eal, 3, managers as u16, distributors as u16, true).unwrap();
    let turns: Vec<Arc<Turns>> = (0..count).map(|_| Arc::default()).collect();
    let counters: Vec<Arc<Counters>> = (0..count).map(|_| Arc::default()).collect();
    let lease = Arc::new(Lease::default());
    let (clock, toeplitz) = (Clock::start(), wires::toeplitz());
    let idler = Idler::new(Idle::Poll);
    let mut seen = vec![written("liveness", "lease", &*lease)];
    for number in 0..count {
        seen.push(written(number, "turns", &*turns[number]));
        seen.push(written(number, "counters", &*counters[number]));
    }
    let (mut workers, mut others) = (Vec::new(), Vec::new());
    for (number, (ends, outboxes)) in ends.workers.into_iter().zip(outboxes).enumerate() {
        seen.push(written(number, "outboxes", &outboxes[..]));
        let worker =
            wires.worker(&snapshot, (number as u16, managers as u16), clock.now(), &counters[number]);
        let world = DpdkIo::new(DpdkIoSetup {
            worker: WorkerId(number as u16),
            pool: wires.pool.clone(),
            clock,
            lease: Arc::clone(&lease),
            counters: Arc::clone(&counters[number]),
            rx: if distributors == 0 { rx.next().unwrap() } else { Vec::new() },
            outboxes,
            relays: Vec::new(),
            ends,
        });
        workers.push(Box::new(Lcore::new(worker, world, idler, Arc::clone(&turns[number]))));
        seen.push(written(number, "worker", &**workers.last().unwrap()));
    }
    for ((ends, rx), number) in ends.distributors.into_iter().zip(rx).zip(managers..) {
        let distributor = Distributor::new(DistributorSetup {
            snapshot: Arc::clone(&snapshot),
            workers: managers as u16,
            link_addresses: wires.macs.clone(),
            toeplitz: Arc::clone(&toeplitz),
            me: WorkerId(number as u16),
            hash_seed: 5,
            now: clock.now(),
            counters: Arc::clone(&counters[number]),
        });
        let distributor = distributor.unwrap();
        let pool = wires.pool.clone();
        let site = Intake::new(rx, ends.passing, pool, clock, Arc::clone(&counters[number]))
            .told_by(ends.orders, ends.spent);
        others.push(Box::new(SpreadingLcore::new(distributor, site, idler, Arc::clone(&turns[number]))));
        seen.push(written(number, "distributor", &**others.last().unwrap()));
    }
    let toeplitz: &Toeplitz = &toeplitz;
    look(&seen, &[written("all", "hash", toeplitz), written("all", "snapshot", &*snapshot)]);
}

fn shared(one: &Written, other: &Written) -> Option<String> {
    let meet = one.lines.start < other.lines.end && other.lines.start < one.lines.end;
    let name = |of: &Written| format!("{} of {} at {:x?}", of.what, of.by, of.lines);
    (meet && one.by != other.by).then(|| format!("{} and {}", name(one), name(other)))
}

/// What lcores of this appliance share and should not.
fn shares(eal: &Eal, managers: usize, distributors: usize) -> Vec<String> {
    let mut found = Vec::new();
    with_lcores(eal, managers, distributors, |written, read| {
        // A lease, and of every lcore its turns, its counters and itself; of a worker its outboxes too.
        assert_eq!(written.len(), 1 + 4 * managers + 3 * distributors);
        for (number, one) in written.iter().enumerate() {
            found.extend(written[number + 1..].iter().chain(read).filter_map(|other| shared(one, other)));
        }
    });
    found
}

#[test]
fn no_line_that_a_worker_writes_is_touched_by_another_one() {
    with_eal("lines::no_line_that_a_worker_writes_is_touched_by_another_one", RINGS, |eal| {
        assert_eq!(shares(&eal, 4, 0), Vec::<String>::new());
    });
}

#[test]
fn no_line_that_a_distributor_or_a_manager_writes_is_touched_by_another_one() {
    let name = "lines::no_line_that_a_distributor_or_a_manager_writes_is_touched_by_another_one";
    with_eal(name, RINGS, |eal| {
        assert_eq!(shares(&eal, 2, 2), Vec::<String>::new());
    });
}

#[test]
fn what_two_lcores_have_in_one_line_is_found() {
    #[repr(align(128))]
    struct Both([u64; 2]);
    let Both(both) = &Both([0; 2]);
    let [one, other] = [0, 1].map(|number| written(number, "number", &both[number]));
    assert!(shared(&one, &other).is_some());
    assert_eq!(shared(&one, &one), None, "an lcore may share with itself");
}
