//! The provided buffers: memory that the kernel fills when bytes arrive, so that idle sockets hold none.
//!
//! The kernel goes round the buffers that it has, so sooner or later each of them is touched. It gets as many as turns
//! fill, twice over, and the rest stays untouched in reserve: a shard whose phones are idle needs a few.

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The only buffer group of a ring.
pub(crate) const GROUP: u16 = 0;
/// Buffers that the kernel has at least, as far as there are so many.
const WANTED_MIN: u16 = 32;
/// Quiet calls of [`Buffers::trim`] in a row after which the kernel gets half as many: who pauses between two bursts for
/// a moment finds the buffers of the first.
const QUIET_TRIMS: u8 = 4;
/// Buffers whose memory one call gives back at most: each is a system call.
const FORGET_COUNT_MAX: usize = 128;
const PAGE_BYTES: u32 = 4096;

/// A ring of `count` buffers, shared with the kernel until [`Buffers::unregister`].
pub(crate) struct Buffers {
    entries: NonNull<BufRingEntry>,
    entries_layout: Layout,
    data: NonNull<u8>,
    data_layout: Layout,
    count: u16,
    each_bytes: u32,
    tail: u16,
    /// Buffers that the kernel has or has filled. All others are in reserve.
    out_count: u16,
    /// So many are to be out.
    wanted_count: u16,
    /// Most that one turn filled since the last trim.
    filled_most: u16,
    /// Calls of `trim` in a row that found few filled.
    quiet_count: u8,
    /// The last one in is the first one out.
    reserve: Vec<u16>,
    /// So many at the bottom of the reserve take no memory.
    clean_count: usize,
}

