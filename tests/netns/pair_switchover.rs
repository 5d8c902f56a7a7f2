//! Planned switchovers under traffic (REQ B2, C8).

use netns_harness::campaign::planned;
use netns_harness::config::Settings;
use netns_harness::{Result, ensure};

use crate::{on_stage, one_at_a_time};

#[test]
fn no_datagram_is_lost_in_four_switchovers() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let round = planned::round(stage, 4)?;
        ensure!(round.sent > 1000, "only {} datagrams were sent", round.sent);
        round.violations.judge()
    })
}
