//! The two clocks of a step.

use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tern_core::io::Now;

/// Reads the time for one shard. All shards of a node share `start`.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    wall_ms: u64,
}

impl Clock {
    pub(crate) const fn new(start: Instant) -> Self {
        Self { start, wall_ms: 0 }
    }

    /// Nanoseconds since the node started, by CLOCK_MONOTONIC (no system call: vDSO).
    pub(crate) fn mono_ns(&self) -> u64 {
        // 2^64 nanoseconds are 584 years.
        self.start.elapsed().as_nanos() as u64
    }

    /// The time now. Wall milliseconds never decrease: when the wall clock is set back they stand still.
    pub(crate) fn now(&mut self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        self.wall_ms = self.wall_ms.max(wall);
        Now { mono_ns: self.mono_ns(), wall_ms: self.wall_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_never_decreases() {
        let mut clock = Clock::new(Instant::now());
        let far = clock.now().wall_ms + 1_000_000;
        clock.wall_ms = far;
        assert_eq!(clock.now().wall_ms, far);
        assert!(clock.mono_ns() < 60_000_000_000);
    }
}
