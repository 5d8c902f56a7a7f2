//! Panics on purpose, for tests of what follows: not in release builds, and only where a process was started with
//! `BATON_TEST_PANIC=THREAD` in its environment. Then SIGUSR2 makes that thread panic: `worker0`, `liveness`, `master`,
//! `control` (when it is next asked for the status).

use core::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::sync::Arc;

/// Which thread is to panic, if any.
#[derive(Clone, Debug, Default)]
pub struct Provoked {
    #[cfg(debug_assertions)]
    asked: Option<(String, Arc<AtomicBool>)>,
}

impl Provoked {
    /// What the environment asks for.
    #[cfg(debug_assertions)]
    pub fn from_environment() -> io::Result<Provoked> {
        let Ok(thread) = std::env::var("BATON_TEST_PANIC") else { return Ok(Provoked::default()) };
        let now = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR2, Arc::clone(&now))?;
        Ok(Provoked { asked: Some((thread, now)) })
    }

    /// Nothing, in a release.
    #[cfg(not(debug_assertions))]
    pub fn from_environment() -> io::Result<Provoked> {
        Ok(Provoked::default())
    }

    /// What is set when this thread is to panic; `None`: it never is.
    #[cfg(debug_assertions)]
    pub fn flag(&self, thread: &str) -> Option<&Arc<AtomicBool>> {
        self.asked.as_ref().filter(|(asked, _)| asked == thread).map(|(_, now)| now)
    }

    /// Nothing, in a release.
    #[cfg(not(debug_assertions))]
    pub fn flag(&self, _: &str) -> Option<&Arc<AtomicBool>> {
        None
    }

    /// Panics, if this thread is to.
    pub fn panic_if_asked(&self, thread: &str) {
        let asked = self.flag(thread).is_some_and(|now| now.load(Ordering::Acquire));
        assert!(!asked, "thread {thread} panics as BATON_TEST_PANIC asked");
    }
}
