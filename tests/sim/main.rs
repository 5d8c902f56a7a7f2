//! Whole groups of appliances, their links, neighbours, clients and servers on one thread, in
//! virtual time, from one seed; and the checkers beside them. `scripts/simulate` runs more of it.

mod agenda;
mod appliance;
mod checks;
mod client;
mod clock;
mod config;
mod division;
mod faults;
mod flows;
mod hosts;
mod kind;
mod lcore;
mod link;
mod moves;
mod packet;
mod partial;
#[path = "../packets/pieces.rs"]
#[expect(dead_code, reason = "hosts only put together what others took to pieces")]
mod pieces;
mod ports;
mod run;
mod scenario;
mod script;
mod server;
mod steps;
mod tcp;
mod trace;
mod variants;
mod witness;
mod world;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kind::Kind;
use run::{Report, Wanted};

/// Short runs of each kind; fewer of three appliances, which take three times as long.
const fn short_seeds(kind: Kind) -> u64 {
    if kind.members() == 2 { 34 } else { 18 }
}

fn wanted(kind: Option<Kind>, variant: &str) -> Wanted {
    let variants = variants::variant(variant).expect("a known variant");
    Wanted { kind, variants, ..Wanted::default() }
}

/// What happened in many runs.
#[derive(Default)]
struct Happened {
    /// Flows that went from one worker to another one.
    moved: AtomicU64,
    takeovers: AtomicU64,
    /// Records that standbys refused for want of room.
    refused: AtomicU64,
    /// Connections that were protected when a fault struck.
    promised: AtomicU64,
    /// Of them, those that nobody was left for but one that tracks a part.
    carried_on: AtomicU64,
    /// Flows that were mirrored and then left out.
    left_out: AtomicU64,
}

/// Runs seeds on two threads, until `stop_at_first` says enough: the reports of those with violations, and what happened.
fn of_all(seeds: Range<u64>, wanted: Wanted, stop_at_first: bool) -> (Vec<Report>, Happened) {
    let (next, found) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let happened = Happened::default();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = stop_at_first && !found.lock().expect("no thread panicked").is_empty();
                    if seed >= seeds.end || enough {
                        return;
                    }
                    let report = run::run(seed, wanted);
                    happened.moved.fetch_add(report.moved, Ordering::Relaxed);
                    happened.takeovers.fetch_add(report.takeovers, Ordering::Relaxed);
                    happened.refused.fetch_add(report.refused, Ordering::Relaxed);
                    happened.promised.fetch_add(report.promised, Ordering::Relaxed);
                    happened.carried_on.fetch_add(report.carried_on, Ordering::Relaxed);
                    happened.left_out.fetch_add(report.left_out, Ordering::Relaxed);
                    if !report.violations.is_empty() {
                        found.lock().expect("no thread panicked").push(report);
                    }
                }
            });
        }
    });
    (found.into_inner().expect("no thread panicked"), happened)
}

#[test]
fn whatever_happens_every_promise_is_kept() {
    let moved = sound(0..270, Wanted::default()).moved.into_inner();
    assert!(moved > 1000, "{moved} flows went from one worker to another one");
}

#[test]
fn it_is_kept_in_short_runs_of_every_kind_too() {
    let wanted = |kind| Wanted { kind: Some(kind), light: true, ..Wanted::default() };
    let (mut takeovers, mut refused) = (0, 0);
    for kind in Kind::ALL {
        let happened = sound(0..short_seeds(kind), wanted(kind));
        let Happened { takeovers: took, refused: refuses, promised, carried_on, left_out, .. } = happened;
        let [promised, carried_on, left_out, took, refuses] =
            [promised, carried_on, left_out, took, refuses].map(AtomicU64::into_inner);
        assert!(took == 0 || !kind.is_single() || promised > 0, "{kind:?}: nothing was protected then");
        assert!(kind.partial().is_none() || carried_on > 0, "{kind:?}: nothing was to be carried on");
        assert!(kind != Kind::FlowsChosen || left_out > 180, "{left_out} flows left out");
        takeovers += took;
        refused += refuses;
    }
    assert!(takeovers > 600, "{takeovers} takeovers");
    assert!(refused > 100, "{refused} records refused for want of room");
}

#[test]
fn switchovers_in_fair_weather_drop_no_packet_of_a_service() {
    let (mut fair, mut relayed) = (0, 0);
    for (seeds, light) in [(0..60, true), (100..130, false)] {
        for seed in seeds {
            let report = run::run(seed, Wanted { kind: Some(Kind::Switchover), light, ..Wanted::default() });
            if report.is_fair {
                let dropped: Vec<_> = report.dropped.iter().filter(|(_, count)| *count > 0).collect();
                assert!(dropped.is_empty(), "{dropped:?}\n{}", report.told("sound"));
                fair += 1;
                relayed += report.stragglers;
            }
        }
    }
    assert!(fair > 30 && relayed > 100, "{relayed} packets relayed in {fair} runs");
}

/// None of these runs violates anything.
fn sound(seeds: Range<u64>, wanted: Wanted) -> Happened {
    let (found, happened) = of_all(seeds, wanted, true);
    let told: Vec<String> = found.iter().map(|report| report.told("sound")).collect();
    assert!(told.is_empty(), "\n{}", told.join("\n"));
    happened
}

#[test]
fn one_seed_is_one_run() {
    for seed in [0, 7, 12] {
        let run = || {
            let Report { violations, connections, done, lasted, frames, .. } =
                run::run(seed, Wanted::default());
            (violations, connections, done, lasted, frames)
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}

#[test]
fn every_broken_variant_is_caught_within_a_thousand_seeds() {
    for variant in variants::VARIANTS {
        let kind = match variant {
            // Its turn of events is rare: two changes of role, while shards go home.
            "taken-before-home" => Some(Kind::Partition),
            "digest-ignores-state" => Some(Kind::FlowsDamaged),
            // Where acknowledgements take long, a port that comes again is seen.
            "port-reused-before-acknowledged" => Some(Kind::MirrorRough),
            "witness-grants-at-once" => Some(Kind::WitnessRestarts),
            "witness-grants-to-all" => Some(Kind::WitnessPartition),
            _ => None,
        };
        let (found, _) = of_all(0..1000, wanted(kind, variant), true);
        assert!(!found.is_empty(), "no seed shows that {variant} is broken");
    }
}

#[test]
fn two_managers_of_a_flow_and_packets_out_of_turn_are_seen_as_such() {
    for (variant, kind, told) in [
        ("first-owns-all", None, "whose flow is also"),
        ("strays", None, "leaves out of its turn"),
        ("port-reused-before-acknowledged", Some(Kind::MirrorRough), "is given to"),
    ] {
        let (found, _) = of_all(0..1000, wanted(kind, variant), true);
        let seen =
            found.iter().flat_map(|report| &report.violations).any(|violation| violation.contains(told));
        assert!(seen, "no seed shows that {variant} is broken by what it does");
    }
}
