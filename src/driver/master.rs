//! The master thread: runs [`Master`], and is where the slow and the talkative meet: it
//! writes the log, keeps the events, and answers for the control interface what only
//! workers and ports know (REQ E4).
//!
//! In: frames that workers punted, their events, the liveness thread's news, questions.
//! Out: commands to workers, frames by way of them, answers. It polls every millisecond.

use core::sync::atomic::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use arrayvec::ArrayVec;
use dpdk::{Mempool, Port};

use crate::base::buffer::Buffer;
use crate::base::counters::{Counter, Counters};
use crate::base::ids::{PortId, ShardId, WorkerId};
use crate::base::io::TxClass;
use crate::base::limits::BURST_MAX;
use crate::base::time::{Duration, Instant};
use crate::distributor::spread::Order;
use crate::driver::configuring::{Configuring, Next};
use crate::driver::events::EventLog;
use crate::driver::link::Link;
use crate::driver::liveness::Board;
use crate::driver::load::Loads;
use crate::driver::mbuf::Packet;
use crate::driver::notify::Notifier;
use crate::driver::outbox::Outbox;
use crate::driver::reload::{Followed, Reloader};
use crate::driver::rings::{MasterEnds, News};
use crate::driver::track::Results;
use crate::failover::FailoverEvent;
use crate::flow::shard::Move;
use crate::flow::{FlowIndex, Key};
use crate::master::health::HealthNews;
use crate::master::rebalance::{Outcome, Refusal};
use crate::master::rivals::Claim;
use crate::master::vrrp::Rival;
use crate::master::{Master, MasterOutput};
use crate::worker::message::{Choice, ChoiceAnswer, Command, Event, FlowSlice, WorkerStatus};

/// Between two looks at what came.
pub const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// A question that workers do not answer for so long is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at the links of tracked ports: some devices are slow to say.
const LINK_INTERVAL: Duration = Duration::from_millis(20);
/// Between two sentences about one thing that may happen with every packet or turn.
const REPEAT_INTERVAL: Duration = Duration::from_secs(10);

/// What the control interface asks. A sender that is dropped unanswered: no answer.
pub enum Question {
    /// What each worker says of itself.
    Status(Sender<Vec<WorkerStatus>>),
    /// Slices of every worker's flows, one message each, until the sender is dropped.
    Flows(Sender<(WorkerId, Box<FlowSlice>)>),
    /// Mirror one flow, or do not; what each worker says to that.
    Choose(Key, Choice, Sender<Vec<ChoiceAnswer>>),
    /// What each port counted; `None`: it does not say.
    Ports(Sender<Vec<PortState>>),
    /// Move shards to new owners; answered when the last move is over.
    Move(Vec<(ShardId, WorkerId)>, Sender<Result<Vec<Outcome>, Refusal>>),
}

/// A port's state.
#[derive(Clone, Copy, Debug, Default)]
pub struct PortState {
    /// Its own address.
    pub mac: [u8; 6],
    /// Whether packets can pass.
    pub link_up: bool,
    /// What it counted.
    pub stats: dpdk::port::Stats,
}

/// What the thread is made from.
pub struct MasterThreadSetup {
    /// The machine.
    pub master: Master,
    /// Its ends of the rings.
    pub ends: MasterEnds,
    /// Its way out to every port.
    pub outboxes: Vec<Outbox>,
    /// The ports, for their states.
    pub ports: Vec<Port>,
    /// Who knows whether their links are up.
    pub links: Vec<Link>,
    /// Those whose links count for this appliance's health.
    pub tracked: Vec<PortId>,
    /// How runs of the tracking script ended, if there is one.
    pub script: Option<Results>,
    /// Where packets are made.
    pub pool: Mempool,
    /// Its own counters.
    pub counters: Arc<Counters>,
    /// What happened.
    pub events: Arc<EventLog>,
    /// How busy the workers are: it takes the samples.
    pub loads: Arc<Loads>,
    /// What the control interface asks.
    pub questions: Receiver<Question>,
    /// Other configurations, as they are made.
    pub configurations: Receiver<Next>,
    /// Who makes them of the leader's services.
    pub reloader: Reloader,
    /// What the liveness thread is told.
    pub board: Arc<Board>,
    /// Who tells the operator's command of changes of role, if there is one.
    pub notifier: Option<Notifier>,
}

