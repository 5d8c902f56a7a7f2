//! An array of fixed length in pages of its own.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::Plain;
use super::pages::{Mapping, NoMemory, PageSize, Pages};
use super::prefetch;

/// Slabs begin at a multiple of this, and of their elements' alignment: whole lines, whole pages.
const ALIGNMENT: usize = 4096;

/// A zeroed array whose length never changes, in huge pages when it is large.
///
/// Its memory is taken from the operating system at once, so what is too much is refused here and not
/// later; but a page costs nothing until something in it is touched. What is smaller than a huge page is in
/// small ones: rather one slab for many tables than many small slabs.
///
/// Reading it before anything was written gives zeros, so only [`Plain`] types may stand in it. Nothing in
/// it is dropped, and the compiler refuses types for which that matters.
pub struct Slab<T: Plain> {
    start: NonNull<T>,
    len: usize,
    /// `None` when there is not one byte to hold.
    mapping: Option<Mapping>,
    holds: PhantomData<T>,
}

// SAFETY: a slab owns its elements as a box does: it moves between threads when they may.
unsafe impl<T: Plain + Send> Send for Slab<T> {}
// SAFETY: sharing a slab shares its elements and nothing else.
unsafe impl<T: Plain + Sync> Sync for Slab<T> {}

impl<T: Plain> Slab<T> {
    /// `len` elements of zeros, in transparent huge pages if they are large.
    pub fn new(len: usize) -> Result<Slab<T>, NoMemory> {
        Slab::with_pages(len, Pages::default())
    }

    /// `len` elements of zeros, in such pages as can be had of those asked for.
    pub fn with_pages(len: usize, pages: Pages) -> Result<Slab<T>, NoMemory> {
        const { assert!(!core::mem::needs_drop::<T>(), "a slab drops nothing") };
        const { assert!(align_of::<T>() <= ALIGNMENT, "pages are not aligned to more") };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(NoMemory { bytes: usize::MAX })?;
        if bytes == 0 {
            return Ok(Slab { start: NonNull::dangling(), len, mapping: None, holds: PhantomData });
        }
        let mapping = Mapping::new(bytes, pages)?;
        Ok(Slab { start: mapping.start().cast(), len, mapping: Some(mapping), holds: PhantomData })
    }

    /// Asks for the line at which an element begins, to be read. Any index will do: one beyond the end is a
    /// wasted hint, so nothing is checked.
    #[inline(always)]
    pub fn prefetch(&self, index: usize) {
        prefetch::read(self.address(index));
    }

    /// As [`Slab::prefetch`], for an element that will be written.
    #[inline(always)]
    pub fn prefetch_write(&self, index: usize) {
        prefetch::write(self.address(index));
    }

    /// Where an element would be.
    #[inline(always)]
    fn address(&self, index: usize) -> *const u8 {
        self.start.as_ptr().cast_const().wrapping_add(index).cast()
    }

    /// Has the operating system put memory behind all of it now, so that a first touch never waits for that: a
    /// huge page takes a hundred microseconds to clear. Without a kernel that does it on request, nothing happens.
    pub fn populate(&self) {
        if let Some(mapping) = &self.mapping {
            mapping.populate();
        }
    }

    /// The pages it is in.
    pub fn page_size(&self) -> PageSize {
        self.mapping.as_ref().map_or(PageSize::Small4K, Mapping::size)
    }

    /// Bytes of address space: whole pages. How many are resident depends on what was touched.
    pub fn bytes_mapped(&self) -> usize {
        self.mapping.as_ref().map_or(0, Mapping::bytes)
    }
}

