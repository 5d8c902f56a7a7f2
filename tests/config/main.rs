//! Broken configuration files: each kind of mistake gets exactly one error that
//! names file, line, key, value and what was expected (REQ E5).

mod distributor;
mod fence;
mod keys;
mod lagging;
mod mirror;
mod mirrored;
mod notify;
mod policy;
mod reload;
mod roles;
mod times;
mod track;
mod witness;

use std::path::Path;

use baton::base::ids::{NodeId, PortId, id_of_name};
use baton::base::time::Duration;
use baton::config::checked::{Commit, Forwarding, MirrorMode};
use baton::config::{ConfigError, load, load_with_warnings};

/// A good file, which the tests break in one place each.
const GOOD: &str = r#"[appliance]
name = "a"
node = 1

[eal]
args = ["--no-pci"]

[lcores]
master_cpu = 0
worker = [ { cpu = 1 }, { cpu = 1 } ]
idle = "sleep"

[[port]]
name = "client"
device = "net_af_packet0,iface=c"
addresses = ["10.1.0.2/24", "fd01::2/64"]

[[port]]
name = "server"
device = "net_af_packet1,iface=s"
addresses = ["10.2.0.2/24", "fd02::2/64"]
shared_addresses = ["10.2.0.1/24", "fd02::1/64"]

[[port]]
name = "mirror"
device = "net_af_packet2,iface=m"
addresses = ["10.9.0.1/24"]

[[route]]
destination = "0.0.0.0/0"
gateway = "10.1.0.1"

[[route]]
destination = "fd03::/48"
gateway = "fd01::1"

[[pool]]
name = "web"
balance = "maglev"
server = [
  { address = "10.2.0.10:80", weight = 1 },
  { address = "10.2.0.11:80", weight = 2 },
]

[[pool]]
name = "web6"
server = [ { address = "[fd03::10]:80" } ]

[[virtual_server]]
name = "www"
address = "10.1.0.100:80"
protocol = "tcp"
pool = "web"
forwarding = "full-nat"
snat_addresses = ["10.2.0.100"]
mirror = { mode = "checkpoint", commit = "hold" }

[[virtual_server]]
name = "www6"
address = "[fd01::100]:80"
protocol = "tcp"
pool = "web6"
forwarding = "nat"

[mirror]
port = "mirror"
peers = [ { node = 2, address = "10.9.0.2" } ]
key_file = "mirror.key"

[failover]
virtual_router_id = 51
lease_ms = 36
takeover_after_ms = 50
"#;

fn errors_of(text: &str) -> Vec<ConfigError> {
    load(Path::new("broken.toml"), text).err().unwrap_or_default()
}

/// The line, from 1, on which `needle` first stands.
fn line_of(text: &str, needle: &str) -> usize {
    let at = text.find(needle).unwrap_or_else(|| panic!("the test's own text lacks {needle:?}"));
    text[..at].matches('\n').count() + 1
}

/// In the good file, `old` is replaced by `new` once: exactly one error, at the
/// line where `at` stands, for `key`, and its sentence holds `expected`.
#[track_caller]
fn breaks(old: &str, new: &str, at: &str, key: &str, expected: &str) {
    assert!(GOOD.contains(old), "the good file lacks {old:?}");
    one_error(&GOOD.replacen(old, new, 1), at, key, expected);
}

#[track_caller]
fn one_error(text: &str, at: &str, key: &str, expected: &str) {
    let errors = errors_of(text);
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let told = told.join("\n");
    assert_eq!(errors.len(), 1, "expected one error, got:\n{told}");
    assert_eq!(errors[0].file, "broken.toml");
    assert_eq!(errors[0].line, line_of(text, at), "{told}");
    assert_eq!(errors[0].key, key, "{told}");
    assert!(told.contains(expected), "{told}\nlacks {expected:?}");
}

