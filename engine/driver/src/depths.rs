//! How full queues were, in a few fixed buckets: a scraper misses no peak, however rarely it looks.

/// The upper bounds of the buckets, bytes: from a kibibyte to sixteen mebibytes, each four times the one before. One
/// more bucket takes what is above.
pub const BOUNDS_BYTES: [u64; 8] =
    [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];

/// How many depths fell into each bucket, and their sum.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Depths {
    counts: [u64; BOUNDS_BYTES.len() + 1],
    sum_bytes: u64,
}

impl Depths {
    /// Counts a depth.
    pub(crate) fn record(&mut self, bytes: u64) {
        self.counts[BOUNDS_BYTES.partition_point(|&bound_bytes| bound_bytes < bytes)] += 1;
        self.sum_bytes = self.sum_bytes.saturating_add(bytes);
    }

    /// How many fell into each bucket: bucket i holds what is at most [`BOUNDS_BYTES`]`[i]` and above the bound before.
    #[must_use]
    pub const fn counts(&self) -> &[u64; BOUNDS_BYTES.len() + 1] {
        &self.counts
    }

    /// The sum of all depths, bytes.
    #[must_use]
    pub const fn sum_bytes(&self) -> u64 {
        self.sum_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_falls_below_its_bound() {
        let mut depths = Depths::default();
        for (bytes, bucket) in [(1, 0), (1024, 0), (1025, 1), (262_144, 4), (16 << 20, 7), (1 << 40, 8)] {
            let before = *depths.counts();
            depths.record(bytes);
            let changed: Vec<usize> = (0..9).filter(|&i| depths.counts()[i] != before[i]).collect();
            assert_eq!(changed, [bucket], "{bytes} bytes");
        }
        assert_eq!(depths.sum_bytes(), (1 << 40) + (16 << 20) + 262_144 + 1025 + 1024 + 1);
    }
}
