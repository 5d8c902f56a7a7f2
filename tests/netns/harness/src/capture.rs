//! tcpdump on an appliance's links, at the switch's end of the cable: it goes on when the appliance dies.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::plan::{Link, Side};
use crate::process::{Process, unused};
use crate::world::World;

/// Which frames are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Only those that the appliance sends.
    Sent,
    /// Both ways.
    Both,
}

/// How much of each frame is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// All of it: needed where checksums are to be verified.
    Whole,
    /// The headers.
    Headers,
}

/// Longest time the kernel may keep packets before tcpdump sees them (libpcap: one second), and some.
const KERNEL_DELAY: Duration = Duration::from_millis(1200);

/// How long tcpdump may take to start, on a machine whose disk has much else to do.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    side: Side,
    link: Link,
    process: Process,
    file: PathBuf,
}

/// A finished capture.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Whose link it is.
    pub side: Side,
    /// Which link it is.
    pub link: Link,
    /// The file, which goes with the world.
    pub file: PathBuf,
}

impl Capture {
    /// Starts a capture; it is under way when this returns.
    pub fn start(
        world: &World,
        side: Side,
        link: Link,
        direction: Direction,
        depth: Depth,
    ) -> Result<Capture> {
        Self::start_filtered(world, side, link, direction, depth, "")
    }

    /// As [`Capture::start`], of the frames alone that a filter of tcpdump's lets through.
    pub fn start_filtered(
        world: &World,
        side: Side,
        link: Link,
        direction: Direction,
        depth: Depth,
        filter: &str,
    ) -> Result<Capture> {
        let interface = link.interface(side);
        let kept = if direction == Direction::Sent { "sent" } else { "both" };
        let name = format!("tcpdump-{interface}-{kept}");
        let file = unused(world.directory(), &name, "pcap");
        let shown = file.display().to_string();
        // The kernel makes all of the buffer at once, and lets nobody else run meanwhile: no more than is needed.
        let (snap, buffer_kib) = if depth == Depth::Headers { ("128", "4096") } else { ("0", "32768") };
        // What comes in at the switch's end is what the appliance sends.
        let direction = if direction == Direction::Sent { "in" } else { "inout" };
        let mut args = vec![
            "-i", &interface, "-n", "-Z", "root", "-B", buffer_kib, "-s", snap, "-Q", direction, "-w", &shown,
        ];
        if !filter.is_empty() {
            args.push(filter);
        }
        let mut process =
            Process::spawn(world.directory(), &world.namespace("switch"), &name, "tcpdump", &args)?;
        process.wait_ready(START_LIMIT, |p| Ok(p.log().contains("listening on")))?;
        Ok(Capture { side, link, process, file })
    }

    /// Ends it. A capture that missed packets proves nothing, so it is an error.
    pub fn stop(self) -> Result<Captured> {
        std::thread::sleep(KERNEL_DELAY);
        self.end()
    }

    fn end(mut self) -> Result<Captured> {
        self.process.terminate(Duration::from_secs(10))?;
        let log = self.process.log();
        let dropped = log
            .lines()
            .rev()
            .find(|line| line.contains("dropped by kernel"))
            .context("no tcpdump summary")?;
        ensure!(dropped.starts_with("0 "), "the capture is not whole: {dropped}");
        Ok(Captured { side: self.side, link: self.link, file: self.file })
    }
}

/// Stops captures, waiting only once for what the kernel holds back.
pub fn stop_all(captures: Vec<Capture>) -> Result<Vec<Captured>> {
    std::thread::sleep(KERNEL_DELAY);
    captures.into_iter().map(Capture::end).collect()
}