#[test]
fn a_good_file_becomes_what_it_says() {
    let (checked, warnings) = load_with_warnings(Path::new("/etc/baton/a.toml"), GOOD).expect("it is good");
    assert_eq!(checked.appliance.node, NodeId(1));
    assert_eq!(checked.lcores.workers.len(), 2);
    assert_eq!(checked.ports[1].shared_addresses.len(), 2);
    let lengths: Vec<u8> = checked.routes.iter().map(|route| route.destination.prefix_len).collect();
    assert_eq!(lengths, [48, 0], "routes come longest prefix first");
    assert_eq!(checked.routes[1].port, PortId(0));
    assert_eq!(checked.pools[0].servers[1].weight, 2);
    assert_eq!(checked.pools[0].servers[0].id.0, id_of_name("web/10.2.0.10:80"));
    let www = &checked.virtual_servers[0];
    assert_eq!(www.id.0, id_of_name("www"));
    assert_eq!(checked.pools[www.pool].name, "web");
    assert!(matches!(&www.forwarding, Forwarding::FullNat(sources) if sources.len() == 1));
    let www6 = &checked.virtual_servers[1];
    assert_eq!(checked.pools[www6.pool].name, "web6");
    assert_eq!(www6.mirror, MirrorMode::Checkpoint(Commit::Hold), "mirrored, because there is a [mirror]");
    let mirror = checked.mirror.expect("it has a mirror");
    assert_eq!(mirror.port, PortId(2));
    assert_eq!(mirror.key_file, Path::new("/etc/baton/mirror.key"), "relative to the file");
    assert_eq!(mirror.hold_timeout, Duration::from_millis(200));
    assert_eq!(checked.failover.heartbeat_interval, Duration::from_millis(5));
    // Its one remark: fd03::10 is behind a gateway, so there is no port to float an address on.
    assert!(warnings.iter().all(|warning| warning.key == "virtual_server[www6].forwarding"), "{warnings:?}");
}

#[test]
fn an_unknown_key_names_the_nearest() {
    let key = "failover.leese_ms";
    breaks("lease_ms = 36", "leese_ms = 36", "leese_ms", key, "did you mean \"lease_ms\"?");
    let key = "pool[web].server[0].wieght";
    breaks("weight = 1", "wieght = 1", "wieght", key, "did you mean \"weight\"?");
}

#[test]
fn an_unknown_table() {
    let text = GOOD.replace("[eal]\n", "[hardware]\n");
    one_error(&text, "[hardware]", "hardware", "known here: appliance, eal");
}

#[test]
fn a_missing_table() {
    let at = GOOD.find("[failover]").expect("there is one");
    one_error(&GOOD[..at], "[appliance]", "failover", "failover is missing");
}

#[test]
fn a_missing_key_is_told_at_its_table() {
    let key = "virtual_server[www].protocol";
    breaks("protocol = \"tcp\"\n", "", "[[virtual_server]]", key, "is missing");
}

#[test]
fn what_is_not_toml() {
    breaks("name = \"client\"", "name = client", "name = client", "", "not TOML");
    one_error("[appliance\nnode = 1\n", "[appliance", "", "not TOML");
}

#[test]
fn a_key_given_twice() {
    breaks("lease_ms = 36", "lease_ms = 36\nlease_ms = 37", "lease_ms = 37", "", "duplicate key");
}

#[test]
fn a_value_of_another_type() {
    let words = "= \"one\": expected a whole number from 1";
    breaks("node = 1", "node = \"one\"", "node = ", "appliance.node", words);
    breaks("idle = \"sleep\"", "idle = true", "idle", "lcores.idle", "\"poll\" or \"sleep\"");
    breaks("args = [\"--no-pci\"]", "args = \"--no-pci\"", "args", "eal.args", "a list");
    breaks("[eal]\nargs", "[eal]\nhugepages = 1\nargs", "hugepages", "eal.hugepages", "true or false");
    let table = "mirror = { mode = \"checkpoint\", commit = \"hold\" }";
    let words = "a table with the keys mode commit";
    breaks(table, "mirror = \"hold\"", "mirror = \"hold\"", "virtual_server[www].mirror", words);
}

