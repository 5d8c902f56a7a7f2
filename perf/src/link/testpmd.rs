//! `dpdk-testpmd`, the reference: it forwards between two ports and does next to nothing else.

use std::path::Path;

use anyhow::Result;

use crate::link::child::{Child, Site};

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
        ["--", "--nb-cores=1", "--total-num-mbufs=16384", "--burst=32", "--rxd=1024", "--txd=1024"]
            .map(String::from),
    );
    arguments.push(format!("--forward-mode={}", mode.name()));
    Child::start(site, mode.name(), Path::new("dpdk-testpmd"), &arguments)
}
