//! Shards that move from worker to worker while all else goes on (REQ E1): which are asked for, and what becomes of them.

use std::collections::BTreeMap;

use baton::base::ids::{ShardId, WorkerId};
use baton::base::limits::SHARDS;
use baton::flow::shard::owner_of;
use baton::master::rebalance::Outcome;

use crate::agenda::Happening;
use crate::world::{World, name};

/// Shards in one request.
const WANTED_MAX: usize = 4;

/// What was moved.
#[derive(Default)]
pub struct Moves {
    /// Flows that went along.
    pub flows: u64,
}

/// The operator of some appliance, mostly of the one that serves, asks for some shards to be moved: most of them with flows.
pub fn rebalance(world: &mut World) {
    if world.checks.fair_since.is_some() {
        return;
    }
    let gap = world.agenda.span(world.scenario.moves / 2, world.scenario.moves * 3 / 2);
    world.agenda.at(world.agenda.now + gap, Happening::Rebalance);
    let any = world.agenda.rng.usize(..world.nodes.len());
    let at = if world.agenda.rng.u8(..) < 16 { Some(any) } else { world.active() };
    let Some((at, appliance)) = at.and_then(|at| Some((at, world.nodes[at].up.as_mut()?))) else { return };
    let rng = &mut world.agenda.rng;
    let workers = world.scenario.divisions[at].workers() as u16;
    if appliance.paused || workers < 2 {
        return;
    }
    let mut owners = BTreeMap::new();
    for (lcore, number) in appliance.lcores.iter().zip(0..) {
        let flows = lcore.worker().into_iter().flat_map(|worker| worker.flows().table.iter());
        owners.extend(flows.map(|(_, flow)| (flow.shard, WorkerId(number))));
    }
    let mut wanted = BTreeMap::new();
    for _ in 0..rng.usize(1..=WANTED_MAX) {
        let (shard, from) = match owners.len() {
            flows if flows > 0 && rng.u8(..) < 224 => {
                owners.iter().nth(rng.usize(..flows)).map(|(shard, owner)| (*shard, *owner))
            }
            _ => None,
        }
        .unwrap_or_else(|| {
            let shard = ShardId(rng.u16(..SHARDS as u16));
            (shard, owner_of(shard, workers))
        });
        wanted.insert(shard, WorkerId((from.0 + rng.u16(1..workers)) % workers));
    }
    let wanted: Vec<_> = wanted.into_iter().collect();
    let answer = appliance.master.move_shards(&wanted);
    world.say(|| format!("** the operator of {} moves {wanted:?}: {answer:?}", name(at)));
}

/// A move came to its end.
pub fn ended(world: &mut World, at: usize, outcome: &Outcome) {
    world.moves.flows += outcome.result.map_or(0, u64::from);
    world.say(|| format!("** {}: {:?}: {:?}", name(at), outcome.these, outcome.result));
}
