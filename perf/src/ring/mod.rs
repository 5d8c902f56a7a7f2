//! The appliance's own cost, in one process on one CPU: ring devices, real packets, the loop
//! that runs in production. Packets are made and checked outside of the timed window.
//!
//! * [`plan`]: what is measured. * [`config`]: the members' configurations.
//! * [`appliance`]: the member that is measured, and its devices. * [`member`]: the other one.
//! * [`lines`]: the reference with random lines of memory.
//! * [`flows`] and [`frames`]: the traffic, and whether what comes out is right.
//! * [`bench`]: the timed windows. * `script`: [`rounds`] of packets, written beforehand. * `connections`: whole ones.
//! * `held`: how many flows there can be, and what each takes of memory. * `hop`: what a hop between lcores costs.
//! * `takeover`: what a takeover costs a worker with many flows.
//! * `live`: the peer on the other CPU. * `mirroring`: what mirroring to it costs, and how long it takes.
//! * `cases`: the cases.

pub mod appliance;
pub mod bench;
mod cases;
pub mod config;
mod connections;
pub mod flows;
pub mod frames;
mod held;
mod hop;
pub mod lines;
pub mod live;
pub mod member;
mod mirroring;
pub mod plan;
pub mod rounds;
mod script;
mod takeover;

use crate::case::Case;
pub use cases::{Wanted, measure};

/// The cases.
pub fn cases() -> Vec<Case> {
    let others = [vec![hop::case()], held::cases(), takeover::cases(), mirroring::cases()];
    cases::cases().into_iter().chain(others.into_iter().flatten()).collect()
}
