//! The command that fences in the configuration.

use std::path::Path;

use baton::base::time::Duration;
use baton::config::load;

use crate::{GOOD, one_error};

#[test]
fn a_command_that_fences() {
    let with =
        |lines: &str| GOOD.replace("virtual_router_id = 51", &format!("virtual_router_id = 51\n{lines}"));
    assert!(load(Path::new("a.toml"), GOOD).expect("it is good").failover.fence.is_none());
    let text = with("fence = [\"/usr/local/bin/off\", \"rack 7\"]\nfence_timeout_ms = 1500");
    let fence = load(Path::new("a.toml"), &text).expect("it is good").failover.fence.expect("it is there");
    assert_eq!(fence.program, Path::new("/usr/local/bin/off"));
    assert_eq!(
        (&fence.arguments[..], fence.timeout),
        (&["rack 7".to_owned()][..], Duration::from_millis(1500))
    );
    for (lines, key, expected) in [
        ("fence = [\"off\"]", "failover.fence[0]", "absolute path"),
        ("fence = \"/off\"", "failover.fence", "a list"),
        ("fence_timeout_ms = 1", "failover.fence_timeout_ms", "from 10 to 600000 milliseconds"),
    ] {
        one_error(&with(lines), "fence", key, expected);
    }
}
