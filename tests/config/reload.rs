//! A file that is read again while the appliance runs: what can change, what cannot, and what is said of it.

use std::path::Path;

use baton::base::time::Duration;
use baton::config::checked::{Checked, Sealing};
use baton::config::reload::{differences, reload, without_idle};
use baton::config::{ConfigError, load};

use crate::{GOOD, line_of};

const PATH: &str = "running.toml";

fn running() -> Checked {
    load(Path::new(PATH), GOOD).expect("it is good")
}

fn again(running: &Checked, text: &str) -> Result<Checked, Vec<ConfigError>> {
    reload(Path::new(PATH), GOOD, running, text).map(|(checked, _)| checked)
}

/// With `old` replaced by `new`, the one change is this.
#[track_caller]
fn changes(old: &str, new: &str, told: &[&str]) -> Checked {
    assert!(GOOD.contains(old), "the good file lacks {old:?}");
    let before = running();
    let after = again(&before, &GOOD.replacen(old, new, 1)).expect("it can change");
    assert_eq!(differences(&before, &after), told);
    after
}

/// With `old` replaced by `new`, it is refused once, at the line where `at` stands, for `key`.
#[track_caller]
fn refused(running: &Checked, text: &str, at: &str, key: &str, expected: &str) {
    let errors = again(running, text).expect_err("it is refused");
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1, "expected one error, got:\n{}", told.join("\n"));
    assert_eq!((errors[0].line, errors[0].key.as_str()), (line_of(text, at), key), "{}", told[0]);
    assert!(told[0].starts_with(&format!("{PATH}:{}: {key}", line_of(text, at))), "{}", told[0]);
    assert!(told[0].contains(expected), "{} lacks {expected:?}", told[0]);
}

#[test]
fn a_file_that_says_the_same_in_other_words_changes_nothing() {
    let before = running();
    let text =
        GOOD.replace("virtual_router_id = 51", "# a comment\nvirtual_router_id = 0x33\npriority = 1_00");
    let after = again(&before, &text).expect("it is good");
    assert!(differences(&before, &after).is_empty());
    assert_eq!(after.retired(), 0);
}

#[test]
fn servers_and_weights_change() {
    let one = "  { address = \"10.2.0.10:80\", weight = 1 },\n";
    let after = changes("weight = 1 }", "weight = 7 }", &["pool web: server 10.2.0.10:80: weight 7, was 1"]);
    assert_eq!(after.pools[0].servers[0].weight, 7);

    let after = changes(one, "", &["pool web: server 10.2.0.10:80 removed"]);
    let [stays, gone] = &after.pools[0].servers[..] else { panic!("two servers") };
    assert_eq!((stays.port, stays.weight, stays.retired), (80, 2, false));
    assert_eq!((gone.address.to_string().as_str(), gone.weight, gone.retired), ("10.2.0.10", 0, true));
    assert_eq!(after.retired(), 1);
    let forgotten = without_idle(&after, |_| false, |_| false).expect("one server is retired");
    assert_eq!(differences(&after, &forgotten), [""; 0], "what is retired counts as gone");
    // It comes back before its connections have ended.
    let back = again(&after, GOOD).expect("it is good");
    assert_eq!((back.pools[0].servers.len(), back.retired()), (2, 0));
    assert_eq!(back.pools[0].servers[0].weight, 1);

    let new = format!("{one}  {{ address = \"10.2.0.12:80\", weight = 4 }},\n");
    changes(one, &new, &["pool web: server 10.2.0.12:80 added, weight 4"]);
    changes("balance = \"maglev\"", "balance = \"round-robin\"", &["pool web: settings changed"]);

    // Round robin goes by it, and peers tell services apart by it.
    let two = "  { address = \"10.2.0.11:80\", weight = 2 },\n";
    let order = &["the order of servers or virtual servers changed"];
    changes(&format!("{one}{two}"), &format!("{two}{one}"), order);
}

