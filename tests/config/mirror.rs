//! `[mirror]`: what a member says of how it is mirrored to.

use std::path::Path;

use baton::base::ids::{VirtualServerId, id_of_name};
use baton::base::time::Duration;
use baton::config::checked::{Commit, MirrorMode};
use baton::config::reload::reload;
use baton::config::{Warning, load, load_with_warnings};

use super::{GOOD, breaks, line_of, one_error};

/// REQ B8.
#[test]
fn a_member_may_name_the_virtual_servers_that_it_tracks() {
    let text = GOOD.replacen("key_file", "only = [\"www6\"]\nkey_file", 1);
    let mirror = load(Path::new("a.toml"), &text).expect("it is good").mirror.expect("it has one");
    assert_eq!(mirror.only, [VirtualServerId(id_of_name("www6"))]);
    let words = "the name of a [[virtual_server]]: www, ";
    let key = "mirror.only[0]";
    breaks("key_file", "only = [\"ww\"]\nkey_file", "only", key, words);
    let twice = "only = [\"www\", \"www\"]\nkey_file";
    breaks("key_file", twice, "only", "mirror.only[1]", "each virtual server once");
    let many = format!("only = [{}]\nkey_file", "\"www\", ".repeat(9));
    breaks("key_file", &many, "only", "mirror.only", "at most 8 virtual servers");
}

#[test]
fn what_a_member_tracks_in_vain_is_warned_of() {
    let warnings = |text: &str| -> Vec<String> {
        let (_, warnings) = load_with_warnings(Path::new("a.toml"), text).expect("it is good");
        let about = warnings.into_iter().filter(|warning| warning.key.starts_with("mirror.only"));
        about.map(|warning| format!("{}: {}", warning.key, warning.message)).collect()
    };
    assert_eq!(warnings(&GOOD.replacen("key_file", "only = [\"www\"]\nkey_file", 1)), [""; 0]);
    let names = load(Path::new("a.toml"), GOOD).expect("it is good").virtual_servers;
    let names: Vec<&str> = names.iter().map(|server| server.name.as_str()).collect();
    let all = warnings(&GOOD.replacen("key_file", &format!("only = {names:?}\nkey_file"), 1));
    assert!(all.iter().any(|told| told.starts_with("mirror.only: names every virtual server")), "{all:?}");
    let off = GOOD.replacen("key_file", "only = [\"www\"]\nkey_file", 1);
    let off = off.replacen("mode = \"checkpoint\"", "mode = \"off\"", 1);
    let told = warnings(&off);
    assert!(told.iter().any(|told| told.starts_with("mirror.only[0]: has no effect")), "{told:?}");
}

#[test]
fn a_virtual_server_that_is_tracked_may_go_with_a_reload_and_is_warned_of() {
    let started = GOOD.replacen("key_file", "only = [\"www6\"]\nkey_file", 1);
    let running = load(Path::new("a.toml"), &started).expect("it is good");
    let renamed = started.replacen("name = \"www6\"", "name = \"six\"", 1);
    let (checked, warnings) = reload(Path::new("a.toml"), &started, &running, &renamed)
        .unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(checked.mirror.expect("it has one").only, [VirtualServerId(id_of_name("www6"))]);
    let about = |warning: &&Warning| warning.key == "mirror.only[0]";
    let told: Vec<String> = warnings.iter().filter(about).map(ToString::to_string).collect();
    let line = line_of(&renamed, "only =");
    let expected = format!("a.toml:{line}: mirror.only[0]: the file has no virtual server \"www6\" any more");
    assert!(told.len() == 1 && told[0].starts_with(&expected), "{told:?}");
    // What it tracks is what it said in the handshake.
    let other = renamed.replacen("only = [\"www6\"]", "only = [\"six\"]", 1);
    let errors = reload(Path::new("a.toml"), &started, &running, &other).expect_err("it is refused");
    assert_eq!(errors.iter().map(|error| error.key.as_str()).collect::<Vec<_>>(), ["mirror.only[0]"]);
    assert!(errors[0].expected.contains("only by a restart"), "{}", errors[0]);
}

/// REQ B6.
#[test]
fn where_checkpoints_are_not_acknowledged_nothing_is_held() {
    let with = load(Path::new("a.toml"), GOOD).expect("it is good").mirror.expect("it has one");
    assert_eq!(with.maintenance_every, None);
    let text =
        GOOD.replacen("key_file", "checkpoints = \"periodic\"\ncheckpoint_every_ms = 250\nkey_file", 1);
    let words = "\"async\": with mirror.checkpoints = \"periodic\" no packet waits for the mirror";
    one_error(&text, "commit = \"hold\"", "virtual_server[www].mirror.commit", words);
    for plain in [
        "mirror = { mode = \"checkpoint\" }\n",
        "mirror = { mode = \"checkpoint\", commit = \"async\" }\n",
        "",
    ] {
        let text = text.replace("mirror = { mode = \"checkpoint\", commit = \"hold\" }\n", plain);
        let checked = load(Path::new("a.toml"), &text).unwrap_or_else(|errors| panic!("{errors:?}"));
        let waits_for_nothing = MirrorMode::Checkpoint(Commit::Async);
        assert!(checked.virtual_servers.iter().all(|server| server.mirror == waits_for_nothing), "{plain}");
        let mirror = checked.mirror.expect("it has one");
        assert_eq!(mirror.maintenance_every, Some(Duration::from_millis(250)));
    }
    let text = GOOD.replacen("key_file", "checkpoint_every_ms = 250\nkey_file", 1);
    let (checked, warnings) = load_with_warnings(Path::new("a.toml"), &text).expect("it is good");
    assert_eq!(checked.mirror.expect("it has one").maintenance_every, None);
    let warned = warnings.iter().any(|warning| warning.key.as_str() == "mirror.checkpoint_every_ms");
    assert!(warned, "{warnings:?}");
}
