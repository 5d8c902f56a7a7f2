//! The recipes for real cards, as far as they can be tried without one: the appliance's
//! configuration is good with what the script puts into it, and every script says how it is used.

use std::path::{Path, PathBuf};
use std::process::Command;

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")
}

#[test]
fn the_appliances_configuration_is_good_with_both_kinds_of_forwarding() {
    let template = std::fs::read_to_string(recipes().join("baton.toml.in")).expect("it is there");
    for (forwarding, snat) in [("full-nat", "snat_addresses = [ \"10.2.2.1\", \"10.2.2.2\" ]"), ("nat", "")] {
        let mut text = template.clone();
        for (name, value) in [
            ("CLIENT", "0000:3b:00.0"),
            ("SERVER", "0000:3b:00.1"),
            ("SERVERS", "{ address = \"10.2.1.1:80\" }, { address = \"10.2.1.2:80\" }"),
            ("SNAT", snat),
            ("FOLDER", "state"),
            ("FORWARDING", forwarding),
            ("FLOWS", "1100000"),
            ("MASTER_CPU", "0"),
            ("WORKERS", "{ cpu = 1 },{ cpu = 2 }"),
        ] {
            let mark = format!("@{name}@");
            assert!(text.contains(&mark), "nothing asks for {mark}");
            text = text.replace(&mark, value);
        }
        let (_, settings) = text.split_once("[appliance]").expect("a table");
        assert!(!settings.contains('@'), "a name is left: {settings}");
        let (checked, warnings) =
            baton::config::load_with_warnings(Path::new("baton.toml"), &text).expect("it is good");
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!((checked.virtual_servers.len(), checked.lcores.workers.len()), (2, 2));
    }
}

#[test]
fn every_recipe_says_how_it_is_used_and_refuses_to_guess() {
    for name in ["appliance", "testpmd", "wire", "pktgen", "dperf"] {
        let help = Command::new(recipes().join(name)).arg("--help").output().expect("it starts");
        let text = String::from_utf8_lossy(&help.stdout);
        assert!(help.status.success() && text.contains(&format!("  {name} ")), "{name}: {text}");
        let without = Command::new(recipes().join(name)).output().expect("it starts");
        assert_eq!(without.status.code(), Some(2), "{name} without a device");
    }
}
