//! The configuration file, read again (REQ C10): on `baton reload`, on SIGHUP. The services of the leader, at one that follows
//! it. And what of the configuration is retired, until its flows have ended.
//!
//! The leader's services hold for the whole group. One that follows checks its own file when it is asked to reload, says in
//! what that differs, and goes by its leader's; it reloads its own when it leads.
//!
//! A thread of its own, named `reload`: reading, checking and making tables takes milliseconds, in which the master and the
//! control interface go on. In: who asks; the leader's services. Out: a [`Next`] for the master; the
//! configuration that is published; the services that this appliance goes by, for the liveness thread.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration as StdDuration;

use parking_lot::Mutex;

use crate::base::ids::NodeId;
use crate::base::limits::SERVICES_BYTES_MAX;
use crate::config::checked::Checked;
use crate::config::mirrored::{self, Edition};
use crate::config::reload::{differences, reload, without_idle};
use crate::config::sentence;
use crate::config::snapshot::Snapshot;
use crate::control::reload::{NotReloaded, ReloadReport};
use crate::driver::configuring::{Next, Published};
use crate::driver::events::EventLog;
use crate::driver::liveness::{Board, OtherKeys};
use crate::driver::master::Question;
use crate::driver::secrets::{SecretsError, read_other_keys};
use crate::failover::keys::KeysRefused;
use crate::failover::status::PeerStatus;
use crate::failover::{FailoverStatus, Role};
use crate::seal::Keys;
use crate::worker::message::WorkerStatus;

/// How long workers may take to take a configuration until the answer is given.
const ANSWER_TIMEOUT: StdDuration = StdDuration::from_secs(3);
/// How long a reload may take until the answer is given.
const RELOAD_TIMEOUT: StdDuration = StdDuration::from_secs(8);
/// Peers in sync are waited for, for so many looks,
const PEER_LOOKS: u32 = 400;
/// with this between them.
const PEER_LOOK: StdDuration = StdDuration::from_millis(5);
/// How often other keys are offered: at usual intervals of heartbeats for as long as a peer that was reloaded just before takes
/// to prove another one.
const KEY_LOOKS: u32 = 40;
/// How long the liveness thread may take to say whether it takes them.
const KEYS_WAIT: StdDuration = StdDuration::from_secs(2);
/// Between two looks at what the peers go by.
const LOOK_INTERVAL: StdDuration = StdDuration::from_secs(1);
/// Every so many of them: whether what is retired has flows.
const LOOKS_FOR_RETIRED: u32 = 10;
/// A peer that goes by other services at so many looks in a row is told of.
const LOOKS_APART: u32 = 3;

type Answer = Result<ReloadReport, NotReloaded>;

/// Services as members tell them to each other: which, and what they are.
type Words = (Edition, Arc<[u8]>);

/// Whose word holds at this appliance.
enum Rule {
    /// Its own file's: it leads, or is alone, or its leader says nothing of services.
    Own,
    /// This leader's.
    Leader(NodeId),
    /// That is not certain; why.
    Nobody(&'static str),
}

/// Whether all lcores go by a configuration that was handed to them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handed {
    Taken,
    /// Not yet; they will.
    Late,
}

impl Handed {
    fn sentence(self, generation: u64) -> Option<String> {
        (self == Handed::Late).then(|| {
            format!("not every worker goes by configuration {generation} yet: is one of them stuck? See `baton status`")
        })
    }
}

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
    /// What this appliance proves itself with and accepts of its peers.
    pub keys: Mutex<Keys>,
}

/// Starts the thread, which ends when nobody can ask it any more.
pub fn start(setup: ReloadSetup) -> io::Result<([Reloader; 3], JoinHandle<()>)> {
    let (asks, asked) = channel();
    let words = words_of(&setup.published.newest());
    too_large(&words).iter().for_each(|why| log::warn!("{why}"));
    setup.say(words);
    let state = Reloading { setup, apart: Vec::new(), idle: Idle::default() };
    let thread = thread::Builder::new().name("reload".to_owned()).spawn(move || state.run(&asked))?;
    Ok(([asks.clone(), asks.clone(), asks].map(|asks| Reloader(Mutex::new(asks))), thread))
}

/// The thread's state.
struct Reloading {
    setup: ReloadSetup,
    /// Peers that go by other services, and at how many looks in a row they did.
    apart: Vec<(NodeId, u32)>,
    /// What had no flows at the last look, by the same configuration.
    idle: Idle,
}

