//! Zeroed pages from the operating system: huge ones where they can be had.
//!
//! A table of a gigabyte in pages of 4 KiB misses the TLB on nearly every access, and a walk of the
//! page table is itself a miss of the cache; in pages of 2 MiB it is 512 entries, which fit.
//!
//! Linux has two kinds. *Transparent* huge pages come out of free memory when the first byte of each is
//! touched, if `/sys/kernel/mm/transparent_hugepage/enabled` says `madvise` or `always`; where no free
//! 2 MiB are left in one piece, that part gets small pages and the program runs on. *Explicit* ones come from
//! a pool that the operator reserves (`vm.nr_hugepages`); the kernel sets them aside when they are asked for,
//! so they are there or refused at once. DPDK takes its packet buffers from that same pool, when it
//! starts and later, and has no other source. So transparent ones are the default, and explicit ones
//! are taken by who asks for them, for a pool that was made large enough.

use core::fmt;
use core::ptr::NonNull;

/// Bytes of a huge page.
pub(super) const HUGE: usize = 2 << 20;

/// Bytes of a small page.
const SMALL: usize = 4096;

/// A last part of a huge page is rounded up to a whole one when that adds at most this share of the whole:
/// one part in eight.
const ROUNDED_UP_SHARE: usize = 8;

/// Which pages to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// Transparent huge pages, else small ones. The default: it takes nothing from DPDK.
    #[default]
    Transparent,
    /// Pages of 2 MiB from the operator's pool while enough of it are free, else as `Transparent`.
    Explicit,
    /// Small pages only: for comparison, and for what is small.
    Small,
}

/// Which pages there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 2 MiB each, reserved.
    Explicit2M,
    /// 2 MiB each where the kernel finds them at first touch, and 4 KiB elsewhere.
    Transparent2M,
    /// 4 KiB each.
    Small4K,
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PageSize::Explicit2M => "2 MiB, reserved",
            PageSize::Transparent2M => "2 MiB, transparent",
            PageSize::Small4K => "4 KiB",
        })
    }
}

/// The operating system has not that much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory {
    /// Bytes that were asked for; `usize::MAX` when they cannot be counted.
    pub bytes: usize,
}

impl fmt::Display for NoMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the operating system has no {} bytes of memory left", self.bytes)
    }
}

impl std::error::Error for NoMemory {}

/// Pages of one owner, zeroed when new. They are the owner's until it is dropped, and begin at a page's edge.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    size: PageSize,
}

// SAFETY: the pages belong to this value alone and to no thread; what is in them is the owner's affair.
unsafe impl Send for Mapping {}
// SAFETY: a shared `Mapping` gives an address and numbers only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// At least `bytes` bytes, which are not zero.
    pub(super) fn new(bytes: usize, pages: Pages) -> Result<Mapping, NoMemory> {
        let huge = matches!(pages, Pages::Explicit | Pages::Transparent) && bytes >= HUGE;
        let rounded = rounded(bytes, huge).ok_or(NoMemory { bytes })?;
        if huge && pages == Pages::Explicit {
            let whole = bytes.checked_next_multiple_of(HUGE).ok_or(NoMemory { bytes })?;
            if let Some(start) = system::map_explicit(whole) {
                return Ok(Mapping { start, bytes: whole, size: PageSize::Explicit2M });
            }
        }
        if huge {
            let start = system::map_aligned(rounded).ok_or(NoMemory { bytes })?;
            let size = match system::make_huge(start, rounded) {
                true => PageSize::Transparent2M,
                false => PageSize::Small4K,
            };
            return Ok(Mapping { start, bytes: rounded, size });
        }
        let start = system::map(rounded).ok_or(NoMemory { bytes })?;
        Ok(Mapping { start, bytes: rounded, size: PageSize::Small4K })
    }

    /// Puts memory behind every page.
    pub(super) fn populate(&self) {
        system::populate(self.start, self.bytes);
    }

    /// The first byte.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes that were mapped: whole pages.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the pages are.
    pub(super) fn size(&self) -> PageSize {
        self.size
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `bytes` are those of pages that were mapped and not given back; nobody refers to
        // them any more, since they were this value's.
        unsafe { system::unmap(self.start, self.bytes) }
    }
}

/// Whole pages for this many bytes; `None` when they cannot be counted.
fn rounded(bytes: usize, huge: bool) -> Option<usize> {
    let small = bytes.checked_next_multiple_of(SMALL)?;
    if !huge {
        return Some(small);
    }
    let whole = bytes.checked_next_multiple_of(HUGE)?;
    Some(if whole - small <= whole / ROUNDED_UP_SHARE { whole } else { small })
}

/// The system's calls.
#[cfg(not(miri))]
mod system {
    use core::ptr::{NonNull, null_mut};

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

    use super::HUGE;

    fn anonymous(bytes: usize, more: MapFlags) -> Option<NonNull<u8>> {
        // SAFETY: without an address and without `FIXED`, the kernel chooses a place where nothing is.
        let start = unsafe {
            mmap_anonymous(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | more)
        };
        NonNull::new(start.ok()?.cast())
    }

    /// Pages as the kernel likes.
    pub(super) fn map(bytes: usize) -> Option<NonNull<u8>> {
        anonymous(bytes, MapFlags::empty())
    }

