//! A set of small numbers that mostly comes in runs: what a flow has delivered, ticked, confirmed.

use std::ops::Range;

/// A set of `u32` kept as sorted runs that neither overlap nor touch; one run as long as nothing is missing.
#[derive(Clone, Default, Debug)]
pub(crate) struct SeqSet {
    runs: Vec<Range<u32>>,
    count: u32,
}

impl SeqSet {
    /// Puts a number in; false if it was there. Numbers stay below `u32::MAX`.
    pub(crate) fn insert(&mut self, seq: u32) -> bool {
        // The usual case first: the number after the last one.
        if let Some(last) = self.runs.last_mut()
            && last.end == seq
        {
            last.end += 1;
            self.count += 1;
            return true;
        }
        let at = self.runs.partition_point(|run| run.end < seq);
        let Some(run) = self.runs.get_mut(at) else {
            self.runs.push(seq..seq + 1);
            self.count += 1;
            return true;
        };
        if run.contains(&seq) {
            return false;
        }
        if run.end == seq {
            run.end += 1;
            let end = run.end;
            if self.runs.get(at + 1).is_some_and(|next| next.start == end) {
                self.runs[at].end = self.runs[at + 1].end;
                self.runs.remove(at + 1);
            }
        } else if run.start == seq + 1 {
            run.start = seq;
        } else {
            self.runs.insert(at, seq..seq + 1);
        }
        self.count += 1;
        true
    }

    /// Whether a number is in.
    pub(crate) fn contains(&self, seq: u32) -> bool {
        let at = self.runs.partition_point(|run| run.end <= seq);
        self.runs.get(at).is_some_and(|run| run.contains(&seq))
    }

    /// How many numbers are in.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// One more than the largest number; zero when empty.
    pub(crate) fn end(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.end)
    }

    /// Takes everything out and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.count = 0;
    }

    /// How many numbers of `self` are not in `other`.
    pub(crate) fn missing_from(&self, other: &SeqSet) -> u32 {
        self.runs.iter().flat_map(Clone::clone).filter(|&seq| !other.contains(seq)).count() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_gap_that_fills_joins_its_neighbours() {
        let mut set = SeqSet::default();
        assert!(set.insert(0) && set.insert(2) && set.insert(1));
        assert_eq!(set.runs, vec![0..3]);
        assert!(!set.insert(1));
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(numbers in prop::collection::vec(0_u32..60, 0..120)) {
            let (mut set, mut model) = (SeqSet::default(), BTreeSet::new());
            for number in numbers {
                prop_assert_eq!(set.insert(number), model.insert(number));
                prop_assert_eq!(set.count() as usize, model.len());
                prop_assert_eq!(set.end(), model.last().map_or(0, |last| last + 1));
                for probe in 0..62 {
                    prop_assert_eq!(set.contains(probe), model.contains(&probe));
                }
                prop_assert!(set.runs.windows(2).all(|two| two[0].end < two[1].start), "runs touch: {:?}", set.runs);
            }
        }

        #[test]
        fn missing_from_is_the_difference(
            left in prop::collection::btree_set(0_u32..40, 0..40),
            right in prop::collection::btree_set(0_u32..40, 0..40),
        ) {
            let of = |numbers: &BTreeSet<u32>| {
                let mut set = SeqSet::default();
                numbers.iter().for_each(|&n| { set.insert(n); });
                set
            };
            prop_assert_eq!(of(&left).missing_from(&of(&right)) as usize, left.difference(&right).count());
        }
    }
}
