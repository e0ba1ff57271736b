//! Connections that are dropped on purpose, at a given rate.

use super::phone::Stage;
use super::turn::Fleet;
use rand_chacha::rand_core::RngCore;

/// How often a phone is drawn before one is taken to be found online.
const DRAWS_MAX: u32 = 64;

/// When the next connection is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Flaps {
    start_ns: u64,
    interval_ns: f64,
    until_ns: u64,
    next_count: u64,
}

impl Flaps {
    /// `rate` drops per second over all phones of the fleet, from `start_ns` until before `until_ns`.
    pub(crate) fn new(rate: f64, start_ns: u64, until_ns: u64) -> Self {
        Self { start_ns, interval_ns: 1e9 / rate, until_ns, next_count: 0 }
    }

    /// When the next one is due, if there is one.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        let due_ns = self.start_ns + (self.next_count as f64 * self.interval_ns) as u64;
        (due_ns < self.until_ns).then_some(due_ns)
    }

    /// Whether one is due; if so, whether it is a reset (RST) or an end of stream (FIN), in turns.
    fn pop(&mut self, now_ns: u64) -> Option<bool> {
        self.next_due_ns().filter(|&due_ns| due_ns <= now_ns)?;
        self.next_count += 1;
        Some(self.next_count.is_multiple_of(2))
    }
}

impl Fleet {
    /// Drops connections that are due to be dropped, of phones drawn by lot among those online.
    pub(super) fn flap_due(&mut self, now_ns: u64) {
        while let Some(reset) = self.flaps.as_mut().and_then(|flaps| flaps.pop(now_ns)) {
            // With nearly nobody online a flap is left out: it is not made up for later, all at once.
            if let Some(phone) = self.draw_online() {
                self.counts.flaps += 1;
                self.flap(phone, reset);
            }
        }
    }

    /// Drops the connections of all who are online, at once; they come back without waiting for each other.
    pub(crate) fn storm(&mut self) {
        self.login_window_count = u64::MAX;
        for phone in 0..self.phones.len() as u32 {
            if self.phones[phone as usize].stage == Stage::Online {
                self.counts.flaps += 1;
                self.flap(phone, phone.is_multiple_of(2));
            }
        }
    }

    fn draw_online(&mut self) -> Option<u32> {
        let phone_count = self.phones.len() as u64;
        (0..DRAWS_MAX)
            .map(|_| (self.random.next_u64() % phone_count) as u32)
            .find(|&phone| self.phones[phone as usize].stage == Stage::Online)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_take_turns_at_the_rate() {
        let mut flaps = Flaps::new(100.0, 5_000_000, 45_000_000);
        assert_eq!(flaps.pop(4_999_999), None);
        let all: Vec<bool> = std::iter::from_fn(|| flaps.pop(u64::MAX)).collect();
        assert_eq!(all, [false, true, false, true]);
        assert_eq!(flaps.next_due_ns(), None);
    }
}
