//! VRRP version 3 (RFC 9568) as output: the active advertises its addresses, so that other routers and tools on the link
//! see who leads. It decides nothing here (DESIGN "Failover"), unless `failover.vrrp` is "yield" (`foreign.rs`): a member hears it and
//! stays what it is, and whoever else
//! advertises the group's virtual router while this appliance is active is a rival, which is an alarm.
//!
//! Advertisements leave under the lease, from the virtual MAC. Only the last one, which says that this appliance leads no
//! more, comes after the lease: so it leaves from the port's own MAC, and no bridge learns the virtual one from it.

use core::net::IpAddr;
use std::collections::VecDeque;

use crate::base::counters::Counter;
use crate::base::ids::PortId;
use crate::base::io::TxClass;
use crate::base::time::{Duration, Instant};
use crate::config::checked::{Checked, VrrpChecksum, VrrpUse};
use crate::failover::FailoverEvent;
use crate::master::addresses::{Addresses, Holder, is_link_local};
use crate::master::foreign::Foreign;
use crate::master::frames::{self, Link};
use crate::wire::ethernet::{Frame, MacAddress};
use crate::wire::parse::{Network, Parsed};
use crate::wire::vrrp::{self, Ipv4Checksum, Repr};
use crate::wire::{Malformed, ipv4, ipv6};

/// A frame may be under way when the role changes, and a role may end unnoticed for a moment. So nobody is a rival for
/// so long after this appliance began to serve, nor unless it still serves so long after it heard the other one.
pub(super) const JUDGED_AFTER: Duration = Duration::from_millis(100);
/// Between two answers to advertisements of others, for each port and family.
const ANSWER_INTERVAL: Duration = Duration::from_millis(100);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this frame.
    Send {
        /// The port.
        port: PortId,
        /// The frame.
        frame: Vec<u8>,
        /// In whose name.
        class: TxClass,
    },
    /// Count so many advertisements.
    Count {
        /// As what.
        counter: Counter,
        /// How many.
        packets: u64,
    },
    /// Someone else leads the group's virtual router: say so, and announce the addresses again.
    Rival(Rival),
    /// With `vrrp = "yield"`: the highest priority above the own one with which others advertise the virtual router, members
    /// included; 0: none does any more.
    Foreign(u8),
}

/// Who else advertises the group's virtual router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    /// Heard at this port.
    pub port: PortId,
    /// Its address.
    pub source: IpAddr,
    /// Its link address, or the virtual one.
    pub link: [u8; 6],
    /// Its priority.
    pub priority: u8,
}

/// What is sent by one port in one family.
struct Voice {
    port: PortId,
    source: IpAddr,
    advertisement: Vec<u8>,
    /// The same with priority 0.
    resignation: Vec<u8>,
    answered_at: Option<Instant>,
}

/// A rival, if this appliance still serves when it is judged.
struct Suspect {
    rival: Rival,
    heard: u64,
    judged_at: Instant,
}

/// Advertises and listens for one appliance. [`Advertiser::poll_output`] until `None` after every call.
pub struct Advertiser {
    virtual_router_id: u8,
    interval: Duration,
    voices: Vec<Voice>,
    addresses_unnamed: usize,
    /// Since when this appliance may send in the service's name, while it may.
    serving_since: Option<Instant>,
    due_at: Instant,
    suspect: Option<Suspect>,
    /// With `vrrp = "yield"`.
    foreign: Option<Foreign>,
    outputs: VecDeque<Output>,
}

impl Advertiser {
    /// That of a standby; `macs` are the ports' own, by [`PortId`].
    pub fn new(checked: &Checked, macs: &[MacAddress]) -> Advertiser {
        let mut advertiser = Advertiser {
            virtual_router_id: checked.failover.virtual_router_id,
            interval: checked.failover.vrrp_interval,
            voices: Vec::new(),
            addresses_unnamed: 0,
            serving_since: None,
            due_at: Instant::FAR_FUTURE,
            suspect: None,
            foreign: (checked.failover.vrrp == VrrpUse::Yield)
                .then(|| Foreign::new(checked.failover.priority)),
            outputs: VecDeque::new(),
        };
        advertiser.configure(checked, macs);
        advertiser
    }

    /// Names these addresses from now on.
    pub fn configure(&mut self, checked: &Checked, macs: &[MacAddress]) {
        let addresses = Addresses::new(checked, macs);
        self.voices.clear();
        self.addresses_unnamed = 0;
        for (port, number) in checked.ports.iter().zip(0..) {
            for ipv6 in [false, true] {
                self.add_voice(checked, &addresses, PortId(number), port.mtu, ipv6);
            }
        }
    }

