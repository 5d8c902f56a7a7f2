//! Downloads through a pair, and faults in the middle of them.

use netns_harness::Result;
use netns_harness::campaign::kills::{self, Load, Plan};
use netns_harness::config::Settings;

use crate::{on_stage, one_at_a_time};

#[test]
fn sixty_downloads_survive_the_active_and_then_the_restart_of_the_standby() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let load = Load { downloads: 60, rate: "80k" };
        let killed = kills::round(stage, load, Plan::Active)?;
        assert_eq!(killed.at_kills.len(), 1);
        killed.violations.judge()?;
        let restarted = kills::round(stage, load, Plan::Standby)?;
        assert_eq!((restarted.at_kills.len(), restarted.whole()), (1, 60));
        restarted.violations.judge()
    })
}
