//! `baton run`.

use std::path::Path;

use crate::cli::Failure;
use crate::cli::files::{notify_doubts, read_config};
use crate::config::checked::Checked;

pub fn run(path: &Path) -> Result<(), Failure> {
    let (checked, warnings) = read_config(path)?;
    for warning in warnings {
        log::warn!("{warning}");
    }
    if let Some(why) = notify_doubts(&checked) {
        log::warn!("{why}");
    }
    start(&checked)
}

/// Where the driver takes over.
#[cfg(feature = "dpdk")]
fn start(checked: &Checked) -> Result<(), Failure> {
    crate::driver::run::run(checked).map_err(Failure::Failed)
}

#[cfg(not(feature = "dpdk"))]
fn start(_checked: &Checked) -> Result<(), Failure> {
    let why = "this baton was built without DPDK (cargo feature `dpdk`): it can check files and ask others, not run";
    Err(Failure::Failed(why.to_owned()))
}
