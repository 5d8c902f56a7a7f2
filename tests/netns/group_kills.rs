//! Three appliances, a mirror network that loses frames, and many connections.

use std::path::Path;

use netns_harness::Result;
use netns_harness::campaign::three;
use netns_harness::group::{self, Group};
use netns_harness::relay::Rough;

use crate::{one_at_a_time, riding_out_stalls};

#[test]
fn no_connection_is_lost_in_two_kills_of_three_appliances_whose_mirror_network_loses_frames() -> Result<()> {
    let _one = one_at_a_time();
    riding_out_stalls(|| {
        let baton = Path::new(env!("CARGO_BIN_EXE_baton"));
        let mut group = Group::set(baton, &group::settings(), Rough::with_seed(1))?;
        let outcome = three::kills(&mut group, 200, 2, 1, |_, kill, _| println!("{kill:?}"))?;
        assert_eq!(outcome.kills.len(), 2);
        assert!(outcome.tally.survived > 200, "{:?}", outcome.tally);
        outcome.violations.judge()
    })
}
