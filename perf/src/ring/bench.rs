//! The appliance with its peer and its flows; windows in which its loop is timed.
//!
//! The clock is the time-stamp counter, read once before and once after the timed turns.

use anyhow::{Result, bail, ensure};
use baton::base::limits::BURST_MAX;
use baton::driver::clock::Clock;
use baton::mirror::stream::GATHER;
use baton::worker::message::{Role, WorkerStatus};
use dpdk::clock::tsc;
use dpdk::{Eal, Mbuf};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rand_distr::Zipf;

use crate::ring::appliance::{Appliance, Devices, RING_MAX, send_all};
use crate::ring::config::{self, MIRROR};
use crate::ring::flows::{Flows, Side};
use crate::ring::frames::flags;
use crate::ring::live::LivePeer;
use crate::ring::member::{self, Member};
use crate::ring::plan::{Mirroring, Plan};

/// Frames with changes leave at the latest so long after them.
const FRAME_DUE: std::time::Duration = std::time::Duration::from_nanos(GATHER.nanos() + 10_000);

/// In this time a few packets come out, even if their flows have to be acknowledged first, by a peer that may be kept from its
/// CPU.
pub(super) const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(2);
/// Turns between two looks at the time.
const TURNS: usize = 16;

/// Sides by the number of their port.
pub(super) const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// The appliance, its peer, their flows.
pub struct Bench {
    pub(super) plan: Plan,
    pub(super) appliance: Appliance,
    pub(super) peer: Option<Member>,
    /// The peer, while it goes on by itself.
    pub(super) live: Option<LivePeer>,
    flows_max: u32,
    pub(super) flows: Flows,
    pub(super) rng: SmallRng,
    pub(super) zipf: Option<Zipf<f64>>,
    /// Packets of the round that have not come out.
    pub(super) missing: Vec<[bool; 2]>,
    pub(super) devices: Devices,
}

impl Bench {
    /// An appliance that leads, its peer in sync; with room for so many flows beside the
    /// settled ones. No flow has begun.
    pub fn new(eal: &Eal, plan: &Plan, spare: u32) -> Result<Bench> {
        let mut bench = Bench::alone(eal, plan, spare)?;
        if plan.mirroring != Mirroring::Off {
            bench.peer = Some(bench.new_peer()?);
            bench.join()?;
        }
        Ok(bench)
    }

    /// An appliance that leads, and has heard of no peer yet.
    pub fn alone(eal: &Eal, plan: &Plan, spare: u32) -> Result<Bench> {
        ensure!(
            plan.in_flight <= RING_MAX && plan.in_flight > plan.warm * BURST_MAX,
            "{} packets in flight: at most {RING_MAX}, and more than are not timed",
            plan.in_flight
        );
        let flows_max = plan.capacity.unwrap_or((plan.flows + spare).max(1_000_000));
        ensure!(flows_max >= plan.flows + spare, "{} flows do not fit", plan.flows + spare);
        let clock = Clock::start();
        let checked = config::config(plan, 1, flows_max)?;
        // Twice what is in flight: first packets may wait for a round.
        let buffers = (4 * plan.in_flight).next_power_of_two() - 1;
        let mut devices = Devices::open(eal, &checked, buffers as u32)?;
        let appliance = Appliance::start(eal, &mut devices, checked, clock, plan.distributor)?;
        Ok(Bench {
            plan: plan.clone(),
            flows_max,
            appliance,
            peer: None,
            live: None,
            flows: Flows::new(plan),
            rng: SmallRng::seed_from_u64(11),
            zipf: Zipf::new(f64::from(plan.flows.max(1)), 1.0).ok(),
            missing: Vec::new(),
            devices,
        })
    }

    /// A peer that knows nothing yet.
    pub(super) fn new_peer(&self) -> Result<Member> {
        let checked = config::config(&self.plan, 2, self.flows_max)?;
        Member::start(&self.devices.pool, checked, self.appliance.clock, 2, Role::Standby)
    }

    /// Appliance and peer agree on keys, and the peer is brought up to date.
    fn join(&mut self) -> Result<()> {
        let Some(peer) = &mut self.peer else { return Ok(()) };
        let (ours, theirs) = member::sessions()?;
        self.appliance.join(ours)?;
        peer.join(theirs);
        let begin = std::time::Instant::now();
        while !self.appliance.walk_is_done() {
            self.appliance.turn();
            self.appliance.listen();
            self.exchange()?;
            ensure!(begin.elapsed().as_secs() < 5, "the peer does not come up to date");
        }
        self.appliance.in_sync()?;
        self.appliance.turn();
        Ok(())
    }

    /// The peer applies what was sent, and its answers are given to the appliance.
    fn exchange(&mut self) -> Result<()> {
        if let Some(peer) = &mut self.peer {
            let wire = &mut self.appliance.wires[usize::from(MIRROR.0)];
            peer.hear(wire);
            peer.answer(wire)?;
        }
        Ok(())
    }