#[test]
fn numbers_out_of_range_tell_the_range_and_the_unit() {
    let key = "failover.virtual_router_id";
    breaks("router_id = 51", "router_id = 256", "router_id", key, "from 1 to 255");
    breaks("node = 1", "node = 0", "node = 0", "appliance.node", "from 1 to 65535");
    breaks("weight = 2", "weight = -2", "weight = -2", "pool[web].server[1].weight", "from 0 to 1000");
    breaks(
        "lease_ms = 36",
        "lease_ms = 3.6",
        "lease_ms",
        "failover.lease_ms",
        "from 2 to 60000 milliseconds",
    );
    breaks("[eal]\n", "[eal]\nmemory_mb = 1\n", "memory_mb", "eal.memory_mb", "MiB");
    let (new, key) = ("lease_ms = 36\nvrrp_interval_ms = 1005", "failover.vrrp_interval_ms");
    breaks("lease_ms = 36", new, "vrrp_interval_ms", key, "a multiple of 10 milliseconds");
    breaks("cpu = 1 }, {", "cpu = 4096 }, {", "worker = ", "lcores.worker[0].cpu", "from 0 to 1023");
}

#[test]
fn more_buffers_than_memory() {
    let words = "buffers (500000) to be at most 82782 with memory_mb = 256";
    breaks("[eal]\n", "[eal]\nbuffers = 500_000\n", "buffers", "eal.buffers", words);
}

#[test]
fn an_eal_argument_that_the_file_has_a_key_for() {
    breaks("\"--no-pci\"", "\"--no-pci\", \"--file-prefix=x\"", "args", "eal.args[1]", "no --file-prefix");
}

#[test]
fn an_address_that_is_none() {
    let (good, key) = ("\"10.1.0.2/24\"", "port[client].addresses[0]");
    breaks(good, "\"10.1.0.256/24\"", "10.1.0.256", key, "the address of one host");
    breaks(good, "\"10.1.0.2/33\"", "10.1.0.2/33", key, "prefix length");
    breaks(good, "\"10.1.0.2\"", "10.1.0.2\"", key, "prefix length");
    breaks(good, "\"10.1.0.255/24\"", "10.1.0.255", key, "one host");
    breaks("gateway = \"10.1.0.1\"", "gateway = \"239.0.0.1\"", "239.0", "route[0].gateway", "one host");
}

#[test]
fn an_endpoint_without_a_port() {
    let key = "virtual_server[www].address";
    breaks("\"10.1.0.100:80\"", "\"10.1.0.100\"", "10.1.0.100", key, "[fd01::100]:80");
    let key = "pool[web].server[0].address";
    breaks("\"10.2.0.10:80\"", "\"10.2.0.10:0\"", "10.2.0.10:0", key, "port from 1");
}

#[test]
fn a_name_that_is_none() {
    breaks("name = \"www\"", "name = \"w w\"", "w w", "virtual_server[w w].name", "letters, digits");
}

#[test]
fn names_given_twice() {
    let second = "name = \"client\"\ndevice = \"net_af_packet1";
    breaks("name = \"server\"", "name = \"client\"", second, "port[client].name", "on line 14 already");
    let second = "name = \"www\"\naddress = \"[fd01";
    let words = "a virtual server name of its own";
    breaks("name = \"www6\"", "name = \"www\"", second, "virtual_server[www].name", words);
    let pools = GOOD
        .replace("pool = \"web6\"", "pool = \"web\"")
        .replace("name = \"web6\"", "name = \"web\"")
        .replace("[fd01::100]:80", "10.1.0.101:80");
    let second = "name = \"web\"\nserver = [ { address = \"[fd03";
    one_error(&pools, second, "pool[web].name", "a pool name of its own");
}

#[test]
fn two_names_with_one_id() {
    // A known pair of colliding words for this hash.
    assert_eq!(id_of_name("costarring"), id_of_name("liquid"));
    let text = GOOD.replace("\"www\"", "\"costarring\"").replace("\"www6\"", "\"liquid\"");
    one_error(&text, "\"liquid\"", "virtual_server[liquid].name", "the same id as \"costarring\"");
}

#[test]
fn a_server_twice_in_a_pool() {
    let second = "\"10.2.0.10:80\", weight = 2";
    breaks("10.2.0.11:80", "10.2.0.10:80", second, "pool[web].server[1].address", "a server of its own");
}

#[test]
fn a_pool_that_there_is_not() {
    let words = "= \"wob6\": expected the name of a [[pool]]: web, web6";
    breaks("pool = \"web6\"", "pool = \"wob6\"", "wob6", "virtual_server[www6].pool", words);
}