/// Virtual servers and servers without flows.
#[derive(Debug, Default)]
struct Idle {
    virtual_servers: BTreeSet<u32>,
    servers: BTreeSet<u32>,
}

impl Reloading {
    fn run(mut self, asked: &Receiver<Ask>) {
        let mut looks = 0;
        loop {
            match asked.recv_timeout(LOOK_INTERVAL) {
                Ok(Ask::Reload(answer)) => {
                    self.idle = Idle::default();
                    let result = self.setup.reload();
                    self.setup.tell(&result);
                    // Who asked may have gone.
                    let _ = answer.map(|answer| answer.send(result));
                }
                Ok(Ask::Follow(followed)) => {
                    self.idle = Idle::default();
                    self.setup.follow(followed);
                }
                Err(RecvTimeoutError::Timeout) => {
                    looks += 1;
                    self.look_at_peers();
                    if looks % LOOKS_FOR_RETIRED == 0 {
                        self.forget_retired();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Its peers have the same forgotten. Only who leads knows of all flows; a standby may yet be told of some. And only what
    /// had no flows at two looks in a row: between two workers a flow that moves is counted by neither.
    fn forget_retired(&mut self) {
        let before = core::mem::take(&mut self.idle);
        let running = self.setup.published.newest();
        let leads = self.setup.board.status.lock().as_ref().is_some_and(|status| status.role.claims());
        if running.checked.retired() == 0 || !leads {
            return;
        }
        let (answer, answered) = channel();
        if self.setup.questions.send(Question::Status(answer)).is_err() {
            return;
        }
        // All workers', or none.
        let Ok(workers) = answered.recv_timeout(ANSWER_TIMEOUT) else { return };
        self.idle = Idle {
            virtual_servers: idle(&workers, |status| &status.by_virtual_server),
            servers: idle(&workers, |status| &status.by_server),
        };
        let now = &self.idle;
        let left = without_idle(
            &running.checked,
            |id| !(before.virtual_servers.contains(&id.0) && now.virtual_servers.contains(&id.0)),
            |id| !(before.servers.contains(&id.0) && now.servers.contains(&id.0)),
        );
        if let Some(checked) = left {
            let gone = running.checked.retired() - checked.retired();
            let snapshot = Snapshot { generation: running.generation, checked };
            let words = words_of(&snapshot);
            match self.setup.hand(snapshot, words) {
                Ok(handed) => handed.sentence(running.generation).iter().for_each(|why| log::warn!("{why}")),
                Err(why) => return log::warn!("{why}"),
            }
            log::info!("{gone} retired servers, virtual servers or addresses have no connections any more");
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

/// Whatever is counted by a worker, and has flows at none.
fn idle(workers: &[WorkerStatus], counts: fn(&WorkerStatus) -> &[(u32, u64)]) -> BTreeSet<u32> {
    let mut idle: BTreeSet<u32> = workers.iter().flat_map(counts).map(|(id, _)| *id).collect();
    for (id, _) in workers.iter().flat_map(counts).filter(|(_, flows)| *flows > 0) {
        idle.remove(id);
    }
    idle
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
        let keys = self.read_keys(&checked).map_err(|error| wrong(error.to_string()))?;
        let mut changes = differences(&running.checked, &checked);
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        // Whose services hold is decided before keys are changed, which has to be said whatever becomes of services.
        let rule = self.rule();
        let sealing = self.take_keys(keys).map_err(NotReloaded::Failed)?;
        let failed = |why: String| match &sealing {
            None => NotReloaded::Failed(why),
            Some(sentence) => NotReloaded::Failed(format!("{why}; but other keys were taken: {sentence}")),
        };
        match rule {
            Rule::Leader(leader) => {
                let differs = if changes.is_empty() { "nothing".to_owned() } else { changes.join("; ") };
                warnings.push(format!(
                    "node {leader} leads, and its services hold: reload there. This appliance's file differs from them in: {differs}"
                ));
                let generation = running.generation;
                return Ok(ReloadReport { generation, changes: sealing.into_iter().collect(), warnings });
            }
            // Wrong keys may be what keeps it from hearing of one.
            Rule::Nobody(why) if changes.is_empty() && sealing.is_some() => {
                warnings.push(format!("services are not looked at: {why}"));
                let generation = running.generation;
                return Ok(ReloadReport { generation, changes: sealing.into_iter().collect(), warnings });
            }
            Rule::Nobody(why) => return Err(failed(why.to_owned())),
            Rule::Own => {}
        }
        if changes.is_empty() {
            return Ok(ReloadReport {
                generation: running.generation,
                changes: sealing.into_iter().collect(),
                warnings,
            });
        }
        let generation = running.generation + 1;
        let snapshot = Snapshot { generation, checked };
        let words = words_of(&snapshot);
        warnings.extend(too_large(&words));
        let before = words_of(&running);
        match self.tell_first(&before, &words) {
            Ok(remarks) => warnings.extend(remarks),
            Err(why) => {
                self.say(before);
                return Err(failed(why));
            }
        }
        let handed = self.hand(snapshot, words).map_err(failed)?;
        warnings.extend(handed.sentence(generation));
        changes.extend(sealing);
        Ok(ReloadReport { generation, changes, warnings })
    }

    /// What the files of `[mirror]` say now; `None`: there is none.
    fn read_keys(&self, checked: &Checked) -> Result<Option<Keys>, SecretsError> {
        checked.mirror.as_ref().map(|mirror| read_other_keys(mirror, &self.keys.lock())).transpose()
    }

    /// Goes by these keys from now on, and says so if they are others than before. They are each appliance's own: its
    /// operator changes them at every member, whoever leads. Why not, if the session of a peer would end with them; what a
    /// peer proves may be another key in a moment.
    fn take_keys(&self, keys: Option<Keys>) -> Result<Option<String>, String> {
        let Some(keys) = keys.filter(|keys| !keys.are_as(&self.keys.lock())) else { return Ok(None) };
        let mut why = String::new();
        for _ in 0..KEY_LOOKS {
            match self.offer_keys(&keys)? {
                Ok(()) => {
                    let sentence = format!("sealing: {}", keys.sentence());
                    *self.keys.lock() = keys;
                    return Ok(Some(sentence));
                }
                Err(refused) => why = refused.to_string(),
            }
            thread::sleep(PEER_LOOK);
        }
        Err(why)
    }

    /// Has the liveness thread take them, if it can.
    fn offer_keys(&self, keys: &Keys) -> Result<Result<(), KeysRefused>, String> {
        let (answer, answered) = sync_channel(1);
        *self.board.keys.lock() = Some(OtherKeys { keys: keys.clone(), answer });
        answered.recv_timeout(KEYS_WAIT).or_else(|_| {
            // They must not be taken when nobody waits for it any more. The answer is given while this is locked.
            drop(self.board.keys.lock().take());
            answered.try_recv().map_err(|_| "it is busy, and took no other keys: try again".to_owned())
        })
    }

    /// Tells the peers before this appliance goes by it, and waits for all who are in sync: one that does not know of a
    /// virtual server would not take the flows of it. Why that cannot be, if it cannot; else what the operator is to know.
    /// A peer that did not go by what held `before` either is no hindrance.
    fn tell_first(&self, before: &Words, words: &Words) -> Result<Vec<String>, String> {
        let apart = self.behind(before);
        self.say(words.clone());
        let mut behind = Vec::new();
        for _ in 0..PEER_LOOKS {
            behind = self.behind(words);
            if behind.is_empty() {
                break;
            }
            thread::sleep(PEER_LOOK);
        }
        if let Some(node) = behind.iter().find(|node| !apart.contains(node)) {
            return Err(format!(
                "node {node} is in sync and does not go by it: `baton events` there says why; no services have changed"
            ));
        }
        let remark = |node| {
            format!(
                "node {node} goes by other services still: `baton events` there says why. What it does not know it does not protect"
            )
        };
        match self.rule() {
            Rule::Own => Ok(behind.into_iter().map(remark).collect()),
            Rule::Leader(_) | Rule::Nobody(_) => {
                Err("the lead was lost meanwhile: no services have changed, reload at the active".to_owned())
            }
        }
    }

    /// Peers in sync that say that they go by other services. One that says none is of an earlier version.
    fn behind(&self, (edition, text): &Words) -> Vec<NodeId> {
        let status = self.board.status.lock();
        let leads = |status: &&FailoverStatus| status.role.claims() && text.len() <= SERVICES_BYTES_MAX;
        let Some(status) = status.as_ref().filter(leads) else { return Vec::new() };
        let is_behind = |peer: &&PeerStatus| {
            status.members.contains(peer.node) && peer.edition.is_some_and(|theirs| theirs != *edition)
        };
        status.peers.iter().filter(is_behind).map(|peer| peer.node).collect()
    }

    /// Whose word holds.
    fn rule(&self) -> Rule {
        let status = self.board.status.lock();
        if self.published.newest().checked.mirror.is_none() {
            return Rule::Own;
        }
        let Some(status) = status.as_ref() else { return Rule::Nobody("it has just begun: try again") };
        match status.role {
            Role::Active => Rule::Own,
            Role::Standby => {
                let Some(leader) = status.leader.filter(|leader| *leader != status.node) else {
                    return Rule::Nobody("it hears of no active: try again when one of the group leads");
                };
                let peer = status.peers.iter().find(|peer| peer.node == leader);
                match peer.and_then(|peer| peer.edition) {
                    Some(_) => Rule::Leader(leader),
                    None => Rule::Own,
                }
            }
            Role::Booting => Rule::Nobody("it does not know yet who leads: try again"),
            Role::Installing => Rule::Nobody("it is taking over: try again"),
            Role::Quiescing | Role::Resigning => {
                Rule::Nobody("it is handing over: reload at its successor, or try again")
            }
            Role::Silenced => Rule::Nobody("it lost its lease: try again"),
            Role::Left => Rule::Nobody("it is ending"),
        }
    }

    /// Whether this appliance leads, as far as the liveness thread said at two looks: at one it may not have said the newest.
    fn leads_for_good(&self) -> bool {
        let leads = || self.board.status.lock().as_ref().is_some_and(|status| status.role.claims());
        leads() && {
            thread::sleep(PEER_LOOK * 6);
            leads()
        }
    }

    /// Goes by the leader's services.
    fn follow(&self, Followed { from, edition, text }: Followed) {
        let name = format!("configuration {} of node {from}", edition.generation);
        let running = self.published.newest();
        if words_of(&running).0 == edition {
            return self.say((edition, text.into())); // Told twice.
        }
        if self.leads_for_good() {
            // Who tells services goes by them only when those in sync do. So at one that takes over meanwhile there are no flows
            // of them; and nobody has a leader's services changed but its own operator.
            let sentence = format!("does not go by {name}: this appliance leads by now");
            log::warn!("{sentence}");
            return self.events.add("configuration", sentence);
        }
        let taken = core::str::from_utf8(&text).map_err(|_| format!("{name} is no text")).and_then(|text| {
            mirrored::take(&self.path, &self.started, &running.checked, &name, text)
                .map_err(|errors| sentence(&name, &errors))
        });
        let result = taken.and_then(|(checked, warnings)| {
            let changes = differences(&running.checked, &checked);
            // The leader's words: what another version of baton would say in other ones is the same all the same.
            let snapshot = Snapshot { generation: edition.generation, checked };
            let handed = self.hand(snapshot, (edition, text.into()))?;
            for warning in warnings {
                log::warn!("{warning}");
                self.events.add("configuration", warning.to_string());
            }
            Ok(changes.into_iter().chain(handed.sentence(edition.generation)).collect::<Vec<_>>())
        });
        let sentence = match &result {
            Ok(changes) => {
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
    fn say(&self, words: Words) {
        *self.board.services.lock() = Some(words);
    }

    /// Hands a configuration to the master, which gives it to all; waits until they have taken it.
    fn hand(&self, snapshot: Snapshot, words: Words) -> Result<Handed, String> {
        let (snapshot, (answer, answered)) = (Arc::new(snapshot), channel());
        let next = Next::new(&snapshot, snapshot.checked.lcores.managers(), answer);
        self.configurations.send(next).map_err(|_| "the appliance is ending".to_owned())?;
        self.published.set(snapshot);
        let taken = answered.recv_timeout(ANSWER_TIMEOUT);
        // A leader that waits for this appliance begins flows when it hears this.
        self.say(words);
        Ok(if taken.is_ok() { Handed::Taken } else { Handed::Late })
    }
}

/// The services of a configuration, as they are told.
fn words_of(snapshot: &Snapshot) -> Words {
    let text = mirrored::text(&snapshot.checked);
    (Edition::of(snapshot.generation, text.as_bytes()), text.into_bytes().into())
}

/// What the operator is to know of services that are too large to be told.
fn too_large((_, text): &Words) -> Option<String> {
    (text.len() > SERVICES_BYTES_MAX).then(|| {
        format!(
            "the services are not told to peers, which go by their own files: they take {} bytes, {SERVICES_BYTES_MAX} at most are told",
            text.len()
        )
    })
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
