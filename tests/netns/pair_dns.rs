//! Questions and answers over UDP through a takeover.

use netns_harness::campaign;
use netns_harness::config::Settings;
use netns_harness::{Result, dns};

use crate::{on_stage, one_at_a_time};

#[test]
fn a_takeover_loses_only_the_questions_under_way() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let _servers = dns::start_servers(&stage.world)?;
        let (round, violations) = campaign::dns::round(stage, 500)?;
        assert_eq!(round.asked, 8 * 500);
        violations.judge()
    })
}
