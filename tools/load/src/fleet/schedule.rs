//! Messages at a given rate: due at fixed points in time, whatever the server does.

/// A schedule over phones in turn; every second phone after the other, so that both directions of a pair are apart.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    until_ns: u64,
    next_count: u64,
    phone_count: u32,
}

impl Schedule {
    /// `rate` messages per second over all phones, from `start_ns` until before `until_ns`.
    pub(crate) fn new(rate: f64, phone_count: u32, start_ns: u64, until_ns: u64) -> Self {
        Self { start_ns, interval_ns: 1e9 / rate, until_ns, next_count: 0, phone_count }
    }

    /// When the next message is due, if there is one.
    pub(crate) fn next_due_ns(&self) -> Option<u64> {
        let due_ns = self.start_ns + (self.next_count as f64 * self.interval_ns) as u64;
        (due_ns < self.until_ns).then_some(due_ns)
    }

    /// The next message that is due by `now_ns`: who sends it, and when it was due.
    pub(crate) fn pop(&mut self, now_ns: u64) -> Option<(u32, u64)> {
        let due_ns = self.next_due_ns().filter(|&due_ns| due_ns <= now_ns)?;
        let half = u64::from(self.phone_count / 2);
        let place = self.next_count % u64::from(self.phone_count);
        // 0, 2, 4 … and then 1, 3, 5 …
        let phone = if place < half { 2 * place } else { 2 * (place - half) + 1 };
        self.next_count += 1;
        Some((phone as u32, due_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_sends_equally_often_and_on_time() {
        let mut schedule = Schedule::new(1000.0, 4, 5_000_000, 13_000_000);
        assert_eq!(schedule.pop(4_999_999), None);
        let all: Vec<_> = std::iter::from_fn(|| schedule.pop(u64::MAX)).collect();
        let phones: Vec<u32> = all.iter().map(|message| message.0).collect();
        assert_eq!(phones, [0, 2, 1, 3, 0, 2, 1, 3]);
        assert_eq!((all[0].1, all[7].1), (5_000_000, 12_000_000));
        assert_eq!(schedule.next_due_ns(), None);
    }
}
