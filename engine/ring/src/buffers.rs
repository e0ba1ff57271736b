//! The provided buffers: memory that the kernel fills when bytes arrive, so that idle sockets hold none.

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The only buffer group of a ring.
pub(crate) const GROUP: u16 = 0;

/// A ring of `count` buffers, shared with the kernel until [`Buffers::unregister`].
pub(crate) struct Buffers {
    entries: NonNull<BufRingEntry>,
    entries_layout: Layout,
    data: NonNull<u8>,
    data_layout: Layout,
    count: u16,
    each_bytes: u32,
    tail: u16,
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
        let mut buffers = Self { entries, entries_layout, data, data_layout, count, each_bytes, tail: 0 };
        // SAFETY: the entries are page-aligned, `count` long, and stay allocated until they are unregistered or leaked
        // (Ring's drop).
        unsafe {
            uring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, GROUP, 0)?;
        }
        for id in 0..count {
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

    /// Gives buffer `id` back to the kernel.
    pub(crate) fn give(&mut self, id: u16) {
        assert!(id < self.count, "buffer id out of range");
        self.push(id);
        self.publish();
    }

    /// The first `length` bytes of buffer `id`, which the kernel has handed out and not got back.
    pub(crate) fn bytes(&mut self, id: u16, length: u32) -> &mut [u8] {
        assert!(id < self.count && length <= self.each_bytes, "buffer out of range");
        let start = usize::from(id) * self.each_bytes as usize;
        // SAFETY: in range (asserted), initialised (zeroed at first), and ours alone: the kernel has let go of the
        // buffer with its completion and gets it back only by `give`, which needs the borrow of `self` to be over.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr().add(start), length as usize) }
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
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
