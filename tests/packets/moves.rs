//! Shards that move between workers at any time: the master that leads them, and its queues.

use std::collections::VecDeque;

use baton::base::ids::{ShardId, WorkerId};
use baton::base::rng::Rng;
use baton::flow::shard::Move;
use baton::master::rebalance::{Output, Rebalance, Refusal};
use baton::worker::moving::{MoveCommand, MoveEvent, MoveRefusal};

/// Shards that move: the master that leads them, and what it and the lcores have said to each other.
pub struct Moves {
    master: Rebalance,
    workers: u16,
    shards: Vec<ShardId>,
    /// For each worker, and each distributor.
    pub commands: Vec<VecDeque<MoveCommand>>,
    pub redirections: Vec<VecDeque<Move>>,
    pub said: VecDeque<(WorkerId, MoveEvent)>,
}

impl Moves {
    /// Of some of these shards, on an appliance of so many workers and distributors.
    pub fn new(workers: u16, distributors: u16, shards: Vec<ShardId>) -> Moves {
        let mut master = Rebalance::new(workers, distributors);
        master.handle_role(true);
        Moves {
            master,
            workers,
            shards,
            commands: (0..workers).map(|_| VecDeque::new()).collect(),
            redirections: (0..distributors).map(|_| VecDeque::new()).collect(),
            said: VecDeque::new(),
        }
    }

    pub fn is_busy(&self) -> bool {
        self.master.is_busy()
    }

    pub fn begin(&mut self, rng: &mut Rng) -> bool {
        let shard = self.shards[rng.usize(0..self.shards.len())];
        self.master.ask(&[(shard, WorkerId(rng.u16(0..self.workers)))]).is_ok()
    }

    /// A shard is wanted at this worker.
    pub fn ask(&mut self, shard: ShardId, to: WorkerId) {
        self.master.ask(&[(shard, to)]).expect("it can be moved");
    }

    /// The appliance leads, or does so no more.
    pub fn take_role(&mut self, leads: bool) {
        self.master.handle_role(leads);
    }

    /// The master's turn, perhaps.
    pub fn turn(&mut self, rng: &mut Rng) {
        if rng.bool() {
            self.turn_now();
        }
    }

    /// The master's turn.
    pub fn turn_now(&mut self) {
        for (worker, event) in self.said.drain(..) {
            self.master.handle_event(worker, event);
        }
        while let Some(output) = self.master.poll_output() {
            match output {
                Output::Worker { to, command } => self.commands[usize::from(to.0)].push_back(command),
                Output::Distributors(these) => {
                    self.redirections.iter_mut().for_each(|moves| moves.push_back(these));
                }
                // One that leads no more by now begins none.
                Output::Done(done) => assert!(
                    matches!(done.result, Ok(_) | Err(Refusal::Worker(MoveRefusal::Standby))),
                    "{done:?}"
                ),
            }
        }
    }
}