#[test]
fn a_pool_without_servers() {
    let servers = "server = [ { address = \"[fd03::10]:80\" } ]";
    breaks(servers, "server = []", "server = []", "pool[web6].server", "at least one server");
}

#[test]
fn a_mirror_port_that_there_is_not() {
    breaks("port = \"mirror\"", "port = \"miror\"", "miror", "mirror.port", "the name of a [[port]]");
}

#[test]
fn a_gateway_that_is_none() {
    let (good, key) = ("gateway = \"10.1.0.1\"", "route[0].gateway");
    breaks(good, "gateway = \"10.7.0.1\"", "10.7.0.1", key, "an address on a network of one of the ports");
    breaks(good, "gateway = \"fd01::1\"", "fd01::1\"", key, "family");
    breaks(good, "gateway = \"10.2.0.1\"", "gateway", key, "10.2.0.1 is a shared address");
}

#[test]
fn a_route_with_host_bits_or_twice() {
    breaks("fd03::/48", "fd03::1/48", "fd03::1/48", "route[1].destination", "host bits are zero");
    let more = "[[route]]\ndestination = \"fd03::/48\"\ngateway = \"fd01::9\"\n\n[[pool]]\nname = \"web\"";
    let second = "destination = \"fd03::/48\"\ngateway = \"fd01::9\"";
    breaks("[[pool]]\nname = \"web\"", more, second, "route[2].destination", "a destination of its own");
}

#[test]
fn a_server_that_cannot_be_reached() {
    breaks("[fd03::10]:80", "[fd04::10]:80", "fd04", "pool[web6].server[0].address", "a [[route]] covers");
}

#[test]
fn overlapping_virtual_servers() {
    let text = GOOD.replace("[fd01::100]:80", "10.1.0.100:80").replace("pool = \"web6\"", "pool = \"web\"");
    let first = line_of(&text, "address = \"10.1.0.100:80\"");
    let second = "\"10.1.0.100:80\"\nprotocol = \"tcp\"\npool = \"web\"\nforwarding = \"nat\"";
    one_error(&text, second, "virtual_server[www6].address", &format!("line {first} are the same"));
    let udp = text.replace(second, &second.replace("tcp", "udp"));
    assert_eq!(errors_of(&udp), [], "TCP and UDP on one port do not overlap");
}

#[test]
fn addresses_that_clash() {
    let words = "10.1.0.2 is an own address, port[client].addresses[0] on line 16";
    breaks("10.1.0.100:80", "10.1.0.2:80", "10.1.0.2:80", "virtual_server[www].address", words);
    let key = "port[server].shared_addresses[0]";
    breaks("\"10.2.0.1/24\"", "\"10.2.0.2/24\"", "shared_addresses", key, "an own address");
    let key = "virtual_server[www].snat_addresses[0]";
    breaks("\"10.2.0.100\"", "\"10.2.0.2\"", "snat_addresses", key, "an own address");
    breaks("\"10.2.0.100\"", "\"10.1.0.100\"", "snat_addresses", key, "a virtual address");
    let key = "pool[web].server[1].address";
    breaks("10.2.0.11:80", "10.2.0.100:80", "10.2.0.100:80", key, "a source-NAT address");
    let key = "port[mirror].addresses[0]";
    breaks("\"10.9.0.1/24\"", "\"10.2.0.2/24\"", "10.2.0.2/24\"]", key, "an own address");
}

#[test]
fn a_network_on_two_ports() {
    let key = "port[mirror].addresses[1]";
    let words = "10.1.0.0/24 is on another port";
    breaks("\"10.9.0.1/24\"", "\"10.9.0.1/24\", \"10.1.0.9/24\"", "10.1.0.9", key, words);
}

#[test]
fn a_shared_address_on_no_network_of_its_port() {
    let key = "port[server].shared_addresses[0]";
    breaks("\"10.2.0.1/24\"", "\"10.5.0.1/24\"", "10.5.0.1", key, "own addresses");
}

