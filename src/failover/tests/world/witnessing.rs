//! The witness of a world: a machine of its own, a way to it and from it for each node, and no workers.

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use crate::base::time::Duration;
use crate::failover::witness::words::ANSWER_MAX;
use crate::failover::witness::{Witness, WitnessStatus};

/// Where the witness is, and what is on its way.
#[derive(Default)]
pub struct Site {
    witness: Option<Witness>,
    /// Nodes whose requests do not come through, and whose answers do not.
    pub deaf_to: BTreeSet<usize>,
    pub mute_to: BTreeSet<usize>,
    /// (when, a number): the node, what.
    requests: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    answers: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    sent: u64,
    /// What is said to it, and by it, takes up to so much longer than else.
    pub late_us: u64,
    /// Every request that was sent.
    pub recorded: Vec<Vec<u8>>,
}

impl World {
    /// Starts the witness, if the setup has one; one that runs is killed.
    pub fn start_witness(&mut self) {
        let (key, now) = (self.key.clone().into(), self.now());
        let hold = Duration::from_millis(50);
        let start = |variant| Witness::new(&key, hold, variant, now).expect("the system has entropy");
        self.witness.witness = self.setup.witness.map(start);
    }

    pub fn kill_witness(&mut self) {
        self.witness.witness = None;
    }

    /// Between a node and the witness nothing passes any more, or all does.
    pub fn cut_witness(&mut self, at: usize, cut: bool) {
        for ways in [&mut self.witness.deaf_to, &mut self.witness.mute_to] {
            if cut {
                ways.insert(at);
            } else {
                ways.remove(&at);
            }
        }
    }

    pub fn witness_status(&self) -> WitnessStatus {
        self.witness.witness.as_ref().expect("it is up").status(self.now())
    }

    /// A request comes to the witness that was sent before.
    pub fn replay_to_witness(&mut self, at: usize, datagram: Vec<u8>) {
        let due = self.due();
        self.witness.requests.insert(due, (at, datagram));
    }

    pub(super) fn ask_witness(&mut self, at: usize, datagram: Vec<u8>) {
        self.witness.recorded.push(datagram.clone());
        let lost = self.rng.u8(0..100) < self.setup.loss_percent;
        if !lost && !self.witness.deaf_to.contains(&at) {
            let due = self.due();
            self.witness.requests.insert(due, (at, datagram));
        }
    }

    fn due(&mut self) -> (u64, u64) {
        self.witness.sent += 1;
        let late = self.rng.u64(0..=self.witness.late_us);
        (self.now_us + 100 + self.rng.u64(0..1200) + late, self.witness.sent)
    }

    pub(super) fn witness_turn(&mut self) {
        let now = self.now();
        while let Some(entry) = self.witness.requests.first_entry() {
            if entry.key().0 > self.now_us {
                return;
            }
            let (at, mut datagram) = entry.remove();
            let mut out = [0; ANSWER_MAX];
            let Some(witness) = &mut self.witness.witness else { continue };
            let Some(reply) = witness.handle(now, &mut datagram, &mut out) else { continue };
            let lost = self.rng.u8(0..100) < self.setup.loss_percent;
            if !lost && !self.witness.mute_to.contains(&at) {
                let due = self.due();
                self.witness.answers.insert(due, (at, out[..reply.len].to_vec()));
            }
        }
    }

    /// What has come for a node that runs: the kernel kept it, whatever the process's workers did.
    pub(super) fn take_answers(&mut self, at: usize) {
        let (now, now_us) = (self.now(), self.now_us);
        let due = |key: &(u64, u64), answer: &(usize, Vec<u8>)| key.0 <= now_us && answer.0 == at;
        let keys: Vec<_> = self
            .witness
            .answers
            .iter()
            .filter(|(key, answer)| due(key, answer))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            let Some((_, mut datagram)) = self.witness.answers.remove(&key) else { continue };
            if let Some(up) = &mut self.nodes[at].up {
                up.failover.handle_witness(now, &mut datagram);
            }
        }
    }
}
