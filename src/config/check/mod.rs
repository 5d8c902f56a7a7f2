//! From the file's tables to a [`Checked`]: one file per subject. Each check
//! reports all it finds and answers `None` when its part cannot be built.

mod addresses;
mod distributor;
mod failover;
mod general;
pub(crate) mod mirror;
mod names;
mod policy;
pub(crate) mod pools;
mod ports;
mod track;
mod virtual_servers;

use std::path::Path;

use crate::config::check::addresses::Addresses;
use crate::config::checked::Checked;
use crate::config::file::File;
use crate::config::report::{Place, Report};

/// When services are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// As those of a start.
    Start,
    /// To take the place of those that run. What names a service that is gone is no reason to stay with the old ones.
    Running,
}

/// Checks the whole file. Paths in it are relative to `directory`.
pub(crate) fn check(file: &File, directory: &Path, when: When, report: &mut Report) -> Option<Checked> {
    let mut addresses = Addresses::default();
    let appliance = general::appliance(file);
    let eal = general::eal(file, report);
    let lcores = general::lcores(file, report);
    let flows = general::flows(file);
    let control = general::control(file, directory, report);
    let ports = ports::ports(file, &mut addresses, report);
    let routes = ports::routes(file, &mut addresses, report);
    let virtual_servers = virtual_servers::check(file, &mut addresses, report);
    let pools = pools::check(file, &mut addresses, report);
    let distributor = distributor::check(file, report);
    let mirror = mirror::check(file, directory, when, &mut addresses, report);
    let failover = failover::check(file, directory, report);
    Some(Checked {
        appliance: appliance?,
        eal: eal?,
        lcores: lcores?,
        ports: ports?,
        routes: routes?,
        pools: pools?,
        virtual_servers: virtual_servers?,
        flows: flows?,
        distributor: distributor?,
        mirror: mirror?,
        failover: failover?,
        control: control?,
    })
}

/// Of keys that do not go together, the one to name: the first in the file's hands.
fn blame<'p>(places: &[&'p Place]) -> &'p Place {
    places.iter().find(|place| place.shown.is_some()).unwrap_or(&places[0])
}