#[test]
fn virtual_servers_and_pools_come_and_go() {
    let from = GOOD.find("[[virtual_server]]\nname = \"www6\"").expect("it is there");
    let to = GOOD.find("[mirror]").expect("it is there");
    let virtual_server = &GOOD[from..to];
    let pool = "[[pool]]\nname = \"web6\"\nserver = [ { address = \"[fd03::10]:80\" } ]\n";
    let after = changes(virtual_server, "", &["virtual server www6 removed"]);
    let [www, www6] = &after.virtual_servers[..] else { panic!("two virtual servers") };
    assert!(!www.retired && www6.retired);
    assert!(after.pools[www6.pool].servers.is_empty(), "it has no server for new connections");
    assert!(!after.pools[www.pool].servers.is_empty());

    // Its pool too; then all of it is forgotten, when there are no connections.
    let text = GOOD.replacen(virtual_server, "", 1).replacen(pool, "", 1);
    let after = again(&after, &text).expect("it is good");
    assert_eq!(after.retired(), 2, "the virtual server and the pool's server");
    assert!(without_idle(&after, |_| true, |_| true).is_none());
    let left = without_idle(&after, |_| true, |_| false).expect("the server had none");
    assert_eq!((left.retired(), left.pools.len(), left.virtual_servers.len()), (1, 2, 2));
    let left = without_idle(&left, |_| false, |_| false).expect("nor had the virtual server");
    assert_eq!((left.retired(), left.pools.len(), left.virtual_servers.len()), (0, 1, 1));
    assert_eq!(differences(&after, &left), [""; 0], "what is retired counts as gone");

    let told = "virtual server new added: 10.1.0.110:80/tcp -> web";
    let new = "[[virtual_server]]\nname = \"new\"\naddress = \"10.1.0.110:80\"\nprotocol = \"tcp\"\npool = \"web\"\n\
               forwarding = \"nat\"\n[mirror]";
    let after = changes("[mirror]", new, &[told]);
    assert_eq!(after.virtual_servers.len(), 3);
}

#[test]
fn source_addresses_stay_until_their_virtual_server_has_no_connections() {
    let old = "snat_addresses = [\"10.2.0.100\"]";
    let new = "snat_addresses = [\"10.2.0.101\"]";
    let after = changes(old, new, &["virtual server www: source-NAT addresses changed"]);
    let www = &after.virtual_servers[0];
    assert_eq!(www.sources(), ["10.2.0.101".parse::<std::net::IpAddr>().expect("an address")]);
    assert_eq!(www.all_sources().map(|at| at.to_string()).collect::<Vec<_>>(), ["10.2.0.101", "10.2.0.100"]);
    let text = GOOD.replacen(old, new, 1).replacen("10.2.0.11:80", "10.2.0.100:80", 1);
    refused(
        &after,
        &text,
        "10.2.0.100:80",
        "pool[web].server[1].address",
        "connections may still have this one as a source-NAT address",
    );
}

#[test]
fn idle_time_outs_change_and_the_tables_sizes_do_not() {
    let flows = "[flows]\nudp_timeout_s = 11\n[mirror]";
    let after = changes("[mirror]", flows, &["idle time-outs of flows changed"]);
    assert_eq!(after.flows.udp_timeout, Duration::from_secs(11));
    let text = GOOD.replacen("[mirror]", "[flows]\nmax = 1000\n[mirror]", 1);
    refused(&running(), &text, "max = 1000", "flows.max", "expected nothing, as at the start");
}

#[test]
fn what_was_made_at_the_start_changes_only_by_a_restart() {
    for (old, new, at, key) in [
        ("node = 1", "node = 3", "node = 3", "appliance.node"),
        ("\"--no-pci\"", "\"--no-telemetry\"", "--no-telemetry", "eal.args[0]"),
        ("{ cpu = 1 }, { cpu = 1 }", "{ cpu = 1 }", "worker =", "lcores.worker"),
        ("iface=s", "iface=t", "iface=t", "port[server].device"),
        ("\"10.2.0.1/24\", ", "", "shared_addresses", "port[server].shared_addresses"),
        ("gateway = \"10.1.0.1\"", "gateway = \"10.1.0.3\"", "10.1.0.3", "route[0].gateway"),
        (
            "node = 2, address = \"10.9.0.2\"",
            "node = 2, address = \"10.9.0.3\"",
            "10.9.0.3",
            "mirror.peers[0].address",
        ),
        ("mirror.key", "other.key", "other.key", "mirror.key_file"),
        ("lease_ms = 36", "lease_ms = 35", "lease_ms", "failover.lease_ms"),
        ("lease_ms = 36\n", "", "[failover]", "failover.lease_ms"),
    ] {
        assert!(GOOD.contains(old), "the good file lacks {old:?}");
        let text = GOOD.replacen(old, new, 1);
        let errors = again(&running(), &text).err().unwrap_or_default();
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        // A default that is the same as what was said is no change.
        if new.is_empty() && key == "failover.lease_ms" {
            assert!(errors.is_empty(), "{}", told.join("\n"));
            continue;
        }
        refused(&running(), &text, at, key, "it can change only by a restart of baton");
    }
}

