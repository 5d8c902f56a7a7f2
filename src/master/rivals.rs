//! Someone else who uses what is this appliance's while it serves: heard by ARP, by neighbour discovery, or in frames from
//! a virtual MAC. Hosts and bridges may have believed it, so the addresses are announced again; so they are after a rival
//! that VRRP told of (`vrrp.rs`). All of these together are limited, lest two that hear each other storm.

use core::net::IpAddr;

use crate::base::ids::PortId;
use crate::base::time::{Duration, Instant};
use crate::master::vrrp::JUDGED_AFTER;

/// Between two announcements because of rivals, whoever they are and however they were heard.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);

/// What someone else uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Seen on this port.
    pub port: PortId,
    /// The address; `None`: a virtual MAC.
    pub address: Option<IpAddr>,
    /// Who.
    pub link: [u8; 6],
}

/// A rival, if this appliance still serves when it is judged: see [`JUDGED_AFTER`].
#[derive(Debug)]
struct Suspect {
    claim: Claim,
    heard: u64,
    judged_at: Instant,
}

/// The rivals of one appliance.
#[derive(Debug, Default)]
pub struct Rivals {
    suspect: Option<Suspect>,
    /// The addresses are to be announced, as soon as they may be.
    wanted: bool,
    not_before: Instant,
}

impl Rivals {
    /// A claim was heard, by an appliance that has served since `serving_since`.
    pub fn hear(&mut self, now: Instant, claim: Claim, serving_since: Instant) {
        if now < serving_since + JUDGED_AFTER {
            return; // Last words of the one that led before.
        }
        let judged_at = now + JUDGED_AFTER;
        self.suspect.get_or_insert(Suspect { claim, heard: 0, judged_at }).heard += 1;
    }

    /// There is a rival, or an address is new: the addresses are to be announced again.
    pub fn want_announcement(&mut self) {
        self.wanted = true;
    }

    /// The appliance serves no more: it has no rivals.
    pub fn fall_silent(&mut self) {
        self.suspect = None;
        self.wanted = false;
    }

    /// A rival that is one for certain now, and in how many frames such claims were heard.
    pub fn judge(&mut self, now: Instant) -> Option<(Claim, u64)> {
        let Suspect { claim, heard, .. } = self.suspect.take_if(|suspect| now >= suspect.judged_at)?;
        self.wanted = true;
        Some((claim, heard))
    }

    /// Whether the addresses are to be announced now.
    pub fn announces(&mut self, now: Instant) -> bool {
        if !self.wanted || now < self.not_before {
            return false;
        }
        self.wanted = false;
        self.not_before = now + ANNOUNCE_INTERVAL;
        true
    }

    /// When to ask again.
    pub fn next_deadline(&self) -> Instant {
        let judged_at = self.suspect.as_ref().map_or(Instant::FAR_FUTURE, |suspect| suspect.judged_at);
        let announced_at = if self.wanted { self.not_before } else { Instant::FAR_FUTURE };
        judged_at.min(announced_at)
    }
}

#[cfg(test)]
#[path = "rivals_tests.rs"]
mod tests;
