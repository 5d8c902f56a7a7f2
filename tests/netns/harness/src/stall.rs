//! Did the machine itself stand still? A thread on each CPU, preferred to everything of the appliances', sleeps a
//! millisecond at a time and notes when it was kept for longer; beside it, how much of each CPU the host took.
//!
//! A test of the real world that fails while the machine stood still for longer than a pair rides out says nothing about the
//! pair, and is tried again; one that fails without that has failed.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ScheduleParams, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// What a pair rides out with the times that are shipped: a pause of any process by so much changes no role.
pub const RIDDEN_OUT: Duration = Duration::from_millis(20);
/// How often a test is tried at most.
pub const TRIES_MAX: usize = 3;
/// Above the liveness threads (50): what keeps the watch from running keeps them, too.
const REAL_TIME: u8 = 60;
/// A machine that did not stand still for so long is believed to go on that way.
const CALM_FOR: Duration = Duration::from_secs(5);
const INTERVAL: Duration = Duration::from_millis(1);
/// Gaps that are kept of each CPU; a machine with more of them has been said to stand still often enough.
const KEPT_MAX: usize = 1_000_000;
/// Gaps that are told one by one.
const TOLD_MAX: usize = 8;
/// Of the times in `/proc/stat` (`USER_HZ`, which is 100 on every architecture that there is).
const TICK: Duration = Duration::from_millis(10);

/// A CPU on which the watch did not run for longer than it slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Which CPU.
    pub cpu: usize,
    /// When it was over, from the start of the watch.
    pub at: Duration,
    /// For how long, beyond the millisecond that it slept.
    pub lasted: Duration,
}

/// What the watch saw.
#[derive(Clone, Debug, Default)]
pub struct Stalls {
    /// Gaps longer than [`RIDDEN_OUT`].
    pub gaps: Vec<Gap>,
    /// The longest of all gaps, of any length.
    pub longest: Duration,
    /// Time that the host took from each CPU (`steal` of `/proc/stat`).
    pub stolen: Vec<Duration>,
    /// How long was watched.
    pub watched: Duration,
    /// Why nothing was seen, if the watch could not be kept.
    pub blind: Option<String>,
}

impl fmt::Display for Stalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.blind {
            return write!(f, "nobody watched whether the machine stood still: {why}");
        }
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        write!(f, "in {:.1} s the machine stood still for more than ", self.watched.as_secs_f64())?;
        write!(f, "{} ms {} times", RIDDEN_OUT.as_millis(), self.gaps.len())?;
        for (number, gap) in self.gaps.iter().take(TOLD_MAX).enumerate() {
            let before = if number == 0 { ": " } else { ", " };
            write!(f, "{before}CPU {} {:.0} ms at {:.2} s", gap.cpu, ms(gap.lasted), gap.at.as_secs_f64())?;
        }
        if self.gaps.len() > TOLD_MAX {
            write!(f, ", …")?;
        }
        write!(f, "; the longest gap was {:.1} ms; the host took", ms(self.longest))?;
        for (cpu, stolen) in self.stolen.iter().enumerate() {
            write!(f, " {} ms of CPU {cpu}", stolen.as_millis())?;
        }
        Ok(())
    }
}

/// What one thread saw: gaps longer than [`RIDDEN_OUT`], and the longest of all.
type Seen = (Vec<Gap>, Duration);

/// A watch under way.
#[derive(Debug)]
pub struct StallWatch {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Seen, String>>>,
    stolen: Vec<Duration>,
    since: Instant,
}

impl StallWatch {
    /// Starts it on every CPU that this process may use.
    pub fn start() -> StallWatch {
        let stop = Arc::new(AtomicBool::new(false));
        let since = Instant::now();
        let threads = cpus()
            .into_iter()
            .map(|cpu| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || watch(cpu, since, &stop))
            })
            .collect();
        StallWatch { stop, threads, stolen: stolen(), since }
    }

    /// Ends it; what it saw.
    pub fn finish(mut self) -> Stalls {
        let mut stalls = Stalls { watched: self.since.elapsed(), ..Stalls::default() };
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok((gaps, longest))) => {
                    stalls.gaps.extend(gaps);
                    stalls.longest = stalls.longest.max(longest);
                }
                Ok(Err(why)) => stalls.blind = Some(why),
                Err(_) => stalls.blind = Some("the watch panicked".to_owned()),
            }
        }
        stalls.gaps.sort_by_key(|gap| gap.at);
        let before = self.stolen.iter();
        stalls.stolen =
            stolen().iter().zip(before).map(|(now, before)| now.saturating_sub(*before)).collect();
        stalls
    }
}

impl Drop for StallWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Has this thread preferred to everything of an appliance's on its CPU.
pub fn be_real_time() -> Result<(), String> {
    be_real_time_at(REAL_TIME)
}

/// As [`be_real_time`], with a priority of its own (liveness threads have 50, the watch for stalls has 60).
pub fn be_real_time_at(priority: u8) -> Result<(), String> {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::from_posix(ScheduleParams { sched_priority: priority.into() });
    set_thread_priority_and_policy(thread_native_id(), priority, policy)
        .map_err(|error| format!("no real-time thread: {error}"))
}

