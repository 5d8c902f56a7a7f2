//! Whom a new connection goes to where its traffic manager is chosen and not computed (REQ D2). The answer is for its key's
//! connection store; hashes of a key ([`HashMethod`](crate::config::checked::HashMethod)) need no choice, and none here.
//!
//! Each lcore that chooses has a [`Selector`] of its own. In: what traffic managers report of themselves, some 100 times a second,
//! and the little that a packet says. Out: a traffic manager, always. Between two reports a selector counts what it selects
//! itself; what others select meanwhile it learns from the next reports.
//!
//! Not yet, for they tell managers on other machines apart: round-trip time, hops, global availability.

use crate::base::ids::WorkerId;
use crate::base::limits::{LOAD_TIMEOUT, WORKERS_MAX};
use crate::base::time::{Duration, Instant};
use crate::config::checked::{ChosenMethod, Distributor, Managers};

#[cfg(test)]
mod tests;

/// DSCP values (RFC 2474 section 3).
const DSCP_VALUES: usize = 64;

/// One, in numbers that fade or are smoothed.
const ONE: u64 = 1 << 10;

/// Part of a report's distance from what is known that is believed at once.
const SMOOTHING: i64 = 8;

/// A turn, in the parts that are gained and paid: many more than the sum of all weights.
const TURN: i64 = 1 << 40;

/// A packet rate covers this time, so a connection is wholly in it only after as much.
const RATE_PERIOD: Duration = Duration::from_secs(1);

/// What a traffic manager says of itself, some 100 times a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Flows that it holds.
    pub flows: u32,
    /// Packets of its flows, and such as would begin one of its flows, that came to it in the last second. What its lcore
    /// merely hands over to other traffic managers is theirs.
    pub received: u32,
    /// Packets of them that it sent.
    pub completed: u32,
    /// The part of its time that it worked, lately: 0 to 1,000.
    pub busy_per_mille: u16,
}

/// What is known of the packet that asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its DSCP: the upper six bits of IPv4's type of service, or of IPv6's traffic class.
    pub dscp: u8,
    /// The zone of the port by which it came, as [`Zones`](crate::distributor::zones::Zones) numbers it.
    pub zone: u8,
}

/// One lcore's choice among the traffic managers of its appliance.
#[derive(Clone, Debug)]
pub struct Selector {
    managers: u16,
    seats: [Seat; WORKERS_MAX],
    /// Who serves a DSCP value; nobody: it is in no class.
    classes: [Managers; DSCP_VALUES],
    /// Packets per second that one connection has, by all that report; at least 1.
    packets_per_flow: u64,
    /// Who was last in turn.
    last_in_turn: WorkerId,
    /// Who was last chosen for being least: among equals the next one is.
    last_of_equals: WorkerId,
}

/// What is known of one traffic manager.
#[derive(Clone, Copy, Debug)]
struct Seat {
    zone: u8,
    load: Load,
    reported_at: Instant,
    has_reported: bool,
    /// Connections selected since then.
    selected: u32,
    /// Connections selected that its packet rate does not show yet, times [`ONE`].
    unseen: u64,
    /// Of 1,000 packets, how many it does not forward.
    lost_per_mille: u64,
    fixed: Share,
    idle: Share,
}

/// A part in taking turns by weight.
#[derive(Clone, Copy, Debug)]
struct Share {
    weight: i64,
    /// What was gained and not paid, in parts of a [`TURN`].
    credit: i64,
}

/// Which of a manager's shares a method turns by.
#[derive(Clone, Copy)]
enum By {
    Fixed,
    Idle,
}

