//! Faults one after the other on one pair, under downloads and new connections, everything that both appliances send
//! captured: who sends before, during and after each of them.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::analysis::{self, ServiceFrame, capture_clock};
use crate::appliance::Role;
use crate::campaign::Violations;
use crate::capture::{Capture, Captured, Depth, Direction, stop_all};
use crate::command::wait_until;
use crate::connections::{Clients, Tally};
use crate::downloads::{Downloads, through_virtual_servers};
use crate::frozen::Frozen;
use crate::plan::{Link, Side};
use crate::stage::{LONG_FILE, ROLES_LIMIT, Stage, virtual_servers};

const LIMIT: Duration = Duration::from_secs(120);
/// How long a fault that changes nothing is waited with, and how long nothing is done between two faults: many takeover
/// times.
const WAIT: Duration = Duration::from_millis(500);
const DOWNLOADS: usize = 8;
/// Downloads that are so far do not outlast another fault on a slow machine.
const NEARLY_DONE: f64 = 0.7;
const CONNECTIONS_PER_SECOND: u32 = 20;
/// Outside the claim: one burst for each queue that was handed to a port already. Two data ports with a queue each.
const BURSTS: usize = 2 * 32;

/// What goes wrong, and is mended again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The switch forgets which address is at which port, on all links.
    AddressesForgotten,
    /// The active's mirror link carries nothing.
    MirrorLost,
    /// The standby's link to the clients carries nothing.
    StandbyLinkLost,
    /// Nothing that the active sends on the mirror link gets through; the other direction does.
    OneDirectionOfMirrorLost,
    /// Nothing that the active sends gets through, on any link; it hears everything.
    ActiveUnheard,
    /// The active's worker stands still; all its other threads go on.
    WorkerStuck,
    /// The active's process stands still.
    Stopped,
    /// None of the active's links carries anything.
    ActiveCutOff,
}

impl Fault {
    /// Whether the other one is to take over, when silence is enough for that.
    pub fn takes_over(self) -> bool {
        match self {
            Fault::AddressesForgotten
            | Fault::MirrorLost
            | Fault::StandbyLinkLost
            | Fault::OneDirectionOfMirrorLost => false,
            Fault::ActiveUnheard | Fault::WorkerStuck | Fault::Stopped | Fault::ActiveCutOff => true,
        }
    }

    /// Whether it takes the standby out of the in-sync set without a takeover.
    fn unsynchronizes(self) -> bool {
        matches!(self, Fault::MirrorLost | Fault::OneDirectionOfMirrorLost)
    }
}

/// One fault, when it was, and who led.
#[derive(Clone, Copy, Debug)]
pub struct Happened {
    /// What went wrong.
    pub fault: Fault,
    /// Who led when it began.
    pub before: Side,
    /// Who led when it was over.
    pub after: Side,
    /// Whether the other one was to take over.
    pub takeover: bool,
    /// When it began, in seconds since 1970.
    pub began: f64,
    /// When it was mended.
    pub mended: f64,
    /// When the pair was at rest again.
    pub over: f64,
}

/// What came of all of them.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The faults.
    pub happened: Vec<Happened>,
    /// Service frames that both sent.
    pub frames: usize,
    /// The longest time for which both sent, and in which fault.
    pub overlap: Option<(Fault, Duration)>,
    /// What became of the connections.
    pub tally: Tally,
    /// What was not as required.
    pub violations: Violations,
}

/// Makes these faults happen, one after the other. `silence_is_enough`: the pair has `partition = "availability"`.
pub fn run(stage: &mut Stage, faults: &[Fault], silence_is_enough: bool) -> Result<Outcome> {
    stage.active()?;
    let all = Side::BOTH.into_iter().flat_map(|side| [Link::Client, Link::Server].map(|link| (side, link)));
    let captures: Vec<Capture> = all
        .map(|(side, link)| Capture::start(&stage.world, side, link, Direction::Sent, Depth::Headers))
        .collect::<Result<_>>()?;
    let mut under_way = Some(start_downloads(stage, faults.len())?);
    let mut outcomes = Vec::new();
    let clients = Clients::start(&stage.world, virtual_servers(80), CONNECTIONS_PER_SECOND)?;
    let (mut happened, mut violations) = (Vec::new(), Violations::new());
    let (mut clients, mut tally) = (Some(clients), Tally::default());
    for fault in faults {
        // What is opened in a partition, one side alone knows: it is protected by nobody.
        if *fault == Fault::ActiveCutOff
            && let Some(clients) = clients.take()
        {
            tally = clients.finish()?;
        }
        let downloads = match under_way.take() {
            Some(downloads) if downloads.progress_range().1 < NEARLY_DONE => downloads,
            nearly_done => {
                outcomes.extend(
                    nearly_done.map(|downloads| downloads.finish(LIMIT)).transpose()?.into_iter().flatten(),
                );
                start_downloads(stage, faults.len())?
            }
        };
        let one = happen(stage, *fault, silence_is_enough, &mut violations);
        happened.push(one.with_context(|| format!("{fault:?}"))?);
        let (_, most) = downloads.progress_range();
        violations.require(most < 1.0, || format!("{fault:?}: a download ended before it was over"));
        under_way = Some(downloads);
    }
    if let Some(clients) = clients {
        tally = clients.finish()?;
    }
    outcomes.extend(under_way.map(|downloads| downloads.finish(LIMIT)).transpose()?.into_iter().flatten());
    let captures = stop_all(captures)?;

    violations.require(outcomes.len() >= DOWNLOADS && outcomes.iter().all(|outcome| outcome.whole()), || {
        format!("a download broke: {outcomes:?}")
    });
    for broken in &tally.broken {
        violations.add(format!("a client had its SYN-ACK and did not complete: {broken}"));
    }
    violations.require(tally.complete > 0, || "no connection completed".into());
    let [a, b] = Side::BOTH.map(|side| sent_by(&captures, side));
    let (a, b) = (a?, b?);
    let mut overlap: Option<(Fault, Duration)> = None;
    for one in &happened {
        let both = judge(one, [&a, &b], &mut violations);
        if both > overlap.map_or(Duration::ZERO, |(_, longest)| longest) {
            overlap = Some((one.fault, both));
        }
    }
    Ok(Outcome { happened, frames: a.len() + b.len(), overlap, tally, violations })
}

