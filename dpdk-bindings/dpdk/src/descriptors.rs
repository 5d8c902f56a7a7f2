//! Descriptors that DPDK opens: those of its memory, kept for when a driver closes them; and all, kept from children.
//!
//! DPDK 22.11's memif closes the descriptor of the memory that it shares with its peer, when a port
//! with `zero-copy` connects. But that one is the EAL's: the next such port cannot connect, and
//! if something else got the number meanwhile, closes that instead.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use crate::eal::Running;

/// The descriptors of memory that the EAL had when this was made.
#[derive(Debug)]
pub struct MemoryDescriptors {
    /// A number, what it is, and a copy of it under another number.
    kept: Vec<(RawFd, PathBuf, OwnedFd)>,
}

/// How the EAL calls its memory: anonymous with and without hugepages, and files in a mount.
const NAMES: [&str; 3] = ["/memfd:seg_", "/memfd:nohuge", "rtemap_"];

fn path_of(number: RawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{number}"))
}

/// Sets close-on-exec on every descriptor that this process has at the moment, but for standard input, output and error.
/// DPDK opens devices, sockets and hugepages without it, and a child that lives on would keep them busy. Linux 5.11 at least.
pub fn keep_from_children() -> io::Result<()> {
    // SAFETY: it takes nothing, and changes a flag that matters to programs that this process starts alone.
    if unsafe { dpdk_sys::dpdk_shim_close_on_exec() } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

impl MemoryDescriptors {
    /// Copies them.
    pub fn keep(_: &Running) -> io::Result<MemoryDescriptors> {
        let mut kept = Vec::new();
        for entry in fs::read_dir("/proc/self/fd")? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else { continue };
            // The descriptor of this very reading is gone when it is looked at.
            let Ok(target) = fs::read_link(path_of(number)) else { continue };
            if NAMES.iter().any(|name| target.to_string_lossy().contains(name)) {
                // SAFETY: it is open, and it is the EAL's, which closes none while it runs.
                let copy = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()?;
                kept.push((number, target, copy));
            }
        }
        Ok(MemoryDescriptors { kept })
    }

    /// Opens those again that were closed, under their numbers, and says how many. A number that is
    /// something else by now is an error.
    pub fn restore(&self) -> io::Result<usize> {
        let mut restored = 0;
        for (number, target, copy) in &self.kept {
            match fs::read_link(path_of(*number)) {
                Ok(now) if now == *target => {}
                Ok(now) => {
                    return Err(io::Error::other(format!("descriptor {number} is {} now", now.display())));
                }
                Err(_) => {
                    // SAFETY: the copy is open, and nothing has the number that it gets.
                    if unsafe { dpdk_sys::dpdk_shim_duplicate_to(copy.as_raw_fd(), *number) } < 0 {
                        return Err(io::Error::last_os_error());
                    }
                    restored += 1;
                }
            }
        }
        Ok(restored)
    }
}
