//! Keys of the nodes' own.

use std::path::Path;

use baton::base::ids::NodeId;
use baton::config::checked::Sealing;
use baton::config::load;

use crate::{GOOD, breaks, one_error};

#[test]
fn keys_are_pinned_at_every_peer_or_at_none() {
    let public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
    let (peer, with) =
        ("\"10.9.0.2\" }", |public: &str| format!("\"10.9.0.2\", public_key = \"{public}\" }}"));
    let own = "node_key_file = \"own.key\"\nkey_file";
    breaks(
        "key_file",
        own,
        "peers = ",
        "mirror.peers[0]",
        "public_key in it, as mirror.node_key_file is given",
    );
    breaks(
        peer,
        &with(public),
        "public_key",
        "mirror.peers[0].public_key",
        "no public key without mirror.node_key_file",
    );
    let two =
        "\"10.9.0.2\", public_key = \"KEY\" }, { node = 3, address = \"10.9.0.3\", public_key = \"KEY\" }"
            .replace("KEY", public);
    let twice = GOOD.replacen("key_file", own, 1).replacen(peer, &two, 1);
    let errors = load(Path::new("a.toml"), &twice).expect_err("each node has its own");
    assert!(errors.iter().any(|error| error.to_string().contains("each node has its own")), "{errors:?}");
    for wrong in ["", "de9e", &"g".repeat(64), &"é".repeat(32)] {
        let text = GOOD.replacen("key_file", own, 1).replacen(peer, &with(wrong), 1);
        one_error(&text, "public_key", "mirror.peers[0].public_key", "64 hexadecimal digits");
    }
    breaks(
        "key_file",
        "sealing = \"permissive\"\nkey_file",
        "sealing",
        "mirror.sealing",
        "\"enforce\" without mirror.node_key_file",
    );
    breaks(
        "key_file",
        "sealing = \"none\"\nkey_file",
        "sealing",
        "mirror.sealing",
        "\"receive-only\" or \"permissive\" or \"enforce\"",
    );
    let text = GOOD.replacen("key_file", own, 1).replacen(peer, &with(public), 1);
    let mirror = load(Path::new("/etc/baton/a.toml"), &text).expect("it is good").mirror.expect("it mirrors");
    let pinning = mirror.pinning.expect("keys are pinned");
    assert_eq!((pinning.sealing, pinning.peers.len(), pinning.peers[0].0), (Sealing::Enforce, 1, NodeId(2)));
    assert_eq!(pinning.node_key_file, Path::new("/etc/baton/own.key"), "relative to the file");
}
