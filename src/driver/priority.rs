//! Which threads the kernel prefers where a CPU is shared.

use thread_priority::{
    RealtimeThreadSchedulePolicy, ScheduleParams, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// The real-time priority of the liveness thread: above every ordinary thread, below the kernel's own.
const REAL_TIME: u8 = 50;

/// The niceness of workers: a worker that wakes up runs before ordinary threads, but
/// one that is never idle leaves the others their part, other appliances' workers theirs.
const NICENESS: i32 = -20;

/// Asks to run before every ordinary thread of its CPU.
pub fn ask_for_real_time() {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let priority = ThreadPriority::from_posix(ScheduleParams { sched_priority: REAL_TIME.into() });
    match set_thread_priority_and_policy(thread_native_id(), priority, policy) {
        Ok(()) => log::info!("the liveness thread is real-time (SCHED_FIFO {REAL_TIME})"),
        Err(error) => log::warn!(
            "the liveness thread is not real-time ({error}): a busy CPU can delay heartbeats; give CAP_SYS_NICE"
        ),
    }
}

/// Asks for this thread to be preferred to others on its CPU; `who` it is, for the log.
pub fn ask_for_precedence(who: &str) {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        log::warn!("{who} is an ordinary thread ({error}): a busy CPU can delay packets; give CAP_SYS_NICE");
    }
}
