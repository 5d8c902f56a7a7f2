//! What becomes of a standby that lags.

use std::path::Path;

use baton::config::checked::Lagging;
use baton::config::load;

use crate::GOOD;

#[test]
fn one_that_lags_is_removed_unless_the_file_says_that_it_is_waited_for() {
    let of = |text: &str| load(Path::new("a.toml"), text).expect("it is good").failover.lagging;
    assert_eq!(of(GOOD), Lagging::Remove);
    for (word, lagging) in [("remove", Lagging::Remove), ("wait", Lagging::Wait)] {
        let text = GOOD.replacen("lease_ms = 36", &format!("lease_ms = 36\nlagging = \"{word}\""), 1);
        assert_eq!(of(&text), lagging);
    }
}
