//! Shards that move from one worker to another one, led by the master (REQ E1): which, as the operator says or as
//! [`plan`] finds out, and how, one [`Move`] at a time. What each worker does is in
//! [`worker::moving`](crate::worker::moving).
//!
//! In: what is wanted, the role, what workers say. Out: commands for workers, redirections for distributors on lcores of their
//! own, and what became of each move. While this appliance does not lead, shards go home: that is where a leader's word comes
//! to.

use std::collections::VecDeque;

use crate::base::ids::{ShardId, WorkerId};
use crate::base::limits::REBALANCE_MOVES_MAX;
use crate::flow::shard::{Move, Owners, ShardSet, owner_of};
use crate::worker::moving::{MoveCommand, MoveEvent, MoveRefusal};

/// The busiest worker may have so many times the flows of the mean one.
const SKEW_MAX: f64 = 1.05;

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Tell a worker.
    Worker {
        /// Which.
        to: WorkerId,
        /// What.
        command: MoveCommand,
    },
    /// Tell every lcore that only distributes.
    Distributors(Move),
    /// A move came to its end.
    Done(Outcome),
}

/// What became of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Of which.
    pub these: Move,
    /// The flows that went along, or why it did not take place.
    pub result: Result<u32, Refusal>,
}

/// Why a move did not take place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This appliance does not lead.
    Standby,
    /// Other moves are under way.
    Busy,
    /// There is no such worker, or only one.
    NoWorker,
    /// The new owner has the shard already, or it is no shard.
    Pointless,
    /// A worker said so.
    Worker(MoveRefusal),
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Refusal::Standby | Refusal::Worker(MoveRefusal::Standby) => {
                "this appliance does not lead: its flows are where the leader's word comes to"
            }
            Refusal::Busy => "other shards are being moved",
            Refusal::NoWorker => "there is no such worker to move shards to",
            Refusal::Pointless => "the worker has this shard, or there is no such shard",
            Refusal::Worker(MoveRefusal::Otherwise) => "the worker has a part in another move",
            Refusal::Worker(MoveRefusal::Walking) => {
                "a peer is being brought up to date, or takes over: try again later"
            }
            Refusal::Worker(MoveRefusal::Unacknowledged) => {
                "a peer does not acknowledge what it is told: try again later"
            }
            Refusal::Worker(MoveRefusal::NoRoom) => "the new owner's table has no room for the shard's flows",
        })
    }
}

/// How far the move is that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The old owner looks for the flows.
    Gathering,
    /// The new owner makes ready.
    Preparing,
    /// Packets are redirected, and flows come.
    Moving,
}

/// What a worker said, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Gathered,
    Expecting,
    Refused,
    Cargo,
    Settled,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: it is not expected.
    Stay,
    /// Have the new owner make ready.
    Prepare,
    /// Redirect packets.
    Redirect,
    /// Give flows to the new owner.
    Forward,
    /// The move is over.
    Finish,
    /// The old owner refused.
    GiveUp,
    /// The new owner refused: tell the old one.
    Cancel,
}

/// The table. `old`: the old owner said it, else the new one.
const fn step(stage: Stage, said: Said, old: bool) -> Step {
    match (stage, said, old) {
        (Stage::Gathering, Said::Gathered, true) => Step::Prepare,
        (Stage::Gathering, Said::Refused, true) => Step::GiveUp,
        (Stage::Preparing, Said::Expecting, false) => Step::Redirect,
        (Stage::Preparing, Said::Refused, false) => Step::Cancel,
        (Stage::Moving, Said::Cargo, true) => Step::Forward,
        (Stage::Moving, Said::Settled, false) => Step::Finish,
        (Stage::Gathering, Said::Gathered | Said::Refused, false)
        | (Stage::Gathering, Said::Expecting | Said::Cargo | Said::Settled, _)
        | (Stage::Preparing, Said::Expecting | Said::Refused, true)
        | (Stage::Preparing, Said::Gathered | Said::Cargo | Said::Settled, _)
        | (Stage::Moving, Said::Cargo, false)
        | (Stage::Moving, Said::Settled, true)
        | (Stage::Moving, Said::Gathered | Said::Expecting | Said::Refused, _) => Step::Stay,
    }
}

/// A move that is under way.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    these: Move,
    stage: Stage,
    home: bool,
}

