//! The two clocks of a run.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic nanoseconds since the start of the run, and Unix seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now() }
    }

    /// Nanoseconds since the start.
    pub(crate) fn now_ns(self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// Seconds of Unix time.
    pub(crate) fn unix_s() -> u32 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32)
    }

    /// Waits until Unix time has reached `second`.
    pub(crate) fn wait_until(second: u32) {
        while Self::unix_s() < second {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Nanoseconds of `seconds`.
pub(crate) fn ns(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
