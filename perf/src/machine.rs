//! The machine: what the report says of it, and cases that measure it alone.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::case::Case;
use crate::figure::Figure;
use crate::regime::{self, Regime};

/// What a report says of the machine and of what was measured, as names and values.
pub fn facts() -> Vec<(&'static str, String)> {
    vec![
        ("processor", field("/proc/cpuinfo", "model name")),
        ("CPUs", std::thread::available_parallelism().map_or(0, usize::from).to_string()),
        ("caches", caches()),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("kernel", first_line("/proc/sys/kernel/osrelease")),
        ("huge pages", huge_pages()),
        ("transparent huge pages", first_line("/sys/kernel/mm/transparent_hugepage/enabled")),
        ("load average", first_line("/proc/loadavg")),
        ("rustc", said_by("rustc", &["--version"])),
        ("DPDK", dpdk::eal::version()),
        ("baton", revision()),
        ("build", build()),
    ]
}

/// The commit that lies in the source tree, with a mark if there is more.
fn revision() -> String {
    said_by("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--abbrev=10"])
}

fn build() -> String {
    let profile = if cfg!(debug_assertions) { "with debug assertions" } else { "release" };
    let features: Vec<&str> = [
        ("sse4.2", cfg!(target_feature = "sse4.2")),
        ("avx2", cfg!(target_feature = "avx2")),
        ("avx512f", cfg!(target_feature = "avx512f")),
    ]
    .into_iter()
    .filter_map(|(name, on)| on.then_some(name))
    .collect();
    format!("{profile}, target features beyond the base: [{}]", features.join(" "))
}

fn huge_pages() -> String {
    let of = |name| field("/proc/meminfo", name);
    format!("{} of {}, {} free", of("HugePages_Total"), of("Hugepagesize"), of("HugePages_Free"))
}

fn caches() -> String {
    let mut found = Vec::new();
    for index in 0..8 {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}");
        let read = |name: &str| first_line(&format!("{path}/{name}"));
        if Path::new(&path).exists() && read("type") != "Instruction" {
            found.push(format!("L{} {}", read("level"), read("size")));
        }
    }
    found.join(", ")
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// The value after `name ... :` in a file of such lines.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|before| before.trim() == name));
    line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, value)| value.trim().to_owned())
}

fn said_by(program: &str, arguments: &[&str]) -> String {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(_) | Err(_) => "unknown".to_owned(),
    }
}

/// Bytes of this process that are in transparent huge pages.
pub fn huge_bytes() -> u64 {
    let value = field("/proc/self/smaps_rollup", "AnonHugePages");
    value.split_whitespace().next().and_then(|kilobytes| kilobytes.parse().ok()).map_or(0, |kb: u64| kb << 10)
}

/// Bytes of memory that this process has now, huge pages of every kind included.
pub fn resident_bytes() -> f64 {
    let kilobytes = |name| {
        let value = field("/proc/self/status", name);
        value.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
    };
    (kilobytes("VmRSS") + kilobytes("HugetlbPages")) * 1024.0
}

/// Cases that concern the machine alone.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "machine-crossing",
            "time for a cache line to cross between CPU 0 and CPU 1: near or far",
            |context| -> Result<Vec<Figure>> {
                let mut samples = Vec::new();
                for _ in 0..context.samples {
                    samples.push(regime::crossing_ns([0, 1])?);
                }
                let regimes: Vec<Regime> = samples.iter().map(|ns| Regime::of_crossing(*ns)).collect();
                let regime = regimes.iter().copied().reduce(Regime::between).unwrap_or(Regime::Mixed);
                let figure = Figure::of("machine-crossing", "one way", "ns", &samples);
                Ok(vec![figure.in_regime(regime)])
            },
        )
        .essential(),
    ]
}
