//! Counting: this program again, under valgrind, with one burst; only what happens within
//! [`crate::bursts::standard_burst`] is counted.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The function whose instructions count, as valgrind's patterns have it.
const COUNTED: &str = "*standard_burst*";

/// What one run came to.
pub struct Counted {
    pub instructions: u64,
    pub packets: u64,
    /// What the processor that valgrind simulates can do, as far as libraries choose their code by it.
    pub cpu_features: String,
}

/// What a burst's run says of itself on its standard output.
pub fn said(packets: u64, cpu_features: &str) -> String {
    format!("packets {packets} cpu {cpu_features}")
}

/// What libraries ask the processor for when they choose among forms of their code.
pub fn cpu_features() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let all = [
            ("ssse3", has!("ssse3")),
            ("sse4.2", has!("sse4.2")),
            ("avx", has!("avx")),
            ("avx2", has!("avx2")),
            ("avx512f", has!("avx512f")),
            ("aes", has!("aes")),
            ("pclmulqdq", has!("pclmulqdq")),
            ("bmi2", has!("bmi2")),
            ("adx", has!("adx")),
            ("movbe", has!("movbe")),
        ];
        let there: Vec<&str> = all.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        there.join(" ")
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH.to_owned()
}

/// Runs one burst under callgrind.
pub fn count(burst: &str) -> Result<Counted, String> {
    let itself = std::env::current_exe().map_err(|error| error.to_string())?;
    let out = Scratch(std::env::temp_dir().join(format!("baton-guard-{}-{burst}", std::process::id())));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", out.0.display()))
        .arg(&itself)
        .args(["burst", burst])
        .output()
        .map_err(|error| format!("valgrind cannot be run: {error} (scripts/setup installs it)"))?;
    let failed = |why: &str| {
        let (said, complained) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        format!("burst {burst}: {why}\n{said}{complained}")
    };
    if !output.status.success() {
        return Err(failed(&output.status.to_string()));
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    let (packets, cpu_features) = read_said(&stdout).ok_or_else(|| failed("no count of packets"))?;
    let instructions = read_total(&out.0).ok_or_else(|| failed("callgrind counted nothing"))?;
    Ok(Counted { instructions, packets, cpu_features })
}

fn read_said(text: &str) -> Option<(u64, String)> {
    let (packets, features) = text.trim().strip_prefix("packets ")?.split_once(" cpu ")?;
    Some((packets.parse().ok().filter(|packets| *packets > 0)?, features.to_owned()))
}

fn read_total(path: &Path) -> Option<u64> {
    total(&std::fs::read_to_string(path).ok()?)
}

/// The total of a callgrind file; `None` when nothing was counted.
fn total(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
    total.trim().parse().ok().filter(|total| *total > 0)
}

/// A file that goes with the run.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_says_how_many_packets_it_carried() {
        assert_eq!(read_said(&(said(2048, "avx2 aes") + "\n")), Some((2048, "avx2 aes".to_owned())));
        assert_eq!(read_said("packets 0 cpu avx2"), None, "nothing can be divided by it");
        assert_eq!(read_said("thread panicked"), None);
        assert!(!cpu_features().is_empty());
    }

    #[test]
    fn a_total_is_read_and_none_or_nothing_is_an_error() {
        let file = |total: &str| format!("events: Ir\nsummary: 17\nfn=(1) f\n3 17\n\n{total}");
        assert_eq!(total(&file("totals: 17\n")), Some(17));
        assert_eq!(total(&file("totals: 0\n")), None, "the function was never entered");
        assert_eq!(total(&file("")), None);
    }
}
