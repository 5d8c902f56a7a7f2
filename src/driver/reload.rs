//! The configuration file, read again (REQ C10): on `baton reload`, on SIGHUP. The services of the leader, at one that follows
//! it. And what of the configuration is retired, until its flows have ended.
//!
//! The leader's services hold for the whole group. One that follows checks its own file when it is asked to reload, says in
//! what that differs, and goes by its leader's; it reloads its own when it leads.
//!
//! A thread of its own, named `reload`: reading, checking and making tables takes milliseconds, in which the master and the
//! control interface go on. In: who asks; the leader's services. Out: a [`Next`] for the master; the
//! configuration that is published; the services that this appliance goes by, for the liveness thread.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration as StdDuration;

use parking_lot::Mutex;

use crate::base::ids::NodeId;
use crate::base::limits::SERVICES_BYTES_MAX;
use crate::config::mirrored::{self, Edition};
use crate::config::reload::{differences, reload, without_idle};
use crate::config::sentence;
use crate::config::snapshot::Snapshot;
use crate::control::reload::{NotReloaded, ReloadReport};
use crate::driver::configuring::{Next, Published};
use crate::driver::events::EventLog;
use crate::driver::liveness::Board;
use crate::driver::master::Question;
use crate::failover::status::PeerStatus;
use crate::failover::{FailoverStatus, Role};

/// How long workers may take to take a configuration until the answer is given.
const ANSWER_TIMEOUT: StdDuration = StdDuration::from_secs(3);
/// How long a reload may take until the answer is given.
const RELOAD_TIMEOUT: StdDuration = StdDuration::from_secs(8);
/// Peers in sync are waited for, for so many looks,
const PEER_LOOKS: u32 = 100;
/// with this between them.
const PEER_LOOK: StdDuration = StdDuration::from_millis(5);
/// Between two looks at what the peers go by.
const LOOK_INTERVAL: StdDuration = StdDuration::from_secs(1);
/// Every so many of them: whether what is retired has flows.
const LOOKS_FOR_RETIRED: u32 = 10;
/// A peer that goes by other services at so many looks in a row is told of.
const LOOKS_APART: u32 = 3;

type Answer = Result<ReloadReport, NotReloaded>;

/// The services of a leader.
#[derive(Debug)]
pub struct Followed {
    /// The leader.
    pub from: NodeId,
    /// Which they are.
    pub edition: Edition,
    /// As [`mirrored::text`] has them.
    pub text: Vec<u8>,
}

/// What the thread is asked.
enum Ask {
    /// To read the file again, and to answer if somebody waits for it.
    Reload(Option<Sender<Answer>>),
    /// To go by these.
    Follow(Followed),
}

/// Asks the thread.
pub struct Reloader(Mutex<Sender<Ask>>);

impl Reloader {
    /// Has the file read again, and waits for what comes of it.
    pub fn reload(&self) -> Answer {
        let (answer, answered) = channel();
        let failed = |why: &str| NotReloaded::Failed(why.to_owned());
        self.0.lock().send(Ask::Reload(Some(answer))).map_err(|_| failed("the appliance is ending"))?;
        answered
            .recv_timeout(RELOAD_TIMEOUT)
            .map_err(|_| failed("it takes too long: `baton events` says what comes of it"))?
    }

    /// Has the file read again; the log says what comes of it.
    pub fn ask(&self) {
        if self.0.lock().send(Ask::Reload(None)).is_err() {
            log::warn!("the configuration is not read again: the appliance is ending");
        }
    }

