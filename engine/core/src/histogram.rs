//! Durations in a few fixed buckets: recording one costs nanoseconds and no memory.

/// The upper bounds of the buckets, nanoseconds: 1, 2, 3 and 5 in each decade from a microsecond to ten seconds. One
/// more bucket takes what is longer.
pub const BOUNDS_NS: [u64; BOUND_COUNT] = bounds();
/// Number of bounds.
pub const BOUND_COUNT: usize = 29;

const fn bounds() -> [u64; BOUND_COUNT] {
    let mut bounds = [0; BOUND_COUNT];
    let steps = [1, 2, 3, 5];
    let (mut index, mut decade_ns) = (0, 1000);
    while index < BOUND_COUNT {
        bounds[index] = steps[index % 4] * decade_ns;
        index += 1;
        if index.is_multiple_of(4) {
            decade_ns *= 10;
        }
    }
    bounds
}

const _: () = assert!(BOUNDS_NS[0] == 1000 && BOUNDS_NS[BOUND_COUNT - 1] == 10_000_000_000);

/// How many durations fell into each bucket, and their sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Histogram {
    counts: [u64; BOUND_COUNT + 1],
    sum_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BOUND_COUNT + 1], sum_ns: 0 }
    }
}

impl Histogram {
    /// Counts a duration.
    pub fn record(&mut self, ns: u64) {
        self.counts[BOUNDS_NS.partition_point(|&bound_ns| bound_ns < ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// How many fell into each bucket: bucket i holds what is at most [`BOUNDS_NS`]`[i]` and above the bound before.
    #[must_use]
    pub const fn counts(&self) -> &[u64; BOUND_COUNT + 1] {
        &self.counts
    }

    /// The sum of all durations, nanoseconds.
    #[must_use]
    pub const fn sum_ns(&self) -> u64 {
        self.sum_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_below_its_bound() {
        for (ns, bucket) in
            [(0, 0), (1000, 0), (1001, 1), (3000, 2), (9_999, 4), (10_000_000_000, 28), (u64::MAX, 29)]
        {
            let mut histogram = Histogram::default();
            histogram.record(ns);
            assert_eq!(histogram.counts().iter().position(|&count| count == 1), Some(bucket), "{ns}");
            assert_eq!(histogram.sum_ns(), ns);
        }
        assert!(BOUNDS_NS.is_sorted());
    }
}