impl Buffers {
    /// Allocates and registers the buffers, all of them free.
    pub(crate) fn register(uring: &IoUring, count: u16, each_bytes: u32) -> io::Result<Self> {
        if !count.is_power_of_two() || count > 1 << 15 || each_bytes == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "buffer_count must be a power of two up to 32768",
            ));
        }
        let entries_layout = Layout::from_size_align(usize::from(count) * size_of::<BufRingEntry>(), 4096)
            .expect("buffer ring size");
        let data_layout = Layout::from_size_align(usize::from(count) * each_bytes as usize, 4096)
            .expect("buffer memory size");
        // SAFETY: neither layout has size zero (checked above).
        let (entries, data) = unsafe { (alloc_zeroed(entries_layout), alloc_zeroed(data_layout)) };
        let Some(entries) = NonNull::new(entries.cast::<BufRingEntry>()) else {
            handle_alloc_error(entries_layout)
        };
        let Some(data) = NonNull::new(data) else { handle_alloc_error(data_layout) };
        // On huge pages the reserve could not be left untouched, nor given back.
        // SAFETY: advice changes how memory is backed, never what is in it; the range is the allocation.
        unsafe { libc::madvise(data.as_ptr().cast(), data_layout.size(), libc::MADV_NOHUGEPAGE) };
        let wanted_count = count.min(WANTED_MIN);
        let reserve: Vec<u16> = (wanted_count..count).rev().collect();
        let mut buffers = Self {
            entries,
            entries_layout,
            data,
            data_layout,
            count,
            each_bytes,
            tail: 0,
            out_count: wanted_count,
            wanted_count,
            filled_most: 0,
            quiet_count: 0,
            clean_count: reserve.len(),
            reserve,
        };
        // SAFETY: the entries are page-aligned, `count` long, and stay allocated until they are unregistered or leaked
        // (Ring's drop).
        unsafe {
            uring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, GROUP, 0)?;
        }
        for id in 0..wanted_count {
            buffers.push(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// The kernel must not use the buffers after this.
    pub(crate) fn unregister(&self, uring: &IoUring) {
        // A failure means that the kernel never had them.
        let _ = uring.submitter().unregister_buf_ring(GROUP);
    }

    fn push(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index` is below `count`, the length of the allocation; the kernel reads entries only up to the
        // published tail, and this one is past it. The tail field overlaps the reserved part of entry 0, which the
        // setters do not touch.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(index);
            entry.set_addr(self.data.as_ptr() as u64 + u64::from(id) * u64::from(self.each_bytes));
            entry.set_len(self.each_bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail is an aligned u16 inside the registered entries; the kernel only reads it, atomically.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Gives buffer `id` back, to the kernel or to the reserve.
    pub(crate) fn give(&mut self, id: u16) {
        assert!(id < self.count, "buffer id out of range");
        if self.out_count > self.wanted_count {
            self.out_count -= 1;
            self.reserve.push(id);
        } else {
            self.push(id);
            self.publish();
        }
    }

    /// A turn filled so many, and receives may be waiting for more: the kernel gets twice as many where it is short.
    pub(crate) fn turn_ended(&mut self, filled_count: u32, is_starving: bool) {
        let filled_count = u16::try_from(filled_count).unwrap_or(u16::MAX);
        self.filled_most = self.filled_most.max(filled_count);
        if !is_starving && filled_count <= self.wanted_count / 2 || self.wanted_count == self.count {
            return;
        }
        self.wanted_count = self.wanted_count.saturating_mul(2).min(self.count);
        while self.out_count < self.wanted_count
            && let Some(id) = self.reserve.pop()
        {
            self.out_count += 1;
            self.push(id);
        }
        self.clean_count = self.clean_count.min(self.reserve.len());
        self.publish();
    }

    /// To be called about once a second. Lets the kernel have half as many from now on if for some calls no turn has
    /// filled a quarter, and gives back the memory of some that came into the reserve. Whether there is more to give back.
    pub(crate) fn trim(&mut self) -> bool {
        let is_quiet = std::mem::take(&mut self.filled_most) <= self.wanted_count / 4;
        self.quiet_count = if is_quiet { self.quiet_count + 1 } else { 0 };
        if self.quiet_count == QUIET_TRIMS {
            self.quiet_count = 0;
            self.wanted_count = (self.wanted_count / 2).max(self.count.min(WANTED_MIN));
        }
        let end = self.reserve.len().min(self.clean_count + FORGET_COUNT_MAX);
        for place in self.clean_count..end {
            self.forget(self.reserve[place]);
        }
        self.clean_count = end;
        end < self.reserve.len() || self.wanted_count > self.count.min(WANTED_MIN)
    }

    /// Gives the memory of a buffer in reserve back to the system; it is there again, zeroed, when it is touched.
    fn forget(&mut self, id: u16) {
        // Buffers that share a page with others keep it.
        if !self.each_bytes.is_multiple_of(PAGE_BYTES) {
            return;
        }
        // SAFETY: in range (ids are below `count`), page-aligned (the data are, and a buffer is whole pages), and ours
        // alone: the kernel has no buffer that is in reserve, and nobody borrows one. It stays allocated and reads as
        // zeros from now on. A refusal changes nothing.
        unsafe {
            let start = self.data.as_ptr().add(usize::from(id) * self.each_bytes as usize);
            libc::madvise(start.cast(), self.each_bytes as usize, libc::MADV_DONTNEED);
        }
    }

    /// The first `length` bytes of buffer `id`, which the kernel has handed out and not got back.
    pub(crate) fn bytes(&mut self, id: u16, length: u32) -> &mut [u8] {
        assert!(id < self.count && length <= self.each_bytes, "buffer out of range");
        let start = usize::from(id) * self.each_bytes as usize;
        // SAFETY: in range (asserted), initialised (zeroed at first), and ours alone: the kernel has let go of the
        // buffer with its completion and gets it back only by `give`, which needs the borrow of `self` to be over.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr().add(start), length as usize) }
    }

    /// How many the kernel has or has filled.
    pub(crate) fn out_count(&self) -> u16 {
        self.out_count
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `register` with these layouts. Dropped only when the kernel holds neither (Ring's drop
        // leaks them otherwise; a failed registration never shared them).
        unsafe {
            dealloc(self.entries.as_ptr().cast(), self.entries_layout);
            dealloc(self.data.as_ptr(), self.data_layout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffers(count: u16) -> (IoUring, Buffers) {
        let uring = IoUring::new(8).unwrap();
        let buffers = Buffers::register(&uring, count, PAGE_BYTES).unwrap();
        (uring, buffers)
    }

    #[test]
    fn the_kernel_has_twice_what_turns_fill_and_few_at_rest() {
        let (uring, mut buffers) = buffers(512);
        assert_eq!(buffers.out_count(), WANTED_MIN);
        buffers.turn_ended(u32::from(WANTED_MIN / 2), false);
        assert_eq!(buffers.out_count(), WANTED_MIN, "half of them filled is enough");
        buffers.turn_ended(u32::from(WANTED_MIN / 2) + 1, false);
        assert_eq!(buffers.out_count(), 2 * WANTED_MIN);
        for _ in 0..5 {
            buffers.turn_ended(1, true);
        }
        assert_eq!((buffers.out_count(), buffers.reserve.len()), (512, 0), "never more than there are");
        // Some seconds in which few are filled: half may come back, and what comes back takes no memory.
        buffers.bytes(7, 5).copy_from_slice(b"hello");
        buffers.filled_most = 10;
        (1..QUIET_TRIMS).for_each(|_| _ = buffers.trim());
        assert_eq!(buffers.wanted_count, 512, "not at once");
        buffers.trim();
        (0..300).for_each(|id| buffers.give(id));
        assert_eq!((buffers.out_count(), buffers.reserve.len()), (256, 256));
        (1..2 * QUIET_TRIMS).for_each(|_| {
            buffers.filled_most = 255;
            buffers.trim();
        });
        assert_eq!(buffers.wanted_count, 256, "a quarter and more was filled");
        assert_eq!(buffers.clean_count, 256);
        assert_eq!(buffers.bytes(7, 5), [0; 5], "its memory was given back");
        let trims = (1..100).find(|_| !buffers.trim()).expect("it comes to an end");
        assert!(trims > u32::from(QUIET_TRIMS), "there was more to give back until then");
        assert_eq!((buffers.wanted_count, buffers.clean_count), (WANTED_MIN, buffers.reserve.len()));
        buffers.unregister(&uring);
    }

    #[test]
    fn a_pause_between_bursts_is_no_rest_and_much_is_given_back_bit_by_bit() {
        let (uring, mut buffers) = buffers(1024);
        (0..5).for_each(|_| buffers.turn_ended(1024, false));
        assert_eq!(buffers.out_count(), 1024);
        for _ in 0..10 {
            buffers.turn_ended(900, false);
            (0..QUIET_TRIMS).for_each(|_| _ = buffers.trim());
            assert_eq!(buffers.wanted_count, 1024, "one second in {QUIET_TRIMS} is busy");
        }
        (0..1024).for_each(|id| buffers.bytes(id, 1).fill(1));
        let held = |buffers: &mut Buffers| (0..1024).filter(|&id| buffers.bytes(id, 1) == [1]).count();
        buffers.wanted_count = 512;
        (0..512).for_each(|id| buffers.give(id));
        for calls in 1..=4 {
            buffers.filled_most = 200;
            buffers.trim();
            assert_eq!(held(&mut buffers), 1024 - calls * FORGET_COUNT_MAX);
        }
        buffers.unregister(&uring);
    }

    #[test]
    fn each_buffer_is_in_one_place_only() {
        let (uring, mut buffers) = buffers(256);
        buffers.turn_ended(200, false);
        buffers.turn_ended(200, false);
        buffers.filled_most = 0;
        (0..QUIET_TRIMS).for_each(|_| _ = buffers.trim());
        // All that are out come back: those above the wanted number go to the reserve.
        let out: Vec<u16> = (0..256).filter(|id| !buffers.reserve.contains(id)).collect();
        assert_eq!(out.len(), usize::from(buffers.out_count()));
        out.iter().for_each(|&id| buffers.give(id));
        let mut reserve = buffers.reserve.clone();
        reserve.sort_unstable();
        reserve.dedup();
        assert_eq!(reserve.len() + usize::from(buffers.out_count()), 256);
        buffers.unregister(&uring);
    }
}