    fn add_voice(&mut self, checked: &Checked, addresses: &Addresses, port: PortId, mtu: u16, ipv6: bool) {
        let mut named: Vec<IpAddr> = addresses.of(port, Holder::Service, ipv6).collect();
        let Some(source) = source(addresses, port, ipv6) else { return };
        if named.is_empty() {
            return;
        }
        // RFC 9568 section 5.2.9: the link-local address of the virtual router comes first.
        named.sort_by_key(|address| !is_link_local(*address));
        let header_len = if ipv6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
        let fit = vrrp::addresses_max(mtu, header_len, ipv6);
        self.addresses_unnamed += named.len().saturating_sub(fit);
        named.truncate(fit);
        let group = if ipv6 {
            MacAddress::multicast_v6(vrrp::GROUP_V6)
        } else {
            MacAddress::multicast_v4(vrrp::GROUP_V4)
        };
        let covers = match checked.failover.vrrp_checksum {
            VrrpChecksum::PseudoHeader => Ipv4Checksum::PseudoHeader,
            VrrpChecksum::Message => Ipv4Checksum::Message,
        };
        let frame = |from: MacAddress, priority: u8| {
            let repr = Repr {
                virtual_router_id: checked.failover.virtual_router_id,
                priority,
                interval_cs: (checked.failover.vrrp_interval.millis() / 10) as u16,
            };
            frames::vrrp(&Link::new(from, group), source, &repr, &named, covers)
        };
        self.voices.push(Voice {
            port,
            source,
            advertisement: frame(addresses.virtual_mac(ipv6), checked.failover.priority),
            resignation: frame(addresses.port_mac(port), vrrp::PRIORITY_RESIGNS),
            answered_at: None,
        });
    }

    /// How many addresses no advertisement names, for want of room.
    pub const fn addresses_unnamed(&self) -> usize {
        self.addresses_unnamed
    }

    /// Since when this appliance may send in the service's name, while it may.
    pub const fn serving_since(&self) -> Option<Instant> {
        self.serving_since
    }

    /// Something happened to this appliance's role.
    pub fn handle_event(&mut self, now: Instant, event: &FailoverEvent) {
        use FailoverEvent as E;
        match event {
            // RFC 9568 section 6.4.1: an advertisement at once.
            E::Serving { .. } => {
                self.serving_since = Some(now);
                self.due_at = now;
            }
            E::Silenced { .. } | E::Following { .. } => self.fall_silent(),
            // Section 6.4.3, the event of a shutdown.
            E::Resigned { .. } => self.resign(),
            // Without a word of resignation: there was nobody to resign for.
            E::Left if self.serving_since.is_some() => self.resign(),
            E::Left
            | E::Promoted { .. }
            | E::Resumed { .. }
            | E::LessHealthy { .. }
            | E::HandingOver { .. }
            | E::RivalSeen { .. }
            | E::PeerHeard { .. }
            | E::PeerSilent { .. }
            | E::PeerRestarted { .. }
            | E::PeerLeft { .. }
            | E::PeerRefused { .. }
            | E::PeerUnproven { .. }
            | E::Disbelieved { .. }
            | E::DuplicateNode { .. }
            | E::InSync { .. }
            | E::OutOfSync { .. }
            | E::WorkerStuck { .. }
            | E::WaitsForOperator
            | E::Fencing { .. }
            | E::Fenced { .. }
            | E::FenceFailed { .. }
            | E::FencedIsHeard { .. }
            | E::WitnessHeard { .. }
            | E::WitnessSilent
            | E::WitnessRefuses { .. }
            | E::WitnessTooShort { .. }
            | E::CannotLead
            | E::CanLead
            | E::CheckpointsDiffer(_)
            | E::Outranked { .. }
            | E::OutrankedNoMore
            | E::StateChanged { .. }
            | E::MaintenanceOn
            | E::MaintenanceOff
            | E::MaintenanceCalledOff
            | E::PeerMaintenance { .. } => {}
        }
    }

    /// This appliance is no more active.
    pub fn fall_silent(&mut self) {
        self.serving_since = None;
        self.due_at = Instant::FAR_FUTURE;
        if let Some(suspect) = self.suspect.take() {
            // It led, and this appliance did not.
            self.count(Counter::VrrpHeard, suspect.heard);
        }
    }

    fn resign(&mut self) {
        self.fall_silent();
        for voice in &self.voices {
            let (port, frame) = (voice.port, voice.resignation.clone());
            self.outputs.push_back(Output::Send { port, frame, class: TxClass::Own });
        }
        self.count(Counter::VrrpAdvertised, self.voices.len() as u64);
    }

