//! Whole connections: opened, a request, its answer, closed, forgotten; all of it mirrored.
//!
//! In each round a new cohort of clients opens connections, and every cohort before it goes one
//! step on; so packets of all steps come together, in both directions. When all are closed, the
//! time-out passes, and what the master's sweep finds is ended by the worker.

use anyhow::{Result, ensure};
use baton::base::limits::BURST_MAX;
use baton::base::time::Duration;
use baton::flow::aging::{Sweep, Timeouts};
use baton::worker::message::Command;

use crate::figure::{Figure, Place};
use crate::ring::appliance::{self, send_all};
use crate::ring::bench::Bench;
use crate::ring::config::CLOSING_S;
use crate::ring::flows::Side;
use crate::ring::frames::flags::{ACK, FIN, PSH, SYN};
use crate::ring::plan::{Plan, Protocol, Traffic};
use crate::ring::rounds::{Round, Rounds, Usage};

/// The packets of a connection, in their order.
const STEPS: [(Side, u8); 9] = [
    (Side::Client, SYN),
    (Side::Server, SYN | ACK),
    (Side::Client, ACK),
    (Side::Client, PSH | ACK),
    (Side::Server, PSH | ACK),
    (Side::Client, ACK),
    (Side::Client, FIN | ACK),
    (Side::Server, FIN | ACK),
    (Side::Client, ACK),
];

/// Rounds from a cohort's SYN to its server's answer: a held SYN comes out one round later.
const SYN_ROUNDS: usize = 2;

/// Connections of a cohort. With six steps at the client's side and three at the server's, a
/// round has 576 and 288 packets.
const COHORT: usize = 96;

/// Commands that are told the worker at a time.
const COMMANDS: usize = 512;
/// Commands that a worker takes in a turn.
const COMMANDS_PER_TURN: usize = 64;

/// The time-stamp counter of the machine that goals are stated for, in Hz.
const TSC_HZ: f64 = 2.6e9;

impl Bench {
    /// Cycles of a packet of all these connections, and of ending one of them. Their numbers are
    /// those of the plan's flows.
    fn connections(&mut self) -> Result<(f64, f64)> {
        let cohorts = self.plan.flows as usize / COHORT;
        let (mut packets, mut ends) = (Rounds::default(), Rounds::default());
        for round in 0..cohorts + STEPS.len() + SYN_ROUNDS {
            let (count, turns) = self.step(round, cohorts)?;
            let before = Usage::now();
            let ticks = self.window(turns, true)?;
            if count > 0 {
                packets.push(Round { ticks, packets: count }, before);
            }
            self.collect()?;
        }
        self.finish()?;
        let closing = core::time::Duration::from_secs(CLOSING_S.into());
        // Ticks are of 100 ms, and one more passes before a time-out is sure to be over.
        std::thread::sleep(closing + core::time::Duration::from_millis(250));
        self.forget(&mut ends)?;
        packets.remarks();
        Ok((packets.cost()?, ends.cost()?))
    }

    /// Puts the packets of a round into the rings; how many they are, and how many turns they take.
    fn step(&mut self, round: usize, cohorts: usize) -> Result<(usize, usize)> {
        let mut sides = [Vec::new(), Vec::new()];
        self.missing.clear();
        for place in 0..COHORT {
            for (step, (side, flags)) in STEPS.into_iter().enumerate() {
                let delay = if step == 0 { 0 } else { step + SYN_ROUNDS - 1 };
                let Some(cohort) = round.checked_sub(delay).filter(|cohort| *cohort < cohorts) else {
                    continue;
                };
                let flow = (cohort * COHORT + place) as u32;
                let number = sides[side as usize].len();
                let frame = match side {
                    Side::Client => self.flows.forth(flow, number as u32, flags),
                    Side::Server => self.flows.back(flow, number as u32, flags),
                };
                if self.missing.len() <= number {
                    self.missing.push([false; 2]);
                }
                if step == 0 {
                    self.flows.await_first(flow);
                } else {
                    self.missing[number][side as usize] = true;
                }
                sides[side as usize].push(self.devices.make(64, |out| frame.write(out))?);
            }
        }
        let [to_servers, to_clients] = sides.each_ref().map(Vec::len);
        for (packets, wire) in sides.into_iter().zip(&mut self.appliance.wires) {
            send_all(&mut wire.tx, packets)?;
        }
        Ok((to_servers + to_clients, to_servers.max(to_clients).div_ceil(BURST_MAX)))
    }

    /// Ends every flow, as the master's sweep would have it.
    fn forget(&mut self, ends: &mut Rounds) -> Result<()> {
        let closing = Duration::from_secs(CLOSING_S.into());
        let never = Duration::from_secs(24 * 3600);
        let timeouts = Timeouts { handshake: never, established: never, closing, datagram: never };
        let mut expired = Vec::new();
        for (_, last_seen) in &self.appliance.last_seen {
            let mut sweep = Sweep::new(last_seen.clone());
            let places = sweep.places();
            expired.extend(sweep.next_expired(places, self.appliance.clock.now(), &timeouts));
        }
        let wanted = self.plan.flows as usize / COHORT * COHORT;
        ensure!(expired.len() == wanted, "{} of {wanted} connections are closed", expired.len());
        for flows in expired.chunks(COMMANDS) {
            for flow in flows {
                self.appliance.of_master(Command::Expire { flow: *flow })?;
            }
            let before = Usage::now();
            let ticks = self.window(flows.len().div_ceil(COMMANDS_PER_TURN), true)?;
            ends.push(Round { ticks, packets: flows.len() }, before);
            self.collect()?;
        }
        // The last acknowledgements.
        self.window(1, false)?;
        self.finish()?;
        let status = self.status()?;
        ensure!(
            status.flows == 0 && status.departed == 0,
            "{} flows and {} unacknowledged ends are left: {}",
            status.flows,
            status.departed,
            self.troubles()
        );
        Ok(())
    }
}

/// Measures whole connections of an appliance.
pub fn measure(case: &str, plan: &Plan, samples: usize) -> Result<Vec<Figure>> {
    let plan = Plan { protocol: Protocol::Tcp, flows: (512 * COHORT) as u32, ..plan.clone() };
    let eal = appliance::start(&plan)?;
    let mut bench = Bench::new(&eal, &plan, 0)?;
    let (mut whole, mut rates, mut ends, mut swapped) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..samples + 1 {
        let (packet, end) = bench.connections()?;
        let macswap = bench.swap_sample(&Traffic::PLAIN, plan.rounds, None)?;
        // The first sample is not taken: it touches the tables' memory for the first time.
        if number > 0 {
            let cycles = STEPS.len() as f64 * packet + end;
            whole.push(cycles);
            rates.push(TSC_HZ / cycles);
            ends.push(end);
            swapped.push(STEPS.len() as f64 * macswap);
        }
    }
    let (name, forwarding) = (plan.mirroring.name(), plan.forwarding.name());
    let figure = Figure::of(case, "nine packets and the end", "cycles/connection", &whole);
    Ok(vec![
        figure.against("macswap, nine packets", &swapped).at(
            "Cycles per whole connection, by mirroring",
            forwarding,
            Place::Name(name.to_owned()),
        ),
        Figure::of(case, "of these, the end", "cycles/connection", &ends),
        Figure::of(case, "connections at 2.6 GHz", "1/s", &rates),
    ])
}
