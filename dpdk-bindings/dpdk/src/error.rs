//! The one place where DPDK's null pointers and negative numbers become errors.

use core::ffi::{CStr, c_int};
use core::fmt;
use core::ptr::NonNull;
use std::ffi::CString;

/// What DPDK refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What was tried, as the end of "cannot ...".
    pub what: String,
    /// The error number, one of `errno.h` or of `rte_errno.h`; 0 when DPDK gave none.
    pub errno: i32,
    /// The error number in words, or more than that where this crate knows more.
    pub reason: String,
}

impl Error {
    /// An error by its number.
    pub(crate) fn from_errno(what: impl Into<String>, errno: i32) -> Error {
        let reason = if errno == 0 {
            String::from("DPDK gave no reason; its log may")
        } else {
            // SAFETY: rte_strerror returns a string of static or thread-local storage, which
            // is copied before this thread can call it again.
            unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(errno)) }.to_string_lossy().into_owned()
        };
        Error { what: what.into(), errno, reason }
    }

    /// Whether the device cannot do what was asked, rather than failed to.
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno, ENOTSUP | ENOSYS)
    }

    /// An error that this crate found itself.
    pub(crate) fn own(what: impl Into<String>, errno: i32, reason: impl Into<String>) -> Error {
        Error { what: what.into(), errno, reason: reason.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.reason)?;
        if self.errno != 0 { write!(f, " (errno {})", self.errno) } else { Ok(()) }
    }
}

impl core::error::Error for Error {}

/// Error numbers that this crate gives itself.
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EEXIST: i32 = 17;
pub(crate) const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;
pub(crate) const ENOTSUP: i32 = 95;

/// `rte_errno` of this thread.
fn last_errno() -> i32 {
    // SAFETY: reads a thread-local number.
    unsafe { dpdk_sys::dpdk_shim_errno() }
}

/// A negative number is an error: `-errno`, or -1 with the number in `rte_errno`.
pub(crate) fn check(what: &str, returned: c_int) -> Result<u32, Error> {
    match u32::try_from(returned) {
        Ok(value) => Ok(value),
        Err(_) if returned == -1 && last_errno() != 0 => Err(Error::from_errno(what, last_errno())),
        Err(_) => Err(Error::from_errno(what, returned.saturating_neg())),
    }
}

/// A null pointer is an error, its number in `rte_errno`.
pub(crate) fn check_pointer<T>(what: &str, returned: *mut T) -> Result<NonNull<T>, Error> {
    NonNull::new(returned).ok_or_else(|| Error::from_errno(what, last_errno()))
}

/// Forgets the thread's earlier error, before a call whose -1 may or may not set one.
pub(crate) fn clear_errno() {
    // SAFETY: writes a thread-local number.
    unsafe { dpdk_sys::dpdk_shim_set_errno(0) }
}

/// A name for C; one with a NUL inside is an error.
pub(crate) fn c_string(what: &str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::own(what, EINVAL, format!("{text:?} holds a NUL character")))
}
