//! What happens in a run: chosen by its seed, step by step.

use std::collections::VecDeque;
use std::fmt;

use baton::base::rng::Rng;
use baton::failover::Operator;

use crate::agenda::{Happening, MS, Nanos, US};
use crate::checks;
use crate::config::{Options, SELECT, SELECT_EVENLY, SERVICES};
use crate::division::{Division, Steering};
use crate::kind::Kind;
use crate::link::{CLIENTS, MIRROR, SERVERS, STRAGGLE_MAX, Weather};
use crate::world::{ALL, World};

/// Nobody takes over from an appliance whose lcores stand still for no longer: it is far less than half of a lease.
const SHORT_MAX: Nanos = 12 * MS;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    Node(usize),
    Active,
    Standby,
    /// Whom the newest fault hit that chose by role.
    Victim,
}

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Crash(Who),
    Start(Who),
    Pause(Who),
    GoOn(Who),
    /// Nothing passes from this one to the other on these LANs.
    CutFrom(Who, &'static [usize]),
    CutBothWays(&'static [usize]),
    /// The cable of a port is pulled.
    Cable(Who, usize),
    Mend,
    /// So many lcores stand still for so long at most.
    Stall(Who, usize, Nanos),
    /// Ports give flows to other lcores than before.
    Rehash(Who),
    /// Frames pass a port of this one in one direction only: in, or else out.
    OneWay(Who, usize, bool),
    /// Switches forget which addresses are where.
    Forget,
    /// What is written on its disk fails, or does no more.
    Disk(Who, bool),
    Operator(Who, Operator),
}

#[derive(Clone, Debug)]
pub enum Step {
    Wait(Nanos),
    /// Until one serves.
    Serving,
    /// Until one serves and the other is in sync with it.
    Settled,
    Traffic(Nanos),
    Do(Fault),
    /// Faults are over and the weather is fair from now on.
    Fair,
    /// New connections, which must all succeed.
    Probe(usize),
    /// Until no client waits for anything any more.
    Drained,
    /// Until the tables of both are alike.
    Alike,
    /// Until nothing is left behind in queues.
    Empty,
}

/// The steps to come.
pub struct Script {
    steps: VecDeque<Step>,
    since: Option<Nanos>,
    victim: usize,
    over: bool,
}

impl Script {
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether anything is left to be done but the last checks.
    pub fn end(&mut self) {
        self.over = true;
    }
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub kind: Kind,
    pub options: Options,
    pub weather: [Weather; 3],
    /// Connections in a second.
    pub rate: u64,
    /// Of 256 connections, those that last long.
    pub long: u8,
    /// The lcores of each appliance.
    pub divisions: [Division; 2],
    pub steering: Steering,
    /// About how long after one request to move shards the next one follows; 0: there are none.
    pub moves: Nanos,
}

impl Scenario {
    /// Nothing is lost on the clients' and servers' LANs.
    pub fn is_fair(&self) -> bool {
        self.weather[..2].iter().all(|weather| weather.loss == 0 && weather.flip == 0)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { kind, rate, divisions: [a, b], steering, moves, .. } = self;
        write!(f, "{kind:?}, {rate}/s, lcores {a} and {b}, {steering:?}")?;
        if *moves > 0 {
            write!(f, ", shards move every {} ms", moves / MS)?;
        }
        let mut select: Vec<&str> = self.options.select.into();
        select.sort_unstable();
        select.dedup();
        if select == ["source"] { Ok(()) } else { write!(f, ", by {}", select.join(", ")) }
    }
}

/// The scenario of a seed; of this kind, or of the one that the seed says.
pub fn of_seed(seed: u64, kind: Option<Kind>) -> (Scenario, Script) {
    let mut rng = Rng::with_seed(seed ^ 0x5eed_5eed);
    let kind = kind.unwrap_or(Kind::ALL[(seed % Kind::ALL.len() as u64) as usize]);
    let mut weather = [Weather::default(); 3];
    if kind != Kind::Calm && rng.u8(..) < 100 {
        // Data links that lose and double a little; heartbeats too.
        for lan in &mut weather[..2] {
            *lan = Weather { loss: rng.u32(0..5_000), duplicate: rng.u32(0..5_000), ..Weather::default() };
            lan.flip = rng.u32(0..5_000);
        }
    }
    if kind == Kind::MirrorRough {
        weather[MIRROR] = Weather {
            loss: rng.u32(0..60_000),
            duplicate: rng.u32(0..60_000),
            reorder: rng.u32(0..200_000),
            straggle: rng.u32(0..20_000),
            flip: rng.u32(0..20_000),
        };
    }
    let options = Options {
        closing_timeout_s: rng.u32(1..3),
        udp_timeout_s: rng.u32(1..4),
        quarantine_s: rng.u32(0..3),
        walk_rate: [500, 5_000, 100_000][rng.usize(0..3)],
        is_safe: kind.is_safe(),
        select: ["source"; SERVICES.len()],
    };
    let mut scenario = Scenario {
        kind,
        options,
        weather,
        rate: rng.u64(40..260),
        long: rng.u8(20..140),
        divisions: Division::of_pair(&mut rng),
        steering: [Steering::Alike, Steering::ByDirection, Steering::Spraying][rng.usize(..3)],
        moves: 0,
    };
    if scenario.divisions.iter().any(|division| division.workers() > 1) {
        // What stalls may break is best seen when much is moved.
        scenario.moves = match kind {
            Kind::ShortStalls => rng.u64(2..8) * MS,
            _ if rng.bool() => rng.u64(2..60) * MS,
            _ => 0,
        };
    }
    if rng.bool() {
        for (select, service) in scenario.options.select.iter_mut().zip(SERVICES) {
            let ways = if service.full_nat { SELECT_EVENLY } else { SELECT.len() };
            *select = SELECT[rng.usize(..ways)];
        }
    }
    (scenario, Script { steps: steps(kind, &mut rng), since: None, victim: 0, over: false })
}

fn steps(kind: Kind, rng: &mut Rng) -> VecDeque<Step> {
    use Fault::*;
    use Step::{Alike, Do, Drained, Empty, Fair, Probe, Serving, Settled, Traffic, Wait};
    let mut steps = Vec::new();
    let first = rng.usize(0..2);
    let traffic = Traffic(rng.u64(900..1600) * MS);
    let soon = Wait(rng.u64(150..600) * MS);
    steps.push(Do(Start(Who::Node(first))));
    if kind == Kind::Calm || kind.is_safe() || rng.bool() {
        steps.extend([
            Wait(rng.u64(0..40) * MS),
            Do(Start(Who::Node(1 - first))),
            Settled,
            traffic,
            soon.clone(),
        ]);
    } else {
        // The other one joins while traffic runs.
        let later = Wait(rng.u64(0..400) * MS);
        steps.extend([Serving, traffic, later, Do(Start(Who::Node(1 - first))), Settled, soon.clone()]);
    }
    if rng.u8(..4) == 0 {
        for at in 0..rng.usize(1..4) {
            steps.extend([Do(Rehash(Who::Node(at % 2))), Wait(rng.u64(0..100) * MS)]);
        }
    }
    let outage = Wait(rng.u64(1..500) * MS);
    let stall = rng.u64(1..300) * MS;
    let stalled = rng.usize(1..4);
    let data = if rng.bool() { CLIENTS } else { SERVERS };
    match kind {
        Kind::Calm | Kind::MirrorRough => steps.push(soon),
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
        Kind::ActiveCableCut => steps.extend([Do(Cable(Who::Active, data)), outage, Do(Mend)]),
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
    steps.extend([Wait(150 * MS), Settled, Fair, Wait(50 * MS), Settled, Drained, Probe(8), Drained]);
    if kind == Kind::MirrorRough {
        steps.push(Wait(STRAGGLE_MAX)); // The last stragglers come in.
    }
    steps.extend([Alike, Empty]);
    steps.into()
}

/// A step is given up, and complained about, after so long.
fn patience(step: &Step) -> Nanos {
    match step {
        Step::Drained => 12_000 * MS,
        _ => 5_000 * MS,
    }
}

/// Goes on with the script.
pub fn go_on(world: &mut World) {
    let now = world.agenda.now;
    loop {
        let Some(step) = world.script.steps.front().cloned() else {
            world.script.end();
            return;
        };
        let since = *world.script.since.get_or_insert(now);
        if !do_step(world, &step, since) {
            if now - since < patience(&step) {
                world.agenda.at(now + 2 * MS, Happening::Script);
                return;
            }
            world.checks.violate(now, format!("after {} ms still not: {step:?}", (now - since) / MS));
            world.script.end();
            return;
        }
        world.script.steps.pop_front();
        world.script.since = None;
    }
}

/// Whether the step is done.
fn do_step(world: &mut World, step: &Step, since: Nanos) -> bool {
    let now = world.agenda.now;
    match step {
        Step::Wait(span) => now >= since + span,
        Step::Serving => world.active().is_some(),
        Step::Settled => {
            let settled = world.pair().is_some();
            world.checks.settled |= settled;
            settled
        }
        Step::Traffic(span) => {
            world.begin_traffic(now + span);
            true
        }
        Step::Do(fault) => {
            do_fault(world, *fault);
            true
        }
        Step::Fair => {
            world.fair_weather();
            world.checks.fair_since = Some(now);
            true
        }
        Step::Probe(count) => {
            for _ in 0..*count {
                let id = world.connect(true);
                world.checks.probes.extend(id);
            }
            true
        }
        Step::Drained => now >= world.arrivals_until && world.connections().all(|c| !c.is_live()),
        Step::Alike => match checks::difference(world) {
            None => true,
            Some(difference) if now >= since + 1500 * MS => {
                world.checks.violate(now, difference);
                true
            }
            Some(_) => false,
        },
        Step::Empty => match checks::left_behind(world) {
            None => true,
            Some(left) if now >= since + 500 * MS => {
                world.checks.violate(now, left);
                true
            }
            Some(_) => false,
        },
    }
}

fn whom(world: &mut World, who: Who) -> Option<usize> {
    let active = world.active().or_else(|| (0..2).find(|at| world.nodes[*at].leads));
    let found = match who {
        Who::Node(at) => return Some(at),
        Who::Victim => return Some(world.script.victim),
        Who::Active => active,
        Who::Standby => active.map(|at| 1 - at),
    };
    world.script.victim = found.unwrap_or(world.script.victim);
    found
}

fn do_fault(world: &mut World, fault: Fault) {
    strike(world, fault);
    let parted = world.is_parted();
    world.checks.partition(world.agenda.now, parted);
}

fn strike(world: &mut World, fault: Fault) {
    match fault {
        Fault::Start(_) | Fault::GoOn(_) | Fault::Mend => {}
        Fault::Crash(_)
        | Fault::Pause(_)
        | Fault::CutFrom(..)
        | Fault::CutBothWays(_)
        | Fault::Cable(..)
        | Fault::Stall(..)
        | Fault::OneWay(..)
        | Fault::Forget
        | Fault::Disk(..)
        | Fault::Rehash(_)
        | Fault::Operator(..) => checks::before_fault(world),
    }
    match fault {
        Fault::Crash(who) => whom(world, who).into_iter().for_each(|at| world.crash(at)),
        Fault::Start(who) => {
            let at = whom(world, who).filter(|at| world.nodes[*at].up.is_none());
            at.into_iter().for_each(|at| world.start(at));
        }
        Fault::Pause(who) => whom(world, who).into_iter().for_each(|at| world.pause(at)),
        Fault::GoOn(who) => whom(world, who).into_iter().for_each(|at| world.go_on(at)),
        Fault::CutFrom(who, lans) => {
            if let Some(from) = whom(world, who) {
                world.cut(from, 1 - from, lans, true);
            }
        }
        Fault::CutBothWays(lans) => {
            world.cut(0, 1, lans, true);
            world.cut(1, 0, lans, true);
        }
        Fault::Cable(who, lan) => whom(world, who).into_iter().for_each(|at| world.pull_cable(at, lan)),
        Fault::Mend => {
            world.cut(0, 1, &ALL, false);
            world.cut(1, 0, &ALL, false);
            world.mend_cables();
        }
        Fault::Stall(who, count, span) => {
            whom(world, who).into_iter().for_each(|at| world.stall(at, count, span));
        }
        Fault::Rehash(who) => whom(world, who).into_iter().for_each(|at| world.rehash(at)),
        Fault::OneWay(who, lan, inwards) => {
            whom(world, who).into_iter().for_each(|at| world.cut_one_way(at, lan, inwards));
        }
        Fault::Forget => world.forget_addresses(),
        Fault::Disk(who, fails) => whom(world, who).into_iter().for_each(|at| world.disk(at, fails)),
        Fault::Operator(who, operator) => {
            whom(world, who).into_iter().for_each(|at| world.operator(at, operator));
        }
    }
}