/// Two of each translation and family, which last as long as so many faults, and some.
fn start_downloads(stage: &Stage, faults: usize) -> Result<Downloads> {
    let rate = format!("{}k", (1600 / faults.max(1)).min(600));
    let requests = through_virtual_servers(&stage.web, LONG_FILE.0, &rate, DOWNLOADS)?;
    let downloads = Downloads::start(&stage.world, requests, LIMIT)?;
    wait_until("every download to be under way", LIMIT, || Ok(downloads.progress_range().0 > 0.01))?;
    Ok(downloads)
}

/// One fault, from when the pair is at rest until it is so again.
fn happen(
    stage: &mut Stage,
    fault: Fault,
    silence_is_enough: bool,
    violations: &mut Violations,
) -> Result<Happened> {
    let active = stage.active()?;
    let takeovers = takeovers(stage)?;
    std::thread::sleep(WAIT);
    stage.still_leads(active)?;
    let (side, other) = (stage.pair[active].side(), stage.pair[1 - active].side());
    let takes_over = fault.takes_over() && silence_is_enough;
    let began = capture_clock();

    let mut frozen = None;
    match fault {
        Fault::AddressesForgotten => stage.world.forget_addresses()?,
        Fault::MirrorLost => stage.world.cut(side, Link::Mirror)?,
        Fault::StandbyLinkLost => stage.world.cut(other, Link::Client)?,
        Fault::OneDirectionOfMirrorLost => stage.world.mute(side, Link::Mirror)?,
        Fault::ActiveUnheard => Link::ALL.into_iter().try_for_each(|link| stage.world.mute(side, link))?,
        Fault::WorkerStuck => {
            frozen = Some(Frozen::thread(stage.pair[active].process()?.pid(), "-worker")?);
        }
        Fault::Stopped => stage.pair[active].pause()?,
        Fault::ActiveCutOff => Link::ALL.into_iter().try_for_each(|link| stage.world.cut(side, link))?,
    }
    if takes_over {
        stage.pair[1 - active].wait_role(Role::Active, ROLES_LIMIT)?;
    } else if fault.unsynchronizes() {
        let lost = || Ok(!stage.pair[active].synchronized()?);
        wait_until("the active to say that its standby is not synchronized", ROLES_LIMIT, lost)?;
    }
    std::thread::sleep(WAIT);
    match fault {
        Fault::AddressesForgotten => {}
        Fault::MirrorLost => stage.world.mend(side, Link::Mirror)?,
        Fault::StandbyLinkLost => stage.world.mend(other, Link::Client)?,
        Fault::OneDirectionOfMirrorLost => stage.world.unmute(side, Link::Mirror)?,
        Fault::ActiveUnheard => {
            Link::ALL.into_iter().try_for_each(|link| stage.world.unmute(side, link))?;
        }
        Fault::WorkerStuck => drop(frozen.take()),
        Fault::Stopped => stage.pair[active].resume()?,
        Fault::ActiveCutOff => Link::ALL.into_iter().try_for_each(|link| stage.world.mend(side, link))?,
    }
    let mended = capture_clock();

    // Without a person: one leads, and the other is in sync with it.
    let leads = stage.active()?;
    let after = stage.pair[leads].side();
    // After a partition the higher term leads, and both have taken one: it may be either's.
    let either = takes_over && fault == Fault::ActiveCutOff;
    violations.require(either || (after == other) == takes_over, || {
        format!("{fault:?}: {} led before, and {} after", side.letter(), after.letter())
    });
    let taken = self::takeovers(stage)? - takeovers;
    violations.require(taken == u64::from(takes_over), || format!("{fault:?}: {taken} takeovers"));
    for appliance in &stage.pair {
        violations.require(appliance.status()?["degraded"] == false, || {
            format!("{fault:?}: {} took over without being in sync", appliance.side().letter())
        });
    }
    Ok(Happened { fault, before: side, after, takeover: takes_over, began, mended, over: capture_clock() })
}

