//! Whole pairs of appliances, their links, neighbours, clients and servers on one thread, in
//! virtual time, from one seed; and the checkers beside them. `scripts/simulate` runs more of it.

mod agenda;
mod appliance;
mod checks;
mod client;
mod config;
mod division;
mod flows;
mod hosts;
mod kind;
mod lcore;
mod link;
mod moves;
mod packet;
#[path = "../packets/pieces.rs"]
#[expect(dead_code, reason = "hosts only put together what others took to pieces")]
mod pieces;
mod run;
mod scenario;
mod server;
mod tcp;
mod trace;
mod variants;
mod world;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use kind::Kind;
use run::Report;

/// Runs seeds on two threads; the reports of those with violations, until `stop` says enough.
fn violated(seeds: Range<u64>, variant: &str, stop_at_first: bool) -> Vec<Report> {
    of_all(seeds, None, variant, stop_at_first).0
}

/// As [`violated`], and how many flows went from one worker to another one.
fn of_all(seeds: Range<u64>, kind: Option<Kind>, variant: &str, stop_at_first: bool) -> (Vec<Report>, u64) {
    let broken = variants::variant(variant).expect("a known variant");
    let (next, found) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let moved = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = stop_at_first && !found.lock().expect("no thread panicked").is_empty();
                    if seed >= seeds.end || enough {
                        return;
                    }
                    let report = run::run(seed, kind, broken, false);
                    moved.fetch_add(report.moved, Ordering::Relaxed);
                    if !report.violations.is_empty() {
                        found.lock().expect("no thread panicked").push(report);
                    }
                }
            });
        }
    });
    (found.into_inner().expect("no thread panicked"), moved.into_inner())
}

#[test]
fn whatever_happens_every_promise_is_kept() {
    let (found, moved) = of_all(0..270, None, "sound", true);
    let told: Vec<String> = found.iter().map(|report| report.told("sound")).collect();
    assert!(told.is_empty(), "\n{}", told.join("\n"));
    assert!(moved > 1000, "{moved} flows went from one worker to another one");
}

#[test]
fn one_seed_is_one_run() {
    for seed in [0, 7, 12] {
        let run = || {
            let Report { violations, connections, done, lasted, frames, .. } =
                run::run(seed, None, Default::default(), false);
            (violations, connections, done, lasted, frames)
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}

#[test]
fn every_broken_variant_is_caught_within_a_thousand_seeds() {
    for variant in variants::VARIANTS {
        // Its turn of events is rare: two changes of role, while shards go home.
        let kind = (variant == "taken-before-home").then_some(Kind::Partition);
        let (found, _) = of_all(0..1000, kind, variant, true);
        assert!(!found.is_empty(), "no seed shows that {variant} is broken");
    }
}

#[test]
fn two_managers_of_a_flow_and_packets_out_of_turn_are_seen_as_such() {
    for (variant, told) in [("first-owns-all", "whose flow is also"), ("strays", "leaves out of its turn")] {
        let found = violated(0..1000, variant, true);
        let seen =
            found.iter().flat_map(|report| &report.violations).any(|violation| violation.contains(told));
        assert!(seen, "no seed shows that {variant} is broken by what it does");
    }
}
