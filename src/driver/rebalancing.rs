//! `baton rebalance`, answered: what the workers hold is asked, what is to move decided, and the master told.

use std::sync::mpsc::channel;
use std::time::Duration as StdDuration;

use crate::base::ids::{ShardId, WorkerId};
use crate::control::rebalance::{MoveLine, RebalanceReport, Wanted};
use crate::driver::backend::Appliance;
use crate::driver::master::Question;
use crate::failover::Role;
use crate::master::rebalance::{ShardFlows, plan, skew};
use crate::worker::message::WorkerStatus;

/// How long moves may take until the answer is given: they go on, and events say what became of them.
const MOVES_TIMEOUT: StdDuration = StdDuration::from_secs(8);

/// The flows of each shard, by worker.
pub fn shard_flows(workers: &[WorkerStatus]) -> Vec<ShardFlows> {
    workers.iter().map(|status| status.by_shard.clone()).collect()
}

/// Moves what is wanted, and says what became of it.
pub fn rebalance(appliance: &Appliance, wanted: &Wanted) -> Result<RebalanceReport, String> {
    if appliance.published.newest().checked.lcores.managers() < 2 {
        return Err("there is one traffic manager, and nowhere to move a shard to".to_owned());
    }
    let status = appliance.failover();
    if status.as_ref().is_none_or(|status| status.role != Role::Active) {
        return Err("this appliance does not lead: its flows are where the leader's word comes to".to_owned());
    }
    let mut loads = shard_flows(&appliance.workers());
    if loads.is_empty() {
        return Err("the workers do not answer".to_owned());
    }
    let held = loads.clone();
    let moves = match wanted.one {
        Some((shard, to)) => {
            go(&mut loads, shard, to);
            vec![(shard, to)]
        }
        None => plan(&mut loads),
    };
    let line = |(shard, to): &(ShardId, WorkerId)| {
        let from = held.iter().position(|shards| shards.iter().any(|(of, _)| of == shard));
        let flows = held.iter().flatten().find(|(of, _)| of == shard).map_or(0, |(_, flows)| *flows);
        MoveLine { shard: *shard, from: WorkerId(from.unwrap_or(0) as u16), to: *to, flows, refused: None }
    };
    let mut report = RebalanceReport {
        dry_run: wanted.dry_run,
        skew_before: skew(&held),
        skew_after: skew(&loads),
        moves: moves.iter().map(line).collect(),
    };
    if wanted.dry_run || moves.is_empty() {
        return Ok(report);
    }
    let (answer, answered) = channel();
    let asked = appliance.questions.lock().send(Question::Move(moves, answer));
    asked.map_err(|_| "the master does not answer".to_owned())?;
    let outcomes = answered
        .recv_timeout(MOVES_TIMEOUT)
        .map_err(|_| "shards are still being moved: `baton events` says what becomes of each".to_owned())?
        .map_err(|refusal| refusal.to_string())?;
    for outcome in outcomes {
        let of = |line: &&mut MoveLine| line.shard == outcome.these.name();
        let Some(line) = report.moves.iter_mut().find(of) else { continue };
        match outcome.result {
            Ok(flows) => line.flows = flows.into(),
            Err(refusal) => line.refused = Some(refusal.to_string()),
        }
    }
    if report.moves.iter().any(|line| line.refused.is_some()) {
        report.skew_after = skew(&shard_flows(&appliance.workers()));
    }
    Ok(report)
}

fn go(loads: &mut [ShardFlows], shard: ShardId, to: WorkerId) {
    let flows = loads.iter().flatten().find(|(of, _)| *of == shard).map_or(0, |(_, flows)| *flows);
    loads.iter_mut().for_each(|shards| shards.retain(|(of, _)| *of != shard));
    if let Some(shards) = loads.get_mut(usize::from(to.0)) {
        shards.push((shard, flows));
    }
}
