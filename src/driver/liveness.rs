//! The liveness thread: real-time where the system lets it be, and nothing else to do than
//! to run [`Failover`] and to execute what it says, in its order.
//!
//! It never waits: not for a lock (it tries, and comes back within a millisecond), not for
//! a buffer, not for a disk, not for the log. In: liveness frames that workers punted,
//! their reports and turns, reserved terms, the operator. Out: frames, the lease, commands
//! to the workers, news to the master.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::base::counters::Counter;
use crate::base::ids::PortId;
use crate::base::io::TxClass;
use crate::base::limits::WITNESS_ANSWERS_PER_ROUND_MAX;
use crate::base::time::{Duration, Instant};
use crate::config::mirrored::Edition;
use crate::driver::broken::LastTurns;
use crate::driver::clock::{Clock, std_duration};
use crate::driver::fence::{Fencer, Order};
use crate::driver::lease::{Lease, Turns};
use crate::driver::priority;
use crate::driver::provoked::Provoked;
use crate::driver::rings::{Frame, LivenessEnds, News};
use crate::driver::service::Standing;
use crate::driver::state::TermWriter;
use crate::driver::witness::link::WitnessLink;
use crate::failover::keys::KeysRefused;
use crate::failover::witness::words::ANSWER_MAX;
use crate::failover::{
    Failover, FailoverStatus, FrameBytes, Health, Operator, Output, Progress, Refusal, WorkerReport,
    WorkerRole,
};
use crate::master::route::command_for;
use crate::seal::Keys;
use crate::worker::message::Command;

/// Between two wakings at most.
const WAKE_INTERVAL: Duration = Duration::from_millis(1);
/// It rests at least so long, whatever is due: nothing else runs on its CPU while it does not.
const REST_MIN: Duration = Duration::from_micros(50);
/// Between two publications of the status, unless something happened.
const STATUS_INTERVAL: Duration = Duration::from_millis(20);

/// What an operator asks, and where the answer goes.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub operator: Operator,
    /// A sentence says why not. It has room for the answer.
    pub answer: SyncSender<Result<(), Refusal>>,
}

/// Other keys, and where it is said whether they were taken.
#[derive(Debug)]
pub struct OtherKeys {
    /// All that there are from now on.
    pub keys: Keys,
    /// It has room for the answer.
    pub answer: SyncSender<Result<(), KeysRefused>>,
}

/// What the liveness thread shares with others.
#[derive(Debug)]
pub struct Board {
    /// How things stood lately.
    pub status: Mutex<Option<FailoverStatus>>,
    /// How the tracked things are: those that failed in the upper byte, those in doubt in the lower.
    health: AtomicU16,
    /// What is wrong, in words.
    pub ailments: Mutex<Vec<String>>,
    /// What operators ask.
    pub requests: Mutex<VecDeque<Request>>,
    /// The services that this appliance goes by from now on.
    pub services: Mutex<Option<(Edition, Arc<[u8]>)>>,
    /// What this appliance is to prove itself with and accept of its peers from now on.
    pub keys: Mutex<Option<OtherKeys>>,
    /// What a new active sends from now on, of class `Service`.
    pub announcements: Mutex<Option<Vec<(PortId, FrameBytes)>>>,
    /// With `vrrp = "yield"`: the priority of the strongest router that others advertise with; 0: none.
    pub foreign_priority: AtomicU8,
    /// A thread failed, and the lease was revoked: the appliance is to leave its group.
    pub broken: Arc<AtomicBool>,
    /// The appliance has left its group.
    pub may_exit: AtomicBool,
    /// The thread is to end.
    pub stop: AtomicBool,
    /// How often the thread went round.
    pub rounds: AtomicU64,
}

impl Board {
    /// An empty one.
    pub fn new(broken: Arc<AtomicBool>) -> Arc<Board> {
        Arc::new(Board {
            status: Mutex::new(None),
            health: AtomicU16::new(0),
            ailments: Mutex::default(),
            requests: Mutex::new(VecDeque::new()),
            services: Mutex::default(),
            keys: Mutex::default(),
            announcements: Mutex::default(),
            foreign_priority: AtomicU8::new(0),
            broken,
            may_exit: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
        })
    }
}