/// Takeovers of both since their starts.
fn takeovers(stage: &Stage) -> Result<u64> {
    let of = |index: usize| -> Result<u64> {
        stage.pair[index].status()?["takeovers"].as_u64().context("no takeovers in the status")
    };
    Ok(of(0)? + of(1)?)
}

/// The service frames of one appliance, in order.
fn sent_by(captures: &[Captured], side: Side) -> Result<Vec<ServiceFrame>> {
    let mut frames = Vec::new();
    for capture in captures.iter().filter(|capture| capture.side == side) {
        frames.extend(analysis::service_frames(capture)?);
    }
    frames.sort_by(|a, b| a.at.total_cmp(&b.at));
    Ok(frames)
}

/// Judges what both sent while one fault lasted; for how long both did.
fn judge(one: &Happened, [a, b]: [&[ServiceFrame]; 2], violations: &mut Violations) -> Duration {
    let within = |of_a: bool| -> Vec<f64> {
        let frames = if of_a { a } else { b };
        frames.iter().map(|frame| frame.at).filter(|at| (one.began..one.over).contains(at)).collect()
    };
    let (old, new) = (within(one.before == Side::A), within(one.before != Side::A));
    let fault = one.fault;
    violations
        .require(!within(one.after == Side::A).is_empty(), || format!("{fault:?}: who leads sent nothing"));
    let Some(first) = new.first().filter(|_| one.takeover) else {
        violations.require(new.is_empty(), || format!("{fault:?}: the standby sent {} frames", new.len()));
        violations.require(!one.takeover, || format!("{fault:?}: who took over sent nothing"));
        return Duration::ZERO;
    };
    let late: Vec<f64> = old.into_iter().filter(|at| at > first).collect();
    // Until whoever yields had sent its last.
    let end = late.last().copied().unwrap_or(*first).min(new.last().copied().unwrap_or(*first));
    let both = end - first;
    if fault == Fault::ActiveCutOff {
        // REQ C8: a full partition and the takeover time, of which one went by at its beginning.
        let partition = one.mended - one.began;
        violations.require(both <= partition, || {
            format!("both sent for {both:.3} s, and the partition lasted {partition:.3} s")
        });
    } else {
        // What was handed to a port before it stood still leaves when it goes on.
        let allowed = if matches!(fault, Fault::Stopped | Fault::WorkerStuck) { BURSTS } else { 0 };
        violations.require(late.len() <= allowed, || {
            format!("{fault:?}: the old active sent {} frames after the new one had begun", late.len())
        });
    }
    Duration::from_secs_f64(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(times: &[f64]) -> Vec<ServiceFrame> {
        times.iter().map(|at| ServiceFrame { at: *at, source: String::new() }).collect()
    }

    fn judged(fault: Fault, after: Side, a: &[f64], b: &[f64]) -> (Duration, usize) {
        let takeover = fault.takes_over();
        let one = Happened { fault, before: Side::A, after, takeover, began: 10.0, mended: 12.0, over: 13.0 };
        let mut violations = Violations::new();
        let both = judge(&one, [&frames(a), &frames(b)], &mut violations);
        (both, violations.sentences().len())
    }

    #[test]
    fn a_second_sender_is_seen_whoever_it_is() {
        use Fault::{ActiveCutOff, ActiveUnheard, MirrorLost};
        assert_eq!(judged(MirrorLost, Side::A, &[9.0, 10.5], &[9.5, 13.5]).1, 0, "outside of the fault");
        assert_eq!(judged(MirrorLost, Side::A, &[10.5], &[10.7]).1, 1, "the standby");
        assert_eq!(judged(ActiveUnheard, Side::B, &[10.1], &[10.2]), (Duration::ZERO, 0));
        assert_eq!(judged(ActiveUnheard, Side::B, &[10.1, 10.3], &[10.2]).1, 1, "the old active");
        assert!(judged(ActiveUnheard, Side::B, &[10.1], &[]).1 > 0, "nobody");
        let both = |after, a: &[f64], b: &[f64]| judged(ActiveCutOff, after, a, b).1;
        assert_eq!(both(Side::B, &[10.1, 12.0], &[10.25, 12.9]), 0, "in a partition both may");
        assert_eq!(both(Side::A, &[10.1, 12.9], &[10.25, 12.0]), 0, "whoever leads after it");
        assert_eq!(both(Side::B, &[10.1, 12.9], &[10.25, 12.9]), 1, "for no longer than that");
        assert_eq!(both(Side::A, &[10.1, 12.9], &[10.25, 12.9]), 1, "for no longer than that");
    }
}
