//! Rules about which flows are mirrored, in the configuration.

use std::path::Path;

use baton::base::time::Duration;
use baton::config::checked::policy::{Pattern, Rule, fingerprint, text};
use baton::config::load;
use baton::config::mirrored;
use baton::config::reload::differences;

use crate::{GOOD, one_error};

/// The good file, with these rules of `www`.
fn with(rules: &str) -> String {
    GOOD.replace("commit = \"hold\" }", &format!("commit = \"hold\", rules = [{rules}] }}"))
}

fn rules(text: &str) -> Vec<Rule> {
    let checked = load(Path::new("a.toml"), &with(text));
    checked.unwrap_or_else(|errors| panic!("{errors:?}")).virtual_servers[0].rules.clone()
}

const ALL: &str = "{ mirror = true, clients = [\"10.1.0.0/16\", \"192.0.2.7/32\"], client_ports = [\"53\", \"1024-2047\"], \
                   server_ports = [\"80\"], dscp = [0, 46, 63], payload = \"GET \\\"/\", payload_at = 3, \
                   duration_min_ms = 2000, bytes_min = 3, packets_min = 4, rate_min_kbps = 5 }, \
                   { mirror = false, payload = \"hex:00fF0a\" }, { mirror = true, dscp = [] }";

#[test]
fn a_rule_says_what_it_says_and_nothing_of_the_rest() {
    assert!(rules("").is_empty());
    let all = rules(ALL);
    let [first, second, third] = &all[..] else { panic!("{all:?}") };
    assert!(first.mirror && !second.mirror && third.mirror);
    assert!(first.clients[0].contains("10.1.255.9".parse().unwrap()) && first.clients.len() == 2);
    assert!(
        first.client_ports[1].has(1024)
            && first.client_ports[1].has(2047)
            && !first.client_ports[1].has(2048)
    );
    assert_eq!(first.dscp, 1 | 1 << 46 | 1 << 63);
    assert_eq!(first.payload, Some(Pattern { bytes: b"GET \"/".to_vec(), at: Some(3) }));
    assert_eq!(second.payload, Some(Pattern { bytes: vec![0, 0xff, 0x0a], at: None }));
    assert_eq!(first.duration_min, Duration::from_secs(2));
    assert_eq!((first.bytes_min, first.packets_min, first.rate_min_kbit), (3, 4, 5));
    assert!(first.waits() && first.counts() && !third.waits() && !third.counts());
}

#[test]
fn rules_are_told_to_other_members_and_come_out_the_same() {
    let checked = load(Path::new("a.toml"), &with(ALL)).expect("it is good");
    let told = mirrored::text(&checked);
    let taken = mirrored::take(
        Path::new("b.toml"),
        GOOD,
        &load(Path::new("b.toml"), GOOD).unwrap(),
        "node 1's",
        &told,
    );
    let (taken, _) = taken.unwrap_or_else(|errors| panic!("{errors:?}\n{told}"));
    let (ours, theirs) = (&checked.virtual_servers[0], &taken.virtual_servers[0]);
    assert_eq!(ours.rules, theirs.rules);
    assert_eq!(fingerprint(ours.id, &ours.rules), fingerprint(theirs.id, &theirs.rules));
    assert_eq!(rules(text(&ours.rules).trim_matches(['[', ']'])), ours.rules, "{}", text(&ours.rules));
    assert!(!mirrored::text(&load(Path::new("a.toml"), GOOD).unwrap()).contains("rules"), "none, as ever");
    let none = load(Path::new("a.toml"), GOOD).expect("it is good");
    let said = differences(&none, &checked);
    assert_eq!(said, ["virtual server www: other rules of what is mirrored: 3, were 0"]);
}

