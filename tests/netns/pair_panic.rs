//! An appliance in which a thread panics resigns before its process ends.

use netns_harness::appliance::Role;
use netns_harness::campaign::senders::{self, Fault};
use netns_harness::config::{Lcores, Settings};
use netns_harness::stage::{ROLES_LIMIT, Stage};
use netns_harness::{Result, ensure};

use crate::{on_stage, one_at_a_time};

/// Makes the standby one whose `thread` can be made to panic, and hands over to it.
fn led_by_one_that_can_panic(stage: &mut Stage, thread: &str) -> Result<()> {
    let active = stage.active()?;
    let other = 1 - active;
    stage.pair[other].kill()?;
    stage.pair[other].start_with(&[&format!("BATON_TEST_PANIC={thread}")])?;
    stage.pair[other].wait_role(Role::Standby, ROLES_LIMIT)?;
    stage.pair[active].wait_synchronized(ROLES_LIMIT)?;
    stage.pair[active].command(&["switchover"])?;
    stage.pair[other].wait_role(Role::Active, ROLES_LIMIT)?;
    stage.pair[other].wait_synchronized(ROLES_LIMIT)
}

/// Why the successor says that it leads.
fn succeeded_because(stage: &Stage, successor: usize) -> Result<String> {
    let events = stage.pair[successor].ask("events")?;
    let all = events["events"].as_array().cloned().unwrap_or_default();
    let mut said = all.iter().rev().filter_map(|event| event["message"].as_str());
    Ok(said.find(|message| message.starts_with("leads term")).unwrap_or_default().to_owned())
}

#[test]
fn whichever_thread_panics_the_other_appliance_serves_and_says_why() -> Result<()> {
    let _one = one_at_a_time();
    let two = Lcores { workers: 2, ..Lcores::FUSED };
    let settings = Settings { lcores: [two; 2], ..Settings::default() };
    on_stage(&settings, |stage| {
        for (thread, why) in [
            ("worker1", "the leader resigned"),
            ("control", "the leader resigned"),
            ("master", "the leader resigned"),
            // All liveness frames leave by the first worker.
            ("worker0", "the leader is silent"),
            ("liveness", "the leader is silent"),
        ] {
            led_by_one_that_can_panic(stage, thread)?;
            let successor = 1 - stage.active()?;
            let round = senders::round(stage, Fault::Panic, 8, "120k")?;
            round.violations.judge()?;
            let said = succeeded_because(stage, successor)?;
            ensure!(said.contains(why), "{thread} panicked, and the successor {said}");
        }
        Ok(())
    })
}
