//! The two clocks of a step.

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tern_core::io::Now;

/// Reads the time for one shard. All shards of a node share `start`.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) const fn new(start: Instant) -> Self {
        Self { start }
    }

    /// Nanoseconds since the node started, by CLOCK_MONOTONIC (no system call: vDSO).
    pub(crate) fn mono_ns(&self) -> u64 {
        // 2^64 nanoseconds are 584 years.
        self.start.elapsed().as_nanos() as u64
    }

    /// The time now, as the machine tells it: the shard decides what to believe of the wall clock.
    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Now { mono_ns: self.mono_ns(), wall_ms: wall }
    }
}