#[test]
fn what_members_prove_themselves_with_changes() {
    let public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
    let pinned = GOOD
        .replacen("key_file =", "node_key_file = \"own.key\"\nsealing = \"permissive\"\nkey_file =", 1)
        .replacen("\"10.9.0.2\" }", &format!("\"10.9.0.2\", public_key = \"{public}\" }}"), 1);
    let checked = again(&running(), &pinned).expect("it is good");
    let pinning = checked.mirror.and_then(|mirror| mirror.pinning).expect("keys are pinned");
    assert_eq!((pinning.sealing, pinning.peers[0].1[0]), (Sealing::Permissive, 0xde));
    refused(
        &running(),
        &pinned.replacen("10.9.0.2", "10.9.0.3", 1),
        "10.9.0.3",
        "mirror.peers[0].address",
        "at the start",
    );
}

#[test]
fn all_that_is_wrong_is_told_and_nothing_changes() {
    let text = GOOD
        .replacen("lease_ms = 36", "lease_ms = 35", 1)
        .replacen("node = 1", "node = 3", 1)
        .replacen("weight = 2", "weight = 20", 1);
    let errors = again(&running(), &text).expect_err("it is refused");
    let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["appliance.node", "failover.lease_ms"]);
    let text = GOOD.replacen("weight = 2", "weight = 2000", 1);
    refused(&running(), &text, "weight = 2000", "pool[web].server[1].weight", "from 0 to 1000");
    assert_eq!(again(&running(), "[[pool").expect_err("it is refused").len(), 1);
}

#[test]
fn what_connections_depend_on_stays_under_its_name() {
    refused(
        &running(),
        &GOOD.replacen("10.1.0.100:80", "10.1.0.100:81", 1),
        "10.1.0.100:81",
        "virtual_server[www].address",
        "what listens elsewhere needs another name",
    );
    refused(
        &running(),
        &GOOD.replacen("protocol = \"tcp\"", "protocol = \"udp\"", 1),
        "\"udp\"",
        "virtual_server[www].protocol",
        "10.1.0.100:80/tcp, as it is",
    );
    // Under another name, at the same place.
    let after =
        again(&running(), &GOOD.replacen("name = \"www\"", "name = \"shop\"", 1)).expect("it is good");
    assert_eq!(after.virtual_servers.iter().filter(|server| server.retired).count(), 1);
}

#[test]
fn another_way_to_choose_managers_needs_a_restart_where_nothing_is_remembered() {
    let with = |method: &str| {
        GOOD.replacen(
            "forwarding = \"full-nat\"",
            &format!("forwarding = \"full-nat\"\nselect = \"{method}\""),
            1,
        )
    };
    let text = with("least-connections");
    let key = "virtual_server[www].select";
    refused(&running(), &text, "select =", key, "others need a connection store, which is made at the start");
    let path = Path::new(PATH);
    let remembering = load(path, &text).expect("it is good");
    let other = reload(path, &text, &remembering, &with("packet-rate")).expect("there is a store").0;
    assert_eq!(
        differences(&remembering, &other),
        ["virtual server www: select packet-rate, was least-connections"]
    );
    let hashed = reload(path, &text, &remembering, &with("destination")).expect_err("it is refused");
    assert!(hashed[0].to_string().contains("connections that exist are found by it"), "{}", hashed[0]);
}

#[test]
fn a_method_that_needs_a_larger_connection_store_than_there_is_needs_a_restart() {
    let with = |www: &str, www6: &str| {
        let select = |of: &str| format!("\nselect = \"{of}\"\nforwarding");
        let text = GOOD.replacen("\nforwarding", &select(www), 1);
        let second = text.rfind("\nforwarding").expect("there are two");
        let (before, after) = text.split_at(second);
        format!("{before}{}", after.replacen("\nforwarding", &select(www6), 1))
    };
    let path = Path::new(PATH);
    // By hashes alone, and so with a store that is small.
    let hashes = with("source", "destination");
    let running = load(path, &hashes).expect("it is good");
    let wanted = with("least-connections", "destination");
    let errors = reload(path, &hashes, &running, &wanted).expect_err("it is refused");
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].key, "virtual_server[www].select");
    assert!(
        errors[0].to_string().contains("for 1000000 keys, and that made at the start has 65536"),
        "{}",
        errors[0]
    );
    let named = |text: &str| format!("{text}\n[distributor]\nmax_keys = 2000\n");
    let running = load(path, &named(&hashes)).expect("it is good");
    reload(path, &named(&hashes), &running, &named(&wanted)).expect("it is as large as it was said to be");
}