#[test]
fn devices_that_are_none_or_another_ports() {
    let (good, key) = ("net_af_packet1,iface=s", "port[server].device");
    breaks(good, "eth1", "eth1", key, "a PCI address");
    breaks(good, "net_af_packet0,iface=s", "net_af_packet0,iface=s", key, "a device of its own");
    breaks(good, "net_af_packet1,iface=c", "net_af_packet1", key, "an interface of its own: iface=c");
    let pci = GOOD.replace("net_af_packet0,iface=c", "0000:3b:00.0").replace(good, "3B:00.0");
    one_error(&pci, "\"3B:00.0\"", key, "a device of its own");
}

#[test]
fn a_port_without_an_address() {
    let addresses = "addresses = [\"10.9.0.1/24\"]";
    breaks(addresses, "addresses = []", "addresses = []", "port[mirror].addresses", "at least one address");
}

#[test]
fn too_many_or_too_few_of_a_kind() {
    let workers = "worker = [ { cpu = 1 }, { cpu = 1 } ]";
    let many = format!("worker = [ {} ]", vec!["{ cpu = 1 }"; 17].join(", "));
    breaks(workers, &many, "worker", "lcores.worker", "1 to 16 workers");
    breaks(workers, "worker = []", "worker", "lcores.worker", "1 to 16 workers");
    let mut text = GOOD.to_owned();
    for n in 3..17 {
        text += &format!(
            "[[port]]\nname = \"p{n}\"\ndevice = \"net_tap{n}\"\naddresses = [\"10.{n}0.0.1/24\"]\n"
        );
    }
    let text = text.replace("10.90.0.1", "10.91.0.1");
    one_error(&text, "[[port]]", "port", "1 to 16 ports");
    let peers = "peers = [ { node = 2, address = \"10.9.0.2\" } ]";
    let four: Vec<_> = (2..6).map(|n| format!("{{ node = {n}, address = \"10.9.0.{n}\" }}")).collect();
    breaks(peers, &format!("peers = [ {} ]", four.join(", ")), "peers", "mirror.peers", "1 to 3 peers");
    breaks(peers, "peers = []", "peers", "mirror.peers", "1 to 3 peers");
}

#[test]
fn roles_may_be_divided_among_lcores() {
    let divided = "worker = [ { cpu = 3, roles = [\"distributor\"] }, { cpu = 1 }, { cpu = 2, roles = [\"mirror\", \
                   \"traffic-manager\"] } ]";
    let text = GOOD.replace("worker = [ { cpu = 1 }, { cpu = 1 } ]", divided);
    let checked = load(Path::new("a.toml"), &text).expect("it is good");
    let lcores = &checked.lcores;
    let cpus: Vec<_> = lcores.workers.iter().map(|worker| worker.cpu).collect();
    assert_eq!((cpus, lcores.managers()), (vec![1, 2, 3], 2), "traffic managers first");
    let distributors: Vec<_> = lcores.distributors().map(|worker| worker.0).collect();
    assert_eq!(distributors, [0, 2]);
}

#[test]
fn roles_that_do_not_make_an_appliance() {
    let both = "worker = [ { cpu = 1 }, { cpu = 1 } ]";
    let manager = "{ cpu = 1, roles = [\"traffic-manager\", \"mirror\"] }";
    let distributor = "{ cpu = 1, roles = [\"distributor\"] }";
    for (one, words) in [
        (manager, "at least one worker with the role \"distributor\""),
        (distributor, "at least one worker with the role \"traffic-manager\""),
    ] {
        let two = format!("worker = [ {one}, {one} ]");
        breaks(both, &two, "worker = ", "lcores.worker", words);
    }
    let not_built = "a worker that mirrors the flows of others is not built yet";
    for (roles, words) in [
        ("\"distributor\", \"mirror\"", format!("\"traffic-manager\" with \"mirror\": {not_built}")),
        ("\"traffic-manager\"", format!("\"mirror\" with \"traffic-manager\": {not_built}")),
        ("", "at least one role".to_owned()),
    ] {
        let worker = format!("{{ cpu = 1, roles = [{roles}] }}, {{");
        breaks("{ cpu = 1 }, {", &worker, "worker = ", "lcores.worker[0].roles", &words);
    }
    let twice = "{ cpu = 1, roles = [\"distributor\", \"distributor\"] }, {";
    breaks("{ cpu = 1 }, {", twice, "worker = ", "lcores.worker[0].roles[1]", "each role once");
    let misspelt = "{ cpu = 1, roles = [\"distributer\"] }, {";
    let words = "\"distributor\" or \"traffic-manager\" or \"mirror\"";
    breaks("{ cpu = 1 }, {", misspelt, "worker = ", "lcores.worker[0].roles[0]", words);
}