/// The CPUs that this process may use.
pub fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// Has this thread run on one CPU alone.
pub fn stay_on(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|error| format!("cannot stay on CPU {cpu}: {error}"))
}

fn watch(cpu: usize, since: Instant, stop: &AtomicBool) -> Result<Seen, String> {
    stay_on(cpu)?;
    be_real_time()?;
    let (mut gaps, mut longest) = (Vec::new(), Duration::ZERO);
    let mut before = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(INTERVAL);
        let now = Instant::now();
        let lasted = (now - before).saturating_sub(INTERVAL);
        longest = longest.max(lasted);
        if lasted > RIDDEN_OUT && gaps.len() < KEPT_MAX {
            gaps.push(Gap { cpu, at: now - since, lasted });
        }
        before = now;
    }
    Ok((gaps, longest))
}

/// What the host took of each CPU until now (proc(5), `/proc/stat`, the eighth number).
fn stolen() -> Vec<Duration> {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    text.lines().filter_map(stolen_in).collect()
}

fn stolen_in(line: &str) -> Option<Duration> {
    let mut words = line.split_whitespace();
    let cpu = words.next()?.strip_prefix("cpu")?;
    cpu.parse::<u32>().ok()?;
    Some(TICK * words.nth(7)?.parse().ok()?)
}

/// What is to follow a try of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It failed while the machine stood still: it is tried again.
    Again,
    /// It failed.
    Failed,
}

/// Judges try number `number`, from 1.
pub fn judge(passed: bool, number: usize, stalls: &Stalls) -> Verdict {
    match (passed, stalls.gaps.is_empty()) {
        (true, _) => Verdict::Passed,
        (false, false) if number < TRIES_MAX => Verdict::Again,
        (false, _) => Verdict::Failed,
    }
}

/// Waits until the machine lets everybody run again, for about so long at most. Returns what is left of that time.
pub fn wait_for_calm(patience: Duration) -> Duration {
    wait_until_calm(patience, || {
        let watch = StallWatch::start();
        std::thread::sleep(CALM_FOR);
        watch.finish()
    })
}

fn wait_until_calm(mut patience: Duration, mut look: impl FnMut() -> Stalls) -> Duration {
    while !patience.is_zero() {
        let seen = look();
        patience = patience.saturating_sub(seen.watched);
        if seen.gaps.is_empty() {
            break;
        }
    }
    patience
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stood_still(ms: u64) -> Stalls {
        let lasted = Duration::from_millis(ms);
        let gap = Gap { cpu: 1, at: Duration::from_secs(2), lasted };
        let gaps = if lasted > RIDDEN_OUT { vec![gap] } else { Vec::new() };
        Stalls { gaps, longest: lasted, ..Stalls::default() }
    }

    #[test]
    fn a_failure_counts_unless_the_machine_stood_still_and_the_third_always_counts() {
        assert_eq!(judge(true, 1, &stood_still(0)), Verdict::Passed);
        assert_eq!(judge(true, 1, &stood_still(500)), Verdict::Passed);
        assert_eq!(judge(false, 1, &stood_still(0)), Verdict::Failed);
        assert_eq!(judge(false, 1, &stood_still(20)), Verdict::Failed, "that is ridden out");
        assert_eq!(judge(false, 1, &stood_still(21)), Verdict::Again);
        assert_eq!(judge(false, 2, &stood_still(21)), Verdict::Again);
        assert_eq!(judge(false, 3, &stood_still(500)), Verdict::Failed);
        let blind = Stalls { blind: Some("not root".into()), ..Stalls::default() };
        assert_eq!(judge(false, 1, &blind), Verdict::Failed, "who did not look excuses nothing");
    }

    #[test]
    fn what_the_host_took_is_the_eighth_number_of_a_cpus_line() {
        assert_eq!(stolen_in("cpu1 1 2 3 4 5 6 7 80 9 10"), Some(Duration::from_millis(800)));
        assert_eq!(stolen_in("cpu  1 2 3 4 5 6 7 80 9 10"), None, "the sum of all");
        assert_eq!(stolen_in("intr 1 2 3 4 5 6 7 80 9 10"), None);
    }

    #[test]
    fn a_machine_that_stands_still_is_waited_for_within_limits() {
        let looks = |seen: &[u64], patience: u64| {
            let mut seen = seen.iter();
            let left = wait_until_calm(Duration::from_secs(patience), || {
                let ms = *seen.next().expect("no more looks than that");
                Stalls { watched: CALM_FOR, ..stood_still(ms) }
            });
            (seen.count(), left.as_secs())
        };
        assert_eq!(looks(&[21, 300, 20, 0], 60), (1, 45));
        assert_eq!(looks(&[21, 300, 20, 0], 7), (2, 0), "it has had enough");
        assert_eq!(looks(&[0], 0), (1, 0));
    }

    #[test]
    fn gaps_are_told_with_their_cpu_length_and_time() {
        let told = Stalls { watched: Duration::from_secs(9), ..stood_still(37) }.to_string();
        assert!(told.contains("CPU 1 37 ms at 2.00 s") && told.contains("in 9.0 s"), "{told}");
    }
}
