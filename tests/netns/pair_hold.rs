//! `commit = "hold"` under a stream of new connections.

use netns_harness::Result;
use netns_harness::campaign::hold;
use netns_harness::config::Settings;

use crate::{on_stage, one_at_a_time};

#[test]
fn every_client_that_had_its_syn_ack_completes_through_three_kills() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let kills = hold::kills(stage, 3, |_, _| ())?;
        assert_eq!(kills.kills, 3);
        assert!(kills.tally.opened > 500, "{:?}", kills.tally);
        kills.violations.judge()
    })
}
