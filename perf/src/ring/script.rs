//! Rounds of settled and new flows, written beforehand and checked afterwards.
//!
//! To choose a flow, to write its frame and to check what came of it touches memory at random. Done
//! between the rounds, that would drive the appliance's tables and the host's page tables out
//! of the caches, and the appliance would be measured as if it shared its CPU. So some rounds are
//! written at a time; in between, their frames are copied from front to back and back again.

use anyhow::{Result, ensure};
use baton::base::limits::BURST_MAX;
use dpdk::Mbuf;
use dpdk::clock::tsc;
use rand::Rng as _;
use rand_distr::Distribution as _;

use crate::ring::appliance::{Devices, RING_MAX, Wire, send_all};
use crate::ring::bench::{Bench, SIDES, WAIT_MAX};
use crate::ring::config::MIRROR;
use crate::ring::flows::Side;
use crate::ring::frames::flags;
use crate::ring::lines::Lines;
use crate::ring::plan::{Directions, Mirroring, Traffic};
use crate::ring::rounds::{Round, Rounds, Usage};
use crate::traffic::Spread;

/// Rounds that are written at a time: a megabyte of heads.
pub(super) const ROUNDS: usize = 16;

/// The bytes of a frame that differ between frames; what is behind them is zeros.
const HEAD: usize = 64;

/// A frame to be sent.
pub(super) struct Written {
    head: [u8; HEAD],
    len: u16,
}

impl Written {
    pub(super) fn packet(&self, devices: &Devices) -> Result<Mbuf> {
        devices.make(usize::from(self.len), |out| out[..HEAD].copy_from_slice(&self.head))
    }
}

/// A frame that came out.
pub(super) struct Came {
    side: Side,
    head: [u8; HEAD],
}

/// A round's frames, by the side that they come from.
pub(super) type Script = [Vec<Written>; 2];

impl Bench {
    /// A sample of both: cycles per packet through the appliance, and through the reference.
    pub fn sample(&mut self, traffic: &Traffic, rounds: usize) -> Result<(f64, f64)> {
        let mut ours = Rounds::default();
        for begin in (0..rounds).step_by(ROUNDS) {
            self.batch(traffic, ROUNDS.min(rounds - begin), &mut ours)?;
        }
        self.finish()?;
        ours.remarks();
        Ok((ours.cost()?, self.swap_sample(traffic, rounds, None)?))
    }

    /// A sample with the peer on the other CPU, or without one: cycles per packet. What mirroring takes of the appliance is in
    /// it, but for what happens in the turns that warm up.
    pub(super) fn sample_live(&mut self, traffic: &Traffic, rounds: usize) -> Result<f64> {
        let mut ours = Rounds::default();
        for begin in (0..rounds).step_by(ROUNDS) {
            self.batch_live(traffic, ROUNDS.min(rounds - begin), &mut ours)?;
        }
        self.finish()?;
        ours.remarks();
        ours.cost()
    }

    fn batch_live(&mut self, traffic: &Traffic, count: usize, rounds: &mut Rounds) -> Result<()> {
        // Some of the batch before may still be held.
        let mut sent = self.flows.awaited();
        let scripts = self.scripts(traffic, count);
        let mut came = Vec::with_capacity(count * 2 * self.plan.in_flight + 1024);
        let mut ends = Vec::new();
        for script in &scripts {
            let before = Usage::now();
            // What the peer answered since the round before, and frames that are due by now.
            let begin = tsc();
            self.appliance.turn();
            let mut ticks = tsc() - begin;
            for side in SIDES {
                self.copy_out(side, &mut came)?;
            }
            ticks += self.wait_for_held(sent, &mut came)?;
            sent += script.iter().map(Vec::len).sum::<usize>();
            for (written, wire) in script.iter().zip(&mut self.appliance.wires) {
                let packets: Result<Vec<Mbuf>> =
                    written.iter().map(|one| one.packet(&self.devices)).collect();
                send_all(&mut wire.tx, packets?)?;
            }
            for _ in 0..self.plan.warm {
                self.appliance.turn();
            }
            ticks += self.window(self.timed_turns(), false)?;
            rounds.push(Round { ticks, packets: self.timed_packets(script) }, before);
            for side in SIDES {
                self.copy_out(side, &mut came)?;
            }
            self.appliance.listen();
            ends.push(came.len());
        }
        // First packets of the last round may still be held: `finish` takes them.
        self.check(&came, &ends)
    }