/// See the file's documentation.
pub struct Rebalance {
    workers: u16,
    /// Lcores that hand over packets: workers, and those that only distribute.
    lcores: u16,
    owners: Owners,
    leads: bool,
    /// Shards are to go home.
    homing: bool,
    waiting: VecDeque<Move>,
    under_way: Option<UnderWay>,
    outputs: VecDeque<Output>,
}

impl Rebalance {
    /// No shard was moved. With so many workers, and so many lcores that only distribute.
    pub fn new(workers: u16, distributors: u16) -> Rebalance {
        Rebalance {
            workers,
            lcores: workers + distributors,
            owners: Owners::even(workers),
            leads: false,
            homing: false,
            waiting: VecDeque::new(),
            under_way: None,
            outputs: VecDeque::new(),
        }
    }

    /// Which worker owns each shard, or will when the move is over that is under way.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Whether a move is under way, or wanted.
    pub fn is_busy(&self) -> bool {
        self.under_way.is_some() || !self.waiting.is_empty() || self.homing
    }

    /// The role changed.
    pub fn handle_role(&mut self, leads: bool) {
        self.leads = leads;
        // A leader keeps them where they are.
        self.homing = !leads;
        if !leads {
            for these in core::mem::take(&mut self.waiting) {
                self.say_done(these, Err(Refusal::Standby));
            }
        }
        self.go_on();
    }

    /// Once in a while: a way home that was refused is tried again.
    pub fn poll(&mut self) {
        self.go_on();
    }

    /// These shards are wanted there, one move after the other: each by its shard and its new owner.
    pub fn ask(&mut self, wanted: &[(ShardId, WorkerId)]) -> Result<(), Refusal> {
        if !self.leads {
            return Err(Refusal::Standby);
        }
        if self.is_busy() {
            return Err(Refusal::Busy);
        }
        if self.workers < 2 || wanted.iter().any(|(_, to)| to.0 >= self.workers) {
            return Err(Refusal::NoWorker);
        }
        let is_new = |(shard, to): &(ShardId, WorkerId)| {
            usize::from(shard.0) < crate::base::limits::SHARDS && self.owners.of(*shard) != *to
        };
        if !wanted.iter().all(is_new) {
            return Err(Refusal::Pointless);
        }
        let these = |(shard, to): &(ShardId, WorkerId)| Move {
            shards: [*shard].into_iter().collect(),
            from: self.owners.of(*shard),
            to: *to,
        };
        self.waiting = wanted.iter().map(these).collect();
        self.go_on();
        Ok(())
    }

