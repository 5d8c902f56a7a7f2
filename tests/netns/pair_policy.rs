//! Rules about what is mirrored, of real connections: those that they leave out die with the active, the others live on.

use std::time::Duration;

use netns_harness::appliance::Role;
use netns_harness::command::wait_until;
use netns_harness::config::Settings;
use netns_harness::downloads::{Downloads, Outcome, through_virtual_servers};
use netns_harness::stage::{FILE, ROLES_LIMIT, Stage};
use netns_harness::{Result, ensure};

use crate::{on_stage, one_at_a_time};

const LIMIT: Duration = Duration::from_secs(60);
/// Far longer than a download that goes on takes.
const BROKEN_AFTER: Duration = Duration::from_secs(25);
/// What asks for one rate is never mirrored, and nothing is while it is young.
const RULES: &str = "{ mirror = false, payload = \"?rate=41k\" }, { mirror = true, duration_min_ms = 700 }, \
                     { mirror = false }";

/// Of the TCP flows: how many, how many of them are protected, and how many are left out by each rule.
fn flows(stage: &Stage, at: usize) -> Result<(usize, usize, [usize; 2])> {
    let report = stage.pair[at].ask("flows")?;
    let all = report["flows"].as_array().cloned().unwrap_or_default();
    let tcp: Vec<_> = all.iter().filter(|flow| flow["protocol"] == "tcp").collect();
    let protected =
        tcp.iter().filter(|flow| flow["protected"] == true && flow["because"] == "rule 2").count();
    let left_out = |rule: &str| {
        tcp.iter()
            .filter(|flow| flow["mirrored"] == false && flow["because"] == format!("rule {rule}"))
            .count()
    };
    Ok((tcp.len(), protected, [left_out("1"), left_out("3")]))
}

#[test]
fn what_rules_mirror_survives_the_active_and_what_they_leave_out_does_not() -> Result<()> {
    let _one = one_at_a_time();
    on_stage(&Settings { rules: RULES, ..Settings::default() }, |stage| {
        let active = stage.active()?;
        let other = 1 - active;
        let start = |stage: &Stage, rate, limit| {
            Downloads::start(&stage.world, through_virtual_servers(&stage.web, FILE.0, rate, 8)?, limit)
        };
        let kept = start(stage, "40k", LIMIT)?;
        let left = start(stage, "41k", BROKEN_AFTER)?;
        wait_until("the rules to decide", ROLES_LIMIT, || Ok(flows(stage, active)? == (16, 8, [8, 0])))?;
        let status = stage.pair[active].status()?;
        ensure!(status["flows"]["left_out"] == 8, "{status}");
        ensure!(flows(stage, other)?.0 == 8, "the standby knows the others alone");
        let most = kept.progress_range().1.max(left.progress_range().1);
        ensure!(most < 1.0, "a download ended before the fault");
        stage.pair[active].kill()?;
        stage.pair[other].wait_role(Role::Active, ROLES_LIMIT)?;
        let whole = |outcomes: &[Outcome]| outcomes.iter().filter(|outcome| outcome.whole()).count();
        let (kept, left) = (kept.finish(LIMIT)?, left.finish(LIMIT)?);
        ensure!((whole(&kept), whole(&left)) == (8, 0), "kept: {kept:?}, left out: {left:?}");
        stage.revive(active)
    })
}