impl Board {
    /// Says how the tracked things are.
    pub fn set_health(&self, health: Health) {
        self.health.store(u16::from_be_bytes([health.failed, health.doubtful]), Ordering::Relaxed);
    }

    /// Says what a new active is to send from now on.
    pub fn announce(&self, announcements: &[(PortId, Vec<u8>)]) {
        *self.announcements.lock() = Some(frames_of(announcements));
    }

    fn health(&self) -> Health {
        let [failed, doubtful] = self.health.load(Ordering::Relaxed).to_be_bytes();
        Health { failed, doubtful }
    }

    /// How things stand, for a service manager; without the status while it is being written.
    pub fn standing(&self) -> Standing {
        let status = self.status.try_lock().and_then(|status| status.clone());
        Standing { status, rounds: self.rounds.load(Ordering::Relaxed) }
    }
}

/// What the thread is made from.
pub struct LivenessSetup {
    /// The machine.
    pub failover: Failover,
    /// Its ends of the rings.
    pub ends: LivenessEnds,
    /// The time.
    pub clock: Clock,
    /// Where the lease is published.
    pub lease: Arc<Lease>,
    /// Each worker's turns, and behind them each distributor's.
    pub turns: Vec<Arc<Turns>>,
    /// How long a packet may be under way at most, from the last look at the lease to its transmit.
    pub pause_max: Duration,
    /// Reserves terms.
    pub terms: TermWriter,
    /// To who fences members, if there is a command for it.
    pub fencer: Option<Fencer>,
    /// To the witness, if there is one.
    pub witness: Option<WitnessLink>,
    /// What it shares.
    pub board: Arc<Board>,
    /// What a new active sends, of class `Service`.
    pub announcements: Vec<(PortId, Vec<u8>)>,
    /// For tests: it may be asked to panic.
    pub provoked: Provoked,
}

/// The thread's state.
pub struct Liveness {
    setup: LivenessSetup,
    /// Turns at the last look, for each of them.
    seen: Vec<u64>,
    /// Commands for which there was no room, for each worker.
    commands: Vec<VecDeque<Command>>,
    news: VecDeque<News>,
    announcements: Vec<(PortId, FrameBytes)>,
    /// The next announcement to send.
    announced: usize,
    role_epoch: u64,
    active: bool,
    reserved: u64,
    status_at: Instant,
    /// A thread failed: what is waited for before the group is told.
    broken: Option<LastTurns>,
}

impl Liveness {
    /// Not running yet.
    pub fn new(setup: LivenessSetup) -> Liveness {
        let announcements = frames_of(&setup.announcements);
        Liveness {
            seen: setup.turns.iter().map(|turns| turns.count()).collect(),
            commands: setup.ends.commands.iter().map(|_| VecDeque::new()).collect(),
            news: VecDeque::new(),
            announced: announcements.len(),
            announcements,
            role_epoch: 0,
            active: false,
            reserved: setup.terms.reserved(),
            status_at: Instant::ZERO,
            broken: None,
            setup,
        }
    }

    /// Starts the thread.
    pub fn start(self) -> io::Result<JoinHandle<()>> {
        thread::Builder::new().name("liveness".into()).spawn(move || self.run())
    }

    fn run(mut self) {
        priority::ask_for_real_time();
        while !self.setup.board.stop.load(Ordering::Acquire) {
            self.setup.provoked.panic_if_asked("liveness");
            let now = self.setup.clock.now();
            self.round(now);
            self.setup.board.rounds.fetch_add(1, Ordering::Relaxed);
            let until = self.setup.failover.next_deadline().min(now + WAKE_INTERVAL);
            thread::sleep(std_duration(rest(until - self.setup.clock.now())));
        }
        // Whatever was said before: from here on nobody renews it.
        self.setup.lease.publish(Instant::ZERO);
    }

