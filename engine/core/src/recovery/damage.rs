//! What the record of an epoch tells later starts of damage.

use super::RecoveryReport;
use alloc::vec::Vec;
use tern_storage::io::SegmentId;
use tern_storage::log::{HiddenPlace, Reach};

/// What the record of an epoch says of damage.
#[derive(Clone, Default, Debug)]
pub(crate) struct KnownDamage {
    /// What the damage that tickets are refused for may have taken lay below this.
    pub(crate) rot_reach: Reach,
    /// New accounts get higher numbers in their partitions: that damage may have taken lower ones.
    pub(crate) numbers_above: u64,
    /// Places that could not be read, until nothing of them is in the log any more.
    pub(crate) hidden: Vec<HiddenPlace>,
}

impl KnownDamage {
    /// Whether all that is damaged among the tables was known when this was written.
    pub(super) fn covers(&self, report: &RecoveryReport) -> bool {
        let is_known = |&segment: &SegmentId| self.not_there().any(|place| is_at(place, whole(segment)));
        report.rot_reach <= self.rot_reach && report.left_alone.iter().all(is_known)
    }

    /// Places that were not there when this was written.
    pub(super) fn not_there(&self) -> impl Iterator<Item = &HiddenPlace> {
        self.hidden.iter().filter(|place| place.back == 0)
    }

    /// Which places are not there in this era, or were not and are back. One of which a part is there has its time ended, and
    /// the rest another one; it stays for the mail of that.
    pub(super) fn note_hidden(&mut self, hidden: &[Place], back: &[HiddenPlace], era: u32) {
        let known = core::mem::take(&mut self.hidden);
        let is_still = |place: &HiddenPlace| place.back == 0 && hidden.iter().any(|&at| is_at(place, at));
        self.hidden.extend(known.iter().filter(|place| is_still(place)));
        for &(segment, offset, end) in hidden {
            if !self.hidden.iter().any(|place| is_at(place, (segment, offset, end))) {
                self.hidden.push(HiddenPlace { segment, offset, end, from: era, back: 0 });
            }
        }
        let is_in_part = |place: &HiddenPlace| hidden.iter().any(|at| at.0 == place.segment);
        for place in known.into_iter().filter(|place| !is_still(place)) {
            if back.contains(&place) || is_in_part(&place) {
                self.hidden
                    .push(HiddenPlace { back: if place.back == 0 { era } else { place.back }, ..place });
            }
        }
        self.hidden.truncate(HIDDEN_COUNT_MAX);
    }
}

/// Most places that a record names: it takes no more than a block with them.
const HIDDEN_COUNT_MAX: usize = 192;

/// Where something cannot be read: in which file, from where to where.
pub(super) type Place = (SegmentId, u32, u32);

pub(super) fn whole(segment: SegmentId) -> Place {
    (segment, 0, u32::MAX)
}

pub(super) fn is_at(place: &HiddenPlace, at: Place) -> bool {
    (place.segment, place.offset, place.end) == at
}

/// Where mail may be that cannot be read. Files that are left alone come first.
pub(super) fn hidden_places(report: &RecoveryReport) -> Vec<Place> {
    let left_alone = report.left_alone.iter().map(|&segment| whole(segment));
    left_alone.chain(report.unread.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_place_that_is_hidden_again_has_another_time() {
        let place = |offset, end, from, back| HiddenPlace { segment: SegmentId(1), offset, end, from, back };
        let (all, block) = (whole(SegmentId(1)), (SegmentId(1), 8_192, 12_288));
        let left_alone = RecoveryReport { left_alone: vec![SegmentId(1)], ..Default::default() };
        let mut damage = KnownDamage::default();
        assert!(!damage.covers(&left_alone));
        damage.note_hidden(&[all], &[], 3);
        damage.note_hidden(&[all], &[], 4);
        assert_eq!(damage.hidden, [place(0, u32::MAX, 3, 0)]);
        assert!(damage.covers(&left_alone));
        let back = damage.hidden.clone();
        damage.note_hidden(&[], &back, 5);
        assert_eq!(damage.hidden, [place(0, u32::MAX, 3, 5)]);
        assert!(!damage.covers(&left_alone), "it was there, and something may have been written there");
        // What is there of it now does not show.
        damage.note_hidden(&[all], &[], 6);
        assert_eq!(damage.hidden, [place(0, u32::MAX, 6, 0), place(0, u32::MAX, 3, 5)]);
        damage.note_hidden(&[block], &[], 7);
        let closed = [place(0, u32::MAX, 6, 7), place(0, u32::MAX, 3, 5)];
        assert_eq!(damage.hidden[1..], closed);
        assert_eq!(damage.hidden[0], place(8_192, 12_288, 7, 0));
        assert!(!damage.covers(&left_alone));
        damage.note_hidden(&[], &[], 8);
        assert_eq!(damage.hidden, [], "nothing of it is in the log any more");
        // More than a record takes: those that it names stay.
        let many: Vec<Place> = (0..200).map(|number| whole(SegmentId(number))).collect();
        damage.note_hidden(&many, &[], 9);
        damage.note_hidden(&many, &[], 10);
        assert_eq!(damage.hidden.len(), HIDDEN_COUNT_MAX);
        assert!(damage.hidden.iter().all(|place| place.from == 9));
    }
}