    /// Whole pages of 2 MiB from the pool, reserved; `None` when it has not so many.
    pub(super) fn map_explicit(bytes: usize) -> Option<NonNull<u8>> {
        anonymous(bytes, MapFlags::HUGETLB | MapFlags::HUGE_2MB)
    }

    /// Pages that begin at a multiple of 2 MiB: more is mapped, and what is over on both sides given back.
    pub(super) fn map_aligned(bytes: usize) -> Option<NonNull<u8>> {
        let all = bytes.checked_add(HUGE)?;
        let start = anonymous(all, MapFlags::empty())?;
        let before = start.addr().get().next_multiple_of(HUGE) - start.addr().get();
        // SAFETY: `before` is less than `HUGE`, so both the aligned start and the end of `bytes` after it lie
        // within the `all` bytes just mapped; what is given back is outside of what is returned.
        unsafe {
            let aligned = start.add(before);
            if before > 0 {
                unmap(start, before);
            }
            if all - before > bytes {
                unmap(aligned.add(bytes), all - before - bytes);
            }
            Some(aligned)
        }
    }

    /// Asks for transparent huge pages in untouched memory; whether the kernel gives any to who asks.
    pub(super) fn make_huge(start: NonNull<u8>, bytes: usize) -> bool {
        // SAFETY: the pages are ours, and this advice changes nothing of what is in them.
        unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxHugepage) }.is_ok()
            && transparent_enabled()
    }

    /// Puts memory behind pages (Linux 5.14); an older kernel refuses, and they get it when they are touched.
    pub(super) fn populate(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the pages are ours, and what is in them stays as it is.
        let _ = unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxPopulateWrite) };
    }

    /// Gives pages back.
    ///
    /// # Safety
    /// They were mapped, whole, and nothing refers to them any more.
    pub(super) unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
        // SAFETY: by the caller's word.
        let gone = unsafe { munmap(start.as_ptr().cast(), bytes) };
        debug_assert!(gone.is_ok(), "pages that were mapped can be given back");
    }

    /// The kernel's setting, such as `always [madvise] never`; advice is accepted under `never` too.
    fn transparent_enabled() -> bool {
        use rustix::fs::{Mode, OFlags, open};
        let setting = "/sys/kernel/mm/transparent_hugepage/enabled";
        let Ok(file) = open(setting, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return false };
        let mut text = [0; 64];
        let Ok(len) = rustix::io::read(&file, &mut text) else { return false };
        let text = &text[..len];
        [&b"[always]"[..], b"[madvise]"].iter().any(|word| text.windows(word.len()).any(|at| at == *word))
    }
}

/// The heap in place of the system, for Miri, which knows few system calls.
#[cfg(miri)]
mod system {
    use core::ptr::NonNull;
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    use super::SMALL;

    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes, SMALL).ok()
    }

    pub(super) fn map(bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: the callers ask for one page at least.
        NonNull::new(unsafe { alloc_zeroed(layout(bytes)?) })
    }

    pub(super) fn map_explicit(_bytes: usize) -> Option<NonNull<u8>> {
        None
    }

    pub(super) fn map_aligned(bytes: usize) -> Option<NonNull<u8>> {
        map(bytes)
    }

    pub(super) fn make_huge(_start: NonNull<u8>, _bytes: usize) -> bool {
        false
    }

    /// # Safety
    /// As of the other one.
    pub(super) unsafe fn unmap(start: NonNull<u8>, bytes: usize) {
        // SAFETY: it came from `map` with the same length, by the caller's word.
        unsafe { dealloc(start.as_ptr(), layout(bytes).expect("it was made")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole_and_little_is_wasted() {
        assert_eq!(rounded(1, false), Some(SMALL));
        assert_eq!(rounded(HUGE + 1, false), Some(HUGE + SMALL));
        assert_eq!(rounded(HUGE, true), Some(HUGE));
        assert_eq!(rounded(HUGE + 1, true), Some(HUGE + SMALL), "not a second huge page for one byte");
        assert_eq!(rounded(2 * HUGE - SMALL, true), Some(2 * HUGE));
        assert_eq!(rounded(100 * HUGE + 1, true), Some(101 * HUGE), "one in a hundred is little");
        assert_eq!((rounded(usize::MAX, true), rounded(usize::MAX, false)), (None, None));
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        if cfg!(miri) {
            return; // It stops where its own memory ends.
        }
        for pages in [Pages::Small, Pages::Transparent, Pages::Explicit] {
            for bytes in [usize::MAX, usize::MAX / 2, 1 << 50] {
                assert_eq!(Mapping::new(bytes, pages).map(|_| ()), Err(NoMemory { bytes }), "{pages:?}");
            }
        }
        assert!(NoMemory { bytes: 7 }.to_string().contains("no 7 bytes"));
    }

    #[test]
    fn huge_ones_begin_at_a_multiple_of_their_size() {
        if cfg!(miri) {
            return; // It has the heap in their place.
        }
        for bytes in [HUGE, HUGE + 1, 3 * HUGE - 1, 9 * HUGE] {
            for pages in [Pages::Transparent, Pages::Explicit] {
                let mapping = Mapping::new(bytes, pages).expect("a few megabytes");
                assert_eq!(mapping.start().addr().get() % HUGE, 0, "{bytes} {pages:?}");
                assert!(mapping.bytes() >= bytes);
            }
        }
    }
}
