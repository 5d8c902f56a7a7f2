//! Real kernels, real clients and real servers around appliances in namespaces.
//!
//! Needs root and the packages that `scripts/setup` installs.

// Tests of the real world wait in real time.
#![allow(clippy::disallowed_methods)]

mod bind_nic;
mod harness_holds;
mod links_suit_dpdk;
mod pair_divided;
mod pair_dns;
mod pair_downloads;
mod pair_fragments;
mod pair_hold;
mod pair_notify;
mod pair_panic;
mod pair_promote;
mod pair_roles;
mod pair_routed;
mod pair_senders;
mod pair_term_file;
mod pair_vrrp;
mod router;
mod service_unit;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use netns_harness::Result;
use netns_harness::campaign::with_evidence;
use netns_harness::config::Settings;
use netns_harness::stage::Stage;

/// Runs a test on a pair that works; when it fails, what both appliances say is kept with their logs.
fn on_stage(settings: &Settings, test: impl FnOnce(&mut Stage) -> Result<()>) -> Result<()> {
    with_evidence(&mut Stage::set(Path::new(env!("CARGO_BIN_EXE_baton")), settings)?, test)
}

/// Worlds do not collide, but measurements disturb each other: one test at a time.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