#[test]
fn peers_that_are_not_others() {
    let (node, address) = ("mirror.peers[0].node", "mirror.peers[0].address");
    breaks("{ node = 2, address", "{ node = 1, address", "peers", node, "this appliance's own");
    breaks("address = \"10.9.0.2\"", "address = \"10.9.0.1\"", "peers", address, "an own address");
    breaks("address = \"10.9.0.2\"", "address = \"10.8.0.2\"", "peers", address, "the mirror port");
    let twice = "peers = [ { node = 2, address = \"10.9.0.3\" }, ";
    breaks("peers = [ ", twice, "peers", "mirror.peers[1].node", "each node once");
}

#[test]
fn what_is_not_built_yet_is_refused_as_that() {
    for name in ["dsr", "ipip", "gue"] {
        let new = format!("forwarding = \"{name}\"");
        let words = format!("\"{name}\" is not built yet");
        breaks("forwarding = \"nat\"", &new, name, "virtual_server[www6].forwarding", &words);
    }
    for name in ["content", "standby-response", "standby-first"] {
        let new = format!("mode = \"{name}\"");
        let words = format!("\"{name}\" is not built yet");
        breaks("mode = \"checkpoint\"", &new, name, "virtual_server[www].mirror.mode", &words);
    }
}

#[test]
fn choices_that_there_are_not() {
    let key = "virtual_server[www].protocol";
    breaks("protocol = \"tcp\"", "protocol = \"sctp\"", "sctp", key, "\"tcp\" or \"udp\"");
    let words = "\"round-robin\" or \"maglev\"";
    breaks("balance = \"maglev\"", "balance = \"random\"", "random", "pool[web].balance", words);
    let key = "failover.partition";
    breaks("lease_ms = 36", "partition = \"both\"", "both", key, "\"availability\" or \"safety\"");
    let key = "failover.lagging";
    breaks("lease_ms = 36", "lagging = \"degrade\"", "degrade", key, "\"remove\" or \"wait\"");
    let key = "failover.vrrp_checksum";
    breaks("lease_ms = 36", "vrrp_checksum = \"none\"", "none", key, "\"pseudo-header\" or \"message\"");
}

#[test]
fn source_nat_addresses_that_do_not_suit() {
    let (good, key) = ("[\"10.2.0.100\"]", "virtual_server[www].snat_addresses");
    let words = "at least one IPv4 address";
    breaks("snat_addresses = [\"10.2.0.100\"]\n", "", "[[virtual_server]]", key, words);
    breaks(good, "[\"fd02::100\"]", "snat_addresses", key, words);
    let key = "virtual_server[www].snat_addresses[1]";
    breaks(good, "[\"10.2.0.100\", \"10.2.0.100\"]", "snat_addresses", key, "each address once");
    let key = "virtual_server[www6].snat_addresses";
    let new = "forwarding = \"nat\"\nsnat_addresses = [\"fd02::100\"]";
    breaks("forwarding = \"nat\"", new, "snat_addresses = [\"fd", key, "only \"full-nat\"");
}

#[test]
fn mixed_families() {
    let at = "pool = \"web\"\nforwarding = \"nat\"";
    breaks("pool = \"web6\"", "pool = \"web\"", at, "virtual_server[www6].pool", "a pool of IPv6 servers");
}

#[test]
fn mirroring_without_a_mirror() {
    let start = GOOD.find("[mirror]").expect("there is one");
    let end = GOOD.find("[failover]").expect("there is one");
    let text = format!("{}{}", &GOOD[..start], &GOOD[end..]);
    let key = "virtual_server[www].mirror.mode";
    one_error(&text, "mode = \"checkpoint\"", key, "\"off\", or a [mirror] table");
    let alone = text.replace("mirror = { mode = \"checkpoint\", commit = \"hold\" }\n", "");
    let checked = load(Path::new("alone.toml"), &alone).expect("a lone appliance is fine");
    assert!(checked.mirror.is_none());
    assert!(checked.virtual_servers.iter().all(|server| server.mirror == MirrorMode::Off));
}

