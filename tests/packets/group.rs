//! Two members of a group, of several workers each, joined by their mirror frames.

use baton::base::ids::{NodeId, Term};
use baton::base::io::TxClass;
use baton::base::time::Duration;
use baton::config::checked::{Checked, Method};
use baton::worker::Origin;
use baton::worker::message::{Command, Role};

use crate::pair::*;
use crate::workers::*;

pub struct Group {
    pub sides: [Workers; 2],
    leader: usize,
    terms: u64,
    /// A side as it was when it began.
    fresh: Box<dyn Fn(usize) -> Workers>,
}

fn node(side: usize) -> NodeId {
    NodeId(side as u16 + 1)
}

impl Group {
    /// The first leads, and the second one is up to date. They have so many workers.
    pub fn in_sync(workers: [u16; 2], method: Method, edit: impl Fn(usize, &mut Checked) + 'static) -> Group {
        let fresh = move |side: usize| {
            Workers::of_node(side as u16 + 1, workers[side], method, |checked| edit(side, checked))
        };
        let mut group = Group { sides: [fresh(0), fresh(1)], leader: 1, terms: 0, fresh: Box::new(fresh) };
        group.change_roles();
        group.join();
        group
    }

    /// The leader loses its state: a new process of the same node, which leads on.
    pub fn begin_anew(&mut self) {
        let now = self.leader().benches[0].now;
        self.sides[self.leader] = (self.fresh)(self.leader);
        self.leader().benches.iter_mut().for_each(|bench| bench.now = now);
        self.leader = 1 - self.leader;
        self.change_roles();
        self.join();
    }

    /// A new session.
    pub fn join(&mut self) {
        let workers = [0, 1].map(|side| self.sides[side].benches.len() as u16);
        let (ours, theirs) = sessions_of(workers);
        self.sides[0].command(&Command::PeerSession { node: node(1), session: ours });
        self.sides[1].command(&Command::PeerSession { node: node(0), session: theirs });
        self.exchange(300);
    }

    pub fn leader(&mut self) -> &mut Workers {
        &mut self.sides[self.leader]
    }

    pub fn standby(&mut self) -> &mut Workers {
        &mut self.sides[1 - self.leader]
    }

    /// The other one leads under the next term; all that is on its way comes before.
    pub fn change_roles(&mut self) {
        self.leader = 1 - self.leader;
        self.terms += 1;
        let term = Term { counter: self.terms, node: node(self.leader) };
        for (side, role) in [(self.leader, Role::Active), (1 - self.leader, Role::Standby)] {
            let leads = role == Role::Active;
            let workers = &mut self.sides[side];
            workers.command(&Command::Role { epoch: self.terms, role, term });
            workers.benches.iter_mut().for_each(|bench| bench.worker.set_serves(leads));
            workers.moves.take_role(leads);
        }
    }

    /// So much time goes by, and nothing is lost.
    pub fn exchange(&mut self, millis: usize) {
        for _ in 0..millis {
            self.sides.iter_mut().for_each(|workers| workers.moves.turn_now());
            self.exchange_while_masters_rest(1);
        }
    }

    /// The same, but no shard goes anywhere.
    pub fn exchange_while_masters_rest(&mut self, millis: usize) {
        for _ in 0..millis {
            for side in 0..2 {
                let workers = &mut self.sides[side];
                for number in 0..workers.benches.len() {
                    workers.benches[number].now += Duration::from_millis(1);
                    workers.turn(number, Origin::Worker, Vec::new());
                }
                workers.settle();
                for frame in workers.take_sent(TxClass::Own) {
                    assert_eq!(frame.port, MIRROR_PORT);
                    self.sides[1 - side].receive(MIRROR_PORT, &to(&frame.bytes, 0));
                }
            }
        }
    }

    /// All flows have been idle for an hour.
    pub fn pass_hour(&mut self) {
        let benches = self.sides.iter_mut().flat_map(|side| &mut side.benches);
        benches.for_each(|bench| bench.now += Duration::from_secs(3600));
    }

    /// Until no shard is on its way at the leader, or at the standby.
    pub fn settle_moves(&mut self) {
        for _ in 0..5000 {
            if self.sides.iter().all(|workers| !workers.moves.is_busy()) {
                return;
            }
            self.exchange(1);
        }
        panic!("a shard does not come to its new owner");
    }
}