/// A question that workers are answering.
enum Asked {
    Status { answer: Sender<Vec<WorkerStatus>>, got: Vec<Option<WorkerStatus>> },
    Flows { answer: Sender<(WorkerId, Box<FlowSlice>)> },
    Choose { answer: Sender<Vec<ChoiceAnswer>>, got: Vec<ChoiceAnswer> },
}

/// Moves that someone asked for.
struct AskedMoves {
    answer: Sender<Result<Vec<Outcome>, Refusal>>,
    wanted: usize,
    done: Vec<Outcome>,
}

/// The thread's state.
pub struct MasterThread {
    setup: MasterThreadSetup,
    /// Commands for which there was no room, for each worker.
    commands: Vec<VecDeque<Command>>,
    asked: Option<(Asked, Instant)>,
    /// Shards that move because someone asked for it: who, how many, and what became of them.
    moving: Option<AskedMoves>,
    /// Of each lcore that only distributes: what there was no room for.
    orders: Vec<VecDeque<Order>>,
    configuring: Configuring,
    /// Answers that each worker owes, this question's and those of abandoned ones.
    owed: Vec<usize>,
    rival_at: Instant,
    vrrp_rival_at: Instant,
    stuck_at: Instant,
    links_at: Instant,
}

impl MasterThread {
    /// Ready to be turned.
    pub fn new(setup: MasterThreadSetup) -> MasterThread {
        let workers = setup.ends.commands.len();
        let distributors = setup.ends.orders.len();
        MasterThread {
            setup,
            commands: (0..workers).map(|_| VecDeque::new()).collect(),
            asked: None,
            moving: None,
            orders: (0..distributors).map(|_| VecDeque::new()).collect(),
            configuring: Configuring::new(workers + distributors),
            owed: vec![0; workers],
            rival_at: Instant::ZERO,
            vrrp_rival_at: Instant::ZERO,
            stuck_at: Instant::ZERO,
            links_at: Instant::ZERO,
        }
    }

    /// One round; call it every [`POLL_INTERVAL`].
    pub fn turn(&mut self, now: Instant) {
        self.take_news(now);
        self.take_punts(now);
        self.take_events(now);
        self.take_questions(now);
        self.take_configuration(now);
        self.take_health(now);
        self.setup.loads.sample(now);
        for (commands, worker) in self.commands.iter().zip(0..) {
            self.setup.master.set_crowded(WorkerId(worker), !commands.is_empty());
        }
        self.setup.master.poll(now);
        self.execute(now);
        self.pass_on();
    }

    fn take_news(&mut self, now: Instant) {
        while let Some(news) = self.setup.ends.news.pop_one() {
            match news {
                News::Role { active } => self.setup.master.handle_role(now, active),
                News::Services { from, edition, text } => {
                    self.setup.reloader.follow(Followed { from, edition, text });
                }
                News::Event(happened) => {
                    let event = &happened.event;
                    self.setup.master.handle_event(now, event);
                    if let Some(notifier) = &mut self.setup.notifier {
                        notifier.handle_event(&happened, &self.setup.counters);
                    }
                    let (kind, grave) = kind_of(event);
                    // On a crowded machine this one may come many times in a second.
                    if matches!(event, FailoverEvent::WorkerStuck { .. }) {
                        if now < self.stuck_at {
                            continue;
                        }
                        self.stuck_at = now + REPEAT_INTERVAL;
                    }
                    if grave {
                        log::warn!("{event}");
                    } else {
                        log::info!("{event}");
                    }
                    self.setup.events.add_failover(kind, &happened);
                }
            }
        }
    }

    fn take_punts(&mut self, now: Instant) {
        let MasterThreadSetup { ends, master, .. } = &mut self.setup;
        for ring in &mut ends.punted {
            let mut burst = ArrayVec::<Packet, BURST_MAX>::new();
            ring.pop(&mut burst);
            for packet in burst {
                // One that is not in one piece is none of those that the master answers.
                if packet.head().len() == packet.total_len() {
                    master.handle_punt(now, packet.rx().port, packet.head());
                }
            }
        }
    }

