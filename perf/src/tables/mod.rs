//! baton's flow table beside `hashbrown` and `rte_hash`: the same flows, keys, hash and lines, in
//! bursts of 32, in huge pages. And what the machine itself takes for random lines.
//!
//! * [`contenders`]: the three tables behind one interface. * `compare`: what is done with them.
//! * [`lines`]: random lines in batched prefetch, the reference of what a table may cost.

mod compare;
pub mod contenders;
pub mod lines;

use crate::case::Case;

/// The cases.
pub fn cases() -> Vec<Case> {
    compare::cases().into_iter().chain([lines::case()]).collect()
}
