//! The master: answers, whole or in fragments, neighbours, announcements, VRRP and the aging sweep, composed.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::base::counters::Counter;
use crate::base::ids::{PortId, ShardId, WorkerId};
use crate::base::io::TxClass;
use crate::base::limits::PUNT_OUTPUTS_MAX;
use crate::base::time::{Duration, Instant};
use crate::config::checked::Checked;
use crate::config::snapshot::Snapshot;
use crate::failover::FailoverEvent;
use crate::flow::aging::LastSeen;
use crate::flow::shard::Move;
use crate::master::announce::{announcements, keep_alives};
use crate::master::answers::{Answer, Answers};
use crate::master::frames;
use crate::master::health::{HealthNews, HealthWatch};
use crate::master::neighbours::{self, Neighbours};
use crate::master::reassembly::{Put, Reassembly};
use crate::master::rebalance::{self, Outcome, Rebalance, Refusal};
use crate::master::rivals::{Claim, Rivals};
use crate::master::sweep::AgingSweep;
use crate::master::vrrp::{self, Advertiser, Rival};
use crate::traffic::routes::NextHop;
use crate::wire::IpProtocol;
use crate::wire::ethernet::MacAddress;
use crate::wire::parse::parse;
use crate::worker::message::Command;
use crate::worker::moving::MoveEvent;

/// Between two frames from the virtual MAC, by which bridges keep it.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(1000);

/// What a master is made from.
pub struct MasterSetup {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// The ports' own link addresses, in their order.
    pub link_addresses: Vec<[u8; 6]>,
    /// The last-seen array of every worker.
    pub last_seen: Vec<(WorkerId, LastSeen)>,
    /// Lcores that only distribute.
    pub distributors: u16,
    /// When it starts.
    pub now: Instant,
    /// Seed of jitter.
    pub seed: u64,
}

/// What the driver is to do.
#[derive(Clone, Debug)]
pub enum MasterOutput {
    /// Send a frame by a port, through the worker that owns a queue of it.
    Inject {
        /// The port.
        port: PortId,
        /// The frame.
        frame: Vec<u8>,
        /// In whose name.
        class: TxClass,
    },
    /// Tell a worker, or every one.
    Command {
        /// The worker; `None`: every one.
        to: Option<WorkerId>,
        /// What.
        command: Command,
    },
    /// Tell every lcore that only distributes that shards move.
    Redirect(Move),
    /// A move of shards came to its end.
    Moved(Outcome),
    /// Count so many fragments that were not put together, rivals that were heard, or links that went down.
    Count {
        /// Why.
        counter: Counter,
        /// How many.
        packets: u64,
    },
    /// What this appliance's health follows from has changed.
    Health(HealthNews),
    /// Someone else uses an address of ours.
    Rival(Claim),
    /// Someone else advertises the group's virtual router.
    VrrpRival(Rival),
    /// With `vrrp = "yield"`: what the failover machine is to be told of others' advertisements. See [`vrrp::Output::Foreign`].
    Foreign(u8),
}

/// The master of one appliance. [`Master::poll`] at [`Master::next_deadline`] or
/// earlier; [`Master::poll_output`] until `None` after every call.
pub struct Master {
    answers: Answers,
    reassembly: Reassembly,
    /// Of the next answer in fragments.
    identification: u32,
    /// The ports' MTUs.
    mtus: Vec<u16>,
    neighbours: Neighbours,
    health: HealthWatch,
    advertiser: Advertiser,
    rivals: Rivals,
    sweep: AgingSweep,
    rebalance: Rebalance,
    announcements: Vec<(PortId, Vec<u8>)>,
    keep_alives: Vec<(PortId, Vec<u8>)>,
    keep_alive_at: Instant,
    active: bool,
    outputs: VecDeque<MasterOutput>,
    expired: Vec<crate::master::sweep::Expired>,
    /// The ports' own link addresses.
    macs: Vec<MacAddress>,
}

impl Master {
    /// The master of a standby.
    pub fn new(setup: MasterSetup) -> Master {
        let config = &setup.snapshot.checked;
        let macs: Vec<MacAddress> = setup.link_addresses.iter().copied().map(MacAddress).collect();
        let mut neighbours = Neighbours::new(setup.now, config, &macs, setup.seed);
        let health = HealthWatch::new(setup.now, config, &mut neighbours);
        Master {
            answers: Answers::new(config, &macs),
            reassembly: Reassembly::default(),
            identification: setup.seed as u32,
            mtus: config.ports.iter().map(|port| port.mtu).collect(),
            neighbours,
            health,
            advertiser: Advertiser::new(config, &macs),
            rivals: Rivals::default(),
            rebalance: Rebalance::new((setup.last_seen.len() as u16).max(1), setup.distributors),
            sweep: AgingSweep::new(setup.now, &config.flows, setup.last_seen),
            announcements: announcements(config),
            keep_alives: keep_alives(config),
            keep_alive_at: Instant::FAR_FUTURE,
            active: false,
            outputs: VecDeque::new(),
            expired: Vec::new(),
            macs,
        }
    }

