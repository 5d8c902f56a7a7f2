//! What the liveness thread and the master do when they wake, and what stops threads: pauses, stalls, failures.

use baton::base::ids::PortId;
use baton::base::io::TxClass;
use baton::base::time::Instant;
use baton::failover::{Output, Progress, Role, WorkerRole};
use baton::master::MasterOutput;
use baton::master::route::command_for;
use baton::worker::message::Command;

use crate::agenda::{Agenda, Happening, Nanos, US};
use crate::appliance::{Appliance, BROKEN_LEAVE_MAX, Naps, News, Note};
use crate::lcore::Departure;

impl Appliance {
    /// The liveness thread wakes.
    pub fn liveness(&mut self, agenda: &mut Agenda) {
        if self.is_deaf {
            return;
        }
        let now = self.clock.read(agenda.now);
        let mut lcores_moved = 0;
        for (number, lcore) in self.lcores.iter_mut().enumerate() {
            // One that sleeps for long would go round in the meantime.
            let sleeps = self.naps.lcore > Naps::USUAL.lcore && lcore.stalled_until <= agenda.now;
            lcores_moved |= u32::from(std::mem::take(&mut lcore.moved) || sleeps) << number;
        }
        while let Some(report) = self.reports.pop(agenda.now) {
            self.failover.handle_report(now, report);
        }
        for (port, mut frame) in std::mem::take(&mut self.frames) {
            self.failover.handle_frame(now, port, &mut frame);
        }
        self.mail.hand_in(now, &mut self.failover);
        if let Some(counter) = self.durable.take() {
            self.failover.handle_reserved(counter);
        }
        self.leave_if_broken(now);
        self.failover.poll(now, Progress { workers_moved: lcores_moved, drained: true });
        self.execute(agenda);
        let wake = agenda.now + agenda.span(self.naps.liveness[0], self.naps.liveness[1]);
        let due = self.clock.when(self.failover.next_deadline()).max(agenda.now + 20 * US);
        agenda.at(wake.min(due), Happening::Liveness { at: self.at, life: self.life });
    }

    /// Executes what the liveness machine says, in its order.
    pub(super) fn execute(&mut self, agenda: &mut Agenda) {
        while let Some(output) = self.failover.poll_output() {
            if let Some(command) = command_for(&output) {
                (0..self.division.workers()).for_each(|to| self.command(to, command.clone(), agenda));
            }
            match output {
                Output::SendFrame { port, frame } => {
                    self.inject(port, frame.to_vec(), TxClass::Own, agenda);
                }
                Output::Lease { until } => self.lease = if self.broken { Instant::ZERO } else { until },
                Output::Role { epoch, role, .. } => {
                    self.role_epoch = epoch;
                    let seen_at = agenda.now + agenda.span(US, 500 * US);
                    self.news.push(seen_at, News::Role { active: role == WorkerRole::Active });
                }
                Output::Announce { epoch } => {
                    if epoch == self.role_epoch {
                        for (port, frame) in self.master.announcements().to_vec() {
                            self.inject(port, frame, TxClass::Service, agenda);
                        }
                    }
                }
                Output::ReserveTerm { counter } => {
                    let written = agenda.now + agenda.span(500 * US, 20_000 * US);
                    agenda.at(written, Happening::Durable { at: self.at, life: self.life, counter });
                }
                Output::MayExit => self.notes.push(Note::MayExit),
                Output::Event(happened) => {
                    let event = happened.event;
                    let seen_at = agenda.now + agenda.span(US, 500 * US);
                    self.news.push(seen_at, News::Event(event.clone()));
                    self.notes.push(Note::Happened(event));
                }
                Output::PeerSession { node, .. } => *self.sessions.entry(node).or_default() += 1,
                Output::Witness { datagram } => self.mail.requests.push(datagram.to_vec()),
                Output::PeerLost { .. }
                | Output::InSync { .. }
                | Output::Quiesce { .. }
                | Output::Hold { .. }
                | Output::Relay { .. }
                | Output::Services { .. }
                | Output::Fence { .. } => {}
            }
        }
    }

    /// The disk wrote a reservation.
    pub fn reserved(&mut self, counter: u64) {
        self.durable = Some(counter);
    }

    pub(super) fn command(&mut self, worker: usize, command: Command, agenda: &mut Agenda) {
        let seen_at = agenda.now + agenda.span(US, 200 * US);
        self.lcores[worker].commands.push(seen_at, command);
        self.wake(worker, seen_at, agenda);
    }

    /// Gives a frame to the worker that sends for the other threads: the first one, which has a queue of every port.
    pub(super) fn inject(&mut self, port: PortId, frame: Vec<u8>, class: TxClass, agenda: &mut Agenda) {
        let worker = 0;
        let seen_at = agenda.now + agenda.span(US, 60 * US);
        self.lcores[worker].injects.push(seen_at, Departure { port, frame, class, came_as: None });
        self.wake(worker, seen_at, agenda);
    }

