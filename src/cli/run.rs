//! `baton run`.

use std::path::Path;

use crate::cli::Failure;
use crate::cli::files::{notify_doubts, read_config};
use crate::config::checked::Checked;

pub fn run(path: &Path) -> Result<(), Failure> {
    let read = read_config(path)?;
    for warning in &read.warnings {
        log::warn!("{warning}");
    }
    if let Some(why) = notify_doubts(&read.checked) {
        log::warn!("{why}");
    }
    start(path, &read.text, &read.checked)
}

/// Where the driver takes over.
#[cfg(feature = "dpdk")]
fn start(path: &Path, text: &str, checked: &Checked) -> Result<(), Failure> {
    crate::driver::run::run(path, text, checked).map_err(Failure::Failed)
}

#[cfg(not(feature = "dpdk"))]
fn start(_path: &Path, _text: &str, _checked: &Checked) -> Result<(), Failure> {
    let why = "this baton was built without DPDK (cargo feature `dpdk`): it can check files and ask others, not run";
    Err(Failure::Failed(why.to_owned()))
}
