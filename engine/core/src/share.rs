//! Memory that many share: first come, first served, but nobody can take the last of it from the others.

/// Half of a limit is for whoever needs it. A part of the rest belongs to each place, so that it always has some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Share {
    common: usize,
    own: usize,
}

impl Share {
    /// Of `limit`, a part (one of `reserved_part`) is reserved, evenly for so many places.
    pub(crate) const fn new(limit: usize, reserved_part: usize, place_count: usize) -> Self {
        Self { common: limit / 2, own: limit / reserved_part / place_count }
    }

    /// Whether one may hold `own` when all together hold `total`, its own included.
    pub(crate) const fn fits(self, own: usize, total: usize) -> bool {
        own <= self.own || self.has_plenty(total)
    }

    /// Whether nobody needs to be asked how much it holds.
    pub(crate) const fn has_plenty(self, total: usize) -> bool {
        total <= self.common
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However greedy some are: all together stay within the limit, and everybody gets its share.
        #[test]
        fn the_limit_holds_and_so_does_each_share(
            limit in 1_000_usize..100_000,
            asks in proptest::collection::vec((0_usize..10, 1_usize..2_000), 1..300),
        ) {
            let share = Share::new(limit, 2, 10);
            let mut held = [0_usize; 10];
            for (place, more) in asks {
                let total: usize = held.iter().sum::<usize>() + more;
                let may = share.fits(held[place] + more, total);
                if may {
                    held[place] += more;
                } else {
                    prop_assert!(held[place] + more > limit / 20);
                }
                prop_assert!(held.iter().sum::<usize>() <= limit);
            }
        }
    }
}
