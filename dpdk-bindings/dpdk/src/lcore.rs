//! Lcores: threads that the EAL started and pinned, one for each entry of `--lcores`.

use core::ffi::{c_int, c_void};
use core::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};

use crate::eal::{Eal, Running};
use crate::error::{EINVAL, Error, check, clear_errno};

/// An lcore's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LcoreId(pub u32);

/// The lcore that this thread is; `None` for a thread that the EAL does not know.
pub fn current() -> Option<LcoreId> {
    // SAFETY: reads a thread-local number.
    let id = unsafe { dpdk_sys::dpdk_shim_lcore_id() };
    (id != dpdk_sys::DPDK_LCORE_ID_ANY).then_some(LcoreId(id))
}

impl Running {
    /// The main lcore: the thread that started the EAL.
    pub fn main_lcore(&self) -> LcoreId {
        // SAFETY: the EAL runs.
        LcoreId(unsafe { dpdk_sys::rte_get_main_lcore() })
    }

    /// The worker lcores, in order of number. Registered threads are not among them.
    pub fn worker_lcores(&self) -> Vec<LcoreId> {
        let mut found = Vec::new();
        let mut id = u32::MAX;
        loop {
            // SAFETY: the EAL runs; the walk starts at -1 and ends at DPDK_MAX_LCORE.
            id = unsafe { dpdk_sys::rte_get_next_lcore(id, 1, 0) };
            if id >= dpdk_sys::DPDK_MAX_LCORE {
                return found;
            }
            found.push(LcoreId(id));
        }
    }

    /// The CPU that an lcore is pinned to, the lowest one if it may use several.
    pub fn cpu_of(&self, lcore: LcoreId) -> Option<u32> {
        // SAFETY: the EAL runs.
        u32::try_from(unsafe { dpdk_sys::dpdk_shim_lcore_cpu(lcore.0) }).ok()
    }

    /// Makes the calling thread known to the EAL until the result is dropped, so
    /// that it has an lcore's number and with it a buffer cache of its own.
    pub fn register_thread(&self) -> Result<Registered, Error> {
        const WHAT: &str = "register a thread as an lcore";
        if current().is_some() {
            return Err(Error::own(WHAT, EINVAL, "this thread is an lcore already"));
        }
        clear_errno();
        // SAFETY: the EAL runs and this thread is not yet known to it.
        check(WHAT, unsafe { dpdk_sys::rte_thread_register() })?;
        Ok(Registered { _running: self.clone(), not_send: PhantomData })
    }
}

/// A thread's membership of the EAL; ends when dropped.
#[derive(Debug)]
pub struct Registered {
    _running: Running,
    not_send: PhantomData<*const ()>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: this is the thread that was registered, since `Registered` is not `Send`.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}

impl Eal {
    /// Runs a closure on a worker lcore that does nothing else at the time.
    pub fn launch<T, F>(&self, lcore: LcoreId, job: F) -> Result<Job<'_, T>, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let what = format!("launch on lcore {}", lcore.0);
        if !self.worker_lcores().contains(&lcore) {
            return Err(Error::own(what, EINVAL, "it is not a worker lcore"));
        }
        let (done, result) = channel();
        let task: Task = Box::new(move || {
            // A panic must not unwind into the EAL's thread loop: it is the join's to report.
            let outcome = catch_unwind(AssertUnwindSafe(job));
            // The launcher may have stopped caring.
            let _ = done.send(outcome);
        });
        let argument = Box::into_raw(Box::new(task));
        // SAFETY: this is the main thread (`Eal` is not `Send`), `lcore` is a worker, and
        // `run` takes the box back exactly once if the launch succeeds.
        let returned = unsafe { dpdk_sys::rte_eal_remote_launch(Some(run), argument.cast(), lcore.0) };
        if let Err(error) = check(&what, returned) {
            // SAFETY: the launch was refused, so the box is still ours.
            drop(unsafe { Box::from_raw(argument) });
            return Err(error);
        }
        Ok(Job { lcore, result, eal: PhantomData })
    }
}

type Task = Box<dyn FnOnce() + Send>;

/// What the lcore's thread calls.
///
/// # Safety
/// `argument` is a `Box<Task>` turned into a pointer, given to this call alone.
unsafe extern "C" fn run(argument: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let task = unsafe { Box::from_raw(argument.cast::<Task>()) };
    task();
    0
}

/// A closure that runs on a worker lcore. Dropping it waits for the closure's end.
#[derive(Debug)]
pub struct Job<'eal, T> {
    lcore: LcoreId,
    result: Receiver<std::thread::Result<T>>,
    /// Waiting is the main thread's, while the EAL runs.
    eal: PhantomData<(&'eal Eal, *const ())>,
}

impl<T> Job<'_, T> {
    /// The lcore that it runs on.
    pub fn lcore(&self) -> LcoreId {
        self.lcore
    }

    /// Whether the closure has ended.
    pub fn is_finished(&self) -> bool {
        // SAFETY: the EAL runs and the lcore is one of its workers.
        unsafe { dpdk_sys::rte_eal_get_lcore_state(self.lcore.0) != dpdk_sys::RUNNING }
    }

    /// Waits for the closure's end. Gives what it returned, or what it panicked with.
    pub fn join(self) -> std::thread::Result<T> {
        self.wait();
        match self.result.recv() {
            Ok(outcome) => outcome,
            Err(gone) => Err(Box::new(gone)),
        }
    }

    fn wait(&self) {
        // SAFETY: the EAL runs and this is its main thread.
        unsafe { dpdk_sys::rte_eal_wait_lcore(self.lcore.0) };
    }
}

impl<T> Drop for Job<'_, T> {
    fn drop(&mut self) {
        self.wait();
    }
}