    /// One round: everything that came is handed in, then time is told, then outputs are executed.
    fn round(&mut self, now: Instant) {
        // Before the frames are taken: what a counted turn punted is there by now.
        let workers_moved = self.moved();
        self.take_reports(now);
        self.take_frames(now);
        let reserved = self.setup.terms.reserved();
        if reserved != self.reserved {
            self.reserved = reserved;
            self.setup.failover.handle_reserved(reserved);
        }
        let foreign_priority = self.setup.board.foreign_priority.load(Ordering::Relaxed);
        self.setup.failover.handle_foreign(now, foreign_priority);
        self.setup.failover.handle_health(self.setup.board.health());
        self.take_answers(now);
        while let Some((attempt, done)) = self.setup.fencer.as_ref().and_then(Fencer::answer) {
            self.setup.failover.handle_fenced(now, attempt, done);
        }
        self.take_requests(now);
        self.take_announcements();
        self.take_services();
        self.take_keys(now);
        self.leave_if_broken(now);
        self.setup.failover.poll(now, Progress { workers_moved, drained: true });
        let happened = self.execute();
        self.pass_on();
        self.publish(now, happened);
    }

    fn moved(&mut self) -> u32 {
        let mut moved = 0;
        for (worker, (turns, seen)) in self.setup.turns.iter().zip(&mut self.seen).enumerate() {
            let count = turns.count();
            if count != *seen {
                moved |= 1 << worker;
                *seen = count;
            }
        }
        moved
    }

    fn take_reports(&mut self, now: Instant) {
        let LivenessSetup { ends, failover, .. } = &mut self.setup;
        for ring in &mut ends.reports {
            while let Some(report) = ring.pop_one() {
                let report: WorkerReport = report;
                failover.handle_report(now, report);
            }
        }
    }

    fn take_frames(&mut self, now: Instant) {
        let LivenessSetup { ends, failover, .. } = &mut self.setup;
        for ring in &mut ends.heard {
            // Those that were there when the round began: a flood must not keep it here.
            for _ in 0..ring.len() {
                let Some(mut frame) = ring.pop_one() else { break };
                failover.handle_frame(now, frame.port, &mut frame.bytes);
            }
        }
    }

    fn take_answers(&mut self, now: Instant) {
        let LivenessSetup { witness: Some(link), failover, .. } = &mut self.setup else { return };
        let mut buffer = [0; ANSWER_MAX + 1];
        // A flood must not keep it here.
        for _ in 0..WITNESS_ANSWERS_PER_ROUND_MAX {
            let Some(datagram) = link.receive(&mut buffer) else { break };
            failover.handle_witness(now, datagram);
        }
    }

    fn take_requests(&mut self, now: Instant) {
        let Some(mut requests) = self.setup.board.requests.try_lock() else { return };
        for Request { operator, answer } in requests.drain(..) {
            let result = self.setup.failover.handle_operator(now, operator);
            // Who asked may have gone.
            let _ = answer.try_send(result);
        }
    }

    fn take_announcements(&mut self) {
        let Some(mut newer) = self.setup.board.announcements.try_lock() else { return };
        if let Some(newer) = newer.take() {
            let is_announcing = self.announced < self.announcements.len();
            self.announced = if is_announcing { 0 } else { newer.len() };
            self.announcements = newer;
        }
    }

    fn take_services(&mut self) {
        let Some(mut newer) = self.setup.board.services.try_lock() else { return };
        if let Some((edition, text)) = newer.take() {
            self.setup.failover.handle_services(edition, text);
        }
    }

    fn take_keys(&mut self, now: Instant) {
        let Some(mut newer) = self.setup.board.keys.try_lock() else { return };
        if let Some(OtherKeys { keys, answer }) = newer.take() {
            // Who asked may have gone.
            let _ = answer.try_send(self.setup.failover.handle_keys(now, &keys));
        }
    }

    /// A thread failed: tells the group, once all that the lease may have covered is sent.
    fn leave_if_broken(&mut self, now: Instant) {
        let LivenessSetup { board, turns, failover, pause_max, .. } = &mut self.setup;
        if board.broken.load(Ordering::SeqCst)
            && self.broken.get_or_insert_with(|| LastTurns::new(now, turns)).over(now, turns, *pause_max)
        {
            failover.handle_broken(now);
        }
    }

