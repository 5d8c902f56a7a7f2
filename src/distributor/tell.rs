//! What the lcores of an appliance tell each other besides packets: out of band, by a ring from each to each (REQ D3, D9).
//!
//! Whoever tells something does so before the packet that it belongs to is sent or handed over; whoever hears drains its
//! rings after it has taken a burst and before it looks anything up. So what a packet depends on is known where the
//! packet comes.

use crate::base::ids::WorkerId;
use crate::distributor::select::Load;
use crate::distributor::signal::Signal;

/// One thing told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Of a connection key, to every store.
    Signal(Signal),
    /// What a traffic manager says of itself, to those that choose among them.
    Load {
        /// The traffic manager.
        of: WorkerId,
        /// What it says.
        load: Load,
    },
}

/// A world with other lcores in it. The defaults are those of an lcore that is alone.
pub trait Tell {
    /// How many things may be told now so that all others hear them.
    fn room_to_tell(&self) -> usize {
        usize::MAX
    }

    /// Tells all other lcores of the appliance, or, when one of them has no room for it, none; whether it did.
    fn tell_others(&mut self, told: &Told) -> bool {
        let _ = told;
        true
    }
}
