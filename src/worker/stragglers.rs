//! Stragglers: packets of services that come to this appliance while it hands over as planned, and shortly after (REQ B2,
//! C8, DESIGN "Failover").
//!
//! From [`Command::Hold`](super::message::Command::Hold) on, while the lease still covers what was sent before, they wait:
//! the worker handles none, so none is lost with the lease, and the last flush has all that the flows went through. When
//! the successor serves they are relayed, in their order, and then whatever still comes for a moment: until switches know
//! where the virtual link addresses are now.
//!
//! A relayed frame is the one that came, by the port that it came by, from the port's own link address to the successor's.
//! It is nothing that this appliance says in the group's name: it is neither answered nor translated, so it needs no
//! lease, and no switch learns a virtual address from it. What came to a port's own link address is never relayed: so no
//! frame goes to and fro. (Nothing seals the address that the successor's heartbeats come from: whoever can forge it can
//! as well pretend to the LAN to have the virtual addresses.) Should the handover be called off, what waits is handled as if it came now.

use std::collections::VecDeque;

use crate::base::buffer::{Buffer, Handed};
use crate::base::counters::Counter;
use crate::base::io::{Io, TxClass};
use crate::base::limits::{
    PORTS_MAX, STRAGGLERS_MAX, STRAGGLERS_PER_TURN, STRAGGLERS_RELAYED_FOR, STRAGGLERS_WAIT_MAX,
};
use crate::base::time::Instant;
use crate::distributor::tell::Tell;
use crate::wire::ethernet::MacAddress;
use crate::worker::message::Role;
use crate::worker::{Origin, Worker};

/// What is done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There are none.
    None,
    /// They wait, at most until then.
    Waiting { until: Instant },
    /// They are relayed until then, to the successor's link address on each port's LAN.
    Relayed { until: Instant, links: [Option<MacAddress>; PORTS_MAX] },
}

/// The stragglers of one worker.
pub(super) struct Stragglers<B> {
    phase: Phase,
    waiting: VecDeque<B>,
    waiting_max: usize,
}

impl<B> Stragglers<B> {
    /// Room for half as many packets as may wait for the mirror.
    pub(super) fn new(hold_packets_max: usize) -> Stragglers<B> {
        let waiting_max = (hold_packets_max / 2).min(STRAGGLERS_MAX);
        Stragglers { phase: Phase::None, waiting: VecDeque::with_capacity(waiting_max), waiting_max }
    }

    /// When there is something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Relayed { .. } if !self.waiting.is_empty() => Some(Instant::ZERO),
            Phase::None | Phase::Waiting { .. } | Phase::Relayed { .. } => self.until(),
        }
    }

    /// When the present phase ends by itself.
    fn until(&self) -> Option<Instant> {
        match self.phase {
            Phase::None => None,
            Phase::Waiting { until } | Phase::Relayed { until, .. } => Some(until),
        }
    }
}

impl<B: Buffer> Worker<B> {
    /// From now on packets of services wait for the successor.
    pub(super) fn hold_stragglers(&mut self, now: Instant) {
        if self.forwards {
            self.forwards = false;
            self.stragglers.phase = Phase::Waiting { until: now + STRAGGLERS_WAIT_MAX };
        }
    }

    /// A packet of a service, while this worker forwards none.
    #[cold]
    pub(super) fn take_straggler<I: Io<Buf = B> + Tell>(&mut self, now: Instant, mut packet: B, io: &mut I) {
        self.expire_stragglers(now);
        let is_virtual =
            packet.head().starts_with(&self.virtual_v4) || packet.head().starts_with(&self.virtual_v6);
        match self.stragglers.phase {
            Phase::None => self.counters.bump(Counter::DropStandby),
            Phase::Waiting { .. } | Phase::Relayed { .. } if !is_virtual => {
                self.counters.bump(Counter::DropStandby);
            }
            // Behind those that wait still.
            Phase::Relayed { links, .. } if self.stragglers.waiting.is_empty() => {
                self.relay_straggler(packet, &links, io);
            }
            Phase::Waiting { .. } | Phase::Relayed { .. } => {
                if self.stragglers.waiting.len() == self.stragglers.waiting_max {
                    return self.counters.bump(Counter::DropStragglersFull);
                }
                if self.origin == Origin::Port {
                    packet.set_handed(Handed::Plain);
                }
                self.counters.bump(Counter::StragglersHeld);
                self.stragglers.waiting.push_back(packet);
            }
        }
    }

    fn relay_straggler<I: Io<Buf = B> + Tell>(
        &mut self,
        mut packet: B,
        links: &[Option<MacAddress>; PORTS_MAX],
        io: &mut I,
    ) {
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
    pub(super) fn relay_stragglers(&mut self, now: Instant, links: [Option<MacAddress>; PORTS_MAX]) {
        if self.role == Role::Standby {
            self.expire_stragglers(now);
            self.stragglers.phase = Phase::Relayed { until: now + STRAGGLERS_RELAYED_FOR, links };
        }
    }

    /// Once a turn: relays what waits, no more of it at a time than a port's queue takes, and drops what waited for too long.
    pub(super) fn poll_stragglers<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        self.expire_stragglers(now);
        if let Phase::Relayed { links, .. } = self.stragglers.phase {
            for _ in 0..STRAGGLERS_PER_TURN {
                let Some(packet) = self.stragglers.waiting.pop_front() else { break };
                self.relay_straggler(packet, &links, io);
            }
        }
    }

    /// This worker forwards again: so it does with what waits.
    pub(super) fn handle_stragglers<I: Io<Buf = B> + Tell>(&mut self, now: Instant, io: &mut I) {
        self.stragglers.phase = Phase::None;
        let origin = core::mem::replace(&mut self.origin, Origin::Worker);
        while let Some(packet) = self.stragglers.waiting.pop_front() {
            self.handle_packet(now, packet, io);
        }
        self.origin = origin;
    }

    /// Drops what waited for too long.
    fn expire_stragglers(&mut self, now: Instant) {
        if self.stragglers.until().is_some_and(|until| now >= until) {
            self.stragglers.phase = Phase::None;
            self.counters.add(Counter::DropStragglersTimeout, self.stragglers.waiting.len() as u64);
            self.stragglers.waiting.clear();
        }
    }
}
