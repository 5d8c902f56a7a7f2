//! The witness in the configuration.

use std::path::Path;

use baton::config::{load, load_with_warnings};

use crate::{GOOD, one_error};

fn with(lines: &str) -> String {
    GOOD.replacen("virtual_router_id = 51", &format!("virtual_router_id = 51\n{lines}"), 1)
}

#[test]
fn a_witness_is_an_address_and_a_port() {
    assert!(load(Path::new("a.toml"), GOOD).expect("it is good").failover.witness.is_none());
    for address in ["192.0.2.9:7878", "[fd09::9]:7878"] {
        let text = with(&format!("witness = \"{address}\""));
        let (checked, warnings) = load_with_warnings(Path::new("a.toml"), &text).expect("it is good");
        assert_eq!(checked.failover.witness.map(|at| at.to_string()), Some(address.to_owned()));
        assert!(warnings.is_empty(), "{warnings:?}");
    }
    for (value, expected) in [
        ("\"192.0.2.9\"", "an address and a port"),
        ("\"192.0.2.9:0\"", "an address and a port"),
        ("\"witness.example:7878\"", "an address and a port"),
        ("7878", "an address and a port"),
        ("\"0.0.0.0:7878\"", "the address of one machine"),
        ("\"224.0.0.1:7878\"", "the address of one machine"),
    ] {
        one_error(&with(&format!("witness = {value}")), "witness", "failover.witness", expected);
    }
}

#[test]
fn a_witness_and_safety_exclude_each_other() {
    let text = with("witness = \"192.0.2.9:7878\"\npartition = \"safety\"");
    one_error(&text, "witness", "failover.witness", "either a witness or partition");
}

#[test]
fn a_witness_needs_peers_and_a_machine_of_its_own() {
    let text = with("witness = \"127.0.0.1:7878\"");
    let (_, warnings) = load_with_warnings(Path::new("a.toml"), &text).expect("it is good");
    assert!(warnings.len() == 1 && warnings[0].to_string().contains("on a third one"), "{warnings:?}");
    let text = with("witness = \"192.0.2.9:7878\"");
    let start = text.find("[mirror]").expect("there is one");
    let end = text.find("[failover]").expect("there is one");
    let alone = format!("{}{}", &text[..start], &text[end..])
        .replace("mirror = { mode = \"checkpoint\", commit = \"hold\" }\n", "");
    one_error(&alone, "witness", "failover.witness", "a [mirror] table as well");
}
