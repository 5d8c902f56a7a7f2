//! Whole cache lines for whatever is allocated.

use std::alloc::{GlobalAlloc, Layout, System};

/// What processors fetch together: a line of 64 bytes, and the next one in advance. In bytes.
pub const LINES: usize = 128;

/// The operating system's allocator, in whole lines: no two things that are allocated share any.
///
/// All parts of an appliance are made by one thread, one after the other, and then go to lcores of their own. Side by
/// side in one line, one lcore's writes would take the line from another one that never looks at what was written
/// (REQ E1). Costs up to two lines of memory for each thing; what is as numerous as flows is in [`Slab`](super::Slab)s.
#[derive(Debug)]
pub struct WholeLines;

/// The same bytes, in whole lines.
const fn whole(layout: Layout) -> Layout {
    let align = if layout.align() > LINES { layout.align() } else { LINES };
    match Layout::from_size_align(layout.size(), align) {
        Ok(aligned) => aligned.pad_to_align(),
        // Nobody has so much memory: the system refuses it as it is.
        Err(_) => layout,
    }
}

// SAFETY: all is passed on to the system's allocator, with a layout that depends on the given one alone, so that memory
// is given back with the layout that it was taken with; it is at least as large and as aligned as was asked for.
unsafe impl GlobalAlloc for WholeLines {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise: it is not of no size, so the padded one is not either.
        unsafe { System.alloc(whole(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(whole(layout)) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: it was taken with this layout, by the caller's promise, so with this padded one.
        unsafe { System.dealloc(memory, whole(layout)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_allocated_shares_a_line_whoever_allocates_it() {
        let sizes = || (1..400).chain([4096, 5000, 100_000]);
        let make = move || sizes().map(|size| vec![size as u8; size].into_boxed_slice()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(make)).collect();
        let mut all: Vec<_> =
            threads.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect();
        // What is given back is used again.
        all.retain(|one| one.len() % 3 != 0);
        all.extend(make());
        let mut lines: Vec<_> = all.iter().map(|one| one.as_ptr_range()).collect();
        lines.sort_unstable_by_key(|range| range.start);
        assert!(lines.iter().all(|range| range.start.addr() % LINES == 0));
        let lines = lines.iter().map(|range| (range.start.addr(), range.end.addr().next_multiple_of(LINES)));
        let lines: Vec<_> = lines.collect();
        assert!(lines.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        assert!(all.iter().all(|one| one.iter().all(|byte| *byte == one.len() as u8)));
    }

    #[test]
    fn layouts_are_whole_lines_and_keep_larger_alignments() {
        let padded = |size, align| {
            let layout = whole(Layout::from_size_align(size, align).expect("a layout"));
            (layout.size(), layout.align())
        };
        assert_eq!(padded(1, 1), (128, 128));
        assert_eq!(padded(129, 8), (256, 128));
        assert_eq!(padded(128, 64), (128, 128));
        assert_eq!(padded(100, 4096), (4096, 4096));
        // Too much for whole lines: refused by whom it is asked of.
        assert_eq!(padded(isize::MAX as usize, 1).1, 1);
    }

    #[test]
    fn what_grows_keeps_what_it_holds() {
        let mut grown = Vec::new();
        for n in 0..10_000_u32 {
            grown.push(n);
            assert_eq!(grown.as_ptr().addr() % LINES, 0);
        }
        grown.truncate(77);
        grown.shrink_to_fit();
        assert_eq!(grown, (0..77).collect::<Vec<_>>());
        assert_eq!(vec![0_u64; 1000].iter().sum::<u64>(), 0);
    }
}
