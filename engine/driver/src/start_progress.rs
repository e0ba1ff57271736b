//! How far a node's start has come: written by the shards' threads, read by whoever waits for them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The starts of all shards of a node.
#[derive(Debug)]
pub struct StartProgress(Box<[Counts]>);

#[derive(Debug, Default)]
struct Counts {
    segment_count: AtomicU32,
    read_count: AtomicU32,
    unreadable_count: AtomicU32,
    /// Zero until all is read.
    took_us: AtomicU64,
}

/// How far one shard is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ShardStart {
    /// Segments of its log; zero until they were looked for.
    pub segment_count: u32,
    /// Those that were read.
    pub read_count: u32,
    /// Blocks that the drive did not give, each time that one was asked for: it may take its time for each.
    pub unreadable_count: u32,
    /// How long it took from the search for its segments until all of them were read, and until it could serve once it
    /// does; what it waited for the other shards in between is left out. `None` before.
    pub took: Option<Duration>,
}

impl StartProgress {
    /// Of a node that has not begun.
    #[must_use]
    pub fn new(shard_count: u16) -> Self {
        Self((0..shard_count).map(|_| Counts::default()).collect())
    }

    /// How far each shard is.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = ShardStart> {
        self.0.iter().map(|counts| {
            let took_us = counts.took_us.load(Ordering::Relaxed);
            ShardStart {
                segment_count: counts.segment_count.load(Ordering::Relaxed),
                read_count: counts.read_count.load(Ordering::Relaxed),
                unreadable_count: counts.unreadable_count.load(Ordering::Relaxed),
                took: (took_us > 0).then(|| Duration::from_micros(took_us)),
            }
        })
    }

    pub(crate) fn found(&self, shard: u16, segment_count: usize) {
        self.0[usize::from(shard)].segment_count.store(segment_count as u32, Ordering::Relaxed);
    }

    pub(crate) fn read_one(&self, shard: u16) {
        self.0[usize::from(shard)].read_count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn unreadable_one(&self, shard: u16) {
        self.0[usize::from(shard)].unreadable_count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn done(&self, shard: u16, took: Duration) {
        let took_us = (took.as_micros() as u64).max(1);
        self.0[usize::from(shard)].took_us.store(took_us, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_tells_for_itself() {
        let progress = StartProgress::new(2);
        progress.found(1, 3);
        progress.read_one(1);
        progress.unreadable_one(1);
        progress.done(0, Duration::ZERO);
        let shards: Vec<_> = progress.shards().collect();
        let told = ShardStart { segment_count: 3, read_count: 1, unreadable_count: 1, took: None };
        assert_eq!(shards[1], told);
        assert!(shards[0].took.is_some(), "that it took no time is no reason to call it unfinished");
    }
}