impl Selector {
    /// Before any report: until the first, but no longer than [`LOAD_TIMEOUT`], a manager counts as idle and empty. `zones`
    /// are those of the traffic managers in the order of their numbers, 1 to [`WORKERS_MAX`] of them.
    pub fn new(now: Instant, config: &Distributor, zones: &[u8]) -> Selector {
        assert!((1..=WORKERS_MAX).contains(&zones.len()), "{} traffic managers", zones.len());
        let seat = |number: usize| Seat {
            zone: zones.get(number).copied().unwrap_or(0),
            load: Load::default(),
            reported_at: now,
            has_reported: false,
            selected: 0,
            unseen: 0,
            lost_per_mille: 0,
            fixed: Share::new(config.ratio.get(number).map_or(1, |weight| i64::from(*weight))),
            idle: Share::new(idle_weight(0)),
        };
        let mut classes = [Managers::NONE; DSCP_VALUES];
        for class in &config.classes {
            for value in &class.dscp {
                classes[usize::from(*value)] = class.managers;
            }
        }
        let managers = zones.len() as u16;
        let last = WorkerId(managers - 1);
        Selector {
            managers,
            seats: core::array::from_fn(seat),
            classes,
            packets_per_flow: 1,
            last_in_turn: last,
            last_of_equals: last,
        }
    }

    /// A traffic manager has said this of itself. One that says nothing for [`LOAD_TIMEOUT`] is passed over by the methods
    /// that look at loads, as long as there is another.
    pub fn report(&mut self, now: Instant, manager: WorkerId, load: Load) {
        assert!(manager.0 < self.managers, "worker {manager} is no traffic manager");
        let seat = &mut self.seats[usize::from(manager.0)];
        let silence = now.since(seat.reported_at);
        let idle = idle_weight(load.busy_per_mille);
        if seat.has_reported && silence < LOAD_TIMEOUT {
            seat.idle.weight += (idle - seat.idle.weight) / SMOOTHING;
        } else {
            seat.idle.weight = idle;
        }
        let seen = silence.nanos().min(RATE_PERIOD.nanos());
        seat.unseen -= (u128::from(seat.unseen) * u128::from(seen) / u128::from(RATE_PERIOD.nanos())) as u64;
        let lost = u64::from(load.received.saturating_sub(load.completed));
        seat.lost_per_mille = lost * 1000 / u64::from(load.received.max(1));
        (seat.load, seat.reported_at, seat.has_reported, seat.selected) = (load, now, true, 0);
        self.measure_flows(now);
    }

    /// A traffic manager for a new connection. There is always one, and no choice takes longer than a look at each.
    pub fn select(&mut self, now: Instant, method: ChosenMethod, asked: Asked) -> WorkerId {
        let all = Managers::first(self.managers);
        let chosen = match method {
            ChosenMethod::RoundRobin => self.next_in_turn(),
            ChosenMethod::StaticRatio => self.next_by_weight(all, By::Fixed),
            ChosenMethod::DynamicRatio => self.next_by_weight(self.heard_of(now, all), By::Idle),
            ChosenMethod::LeastConnections => self.least(self.heard_of(now, all), Seat::connections),
            ChosenMethod::PacketRate => {
                let packets_per_flow = self.packets_per_flow;
                self.least(self.heard_of(now, all), |seat| seat.packet_rate(packets_per_flow))
            }
            ChosenMethod::CompletionRate => self.least(self.heard_of(now, all), |seat| seat.lost_per_mille),
            ChosenMethod::QualityOfService => {
                let class = self.classes.get(usize::from(asked.dscp)).copied().unwrap_or(Managers::NONE);
                let class = class.and(all).unless_empty().unwrap_or(all);
                self.least(self.heard_of(now, class), Seat::connections)
            }
            ChosenMethod::Topology => {
                let zone = self.all_of(|seat| seat.zone == asked.zone).unless_empty().unwrap_or(all);
                self.least(self.heard_of(now, zone), Seat::connections)
            }
        };
        let seat = &mut self.seats[usize::from(chosen.0)];
        seat.selected = seat.selected.saturating_add(1);
        seat.unseen = seat.unseen.saturating_add(ONE);
        chosen
    }

    /// The managers of which this is true.
    fn all_of(&self, is: impl Fn(&Seat) -> bool) -> Managers {
        let seats = self.seats.iter().zip(0..self.managers);
        seats.filter(|(seat, _)| is(seat)).map(|(_, number)| WorkerId(number)).collect()
    }

