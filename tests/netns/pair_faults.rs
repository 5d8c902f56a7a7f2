//! Failures that are partial or lie, one after the other under traffic: at most one sender, no connection lost, service again
//! without a person.

use netns_harness::campaign::faults::{self, Fault};
use netns_harness::config::Settings;
use netns_harness::{Result, ensure};

use crate::{on_stage, one_at_a_time};

#[test]
fn single_faults_leave_one_sender_and_every_connection_whole() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings::default(), |stage| {
        let all = [
            Fault::AddressesForgotten,
            Fault::MirrorLost,
            Fault::StandbyLinkLost,
            Fault::OneDirectionOfMirrorLost,
            Fault::WorkerStuck,
            Fault::ActiveUnheard,
            Fault::Stopped,
            Fault::ActiveCutOff,
        ];
        let outcome = faults::run(stage, &all, true)?;
        println!("{outcome:#?}");
        let takeovers = outcome.happened.iter().filter(|one| one.takeover).count();
        ensure!(takeovers == 4 && outcome.overlap.is_some(), "{takeovers} takeovers, {:?}", outcome.overlap);
        outcome.violations.judge()
    })
}

#[test]
fn a_safe_pair_has_one_sender_when_all_links_of_the_active_are_lost() -> Result<()> {
    let _one = one_at_a_time();
    let settings = Settings { partition: "safety", ..Settings::default() };
    on_stage(&settings, |stage| {
        let outcome = faults::run(stage, &[Fault::Stopped, Fault::ActiveCutOff], false)?;
        println!("{outcome:#?}");
        outcome.violations.judge()
    })
}