    /// Another generation of the configuration: of pools, servers, virtual servers and time-outs. Addresses of services that
    /// are new are announced, while this appliance serves.
    pub fn configure(&mut self, now: Instant, config: &Checked) {
        self.answers = Answers::new(config, &self.macs);
        self.neighbours.configure(now, config, &self.macs);
        self.health.configure(config, &mut self.neighbours);
        self.advertiser.configure(config, &self.macs);
        self.sweep.set_timeouts(&config.flows);
        self.keep_alives = keep_alives(config);
        let before = core::mem::replace(&mut self.announcements, announcements(config));
        let known: BTreeSet<&(PortId, Vec<u8>)> = before.iter().collect();
        if !self.announcements.iter().all(|announcement| known.contains(announcement)) {
            self.rivals.want_announcement();
        }
    }

    /// The frames by which a new active says where the service's addresses are now.
    pub fn announcements(&self) -> &[(PortId, Vec<u8>)] {
        &self.announcements
    }

    /// The role changed.
    pub fn handle_role(&mut self, now: Instant, active: bool) {
        self.active = active;
        self.rebalance.handle_role(active);
        self.keep_alive_at = if active { now + KEEP_ALIVE_INTERVAL } else { Instant::FAR_FUTURE };
        if !active {
            self.advertiser.fall_silent();
            self.take_advertised();
        }
    }

    /// Something happened to this appliance's role or peers.
    pub fn handle_event(&mut self, now: Instant, event: &FailoverEvent) {
        self.advertiser.handle_event(now, event);
        self.take_advertised();
    }

    /// Whether packets can pass by a port; said at the start, and whenever it may have changed.
    pub fn handle_link(&mut self, port: PortId, up: bool) {
        if self.health.handle_link(port, up) {
            self.outputs.push_back(MasterOutput::Count { counter: Counter::LinkDowns, packets: 1 });
        }
    }

    /// A run of the tracking script ended, well or not.
    pub fn handle_script(&mut self, succeeded: bool) {
        self.health.handle_script(succeeded);
    }

    /// How many addresses no VRRP advertisement names, for want of room.
    pub const fn addresses_unadvertised(&self) -> usize {
        self.advertiser.addresses_unnamed()
    }

    /// A frame that a worker punted.
    pub fn handle_punt(&mut self, now: Instant, port: PortId, frame: &[u8]) {
        if self.outputs.len() >= PUNT_OUTPUTS_MAX {
            return; // The driver is behind; whoever asked asks again.
        }
        if let Ok(parsed) = parse(frame)
            && parsed.protocol == IpProtocol::VRRP
            && parsed.addresses(frame).is_some()
        {
            self.advertiser.handle_packet(now, port, frame, &parsed);
            return self.take_advertised();
        }
        self.neighbours.handle_packet(now, port, frame);
        let answer = self.answers.handle_packet(port, frame, self.active);
        match answer {
            Answer::Fragment => self.handle_fragment(now, port, frame),
            Answer::Send { .. }
            | Answer::Rival { .. }
            | Answer::NotActive
            | Answer::OffLink
            | Answer::NotForUs
            | Answer::Malformed(_) => self.act(now, port, answer),
        }
    }

    /// A piece of an echo request to us: answered in pieces when it is whole (RFC 1122 section 3.2.2.6).
    fn handle_fragment(&mut self, now: Instant, port: PortId, frame: &[u8]) {
        let Ok(parsed) = parse(frame) else { return };
        let put = self.reassembly.handle(now, frame, &parsed);
        self.count_dropped();
        match put {
            Put::Waits => {}
            Put::Dropped(counter) => self.outputs.push_back(MasterOutput::Count { counter, packets: 1 }),
            Put::Whole(frame) => {
                let answer = self.answers.handle_packet(port, &frame, self.active);
                self.act(now, port, answer);
            }
        }
    }

    fn count_dropped(&mut self) {
        while let Some((counter, packets)) = self.reassembly.poll_dropped() {
            self.outputs.push_back(MasterOutput::Count { counter, packets });
        }
    }

    fn take_advertised(&mut self) {
        while let Some(output) = self.advertiser.poll_output() {
            match output {
                vrrp::Output::Send { port, frame, class } => {
                    self.outputs.push_back(MasterOutput::Inject { port, frame, class });
                }
                vrrp::Output::Count { counter, packets } => {
                    self.outputs.push_back(MasterOutput::Count { counter, packets });
                }
                vrrp::Output::Foreign(priority) => self.outputs.push_back(MasterOutput::Foreign(priority)),
                vrrp::Output::Rival(rival) => {
                    self.outputs.push_back(MasterOutput::VrrpRival(rival));
                    self.rivals.want_announcement();
                }
            }
        }
    }

