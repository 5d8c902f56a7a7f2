//! The command at changes of role in the configuration.

use std::path::Path;

use baton::base::time::Duration;
use baton::config::load;

use crate::{GOOD, one_error};

#[test]
fn a_command_for_changes_of_role() {
    let with =
        |lines: &str| GOOD.replace("virtual_router_id = 51", &format!("virtual_router_id = 51\n{lines}"));
    let none = load(Path::new("a.toml"), GOOD).expect("it is good");
    assert!(none.failover.notify.is_none());
    let text = with("notify = [\"/usr/local/bin/told\", \"two words\", \"$HOME\"]\nnotify_timeout_ms = 1500");
    let notify = load(Path::new("a.toml"), &text).expect("it is good").failover.notify.expect("it is there");
    assert_eq!(notify.program, Path::new("/usr/local/bin/told"));
    assert_eq!(
        (&notify.arguments[..], notify.timeout),
        (&["two words".to_owned(), "$HOME".to_owned()][..], Duration::from_millis(1500))
    );
    for (lines, key, expected) in [
        ("notify = [\"told\"]", "failover.notify[0]", "absolute path"),
        ("notify = [\"./told\", \"/x\"]", "failover.notify[0]", "absolute path"),
        ("notify = [\"/told\", \"\"]", "failover.notify[1]", "an argument in quotes, not empty"),
        ("notify = \"/told\"", "failover.notify", "a list"),
        ("notify_timeout_ms = 1", "failover.notify_timeout_ms", "from 10 to 600000 milliseconds"),
    ] {
        one_error(&with(lines), "notify", key, expected);
    }
}
