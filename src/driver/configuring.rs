//! Another configuration on its way from who made it, by way of the master, to every lcore.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use parking_lot::Mutex;

use crate::config::snapshot::Snapshot;
use crate::distributor::spread::Lookup;
use crate::worker::Generation;

/// The configuration that the control interface speaks of.
#[derive(Debug)]
pub struct Published(Mutex<Arc<Snapshot>>);

impl Published {
    /// At first this one.
    pub fn new(snapshot: Arc<Snapshot>) -> Arc<Published> {
        Arc::new(Published(Mutex::new(snapshot)))
    }

    /// The newest.
    pub fn newest(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.lock())
    }

    /// There is another one.
    pub fn set(&self, snapshot: Arc<Snapshot>) {
        *self.0.lock() = snapshot;
    }
}

/// A configuration, made ready for all who look up by it.
pub struct Next {
    /// For the master.
    pub snapshot: Arc<Snapshot>,
    /// For each worker.
    pub generation: Generation,
    /// For each lcore that only distributes.
    pub lookup: Lookup,
    /// Told when every lcore looks up by it.
    pub answer: Sender<()>,
}

impl Next {
    /// Of a snapshot, for an appliance with so many workers.
    pub fn new(snapshot: &Arc<Snapshot>, workers: u16, answer: Sender<()>) -> Next {
        Next {
            snapshot: Arc::clone(snapshot),
            generation: Generation::new(Arc::clone(snapshot), workers),
            lookup: Lookup::new(&snapshot.checked),
            answer,
        }
    }
}

/// Who has been given configurations that it has not taken.
#[derive(Debug)]
pub struct Configuring {
    /// How many, of each lcore.
    untaken: Vec<usize>,
    answers: Vec<Sender<()>>,
}

impl Configuring {
    /// Of so many lcores.
    pub fn new(lcores: usize) -> Configuring {
        Configuring { untaken: vec![0; lcores], answers: Vec::new() }
    }

    /// All were given one; this is who waits.
    pub fn asked(&mut self, answer: Sender<()>) {
        self.untaken.iter_mut().for_each(|untaken| *untaken += 1);
        self.answers.push(answer);
    }

    /// An lcore has taken one.
    pub fn taken(&mut self, lcore: usize) {
        if let Some(untaken) = self.untaken.get_mut(lcore) {
            *untaken = untaken.saturating_sub(1);
        }
    }

    /// Tells who waits, if all have taken all.
    pub fn answer(&mut self) {
        if self.untaken.iter().all(|untaken| *untaken == 0) {
            for answer in self.answers.drain(..) {
                // Who waited may have gone.
                let _ = answer.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn who_waits_is_told_when_the_last_lcore_has_taken_the_newest() {
        let mut configuring = Configuring::new(2);
        let (answer, answered) = channel();
        configuring.asked(answer.clone());
        configuring.taken(0);
        configuring.answer();
        assert!(answered.try_recv().is_err());
        configuring.asked(answer);
        for lcore in [1, 0] {
            configuring.taken(lcore);
            configuring.answer();
            assert!(answered.try_recv().is_err());
        }
        configuring.taken(1);
        configuring.answer();
        assert_eq!(answered.try_iter().count(), 2);
    }
}
