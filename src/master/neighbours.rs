//! The link addresses of neighbours: ARP (RFC 826, RFC 1122 section 2.3.2) and IPv6
//! neighbour discovery (RFC 4861 sections 7.2 and 7.3), on every port.
//!
//! Call order: `new`; then `resolve`, `handle_packet` and `poll` (when
//! `next_deadline` is reached), each followed by `poll_output` until it gives `None`.
//!
//! Who sends are this appliance's own addresses, so a standby resolves as well as the
//! active does. Gateways, real servers and peers of the configuration are permanent:
//! resolved from the start, probed before their entry expires, and still used while a
//! probe is unanswered, so that traffic never waits. Others (clients on the link)
//! are treated the same as long as they answer, since workers do not say whom they
//! send to; silent ones are forgotten unless somebody asks for them again.
//!
//! Two departures from RFC 4861, for the same reason: an expired entry is probed at
//! once, without waiting for traffic; and unicast probes that fail are followed by
//! multicast ones before the address is given up.

use core::net::IpAddr;
use std::collections::{BTreeMap, VecDeque};

use crate::base::ids::PortId;
use crate::base::io::TxClass;
use crate::base::limits::NEIGHBOURS_MAX;
use crate::base::rng::Rng;
use crate::base::time::{Duration, Instant};
use crate::config::checked::Checked;
use crate::master::addresses::Addresses;
use crate::master::frames::{self, Link};
use crate::wire::{MacAddress, arp, ipv6, ndp};

mod heard;
mod state;

pub use heard::Heard;
use state::{Event, State};

/// RFC 4861 section 10, RETRANS_TIMER; RFC 1122 section 2.3.2.1: at most one request a second.
pub const RETRANSMIT_INTERVAL: Duration = Duration::from_secs(1);
/// RFC 4861 section 10, REACHABLE_TIME; taken at random between half and one and a half of it.
pub const REACHABLE_TIME: Duration = Duration::from_secs(30);
/// RFC 4861 section 10, DELAY_FIRST_PROBE_TIME: an address heard by the way is used so long unproven.
pub const STALE_TIME: Duration = Duration::from_secs(5);
/// The same of one that is watched, since this appliance's health depends on it.
const WATCHED_TIME: Duration = Duration::from_secs(1);
/// Rest after a resolution that failed: doubled at each failure, up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest rest.
pub const BACKOFF_MAX: Duration = Duration::from_secs(32);

/// Frames that wait to be taken by `poll_output`. Beyond, solicitations are not made:
/// their retransmission is.
const SENDS_MAX: usize = 2 * NEIGHBOURS_MAX;
/// Entries compared when a full table has to lose one.
const EVICTION_SAMPLE: usize = 16;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a frame.
    Send {
        /// By this port.
        port: PortId,
        /// The frame.
        frame: Vec<u8>,
        /// In whose name: always its own.
        class: TxClass,
    },
    /// A neighbour's address: tell the workers.
    Update {
        /// On this port.
        port: PortId,
        /// The neighbour.
        ip: IpAddr,
        /// Its link address; `None`: it has none that works.
        mac: Option<MacAddress>,
    },
}

/// What a call of [`Neighbours::resolve`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It is known, and an update says it again.
    Known(MacAddress),
    /// It is being asked for; an update will come if it answers.
    Pending,
    /// It did not answer; it is asked again after a rest.
    Resting,
    /// The address is on no network of that port, or is our own, or a group's.
    NotNeighbour,
    /// This appliance has no own address of that family on that port to ask from.
    NoAddress,
    /// There are [`NEIGHBOURS_MAX`] entries, and none of those looked at may be given up.
    Full,
}

/// Whether a neighbour answers, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answering {
    /// It does.
    Yes,
    /// It did, and has not answered its newest question; or it is being asked for the first time.
    Doubtful,
    /// It does not.
    No,
}

#[derive(Clone, Debug)]
struct Entry {
    port: PortId,
    ip: IpAddr,
    mac: Option<MacAddress>,
    state: State,
    /// When its state changes by itself.
    due: Instant,
    /// When it was last asked for.
    used: Instant,
    /// Resolutions in a row that failed.
    failures: u32,
    permanent: bool,
    /// It is asked often.
    watched: bool,
    /// It waits in `changed`.
    told: bool,
    /// Forgotten: its place is free when the update was taken.
    gone: bool,
}