    fn take_events(&mut self, now: Instant) {
        for worker in 0..self.owed.len() {
            while let Some(event) = self.setup.ends.events[worker].pop_one() {
                match event {
                    Event::Resolve { hop } => self.setup.master.handle_resolve(now, hop),
                    Event::Status(status) => self.take_status(worker, *status),
                    // What it had is dropped here.
                    Event::Configured(_) => self.configuring.taken(worker),
                    Event::Flows(slice) => self.take_flows(now, worker, slice),
                    Event::Chosen(answer) => self.take_choice(worker, answer),
                    Event::Move(event) => self.setup.master.handle_move(WorkerId(worker as u16), event),
                    Event::Differs { peer, shard } => {
                        let what = format!(
                            "node {peer} has other flows of shard {shard} than worker {worker}: \
                             it is told of all of them again"
                        );
                        log::warn!("{what}");
                        self.setup.events.add("mirror", what);
                    }
                    // Reports go to the liveness thread.
                    Event::Installed { .. }
                    | Event::InSyncInstalled { .. }
                    | Event::Sync { .. }
                    | Event::HoldOverdue { .. }
                    | Event::Disbelieved { .. }
                    | Event::Flushed { .. } => {}
                }
            }
        }
    }

    /// Hands another configuration to every lcore, and to the master; what the distributors had is dropped here.
    fn take_configuration(&mut self, now: Instant) {
        let workers = self.commands.len();
        for (spent, number) in self.setup.ends.spent.iter_mut().zip(workers..) {
            while spent.pop_one().is_some() {
                self.configuring.taken(number);
            }
        }
        while let Ok(next) = self.setup.configurations.try_recv() {
            let Next { snapshot, generation, lookup, answer } = next;
            self.setup.master.configure(now, &snapshot.checked);
            for commands in &mut self.commands {
                commands.push_back(Command::Configure(generation.clone()));
            }
            for orders in &mut self.orders {
                orders.push_back(Order::Configure(Box::new(lookup.clone())));
            }
            self.setup.board.announce(self.setup.master.announcements());
            self.configuring.asked(answer);
        }
        self.configuring.answer();
    }

    fn take_health(&mut self, now: Instant) {
        let MasterThreadSetup { master, script, ports, links, tracked, .. } = &mut self.setup;
        while let Some(succeeded) = script.as_ref().and_then(Results::take) {
            master.handle_script(succeeded);
        }
        if now < self.links_at {
            return;
        }
        self.links_at = now + LINK_INTERVAL;
        for port in tracked {
            let at = usize::from(port.0);
            if let (Some(device), Some(link)) = (ports.get(at), links.get(at)) {
                master.handle_link(*port, link.is_up(device));
            }
        }
    }

    fn tell_health(&mut self, news: &HealthNews) {
        let MasterThreadSetup { board, events, .. } = &self.setup;
        *board.ailments.lock() = news.ailments.iter().map(ToString::to_string).collect();
        board.set_health(news.health);
        for ailment in &news.began {
            log::warn!("{ailment}");
            events.add("health", ailment.to_string());
        }
        for ailment in &news.ended {
            log::info!("{}", ailment.healed());
            events.add("health", ailment.healed());
        }
    }

    fn take_questions(&mut self, now: Instant) {
        if let Some((_, since)) = &self.asked
            && now - *since > ANSWER_TIMEOUT
        {
            log::warn!("workers did not answer a question of the control interface in time");
            self.asked = None;
        }
        if self.asked.is_some() || self.owed.iter().any(|owed| *owed > 0) {
            return;
        }
        let Ok(question) = self.setup.questions.try_recv() else { return };
        match question {
            Question::Status(answer) => {
                self.ask_all(&Command::Status);
                let got = self.owed.iter().map(|_| None).collect();
                self.asked = Some((Asked::Status { answer, got }, now));
            }
            Question::Flows(answer) => {
                self.ask_all(&Command::Flows { from: FlowIndex(0) });
                self.asked = Some((Asked::Flows { answer }, now));
            }
            Question::Choose(key, choice, answer) => {
                self.ask_all(&Command::Choose { key, choice });
                self.asked = Some((Asked::Choose { answer, got: Vec::new() }, now));
            }
            Question::Move(wanted, answer) => match self.setup.master.move_shards(&wanted) {
                Ok(()) => {
                    let wanted = wanted.len();
                    self.moving = Some(AskedMoves { answer, wanted, done: Vec::new() });
                }
                Err(refusal) => {
                    // Who asked may have gone.
                    let _ = answer.send(Err(refusal));
                }
            },
            Question::Ports(answer) => {
                let (ports, links) = (&self.setup.ports, &self.setup.links);
                let states = ports.iter().zip(links).map(|(port, link)| state_of(port, link)).collect();
                // Who asked may have gone.
                let _ = answer.send(states);
            }
        }
    }