    /// A worker said something.
    pub fn handle_event(&mut self, worker: WorkerId, event: MoveEvent) {
        let Some(UnderWay { these, stage, home }) = self.under_way else { return };
        if worker != these.from && worker != these.to {
            return;
        }
        let said = match &event {
            MoveEvent::Gathered { .. } => Said::Gathered,
            MoveEvent::Expecting { .. } => Said::Expecting,
            MoveEvent::Refused(_) => Said::Refused,
            MoveEvent::Cargo(_) => Said::Cargo,
            MoveEvent::Settled { .. } => Said::Settled,
        };
        match (step(stage, said, worker == these.from), event) {
            (Step::Prepare, MoveEvent::Gathered { flows }) => {
                self.under_way = Some(UnderWay { these, stage: Stage::Preparing, home });
                self.tell(these.to, MoveCommand::Expect { these, flows, home });
            }
            (Step::Redirect, MoveEvent::Expecting { room }) => {
                self.tell(these.from, MoveCommand::Room(room));
                self.under_way = Some(UnderWay { these, stage: Stage::Moving, home });
                these.shards.iter().for_each(|shard| self.owners.set(shard, these.to));
                for worker in (0..self.workers).map(WorkerId).filter(|worker| *worker != these.from) {
                    self.tell(worker, MoveCommand::Redirect(these));
                }
                self.outputs.push_back(Output::Distributors(these));
            }
            (Step::Forward, MoveEvent::Cargo(cargo)) => self.tell(these.to, MoveCommand::Take(cargo)),
            (Step::Finish, MoveEvent::Settled { flows }) => self.finish(these, Ok(flows)),
            (Step::GiveUp, MoveEvent::Refused(why)) => self.refused(these, why, home),
            (Step::Cancel, MoveEvent::Refused(why)) => {
                self.tell(these.from, MoveCommand::Cancel);
                self.refused(these, why, home);
            }
            (
                Step::Stay
                | Step::Prepare
                | Step::Redirect
                | Step::Forward
                | Step::Finish
                | Step::GiveUp
                | Step::Cancel,
                MoveEvent::Gathered { .. }
                | MoveEvent::Expecting { .. }
                | MoveEvent::Refused(_)
                | MoveEvent::Cargo(_)
                | MoveEvent::Settled { .. },
            ) => {}
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn tell(&mut self, to: WorkerId, command: MoveCommand) {
        self.outputs.push_back(Output::Worker { to, command });
    }

    fn say_done(&mut self, these: Move, result: Result<u32, Refusal>) {
        self.outputs.push_back(Output::Done(Outcome { these, result }));
    }

    fn finish(&mut self, these: Move, result: Result<u32, Refusal>) {
        self.under_way = None;
        self.say_done(these, result);
        self.go_on();
    }

    fn refused(&mut self, these: Move, why: MoveRefusal, home: bool) {
        if home {
            self.under_way = None; // The next poll tries again.
        } else {
            self.finish(these, Err(Refusal::Worker(why)));
        }
    }

    fn go_on(&mut self) {
        if self.under_way.is_some() {
            return;
        }
        let (these, home) = match self.waiting.pop_front() {
            Some(these) => (these, false),
            None if self.homing => match self.way_home() {
                Some(these) => (these, true),
                None => {
                    self.homing = false;
                    return;
                }
            },
            None => return,
        };
        self.under_way = Some(UnderWay { these, stage: Stage::Gathering, home });
        let markers = self.lcores - 1;
        self.tell(these.from, MoveCommand::Gather { these, markers, home });
    }

    /// Shards that are to go home from one worker to another.
    fn way_home(&self) -> Option<Move> {
        let all = || (0..crate::base::limits::SHARDS as u16).map(ShardId);
        let way = |shard| (self.owners.of(shard), owner_of(shard, self.workers));
        let (from, to) = all().map(way).find(|(from, to)| from != to)?;
        let shards: ShardSet = all().filter(|shard| way(*shard) == (from, to)).collect();
        Some(Move { shards, from, to })
    }
}

/// The flows of each shard of a worker.
pub type ShardFlows = Vec<(ShardId, u64)>;

/// How much more flows the busiest worker has than the mean one; `None`: there are no flows.
pub fn skew(workers: &[ShardFlows]) -> Option<f64> {
    let flows: Vec<u64> = workers.iter().map(total).collect();
    let (sum, max) = (flows.iter().sum::<u64>(), flows.iter().max()?);
    (sum > 0).then(|| *max as f64 * flows.len() as f64 / sum as f64)
}

fn total(shards: &ShardFlows) -> u64 {
    shards.iter().map(|(_, flows)| flows).sum()
}

/// Which shards would go where so that the busiest worker has few more flows than the mean one: at most
/// [`REBALANCE_MOVES_MAX`], each from the busiest to the least busy worker at that point. Changes `workers` as if they had gone.
pub fn plan(workers: &mut [ShardFlows]) -> Vec<(ShardId, WorkerId)> {
    let mut moves: Vec<(ShardId, WorkerId)> = Vec::new();
    while moves.len() < REBALANCE_MOVES_MAX && skew(workers).is_some_and(|skew| skew > SKEW_MAX) {
        let by_flows = |worker: &usize| total(&workers[*worker]);
        let (Some(from), Some(to)) =
            ((0..workers.len()).max_by_key(by_flows), (0..workers.len()).min_by_key(by_flows))
        else {
            break;
        };
        let apart = by_flows(&from) - by_flows(&to);
        // The one after which both are closest.
        let fits = |(_, flows): &&(ShardId, u64)| *flows > 0 && *flows < apart;
        let best =
            workers[from].iter().filter(fits).min_by_key(|(_, flows)| apart.abs_diff(2 * flows)).copied();
        let Some((shard, flows)) = best.filter(|(shard, _)| moves.iter().all(|(moved, _)| moved != shard))
        else {
            break;
        };
        workers[from].retain(|(of, _)| *of != shard);
        workers[to].push((shard, flows));
        moves.push((shard, WorkerId(to as u16)));
    }
    moves
}

#[cfg(test)]
#[path = "rebalance_tests.rs"]
mod tests;
