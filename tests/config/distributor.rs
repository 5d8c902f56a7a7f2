//! The selection of a traffic manager in the configuration (REQ D2).

use std::path::Path;

use baton::base::ids::WorkerId;
use baton::config::checked::{Checked, ChosenMethod, HashMethod, Method};
use baton::config::{ConfigError, Warning, load, load_with_warnings};

use crate::{GOOD, breaks, errors_of};

/// The good file, which has two traffic managers, with this `[distributor]`.
fn with(table: &str) -> String {
    GOOD.replacen("[mirror]", &format!("[distributor]\n{table}\n\n[mirror]"), 1)
}

#[track_caller]
fn accepted(text: &str) -> Checked {
    load(Path::new("a.toml"), text).unwrap_or_else(|errors| panic!("{}", told(&errors)))
}

fn told(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// With this `[distributor]`: one error, at the line where `at` stands, for `key`, which holds `expected`.
#[track_caller]
fn refuses(table: &str, at: &str, key: &str, expected: &str) {
    breaks("[mirror]", &format!("[distributor]\n{table}\n\n[mirror]"), at, key, expected);
}

/// Warnings for keys that begin so.
fn warnings_for(text: &str, key: &str) -> Vec<Warning> {
    let (_, warnings) =
        load_with_warnings(Path::new("a.toml"), text).unwrap_or_else(|errors| panic!("{}", told(&errors)));
    warnings.into_iter().filter(|warning| warning.key.starts_with(key)).collect()
}

#[test]
fn without_a_table_connections_go_by_a_hash_of_their_source() {
    let checked = accepted(GOOD);
    let source = Method::Hash(HashMethod::Source);
    assert_eq!(checked.distributor.select, source);
    assert!(checked.virtual_servers.iter().all(|server| server.select == source));
    assert!(!checked.distributor.remembers && !checked.distributor.route_to_servers);
    let with_places = accepted(&with("max_keys = 256"));
    assert!(with_places.distributor.remembers, "who asks for places has them");
    assert_eq!((checked.distributor.ratio, checked.distributor.classes.len()), (vec![1, 1], 0));
    assert!(checked.lcores.workers.iter().all(|worker| worker.zone.is_none()));
    assert!(checked.ports.iter().all(|port| port.zone.is_none()));
}

#[test]
fn every_method_is_known_by_its_name() {
    for method in Method::ALL {
        let more = match method {
            Method::Chosen(ChosenMethod::StaticRatio) => "ratio = [1, 3]",
            Method::Chosen(ChosenMethod::QualityOfService) => "classes = [ { dscp = [46], managers = [1] } ]",
            Method::Hash(_) | Method::Chosen(_) => "",
        };
        let checked = accepted(&with(&format!("select = \"{}\"\n{more}", method.text())));
        assert_eq!(checked.distributor.select, method);
        assert_eq!(checked.virtual_servers[0].select, method, "it is what a virtual server has by default");
        assert_eq!(checked.distributor.max_keys, if method.is_hash() { 65_536 } else { 1_000_000 });
        assert_eq!(checked.distributor.remembers, method != Method::Hash(HashMethod::Source));
    }
}

#[test]
fn a_virtual_server_may_say_otherwise() {
    let text =
        GOOD.replacen("forwarding = \"nat\"", "forwarding = \"nat\"\nselect = \"least-connections\"", 1);
    let checked = accepted(&text);
    assert_eq!(checked.virtual_servers[0].select, Method::Hash(HashMethod::Source));
    assert_eq!(checked.virtual_servers[1].select, Method::Chosen(ChosenMethod::LeastConnections));
    assert_eq!(checked.distributor.max_keys, 1_000_000, "the places follow from flows.max");
    // All that would be remembered says otherwise.
    let hashed = GOOD.replace("pool = \"web", "select = \"key\"\npool = \"web");
    let hashed = hashed.replacen("[mirror]", "[distributor]\nselect = \"round-robin\"\n\n[mirror]", 1);
    let distributor = accepted(&hashed).distributor;
    assert_eq!((distributor.max_keys, distributor.remembers), (65_536, true));
}

#[test]
fn all_that_a_distributor_is_told() {
    let text = with(
        "select = \"static-ratio\"\nratio = [0, 3]\nmax_keys = 4096\nroute_to_servers = true\n\
         classes = [ { dscp = [46, 34], managers = [1] }, { dscp = [0], managers = [0, 1] } ]",
    );
    let text = text
        .replacen("forwarding = \"nat\"", "forwarding = \"nat\"\nselect = \"quality-of-service\"", 1)
        .replacen("{ cpu = 1 }, { cpu = 1 }", "{ cpu = 1 }, { cpu = 1, zone = \"left\" }", 1)
        .replacen("name = \"server\"\n", "name = \"server\"\nzone = \"left\"\n", 1);
    let checked = accepted(&text);
    let distributor = &checked.distributor;
    assert_eq!(distributor.ratio, [0, 3]);
    assert_eq!((distributor.max_keys, distributor.route_to_servers), (4096, true));
    assert_eq!(distributor.classes[0].dscp, [46, 34]);
    let has = |class: usize| [0, 1].map(|number| distributor.classes[class].managers.has(WorkerId(number)));
    assert_eq!((has(0), has(1)), ([false, true], [true, true]));
    let zones: Vec<_> = checked.lcores.workers.iter().map(|worker| worker.zone.as_deref()).collect();
    assert_eq!(zones, [None, Some("left")]);
    assert_eq!(checked.ports[1].zone.as_deref(), Some("left"));
}

#[test]
fn methods_that_there_are_not() {
    let key = "distributor.select";
    refuses("select = \"random\"", "random", key, "\"source\" or \"source-address\" or \"destination\"");
    refuses("select = 7", "select = 7", key, "\"completion-rate\" or \"quality-of-service\" or \"topology\"");
    let new = "forwarding = \"nat\"\nselect = \"least_connections\"";
    breaks(
        "forwarding = \"nat\"",
        new,
        "least_connections",
        "virtual_server[www6].select",
        "\"least-connections\"",
    );
    for method in ["round-trip-time", "hops", "global-availability"] {
        let words = format!("\"{method}\" needs managers on other machines");
        refuses(&format!("select = \"{method}\""), method, key, &words);
        let new = format!("forwarding = \"nat\"\nselect = \"{method}\"");
        breaks("forwarding = \"nat\"", &new, method, "virtual_server[www6].select", &words);
    }
}

#[test]
fn a_ratio_that_does_not_fit_the_traffic_managers() {
    let (ratio, key) = ("select = \"static-ratio\"\nratio", "distributor.ratio");
    for (list, given) in [("[]", 0), ("[1]", 1), ("[1, 2, 3]", 3)] {
        let words = format!("2 weights, one for each traffic manager; these are {given}");
        refuses(&format!("{ratio} = {list}"), "ratio = [", key, &words);
    }
    refuses(&format!("{ratio} = [0, 0]"), "ratio = [", key, "at least one weight above 0");
    let words = "a whole number from 0 to 1000";
    refuses(&format!("{ratio} = [1, 1001]"), "ratio = [", "distributor.ratio[1]", words);
    refuses("select = \"static-ratio\"", "static-ratio", "distributor.select", "or distributor.ratio");
    let new = "forwarding = \"nat\"\nselect = \"static-ratio\"";
    breaks("forwarding = \"nat\"", new, "static", "virtual_server[www6].select", "or distributor.ratio");
}

#[test]
fn weights_and_classes_are_of_traffic_managers_alone() {
    let workers = "worker = [ { cpu = 1, roles = [\"distributor\"] }, { cpu = 1 } ]";
    let text = GOOD.replacen("worker = [ { cpu = 1 }, { cpu = 1 } ]", workers, 1);
    let with = |table: &str| text.replacen("[mirror]", &format!("[distributor]\n{table}\n\n[mirror]"), 1);
    let ratio = "select = \"static-ratio\"\nratio";
    assert_eq!(accepted(&with(&format!("{ratio} = [2]"))).distributor.ratio, [2]);
    let errors = errors_of(&with(&format!("{ratio} = [2, 1]")));
    assert!(told(&errors).contains("1 weights"), "{}", told(&errors));
    let class = "select = \"quality-of-service\"\nclasses = [ { dscp = [1], managers";
    accepted(&with(&format!("{class} = [0] }} ]")));
    let errors = errors_of(&with(&format!("{class} = [1] }} ]")));
    assert!(told(&errors).contains("one of 1 traffic managers"), "{}", told(&errors));
}

#[test]
fn classes_that_do_not_tell_packets_apart() {
    let classes = |inner: &str| format!("select = \"quality-of-service\"\nclasses = [ {inner} ]");
    let key = |class: usize, rest: &str| format!("distributor.classes[{class}].{rest}");
    let breaks = |inner: &str, key: &str, words: &str| refuses(&classes(inner), "classes = ", key, words);
    breaks("{ dscp = [64], managers = [0] }", &key(0, "dscp[0]"), "a whole number from 0 to 63");
    breaks("{ dscp = [], managers = [0] }", &key(0, "dscp"), "at least one DSCP value");
    breaks("{ dscp = [1], managers = [] }", &key(0, "managers"), "at least one traffic manager");
    breaks("{ dscp = [1], managers = [2] }", &key(0, "managers[0]"), "one of 2 traffic managers, from 0");
    breaks("{ dscp = [1], managers = [0, 0] }", &key(0, "managers[1]"), "each traffic manager once");
    breaks("{ dscp = [1] }", &key(0, "managers"), "is missing");
    breaks("{ managers = [1] }", &key(0, "dscp"), "is missing");
    let two = "{ dscp = [1, 2], managers = [0] }, { dscp = [3, 2], managers = [1] }";
    breaks(two, &key(1, "dscp[1]"), "each DSCP value once: 2 is on line");
    breaks("{ dscp = [5, 5], managers = [0] }", &key(0, "dscp[1]"), "each DSCP value once");
    let words = "or distributor.classes";
    refuses("select = \"quality-of-service\"", "quality-of", "distributor.select", words);
}

#[test]
fn numbers_of_keys_out_of_range() {
    for number in ["255", "268_435_457", "-1"] {
        let words = "a whole number from 256 to 268435456";
        refuses(&format!("max_keys = {number}"), "max_keys", "distributor.max_keys", words);
    }
    refuses("route_to_servers = 1", "route_to", "distributor.route_to_servers", "true or false");
    refuses("max_kyes = 256", "max_kyes", "distributor.max_kyes", "did you mean \"max_keys\"?");
}

#[test]
fn what_goes_to_a_named_traffic_manager() {
    let keys = "key = [ { destination = \"10.1.0.100:80\", protocol = \"tcp\", manager = 1 },\n\
                { destination = \"fd01::100\", protocol = \"tcp\", manager = 0 } ]";
    let distributor = accepted(&with(keys)).distributor;
    let named: Vec<_> = distributor.keys.iter().map(|key| (key.address, key.port, key.manager.0)).collect();
    let ip = |text: &str| text.parse::<std::net::IpAddr>().expect("an address");
    assert_eq!(named, [(ip("10.1.0.100"), Some(80), 1), (ip("fd01::100"), None, 0)]);
    assert_eq!((distributor.remembers, distributor.max_keys), (true, 1_000_000));
}

#[test]
fn destinations_that_cannot_go_to_a_named_traffic_manager() {
    let key = |destination: &str, rest: &str| {
        format!("key = [ {{ destination = \"{destination}\", protocol = {rest} }} ]")
    };
    let breaks = |destination: &str, rest: &str, of: &str, words: &str| {
        refuses(&key(destination, rest), "key = ", &format!("distributor.key[0].{of}"), words);
    };
    let good = "\"tcp\", manager = 1";
    for wrong in ["10.1.0.100:0", "10.1.0.256", "10.1.0.100:http", "224.0.0.1", "", "www"] {
        breaks(wrong, good, "destination", "an address in quotes, with or without a port");
    }
    for nobodys in ["10.1.0.100:81", "10.1.0.77", "10.2.0.1", "[fd01::100]:81"] {
        breaks(nobodys, good, "destination", "the address of a virtual server of tcp");
    }
    breaks("10.1.0.100:80", "\"udp\", manager = 1", "destination", "the address of a virtual server of udp");
    breaks("10.1.0.100:80", "\"tcp\", manager = 2", "manager", "one of 2 traffic managers, from 0");
    breaks("10.1.0.100:80", "\"tcp\", manager = 16", "manager", "a whole number from 0 to 15");
    breaks("10.1.0.100:80", "\"sctp\", manager = 1", "protocol", "\"tcp\" or \"udp\"");
    breaks("10.1.0.100:80", "\"tcp\"", "manager", "is missing");
    let one = "{ destination = \"10.1.0.100:80\", protocol = \"tcp\", manager = 1 }";
    let twice = format!("key = [ {one}, {one} ]");
    refuses(
        &twice,
        "key = ",
        "distributor.key[1].destination",
        "each destination of tcp once: it is on line",
    );
}

#[test]
fn zones_that_are_no_names() {
    let new = "name = \"server\"\nzone = 1\n";
    breaks("name = \"server\"\n", new, "zone = 1", "port[server].zone", "a name");
    let new = "{ cpu = 1, zone = \"a b\" }, {";
    breaks("{ cpu = 1 }, {", new, "worker = ", "lcores.worker[0].zone", "a name");
}

#[test]
fn what_has_no_effect_is_told() {
    let told = |text: &str, key: &str, words: &str| {
        let warnings = warnings_for(text, key);
        let fits = warnings.iter().any(|warning| warning.message.contains(words));
        assert!(fits, "{key} lacks {words:?}: {warnings:?}");
    };
    told(&with("ratio = [1, 2]"), "distributor.ratio", "nothing selects by \"static-ratio\"");
    let classes = with("classes = [ { dscp = [1], managers = [0] } ]");
    told(&classes, "distributor.classes", "nothing selects by \"quality-of-service\"");
    let zone = GOOD.replacen("name = \"server\"\n", "name = \"server\"\nzone = \"left\"\n", 1);
    told(&zone, "port[server].zone", "no traffic manager is in this zone");
    let workers = "worker = [ { cpu = 1, roles = [\"distributor\"], zone = \"left\" }, { cpu = 1 } ]";
    let zone = GOOD.replacen("worker = [ { cpu = 1 }, { cpu = 1 } ]", workers, 1);
    told(&zone, "lcores.worker[0].zone", "only traffic managers are selected by zone");
    assert_eq!(warnings_for(GOOD, "distributor"), []);
    assert_eq!(warnings_for(&with("route_to_servers = true"), "distributor"), []);
    assert_eq!(warnings_for(&with("select = \"static-ratio\"\nratio = [1, 2]"), "distributor.ratio"), []);
}

#[test]
fn virtual_servers_that_share_a_real_server_by_nat_have_one_traffic_manager_for_both() {
    let second = |select: &str| {
        let more = format!(
            "[[virtual_server]]\nname = \"other\"\naddress = \"10.1.0.177:80\"\nprotocol = \"tcp\"\npool = \"POOL\"\n\
             forwarding = \"nat\"\n{select}\n\n[[virtual_server]]\nname = \"another\"\naddress = \"10.1.0.178:80\"\n\
             protocol = \"tcp\"\npool = \"POOL\"\nforwarding = \"nat\"\n\n[mirror]"
        );
        let pool = accepted(GOOD).pools[0].name.clone();
        GOOD.replacen("[mirror]", &more.replace("POOL", &pool), 1)
    };
    accepted(&second(""));
    accepted(&second("select = \"source\""));
    for select in ["key", "round-robin", "source-address", "destination"] {
        let errors = errors_of(&second(&format!("select = \"{select}\"")));
        assert_eq!(errors.len(), 1, "{}", told(&errors));
        assert!(told(&errors).contains("answers could belong to either"), "{}", told(&errors));
    }
    let by_address =
        second("").replacen("[mirror]", "[distributor]\nselect = \"source-address\"\n\n[mirror]", 1);
    accepted(&by_address);
}
