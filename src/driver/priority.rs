//! Which threads the kernel prefers where a CPU is shared.

use thread_priority::{
    NormalThreadSchedulePolicy, RealtimeThreadSchedulePolicy, ScheduleParams, ThreadPriority,
    ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
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

/// Gives up whatever precedence the process was started with; `who` does, for the log. What it starts inherits that.
pub fn be_ordinary(who: &str) {
    let real_time = matches!(thread_schedule_policy(), Ok(ThreadSchedulePolicy::Realtime(_)));
    let preferred = rustix::process::getpriority_process(None).is_ok_and(|niceness| niceness < 0);
    if real_time {
        let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
            log::warn!("{who} stays real-time: {error}");
        }
    }
    if (real_time || preferred)
        && let Err(error) = rustix::process::setpriority_process(None, 0)
    {
        log::warn!("{who} is not an ordinary thread: {error}");
    }
}
