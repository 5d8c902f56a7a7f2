//! Who else advertises the group's virtual router, and until when that counts (RFC 9568 section 6.4.2, as a backup hears
//! it): for `failover.vrrp = "yield"`. Which of them are members is not known here, but in the failover machine.

use core::net::IpAddr;

use crate::base::ids::PortId;
use crate::base::limits::PORTS_MAX;
use crate::base::time::{Duration, Instant};
use crate::failover::foreign::{down_interval, skew_time};
use crate::wire::vrrp::{PRIORITY_RESIGNS, Repr};

/// One for each port and family.
const HEARD_MAX: usize = PORTS_MAX * 2;

/// The strongest router of one link and family.
struct Heard {
    port: PortId,
    source: IpAddr,
    priority: u8,
    interval: Duration,
    until: Instant,
}

/// The routers of more priority than the own one.
pub struct Foreign {
    own_priority: u8,
    heard: Vec<Heard>,
    told: u8,
}

impl Foreign {
    /// None heard yet.
    pub fn new(own_priority: u8) -> Foreign {
        Foreign { own_priority, heard: Vec::with_capacity(HEARD_MAX), told: 0 }
    }

    /// An advertisement of the group's virtual router that is not from this appliance.
    pub fn hear(&mut self, now: Instant, port: PortId, source: IpAddr, repr: &Repr) {
        let interval = Duration::from_millis(u64::from(repr.interval_cs) * 10);
        let own = self.own_priority;
        let there = |heard: &Heard| heard.port == port && heard.source.is_ipv4() == source.is_ipv4();
        let known = self.heard.iter().position(there);
        if repr.priority == PRIORITY_RESIGNS {
            // It goes: whoever is next has the time to say so.
            let known = known.map(|at| &mut self.heard[at]);
            if let Some(heard) = known.filter(|heard| heard.source == source) {
                heard.until = heard.until.min(now + skew_time(heard.interval, own));
            }
            return;
        }
        if repr.priority <= own {
            return;
        }
        let until = now + down_interval(interval, own);
        let newest = Heard { port, source, priority: repr.priority, interval, until };
        match known {
            Some(at) => {
                let heard = &mut self.heard[at];
                if heard.source == source || newest.priority > heard.priority || now >= heard.until {
                    *heard = newest;
                }
            }
            None if self.heard.len() < HEARD_MAX => self.heard.push(newest),
            None => {}
        }
    }

    /// The highest priority that counts now, if it is another than at the last call; 0: none does.
    pub fn poll(&mut self, now: Instant) -> Option<u8> {
        self.heard.retain(|heard| now < heard.until);
        let highest = self.heard.iter().map(|heard| heard.priority).max().unwrap_or(0);
        let changed = core::mem::replace(&mut self.told, highest) != highest;
        changed.then_some(highest)
    }

    /// When to call [`Foreign::poll`] at the latest.
    pub fn next_deadline(&self) -> Instant {
        self.heard.iter().map(|heard| heard.until).min().unwrap_or(Instant::FAR_FUTURE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: PortId = PortId(0);
    const SERVER: PortId = PortId(1);

    /// At which millisecond what is heard by which port, of whom, with which priority (an advertisement each second); and what
    /// counts from then on, if it is another.
    type Line<'a> = (u64, Option<(PortId, &'a str, u8)>, Option<u8>);

    /// Tells one of priority 100.
    fn told(script: &[Line]) {
        let mut foreign = Foreign::new(100);
        for (number, (ms, heard, expected)) in script.iter().enumerate() {
            let now = Instant::from_millis(*ms);
            if let Some((port, source, priority)) = heard {
                let repr = Repr { virtual_router_id: 51, priority: *priority, interval_cs: 100 };
                foreign.hear(now, *port, source.parse().unwrap(), &repr);
            }
            assert_eq!(foreign.poll(now), *expected, "line {number}, at {ms} ms");
        }
    }

    #[test]
    fn one_of_more_priority_counts_until_three_intervals_and_the_skew_have_passed_in_silence() {
        // (256 - 100) / 256 s of skew: 609 ms.
        let their = |priority| Some((CLIENT, "10.1.0.9", priority));
        told(&[
            (1000, their(100), None),
            (1100, their(99), None),
            (2000, their(101), Some(101)),
            (3000, their(101), None),
            (6609, None, None),
            (6610, None, Some(0)),
            (7000, their(255), Some(255)),
            (8000, their(200), Some(200)),
            // Now it is less than the own one: it does not lead, whatever it says.
            (9000, their(50), None),
            (11_609, None, None),
            (11_610, None, Some(0)),
        ]);
    }

    #[test]
    fn one_that_resigns_counts_for_the_skew_and_nobody_else_resigns_for_it() {
        let (one, other) = ("10.1.0.9", "10.1.0.8");
        told(&[
            (1000, Some((CLIENT, one, 200)), Some(200)),
            (1500, Some((CLIENT, other, 0)), None),
            (1600, Some((SERVER, one, 0)), None),
            (2200, None, None),
            (2500, Some((CLIENT, one, 0)), None),
            (3109, None, None),
            (3110, None, Some(0)),
            (3200, Some((CLIENT, one, 0)), None),
        ]);
    }

    #[test]
    fn the_strongest_counts_on_each_link_in_each_family_and_over_all() {
        let (one, other) = ("10.1.0.9", "10.1.0.8");
        told(&[
            (1000, Some((CLIENT, one, 200)), Some(200)),
            (1100, Some((CLIENT, other, 150)), None),
            (1200, Some((SERVER, "10.2.0.9", 220)), Some(220)),
            (1300, Some((CLIENT, "fe80::9", 250)), Some(250)),
            (1400, Some((CLIENT, "fe80::9", 0)), None),
            (2010, None, Some(220)),
            (4610, None, None),
            (4810, None, Some(0)),
            (4900, Some((CLIENT, other, 150)), Some(150)),
        ]);
    }
}