    /// First packets of several rounds that are held while the peer is kept from its CPU would come out together with a whole round,
    /// and be more than a ring takes: waits until few are left, of all that were sent. Ticks of the turns in which some came: the others
    /// found nothing to do.
    fn wait_for_held(&mut self, sent: usize, came: &mut Vec<Came>) -> Result<u64> {
        let (mut ticks, since) = (0, std::time::Instant::now());
        while sent.saturating_sub(came.len()) > RING_MAX - self.plan.in_flight {
            let (begin, before) = (tsc(), came.len());
            self.appliance.turn();
            let span = tsc() - begin;
            for side in SIDES {
                self.copy_out(side, came)?;
            }
            ticks += if came.len() > before { span } else { 0 };
            ensure!(since.elapsed() < WAIT_MAX, "first packets stay held: {}", self.troubles());
        }
        Ok(ticks)
    }

    /// A sample of the reference: link addresses swapped, out by the other port; perhaps with lines
    /// of memory for each packet.
    pub fn swap_sample(
        &mut self,
        traffic: &Traffic,
        rounds: usize,
        mut lines: Option<&mut Lines>,
    ) -> Result<f64> {
        let traffic = Traffic { new: 0.0, ..*traffic };
        let mut swapped = Rounds::default();
        for begin in (0..rounds).step_by(ROUNDS) {
            for script in self.scripts(&traffic, ROUNDS.min(rounds - begin)) {
                self.swap_round(&script, &mut swapped, lines.as_deref_mut())?;
            }
        }
        swapped.cost()
    }

    /// Cycles of a turn of the appliance's loop that finds nothing, and of one of the reference's.
    pub fn idle_sample(&mut self, turns: u32) -> (f64, f64) {
        let begin = tsc();
        (0..turns).for_each(|_| self.appliance.turn());
        let ours = (tsc() - begin) as f64 / f64::from(turns);
        let begin = tsc();
        (0..turns).for_each(|_| self.devices.swap.turn());
        let swapped = (tsc() - begin) as f64 / f64::from(turns);
        self.appliance.listen();
        (ours, swapped)
    }

    /// Rounds through the appliance.
    fn batch(&mut self, traffic: &Traffic, count: usize, rounds: &mut Rounds) -> Result<()> {
        let scripts = self.scripts(traffic, count);
        let mut came = Vec::with_capacity(count * 2 * self.plan.in_flight + 1024);
        let mut ends = Vec::new();
        for script in &scripts {
            for (written, wire) in script.iter().zip(&mut self.appliance.wires) {
                let packets: Result<Vec<Mbuf>> =
                    written.iter().map(|one| one.packet(&self.devices)).collect();
                send_all(&mut wire.tx, packets?)?;
            }
            let before = Usage::now();
            for _ in 0..self.plan.warm {
                self.appliance.turn();
            }
            let ticks = self.window(self.timed_turns(), traffic.new > 0.0)?;
            rounds.push(Round { ticks, packets: self.timed_packets(script) }, before);
            for side in SIDES {
                self.copy_out(side, &mut came)?;
            }
            if let Some(peer) = &mut self.peer {
                peer.hear(&mut self.appliance.wires[usize::from(MIRROR.0)]);
            }
            self.appliance.listen();
            ends.push(came.len());
        }
        self.check(&came, &ends)
    }

    /// Takes what came out by a port.
    pub(super) fn copy_out(&mut self, side: Side, came: &mut Vec<Came>) -> Result<()> {
        loop {
            let burst = self.appliance.wires[side as usize].take();
            if burst.is_empty() {
                return Ok(());
            }
            for mbuf in &burst {
                let bytes = mbuf.head();
                self.flows.check_sums(bytes)?;
                let mut head = [0; HEAD];
                let len = bytes.len().min(HEAD);
                head[..len].copy_from_slice(&bytes[..len]);
                came.push(Came { side, head });
            }
        }
    }

    /// Checks what came out of rounds that ended there.
    pub(super) fn check(&mut self, came: &[Came], ends: &[usize]) -> Result<()> {
        let mut begin = 0;
        for (round, end) in ends.iter().enumerate() {
            for frame in &came[begin..*end] {
                if let Some(packet) = self.flows.check(frame.side, &frame.head)? {
                    let of_round = packet as usize / self.plan.in_flight;
                    ensure!(of_round == round, "a packet of round {of_round} came out of round {round}");
                    // What goes in by one port comes out by the other.
                    self.missing[packet as usize][1 - frame.side as usize] = false;
                }
            }
            begin = *end;
        }
        let missing = self.missing.iter().flatten().filter(|missing| **missing).count();
        ensure!(missing == 0, "{missing} packets did not come out: {}", self.troubles());
        let held = if self.plan.mirroring == Mirroring::Hold { usize::MAX } else { 0 };
        ensure!(self.flows.awaited() <= held, "a first packet did not come out: {}", self.troubles());
        Ok(())
    }

