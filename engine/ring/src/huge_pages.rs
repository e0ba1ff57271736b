//! Huge pages for large tables, and for nothing else.
//!
//! A table of megabytes that is read at random misses the processor's list of pages with nearly every look; on a
//! virtual machine, where each miss walks two trees, that costs more than the look itself. Huge pages mend it and cost
//! nothing there, since such a table is in use all over. Small things together are not: what idle phones leave free
//! between each other would be kept, two to three times what they take. So the allocator asks for them for single large
//! pieces only, and the rest of the process is kept from them ([`only_for_large`]).

use std::alloc::{GlobalAlloc, Layout};
use std::io;

/// A huge page of x86-64 and, with pages of 4 KiB, of AArch64.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// An allocator whose pieces of 2 MiB and more lie on huge pages, where the kernel has some. Its inner allocator must
/// not ask for huge pages by itself.
#[derive(Debug)]
pub struct LargeOnHugePages<A>(A);

impl<A> LargeOnHugePages<A> {
    /// On top of another allocator.
    pub const fn new(inner: A) -> Self {
        Self(inner)
    }
}

const fn is_large(bytes: usize) -> bool {
    bytes >= HUGE_PAGE_BYTES
}

/// The same piece, beginning with a huge page. None for what is small.
fn aligned(layout: Layout) -> Option<Layout> {
    if is_large(layout.size()) { layout.align_to(HUGE_PAGE_BYTES).ok() } else { None }
}

/// The bytes of the whole huge pages of a piece.
const fn whole(bytes: usize) -> usize {
    bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
}

/// Tells the kernel about the whole huge pages of a piece. It may say no: then its pages are small ones.
fn advise(start: *mut u8, bytes: usize, advice: libc::c_int) -> bool {
    // SAFETY: which advice is given, and that what is in the memory survives it or is not needed, is the callers' to say;
    // the range lies within one piece of theirs, since its length is rounded down.
    unsafe { libc::madvise(start.cast(), whole(bytes), advice) == 0 }
}

/// Lets a new piece lie on huge pages, also where small things have lain before: their small pages are given back, and
/// the kernel gives huge ones, zeroed, as the piece is touched. False if what is in it stays.
fn begin(start: *mut u8, bytes: usize) -> bool {
    advise(start, bytes, libc::MADV_HUGEPAGE);
    // Private memory that belongs to no file reads as zeros after this; nobody needs what is in a new piece.
    advise(start, bytes, libc::MADV_DONTNEED)
}

// SAFETY: every call goes to the inner allocator, which keeps the contract; a piece is given back with the layout that
// it was got with, since `aligned` depends on nothing but the caller's layout.
unsafe impl<A: GlobalAlloc> GlobalAlloc for LargeOnHugePages<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(large) = aligned(layout) else {
            // SAFETY: the caller's promise is passed on.
            return unsafe { self.0.alloc(layout) };
        };
        // SAFETY: the size is the caller's, so not zero.
        let start = unsafe { self.0.alloc(large) };
        if !start.is_null() {
            begin(start, large.size());
        }
        start
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(large) = aligned(layout) else {
            // SAFETY: the caller's promise is passed on.
            return unsafe { self.0.alloc_zeroed(layout) };
        };
        // SAFETY: the size is the caller's, so not zero. The inner allocator is not asked for zeros: it would write them
        // itself, into small pages.
        let start = unsafe { self.0.alloc(large) };
        if !start.is_null() {
            let zeroed_bytes = if begin(start, large.size()) { whole(large.size()) } else { 0 };
            // SAFETY: the rest of the piece.
            unsafe { start.add(zeroed_bytes).write_bytes(0, large.size() - zeroed_bytes) };
        }
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        let Some(large) = aligned(layout) else {
            // SAFETY: it was got with this layout.
            return unsafe { self.0.dealloc(start, layout) };
        };
        // Small things may come to lie here next.
        advise(start, large.size(), libc::MADV_NOHUGEPAGE);
        // SAFETY: it was got with the aligned layout.
        unsafe { self.0.dealloc(start, large) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !is_large(layout.size()) && !is_large(new_size) {
            // SAFETY: the caller's promise is passed on.
            return unsafe { self.0.realloc(start, layout, new_size) };
        }
        // SAFETY: the caller promises that the new size, rounded up to the alignment, is no more than isize::MAX.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both pieces hold as many bytes, and the new one is nobody else's.
            unsafe { new.copy_from_nonoverlapping(start, layout.size().min(new_size)) };
            // SAFETY: it was got with this layout, and is not used any more.
            unsafe { self.dealloc(start, layout) };
        }
        new
    }
}

