//! The two clocks of a run.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic nanoseconds since the start of the run, and Unix time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    origin_unix_us: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self { origin: Instant::now(), origin_unix_us: unix.map_or(0, |since| since.as_micros() as u64) }
    }

    /// Nanoseconds since the start.
    pub(crate) fn now_ns(self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// The Unix time of a moment of the run, microseconds: what several programs agree on. A step of the system's clock
    /// meanwhile does not show.
    pub(crate) const fn unix_us(self, at_ns: u64) -> u64 {
        self.origin_unix_us + at_ns / 1_000
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
