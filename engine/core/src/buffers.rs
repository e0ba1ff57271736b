//! The buffers of edges: borrowed from a pool while an edge has half a record or something to say. An idle one has none.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Buffers above this size are not kept.
const POOLED_BYTES_MAX: usize = 16 << 10;

/// What an edge borrows.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Received bytes that are not a whole record yet.
    pub(crate) tail: Vec<u8>,
    /// Whole frames that wait for the end of the turn and for the last send.
    pub(crate) plain_out: Vec<u8>,
    /// What of `plain_out` may be dropped: presence and typing.
    pub(crate) ephemeral_bytes: usize,
    /// Frames that came behind `Start` while a ticket is being used up.
    pub(crate) ahead: Vec<u8>,
    /// What they were counted as, bytes.
    pub(crate) counted_bytes: usize,
}

impl Buffers {
    /// Bytes of memory, used or not.
    pub(crate) fn held_bytes(&self) -> usize {
        self.tail.capacity() + self.plain_out.capacity() + self.ahead.capacity()
    }

    /// Whether there is nothing in them.
    pub(crate) fn are_empty(&self) -> bool {
        self.tail.is_empty() && self.plain_out.is_empty() && self.ahead.is_empty()
    }

    /// What was to be said is said. The tail may need the buffers on: a large one does not stay with it.
    pub(crate) fn said(&mut self) {
        self.plain_out.clear();
        self.ephemeral_bytes = 0;
        if self.plain_out.capacity() > POOLED_BYTES_MAX {
            self.plain_out = Vec::new();
        }
    }
}

/// Buffers that nobody uses.
#[derive(Debug)]
pub(crate) struct Pool {
    // Boxed, because an edge that has none is to be small; they come and go as they are.
    #[expect(clippy::vec_box, reason = "edges hold them in boxes")]
    free: Vec<Box<Buffers>>,
    held_bytes: usize,
    held_bytes_max: usize,
}

impl Pool {
    /// A pool that keeps at most so many bytes.
    pub(crate) const fn new(held_bytes_max: usize) -> Self {
        Self { free: Vec::new(), held_bytes: 0, held_bytes_max }
    }

    /// Bytes of what it holds.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Bytes of what it would lend next.
    pub(crate) fn next_bytes(&self) -> usize {
        self.free.last().map_or(0, |buffers| buffers.held_bytes())
    }

    /// Buffers, used ones if there are any.
    pub(crate) fn lend(&mut self) -> Box<Buffers> {
        let buffers = self.free.pop().unwrap_or_default();
        self.held_bytes -= buffers.held_bytes();
        buffers
    }

    /// Takes buffers back.
    pub(crate) fn give_back(&mut self, mut buffers: Box<Buffers>) {
        let bytes = buffers.held_bytes();
        if bytes > 0 && bytes <= POOLED_BYTES_MAX && self.held_bytes + bytes <= self.held_bytes_max {
            self.held_bytes += bytes;
            buffers.tail.clear();
            buffers.plain_out.clear();
            buffers.ephemeral_bytes = 0;
            buffers.ahead.clear();
            self.free.push(buffers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(bytes: usize) -> Box<Buffers> {
        Box::new(Buffers { plain_out: alloc::vec![1; bytes], ..Buffers::default() })
    }

    #[test]
    fn lends_what_it_got_back_empty_and_keeps_its_limit() {
        let mut pool = Pool::new(1000);
        pool.give_back(used(600));
        pool.give_back(used(600));
        assert_eq!((pool.held_bytes(), pool.next_bytes()), (600, 600), "the second one is one too many");
        let buffers = pool.lend();
        assert!(buffers.are_empty() && buffers.held_bytes() == 600 && pool.held_bytes() == 0);
        assert_eq!(pool.lend().held_bytes(), 0, "none is left");
        let mut large = Pool::new(1 << 20);
        large.give_back(used(POOLED_BYTES_MAX + 1));
        large.give_back(used(0));
        assert!(large.free.is_empty());
    }

    #[test]
    fn a_large_backlog_does_not_stay_with_half_a_record() {
        let mut buffers = used(POOLED_BYTES_MAX + 1);
        buffers.tail.push(1);
        buffers.said();
        assert!(buffers.held_bytes() < 100 && !buffers.are_empty());
    }
}
