//! Stragglers: packets of services that come to this appliance while it hands over as planned, and shortly after (REQ B2,
//! C8, DESIGN "Failover").
//!
//! From [`Command::Quiesce`](super::message::Command::Quiesce) on, packets that would begin a flow wait, so that the flush
//! comes to an end; all others are handled. From [`Command::Hold`](super::message::Command::Hold) on, while the lease still
//! covers what was sent before, all wait:
//! the worker handles none, so none is lost with the lease, and the last flush has all that the flows went through. When
//! the successor serves they are relayed, in their order, and then whatever still comes for a moment: until switches know
//! where the virtual link addresses are now.
//!
//! A relayed frame is the one that came, by the port that it came by, from the port's own link address to the successor's.
//! It is nothing that this appliance says in the group's name: it is neither answered nor translated, so it needs no
//! lease, and no switch learns a virtual address from it. What came to a port's own link address is never relayed: so no
//! frame goes to and fro. (Nothing seals the address that the successor's heartbeats come from: whoever can forge it can
//! as well pretend to the LAN to have the virtual addresses.)
//!
//! Should the handover be called off, what waits is handled as if it came now, some of it in each turn, and what comes
//! meanwhile waits behind it. It must have been called off while this worker was active: who leads again after its
//! successor died has no lease yet, so what waits would change flows and then be dropped on its way out.

use std::collections::VecDeque;

use crate::base::buffer::Buffer;
use crate::base::counters::Counter;
use crate::base::io::{Io, TxClass};
use crate::base::limits::{
    STRAGGLERS_GATHERED_MAX, STRAGGLERS_MAX, STRAGGLERS_PER_TURN, STRAGGLERS_RELAYED_FOR, STRAGGLERS_WAIT_MAX,
};
use crate::base::time::Instant;
use crate::distributor::tell::Tell;
use crate::wire::ethernet::PortLinks;
use crate::worker::message::Role;
use crate::worker::{Origin, Worker};

/// What is done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There are none.
    None,
    /// Those that would begin a flow wait, at most until then.
    Gathered { until: Instant },
    /// All wait, at most until then.
    Waiting { until: Instant },
    /// They are relayed until then, to the successor's link address on each port's LAN.
    Relayed { until: Instant, links: PortLinks },
    /// The handover was called off: they are handled, and so many have come since the last turn.
    Handled { came: usize },
}

/// The stragglers of one worker.
pub(super) struct Stragglers<B> {
    phase: Phase,
    /// Where each came from decides what is believed of it.
    waiting: VecDeque<(B, Origin)>,
    waiting_max: usize,
}

impl<B> Stragglers<B> {
    /// Room for half as many packets as may wait for the mirror.
    pub(super) fn new(hold_packets_max: usize) -> Stragglers<B> {
        let waiting_max = (hold_packets_max / 2).min(STRAGGLERS_MAX);
        Stragglers { phase: Phase::None, waiting: VecDeque::with_capacity(waiting_max), waiting_max }
    }

    /// How many packets wait, and how many may.
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.waiting.len(), self.waiting_max)
    }

    /// When there is something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Handled { .. } => Some(Instant::ZERO),
            Phase::Relayed { .. } if !self.waiting.is_empty() => Some(Instant::ZERO),
            Phase::None | Phase::Gathered { .. } | Phase::Waiting { .. } | Phase::Relayed { .. } => {
                self.until()
            }
        }
    }

    /// When the present phase ends by itself.
    fn until(&self) -> Option<Instant> {
        match self.phase {
            Phase::None | Phase::Handled { .. } => None,
            Phase::Gathered { until } | Phase::Waiting { until } | Phase::Relayed { until, .. } => {
                Some(until)
            }
        }
    }

    /// Whether some of what came before is still to be handled.
    pub(super) fn are_handled(&self) -> bool {
        matches!(self.phase, Phase::Handled { .. })
    }
}

impl<B: Buffer> Worker<B> {
    /// From now on packets that would begin a flow wait for the successor.
    pub(super) fn gather_stragglers(&mut self, now: Instant) {
        // Otherwise what came before is handled first.
        if self.forwards && self.stragglers.phase == Phase::None {
            self.stragglers.phase = Phase::Gathered { until: now + STRAGGLERS_GATHERED_MAX };
        }
    }

    /// From now on packets of services wait for the successor.
    pub(super) fn hold_stragglers(&mut self, now: Instant) {
        if self.forwards || self.stragglers.are_handled() {
            self.forwards = false;
            self.stragglers.phase = Phase::Waiting { until: now + STRAGGLERS_WAIT_MAX };
        }
    }

    /// Whether no flow is to begin: all that flows went through is being flushed to a successor.
    pub(super) fn begins_none(&self) -> bool {
        self.quiesce.is_some() && !self.stragglers.are_handled()
    }

    /// A packet that would begin a flow, while none is to begin. Such packets take half of the room, whoever sends them: the
    /// other half is for those of flows.
    #[cold]
    pub(super) fn gather_straggler(&mut self, now: Instant, packet: B) {
        self.expire_stragglers(now);
        let room = self.stragglers.waiting_max / 2;
        match self.stragglers.phase {
            Phase::Gathered { .. } if self.is_virtual(&packet) && self.stragglers.waiting.len() < room => {
                self.keep_straggler(packet);
            }
            Phase::None
            | Phase::Gathered { .. }
            | Phase::Waiting { .. }
            | Phase::Relayed { .. }
            | Phase::Handled { .. } => self.counters.bump(Counter::DropQuiescing),
        }
    }