/// From now on only memory that asks for huge pages gets any, whatever the system's default. Where the default is
/// `always`, that takes Linux 6.18; before it, nothing gets any then.
///
/// # Errors
/// A kernel without huge pages, or a sandbox that forbids the call.
pub fn only_for_large() -> io::Result<()> {
    /// Since Linux 6.18 (`include/uapi/linux/prctl.h`).
    const PR_THP_DISABLE_EXCEPT_ADVISED: libc::c_ulong = 1 << 1;
    let system = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if system.is_ok_and(|modes| modes.contains("[always]")) {
        thp_disable(1, PR_THP_DISABLE_EXCEPT_ADVISED).or_else(|_| thp_disable(1, 0))
    } else {
        thp_disable(0, 0)
    }
}

fn thp_disable(disable: libc::c_ulong, flags: libc::c_ulong) -> io::Result<()> {
    const NONE: libc::c_ulong = 0;
    // SAFETY: this operation takes numbers only; it changes how memory is backed, never what is in it.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, disable, flags, NONE, NONE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;

    const ALLOCATOR: LargeOnHugePages<System> = LargeOnHugePages::new(System);

    /// What the kernel tells of the mapping that an address lies in.
    fn flags(address: usize) -> Vec<String> {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_here = false;
        for line in maps.lines() {
            let head = line.split(' ').next().unwrap();
            if let Some((start, end)) = head.split_once('-')
                && let (Ok(start), Ok(end)) =
                    (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
            {
                is_here = (start..end).contains(&address);
            } else if is_here && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.split_whitespace().map(str::to_string).collect();
            }
        }
        panic!("no mapping at {address:x}");
    }

    fn asks(address: *mut u8) -> bool {
        flags(address as usize).iter().any(|flag| flag == "hg")
    }

    #[test]
    fn large_pieces_ask_and_small_ones_do_not() {
        let (small, large) = (
            Layout::from_size_align(HUGE_PAGE_BYTES - 1, 8).unwrap(),
            Layout::from_size_align(3 * HUGE_PAGE_BYTES + 5, 8).unwrap(),
        );
        // SAFETY: neither size is zero, and each piece is given back with its layout.
        unsafe {
            let piece = ALLOCATOR.alloc(small);
            assert!(!asks(piece));
            ALLOCATOR.dealloc(piece, small);
            let piece = ALLOCATOR.alloc_zeroed(large);
            assert_eq!(piece as usize % HUGE_PAGE_BYTES, 0);
            // A kernel without huge pages knows no such flag.
            if std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
                assert!(asks(piece));
                assert!(!asks(piece.add(large.size() - 1)), "only whole huge pages");
            }
            assert!(std::slice::from_raw_parts(piece, large.size()).iter().all(|byte| *byte == 0));
            ALLOCATOR.dealloc(piece, large);
        }
    }

    /// Hands out memory that others have used.
    struct Used;

    // SAFETY: all of it is the system's allocator, whose new pieces are ours to write to.
    unsafe impl GlobalAlloc for Used {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the caller's promise is passed on; a piece is as long as its layout says.
            unsafe {
                let start = System.alloc(layout);
                start.write_bytes(0xaa, layout.size());
                start
            }
        }

        unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
            // SAFETY: the caller's promise is passed on.
            unsafe { System.dealloc(start, layout) }
        }
    }

    #[test]
    fn memory_that_was_used_is_zeroed_to_its_last_byte_and_its_small_pages_are_given_back() {
        let layout = Layout::from_size_align(2 * HUGE_PAGE_BYTES + 4099, 8).unwrap();
        // SAFETY: the size is not zero, what is read lies within the piece, and it is given back with its layout.
        unsafe {
            let piece = LargeOnHugePages::new(Used).alloc_zeroed(layout);
            let mut resident = [0; 2 * HUGE_PAGE_BYTES / 4096];
            assert_eq!(libc::mincore(piece.cast(), 2 * HUGE_PAGE_BYTES, resident.as_mut_ptr()), 0);
            assert_eq!(
                resident.iter().filter(|page| **page & 1 == 1).count(),
                0,
                "nobody has touched them yet"
            );
            assert!(std::slice::from_raw_parts(piece, layout.size()).iter().all(|byte| *byte == 0));
            LargeOnHugePages::new(Used).dealloc(piece, layout);
        }
    }

    #[test]
    fn pieces_keep_their_content_when_they_grow_and_shrink() {
        let sizes =
            [100, 5000, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, 5 * HUGE_PAGE_BYTES, HUGE_PAGE_BYTES + 1, 300];
        let mut layout = Layout::from_size_align(64, 64).unwrap();
        // SAFETY: no size is zero, and each piece is given back with the layout that it has by then.
        unsafe {
            let mut piece = ALLOCATOR.alloc(layout);
            piece.write_bytes(7, layout.size());
            for size in sizes {
                piece = ALLOCATOR.realloc(piece, layout, size);
                assert_eq!(piece as usize % 64, 0);
                let kept = layout.size().min(size);
                assert!(std::slice::from_raw_parts(piece, kept).iter().all(|byte| *byte == 7), "{size}");
                layout = Layout::from_size_align(size, 64).unwrap();
                piece.write_bytes(7, size);
            }
            ALLOCATOR.dealloc(piece, layout);
        }
    }
}
