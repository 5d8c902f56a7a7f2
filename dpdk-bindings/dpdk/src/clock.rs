//! The processor's time-stamp counter.

use crate::eal::Running;

/// The counter now, in ticks of [`tsc_hz`]. Monotonic across cores on processors
/// with an invariant counter, which are all that DPDK runs on today.
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: reads a register.
    unsafe { dpdk_sys::dpdk_shim_tsc() }
}

/// Ticks per second, as the EAL measured them at its start.
pub fn tsc_hz(_: &Running) -> u64 {
    // SAFETY: the EAL runs, so the number is set and constant.
    unsafe { dpdk_sys::rte_get_tsc_hz() }
}
