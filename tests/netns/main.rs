//! Real kernels, real clients and real servers around appliances in namespaces.
//!
//! Needs root and the packages that `scripts/setup` installs.

// Tests of the real world wait in real time.
#![allow(clippy::disallowed_methods)]

mod bind_nic;
mod group_kills;
mod harness_holds;
mod links_suit_dpdk;
mod pair_attacks;
mod pair_bird;
mod pair_clock;
mod pair_divided;
mod pair_dns;
mod pair_downloads;
mod pair_faults;
mod pair_fence;
mod pair_fragments;
mod pair_hold;
mod pair_keys;
mod pair_maintenance;
mod pair_notify;
mod pair_panic;
mod pair_partial;
mod pair_periodic;
mod pair_policy;
mod pair_promote;
mod pair_reload;
mod pair_roles;
mod pair_routed;
mod pair_senders;
mod pair_switchover;
mod pair_term_file;
mod pair_track;
mod pair_vrrp;
mod pair_witness;
mod router;
mod service_unit;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netns_harness::Result;
use netns_harness::campaign::with_evidence;
use netns_harness::config::Settings;
use netns_harness::stage::Stage;
use netns_harness::stall::{self, StallWatch, Verdict};

/// Runs a test on a pair that works; when it fails, what both appliances say is kept with their logs. It is tried again, on
/// a fresh stage, when it fails while the machine stood still for longer than a pair rides out.
fn on_stage(settings: &Settings, mut test: impl FnMut(&mut Stage) -> Result<()>) -> Result<()> {
    riding_out_stalls(|| {
        with_evidence(&mut Stage::set(Path::new(env!("CARGO_BIN_EXE_baton")), settings)?, &mut test)
    })
}

/// For so long, in all tests together, a machine that stands still is waited for before a test is tried again.
static PATIENCE: Mutex<Duration> = Mutex::new(Duration::from_secs(300));

/// Tries a test as often as [`stall::judge`] says.
fn riding_out_stalls(mut test: impl FnMut() -> Result<()>) -> Result<()> {
    let mut number = 1;
    loop {
        let watch = StallWatch::start();
        let result = catch_unwind(AssertUnwindSafe(&mut test));
        let stalls = watch.finish();
        match stall::judge(matches!(result, Ok(Ok(()))), number, &stalls) {
            Verdict::Again => {
                let why = match result {
                    Ok(Ok(())) => String::new(),
                    Ok(Err(error)) => format!("{error:#}"),
                    Err(_) => "it panicked".to_owned(),
                };
                // Past the test runner, which shows what passing tests print to nobody.
                let _ = writeln!(
                    std::io::stdout(),
                    "\nTRIED AGAIN: try {number} failed, and {stalls}\n  failed: {why}"
                );
                number += 1;
                let mut patience = PATIENCE.lock().unwrap_or_else(PoisonError::into_inner);
                *patience = stall::wait_for_calm(*patience);
            }
            Verdict::Passed | Verdict::Failed => {
                println!("{stalls}");
                return result.unwrap_or_else(|panic| resume_unwind(panic));
            }
        }
    }
}

/// Worlds do not collide, but measurements disturb each other: one test at a time.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
