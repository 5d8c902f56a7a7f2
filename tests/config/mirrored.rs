//! The services of a configuration, told to another member: they come out as they went in, and what does not fit is named.

use std::path::Path;

use baton::config::checked::Checked;
use baton::config::mirrored::{Edition, take, text};
use baton::config::reload::{differences, reload, without_idle};
use baton::config::{ConfigError, Warning, load};

use crate::{GOOD, line_of};

const PATH: &str = "standby.toml";

/// The other member's file: its own addresses, and services of long ago.
fn standby() -> String {
    GOOD.replace("node = 1\n", "node = 2\n")
        .replace("node = 2, address = \"10.9.0.2\"", "node = 1, address = \"10.9.0.1\"")
        .replace("10.9.0.1/24", "10.9.0.2/24")
        .replace("10.1.0.2/24", "10.1.0.3/24")
        .replace("name = \"www\"", "name = \"old\"")
        .replace("weight = 2", "weight = 9")
}

fn loaded(text: &str) -> Checked {
    load(Path::new(PATH), text).unwrap_or_else(|errors| panic!("{}", told(&errors)))
}

fn told(errors: &[ConfigError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

fn taken(text: &str) -> Result<Checked, Vec<ConfigError>> {
    taken_by(&standby(), text).map(|(taken, _)| taken)
}

/// By a member with this file.
fn taken_by(own: &str, text: &str) -> Result<(Checked, Vec<Warning>), Vec<ConfigError>> {
    take(Path::new(PATH), own, &loaded(own), "node 1's", text)
}

/// The leader's configuration, with something retired of each kind.
fn leading() -> Checked {
    let path = Path::new(PATH);
    let changed = GOOD
        .replacen("  { address = \"10.2.0.10:80\", weight = 1 },\n", "", 1)
        .replacen("[\"10.2.0.100\"]", "[\"10.2.0.101\"]", 1)
        .replacen("name = \"www6\"", "name = \"six\"", 1)
        .replacen("[mirror]", "[flows]\nudp_timeout_s = 11\n[mirror]", 1);
    let (checked, _) = reload(path, GOOD, &loaded(GOOD), &changed).expect("it can change");
    assert_eq!(checked.retired(), 3, "a server, a virtual server, a source address");
    checked
}

#[test]
fn a_member_that_takes_a_leaders_services_has_the_same_and_tells_them_on_in_the_same_words() {
    for leading in [loaded(GOOD), leading()] {
        let theirs = text(&leading);
        let taken = taken(&theirs).unwrap_or_else(|errors| panic!("{}\n{theirs}", told(&errors)));
        assert_eq!(text(&taken), theirs);
        assert!(differences(&leading, &taken).is_empty());
        assert_eq!(taken.retired(), leading.retired());
        // Its own stays its own.
        assert_eq!(taken.appliance.node.0, 2);
        assert_eq!(taken.ports[0].addresses[0].to_string(), "10.1.0.3/24");
        let ids = |checked: &Checked| -> Vec<u32> {
            let servers = checked.pools.iter().flat_map(|pool| &pool.servers).map(|server| server.id.0);
            checked.virtual_servers.iter().map(|server| server.id.0).chain(servers).collect()
        };
        let sorted = |mut ids: Vec<u32>| {
            ids.sort_unstable();
            ids
        };
        assert_eq!(sorted(ids(&taken)), sorted(ids(&leading)));
        for server in &taken.virtual_servers {
            assert_eq!(server.retired, taken.pools[server.pool].servers.is_empty(), "{}", server.name);
        }
    }
}

#[test]
fn what_was_retired_at_the_leader_is_forgotten_with_it() {
    let leading = leading();
    let left = without_idle(&leading, |_| false, |_| false).expect("nothing has flows");
    assert_ne!(Edition::of(2, text(&left).as_bytes()), Edition::of(2, text(&leading).as_bytes()));
    let taken = taken(&text(&left)).expect("it fits");
    assert_eq!(taken.retired(), 0);
}

/// REQ B8.
#[test]
fn a_leaders_services_without_one_that_is_tracked_are_taken_with_a_warning_in_the_own_files_words() {
    let own = standby().replacen("key_file", "only = [\"old\", \"www6\"]\nkey_file", 1);
    let leading = leading();
    for (theirs, gone) in [(GOOD, &["old"][..]), (&standby(), &[]), (&text(&leading), &["old", "www6"])] {
        let theirs = if theirs.contains("[appliance]") { text(&loaded(theirs)) } else { theirs.to_owned() };
        let (taken, warnings) =
            taken_by(&own, &theirs).unwrap_or_else(|errors| panic!("{}\n{theirs}", told(&errors)));
        assert_eq!(text(&taken), theirs);
        let only = |checked: Checked| checked.mirror.expect("it has one").only;
        assert_eq!(only(taken), only(loaded(&own)), "one that comes again is tracked again");
        assert_eq!(warnings.len(), gone.len(), "{warnings:?}");
        for (warning, name) in warnings.iter().zip(gone) {
            assert_eq!((warning.file.as_str(), warning.line), (PATH, line_of(&own, "only =")));
            assert!(warning.key.starts_with("mirror.only["), "{warning}");
            assert!(warning.message.contains(&format!("no virtual server \"{name}\"")), "{warning}");
        }
    }
}

#[test]
fn services_that_do_not_fit_are_named_by_whose_they_are_line_and_key() {
    let theirs = text(&loaded(GOOD));
    for (old, new, key, expected) in [
        ("10.2.0.100", "10.1.0.3", "virtual_server[www].snat_addresses[0]", "an own address"),
        ("weight = 2", "weight = 2000", "pool[web].server[1].weight", "from 0 to 1000"),
        (
            "select = \"source\"",
            "select = \"packet-rate\"",
            "virtual_server[www].select",
            "a connection store",
        ),
        ("least_servers", "fewest_servers", "pool[web].fewest_servers", "known here"),
        ("udp_ms = 300000\n", "", "timeouts.udp_ms", "is missing"),
    ] {
        assert!(theirs.contains(old), "{old:?} is not in\n{theirs}");
        let errors = taken(&theirs.replacen(old, new, 1)).expect_err(new);
        let told = told(&errors);
        assert!(errors.iter().any(|error| error.key == key && error.file == "node 1's"), "{key}:\n{told}");
        assert!(told.contains(expected), "{expected:?}:\n{told}");
    }
    let theirs = text(&leading());
    for (old, new, key, expected) in [
        (
            "10.2.0.10:80\"]",
            "10.2.0.2:80\"]",
            "retired_pool[web].server[0]",
            "none of this appliance's ports",
        ),
        ("10.2.0.10:80\"]", "10.2.0.11:80\"]", "retired_pool[web].server[0]", "each server of a pool once"),
        ("name = \"www6\"", "name = \"www\"", "retired_virtual_server[www]", "each virtual server once"),
        (
            "virtual_server = \"www\"",
            "virtual_server = \"web\"",
            "retired_sources[0].virtual_server",
            "a virtual server's name",
        ),
        (
            "addresses = [\"10.2.0.100\"]",
            "addresses = [\"10.1.0.3\"]",
            "retired_sources[0].addresses[0]",
            "none of this appliance's ports",
        ),
    ] {
        assert!(theirs.contains(old), "{old:?} is not in\n{theirs}");
        let errors = taken(&theirs.replacen(old, new, 1)).expect_err(new);
        let told = told(&errors);
        assert!(errors.iter().any(|error| error.key == key), "{key}:\n{told}");
        assert!(told.contains(expected), "{expected:?}:\n{told}");
    }
    for nonsense in ["", "[[pool", "\u{0}"] {
        assert!(taken(nonsense).is_err());
    }
}
