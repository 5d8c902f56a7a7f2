//! Memory that stays where it is. Under pressure the kernel takes back pages of any process: code is read from the disk
//! again, and memory that was never touched is first looked for. A liveness thread that meets such a page stands still for
//! as long as that takes, whatever its priority.

use rustix::mm::MlockAllFlags;

/// Asks that all memory of this process stay in place: what is mapped now is brought in, and what is mapped later is brought
/// in then, thread stacks too. Call it when nearly everything is there, and before threads start that must not wait.
pub fn ask_for_memory_to_stay() {
    match rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE) {
        Ok(()) => log::info!("memory is locked"),
        Err(error) => log::warn!(
            "memory is not locked ({error}): where memory is scarce, heartbeats can be late; give CAP_IPC_LOCK, or an unlimited RLIMIT_MEMLOCK"
        ),
    }
}