    /// The master thread wakes.
    pub fn master(&mut self, agenda: &mut Agenda) {
        if self.is_headless {
            return;
        }
        let now = self.clock.read(agenda.now);
        while let Some(news) = self.news.pop(agenda.now) {
            match news {
                News::Role { active } => self.master.handle_role(now, active),
                News::Event(event) => self.master.handle_event(now, &event),
            }
        }
        for (port, frame) in std::mem::take(&mut self.punted) {
            self.master.handle_punt(now, port, &frame);
        }
        while let Some(hop) = self.resolves.pop(agenda.now) {
            self.master.handle_resolve(now, hop);
        }
        while let Some((worker, event)) = self.moves.pop(agenda.now) {
            self.master.handle_move(worker, event);
        }
        self.master.poll(now);
        while let Some(output) = self.master.poll_output() {
            match output {
                MasterOutput::Inject { port, frame, class } => self.inject(port, frame, class, agenda),
                MasterOutput::Command { to: Some(to), command } => {
                    self.command(usize::from(to.0), command, agenda);
                }
                MasterOutput::Command { to: None, command } => {
                    (0..self.division.workers()).for_each(|to| self.command(to, command.clone(), agenda));
                }
                MasterOutput::Redirect(these) => {
                    for number in self.division.workers()..self.division.lcores() {
                        let seen_at = agenda.now + agenda.span(US, 200 * US);
                        self.lcores[number].moves.push(seen_at, these);
                        self.wake(number, seen_at, agenda);
                    }
                }
                MasterOutput::Moved(outcome) => self.notes.push(Note::Moved(outcome)),
                MasterOutput::Health(news) => self.failover.handle_health(news.health),
                MasterOutput::Foreign(priority) => self.failover.handle_foreign(now, priority),
                MasterOutput::Count { .. } | MasterOutput::Rival(_) | MasterOutput::VrrpRival(_) => {}
            }
        }
        let wake = agenda.now + agenda.span(self.naps.master[0], self.naps.master[1]);
        agenda.at(wake, Happening::Master { at: self.at, life: self.life });
    }

    /// The process is stopped. What a port was already given, or was about to be given after
    /// the lease had been asked, leaves when it goes on: one burst of each worker.
    pub fn pause(&mut self, agenda: &mut Agenda) -> Vec<Departure> {
        self.paused = true;
        let mut bursts = Vec::new();
        for number in 0..self.lcores.len() {
            if self.lcores[number].transmits && agenda.rng.bool() {
                bursts.extend(self.transmit(number, agenda.now));
                self.lcores[number].transmits = true;
            }
        }
        bursts
    }

    /// The process goes on.
    pub fn go_on(&mut self, agenda: &mut Agenda) {
        self.paused = false;
        for number in 0..self.lcores.len() {
            self.lcores[number].turn_at = 0;
            let when = agenda.now + agenda.span(US, 2000 * US);
            self.wake(number, when, agenda);
        }
    }

    /// Its lease covers this moment, whatever it does with it.
    pub fn may_send(&self, now: Nanos) -> bool {
        self.lease > self.clock.read(now)
    }

    /// It serves: its lease covers this moment.
    pub fn serves(&self, now: Nanos) -> bool {
        self.failover.role() == Role::Active && self.may_send(now)
    }

    /// A thread fails, any of them: the lease is revoked at once. The process ends when the group was told, or some
    /// time later. As in the driver.
    pub fn break_thread(&mut self, agenda: &mut Agenda) -> String {
        let (at, life) = (self.at, self.life);
        self.broken = true;
        self.lease = Instant::ZERO;
        agenda.at(agenda.now + BROKEN_LEAVE_MAX, Happening::Exit { at, life });
        let which = agenda.rng.usize(..self.lcores.len() + 2);
        if let Some(lcore) = self.lcores.get_mut(which) {
            // What it was about to send is never sent.
            lcore.outbox.clear();
            lcore.stalled_until = Nanos::MAX;
            return format!("lcore {which}");
        }
        if which == self.lcores.len() {
            self.is_deaf = true;
            return "the liveness thread".to_owned();
        }
        self.is_headless = true;
        "the master".to_owned()
    }

    /// Tells the group when a thread failed, as soon as what was under way is sent.
    fn leave_if_broken(&mut self, now: Instant) {
        if self.broken && !self.left && self.lcores.iter().all(|lcore| lcore.outbox.is_empty()) {
            self.left = true;
            self.failover.handle_broken(now);
        }
    }

    /// One lcore stands still for a while.
    pub fn stall(&mut self, number: usize, until: Nanos) {
        let lcore = &mut self.lcores[number];
        lcore.stalled_until = lcore.stalled_until.max(until);
    }
}
