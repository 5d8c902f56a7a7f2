//! The steps of each kind of run.

use std::collections::VecDeque;

use baton::base::rng::Rng;

use crate::agenda::{MS, Nanos, US};
use crate::kind::Kind;
use crate::lcore;
use crate::link::{self, CLIENTS, MIRROR, SERVERS, STRAGGLE_MAX};
use crate::script::{Fault, Step, Who};
use crate::witness::Cut;
use crate::world::ALL;

/// Nobody takes over from an appliance whose lcores stand still for no longer: it is far less than half of a lease.
const SHORT_MAX: Nanos = 12 * MS;

/// A handover, and the walk to one that came back, are over after so many happenings.
const EVENTS_MAX: u64 = 3000;

/// So long after the last connection's end its flow is in the tables of runs.
const FULL_FOR: Nanos = 2500 * MS;

/// The steps of a run, from the first start to the last check; `light`: the quiet between faults is short.
pub fn steps(kind: Kind, light: bool, rng: &mut Rng) -> VecDeque<Step> {
    use Fault::*;
    use Step::{
        Alike, Do, Drained, Empty, Events, Fair, Following, HandedOver, Probe, Serving, Settled, Traffic,
        UpSettled, Wait,
    };
    let mut steps = Vec::new();
    // The one that tracks a part only is left alone, in every second run.
    let alone = kind.partial().is_some() && rng.bool();
    let first = rng.usize(0..kind.members() - usize::from(alone));
    let others = (1..kind.members()).map(|nth| Who::Node((first + nth) % kind.members()));
    let (traffic, soon) = match light {
        true => (rng.u64(150..400), rng.u64(50..200)),
        false => (rng.u64(900..1600), rng.u64(150..600)),
    };
    let (traffic, soon) = (Traffic(traffic * MS), Wait(soon * MS));
    steps.push(Do(Start(Who::Node(first))));
    if kind == Kind::Calm || kind.prefers_safety() || rng.bool() {
        others.for_each(|other| steps.extend([Wait(rng.u64(0..40) * MS), Do(Start(other))]));
        steps.extend([Settled, traffic, soon.clone()]);
    } else {
        // The others join while traffic runs.
        steps.extend([Serving, traffic]);
        others.for_each(|other| steps.extend([Wait(rng.u64(0..400) * MS), Do(Start(other))]));
        steps.extend([Settled, soon.clone()]);
    }
    if rng.u8(..4) == 0 {
        for at in 0..rng.usize(1..4) {
            steps.extend([Do(Rehash(Who::Node(at % 2))), Wait(rng.u64(0..100) * MS)]);
        }
    }
    // Whatever an outage leads to happens within a few takeover times, or after ten.
    let (outage, stall) = if light && rng.u8(..4) > 0 { (150, 100) } else { (500, 300) };
    let (outage, stall) = (Wait(rng.u64(1..outage) * MS), rng.u64(1..stall) * MS);
    let stalled = rng.usize(1..4);
    let data = if rng.bool() { CLIENTS } else { SERVERS };
    match kind {
        Kind::Calm | Kind::MirrorRough | Kind::ThreeMirrorRough => steps.push(soon),
        Kind::RoughThenCrash | Kind::ThreeRoughThenCrash | Kind::PeriodicRoughThenCrash => {
            steps.extend([
                Wait(rng.u64(0..200 * MS)),
                Do(Crash(Who::Active)),
                outage,
                Do(Start(Who::Victim)),
            ]);
        }
        Kind::Periodic => match rng.u8(..4) {
            0 => steps.push(soon),
            1 => steps.push(Do(Operator(Who::Active, baton::failover::Operator::Switchover))),
            of => {
                let who = if of == 2 { Who::Standby } else { Who::Active };
                steps.extend([Do(Crash(who)), outage, Do(Start(Who::Victim))]);
            }
        },
        Kind::CrashInHandover | Kind::ThreeCrashInHandover => {
            let who = if rng.bool() { Who::Victim } else { Who::Other };
            steps.push(Do(Operator(Who::Active, baton::failover::Operator::Switchover)));
            steps.extend([Events(rng.u64(0..EVENTS_MAX)), Do(Crash(who)), outage, Do(Start(who))]);
        }
        Kind::CrashInRejoin | Kind::ThreeCrashInRejoin => {
            steps.extend([Do(Crash(Who::Standby)), outage]);
            if rng.u8(..4) == 0 {
                steps.push(Do(LoseDisk(Who::Victim)));
            }
            steps.extend([Do(Start(Who::Victim)), Following, Events(rng.u64(0..EVENTS_MAX))]);
            let who = if rng.u8(..3) == 0 { Who::Victim } else { Who::Active };
            steps.extend([Do(Crash(who)), Wait(rng.u64(0..200) * MS), Do(Start(Who::Victim))]);
        }
        Kind::DiskLost => {
            let who = if rng.bool() { Who::Active } else { Who::Standby };
            steps.extend([Do(Crash(who)), Do(LoseDisk(Who::Victim)), outage.clone(), Do(Start(Who::Victim))]);
            let then = if rng.bool() { Who::Active } else { Who::Standby };
            steps.extend([
                Settled,
                Wait(rng.u64(0..200) * MS),
                Do(Crash(then)),
                outage,
                Do(Start(Who::Victim)),
            ]);
        }
        Kind::SlowStandby | Kind::SlowThenCrash | Kind::ThreeSlowThenCrash => {
            steps.push(Do(match rng.bool() {
                true => Narrow(
                    Who::Standby,
                    MIRROR,
                    link::Narrow { byte: rng.u64(2..50) * US, late_max: rng.u64(1..300) * MS },
                ),
                false => Slow(
                    Who::Standby,
                    lcore::Slow { frames: rng.usize(1..16), turn: rng.u64(100..2000) * US },
                ),
            }));
            steps.push(outage.clone());
            if kind != Kind::SlowStandby {
                steps.extend([Wait(rng.u64(0..200 * MS)), Do(Crash(Who::Active)), outage, Do(Mend)]);
                steps.push(Do(Start(Who::Victim)));
            }
            steps.push(Do(Mend));
        }
        Kind::TableFull => steps.extend([soon, Wait(FULL_FOR)]),
        Kind::TableFullThenCrash | Kind::ThreeTableFullThenCrash => {
            steps.extend([Do(Crash(Who::Active)), outage, Do(Start(Who::Victim)), Wait(FULL_FOR)]);
        }
        Kind::ActiveCrashes | Kind::BothCrash => {
            steps.push(Do(Crash(Who::Active)));
            if kind == Kind::BothCrash {
                steps.extend([Wait(rng.u64(0..80) * MS), Do(Crash(Who::Standby)), Wait(rng.u64(0..80) * MS)]);
                steps.extend([Do(Start(Who::Node(0))), Wait(rng.u64(0..400) * MS), Do(Start(Who::Node(1)))]);
            } else {
                steps.extend([outage, Do(Start(Who::Victim))]);
            }
        }
        Kind::StandbyCrashes => steps.extend([Do(Crash(Who::Standby)), outage, Do(Start(Who::Victim))]),
        Kind::ActivePaused => steps.extend([Do(Pause(Who::Active)), outage, Do(GoOn(Who::Victim))]),
        Kind::StandbyPaused => steps.extend([Do(Pause(Who::Standby)), outage, Do(GoOn(Who::Victim))]),
        Kind::MirrorCut => steps.extend([Do(CutBothWays(&[MIRROR])), outage, Do(Mend)]),
        Kind::MirrorCutOneWay => {
            let from = if rng.bool() { Who::Active } else { Who::Standby };
            steps.extend([Do(CutFrom(from, &[MIRROR])), outage, Do(Mend)]);
        }
        Kind::OneWayCut => {
            let from = if rng.bool() { Who::Active } else { Who::Standby };
            steps.extend([Do(CutFrom(from, &ALL)), outage, Do(Mend)]);
        }
        Kind::DataCableCut => steps.extend([Do(Cable(Who::Standby, data)), outage, Do(Mend)]),
        Kind::ActiveCableCut => {
            steps.extend([Do(Cable(Who::Active, data)), HandedOver, outage, HandedOver, Do(Mend)]);
        }
        Kind::PortOneWay => {
            let who = if rng.bool() { Who::Active } else { Who::Standby };
            steps.extend([Do(OneWay(who, data, rng.bool())), outage, Do(Mend)]);
        }
        Kind::MacsForgotten => {
            for _ in 0..rng.u8(1..4) {
                steps.extend([Do(Forget), Wait(rng.u64(0..100) * MS)]);
            }
            steps.extend([Do(Crash(Who::Active)), Wait(rng.u64(0..150) * MS), Do(Forget), outage]);
            steps.push(Do(Start(Who::Victim)));
        }
        Kind::DiskFails => {
            // What was reserved before is enough for one that goes on.
            steps.extend([Do(Disk(Who::Standby, true)), Wait(rng.u64(0..300) * MS), Do(Crash(Who::Active))]);
            steps.extend([outage, Do(Start(Who::Victim)), Settled]);
            steps.extend([Do(Disk(Who::Node(0), false)), Do(Disk(Who::Node(1), false))]);
        }
        Kind::LoneDiskFails => {
            let fails = Who::Node(rng.usize(..2));
            steps.extend([Do(Crash(Who::Node(0))), Do(Crash(Who::Node(1))), Do(Disk(fails, true)), outage]);
            steps.extend([Do(Start(Who::Node(0))), Wait(rng.u64(0..80) * MS), Do(Start(Who::Node(1)))]);
            steps.extend([Serving, Do(Disk(fails, false))]);
        }
        Kind::WorkerStalls => steps.extend([Do(Stall(Who::Active, stalled, stall)), Wait(stall), outage]),
        Kind::StandbyWorkerStalls => {
            steps.extend([Do(Stall(Who::Standby, stalled, stall)), Wait(stall), outage]);
        }
        Kind::ShortStalls => {
            for _ in 0..rng.u8(4..24) {
                let who = if rng.u8(..8) == 0 { Who::Standby } else { Who::Active };
                let span = rng.u64(50..SHORT_MAX / US) * US;
                steps.push(Do(Stall(who, rng.usize(1..5), span)));
                steps.push(Wait(rng.u64(1..60) * MS));
            }
        }
        Kind::TwoTakeovers => {
            for _ in 0..2 {
                steps.extend([
                    Do(Crash(Who::Active)),
                    Wait(rng.u64(1..200) * MS),
                    Do(Start(Who::Victim)),
                    Settled,
                ]);
                steps.push(Wait(rng.u64(0..200) * MS));
            }
        }
        Kind::Switchover => {
            for _ in 0..rng.u8(1..4) {
                steps.extend([
                    Do(Operator(Who::Active, baton::failover::Operator::Switchover)),
                    Wait(80 * MS),
                ]);
                steps.extend([Settled, Wait(rng.u64(0..200) * MS)]);
            }
        }
        Kind::Shutdown => {
            steps.extend([
                Do(Operator(Who::Active, baton::failover::Operator::Shutdown)),
                Wait(150 * MS),
                outage,
            ]);
            steps.push(Do(Start(Who::Victim)));
        }
        Kind::Partition | Kind::SafePartition => {
            steps.extend([Do(CutBothWays(&ALL)), outage, Wait(60 * MS), Do(Mend)])
        }
        Kind::Panics => {
            let who = if rng.u8(..4) == 0 { Who::Standby } else { Who::Active };
            steps.extend([Do(Break(who)), Wait(150 * MS), outage, Do(Start(Who::Victim))]);
        }
        Kind::WorkerStuckForGood => {
            steps.extend([Do(StuckForGood(Who::Active)), Wait(100 * MS), Serving, outage, Serving]);
            // Only then does somebody end the process.
            steps.extend([Fair, Wait(50 * MS), Drained, Probe(3), Drained]);
            steps.extend([Do(Crash(Who::Victim)), Do(Start(Who::Victim))]);
        }
        Kind::ClockDrifts => match rng.u8(..6) {
            0 | 1 => steps.extend([Do(Pause(Who::Active)), outage, Do(GoOn(Who::Victim))]),
            2 => steps.extend([Do(CutFrom(Who::Active, &ALL)), outage, Do(Mend)]),
            3 => steps.extend([Do(CutFrom(Who::Standby, &ALL)), outage, Do(Mend)]),
            4 => steps.extend([Do(Stall(Who::Active, stalled, stall)), Wait(stall), outage]),
            _ => steps.extend([Do(Crash(Who::Active)), outage, Do(Start(Who::Victim))]),
        },
        Kind::ActiveLinksCut => steps.extend([Do(AllCables(Who::Active)), outage, Do(Mend)]),
        Kind::StandbyLinksCut => steps.extend([Do(AllCables(Who::Standby)), outage, Do(Mend)]),
        Kind::ThreePartial if alone => {
            steps.extend([Do(Crash(Who::Active)), Wait(rng.u64(0..100) * MS), UpSettled]);
            steps.extend([Wait(rng.u64(0..300) * MS), Do(CrashLast(Who::Active)), outage]);
            steps.extend((0..3).map(|at| Do(Start(Who::Node(at)))));
        }
        Kind::ThreeActiveCrashes | Kind::ThreePartial => {
            steps.extend([Do(Crash(Who::Active)), outage, Do(Start(Who::Victim))])
        }
        Kind::ThreeTwoCrash => {
            steps.extend([Do(Crash(Who::Active)), Wait(rng.u64(0..100) * MS), UpSettled]);
            steps.extend([Wait(rng.u64(0..150) * MS), Do(Crash(Who::Active)), outage]);
            steps.extend((0..3).map(|at| Do(Start(Who::Node(at)))));
        }
        Kind::ThreeStandbyLags | Kind::ThreeLagsThenCrash => {
            steps.push(Do(match rng.u8(..4) {
                0 => Stall(Who::Standby, stalled, stall),
                1 => Isolate(Who::Standby, &[MIRROR]),
                2 => CutFrom(Who::Standby, &[MIRROR]),
                _ => Pause(Who::Standby),
            }));
            if kind == Kind::ThreeLagsThenCrash {
                steps.extend([Wait(rng.u64(0..200) * MS), Do(Crash(Who::Active))]);
            }
            steps.extend([outage, Do(Mend), Wait(stall)]);
            steps.extend((0..3).flat_map(|at| [Do(GoOn(Who::Node(at))), Do(Start(Who::Node(at)))]));
        }
        Kind::ThreePartition | Kind::ThreeSafePartition => {
            let who = if rng.bool() { Who::Active } else { Who::Standby };
            steps.extend([Do(Isolate(who, &ALL)), outage, Wait(60 * MS), Do(Mend)]);
        }
        Kind::WitnessPartition => {
            let cuts = [(); 2].map(|()| match rng.u8(..8) {
                0..=3 => None,
                4 | 5 => Some(Cut::Both),
                6 => Some(Cut::Requests),
                _ => Some(Cut::Answers),
            });
            let late = if rng.u8(..3) == 0 { rng.u64(1..80) * MS } else { 0 };
            steps.extend([Do(SlowWitness(late)), Do(CutBothWays(&ALL))]);
            for (at, cut) in cuts.into_iter().enumerate() {
                if let Some(cut) = cut {
                    steps.extend([Wait(rng.u64(0..100) * MS), Do(CutWitness(Who::Node(at), cut))]);
                }
            }
            steps.extend([outage, Wait(60 * MS)]);
            // One that is granted and does not hear so keeps the other one from serving.
            let mutes = cuts.contains(&Some(Cut::Answers));
            if late == 0 && cuts.contains(&None) && !mutes {
                steps.push(Serving);
            }
            steps.push(Do(Mend));
        }
        Kind::WitnessLost => {
            steps.push(match rng.u8(..4) {
                0 => Do(CutWitness(Who::Active, Cut::Both)),
                1 => Do(CutWitness(Who::Standby, Cut::Both)),
                _ => Do(Witness(false)),
            });
            steps.extend([outage, Do(Witness(true)), Wait(rng.u64(0..200) * MS), Do(Mend)]);
        }
        Kind::WitnessRestarts => {
            steps.push(Do(CutBothWays(&ALL)));
            for _ in 0..rng.u8(1..5) {
                steps.extend([Wait(rng.u64(0..150) * MS), Do(Witness(true))]);
            }
            if rng.u8(..3) == 0 {
                let who = Who::Node(rng.usize(..2));
                steps.extend([Wait(rng.u64(0..100) * MS), Do(CutWitness(who, Cut::Both))]);
            }
            steps.extend([outage, Serving, Do(Mend)]);
        }
        Kind::FlowsDamaged => {
            for _ in 0..rng.u8(1..6) {
                steps.extend([Do(Damage(Who::Standby)), Wait(rng.u64(0..200) * MS)]);
            }
            steps.push(soon);
        }
        Kind::FlowsChosen => {
            // Those of whoever takes over may be chosen, too.
            for crashes in [true, false] {
                for _ in 0..rng.u8(4..20) {
                    let wait = if rng.bool() { rng.u64(0..4) } else { rng.u64(0..60) };
                    steps.extend([Do(Choose(Who::Active, rng.usize(1..6))), Wait(wait * MS)]);
                }
                if crashes {
                    let crash = [Do(Crash(Who::Active)), outage.clone(), Do(Start(Who::Victim)), Settled];
                    steps.extend(crash);
                }
            }
            // Ports of what was left out are handed out by whoever led before, if it has forgotten them.
            steps.extend([
                Wait(rng.u64(0..200) * MS),
                Do(Operator(Who::Active, baton::failover::Operator::Switchover)),
            ]);
            steps.extend([Wait(80 * MS), Settled, Wait(rng.u64(0..200) * MS)]);
        }
        Kind::TwoFaults => {
            for _ in 0..2 {
                let who = if rng.bool() { Who::Active } else { Who::Standby };
                steps.push(Do(match rng.u8(0..5) {
                    0 => Crash(who),
                    1 => Pause(who),
                    2 => CutFrom(who, &ALL),
                    3 => CutBothWays(&[MIRROR]),
                    _ => Stall(who, stalled, stall),
                }));
                steps.push(Wait(rng.u64(0..200) * MS));
            }
            steps.extend([Wait(stall), Do(Mend), Do(GoOn(Who::Node(0))), Do(GoOn(Who::Node(1)))]);
            steps.extend([Do(Start(Who::Node(0))), Do(Start(Who::Node(1)))]);
        }
    }
    steps.extend([Wait(150 * MS), Settled, Fair, Wait(50 * MS), Settled, Drained]);
    steps.extend([Probe(if light { 3 } else { 8 }), Drained]);
    if kind.has_rough_mirror() || kind == Kind::FlowsDamaged {
        steps.push(Wait(STRAGGLE_MAX)); // The last stragglers come in.
    }
    steps.extend([Alike, Empty]);
    steps.into()
}
