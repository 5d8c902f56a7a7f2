//! `[mirror]`: what a member says of how it is mirrored to.

use std::path::Path;

use baton::base::ids::{VirtualServerId, id_of_name};
use baton::config::load;

use super::{GOOD, breaks};

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
