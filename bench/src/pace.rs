//! How phones send: so many under way, or on a schedule as that of `tern-load --rate`.

use std::time::Duration;

/// A schedule's messages wait this long for company, as in `tern-load`: one system call for each would measure the
/// driver.
pub(crate) const GRAIN: Duration = Duration::from_micros(200);

/// How phones send.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Pace {
    /// Each phone has so many messages under way.
    Window(u8),
    /// So many messages per second over all phones.
    Rate(f64),
}

/// Messages over phones in turn, due at fixed points in time; every second phone after the other, so that both
/// directions of a pair are apart.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    interval_ns: f64,
    next_count: u64,
    phone_count: u32,
}

impl Schedule {
    /// `rate` messages per second over all phones, the first at once.
    pub(crate) fn new(rate: f64, phone_count: u32) -> Self {
        Self { interval_ns: 1e9 / rate, next_count: 0, phone_count }
    }

    /// When the next message is due, from the schedule's start.
    pub(crate) fn next_due(&self) -> Duration {
        Duration::from_nanos((self.next_count as f64 * self.interval_ns) as u64)
    }

    /// The next message that is due by `now`: who sends it, and when it was due.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<(u32, Duration)> {
        let due = self.next_due();
        if due > now {
            return None;
        }
        let half = u64::from(self.phone_count / 2);
        let place = self.next_count % u64::from(self.phone_count);
        // 0, 2, 4 … and then 1, 3, 5 …
        let phone = if place < half { 2 * place } else { 2 * (place - half) + 1 };
        self.next_count += 1;
        Some((phone as u32, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_sends_equally_often_and_on_time() {
        let mut schedule = Schedule::new(1000.0, 4);
        let all: Vec<_> = std::iter::from_fn(|| schedule.pop(Duration::from_millis(7))).collect();
        let phones: Vec<u32> = all.iter().map(|message| message.0).collect();
        assert_eq!(phones, [0, 2, 1, 3, 0, 2, 1, 3]);
        assert_eq!((all[0].1, all[7].1), (Duration::ZERO, Duration::from_millis(7)));
        assert_eq!(schedule.next_due(), Duration::from_millis(8));
    }
}
