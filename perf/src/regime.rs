//! How near the two CPUs are to each other at the moment.
//!
//! On a virtual machine the time for a cache line to cross between two CPUs changes, in phases
//! of seconds to minutes, and every figure of two CPUs follows it. So it is measured before and
//! after each sample, and samples are compared only within one label.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// A line that crosses within this time, one way, is near.
const NEAR_MAX_NS: f64 = 200.0;

/// There and back, in one chunk. The best chunk counts: in the others a thread was interrupted.
const CHUNK: u64 = 100;
/// Chunks, at most.
const CHUNKS: u64 = 400;
/// No longer than this, however slow: less than a tenth of a second.
const TIME_MAX: Duration = Duration::from_millis(80);

/// What a figure was measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Regime {
    /// One CPU: there is nothing to cross.
    Single,
    /// Lines crossed fast, before and after.
    Near,
    /// Lines crossed slowly, before and after.
    Far,
    /// Before and after differ, or it could not be measured.
    Mixed,
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Regime::Single => "single",
            Regime::Near => "near",
            Regime::Far => "far",
            Regime::Mixed => "mixed",
        })
    }
}

impl Regime {
    /// Of a time for one crossing.
    pub fn of_crossing(nanoseconds: f64) -> Regime {
        if nanoseconds <= NEAR_MAX_NS { Regime::Near } else { Regime::Far }
    }

    /// Of a sample, by what was measured before and after it.
    pub fn between(before: Regime, after: Regime) -> Regime {
        if before == after { before } else { Regime::Mixed }
    }
}

/// Lets the calling thread run on this CPU alone.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).with_context(|| format!("there is no CPU {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("cannot run on CPU {cpu}"))
}

/// Before all others on its CPU, if that is allowed: a poller of some other process would take
/// half of the time, and both threads would seldom run at once.
fn hurry() {
    let Ok(priority) = ThreadPriorityValue::try_from(1) else { return };
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    // Without permission it is less sure, not wrong.
    let _ =
        set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(priority), policy);
}

/// One cache line, and beside it a sign that the other side is there.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

#[derive(Default)]
struct Table {
    ball: Line,
    ready: AtomicBool,
    stop: AtomicBool,
}

/// Nanoseconds for a cache line to cross between two CPUs, one way.
pub fn crossing_ns(cpus: [usize; 2]) -> Result<f64> {
    if cpus[0] == cpus[1] {
        bail!("CPU {} twice: a line has nowhere to cross to", cpus[0]);
    }
    let table = Arc::new(Table::default());
    let other = Arc::clone(&table);
    let returner = std::thread::spawn(move || -> Result<()> {
        pin(cpus[1])?;
        hurry();
        other.ready.store(true, Ordering::Release);
        let mut wanted = 1;
        while !other.stop.load(Ordering::Relaxed) {
            for _ in 0..CHUNK {
                if other.ball.0.load(Ordering::Acquire) == wanted {
                    other.ball.0.store(wanted + 1, Ordering::Release);
                    wanted += 2;
                }
                core::hint::spin_loop();
            }
        }
        Ok(())
    });
    let other = Arc::clone(&table);
    // A thread of its own: the caller keeps its CPU and its priority.
    let server = std::thread::spawn(move || -> Result<f64> {
        pin(cpus[0])?;
        hurry();
        let begin = Instant::now();
        while !other.ready.load(Ordering::Acquire) && begin.elapsed() < TIME_MAX {
            std::thread::sleep(Duration::from_micros(50));
        }
        let (mut best, mut ball, begin) = (f64::INFINITY, 0, Instant::now());
        'chunks: for _ in 0..CHUNKS {
            let chunk = Instant::now();
            for _ in 0..CHUNK {
                other.ball.0.store(ball + 1, Ordering::Release);
                let mut spins = 0u32;
                while other.ball.0.load(Ordering::Acquire) != ball + 2 {
                    core::hint::spin_loop();
                    spins += 1;
                    if spins % 1024 == 0 && begin.elapsed() > TIME_MAX {
                        break 'chunks;
                    }
                }
                ball += 2;
            }
            best = best.min(chunk.elapsed().as_nanos() as f64 / (2 * CHUNK) as f64);
        }
        Ok(best)
    });
    let best = server.join();
    table.stop.store(true, Ordering::Relaxed);
    let returned = returner.join();
    let (Ok(best), Ok(returned)) = (best, returned) else { bail!("a thread of the ping-pong failed") };
    returned?;
    best
}

/// The regime now.
pub fn now(cpus: [usize; 2]) -> Regime {
    match crossing_ns(cpus) {
        Ok(nanoseconds) if nanoseconds.is_finite() => Regime::of_crossing(nanoseconds),
        Ok(_) | Err(_) => Regime::Mixed,
    }
}

/// Takes a sample and says the regime that it was taken in.
pub fn during<T>(cpus: [usize; 2], sample: impl FnOnce() -> T) -> (T, Regime) {
    let before = now(cpus);
    let taken = sample();
    (taken, Regime::between(before, now(cpus)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_a_label_only_if_nothing_changed_meanwhile() {
        assert_eq!(Regime::between(Regime::Near, Regime::Near), Regime::Near);
        assert_eq!(Regime::between(Regime::Near, Regime::Far), Regime::Mixed);
        assert_eq!(Regime::of_crossing(80.0), Regime::Near);
        assert_eq!(Regime::of_crossing(385.0), Regime::Far);
    }

    #[test]
    fn a_line_does_not_cross_to_its_own_cpu() {
        assert!(crossing_ns([0, 0]).is_err());
    }
}