    fn act(&mut self, now: Instant, port: PortId, answer: Answer) {
        match answer {
            Answer::Send { frame, class } => {
                let mtu = self.mtus.get(usize::from(port.0)).copied().unwrap_or(u16::MAX);
                self.identification = self.identification.wrapping_add(1);
                for frame in frames::fragments(frame, mtu, self.identification) {
                    self.outputs.push_back(MasterOutput::Inject { port, frame, class });
                }
            }
            Answer::Rival { address, mac } => {
                let claim = Claim { port, address, link: mac.0 };
                match self.advertiser.serving_since() {
                    Some(since) => self.rivals.hear(now, claim, since),
                    None if address.is_some() => self.tell_rival(claim, 1),
                    // It takes over just now, and hears the one that led before.
                    None => {}
                }
            }
            Answer::Fragment
            | Answer::NotActive
            | Answer::OffLink
            | Answer::NotForUs
            | Answer::Malformed(_) => {}
        }
    }

    fn tell_rival(&mut self, claim: Claim, heard: u64) {
        self.outputs.push_back(MasterOutput::Count { counter: Counter::AddressRivals, packets: heard });
        self.outputs.push_back(MasterOutput::Rival(claim));
    }

    /// Hosts and bridges may have believed a rival (DESIGN "Failover").
    fn answer_rivals(&mut self, now: Instant) {
        if self.advertiser.serving_since().is_none() {
            return self.rivals.fall_silent();
        }
        if let Some((claim, heard)) = self.rivals.judge(now) {
            self.tell_rival(claim, heard);
        }
        if self.rivals.announces(now) {
            for (port, frame) in &self.announcements {
                let (port, frame) = (*port, frame.clone());
                self.outputs.push_back(MasterOutput::Inject { port, frame, class: TxClass::Service });
            }
        }
    }

    /// A worker needs a neighbour.
    pub fn handle_resolve(&mut self, now: Instant, hop: NextHop) {
        // A known neighbour is said again; the others are said when they answer.
        let _ = self.neighbours.resolve(now, hop.port, hop.address);
    }

    /// Time passed.
    pub fn poll(&mut self, now: Instant) {
        self.neighbours.poll(now);
        self.outputs.extend(self.health.poll(now, &self.neighbours).map(MasterOutput::Health));
        self.rebalance.poll();
        self.reassembly.expire(now);
        self.count_dropped();
        self.advertiser.poll(now);
        self.take_advertised();
        self.answer_rivals(now);
        if now >= self.keep_alive_at {
            self.keep_alive_at = now + KEEP_ALIVE_INTERVAL;
            for (port, frame) in &self.keep_alives {
                let (port, frame) = (*port, frame.clone());
                self.outputs.push_back(MasterOutput::Inject { port, frame, class: TxClass::Service });
            }
        }
        if self.active {
            self.sweep.poll(now, &mut self.expired);
            for expired in self.expired.drain(..) {
                let command = Command::Expire { flow: expired.flow };
                self.outputs.push_back(MasterOutput::Command { to: Some(expired.worker), command });
            }
        }
    }

    /// Moves shards, one after the other: each with its new owner. What became of each is said by
    /// [`MasterOutput::Moved`].
    pub fn move_shards(&mut self, wanted: &[(ShardId, WorkerId)]) -> Result<(), Refusal> {
        self.rebalance.ask(wanted)
    }

    /// A worker says something of a move.
    pub fn handle_move(&mut self, worker: WorkerId, event: MoveEvent) {
        self.rebalance.handle_event(worker, event);
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<MasterOutput> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if let Some(output) = self.rebalance.poll_output() {
            return Some(match output {
                rebalance::Output::Worker { to, command } => {
                    MasterOutput::Command { to: Some(to), command: Command::Move(command) }
                }
                rebalance::Output::Distributors(these) => MasterOutput::Redirect(these),
                rebalance::Output::Done(outcome) => MasterOutput::Moved(outcome),
            });
        }
        match self.neighbours.poll_output()? {
            neighbours::Output::Send { port, frame, class } => {
                Some(MasterOutput::Inject { port, frame, class })
            }
            neighbours::Output::Update { port, ip, mac } => {
                let hop = NextHop { port, address: ip };
                let command = Command::Neighbour { hop, link: mac.map(|mac| mac.0) };
                Some(MasterOutput::Command { to: None, command })
            }
        }
    }

    /// Commands wait for this worker, or no longer do: while they do, its flows are not swept.
    pub fn set_crowded(&mut self, worker: WorkerId, crowded: bool) {
        self.sweep.set_crowded(worker, crowded);
    }

    /// When to call [`Master::poll`] next.
    pub fn next_deadline(&self) -> Instant {
        let sweep = if self.active { self.sweep.next_deadline() } else { Instant::FAR_FUTURE };
        let rivals = self.advertiser.next_deadline().min(self.rivals.next_deadline());
        let fragments = self.reassembly.next_deadline().min(self.health.next_deadline());
        self.neighbours.next_deadline().min(self.keep_alive_at).min(sweep).min(fragments).min(rivals)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