/// The neighbours of all ports.
#[derive(Clone, Debug)]
pub struct Neighbours {
    addresses: Addresses,
    entries: Vec<Entry>,
    by_address: BTreeMap<(PortId, IpAddr), usize>,
    free: Vec<usize>,
    changed: VecDeque<usize>,
    sends: VecDeque<Output>,
    /// Nothing is due before.
    deadline: Instant,
    rng: Rng,
}

impl Neighbours {
    /// The neighbours of `checked`; `macs` are the ports' own, by [`PortId`]. Those that the
    /// configuration names are asked for at once.
    pub fn new(now: Instant, checked: &Checked, macs: &[MacAddress], seed: u64) -> Neighbours {
        let mut all = Neighbours {
            addresses: Addresses::new(checked, macs),
            entries: Vec::new(),
            by_address: BTreeMap::new(),
            free: Vec::new(),
            changed: VecDeque::new(),
            sends: VecDeque::new(),
            deadline: Instant::FAR_FUTURE,
            rng: Rng::with_seed(seed),
        };
        for (port, ip) in permanent(checked, &all.addresses) {
            if let Place::At(at) = all.place(now, port, ip, true) {
                all.entries[at].permanent = true;
                all.solicit(at);
            }
        }
        all
    }

    /// Another generation of the configuration. Those that it newly names are asked for at once; those that it no longer names
    /// stay as long as they answer, as any neighbour does.
    pub fn configure(&mut self, now: Instant, checked: &Checked, macs: &[MacAddress]) {
        self.addresses = Addresses::new(checked, macs);
        let named = permanent(checked, &self.addresses);
        for at in 0..self.entries.len() {
            let Entry { port, ip, gone, .. } = self.entries[at];
            if gone {
                continue;
            }
            if self.addresses.on_link(port, ip).is_some() {
                self.forget(at); // It is our own now.
                continue;
            }
            let entry = &mut self.entries[at];
            entry.permanent = named.binary_search(&(port, ip)).is_ok();
            entry.watched = false;
            entry.used = now;
        }
        for (port, ip) in named {
            if self.by_address.contains_key(&(port, ip)) {
                continue;
            }
            if let Place::At(at) = self.place(now, port, ip, true) {
                self.entries[at].permanent = true;
                self.solicit(at);
            }
        }
    }

    /// Asks for a neighbour's link address.
    pub fn resolve(&mut self, now: Instant, port: PortId, ip: IpAddr) -> Resolution {
        let at = match self.by_address.get(&(port, ip)) {
            Some(at) => *at,
            None => match self.place(now, port, ip, true) {
                Place::At(at) => {
                    self.solicit(at);
                    at
                }
                Place::NotNeighbour => return Resolution::NotNeighbour,
                Place::NoAddress => return Resolution::NoAddress,
                Place::Full => return Resolution::Full,
            },
        };
        self.entries[at].used = now;
        self.step(now, at, Event::Needed);
        match (self.entries[at].mac, self.entries[at].state) {
            (Some(mac), _) => {
                self.tell(at);
                Resolution::Known(mac)
            }
            (None, State::Failed) => Resolution::Resting,
            (None, State::Incomplete { .. } | State::Reachable | State::Stale | State::Probe { .. }) => {
                Resolution::Pending
            }
        }
    }

    /// The link address as it is known, without asking.
    pub fn known(&self, port: PortId, ip: IpAddr) -> Option<MacAddress> {
        self.by_address.get(&(port, ip)).and_then(|at| self.entries[*at].mac)
    }

    /// From now on asks this neighbour often, if the configuration names it.
    pub fn watch(&mut self, port: PortId, ip: IpAddr) {
        if let Some(at) = self.by_address.get(&(port, ip)) {
            self.entries[*at].watched = self.entries[*at].permanent;
        }
    }