    /// A packet of a service, while this worker forwards none.
    #[cold]
    pub(super) fn take_straggler<I: Io<Buf = B> + Tell>(&mut self, now: Instant, packet: B, io: &mut I) {
        self.expire_stragglers(now);
        let is_virtual = self.is_virtual(&packet);
        match &mut self.stragglers.phase {
            Phase::None | Phase::Gathered { .. } => self.counters.bump(Counter::DropStandby),
            Phase::Handled { came } => {
                *came += 1;
                self.keep_straggler(packet);
            }
            Phase::Waiting { .. } | Phase::Relayed { .. } if !is_virtual => {
                self.counters.bump(Counter::DropStandby);
            }
            // Behind those that wait still.
            Phase::Relayed { links, .. } if self.stragglers.waiting.is_empty() => {
                let links = *links;
                self.relay_straggler(packet, &links, io);
            }
            Phase::Waiting { .. } | Phase::Relayed { .. } => self.keep_straggler(packet),
        }
    }

    /// Whether it came to a virtual link address: what came to a port's own was relayed once.
    fn is_virtual(&self, packet: &B) -> bool {
        packet.head().starts_with(&self.virtual_v4) || packet.head().starts_with(&self.virtual_v6)
    }

    fn keep_straggler(&mut self, packet: B) {
        if self.stragglers.waiting.len() >= self.stragglers.waiting_max {
            return self.counters.bump(Counter::DropStragglersFull);
        }
        self.counters.bump(Counter::StragglersHeld);
        self.stragglers.waiting.push_back((packet, self.origin));
    }

    fn relay_straggler<I: Io<Buf = B> + Tell>(&mut self, mut packet: B, links: &PortLinks, io: &mut I) {
        let port = packet.rx().port;
        let at = usize::from(port.0);
        let (Some(Some(to)), Some(from)) = (links.get(at), self.link_addresses.get(at)) else {
            return self.counters.bump(Counter::DropStandby);
        };
        let head = packet.head_mut();
        head[..6].copy_from_slice(&to.0);
        head[6..12].copy_from_slice(from);
        self.counters.bump(Counter::StragglersRelayed);
        io.send(port, packet, TxClass::Own);
    }

    /// The successor serves: it gets what waits, and what still comes.
    pub(super) fn relay_stragglers(&mut self, now: Instant, links: PortLinks) {
        if self.role == Role::Standby {
            self.expire_stragglers(now);
            self.stragglers.phase = Phase::Relayed { until: now + STRAGGLERS_RELAYED_FOR, links };
        }
    }

    /// Once a turn: relays or handles what waits, no more of it at a time than a port's queue takes, and drops what waited
    /// for too long.
    pub(super) fn poll_stragglers<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        self.expire_stragglers(now);
        match self.stragglers.phase {
            Phase::None | Phase::Gathered { .. } | Phase::Waiting { .. } => {}
            Phase::Relayed { links, .. } => {
                for _ in 0..STRAGGLERS_PER_TURN {
                    let Some((packet, _)) = self.stragglers.waiting.pop_front() else { break };
                    self.relay_straggler(packet, &links, io);
                }
            }
            // So much more than comes that it ends, whatever comes.
            Phase::Handled { came } => self.handle_stragglers(now, came + STRAGGLERS_PER_TURN, io),
        }
    }

    /// The handover was called off.
    fn handle_stragglers<I: Io<Buf = B> + Tell>(&mut self, now: Instant, count: usize, io: &mut I) {
        let origin = self.origin;
        self.forwards = true;
        for _ in 0..count {
            let Some((packet, origin)) = self.stragglers.waiting.pop_front() else { break };
            self.origin = origin;
            self.handle_packet(now, packet, io);
        }
        self.origin = origin;
        if !self.stragglers.waiting.is_empty() {
            self.forwards = false;
            self.stragglers.phase = Phase::Handled { came: 0 };
            return;
        }
        self.stragglers.phase = Phase::None;
        if self.quiesce.is_some() {
            self.gather_stragglers(now);
        }
    }

    /// This worker is active; it was in that role before.
    pub(super) fn call_off_stragglers(&mut self, was: Role) {
        self.forwards = true;
        match was {
            Role::Standby => self.drop_stragglers(Counter::DropStragglersTimeout),
            Role::Active if self.stragglers.waiting.is_empty() => self.stragglers.phase = Phase::None,
            Role::Active => {
                self.forwards = false;
                self.stragglers.phase = Phase::Handled { came: 0 };
            }
        }
    }

    /// This worker becomes a standby. In a planned handover all wait, even if not all was flushed in time.
    pub(super) fn stop_stragglers(&mut self, now: Instant) {
        if self.quiesce.is_some() {
            self.hold_stragglers(now);
        }
        match self.stragglers.phase {
            Phase::None | Phase::Waiting { .. } | Phase::Relayed { .. } => {}
            Phase::Gathered { .. } | Phase::Handled { .. } => self.drop_stragglers(Counter::DropStandby),
        }
    }

    /// Drops what waited for too long.
    fn expire_stragglers(&mut self, now: Instant) {
        if self.stragglers.until().is_some_and(|until| now >= until) {
            self.drop_stragglers(Counter::DropStragglersTimeout);
        }
    }

    fn drop_stragglers(&mut self, counter: Counter) {
        self.stragglers.phase = Phase::None;
        self.counters.add(counter, self.stragglers.waiting.len() as u64);
        self.stragglers.waiting.clear();
    }
}
