//! Another VRRP router of the group's virtual router, with `failover.vrrp = "yield"` (RFC 9568): while one of a higher
//! priority than every member's advertises, no member leads. The master hears it (`master/foreign.rs`); here it is judged,
//! since members' own advertisements are heard as well, and their priorities are known from their beats.

use super::Failover;
use super::event::{Cause, FailoverEvent};
use super::role::Input;
use crate::base::time::{Duration, Instant};
use crate::config::checked::VrrpUse;

impl Failover {
    /// The highest priority with which the group's virtual router is advertised by others, members included; 0: by nobody.
    pub fn handle_foreign(&mut self, now: Instant, priority: u8) {
        self.heard_until = now;
        self.foreign_priority = priority;
    }

    /// It may not take a term, whatever happens.
    pub(super) fn out_of_service(&self) -> bool {
        self.maintenance.on || self.outranked
    }

    /// Steps down, and up again, as others advertise.
    pub(super) fn give_way(&mut self, now: Instant) {
        if self.config.vrrp == VrrpUse::Output {
            return;
        }
        let members = self.peers.iter().filter_map(|peer| peer.said).map(|said| said.priority);
        let highest = members.fold(self.config.priority, u8::max);
        let outranked = self.foreign_priority > highest;
        if outranked != self.outranked {
            self.outranked = outranked;
            self.beat_due = now;
            if outranked {
                self.event(FailoverEvent::Outranked { priority: self.foreign_priority });
            } else {
                // Nobody led, and the members hear it at almost one time: all wait as after a pause, the best one least.
                self.listening_since = now;
                self.leader.handed_over = false;
                self.event(FailoverEvent::OutrankedNoMore);
            }
        }
        if self.outranked {
            self.apply(now, Input::Outranked, Cause::Vacant);
        }
    }

    /// Who has just been started has not heard yet what others advertise: RFC 9568 section 6.4.1, the first wait of a
    /// backup.
    pub(super) fn vrrp_waits_until(&self) -> Instant {
        match self.config.vrrp {
            VrrpUse::Output => Instant::ZERO,
            VrrpUse::Yield => {
                self.started_at + down_interval(self.config.vrrp_interval, self.config.priority)
            }
        }
    }
}

/// For how long a router of this priority waits for one that advertises at this interval (RFC 9568 section 6.1,
/// Active_Down_Interval).
pub fn down_interval(interval: Duration, priority: u8) -> Duration {
    interval * 3 + skew_time(interval, priority)
}

/// How long it waits after that one resigned: the lower its priority, the longer (section 6.1, Skew_Time).
pub fn skew_time(interval: Duration, priority: u8) -> Duration {
    interval * (256 - u64::from(priority)) / 256
}
