//! The appliance as a whole, between the ports of a generator: packets and connections a second,
//! delays, start-up, each beside `testpmd` in the same place.
//!
//! Two CPUs: generator and sink ([`engine`]) in this process on one, what is measured on the
//! other. What is not measured at the moment stands still, since two pollers on one CPU are
//! ruin. Samples of the appliance and of the reference alternate, each with the regime of the
//! machine before and after it.

pub mod appliance;
pub mod child;
pub mod contender;
pub mod engine;
pub mod latency;
pub mod memif;
pub mod plan;
pub mod rig;
pub mod start;
pub mod testpmd;
pub mod veth;
pub mod wire;

use crate::case::Case;

/// All cases of links.
pub fn cases() -> Vec<Case> {
    [memif::cases(), start::cases(), veth::cases()].into_iter().flatten().collect()
}
