//! One run from one seed, and what the checkers say of it.

use baton::base::counters::Counter;

use crate::agenda::{MS, Nanos};
use crate::checks;
use crate::client::Outcome;
use crate::kind::Kind;
use crate::scenario;
use crate::variants::Variants;
use crate::world::World;

/// No run lasts longer, in virtual time.
const LONGEST: Nanos = 40_000 * MS;

const DROPS: [Counter; 6] = [
    Counter::DropStandby,
    Counter::DropTxLease,
    Counter::DropStragglersFull,
    Counter::DropStragglersTimeout,
    Counter::DropQuiescing,
    Counter::DropHoldStandby,
];

/// Which run a seed is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Whatever the seed says.
    pub kind: Option<Kind>,
    /// A short one.
    pub light: bool,
    /// What is broken in it.
    pub variants: Variants,
    /// It says all that happens.
    pub traces: bool,
}

/// What came of a run.
pub struct Report {
    pub seed: u64,
    wanted: Wanted,
    pub scenario: String,
    pub violations: Vec<String>,
    pub connections: usize,
    pub done: usize,
    /// Virtual time.
    pub lasted: Nanos,
    /// Frames that left the appliances.
    pub frames: u64,
    /// Flows that went from one worker to another one.
    pub moved: u64,
    /// How often somebody took over.
    pub takeovers: u64,
    /// Records that standbys refused for want of room.
    pub refused: u64,
    /// Connections that were protected when a fault struck.
    pub promised: u64,
    /// Of them, those that nobody was left for but one that tracks a part.
    pub carried_on: u64,
    /// Flows that were mirrored and then left out.
    pub left_out: u64,
    /// Nothing was lost on the clients' and servers' LANs.
    pub is_fair: bool,
    /// Packets that were relayed to a successor.
    pub stragglers: u64,
    /// Packets of services that somebody dropped who did not serve, and runs at the end.
    pub dropped: [(Counter, u64); 6],
}

impl Report {
    /// What there is to say of it, with the command that replays it.
    pub fn told(&self, variant: &str) -> String {
        let Report { seed, scenario, connections, done, lasted, .. } = self;
        let seconds = *lasted as f64 / 1e9;
        let mut told =
            format!("seed {seed} ({scenario}): {done} of {connections} connections done in {seconds:.3} s\n");
        if self.is_fair {
            let dropped: Vec<_> = self.dropped.iter().filter(|(_, count)| *count > 0).collect();
            told += &format!(
                "  {} packets relayed to successors, dropped without serving: {dropped:?}\n",
                self.stragglers
            );
        }
        for violation in &self.violations {
            told += &format!("  VIOLATED {violation}\n");
        }
        if !self.violations.is_empty() {
            let variant = if variant == "sound" { String::new() } else { format!(" --variant {variant}") };
            let kind = self.wanted.kind.map_or(String::new(), |kind| format!(" --kind {kind:?}"));
            let light = if self.wanted.light { " --light" } else { "" };
            told += &format!("  replay: scripts/simulate --seed {seed}{kind}{light}{variant}\n");
        }
        told
    }
}

/// Runs a seed.
pub fn run(seed: u64, wanted: Wanted) -> Report {
    let Wanted { kind, light, variants, traces } = wanted;
    let (scenario, script) = scenario::of_seed(seed, kind, light);
    let (name, is_fair) = (scenario.to_string(), scenario.is_fair());
    let mut world = World::new(seed, scenario, script, variants, traces);
    let began = world.agenda.now;
    world.run_until(began + LONGEST);
    checks::at_end(&mut world);
    let mut violations = std::mem::take(&mut world.checks.violations);
    violations.sort();
    let count =
        |counter| world.nodes.iter().flat_map(|node| &node.up).map(|up| up.count(counter)).sum::<u64>();
    Report {
        is_fair,
        stragglers: count(Counter::StragglersRelayed),
        dropped: DROPS.map(|counter| (counter, count(counter))),
        seed,
        wanted,
        scenario: name,
        violations: violations
            .into_iter()
            .map(|(at, what)| format!("{:.6}: {what}", at as f64 / 1e9))
            .collect(),
        connections: world.connections().count(),
        done: world.connections().filter(|c| matches!(c.outcome, Some((Outcome::Done, _)))).count(),
        lasted: world.agenda.now - began,
        frames: world.frames,
        moved: world.moves.flows,
        takeovers: world.checks.takeovers,
        refused: world.checks.refused,
        promised: world.checks.promised.len() as u64,
        carried_on: world.checks.carried_on,
        left_out: world.checks.left_out,
    }
}
