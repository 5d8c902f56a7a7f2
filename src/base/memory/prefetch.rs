//! Hints that a line will be needed. They never fault, and a wrong one costs a little time only.

/// Asks for the line at which `at` begins, to be read. Of a value longer than a line, only the
/// first line comes: ask for its later fields too where they are needed.
#[inline(always)]
pub fn prefetch<T>(at: &T) {
    read(core::ptr::from_ref(at).cast());
}

/// As [`prefetch`], for a line that will be written. Where the processor knows no such hint, it is
/// fetched as for reading.
#[inline(always)]
pub fn prefetch_write<T>(at: &T) {
    write(core::ptr::from_ref(at).cast());
}

/// A line at any address: an invalid one is passed over by the processor.
#[inline(always)]
pub(super) fn read(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch accesses no memory as far as the program can tell, and faults at no address;
        // every x86_64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above; it touches no register and no flag.
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly))
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = at;
}

/// As [`read`], in order to write.
#[inline(always)]
pub(super) fn write(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: as in `read`; without PREFETCHW in the target's features this becomes a PREFETCHT0.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(at.cast()) }
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as in `read`.
    unsafe {
        core::arch::asm!("prfm pstl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly))
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_at_any_address_changes_nothing() {
        let mut value = [7_u64; 16];
        prefetch(&value);
        prefetch_write(&value[15]);
        for address in [0, 1, 0xfff, usize::MAX / 2, usize::MAX] {
            read(core::ptr::without_provenance(address));
            write(core::ptr::without_provenance(address));
        }
        value[0] = 1;
        assert_eq!((value[0], value[15]), (1, 7));
    }
}