    /// A VRRP message that came in by `port`.
    pub fn handle_packet(&mut self, now: Instant, port: PortId, frame: &[u8], parsed: &Parsed) {
        match read(frame, parsed) {
            Err(malformed) => self.count(malformed.counter(), 1),
            Ok((_, repr)) if repr.virtual_router_id != self.virtual_router_id => {
                self.count(Counter::VrrpOtherRouters, 1);
            }
            Ok((source, _)) if self.voices.iter().any(|voice| voice.source == source) => {
                self.count(Counter::VrrpOwn, 1);
            }
            Ok((source, repr)) => {
                if let Some(foreign) = &mut self.foreign {
                    foreign.hear(now, port, source, &repr);
                    self.outputs.extend(foreign.poll(now).map(Output::Foreign));
                }
                let link = Frame::new_unchecked(frame).source().0;
                self.hear(now, Rival { port, source, link, priority: repr.priority });
            }
        }
    }

    fn hear(&mut self, now: Instant, rival: Rival) {
        let Some(since) = self.serving_since else { return self.count(Counter::VrrpHeard, 1) };
        self.answer(now, rival.port, rival.source.is_ipv6());
        if rival.priority == vrrp::PRIORITY_RESIGNS || now < since + JUDGED_AFTER {
            return self.count(Counter::VrrpHeard, 1);
        }
        let judged_at = now + JUDGED_AFTER;
        self.suspect.get_or_insert(Suspect { rival, heard: 0, judged_at }).heard += 1;
    }

    /// RFC 9568 section 6.4.3: who resigns, or has less priority, hears at once that another leads. So does here one of
    /// more priority.
    fn answer(&mut self, now: Instant, port: PortId, ipv6: bool) {
        let mut voices = self.voices.iter_mut();
        let Some(voice) = voices.find(|voice| voice.port == port && voice.source.is_ipv6() == ipv6) else {
            return;
        };
        if voice.answered_at.is_none_or(|at| now >= at + ANSWER_INTERVAL) {
            voice.answered_at = Some(now);
            let frame = voice.advertisement.clone();
            self.outputs.push_back(Output::Send { port, frame, class: TxClass::Service });
            self.count(Counter::VrrpAdvertised, 1);
        }
    }

    /// Time passed.
    pub fn poll(&mut self, now: Instant) {
        if let Some(suspect) = self.suspect.take_if(|suspect| now >= suspect.judged_at) {
            self.count(Counter::VrrpRivals, suspect.heard);
            self.outputs.push_back(Output::Rival(suspect.rival));
        }
        let strongest = self.foreign.as_mut().and_then(|foreign| foreign.poll(now));
        self.outputs.extend(strongest.map(Output::Foreign));
        if now >= self.due_at {
            self.due_at = now + self.interval;
            for voice in &self.voices {
                let (port, frame) = (voice.port, voice.advertisement.clone());
                self.outputs.push_back(Output::Send { port, frame, class: TxClass::Service });
            }
            self.count(Counter::VrrpAdvertised, self.voices.len() as u64);
        }
    }

    /// When to call [`Advertiser::poll`] next.
    pub fn next_deadline(&self) -> Instant {
        let foreign = self.foreign.as_ref().map_or(Instant::FAR_FUTURE, Foreign::next_deadline);
        let judged_at = self.suspect.as_ref().map_or(Instant::FAR_FUTURE, |suspect| suspect.judged_at);
        self.due_at.min(judged_at).min(foreign)
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn count(&mut self, counter: Counter, packets: u64) {
        if packets > 0 {
            self.outputs.push_back(Output::Count { counter, packets });
        }
    }
}

/// From which address of its own a port advertises: over IPv4 its first one (RFC 9568 section 5.1.1.1), over IPv6 a
/// link-local one (section 5.1.2.1).
fn source(addresses: &Addresses, port: PortId, ipv6: bool) -> Option<IpAddr> {
    match ipv6 {
        false => addresses.first_own_v4(port),
        true => addresses.of(port, Holder::Own, true).find(|address| is_link_local(*address)),
    }
}

/// Who sent a message, and the message, checked.
fn read(frame: &[u8], parsed: &Parsed) -> Result<(IpAddr, Repr), Malformed> {
    let message = frame.get(usize::from(parsed.l4_offset)..parsed.end()).ok_or(Malformed::VrrpTruncated)?;
    let (source, destination) = parsed.addresses(frame).ok_or(Malformed::VrrpTruncated)?;
    let l3 = &frame[parsed.l3_offset()..];
    let hop_limit = match parsed.network {
        Network::Ipv4 => {
            let packet = ipv4::Packet::new_unchecked(l3);
            if !packet.checksum_is_valid() {
                return Err(Malformed::Checksum);
            }
            packet.ttl()
        }
        Network::Ipv6 => ipv6::Packet::new_unchecked(l3).hop_limit(),
        Network::Arp | Network::Liveness | Network::Other => return Err(Malformed::VrrpTruncated),
    };
    Ok((source, Repr::parse(message, source, destination, hop_limit)?))
}

#[cfg(test)]
#[path = "vrrp_tests.rs"]
mod tests;
