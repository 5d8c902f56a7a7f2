//! Goes through the steps of a run, one after the other.

use std::collections::VecDeque;

use baton::failover::{Operator, Role};

use crate::agenda::{Happening, MS, Nanos};
use crate::checks;
use crate::kind::Kind;
use crate::lcore::Slow;
use crate::link::{MIRROR, Narrow};
use crate::partial;
use crate::witness::Cut;
use crate::world::{ALL, World};

/// Longer than any run.
const FOR_GOOD: Nanos = 1_000_000 * MS;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    Node(usize),
    Active,
    Standby,
    /// Whom the newest fault hit that chose by role.
    Victim,
    /// The one after that.
    Other,
}

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Crash(Who),
    /// The last one crashes that tracks everything.
    CrashLast(Who),
    Start(Who),
    Pause(Who),
    GoOn(Who),
    /// Nothing passes from this one to the other on these LANs.
    CutFrom(Who, &'static [usize]),
    /// Nothing passes between any two on these LANs.
    CutBothWays(&'static [usize]),
    /// Nothing passes between this one and the others on these LANs.
    Isolate(Who, &'static [usize]),
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
    /// A thread of its process fails.
    Break(Who),
    /// One lcore never moves again.
    StuckForGood(Who),
    /// The cables of all its ports are pulled.
    AllCables(Who),
    /// Nothing passes between this one and the witness, in one direction or both.
    CutWitness(Who, Cut),
    /// What is said to the witness, and by it, takes up to so much longer.
    SlowWitness(Nanos),
    /// The witness is there, and knows nothing of before; or it is not.
    Witness(bool),
    Operator(Who, Operator),
    /// A flow of this one is in another state than it was.
    Damage(Who),
    /// All that is on its disk is lost, while it is down.
    LoseDisk(Who),
    /// Its lcores take few frames at a time, and long for it.
    Slow(Who, Slow),
    /// The way to its port carries little.
    Narrow(Who, usize, Narrow),
    /// An operator says of so many of its flows whether they are mirrored.
    Choose(Who, usize),
}

#[derive(Clone, Debug)]
pub enum Step {
    Wait(Nanos),
    /// Until so many more things have happened, whatever they are.
    Events(u64),
    /// Until the one that the newest fault hit that chose by role follows somebody.
    Following,
    /// Until one serves.
    Serving,
    /// Until one serves and all others are in sync with it.
    Settled,
    /// The same of all that are up.
    UpSettled,
    /// Until another one serves than the newest fault hit that chose by role.
    HandedOver,
    Traffic(Nanos),
    Do(Fault),
    /// Faults are over and the weather is fair from now on.
    Fair,
    /// New connections, which must all succeed.
    Probe(usize),
    /// Until no client waits for anything any more.
    Drained,
    /// Until the tables of both are alike, and all digests say so.
    Alike,
    /// Until nothing is left behind in queues.
    Empty,
}

/// The steps to come.
pub struct Script {
    steps: VecDeque<Step>,
    since: Option<Nanos>,
    /// What is waited for is over when so many things have happened.
    until_event: Option<u64>,
    victim: usize,
    over: bool,
}

impl Script {
    pub fn new(steps: VecDeque<Step>) -> Script {
        Script { steps, since: None, until_event: None, victim: 0, over: false }
    }

    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether it goes on now that so many things have happened.
    pub fn waited_for(&self, events: u64) -> bool {
        self.until_event.is_some_and(|until| events >= until)
    }

    /// Whether anything is left to be done but the last checks.
    pub fn end(&mut self) {
        self.over = true;
    }
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
                // A pause ends to the nanosecond: what comes then may come between any two others.
                let next = match step {
                    Step::Wait(span) => since + span,
                    _ => now + 2 * MS,
                };
                world.agenda.at(next, Happening::Script);
                return;
            }
            // Where a third of all is lost, one of many streams waits for an answer at any time: nobody need be in sync.
            let scenario = &world.scenario;
            let is_rough = scenario.kind.has_rough_mirror() || scenario.weather[MIRROR].loss > 100_000;
            if !(is_rough && world.checks.fair_since.is_none() && matches!(step, Step::Settled)) {
                world.checks.violate(now, format!("after {} ms still not: {step:?}", (now - since) / MS));
                world.script.end();
                return;
            }
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
        Step::Events(count) => {
            let until = *world.script.until_event.get_or_insert(world.events + count);
            let over = world.events >= until;
            world.script.until_event = Some(until).filter(|_| !over);
            over
        }
        Step::Following => {
            let up = world.nodes[world.script.victim].up.as_ref();
            up.is_some_and(|up| up.failover.role() == Role::Standby)
        }
        Step::Serving => world.active().is_some(),
        Step::Settled => {
            let settled = world.is_settled(true);
            world.checks.settled |= settled;
            settled
        }
        Step::UpSettled => world.is_settled(false),
        Step::HandedOver => world.active().is_some_and(|at| at != world.script.victim),
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
        Step::Alike => {
            let (difference, patience) = match checks::difference(world) {
                None => (checks::disagreement(world, since), 3000 * MS),
                // Not before that do digests say so.
                difference if world.scenario.kind == Kind::FlowsDamaged => (difference, 3000 * MS),
                difference => (difference, 1500 * MS),
            };
            match difference {
                None => true,
                Some(difference) if now >= since + patience => {
                    world.checks.violate(now, difference);
                    true
                }
                Some(_) => false,
            }
        }
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
    let active = world.active().or_else(|| (0..world.nodes.len()).find(|at| world.nodes[*at].leads));
    let found = match who {
        Who::Node(at) => return Some(at),
        Who::Victim => return Some(world.script.victim),
        Who::Other => return Some((world.script.victim + 1) % world.nodes.len()),
        Who::Active => active,
        Who::Standby => active.map(|at| (at + 1) % world.nodes.len()),
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
        Fault::CrashLast(_) => partial::left_alone(world),
        Fault::Start(_)
        | Fault::GoOn(_)
        | Fault::Mend
        | Fault::Damage(_)
        | Fault::LoseDisk(_)
        | Fault::Choose(..) => {}
        Fault::Crash(_)
        | Fault::Pause(_)
        | Fault::CutFrom(..)
        | Fault::CutBothWays(_)
        | Fault::Cable(..)
        | Fault::Stall(..)
        | Fault::OneWay(..)
        | Fault::Forget
        | Fault::Disk(..)
        | Fault::Break(_)
        | Fault::StuckForGood(_)
        | Fault::AllCables(_)
        | Fault::Isolate(..)
        | Fault::CutWitness(..)
        | Fault::SlowWitness(_)
        | Fault::Witness(_)
        | Fault::Rehash(_)
        | Fault::Slow(..)
        | Fault::Narrow(..)
        | Fault::Operator(..) => checks::before_fault(world),
    }
    match fault {
        Fault::Crash(who) | Fault::CrashLast(who) => {
            whom(world, who).into_iter().for_each(|at| world.crash(at))
        }
        Fault::Start(who) => {
            let at = whom(world, who).filter(|at| world.nodes[*at].up.is_none());
            at.into_iter().for_each(|at| world.start(at));
        }
        Fault::Pause(who) => whom(world, who).into_iter().for_each(|at| world.pause(at)),
        Fault::GoOn(who) => whom(world, who).into_iter().for_each(|at| world.go_on(at)),
        Fault::CutFrom(who, lans) => {
            if let Some(from) = whom(world, who) {
                world.cut_from(from, lans, false);
            }
        }
        Fault::CutBothWays(lans) => {
            (0..world.nodes.len()).for_each(|at| world.cut_from(at, lans, false));
        }
        Fault::Cable(who, lan) => whom(world, who).into_iter().for_each(|at| world.pull_cable(at, lan)),
        Fault::Isolate(who, lans) => {
            whom(world, who).into_iter().for_each(|at| world.cut_from(at, lans, true))
        }
        Fault::AllCables(who) => {
            let at = whom(world, who);
            at.into_iter().for_each(|at| ALL.iter().for_each(|lan| world.pull_cable(at, *lan)));
        }
        Fault::Break(who) => whom(world, who).into_iter().for_each(|at| world.break_thread(at)),
        Fault::StuckForGood(who) => whom(world, who).into_iter().for_each(|at| world.stall(at, 1, FOR_GOOD)),
        Fault::Mend => world.mend(),
        Fault::Stall(who, count, span) => {
            whom(world, who).into_iter().for_each(|at| world.stall(at, count, span));
        }
        Fault::Rehash(who) => whom(world, who).into_iter().for_each(|at| world.rehash(at)),
        Fault::OneWay(who, lan, inwards) => {
            whom(world, who).into_iter().for_each(|at| world.cut_one_way(at, lan, inwards));
        }
        Fault::Damage(who) => whom(world, who).into_iter().for_each(|at| world.damage(at)),
        Fault::LoseDisk(who) => whom(world, who).into_iter().for_each(|at| world.lose_disk(at)),
        Fault::Slow(who, slow) => whom(world, who).into_iter().for_each(|at| world.slow_lcores(at, slow)),
        Fault::Narrow(who, lan, narrow) => {
            whom(world, who).into_iter().for_each(|at| world.narrow_link(at, lan, narrow));
        }
        Fault::Choose(who, count) => {
            whom(world, who).into_iter().for_each(|at| world.choose(at, count));
        }
        Fault::Forget => world.forget_addresses(),
        Fault::Disk(who, fails) => whom(world, who).into_iter().for_each(|at| world.disk(at, fails)),
        Fault::CutWitness(who, cut) => {
            whom(world, who).into_iter().for_each(|at| world.cut_witness(at, cut));
        }
        Fault::SlowWitness(late) => world.slow_witness(late),
        Fault::Witness(runs) => world.bear_witness(runs),
        Fault::Operator(who, operator) => {
            whom(world, who).into_iter().for_each(|at| world.operator(at, operator));
        }
    }
}