    /// Begins all settled flows, TCP connections with a whole handshake, and waits until the
    /// peer knows them.
    pub fn settle(&mut self) -> Result<()> {
        let chunk = self.plan.in_flight as u32;
        for from in (0..self.plan.flows).step_by(chunk as usize) {
            let flows = from..(from + chunk).min(self.plan.flows);
            for flow in flows.clone() {
                self.flows.await_first(flow);
            }
            self.send_once(Side::Client, flows.clone().map(|flow| (flow, flags::SYN)))?;
            self.send_once(Side::Server, flows.clone().map(|flow| (flow, flags::SYN | flags::ACK)))?;
            self.send_once(Side::Client, flows.map(|flow| (flow, flags::ACK)))?;
        }
        self.finish()?;
        let status = self.appliance.status()?;
        ensure!(status.flows == u64::from(self.plan.flows), "{} flows: {}", status.flows, self.troubles());
        Ok(())
    }

    /// Sends one packet of each of these flows, at most a round of them, and waits for them.
    fn send_once(&mut self, side: Side, packets: impl Iterator<Item = (u32, u8)>) -> Result<()> {
        let port = side as usize;
        let mut frames = Vec::new();
        for (flow, flags) in packets {
            frames.push(match side {
                Side::Client => self.flows.forth(flow, 0, flags),
                Side::Server => self.flows.back(flow, 0, flags),
            });
        }
        let count = frames.len();
        let made: Result<Vec<Mbuf>> =
            frames.into_iter().map(|frame| self.devices.make(64, |out| frame.write(out))).collect();
        send_all(&mut self.appliance.wires[port].tx, made?)?;
        let (mut came, begin) = (0, std::time::Instant::now());
        while came < count {
            for _ in 0..TURNS {
                self.appliance.turn();
                came += self.take(1 - port, |_, _| ())?;
                self.exchange()?;
            }
            if begin.elapsed() > WAIT_MAX {
                bail!("{came} of {count} packets came out: {}", self.troubles());
            }
        }
        self.appliance.listen();
        Ok(())
    }

    /// Takes everything that came out by a port, checks it, and says how many there were.
    fn take(&mut self, port: usize, mut each: impl FnMut(&mut Vec<[bool; 2]>, u32)) -> Result<usize> {
        let mut count = 0;
        loop {
            let burst = self.appliance.wires[port].take();
            if burst.is_empty() {
                return Ok(count);
            }
            count += burst.len();
            for mbuf in &burst {
                self.flows.check_sums(mbuf.head())?;
                if let Some(packet) = self.flows.check(SIDES[port], mbuf.head())? {
                    each(&mut self.missing, packet);
                }
            }
        }
    }

    /// Lets everything settle: held packets come out, the peer acknowledges what there is.
    pub fn finish(&mut self) -> Result<()> {
        let begin = std::time::Instant::now();
        loop {
            self.appliance.turn();
            self.exchange()?;
            self.take(1, |_, _| ())?;
            self.appliance.listen();
            let pending = if self.peer.is_some() || self.live.is_some() {
                let status = self.appliance.status()?;
                status.streams.iter().any(|stream| stream.waiting + stream.in_flight > 0)
                    || status.protected < status.mirrored
            } else {
                false
            };
            if !pending && self.flows.awaited() == 0 {
                break;
            }
            ensure!(
                begin.elapsed().as_secs() < 10,
                "what was sent stays unacknowledged: {}",
                self.troubles()
            );
        }
        let troubles = self.troubles();
        ensure!(troubles.is_empty(), "{troubles}");
        Ok(())
    }

    /// Whatever either member did not do with a packet.
    pub(super) fn troubles(&self) -> String {
        let mut found = self.appliance.drops();
        if let Some(peer) = &self.peer {
            found.extend(peer.failures().into_iter().map(|text| format!("peer: {text}")));
        }
        found.join(", ")
    }

    /// What the appliance says of itself.
    pub fn status(&mut self) -> Result<WorkerStatus> {
        self.appliance.status()
    }

    /// So many turns at least, timed, in which the peer's answers are handled; with `changes`, one
    /// more when mirror frames that are not full are due, so that each round pays for its own.
    pub(super) fn window(&mut self, turns: usize, changes: bool) -> Result<u64> {
        let mut answers = 0;
        if let Some(peer) = &mut self.peer {
            answers = peer.answer(&mut self.appliance.wires[usize::from(MIRROR.0)])?;
        }
        let turns = turns.max(answers.div_ceil(BURST_MAX));
        let begin = tsc();
        for _ in 0..turns {
            self.appliance.turn();
        }
        let mut ticks = tsc() - begin;
        if self.peer.is_some() && changes {
            let begin = std::time::Instant::now();
            while begin.elapsed() < FRAME_DUE {
                core::hint::spin_loop();
            }
            let begin = tsc();
            self.appliance.turn();
            ticks += tsc() - begin;
        }
        Ok(ticks)
    }

    /// Takes and checks what came out of a round, and lets the peer apply what it was sent.
    pub(super) fn collect(&mut self) -> Result<()> {
        for port in 0..2 {
            // What goes in by one port comes out by the other.
            self.take(port, |missing, packet| missing[packet as usize][1 - port] = false)?;
        }
        if let Some(peer) = &mut self.peer {
            peer.hear(&mut self.appliance.wires[usize::from(MIRROR.0)]);
        }
        self.appliance.listen();
        let missing = self.missing.iter().flatten().filter(|missing| **missing).count();
        ensure!(missing == 0, "{missing} packets did not come out: {}", self.troubles());
        let held = if self.plan.mirroring == Mirroring::Hold { usize::MAX } else { 0 };
        ensure!(self.flows.awaited() <= held, "a first packet did not come out: {}", self.troubles());
        Ok(())
    }
}
