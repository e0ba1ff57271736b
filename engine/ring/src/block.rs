//! Heap blocks that the kernel reads from, and a pool of them by powers of two.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Smallest block, bytes.
const BLOCK_BYTES_MIN: usize = 256;
/// Alignment of blocks that are at least this long: what O_DIRECT needs.
pub(crate) const DIRECT_ALIGNMENT_BYTES: usize = 4096;

/// An owned, fixed heap block. It is held by raw pointer, so that moving the owner never claims the bytes.
pub(crate) struct Block {
    start: NonNull<u8>,
    layout: Layout,
    length: usize,
}

// SAFETY: a block owns its memory exclusively; nothing in it is bound to a thread.
unsafe impl Send for Block {}

impl Block {
    fn new(capacity: usize) -> Self {
        let align = if capacity >= DIRECT_ALIGNMENT_BYTES { DIRECT_ALIGNMENT_BYTES } else { 64 };
        let layout = Layout::from_size_align(capacity, align).expect("block sizes are small");
        // SAFETY: the layout's size is at least BLOCK_BYTES_MIN, so not zero.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        Self { start, layout, length: 0 }
    }

    /// Replaces the content.
    fn fill(&mut self, data: &[u8]) {
        assert!(data.len() <= self.layout.size(), "data longer than its block");
        // SAFETY: the block has room for `data` (asserted), is owned and not in the kernel's hands (pool discipline:
        // a block leaves the pool here and comes back after its completion), and cannot overlap a borrowed slice.
        unsafe { self.start.as_ptr().copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        self.length = data.len();
    }

    /// Bytes of content.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// The address of byte `from` of the content.
    pub(crate) fn address(&self, from: usize) -> *const u8 {
        assert!(from <= self.length, "past the end of a block");
        // SAFETY: `from` is inside the allocation (asserted: the length never exceeds it).
        unsafe { self.start.as_ptr().add(from) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and dropped once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Unused blocks by size, for the next operations.
pub(crate) struct Pool {
    /// Free blocks of BLOCK_BYTES_MIN << index bytes.
    free: Vec<Vec<Block>>,
    free_bytes: usize,
    free_bytes_max: usize,
}

impl Pool {
    pub(crate) fn new(free_bytes_max: usize) -> Self {
        Self { free: Vec::new(), free_bytes: 0, free_bytes_max }
    }

    fn class(bytes: usize) -> usize {
        (bytes.max(BLOCK_BYTES_MIN).next_power_of_two() / BLOCK_BYTES_MIN).trailing_zeros() as usize
    }

    /// A block with a copy of `data`.
    pub(crate) fn take(&mut self, data: &[u8]) -> Block {
        let class = Self::class(data.len());
        let free = self.free.get_mut(class).and_then(Vec::pop);
        let mut block = match free {
            Some(block) => {
                self.free_bytes -= block.layout.size();
                block
            }
            None => Block::new(BLOCK_BYTES_MIN << class),
        };
        block.fill(data);
        block
    }

    /// Frees half of the blocks of each size: what nobody uses is gone after a few calls. Whether there are more.
    pub(crate) fn trim(&mut self) -> bool {
        for free in &mut self.free {
            for block in free.drain(free.len() / 2..) {
                self.free_bytes -= block.layout.size();
            }
            free.shrink_to(16);
        }
        self.free_bytes > 0
    }

    /// Takes a block back that no operation uses any more.
    pub(crate) fn give(&mut self, block: Block) {
        let bytes = block.layout.size();
        if self.free_bytes + bytes > self.free_bytes_max {
            return;
        }
        let class = Self::class(bytes);
        if self.free.len() <= class {
            self.free.resize_with(class + 1, Vec::new);
        }
        self.free[class].push(block);
        self.free_bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_and_used_again() {
        let mut pool = Pool::new(1 << 20);
        let block = pool.take(&[7; 5000]);
        assert_eq!(block.address(0) as usize % DIRECT_ALIGNMENT_BYTES, 0);
        assert_eq!(block.layout.size(), 8192);
        let address = block.address(0);
        pool.give(block);
        let again = pool.take(&[8; 8192]);
        assert_eq!(again.address(0), address);
        assert_eq!(pool.free_bytes, 0);
    }

    #[test]
    fn the_pool_keeps_its_limit() {
        let mut pool = Pool::new(1024);
        let blocks: Vec<_> = (0..10).map(|_| pool.take(&[1; 512])).collect();
        blocks.into_iter().for_each(|block| pool.give(block));
        assert_eq!(pool.free_bytes, 1024);
    }

    #[test]
    fn what_is_not_used_is_freed() {
        let mut pool = Pool::new(1 << 20);
        let blocks: Vec<_> = (0..9).map(|n| pool.take(&vec![1; 300 << (n % 3)])).collect();
        blocks.into_iter().for_each(|block| pool.give(block));
        let before = pool.free_bytes;
        pool.trim();
        assert!(pool.free_bytes <= before / 2 && pool.free_bytes > 0, "{} of {before}", pool.free_bytes);
        pool.trim();
        assert_eq!(pool.free_bytes, 0);
        assert!(pool.free.iter().all(Vec::is_empty));
    }
}
