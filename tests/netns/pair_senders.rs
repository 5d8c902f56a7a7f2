//! At most one sender, before, during and after a takeover, and nothing broken in what it sends.

use netns_harness::Result;
use netns_harness::campaign::senders::{self, Fault};
use netns_harness::config::Settings;

use crate::{on_stage, one_at_a_time};

#[test]
fn an_appliance_that_was_stopped_and_continued_sends_nothing_of_the_service() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let round = senders::round(stage, Fault::Pause, 20, "80k")?;
        assert!(round.frames > 20 * 100, "the downloads are in the captures: {round:?}");
        round.violations.judge()
    })
}
