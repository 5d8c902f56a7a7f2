//! DPDK's environment (EAL): started once in a process, cleaned up at the end.

use core::ffi::{CStr, c_char, c_int};
use core::marker::PhantomData;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, Ordering};
use std::ffi::CString;
use std::sync::Arc;

use crate::error::{EEXIST, Error, c_string, check, clear_errno};
use crate::logging;

/// Proof that the EAL runs. Whatever is made of DPDK's memory keeps one, so the
/// EAL is not cleaned up under it. Cheap to clone, any thread may hold it.
#[derive(Clone, Debug)]
pub struct Running(Arc<()>);

/// The EAL itself, owned by the thread that started it (the main lcore). When it
/// is dropped it waits for the worker lcores and cleans up, unless something
/// made of its memory still lives: then it says so in the log and leaves the
/// clean-up to the end of the process.
#[derive(Debug)]
pub struct Eal {
    running: Running,
    /// The main lcore's thread is part of the EAL's state.
    not_send: PhantomData<*const ()>,
}

/// The EAL cannot be started twice in a process, not even after a failure.
static STARTED: AtomicBool = AtomicBool::new(false);

impl Eal {
    /// Starts the EAL with its command-line arguments, the program's name first.
    /// The calling thread becomes the main lcore and is pinned to its CPU.
    /// DPDK's log goes to the `log` crate, target `dpdk`.
    pub fn init<A: AsRef<str>>(args: impl IntoIterator<Item = A>) -> Result<Eal, Error> {
        const WHAT: &str = "start DPDK's environment (EAL)";
        let args: Vec<CString> =
            args.into_iter().map(|arg| c_string(WHAT, arg.as_ref())).collect::<Result<_, _>>()?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(Error::own(WHAT, EEXIST, "it was started before in this process"));
        }
        logging::route()?;
        // The EAL keeps pointers to its arguments and may reorder them: they stay for good.
        let args: Vec<*mut c_char> = args.into_iter().map(CString::into_raw).collect();
        let count = args.len() as c_int;
        let pointers: &'static mut [*mut c_char] =
            Vec::leak(args.into_iter().chain([core::ptr::null_mut()]).collect());
        clear_errno();
        // SAFETY: `pointers` holds `count` strings and a null, all of which live for good.
        check(WHAT, unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) })?;
        Ok(Eal { running: Running(Arc::new(())), not_send: PhantomData })
    }
}

impl Deref for Eal {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        // SAFETY: the EAL runs and this is its main thread, since `Eal` is not `Send`.
        unsafe { dpdk_sys::rte_eal_mp_wait_lcore() };
        // Nobody can clone the count from 1 to 2: the only holder is here.
        if Arc::get_mut(&mut self.running.0).is_none() {
            log::warn!(target: "dpdk", "the EAL is not cleaned up: ports, pools or rings are still in use");
            return;
        }
        clear_errno();
        // SAFETY: no worker lcore runs and nothing made of the EAL's memory is left.
        if let Err(error) = check("clean up the EAL", unsafe { dpdk_sys::rte_eal_cleanup() }) {
            log::warn!(target: "dpdk", "{error}");
        }
    }
}

/// The version of the DPDK that is linked, and how: such as `DPDK 22.11.11 (shared)`, or `(static)` with that feature.
pub fn version() -> String {
    // SAFETY: returns a string of static storage.
    let version = unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy();
    let how = if cfg!(feature = "static") { "static" } else { "shared" };
    format!("{version} ({how})")
}
