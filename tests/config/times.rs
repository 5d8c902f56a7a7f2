//! `[failover]`: times that have to be in some relation to each other.

use std::path::Path;

use baton::config::load;

use super::{GOOD, breaks, one_error};

#[test]
fn times_that_would_let_two_appliances_send() {
    let words =
        "lease_ms (40) + pause_bound_ms (10) + clock drift (50 µs) to be less than takeover_after_ms (50)";
    breaks("lease_ms = 36", "lease_ms = 40", "lease_ms", "failover.lease_ms", words);
    let (both, key) = ("lease_ms = 36\ntakeover_after_ms = 50", "failover.takeover_after_ms");
    breaks(both, "takeover_after_ms = 40", "takeover_after_ms", key, "lease_ms (36)");
    let (new, key) = ("lease_ms = 36\nheartbeat_interval_ms = 36", "failover.heartbeat_interval_ms");
    breaks("lease_ms = 36", new, "heartbeat_interval_ms", key, "to be less than lease_ms (36)");
    let words = "boot_wait_ms (104) to be at least 105: takeover_after_ms (50) + 4 x heartbeat_interval_ms (5) + 35 for";
    breaks(
        "lease_ms = 36",
        "lease_ms = 36\nboot_wait_ms = 104",
        "boot_wait_ms",
        "failover.boot_wait_ms",
        words,
    );
    let (new, key) = ("lease_ms = 36\ntakeover_after_ms = 1946", "failover.takeover_after_ms");
    let hold = GOOD.replacen("key_file", "hold_timeout_ms = 2000\nkey_file", 1).replacen(both, new, 1);
    one_error(&hold, "takeover_after_ms", key, "boot_wait_ms (2000) to be at least 2001");
    let words = "to be more than failover.takeover_after_ms (50)";
    let new = "hold_timeout_ms = 50\nkey_file";
    breaks("key_file", new, "hold_timeout_ms", "mirror.hold_timeout_ms", words);
}

#[test]
fn the_shortest_wait_at_boot_and_any_without_peers() {
    let text = GOOD.replacen("lease_ms = 36", "lease_ms = 36\nboot_wait_ms = 105", 1);
    load(Path::new("good.toml"), &text).expect("it is long enough");
    let start = GOOD.find("[mirror]").expect("there is one");
    let end = GOOD.find("[failover]").expect("there is one");
    let alone = format!("{}{}boot_wait_ms = 1\n", &GOOD[..start], &GOOD[end..])
        .replace("mirror = { mode = \"checkpoint\", commit = \"hold\" }\n", "");
    load(Path::new("alone.toml"), &alone).expect("nobody is waited for");
}
