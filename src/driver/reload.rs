//! The configuration file, read again (REQ C10): on `baton reload`, on SIGHUP. And what of the configuration is retired, until
//! its flows have ended.
//!
//! A thread of its own, named `reload`: reading, checking and making tables takes milliseconds, in which the master and the
//! control interface go on. In: who asks. Out: a [`Next`] for the master; the configuration that is published.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration as StdDuration;

use parking_lot::Mutex;

use crate::config::reload::{differences, reload, without_idle};
use crate::config::sentence;
use crate::config::snapshot::Snapshot;
use crate::control::reload::{NotReloaded, ReloadReport};
use crate::driver::configuring::{Next, Published};
use crate::driver::events::EventLog;
use crate::driver::liveness::Board;
use crate::driver::master::Question;

/// How long workers may take to take a configuration until the answer is given.
const ANSWER_TIMEOUT: StdDuration = StdDuration::from_secs(3);
/// How long a reload may take until the answer is given.
const RELOAD_TIMEOUT: StdDuration = StdDuration::from_secs(8);
/// Between two looks at whether what is retired has flows.
const RETIRED_INTERVAL: StdDuration = StdDuration::from_secs(10);

type Answer = Result<ReloadReport, NotReloaded>;

/// Asks the thread.
#[derive(Debug)]
pub struct Reloader(Mutex<Sender<Option<Sender<Answer>>>>);

impl Reloader {
    /// Has the file read again, and waits for what comes of it.
    pub fn reload(&self) -> Answer {
        let (answer, answered) = channel();
        let failed = |why: &str| NotReloaded::Failed(why.to_owned());
        self.0.lock().send(Some(answer)).map_err(|_| failed("the appliance is ending"))?;
        answered
            .recv_timeout(RELOAD_TIMEOUT)
            .map_err(|_| failed("it takes too long: `baton events` says what comes of it"))?
    }

    /// Has the file read again; the log says what comes of it.
    pub fn ask(&self) {
        if self.0.lock().send(None).is_err() {
            log::warn!("the configuration is not read again: the appliance is ending");
        }
    }
}

/// What the thread is made from.
pub struct ReloadSetup {
    /// The configuration file.
    pub path: PathBuf,
    /// What it said at the start.
    pub started: String,
    /// The configuration.
    pub published: Arc<Published>,
    /// To the master.
    pub configurations: Sender<Next>,
    /// To the master.
    pub questions: Sender<Question>,
    /// Whether this appliance leads.
    pub board: Arc<Board>,
    /// What happened.
    pub events: Arc<EventLog>,
}

/// Starts the thread, which ends when nobody can ask it any more.
pub fn start(setup: ReloadSetup) -> io::Result<([Reloader; 2], JoinHandle<()>)> {
    let (asks, asked) = channel();
    let thread = thread::Builder::new().name("reload".to_owned()).spawn(move || setup.run(&asked))?;
    Ok(([asks.clone(), asks].map(|asks| Reloader(Mutex::new(asks))), thread))
}

impl ReloadSetup {
    fn run(self, asked: &Receiver<Option<Sender<Answer>>>) {
        loop {
            match asked.recv_timeout(RETIRED_INTERVAL) {
                Ok(answer) => {
                    let result = self.reload();
                    self.tell(&result);
                    // Who asked may have gone.
                    let _ = answer.map(|answer| answer.send(result));
                }
                Err(RecvTimeoutError::Timeout) => self.forget_retired(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn tell(&self, result: &Answer) {
        let sentence = match result {
            Ok(report) if report.changes.is_empty() => {
                return log::info!("{}", report.to_string().trim_end());
            }
            Ok(report) => format!("configuration {}: {}", report.generation, report.changes.join("; ")),
            Err(NotReloaded::Wrong(why) | NotReloaded::Failed(why)) => format!("not reloaded: {why}"),
        };
        match result {
            Ok(report) => {
                report.warnings.iter().for_each(|warning| log::warn!("{warning}"));
                log::info!("{sentence}");
            }
            Err(_) => log::error!("{sentence}"),
        }
        self.events.add("configuration", sentence);
    }

    fn reload(&self) -> Answer {
        let name = self.path.display().to_string();
        let wrong = |why: String| NotReloaded::Wrong(why);
        let text = fs::read_to_string(&self.path).map_err(|error| wrong(format!("{name}: {error}")))?;
        let running = self.published.newest();
        let (checked, warnings) = reload(&self.path, &self.started, &running.checked, &text)
            .map_err(|errors| wrong(sentence(&name, &errors)))?;
        let changes = differences(&running.checked, &checked);
        let generation = running.generation + u64::from(!changes.is_empty());
        let warnings = warnings.iter().map(ToString::to_string).collect();
        if !changes.is_empty() {
            self.hand(Snapshot { generation, checked }).map_err(NotReloaded::Failed)?;
        }
        Ok(ReloadReport { generation, changes, warnings })
    }

    /// Hands a configuration to the master, which gives it to all; waits until they have taken it.
    fn hand(&self, snapshot: Snapshot) -> Result<(), String> {
        let (snapshot, (answer, answered)) = (Arc::new(snapshot), channel());
        let next = Next::new(&snapshot, snapshot.checked.lcores.managers(), answer);
        self.configurations.send(next).map_err(|_| "the appliance is ending".to_owned())?;
        self.published.set(Arc::clone(&snapshot));
        answered.recv_timeout(ANSWER_TIMEOUT).map_err(|_| {
            let generation = snapshot.generation;
            format!("configuration {generation} is good, and not every worker has taken it yet: see `baton status`")
        })
    }

    /// Only who leads knows of all flows; a standby may yet be told of some.
    fn forget_retired(&self) {
        let running = self.published.newest();
        let leads = self.board.status.lock().as_ref().is_some_and(|status| status.role.claims());
        if running.checked.retired() == 0 || !leads {
            return;
        }
        let (answer, answered) = channel();
        if self.questions.send(Question::Status(answer)).is_err() {
            return;
        }
        let Ok(workers) = answered.recv_timeout(ANSWER_TIMEOUT) else { return };
        let has = |of: fn(&crate::worker::message::WorkerStatus) -> &[(u32, u64)], id: u32| {
            workers.iter().flat_map(of).any(|(known, flows)| *known == id && *flows > 0)
        };
        let left = without_idle(
            &running.checked,
            |id| has(|status| &status.by_virtual_server, id.0),
            |id| has(|status| &status.by_server, id.0),
        );
        if let Some(checked) = left {
            let gone = running.checked.retired() - checked.retired();
            if let Err(why) = self.hand(Snapshot { generation: running.generation, checked }) {
                log::warn!("{why}");
            }
            log::info!("{gone} retired servers, virtual servers or addresses have no connections any more");
        }
    }
}