#[test]
fn a_health_check_that_outlasts_its_interval() {
    let health = "health = { check = \"tcp\", interval_ms = 500 }";
    let words = "timeout_ms (500) to be less than interval_ms (500)";
    breaks("balance = \"maglev\"", health, "health", "pool[web].health.interval_ms", words);
}

#[test]
fn paths_and_sockets_that_do_not_suit() {
    breaks("key_file = \"mirror.key\"", "key_file = \"\"", "key_file", "mirror.key_file", "not empty");
    let long = format!("[control]\nsocket = \"/run/{}\"\n\n[failover]", "x".repeat(103));
    breaks("[failover]", &long, "socket", "control.socket", "shorter than 108 bytes");
    let named = "[control]\nmetrics = \"localhost:9101\"\n\n[failover]";
    breaks("[failover]", named, "metrics", "control.metrics", "an address and a port");
}

#[test]
fn all_errors_come_at_once_in_the_order_of_lines() {
    let text = GOOD
        .replace("node = 1\n", "node = 0\n")
        .replace("idle = \"sleep\"", "idel = \"sleep\"")
        .replace("10.1.0.2/24", "10.1.0.2/99")
        .replace("pool = \"web6\"", "pool = \"nowhere\"")
        .replace("mode = \"checkpoint\"", "mode = \"content\"")
        .replace("virtual_router_id = 51", "virtual_router_id = 1000");
    let errors = errors_of(&text);
    let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "appliance.node",
            "lcores.idel",
            "port[client].addresses[0]",
            "virtual_server[www].mirror.mode",
            "virtual_server[www6].pool",
            "failover.virtual_router_id",
        ]
    );
}

#[test]
fn an_error_prints_as_one_line() {
    let errors = errors_of(&GOOD.replacen("node = 1", "node = 0", 1));
    let line = "broken.toml:3: appliance.node = 0: expected a whole number from 1 to 65535";
    assert_eq!(errors[0].to_string(), line);
}

#[test]
fn warnings_tell_what_is_accepted_but_should_be_known() {
    let text = GOOD
        .replace("balance = \"maglev\"", "health = { check = \"tcp\" }")
        .replace("pool = \"web6\"", "pool = \"web\"")
        .replace("[fd01::100]:80", "10.1.0.101:80")
        .replace("shared_addresses = [\"10.2.0.1/24\", ", "shared_addresses = [")
        .replace("idle = \"sleep\"", "idle = \"poll\"")
        .replace("master_cpu = 0", "master_cpu = 1");
    let (_, warnings) = load_with_warnings(Path::new("w.toml"), &text).expect("it is accepted");
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    let has = |key: &str, words: &str| told.iter().any(|w| w.contains(key) && w.contains(words));
    assert!(has("pool[web].health", "servers are taken as up"), "{told:?}");
    assert!(has("pool[web6].name", "no virtual server uses this pool"), "{told:?}");
    assert!(has("virtual_server[www6].forwarding", "no shared_addresses"), "{told:?}");
    assert!(has("lcores.worker[1].cpu", "shares this CPU"), "{told:?}");
}

#[test]
fn no_mutilation_of_a_file_makes_it_panic_or_fail_without_an_error() {
    let told = |text: &str| {
        if let Err(errors) = load(Path::new("mutilated.toml"), text) {
            let lines = text.lines().count() + 1;
            assert!(!errors.is_empty() && errors.iter().all(|e| (1..=lines).contains(&e.line)), "{text}");
        }
    };
    let lines: Vec<&str> = GOOD.lines().collect();
    for skipped in 0..lines.len() {
        let text = [&lines[..skipped], &lines[skipped + 1..]].concat().join("\n");
        told(&text);
    }
    for at in 0..GOOD.len() {
        told(&GOOD[..at]);
        for other in ["\"", "9", "é", "[", "\n", ""] {
            let text = format!("{}{other}{}", &GOOD[..at], &GOOD[at + 1..]);
            told(&text);
        }
    }
}
