//! At most one sender: what each appliance sent on each of its links, before, during and after a takeover.

use std::time::Duration;

use anyhow::Result;

use crate::analysis::{self, capture_clock};
use crate::appliance::Role;
use crate::campaign::Violations;
use crate::capture::{Capture, Captured, Depth, Direction, stop_all};
use crate::command::wait_until;
use crate::downloads::{Downloads, through_virtual_servers};
use crate::plan::{Link, Side};
use crate::process::exit_code;
use crate::stage::{FILE, ROLES_LIMIT, Stage};

const LIMIT: Duration = Duration::from_secs(90);
/// How long a stopped appliance stays so, after the other one leads.
const STOPPED: Duration = Duration::from_millis(300);
/// Outside the claim: one burst for each queue that was handed to a port already. Two data ports with a queue each.
const BURSTS: usize = 2 * 32;

/// How the old active goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after the takeover.
    Pause,
    /// A thread panics: the one that `BATON_TEST_PANIC` named when it was started.
    Panic,
}

/// What the captures showed.
#[derive(Clone, Debug)]
pub struct Round {
    /// Frames that both sent, on all links.
    pub frames: usize,
    /// From the fault until the new active's first service frame.
    pub silence: Duration,
    /// Service frames of the old active after that.
    pub late: usize,
    /// What was not as required.
    pub violations: Violations,
}

/// One takeover with captures of all that is sent, every checksum verified.
pub fn round(stage: &mut Stage, fault: Fault, downloads: usize, rate: &str) -> Result<Round> {
    let active = stage.active()?;
    let (old, new) = (stage.pair[active].side(), stage.pair[1 - active].side());
    let all = Side::BOTH.into_iter().flat_map(|side| Link::ALL.map(|link| (side, link)));
    let captures: Vec<Capture> = all
        .map(|(side, link)| Capture::start(&stage.world, side, link, Direction::Sent, Depth::Whole))
        .collect::<Result<_>>()?;
    let requests = through_virtual_servers(&stage.web, FILE.0, rate, downloads)?;
    let downloads = Downloads::start(&stage.world, requests, LIMIT)?;
    wait_until("every download to be under way", LIMIT, || Ok(downloads.progress_range().0 > 0.12))?;

    stage.still_leads(active)?;
    let since = capture_clock();
    match fault {
        Fault::Kill => stage.pair[active].kill()?,
        Fault::Pause => stage.pair[active].pause()?,
        Fault::Panic => stage.pair[active].panic()?,
    }
    stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;
    if fault == Fault::Pause {
        std::thread::sleep(STOPPED);
        stage.pair[active].resume()?;
        stage.pair[active].wait_role(Role::Standby, ROLES_LIMIT)?;
    }
    let mut violations = Violations::new();
    if fault == Fault::Panic {
        let ended = exit_code(stage.pair[active].wait_end(LIMIT)?);
        violations.require(ended == 1, || format!("it ended with status {ended} after a panic"));
    }
    let outcomes = downloads.finish(LIMIT)?;
    let captures = stop_all(captures)?;

    let whole = outcomes.iter().filter(|outcome| outcome.whole()).count();
    violations.require(whole == outcomes.len(), || {
        format!("{whole} of {} downloads arrived whole", outcomes.len())
    });
    let mut frames = 0;
    for capture in &captures {
        let link = capture.link.interface(capture.side);
        frames += analysis::count(capture, "")?;
        for broken in analysis::broken_frames(capture)? {
            violations.add(format!("a broken frame at {link}: {broken}"));
        }
        for reset in analysis::resets(capture)? {
            violations.add(format!("a reset at {link}: {reset}"));
        }
    }
    let of = |side| -> Vec<Captured> { captures.iter().filter(|c| c.side == side).cloned().collect() };
    for capture in of(new) {
        let early: Vec<_> =
            analysis::service_frames(&capture)?.into_iter().filter(|frame| frame.at < since).collect();
        violations.require(early.is_empty(), || {
            let first = early.first().map_or_else(String::new, |frame| frame.source.clone());
            format!("the standby sent {} frames of the service, the first from {first}", early.len())
        });
    }
    let hand_over = analysis::hand_over(&of(old), &of(new), since)?;
    let allowed = if fault == Fault::Pause { BURSTS } else { 0 };
    violations.require(hand_over.late.len() <= allowed, || {
        let first = hand_over.late.first().map_or_else(String::new, |frame| {
            format!(
                "the first {:.1} ms after it, from {}",
                (frame.at - hand_over.new_began) * 1e3,
                frame.source
            )
        });
        format!("the old active sent {} frames after the new one had begun, {first}", hand_over.late.len())
    });
    if matches!(fault, Fault::Kill | Fault::Panic) && violations.is_empty() {
        stage.revive(active)?;
    }
    let silence = Duration::from_secs_f64((hand_over.new_began - since).max(0.0));
    Ok(Round { frames, silence, late: hand_over.late.len(), violations })
}