    /// Goes by the services of the leader; the log says so, or why not.
    pub fn follow(&self, followed: Followed) {
        // The thread ends with the appliance alone.
        let _ = self.0.lock().send(Ask::Follow(followed));
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
pub fn start(setup: ReloadSetup) -> io::Result<([Reloader; 3], JoinHandle<()>)> {
    let (asks, asked) = channel();
    let own = setup.published.newest();
    setup.say(&own);
    let apart = Vec::new();
    let thread = thread::Builder::new()
        .name("reload".to_owned())
        .spawn(move || Reloading { setup, apart }.run(&asked))?;
    Ok(([asks.clone(), asks.clone(), asks].map(|asks| Reloader(Mutex::new(asks))), thread))
}

/// The thread's state.
struct Reloading {
    setup: ReloadSetup,
    /// Peers that go by other services, and at how many looks in a row they did.
    apart: Vec<(NodeId, u32)>,
}

impl Reloading {
    fn run(mut self, asked: &Receiver<Ask>) {
        let mut looks = 0;
        loop {
            match asked.recv_timeout(LOOK_INTERVAL) {
                Ok(Ask::Reload(answer)) => {
                    let result = self.setup.reload();
                    self.setup.tell(&result);
                    // Who asked may have gone.
                    let _ = answer.map(|answer| answer.send(result));
                }
                Ok(Ask::Follow(followed)) => self.setup.follow(followed),
                Err(RecvTimeoutError::Timeout) => {
                    looks += 1;
                    self.look_at_peers();
                    if looks % LOOKS_FOR_RETIRED == 0 {
                        self.setup.forget_retired();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Tells of peers that go by other services than this appliance, and for how long they have been.
    fn look_at_peers(&mut self) {
        let Some(status) = self.setup.board.status.lock().clone() else { return };
        let own = status.edition;
        for peer in &status.peers {
            let theirs = peer.edition.filter(|theirs| own.is_said() && *theirs != own);
            let known = self.apart.iter().position(|(node, _)| *node == peer.node);
            match (theirs, known) {
                (Some(theirs), Some(at)) => {
                    let looks = &mut self.apart[at].1;
                    *looks = looks.saturating_add(1);
                    if *looks == LOOKS_APART {
                        let sentence = format!(
                            "node {} goes by configuration {}, this appliance by {} ({})",
                            peer.node,
                            theirs.generation,
                            own.generation,
                            if theirs.generation == own.generation {
                                "their services differ"
                            } else {
                                "another generation"
                            }
                        );
                        log::warn!("{sentence}");
                        self.setup.events.add("configuration", sentence);
                    }
                }
                (Some(_), None) => self.apart.push((peer.node, 1)),
                (None, Some(at)) => {
                    let (node, looks) = self.apart.swap_remove(at);
                    // One that is not heard any more is told of elsewhere.
                    if looks >= LOOKS_APART && peer.edition.is_some() {
                        let sentence = format!(
                            "node {node} goes by configuration {}, as this appliance does",
                            own.generation
                        );
                        log::info!("{sentence}");
                        self.setup.events.add("configuration", sentence);
                    }
                }
                (None, None) => {}
            }
        }
    }
}

impl ReloadSetup {
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
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        if let Some(leader) = self.followed() {
            let differs = if changes.is_empty() { "nothing".to_owned() } else { changes.join("; ") };
            warnings.push(format!(
                "node {leader} leads, and its services hold: reload there. This appliance's file differs from them in: {differs}"
            ));
            return Ok(ReloadReport { generation: running.generation, changes: Vec::new(), warnings });
        }
        let generation = running.generation + u64::from(!changes.is_empty());
        if !changes.is_empty() {
            let snapshot = Snapshot { generation, checked };
            self.say(&snapshot);
            self.wait_for_peers(&snapshot);
            self.hand(snapshot).map_err(NotReloaded::Failed)?;
        }
        Ok(ReloadReport { generation, changes, warnings })
    }

    /// Until all who are in sync go by it too, or for a moment: one that did not know of a virtual server would not take the
    /// first flows of it.
    fn wait_for_peers(&self, snapshot: &Snapshot) {
        let edition = Edition::of(snapshot.generation, mirrored::text(&snapshot.checked).as_bytes());
        let is_behind = |status: &FailoverStatus| {
            let of = |peer: &&PeerStatus| status.members.contains(peer.node) && peer.edition != Some(edition);
            status.role.claims() && status.peers.iter().any(|peer| of(&peer))
        };
        for _ in 0..PEER_LOOKS {
            if !self.board.status.lock().as_ref().is_some_and(is_behind) {
                return;
            }
            thread::sleep(PEER_LOOK);
        }
        log::warn!("not all peers that are in sync go by configuration {} yet", snapshot.generation);
    }

    /// The leader that is followed, if it says which services it goes by.
    fn followed(&self) -> Option<NodeId> {
        let status = self.board.status.lock();
        let status = status.as_ref().filter(|status| status.role == Role::Standby)?;
        let leader = status.leader.filter(|leader| *leader != status.node)?;
        let peer = status.peers.iter().find(|peer| peer.node == leader)?;
        peer.edition.map(|_| leader)
    }

    /// Goes by the leader's services.
    fn follow(&self, Followed { from, edition, text }: Followed) {
        let name = format!("configuration {} of node {from}", edition.generation);
        let running = self.published.newest();
        let taken = core::str::from_utf8(&text).map_err(|_| format!("{name} is no text")).and_then(|text| {
            mirrored::take(&self.path, &self.started, &running.checked, &name, text)
                .map_err(|errors| sentence(&name, &errors))
        });
        let result = taken.and_then(|checked| {
            let changes = differences(&running.checked, &checked);
            self.hand(Snapshot { generation: edition.generation, checked })?;
            Ok(changes)
        });
        // What another version of baton would say in other words is the same all the same.
        let sentence = match &result {
            Ok(changes) => {
                *self.board.services.lock() = Some((edition, text.into()));
                let changes = if changes.is_empty() { "as before".to_owned() } else { changes.join("; ") };
                format!("goes by {name}: {changes}")
            }
            Err(why) => format!("does not go by {name}: {why}"),
        };
        match result {
            Ok(_) => log::info!("{sentence}"),
            Err(_) => log::error!("{sentence}"),
        }
        self.events.add("configuration", sentence);
    }

    /// Has the liveness thread say which services this appliance goes by.
    fn say(&self, snapshot: &Snapshot) {
        let text = mirrored::text(&snapshot.checked);
        if text.len() > SERVICES_BYTES_MAX {
            log::warn!(
                "the configuration is not told to peers: its services take {} bytes, {SERVICES_BYTES_MAX} at most are told",
                text.len()
            );
        }
        let edition = Edition::of(snapshot.generation, text.as_bytes());
        *self.board.services.lock() = Some((edition, text.into_bytes().into()));
    }

    /// Hands a configuration to the master, which gives it to all; waits until they have taken it.
    fn hand(&self, snapshot: Snapshot) -> Result<(), String> {
        let (snapshot, (answer, answered)) = (Arc::new(snapshot), channel());
        let next = Next::new(&snapshot, snapshot.checked.lcores.managers(), answer);
        self.configurations.send(next).map_err(|_| "the appliance is ending".to_owned())?;
        self.published.set(Arc::clone(&snapshot));
        let taken = answered.recv_timeout(ANSWER_TIMEOUT);
        // A leader that waits for this appliance begins flows when it hears this.
        self.say(&snapshot);
        taken.map_err(|_| {
            let generation = snapshot.generation;
            format!("configuration {generation} is good, and not every worker has taken it yet: see `baton status`")
        })
    }

    /// Its peers have the same forgotten. Only who leads knows of all flows; a standby may yet be told of some.
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
