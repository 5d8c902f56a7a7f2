//! What counts for an appliance's health, in the configuration.

use std::path::Path;

use baton::base::ids::PortId;
use baton::base::time::Duration;
use baton::config::load;

use crate::{GOOD, breaks, one_error};

fn with(lines: &str) -> String {
    GOOD.replace("virtual_router_id = 51", &format!("virtual_router_id = 51\n{lines}"))
}

#[test]
fn nothing_is_tracked_unless_it_is_said() {
    let config = load(Path::new("a.toml"), GOOD).expect("it is good");
    let track = config.failover.track;
    assert!(track.ports.is_empty() && track.script.is_none());
    assert_eq!(track.hold, Duration::from_millis(1000));
    assert!(config.pools.iter().all(|pool| pool.least_servers == 0));
}

#[test]
fn ports_and_a_script_that_count_for_health() {
    let text = with(
        "track = [\"server\", \"client\"]\ntrack_hold_ms = 0\n\
         track_script = { command = [\"/bin/check\", \"two words\"], interval_ms = 500, timeout_ms = 200, rise = 4, fall = 5 }",
    );
    let track = load(Path::new("a.toml"), &text).expect("it is good").failover.track;
    assert_eq!((&track.ports[..], track.hold), (&[PortId(1), PortId(0)][..], Duration::ZERO));
    let script = track.script.expect("it is there");
    assert_eq!(script.command.program, Path::new("/bin/check"));
    assert_eq!(script.command.arguments, ["two words"]);
    assert_eq!(script.command.timeout, Duration::from_millis(200));
    assert_eq!((script.interval, script.rise, script.fall), (Duration::from_millis(500), 4, 5));
}

#[test]
fn what_cannot_be_tracked() {
    for (lines, key, expected) in [
        ("track = [\"clients\"]", "failover.track[0]", "the name of a [[port]]: client, server, mirror"),
        ("track = [\"client\", \"mirror\"]", "failover.track[1]", "losing the mirror port is never a reason"),
        ("track = [\"client\", \"client\"]", "failover.track[1]", "each port once"),
        ("track = \"client\"", "failover.track", "a list"),
        ("track_hold_ms = -1", "failover.track_hold_ms", "from 0 to 3600000 milliseconds"),
        ("track_script = { command = [\"check\"] }", "failover.track_script.command[0]", "absolute path"),
        ("track_script = { command = [] }", "failover.track_script.command", "absolute path of a program"),
        ("track_script = { rise = 1 }", "failover.track_script.command", "is missing"),
        ("track_script = { command = [\"/x\"], fall = 0 }", "failover.track_script.fall", "from 1 to 1000"),
        ("track_script = [\"/x\"]", "failover.track_script", "a table"),
    ] {
        one_error(&with(lines), "track", key, expected);
    }
}

#[test]
fn a_pool_that_needs_more_servers_than_take_new_flows() {
    let pool = "balance = \"maglev\"\n";
    let words = "at most the number of the pool's servers that take new flows, 2";
    breaks(pool, &format!("{pool}least_servers = 3\n"), "least_servers", "pool[web].least_servers", words);
    let text = GOOD.replacen(pool, &format!("{pool}least_servers = 2\n"), 1);
    let config = load(Path::new("a.toml"), &text).expect("it is good");
    assert_eq!(config.pools[0].least_servers, 2);
    let drained = text.replacen("weight = 1", "weight = 0", 1);
    one_error(&drained, "least_servers", "pool[web].least_servers", "that take new flows, 1");
}