    fn swap_round(
        &mut self,
        script: &Script,
        rounds: &mut Rounds,
        mut lines: Option<&mut Lines>,
    ) -> Result<()> {
        let (turns, packets) = (self.timed_turns(), self.timed_packets(script));
        for (written, at) in script.iter().zip(0..) {
            let packets: Result<Vec<Mbuf>> = written.iter().map(|one| one.packet(&self.devices)).collect();
            let wire: &mut Wire = &mut self.devices.swap.wires[at];
            send_all(&mut wire.tx, packets?)?;
        }
        if let Some(lines) = &mut lines {
            lines.choose(script.iter().map(Vec::len).sum());
        }
        let before = Usage::now();
        let swap = &mut self.devices.swap;
        let mut run = |turns| match &mut lines {
            Some(lines) => (0..turns).for_each(|_| swap.turn_with(lines)),
            None => (0..turns).for_each(|_| swap.turn()),
        };
        run(self.plan.warm);
        let begin = tsc();
        run(turns);
        let ticks = tsc() - begin;
        rounds.push(Round { ticks, packets }, before);
        let came: usize = self.devices.swap.wires.iter_mut().map(drain).sum();
        let sent: usize = script.iter().map(Vec::len).sum();
        ensure!(came == sent, "{came} of {sent} packets came out of the reference");
        Ok(())
    }

    /// Writes the frames of some rounds. The number in a frame's tag counts through all of them.
    pub(super) fn scripts(&mut self, traffic: &Traffic, count: usize) -> Vec<Script> {
        self.missing.clear();
        self.missing.resize(count * self.plan.in_flight, [false; 2]);
        (0..count).map(|round| SIDES.map(|side| self.script(traffic, side, round))).collect()
    }

    /// The frames of one side. Where flows begin, the first packet of all, which is not timed, begins one too: it brings the
    /// code for first packets back, as the others bring theirs.
    fn script(&mut self, traffic: &Traffic, side: Side, round: usize) -> Vec<Written> {
        let new = match (side, traffic.directions) {
            (Side::Client, Directions::Back) | (Side::Server, Directions::Forth) => return Vec::new(),
            // Flows begin at the client's side alone.
            (Side::Client, Directions::Both) => 2.0 * traffic.new,
            (Side::Client, Directions::Forth) => traffic.new,
            (Side::Server, _) => 0.0,
        };
        let (warm, lengths) = (self.plan.warm * BURST_MAX, traffic.size.round());
        let mut due = if new > 0.0 { 1.0 } else { 0.0 };
        let mut written = Vec::with_capacity(self.plan.in_flight);
        for packet in 0..self.plan.in_flight {
            let number = round * self.plan.in_flight + packet;
            due += if packet < warm { 0.0 } else { new };
            let frame = if due >= 1.0 {
                due -= 1.0;
                let flow = self.flows.begin();
                self.flows.await_first(flow);
                self.flows.forth(flow, number as u32, flags::SYN)
            } else {
                self.missing[number][side as usize] = true;
                let flow = self.draw(traffic.spread);
                match side {
                    Side::Client => self.flows.forth(flow, number as u32, flags::ACK | flags::PSH),
                    Side::Server => self.flows.back(flow, number as u32, flags::ACK | flags::PSH),
                }
            };
            let mut one = Written { head: [0; HEAD], len: lengths[packet % lengths.len()] };
            frame.write_head(&mut one.head, usize::from(one.len));
            written.push(one);
        }
        written
    }

    fn draw(&mut self, spread: Spread) -> u32 {
        match (spread, &self.zipf) {
            (Spread::Zipf, Some(zipf)) => zipf.sample(&mut self.rng) as u32 - 1,
            _ => self.rng.random_range(0..self.plan.flows),
        }
    }

    fn timed_packets(&self, script: &Script) -> usize {
        script.iter().map(|side| side.len().saturating_sub(self.plan.warm * BURST_MAX)).sum()
    }

    fn timed_turns(&self) -> usize {
        self.plan.in_flight.div_ceil(BURST_MAX) - self.plan.warm
    }
}

fn drain(wire: &mut Wire) -> usize {
    let mut count = 0;
    loop {
        let burst = wire.take();
        if burst.is_empty() {
            return count;
        }
        count += burst.len();
    }
}
