//! Packets a second over veth pairs, through a kernel: what a machine without a network card of
//! its own for DPDK gives. Beside `testpmd macswap` on the same driver.
//!
//! The generator is in one network namespace, what is measured in another. The generator's own
//! ends are AF_XDP sockets in both cases, the faster of the two.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::case::{Case, Context};
use crate::figure::Figure;
use crate::link::appliance::Settings;
use crate::link::child::Folder;
use crate::link::contender::{Contender, Traffic};
use crate::link::memif::{DIRECTIONS, PACKETS, REFERENCE, alternate};
use crate::link::rig::{GENERATOR_CPU, Rig};
use crate::link::testpmd::Mode;

/// A driver of DPDK for interfaces of the kernel.
#[derive(Clone, Copy, Debug)]
enum Driver {
    AfPacket,
    AfXdp,
}

impl Driver {
    const fn name(self) -> &'static str {
        match self {
            Driver::AfPacket => "af_packet",
            Driver::AfXdp => "af_xdp",
        }
    }

    fn device(self, number: usize, interface: &str) -> String {
        format!("net_{}{number},iface={interface}", self.name())
    }
}

/// What all names of namespaces begin with; the process's id follows.
const PREFIX: &str = "baton-perf-";

/// Two namespaces with pairs of veth between them; removed when dropped.
#[derive(Debug)]
struct Namespaces {
    generator: String,
    measured: String,
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output =
        output.with_context(|| format!("cannot start {program}: scripts/setup installs what is needed"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

impl Namespaces {
    /// With so many links, `g0`, `g1` … on the generator's side and `m0`, `m1` … on the other.
    fn new(links: usize) -> Result<Namespaces> {
        sweep();
        let id = std::process::id();
        let (generator, measured) = (format!("{PREFIX}{id}-g"), format!("{PREFIX}{id}-m"));
        for name in [&generator, &measured] {
            run("ip", &["netns", "add", name])?;
        }
        // From here on, a failure removes them.
        let made = Namespaces { generator, measured };
        for name in [&made.generator, &made.measured] {
            // The kernel has nothing to say on these links.
            let quiet = "net.ipv6.conf.all.disable_ipv6=1";
            let quiet_too = "net.ipv6.conf.default.disable_ipv6=1";
            run("ip", &["netns", "exec", name, "sysctl", "-q", quiet, quiet_too])?;
        }
        for number in 0..links {
            let (near, far) = (format!("g{number}"), format!("m{number}"));
            let (generator, measured) = (&made.generator, &made.measured);
            let add = [
                "link", "add", &near, "netns", generator, "type", "veth", "peer", "name", &far, "netns",
                measured,
            ];
            run("ip", &add)?;
            for (name, interface) in [(generator, &near), (measured, &far)] {
                let within = ["netns", "exec", name];
                // With them, checksums are left to a device that there is not.
                let off = ["ethtool", "-K", interface, "tx", "off", "tso", "off", "gso", "off"];
                run("ip", &[&within[..], &off[..]].concat())?;
                run("ip", &["-n", name, "link", "set", interface, "up"])?;
            }
        }
        Ok(made)
    }

    /// Brings this thread, and those that it starts, into the generator's namespace.
    fn enter(&self) -> Result<()> {
        let path = Path::new("/run/netns").join(&self.generator);
        let file = fs::File::open(&path).with_context(|| path.display().to_string())?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", self.generator))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.generator, &self.measured] {
            if let Err(error) = run("ip", &["netns", "del", name]) {
                eprintln!("baton-perf: {error:#}");
            }
        }
    }
}

/// Removes what processes left that were killed.
fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if id.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            // Another harness may be doing the same.
            let _ = run("ip", &["netns", "del", &name]);
        }
    }
}

/// Measures the appliance, or how far the generator and the kernel get with `testpmd io`.
fn forwarding(name: &str, driver: Driver, io: bool, context: &Context) -> Result<Vec<Figure>> {
    // Declared first: the namespaces go when everything else is gone.
    let namespaces = Namespaces::new(4)?;
    namespaces.enter()?;
    let pairs = [[0, 1], [2, 3]];
    let own = pairs.map(|pair| pair.map(|n: usize| Driver::AfXdp.device(n, &format!("g{n}"))));
    let others = pairs.map(|pair| pair.map(|n: usize| driver.device(n % 2, &format!("m{n}"))));
    let before = ["ip", "netns", "exec", &namespaces.measured].map(String::from);
    let mut rig = Rig::start(GENERATOR_CPU, Folder::new()?, &own, &others, &before)?;
    let ticks = rig.hz / if context.quick { 2 } else { 1 };
    let traffic = Traffic::of(1000);
    let settings = Settings::new(Default::default(), 100_000);
    let mut reference = Contender::testpmd(&mut rig, Mode::MacSwap, &traffic)?;
    let mut measured = if io {
        Contender::testpmd(&mut rig, Mode::Io, &traffic)?
    } else {
        Contender::appliance(&mut rig, &settings, &traffic, false)?
    };
    let mut figures = Vec::new();
    for (answers, direction) in DIRECTIONS {
        let series = alternate(context, &mut measured, &mut reference, answers, ticks)?;
        figures.extend(series.figures(name, direction, PACKETS, REFERENCE));
    }
    Ok(figures)
}

/// The cases over veth.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for driver in [Driver::AfPacket, Driver::AfXdp] {
        for (io, what) in [(false, "full-nat"), (true, "testpmd io")] {
            let name = format!("veth-{}{}", driver.name().replace('_', "-"), if io { "-io" } else { "" });
            let what = format!("{what}, UDP, 64 bytes, 1000 flows over veth and {}", driver.name());
            let case_name = name.clone();
            cases.push(Case::new(name, what, move |context| forwarding(&case_name, driver, io, context)));
        }
    }
    cases
}
