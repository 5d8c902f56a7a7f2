//! The configuration files that baton ships: they are good, the pair fits
//! together, and example.toml tells every key with its true default.

use std::collections::BTreeMap;
use std::path::Path;

use baton::config::checked::Checked;
use baton::config::{Presence, known_keys, load, load_with_warnings};

fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    std::fs::read_to_string(path).expect("it is shipped")
}

#[test]
fn the_shipped_files_are_good_and_the_pair_fits_together() {
    load(Path::new("example.toml"), &shipped("example.toml")).expect("example.toml is good");
    let (active, warnings) =
        load_with_warnings(Path::new("active.toml"), &shipped("active.toml")).expect("active.toml is good");
    assert!(warnings.is_empty(), "{warnings:?}");
    let standby = load(Path::new("standby.toml"), &shipped("standby.toml")).expect("standby.toml is good");
    let (a, b) = (active.mirror.as_ref().expect("mirrors"), standby.mirror.as_ref().expect("mirrors"));
    assert_eq!((a.peers[0].node, b.peers[0].node), (standby.appliance.node, active.appliance.node));
    let speaks_from = |of: &Checked, port: usize, address| {
        of.ports[port].addresses.iter().any(|own| own.address == address)
    };
    assert!(speaks_from(&standby, usize::from(b.port.0), a.peers[0].address));
    assert!(speaks_from(&active, usize::from(a.port.0), b.peers[0].address));
    assert_eq!(a.udp_port, b.udp_port);
    assert_eq!(active.failover.virtual_router_id, standby.failover.virtual_router_id);
    let served = |checked: &Checked| -> Vec<_> {
        checked.virtual_servers.iter().map(|server| (server.id, server.address, server.port)).collect()
    };
    assert_eq!(served(&active), served(&standby));
    for (mine, theirs) in active.ports.iter().zip(&standby.ports) {
        assert_eq!(mine.shared_addresses, theirs.shared_addresses);
    }
}

/// The keys in example.toml, commented-out ones too, each with the `Required.`
/// or `Default: ….` that stands above its first occurrence.
fn documented() -> BTreeMap<String, Option<String>> {
    let mut found = BTreeMap::new();
    let (mut table, mut stated) = (String::new(), None);
    for line in shipped("example.toml").lines() {
        // Of an array of tables, a commented-out header, too.
        let line_of_header = line.strip_prefix("# ").filter(|rest| rest.starts_with("[[")).unwrap_or(line);
        if let Some(header) = line_of_header.strip_prefix('[') {
            table = header.trim_start_matches('[').trim_end_matches(']').to_owned();
            stated = None;
            continue;
        }
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('#') && (bare == "Required." || bare.starts_with("Default: ")) {
            stated = Some(bare.to_owned());
        } else if let Some((key, _)) = bare.split_once(" = ") {
            if key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                found.entry(format!("{table}.{key}")).or_insert(stated.take());
            }
        }
    }
    found
}

#[test]
fn the_example_has_every_key_with_its_true_default() {
    let mut documented = documented();
    for key in known_keys() {
        let stated =
            documented.remove(&key.path).unwrap_or_else(|| panic!("example.toml lacks {}", key.path));
        let expected = match key.presence {
            Presence::Required => Some("Required.".to_owned()),
            Presence::Default(default) => Some(format!("Default: {default}.")),
            Presence::Optional => None,
        };
        assert_eq!(stated, expected, "what example.toml states of {}", key.path);
    }
    assert!(documented.is_empty(), "example.toml has keys that baton does not know: {documented:?}");
}

#[test]
fn a_default_written_out_is_the_same_as_left_out() {
    let plain = shipped("active.toml");
    let mut explicit = plain.clone();
    for key in known_keys() {
        let (table, name) = key.path.rsplit_once('.').expect("every key is in a table");
        let Presence::Default(default) = key.presence else { continue };
        let header = format!("\n[{table}]\n");
        let Some(start) = explicit.find(&header).map(|at| at + header.len()) else { continue };
        let end = explicit[start..].find("\n[").map_or(explicit.len(), |len| start + len);
        if !explicit[start..end].lines().any(|line| line.starts_with(&format!("{name} ="))) {
            explicit.insert_str(start, &format!("{name} = {default}\n"));
        }
    }
    assert!(
        explicit.contains("walk_rate = 100_000") && explicit.contains("boot_wait_ms = 2000"),
        "{explicit}"
    );
    let load = |text: &str| load(Path::new("a.toml"), text).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(format!("{:?}", load(&plain)), format!("{:?}", load(&explicit)));
}