    /// Whether it answers.
    pub fn answering(&self, port: PortId, ip: IpAddr) -> Answering {
        let Some(at) = self.by_address.get(&(port, ip)) else { return Answering::No };
        let entry = &self.entries[*at];
        match entry.state {
            State::Reachable | State::Stale | State::Probe { tries: 0 | 1 } => Answering::Yes,
            State::Probe { .. } => Answering::Doubtful,
            // It has not had its time yet.
            State::Incomplete { .. } if entry.failures == 0 => Answering::Doubtful,
            State::Incomplete { .. } | State::Failed => Answering::No,
        }
    }

    /// How many neighbours there are.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Instant) {
        if now < self.deadline {
            return;
        }
        self.deadline = Instant::FAR_FUTURE;
        for at in 0..self.entries.len() {
            let entry = &self.entries[at];
            if entry.gone {
                continue;
            }
            if entry.due > now {
                self.deadline = self.deadline.min(entry.due);
                continue;
            }
            // One that did not answer is asked again only if somebody asked for it since.
            let wanted = entry.permanent || entry.state != State::Failed || now - entry.used < self.rest(at);
            self.step(now, at, if wanted { Event::Due } else { Event::DueUnwanted });
        }
    }

    /// When `poll` has to be called next.
    pub fn next_deadline(&self) -> Instant {
        self.deadline
    }

    /// The next thing to do; frames before updates.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(send) = self.sends.pop_front() {
            return Some(send);
        }
        let at = self.changed.pop_front()?;
        let entry = &mut self.entries[at];
        entry.told = false;
        let mac = if entry.gone { None } else { entry.mac };
        let update = Output::Update { port: entry.port, ip: entry.ip, mac };
        if entry.gone {
            self.free.push(at);
        }
        Some(update)
    }

    /// One event at one entry: its state's change, and what follows from it.
    fn step(&mut self, now: Instant, at: usize, event: Event) {
        let before = self.entries[at].state;
        let Some(after) = before.after(event) else { return self.forget(at) };
        if before == after && !event.restarts() {
            return;
        }
        let permanent = self.entries[at].permanent;
        self.entries[at].state = after;
        let wait = match after {
            State::Incomplete { .. } | State::Probe { .. } => RETRANSMIT_INTERVAL,
            // RFC 4861 section 6.3.2: between half and one and a half.
            State::Reachable => {
                let mean = if self.entries[at].watched { WATCHED_TIME } else { REACHABLE_TIME };
                mean / 2 + mean * self.rng.u64(0..1024) / 1024
            }
            State::Stale if permanent => Duration::ZERO,
            State::Stale => STALE_TIME,
            State::Failed => {
                self.entries[at].failures = self.entries[at].failures.saturating_add(1);
                if self.entries[at].mac.take().is_some() {
                    self.tell(at);
                }
                self.rest(at)
            }
        };
        if after == State::Reachable {
            self.entries[at].failures = 0;
        }
        self.wait(at, now + wait);
        if after.asks() {
            self.solicit(at);
        }
    }

    /// An address was heard for an entry.
    fn learn(&mut self, now: Instant, at: usize, mac: MacAddress, event: Event) {
        if self.entries[at].mac != Some(mac) {
            self.entries[at].mac = Some(mac);
            self.tell(at);
        }
        self.step(now, at, event);
    }

    fn rest(&self, at: usize) -> Duration {
        if self.entries[at].watched {
            return BACKOFF_MIN;
        }
        let doublings = self.entries[at].failures.saturating_sub(1).min(16);
        (BACKOFF_MIN * (1 << doublings)).min(BACKOFF_MAX)
    }

    fn wait(&mut self, at: usize, due: Instant) {
        self.entries[at].due = due;
        self.deadline = self.deadline.min(due);
    }

    fn tell(&mut self, at: usize) {
        if !core::mem::replace(&mut self.entries[at].told, true) {
            self.changed.push_back(at);
        }
    }

    fn forget(&mut self, at: usize) {
        let entry = &mut self.entries[at];
        entry.gone = true;
        self.by_address.remove(&(entry.port, entry.ip));
        self.tell(at);
    }

    /// A place for a new entry, being asked for; the caller solicits. `evict`: at the
    /// expense of another if there is no free one.
    fn place(&mut self, now: Instant, port: PortId, ip: IpAddr, evict: bool) -> Place {
        let ours = self.addresses.on_link(port, ip).is_some();
        let group =
            ip.is_multicast() || ip.is_unspecified() || ip == IpAddr::V4(core::net::Ipv4Addr::BROADCAST);
        if ours || group || !self.addresses.is_neighbour(port, ip) {
            return Place::NotNeighbour;
        }
        if self.addresses.own_towards(port, ip).is_none() {
            return Place::NoAddress;
        }
        let entry = Entry {
            port,
            ip,
            mac: None,
            state: State::Incomplete { tries: 1 },
            due: now + RETRANSMIT_INTERVAL,
            used: now,
            failures: 0,
            permanent: false,
            watched: false,
            told: false,
            gone: false,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at] = entry;
                at
            }
            None if self.entries.len() < NEIGHBOURS_MAX => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
            None => {
                let may = evict && self.sends.len() < SENDS_MAX;
                let Some(at) = self.least_used().filter(|_| may) else { return Place::Full };
                let old = &self.entries[at];
                let (old_port, old_ip) = (old.port, old.ip);
                self.by_address.remove(&(old_port, old_ip));
                // It may wait to be told: it waits under its new name, and the old one is told now.
                let told = old.told;
                self.entries[at] = Entry { told, ..entry };
                self.sends.push_back(Output::Update { port: old_port, ip: old_ip, mac: None });
                at
            }
        };
        self.by_address.insert((port, ip), at);
        self.deadline = self.deadline.min(self.entries[at].due);
        Place::At(at)
    }

    /// Of some entries taken at random, the one that was not asked for the longest.
    fn least_used(&mut self) -> Option<usize> {
        let mut found: Option<usize> = None;
        for _ in 0..EVICTION_SAMPLE {
            let at = self.rng.usize(..self.entries.len());
            let entry = &self.entries[at];
            let older = found.is_none_or(|found| entry.used < self.entries[found].used);
            if older && !entry.permanent && !entry.gone {
                found = Some(at);
            }
        }
        found
    }

    /// Asks for an entry: the neighbour itself while its address is believed, else everyone.
    fn solicit(&mut self, at: usize) {
        let entry = &self.entries[at];
        let Some(own) = self.addresses.own_towards(entry.port, entry.ip) else { return };
        if self.sends.len() >= SENDS_MAX {
            return;
        }
        let source = self.addresses.port_mac(entry.port);
        let believed = entry.mac.filter(|_| entry.state.asks_the_neighbour_itself());
        let frame = match (own, entry.ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let repr = arp::Repr {
                    operation: arp::Operation::Request,
                    sender_mac: source,
                    sender_ip: own,
                    target_mac: believed.unwrap_or(MacAddress::ZERO),
                    target_ip: ip,
                };
                frames::arp(&Link::new(source, believed.unwrap_or(MacAddress::BROADCAST)), &repr)
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let repr = ndp::Repr::Solicitation { target: ip, source_mac: Some(source) };
                let (to, to_mac) = match believed {
                    Some(mac) => (ip, mac),
                    None => (ipv6::solicited_node(ip), MacAddress::multicast_v6(ipv6::solicited_node(ip))),
                };
                frames::ndp(&Link::new(source, to_mac), own, to, &repr)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return,
        };
        self.sends.push_back(Output::Send { port: entry.port, frame, class: TxClass::Own });
    }
}

/// Where a new entry is.
enum Place {
    At(usize),
    NotNeighbour,
    NoAddress,
    Full,
}

/// The neighbours that a configuration names: gateways, real servers on a port's network, peers.
fn permanent(checked: &Checked, addresses: &Addresses) -> Vec<(PortId, IpAddr)> {
    let gateways = checked.routes.iter().map(|route| (route.port, route.gateway));
    let servers = checked.pools.iter().flat_map(|pool| &pool.servers);
    let servers =
        servers.flat_map(|server| addresses.ports_holding(server.address).map(|port| (port, server.address)));
    let peers =
        checked.mirror.iter().flat_map(|mirror| mirror.peers.iter().map(|peer| (mirror.port, peer.address)));
    let mut all: Vec<_> = gateways.chain(servers).chain(peers).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests;