    fn ask_all(&mut self, command: &Command) {
        for worker in 0..self.owed.len() {
            self.ask(worker, command.clone());
        }
    }

    fn ask(&mut self, worker: usize, command: Command) {
        self.owed[worker] += 1;
        self.commands[worker].push_back(command);
    }

    fn take_status(&mut self, worker: usize, status: WorkerStatus) {
        self.owed[worker] = self.owed[worker].saturating_sub(1);
        let Some((Asked::Status { answer, got }, _)) = &mut self.asked else { return };
        got[worker] = Some(status);
        if got.iter().all(Option::is_some) {
            let _ = answer.send(got.drain(..).flatten().collect());
            self.asked = None;
        }
    }

    fn take_flows(&mut self, now: Instant, worker: usize, slice: Box<FlowSlice>) {
        self.owed[worker] = self.owed[worker].saturating_sub(1);
        let Some((Asked::Flows { answer }, since)) = &mut self.asked else { return };
        let next = slice.next;
        let wanted = answer.send((WorkerId(worker as u16), slice)).is_ok();
        *since = now;
        if let Some(from) = next
            && wanted
        {
            self.ask(worker, Command::Flows { from });
        }
        if self.owed.iter().all(|owed| *owed == 0) {
            self.asked = None;
        }
    }

    fn take_choice(&mut self, worker: usize, said: ChoiceAnswer) {
        self.owed[worker] = self.owed[worker].saturating_sub(1);
        let Some((Asked::Choose { answer, got }, _)) = &mut self.asked else { return };
        got.push(said);
        if got.len() == self.owed.len() {
            // Who asked may have gone.
            let _ = answer.send(core::mem::take(got));
            self.asked = None;
        }
    }

    fn take_moved(&mut self, outcome: Outcome) {
        let Outcome { these: Move { shards, from, to }, result } = outcome;
        let which: Vec<String> = shards.iter().map(|shard| shard.to_string()).collect();
        let which = which.join(", ");
        let sentence = match result {
            Ok(flows) => format!("shards {which} went from worker {from} to worker {to} with {flows} flows"),
            Err(refusal) => format!("shards {which} stay with worker {from}: {refusal}"),
        };
        log::info!("{sentence}");
        self.setup.events.add("rebalance", sentence);
        let Some(moving) = &mut self.moving else { return };
        moving.done.push(outcome);
        if moving.done.len() == moving.wanted {
            let _ = moving.answer.send(Ok(core::mem::take(&mut moving.done)));
            self.moving = None;
        }
    }

    fn execute(&mut self, now: Instant) {
        while let Some(output) = self.setup.master.poll_output() {
            match output {
                MasterOutput::Inject { port, frame, class } => self.inject(port.0.into(), &frame, class),
                MasterOutput::Command { to: Some(worker), command } => {
                    if let Some(commands) = self.commands.get_mut(usize::from(worker.0)) {
                        commands.push_back(command);
                    }
                }
                MasterOutput::Command { to: None, command } => {
                    self.commands.iter_mut().for_each(|commands| commands.push_back(command.clone()));
                }
                MasterOutput::Redirect(these) => {
                    self.orders.iter_mut().for_each(|orders| orders.push_back(Order::Move(these)));
                }
                MasterOutput::Moved(outcome) => self.take_moved(outcome),
                MasterOutput::Count { counter, packets } => self.setup.counters.add(counter, packets),
                MasterOutput::Foreign(priority) => {
                    self.setup.board.foreign_priority.store(priority, Ordering::Relaxed);
                }
                MasterOutput::Health(news) => self.tell_health(&news),
                MasterOutput::Rival(Claim { port, address, link }) => {
                    if now < self.rival_at {
                        continue;
                    }
                    self.rival_at = now + REPEAT_INTERVAL;
                    let what = address.map_or("a virtual MAC".to_owned(), |address| address.to_string());
                    let sentence = format!("{} also uses {what} (seen on port {port})", mac_text(link));
                    log::warn!("{sentence}");
                    self.setup.events.add("rival", sentence);
                }
                MasterOutput::VrrpRival(Rival { port, source, link, priority }) => {
                    if now < self.vrrp_rival_at {
                        continue;
                    }
                    self.vrrp_rival_at = now + REPEAT_INTERVAL;
                    let sentence = format!(
                        "{source} ({}) also advertises our virtual router by VRRP, with priority {priority} (heard on \
                         port {port})",
                        mac_text(link)
                    );
                    log::warn!("{sentence}");
                    self.setup.events.add("rival", sentence);
                }
            }
        }
        let MasterThreadSetup { outboxes, counters, .. } = &mut self.setup;
        for outbox in outboxes {
            outbox.flush(|| false, counters);
        }
    }