#[test]
fn any_other_rules_have_another_fingerprint() {
    let id = load(Path::new("a.toml"), GOOD).unwrap().virtual_servers[0].id;
    let of = |text: &str| fingerprint(id, &rules(text));
    let mut seen = vec![of(ALL)];
    for (old, new) in [
        ("mirror = false", "mirror = true"),
        ("10.1.0.0/16", "10.1.0.0/17"),
        ("1024-2047", "1024-2046"),
        ("server_ports = [\"80\"]", "server_ports = [\"81\"]"),
        ("46", "45"),
        ("GET", "get"),
        ("payload_at = 3", "payload_at = 4"),
        ("fF0a", "fF0b"),
        ("2000", "2001"),
        ("bytes_min = 3", "bytes_min = 4"),
        ("packets_min = 4", "packets_min = 5"),
        ("kbps = 5", "kbps = 6"),
    ] {
        let changed = ALL.replacen(old, new, 1);
        assert_ne!(changed, ALL, "{old}");
        seen.push(of(&changed));
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[test]
fn rules_that_do_not_suit() {
    let rule = |key: &str| format!("virtual_server[www].mirror.rules[0].{key}");
    for (text, key, expected) in [
        ("{ dscp = [1] }", "mirror", "is missing"),
        ("{ mirror = 1 }", "mirror", "true or false"),
        (
            "{ mirror = true, clients = [\"10.1.0.1/16\"] }",
            "clients[0]",
            "a network whose host bits are zero",
        ),
        ("{ mirror = true, clients = [\"fd01::/64\"] }", "clients[0]", "of the virtual address's family"),
        (
            "{ mirror = true, client_ports = [\"0\"] }",
            "client_ports[0]",
            "a port from 1 to 65535, or a range",
        ),
        (
            "{ mirror = true, client_ports = [\"9-8\"] }",
            "client_ports[0]",
            "a port from 1 to 65535, or a range",
        ),
        ("{ mirror = true, server_ports = [80] }", "server_ports[0]", "a port from 1 to 65535, or a range"),
        ("{ mirror = true, dscp = [64] }", "dscp[0]", "from 0 to 63"),
        ("{ mirror = true, payload = \"\" }", "payload", "1 to 64 bytes"),
        ("{ mirror = true, payload = \"hex:123\" }", "payload", "1 to 64 bytes"),
        ("{ mirror = true, payload = \"hex:1z\" }", "payload", "1 to 64 bytes"),
        ("{ mirror = true, payload_at = 3 }", "payload_at", "a payload, too"),
        ("{ mirror = true, payload_at = 64, payload = \"a\" }", "payload_at", "from 0 to 63"),
        ("{ mirror = true, payload_at = 62, payload = \"abc\" }", "payload_at", "within the first 64 bytes"),
        ("{ mirror = true, duration_min_ms = 0 }", "duration_min_ms", "from 1 to 4294967295 milliseconds"),
        ("{ mirror = true, rate_min = 1 }", "rate_min", "a key that is known here"),
    ] {
        one_error(&with(text), "mode = \"checkpoint\"", &rule(key), expected);
    }
    for (list, entry) in [
        ("clients", "\"10.1.0.0/16\""),
        ("client_ports", "\"53\""),
        ("server_ports", "\"53\""),
        ("dscp", "1"),
    ] {
        let of = |count: usize| format!("{{ mirror = true, {list} = [{}] }}", vec![entry; count].join(", "));
        assert_eq!(rules(&of(64)).len(), 1);
        one_error(&with(&of(65)), "mode = \"checkpoint\"", &rule(list), "at most 64 entries, not 65");
    }
    let behind = "{ mirror = true }, { mirror = false, dscp = [1] }";
    let key = "virtual_server[www].mirror.rules[1]";
    one_error(&with(behind), "mode = \"checkpoint\"", key, "no rule behind the one on line");
    let many = ["{ mirror = true, dscp = [1] }"; 17].join(", ");
    let key = "virtual_server[www].mirror.rules";
    one_error(&with(&many), "mode = \"checkpoint\"", key, "at most 16 rules, not 17");
    let off = GOOD.replace(
        "mode = \"checkpoint\", commit = \"hold\" }",
        "mode = \"off\", rules = [ { mirror = true } ] }",
    );
    one_error(&off, "mode = \"off\"", key, "nothing is mirrored then");
}
