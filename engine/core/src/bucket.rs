//! Token buckets: how often something may happen. Pure integer arithmetic on monotonic nanoseconds.
//!
//! A bucket is one number: the time at which it will be full again (the "theoretical arrival time" of the generic cell
//! rate algorithm, ITU-T I.371). Taking a token moves that time into the future; it may lie ahead of now by as much as a
//! burst lasts. Nothing ticks, nothing is rounded twice, and a bucket that nobody uses is full.

/// Binary digits of a nanosecond's fraction in a rate.
const FRACTION_BITS: u32 = 16;
const SECOND: u64 = 1_000_000_000 << FRACTION_BITS;
/// However many share a burst, each has at least so much of it: what is spread by chance is not spread evenly.
const BURST_MIN: u32 = 4;

/// So many per second, and so many at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rate {
    /// What one token costs, in 2^-16 nanoseconds; zero lets everything pass.
    token: u64,
    /// How far ahead of now a bucket may be filled, nanoseconds.
    burst_ns: u64,
}

impl Rate {
    /// A rate; `per_second` 0 lets everything pass.
    pub(crate) const fn new(per_second: u32, burst: u32) -> Self {
        Self::shared(per_second, burst, 1)
    }

    /// The share of one among so many shards.
    pub(crate) const fn shared(per_second: u32, burst: u32, shard_count: u16) -> Self {
        if per_second == 0 {
            return Self { token: 0, burst_ns: 0 };
        }
        // Rounded up, so that rounding never makes the rate higher. At most 2^46 x 2^16: no overflow.
        Self::with_token((SECOND * shard_count as u64).div_ceil(per_second as u64), burst, shard_count)
    }

    /// Likewise, so many per hour.
    pub(crate) fn per_hour(count: u32, burst: u32, shard_count: u16) -> Self {
        if count == 0 {
            return Self { token: 0, burst_ns: 0 };
        }
        let token = (3600 * u128::from(SECOND) * u128::from(shard_count)).div_ceil(u128::from(count));
        // One an hour for more than seventy shards is less than can be said: then it is one in 78 hours for each.
        Self::with_token(u64::try_from(token).unwrap_or(u64::MAX), burst, shard_count)
    }

    const fn with_token(token: u64, burst: u32, shard_count: u16) -> Self {
        let share = burst.div_ceil(shard_count as u32);
        let share = if shard_count > 1 && share < BURST_MIN { BURST_MIN } else { share };
        let mut rate = Self { token, burst_ns: 0 };
        rate.burst_ns = rate.cost_ns(share as u64);
        rate
    }

    /// Whether it lets everything pass.
    pub(crate) const fn is_none(self) -> bool {
        self.token == 0
    }

    /// What so many tokens cost; a cost that cannot be said is more than any burst.
    const fn cost_ns(self, count: u64) -> u64 {
        self.token.saturating_mul(count).div_ceil(1 << FRACTION_BITS)
    }
}

/// What is left for one connection, account or address.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Bucket {
    /// When it is full again, monotonic nanoseconds.
    full_at_ns: u64,
}

impl Bucket {
    /// Takes tokens. False if there are not so many; none is taken then.
    pub(crate) fn take(&mut self, rate: Rate, now_ns: u64, count: u64) -> bool {
        if rate.is_none() {
            return true;
        }
        let missing_ns = self.full_at_ns.saturating_sub(now_ns);
        let cost_ns = rate.cost_ns(count);
        if missing_ns.saturating_add(cost_ns) > rate.burst_ns {
            return false;
        }
        self.full_at_ns = now_ns + missing_ns + cost_ns;
        true
    }

    /// Takes tokens, and so many more in advance while no more than half of the burst is gone then. How many in advance;
    /// none if there are not even those that are needed.
    pub(crate) fn take_in_advance(&mut self, rate: Rate, now_ns: u64, count: u64, more: u64) -> Option<u64> {
        let half = Rate { burst_ns: rate.burst_ns / 2, ..rate };
        if self.take(half, now_ns, count + more) {
            Some(more)
        } else {
            self.take(rate, now_ns, count).then_some(0)
        }
    }