    fn inject(&mut self, port: usize, frame: &[u8], class: TxClass) {
        let MasterThreadSetup { outboxes, counters, pool, .. } = &mut self.setup;
        let Some(outbox) = outboxes.get_mut(port) else { return };
        let Some(mut packet) = Packet::alloc(pool) else { return counters.bump(Counter::DropNoBuffer) };
        if packet.set_len(frame.len()).is_ok() {
            packet.head_mut().copy_from_slice(frame);
            // The queue's owner asks for the lease.
            outbox.push(packet, class, || false, counters);
        }
    }

    fn pass_on(&mut self) {
        for (commands, ring) in self.commands.iter_mut().zip(&mut self.setup.ends.commands) {
            while let Some(command) = commands.pop_front() {
                if let Err(command) = ring.push_one(command) {
                    commands.push_front(command);
                    break;
                }
            }
        }
        for (orders, ring) in self.orders.iter_mut().zip(&mut self.setup.ends.orders) {
            while let Some(order) = orders.pop_front() {
                if let Err(order) = ring.push_one(order) {
                    orders.push_front(order);
                    break;
                }
            }
        }
    }
}

fn state_of(port: &Port, link: &Link) -> PortState {
    PortState {
        mac: port.mac().unwrap_or_default(),
        link_up: link.is_up(port),
        stats: port.stats().unwrap_or_default(),
    }
}

/// As people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Of which kind an event is, and whether an operator should look at it.
fn kind_of(event: &FailoverEvent) -> (&'static str, bool) {
    use FailoverEvent as E;
    match event {
        E::Promoted { degraded, .. } => ("role", *degraded),
        E::Serving { .. }
        | E::Following { .. }
        | E::Resumed { .. }
        | E::HandingOver { .. }
        | E::Left
        | E::CanLead
        | E::MaintenanceOn
        | E::MaintenanceOff
        | E::OutrankedNoMore => ("role", false),
        E::StateChanged { .. } => ("state", false),
        E::Resigned { clean, .. } => ("role", !clean),
        E::Silenced { .. }
        | E::WaitsForOperator
        | E::CannotLead
        | E::MaintenanceCalledOff
        | E::LessHealthy { .. }
        | E::Outranked { .. } => ("role", true),
        E::RivalSeen { .. } => ("rival", true),
        E::PeerHeard { .. } | E::PeerRestarted { .. } | E::PeerLeft { .. } | E::PeerMaintenance { .. } => {
            ("peer", false)
        }
        E::PeerSilent { .. }
        | E::PeerRefused { .. }
        | E::PeerUnproven { .. }
        | E::Disbelieved { .. }
        | E::DuplicateNode { .. } => ("peer", true),
        E::InSync { .. } => ("mirror", false),
        E::OutOfSync { .. } | E::CheckpointsDiffer(_) => ("mirror", true),
        E::WorkerStuck { .. } => ("worker", true),
        E::Fencing { .. } | E::FenceFailed { .. } | E::FencedIsHeard { .. } => ("fence", true),
        E::Fenced { .. } => ("fence", false),
        E::WitnessHeard { .. } => ("witness", false),
        E::WitnessSilent | E::WitnessRefuses { .. } | E::WitnessTooShort { .. } => ("witness", true),
    }
}
