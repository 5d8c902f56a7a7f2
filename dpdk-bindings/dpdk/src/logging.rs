//! DPDK's log, routed to the `log` crate under the target `dpdk`.

use core::ffi::c_char;

use crate::error::{Error, check, clear_errno};

/// Routes DPDK's messages to `log` from now on.
pub(crate) fn route() -> Result<(), Error> {
    clear_errno();
    // SAFETY: the sink is a function that lives as long as the program and never unwinds.
    check("route DPDK's log", unsafe { dpdk_sys::dpdk_shim_log_to(Some(sink)) }).map(|_| ())
}

/// Receives one write of DPDK's log stream: usually one line.
///
/// # Safety
/// `text` points to `len` bytes for the time of the call.
unsafe extern "C" fn sink(level: u32, text: *const c_char, len: usize) {
    // SAFETY: the caller's promise.
    let bytes = unsafe { core::slice::from_raw_parts(text.cast::<u8>(), len) };
    let level = match level {
        0..=dpdk_sys::RTE_LOG_ERR => log::Level::Error,
        dpdk_sys::RTE_LOG_WARNING => log::Level::Warn,
        dpdk_sys::RTE_LOG_NOTICE => log::Level::Info,
        dpdk_sys::RTE_LOG_INFO => log::Level::Debug,
        _ => log::Level::Trace,
    };
    // A logger that panics must not unwind into C.
    let _ = std::panic::catch_unwind(|| {
        for line in String::from_utf8_lossy(bytes).lines().filter(|line| !line.trim().is_empty()) {
            log::log!(target: "dpdk", level, "{line}");
        }
    });
}
