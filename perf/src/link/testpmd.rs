//! `dpdk-testpmd`, the reference: it forwards between two ports and does next to nothing else.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use baton::base::limits::BURST_MAX;

use crate::link::child::{Child, Site};
use crate::link::rig::Pair;

/// What it does to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Swaps the link addresses: it reads and writes each packet.
    MacSwap,
    /// Nothing.
    Io,
}

impl Mode {
    /// As `testpmd` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::MacSwap => "macswap",
            Mode::Io => "io",
        }
    }
}

/// How long it may take to connect. With two ports that share its memory DPDK 22.11's memif sometimes
/// fails to connect the second (a driver's flaw: the first closes the descriptor of both).
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// How often it is started before its failure is believed.
const STARTS_MAX: usize = 5;

/// Starts it on the other side of a pair of ports, and again when it does not connect.
pub fn start_connected(pair: &Pair, mode: Mode, cpu: u32) -> Result<Child> {
    let mut failed = None;
    for _ in 0..STARTS_MAX {
        let mut child = start(&pair.site, mode, &pair.devices, cpu)?;
        match pair.wait_up(&mut child, CONNECT_LIMIT) {
            Ok(()) => return Ok(child),
            Err(error) => failed = Some(error),
        }
        drop(child);
        pair.wait_down(CONNECT_LIMIT)?;
    }
    Err(failed.unwrap_or_else(|| anyhow!("it was not started")))
}

/// Starts it on two devices, its forwarding core on `cpu`.
pub fn start(site: &Site, mode: Mode, devices: &[String; 2], cpu: u32) -> Result<Child> {
    let mut arguments = vec![
        format!("--lcores=0@{cpu},1@{cpu}"),
        "--no-pci".to_owned(),
        "--in-memory".to_owned(),
        "--single-file-segments".to_owned(),
        "-m".to_owned(),
        "128".to_owned(),
        "--no-telemetry".to_owned(),
    ];
    arguments.extend(devices.iter().map(|device| format!("--vdev={device}")));
    arguments.extend(
        ["--", "--nb-cores=1", "--total-num-mbufs=16384", "--rxd=1024", "--txd=1024"].map(String::from),
    );
    // As many at a time as the appliance takes.
    arguments.push(format!("--burst={BURST_MAX}"));
    arguments.push(format!("--forward-mode={}", mode.name()));
    Child::start(site, mode.name(), Path::new("dpdk-testpmd"), &arguments)
}