impl<T: Plain> Deref for Slab<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `start` is aligned (a page's edge, or dangling for no bytes) and begins `len` elements that
        // fit in the mapping, which lives as long as `self`; they are zeros, valid for `Plain` types, or what
        // was written through `deref_mut`.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Slab<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; and `self` is borrowed alone, so nobody else has the elements.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slab of {} ({})", self.len, self.page_size())
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Plain)]
    struct Entry {
        key: [u8; 12],
        index: u32,
        version: u64,
        flag: bool,
    }

    #[derive(Plain)]
    #[repr(C, align(64))]
    struct Line([u16; 16]);

    /// Lengths around a page, a huge page and several; Miri has little time.
    fn lengths() -> Vec<usize> {
        if cfg!(miri) { vec![0, 1, 200] } else { vec![0, 1, 200, 100_000, 500_001] }
    }

    #[test]
    fn a_new_slab_is_all_zeros_and_can_be_written_everywhere() {
        for pages in [Pages::Small, Pages::Transparent, Pages::Explicit] {
            for len in lengths() {
                let mut slab: Slab<Entry> = Slab::with_pages(len, pages).expect("a few megabytes");
                assert_eq!(slab.len(), len);
                let zero = Entry { key: [0; 12], index: 0, version: 0, flag: false };
                assert!(slab.iter().all(|entry| *entry == zero), "{len} {pages:?}");
                for (at, entry) in slab.iter_mut().enumerate() {
                    *entry = Entry { key: [at as u8; 12], index: at as u32, version: !0, flag: true };
                }
                assert!(slab.iter().enumerate().all(|(at, entry)| entry.index == at as u32 && entry.flag));
                assert!(slab.bytes_mapped() >= len * size_of::<Entry>());
            }
        }
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn beyond_the_end_is_nothing() {
        let slab: Slab<u32> = Slab::new(1000).expect("a page");
        // The page has room for 1,024.
        let _ = slab[1000];
    }

    #[test]
    fn elements_are_aligned_and_slabs_begin_on_a_line_of_their_own() {
        for len in [1, 3, 65] {
            let lines: Slab<Line> = Slab::new(len).expect("a page");
            assert!(lines.iter().all(|line| core::ptr::from_ref(line).addr() % 64 == 0 && line.0 == [0; 16]));
            let bytes: Slab<u8> = Slab::new(len).expect("a page");
            assert_eq!(bytes.as_ptr().addr() % 64, 0);
        }
    }

    #[test]
    fn a_length_that_cannot_be_counted_is_refused() {
        assert_eq!(Slab::<u64>::new(usize::MAX / 4).err(), Some(NoMemory { bytes: usize::MAX }));
        assert!(Slab::<u8>::new(usize::MAX).is_err());
        assert_eq!(Slab::<[u8; 0]>::new(usize::MAX).expect("nothing to hold").len(), usize::MAX);
    }

    #[test]
    fn small_slabs_are_in_small_pages_and_large_ones_in_huge_ones_where_there_are_any() {
        let small: Slab<u8> = Slab::new(super::super::pages::HUGE - 1).expect("two megabytes");
        assert_eq!(small.page_size(), PageSize::Small4K);
        let large: Slab<u8> = Slab::new(super::super::pages::HUGE).expect("two megabytes");
        assert_ne!(large.page_size(), PageSize::Explicit2M, "the operator's pool is DPDK's");
        let chosen: Slab<u8> = Slab::with_pages(large.len(), Pages::Small).expect("two megabytes");
        assert_eq!(chosen.page_size(), PageSize::Small4K);
    }

    #[test]
    fn populating_changes_nothing_that_can_be_read() {
        let mut slab: Slab<u64> = Slab::new(1 << 20).expect("eight megabytes");
        slab[77] = 5;
        slab.populate();
        assert_eq!((slab[77], slab.iter().sum::<u64>()), (5, 5));
        Slab::<u64>::new(0).expect("nothing").populate();
    }

    #[test]
    fn a_hint_needs_no_valid_index() {
        let slab: Slab<u32> = Slab::new(10).expect("a page");
        for index in [0, 9, 10, usize::MAX / 2, usize::MAX] {
            slab.prefetch(index);
            slab.prefetch_write(index);
        }
        assert!(slab.iter().all(|value| *value == 0));
    }

    #[test]
    fn threads_share_and_pass_on_slabs() {
        let ticks: Slab<AtomicU32> = Slab::new(100).expect("a page");
        std::thread::scope(|scope| {
            for part in ticks.chunks(50) {
                scope.spawn(move || part.iter().for_each(|tick| tick.store(7, Ordering::Relaxed)));
            }
        });
        let moved = std::thread::spawn(move || ticks.iter().map(|tick| tick.load(Ordering::Relaxed)).sum());
        let sum: u32 = moved.join().expect("it ends");
        assert_eq!(sum, 700);
    }

    /// Bytes of address space that this process has.
    fn address_space() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux says");
        pages.split(' ').next().and_then(|first| first.parse::<usize>().ok()).expect("pages") * 4096
    }

    #[test]
    fn dropping_gives_the_memory_back() {
        if cfg!(miri) {
            return; // It finds leaks by itself.
        }
        let before = address_space();
        for round in 0..1024 {
            let mut slab: Slab<u8> = Slab::new(64 << 20).expect("memory, since it was given back");
            let middle = slab.len() / 2;
            assert_eq!((slab[0], slab[middle]), (0, 0), "round {round}");
            (slab[0], slab[middle]) = (1, 1);
        }
        // 64 GiB in all; what other tests take meanwhile is far less.
        assert!(address_space() < before + (8 << 30));
    }
}