    /// When it is full again: it is then as good as new.
    pub(crate) const fn full_at_ns(self) -> u64 {
        self.full_at_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_full_bucket_gives_its_burst_then_its_rate() {
        let rate = Rate::new(10, 3);
        let mut bucket = Bucket::default();
        let taken = (0..5).filter(|_| bucket.take(rate, 7 * S, 1)).count();
        assert_eq!(taken, 3);
        assert!(!bucket.take(rate, 7 * S + S / 10 - 1, 1));
        assert!(bucket.take(rate, 7 * S + S / 10, 1));
        assert!(!bucket.take(rate, 7 * S + S / 10, 1));
        assert!(!bucket.take(rate, 100 * S, 4), "more than a burst never passes");
        assert!(bucket.take(rate, 100 * S, 3));
    }

    #[test]
    fn zero_per_second_is_no_limit() {
        let mut bucket = Bucket::default();
        assert!((0..1000).all(|_| bucket.take(Rate::new(0, 0), 0, u64::MAX)));
    }

    #[test]
    fn shards_share_a_rate() {
        let rate = Rate::shared(10, 100, 5);
        let mut bucket = Bucket::default();
        assert_eq!((0..100).filter(|_| bucket.take(rate, 0, 1)).count(), 20);
        assert_eq!((0..100).filter(|_| bucket.take(rate, 5 * S, 1)).count(), 10, "two a second");
        let mut small = Bucket::default();
        let rate = Rate::shared(10, 10, 1000);
        assert_eq!((0..100).filter(|_| small.take(rate, 0, 1)).count(), BURST_MIN as usize);
    }

    #[test]
    fn an_hour_is_shared_too() {
        let rate = Rate::per_hour(60, 10, 2);
        let mut bucket = Bucket::default();
        assert_eq!((0..100).filter(|_| bucket.take(rate, 0, 1)).count(), 5);
        assert_eq!((0..100).filter(|_| bucket.take(rate, 240 * S, 1)).count(), 2, "one in two minutes");
        // However slow: nothing overflows, and the first passes.
        let mut bucket = Bucket::default();
        let slowest = Rate::per_hour(1, 1, u16::MAX);
        assert!(bucket.take(slowest, 0, 1) && !bucket.take(slowest, 3600 * S, 1));
        assert!(Bucket::default().take(Rate::per_hour(0, 0, 9), 0, u64::MAX));
    }

    proptest! {
        /// Whatever is asked for and whenever: in no span of time more passes than a burst and the rate.
        #[test]
        fn no_span_of_time_has_more_than_burst_and_rate(
            per_second in 1_u32..2_000_000,
            burst in 1_u32..100_000,
            asks in proptest::collection::vec((0_u64..3 * S, 1_u64..200_000), 1..60),
        ) {
            let rate = Rate::new(per_second, burst);
            let (mut bucket, mut now_ns) = (Bucket::default(), 0);
            let mut passed: Vec<(u64, u64)> = Vec::new();
            for (pause_ns, count) in asks {
                now_ns += pause_ns;
                if bucket.take(rate, now_ns, count) {
                    passed.push((now_ns, count));
                }
            }
            for first in 0..passed.len() {
                let mut sum = 0_u128;
                for &(at_ns, count) in &passed[first..] {
                    sum += u128::from(count);
                    let span_ns = u128::from(at_ns - passed[first].0);
                    let allowed = u128::from(burst) + span_ns * u128::from(per_second) / u128::from(S);
                    prop_assert!(sum <= allowed + 1, "{sum} in {span_ns} ns, allowed {allowed}");
                }
            }
        }

        /// Who stays a little under the rate is never refused.
        #[test]
        fn who_keeps_to_the_rate_is_never_refused(per_second in 1_u32..1_000_000, burst in 1_u32..1000) {
            let rate = Rate::new(per_second, burst);
            let mut bucket = Bucket::default();
            let step_ns = S.div_ceil(u64::from(per_second)) + 1;
            for n in 0..200 {
                prop_assert!(bucket.take(rate, n * step_ns, 1));
            }
        }

        /// A refusal takes nothing.
        #[test]
        fn a_refusal_costs_nothing(per_second in 1_u32..1000, burst in 1_u32..1000, more in 1_u64..1 << 40) {
            let rate = Rate::new(per_second, burst);
            let mut bucket = Bucket::default();
            prop_assert!(bucket.take(rate, S, u64::from(burst)));
            let before = bucket;
            prop_assert!(!bucket.take(rate, S, more));
            prop_assert_eq!(bucket, before);
        }
    }

    #[test]
    fn tokens_are_taken_in_advance_while_half_of_the_burst_is_left() {
        let rate = Rate::new(10, 100);
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take_in_advance(rate, S, 5, 15), Some(15));
        assert_eq!(bucket.take_in_advance(rate, S, 15, 15), Some(15), "50 are gone");
        assert_eq!(bucket.take_in_advance(rate, S, 1, 15), Some(0));
        assert_eq!(bucket.take_in_advance(rate, S, 49, 15), Some(0));
        assert_eq!(bucket.take_in_advance(rate, S, 1, 15), None);
        assert_eq!(bucket.take_in_advance(rate, 11 * S, 1, 15), Some(15));
        assert_eq!(Bucket::default().take_in_advance(Rate::new(0, 0), S, 1_000, 15), Some(15));
    }
}