    /// Executes all outputs in order; whether something happened.
    fn execute(&mut self) -> bool {
        let mut happened = false;
        while let Some(output) = self.setup.failover.poll_output() {
            if let Some(command) = command_for(&output) {
                for commands in &mut self.commands {
                    commands.push_back(command.clone());
                }
                self.pass_on();
            }
            match output {
                Output::SendFrame { port, frame } => {
                    self.send(Frame { port, class: TxClass::Own, bytes: frame });
                }
                Output::Witness { datagram } => self.ask_witness(&datagram),
                Output::Fence { attempt, node, term, at } => {
                    if let Some(fencer) = &self.setup.fencer {
                        fencer.ask(Order { attempt, node, term, at });
                    }
                }
                Output::Lease { until } => self.setup.lease.publish(until),
                Output::Role { epoch, role, .. } => {
                    self.role_epoch = epoch;
                    self.take_role(role);
                    happened = true;
                }
                Output::Announce { epoch } if epoch == self.role_epoch => self.announced = 0,
                Output::Announce { .. } => {}
                Output::ReserveTerm { counter } => self.setup.terms.ask(counter),
                Output::MayExit => self.setup.board.may_exit.store(true, Ordering::Release),
                Output::Services { from, edition, text } => {
                    self.news.push_back(News::Services { from, edition, text });
                    happened = true;
                }
                Output::Event(what) => {
                    self.news.push_back(News::Event(what));
                    happened = true;
                }
                Output::PeerSession { .. }
                | Output::PeerLost { .. }
                | Output::InSync { .. }
                | Output::Quiesce { .. }
                | Output::Hold { .. }
                | Output::Relay { .. } => happened = true,
            }
        }
        happened
    }

    fn take_role(&mut self, role: WorkerRole) {
        let active = role == WorkerRole::Active;
        if !active {
            self.announced = self.announcements.len();
        }
        if active != self.active {
            self.active = active;
            self.news.push_back(News::Role { active });
        }
    }

    fn ask_witness(&mut self, datagram: &[u8]) {
        let LivenessSetup { witness, failover, .. } = &mut self.setup;
        if witness.as_mut().is_none_or(|link| link.send(datagram).is_err()) {
            failover.counters().bump(Counter::WitnessUnsent);
        }
    }

    fn send(&mut self, frame: Frame) {
        if self.setup.ends.frames.push_one(frame).is_err() {
            self.setup.failover.counters().bump(Counter::LivenessTxFull);
        }
    }

    /// Passes on what waits, as far as there is room.
    fn pass_on(&mut self) {
        for (commands, ring) in self.commands.iter_mut().zip(&mut self.setup.ends.commands) {
            while let Some(command) = commands.pop_front() {
                if let Err(command) = ring.push_one(command) {
                    commands.push_front(command);
                    break;
                }
            }
        }
        while let Some(news) = self.news.pop_front() {
            if let Err(news) = self.setup.ends.news.push_one(news) {
                self.news.push_front(news);
                break;
            }
        }
        while let Some((port, bytes)) = self.announcements.get(self.announced) {
            let frame = Frame { port: *port, class: TxClass::Service, bytes: bytes.clone() };
            if self.setup.ends.frames.push_one(frame).is_err() {
                break; // The next round goes on.
            }
            self.announced += 1;
        }
    }

    fn publish(&mut self, now: Instant, happened: bool) {
        if !happened && now < self.status_at {
            return;
        }
        let status = self.setup.failover.status();
        match self.setup.board.status.try_lock() {
            Some(mut board) => {
                *board = Some(status);
                self.status_at = now + STATUS_INTERVAL;
            }
            None => self.status_at = now,
        }
    }
}

/// The same by value.
fn frames_of(announcements: &[(PortId, Vec<u8>)]) -> Vec<(PortId, FrameBytes)> {
    let frames: Vec<(PortId, FrameBytes)> = announcements
        .iter()
        .filter_map(|(port, bytes)| Some((*port, FrameBytes::try_from(&bytes[..]).ok()?)))
        .collect();
    debug_assert_eq!(frames.len(), announcements.len(), "a liveness frame is longer");
    frames
}

/// How long to rest when something is due in `left`.
fn rest(left: Duration) -> Duration {
    left.max(REST_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The machine's deadline stays in the past once it has left its group. A real-time
    /// thread that does not rest then would stop the whole process from ending.
    #[test]
    fn a_deadline_in_the_past_does_not_keep_a_real_time_thread_awake() {
        assert_eq!(rest(Duration::ZERO), REST_MIN);
        assert_eq!(rest(Duration::from_micros(900)), Duration::from_micros(900));
    }
}