    /// Those of them whose loads are known, or else all of them: what they said last is the best that is known.
    fn heard_of(&self, now: Instant, among: Managers) -> Managers {
        self.all_of(|seat| seat.is_heard_of(now)).and(among).unless_empty().unwrap_or(among)
    }

    /// Who follows a manager in turn.
    fn after(&self, last: WorkerId) -> WorkerId {
        WorkerId(if last.0 + 1 < self.managers { last.0 + 1 } else { 0 })
    }

    fn next_in_turn(&mut self) -> WorkerId {
        self.last_in_turn = self.after(self.last_in_turn);
        self.last_in_turn
    }

    /// Smooth weighted round robin: each gains its part of a turn, and who has most is chosen and pays what all have gained.
    fn next_by_weight(&mut self, among: Managers, by: By) -> WorkerId {
        let takes_part = |share: &Share, number| among.has(WorkerId(number)) && share.weight > 0;
        let mut weights = 0;
        for (seat, number) in self.seats.iter_mut().zip(0..self.managers) {
            let share = seat.share(by);
            weights += if takes_part(share, number) { share.weight } else { 0 };
        }
        // By parts, so that what was gained with the weights of yesterday is worth no more turns today.
        let unit = TURN / weights.max(1);
        let mut most = None;
        for (seat, number) in self.seats.iter_mut().zip(0..self.managers) {
            let share = seat.share(by);
            if !takes_part(share, number) {
                continue;
            }
            share.credit += share.weight * unit;
            if most.is_none_or(|(credit, _)| share.credit > credit) {
                most = Some((share.credit, WorkerId(number)));
            }
        }
        // The configuration has a weight above 0, and who is idle at least that.
        let Some((_, chosen)) = most else { return self.next_in_turn() };
        self.seats[usize::from(chosen.0)].share(by).credit -= weights * unit;
        chosen
    }

    /// Who has the least of something; equals in turn.
    fn least(&mut self, among: Managers, of: impl Fn(&Seat) -> u64) -> WorkerId {
        let (mut least, mut next) = (None, self.last_of_equals);
        for _ in 0..self.managers {
            next = self.after(next);
            if !among.has(next) {
                continue;
            }
            let value = of(&self.seats[usize::from(next.0)]);
            if least.is_none_or(|(known, _)| value < known) {
                least = Some((value, next));
            }
        }
        self.last_of_equals = least.map_or(next, |(_, chosen)| chosen);
        self.last_of_equals
    }

    /// How many packets per second a connection has.
    fn measure_flows(&mut self, now: Instant) {
        let heard = || self.seats[..usize::from(self.managers)].iter().filter(|seat| seat.is_heard_of(now));
        let packets: u64 = heard().map(|seat| u64::from(seat.load.received)).sum();
        let flows: u64 = heard().map(|seat| u64::from(seat.load.flows)).sum();
        self.packets_per_flow = (packets / flows.max(1)).max(1);
    }
}

impl Seat {
    fn is_heard_of(&self, now: Instant) -> bool {
        now.since(self.reported_at) < LOAD_TIMEOUT
    }

    fn connections(&self) -> u64 {
        u64::from(self.load.flows) + u64::from(self.selected)
    }

    /// Times [`ONE`], with what its connections that are too young for its rate will have.
    fn packet_rate(&self, packets_per_flow: u64) -> u64 {
        u64::from(self.load.received) * ONE + self.unseen.saturating_mul(packets_per_flow)
    }

    fn share(&mut self, by: By) -> &mut Share {
        match by {
            By::Fixed => &mut self.fixed,
            By::Idle => &mut self.idle,
        }
    }
}

impl Share {
    const fn new(weight: i64) -> Share {
        Share { weight, credit: 0 }
    }
}

/// The weight of who works so much: its idle time, so that even the busiest has a little.
fn idle_weight(busy_per_mille: u16) -> i64 {
    i64::from(1000_u16.saturating_sub(busy_per_mille).max(1)) * ONE as i64
}
