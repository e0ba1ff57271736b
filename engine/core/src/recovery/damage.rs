//! What the record of an epoch tells later starts of damage.

use super::RecoveryReport;
use super::found::FoundFloor;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use tern_protocol::ids::{AccountId, DeviceId};
use tern_storage::io::SegmentId;
use tern_storage::log::{HiddenPlace, Position, Reach};

/// What the record of an epoch says of damage.
#[derive(Clone, Default, Debug)]
pub(crate) struct KnownDamage {
    /// What the damage that tickets are refused for may have taken lay below this.
    pub(crate) rot_reach: Reach,
    /// New accounts get higher numbers in their partitions: that damage may have taken lower ones.
    pub(crate) numbers_above: u64,
    /// Places that could not be read, until nothing of them is in the log any more. Those that are back come first.
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
        let is_known = is_known_in(hidden);
        let is_still = |place: &HiddenPlace| place.back == 0 && hidden.iter().any(|&at| is_known(place, at));
        let is_in_part = |place: &HiddenPlace| hidden.iter().any(|at| at.0 == place.segment);
        for place in known.iter().filter(|place| !is_still(place)) {
            if back.contains(place) || is_in_part(place) {
                let back = if place.back == 0 { era } else { place.back };
                self.hidden.push(HiddenPlace { back, ..*place });
            }
        }
        self.hidden.extend(known.iter().filter(|place| is_still(place)));
        for &at in hidden {
            if !known.iter().any(|place| place.back == 0 && is_known(place, at)) {
                let (segment, offset, end) = at;
                self.hidden.push(HiddenPlace { segment, offset, end, from: era, back: 0, since_s: 0 });
            }
        }
        if self.hidden.len() > HiddenPlace::COUNT_MAX {
            self.hidden = by_file(&self.hidden);
            self.hidden.truncate(HiddenPlace::COUNT_MAX);
        }
    }

    /// It is now: those that were noted as hidden for the first time are since now.
    pub(super) fn date(&mut self, now_s: u32) {
        for place in self.hidden.iter_mut().filter(|place| place.since_s == 0) {
            place.since_s = now_s;
        }
    }

    /// Whether a place that cannot be read may have mail that is not too old. Of one that nobody has noted nothing is known.
    pub(super) fn may_have_mail(&self, at: Place, now_s: u32, expiry_ms: u64) -> bool {
        let has = |place: &&HiddenPlace| place.segment == at.0 && place.offset <= at.1 && at.2 <= place.end;
        self.not_there().find(has).is_none_or(|place| is_of_use(place, now_s, expiry_ms))
    }

    /// Where the last floors of before each of these places was not there are: they judge its mail when it is back.
    pub(super) fn floors_to_keep(
        &self,
        floors: &BTreeMap<(AccountId, DeviceId, u32), FoundFloor>,
        now_s: u32,
        expiry_ms: u64,
    ) -> BTreeSet<Position> {
        let places = self.hidden.iter().filter(|place| is_of_use(place, now_s, expiry_ms));
        let mut kept = BTreeSet::new();
        for from in places.map(|place| place.from).collect::<BTreeSet<_>>() {
            let mut last = None;
            for (&(mailbox, device, era), floor) in floors {
                if last.is_some_and(|(of, _)| of != (mailbox, device)) {
                    kept.extend(last.take().map(|(_, position)| position));
                }
                if era < from {
                    last = Some(((mailbox, device), floor.position));
                }
            }
            kept.extend(last.map(|(_, position)| position));
        }
        kept
    }
}

/// Whether mail of a place can be anything but too old: it was made before nobody could read it.
fn is_of_use(place: &HiddenPlace, now_s: u32, expiry_ms: u64) -> bool {
    u64::from(place.since_s) * 1000 + expiry_ms > u64::from(now_s) * 1000
}

/// One place for each file, and another for what is back of it. It takes in what was there all the time between them: such mail
/// may be handed out once more.
fn by_file(places: &[HiddenPlace]) -> Vec<HiddenPlace> {
    let mut files: BTreeMap<(bool, SegmentId), HiddenPlace> = BTreeMap::new();
    for &place in places {
        let all = files.entry((place.back == 0, place.segment)).or_insert(place);
        let is_dated = all.since_s != 0 && place.since_s != 0;
        *all = HiddenPlace {
            segment: place.segment,
            offset: all.offset.min(place.offset),
            end: all.end.max(place.end),
            from: all.from.min(place.from),
            back: all.back.max(place.back),
            since_s: if is_dated { all.since_s.max(place.since_s) } else { 0 },
        };
    }
    files.into_values().collect()
}

/// Where something cannot be read: in which file, from where to where.
pub(super) type Place = (SegmentId, u32, u32);

pub(super) fn whole(segment: SegmentId) -> Place {
    (segment, 0, u32::MAX)
}

/// What tells whether one of these places is a known one. Where there are more than a record takes, those of a file are in one.
pub(super) fn is_known_in(hidden: &[Place]) -> impl Fn(&HiddenPlace, Place) -> bool + Copy {
    let are_merged = hidden.len() > HiddenPlace::COUNT_MAX;
    move |place, at| {
        let has = place.segment == at.0 && place.offset <= at.1 && at.2 <= place.end;
        is_at(place, at) || (are_merged && has)
    }
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

    const EXPIRY_MS: u64 = 30 * 86_400_000;

    #[test]
    fn a_place_that_is_hidden_again_has_another_time() {
        let place = |offset, end, from, back| HiddenPlace {
            segment: SegmentId(1),
            offset,
            end,
            from,
            back,
            since_s: 0,
        };
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
        assert_eq!(damage.hidden, [place(0, u32::MAX, 3, 5), place(0, u32::MAX, 6, 0)]);
        damage.note_hidden(&[block], &[], 7);
        let closed = [place(0, u32::MAX, 3, 5), place(0, u32::MAX, 6, 7)];
        assert_eq!(damage.hidden[..2], closed);
        assert_eq!(damage.hidden[2], place(8_192, 12_288, 7, 0));
        assert!(!damage.covers(&left_alone));
        damage.note_hidden(&[], &[], 8);
        assert_eq!(damage.hidden, [], "nothing of it is in the log any more");
    }

    /// Blocks that can be read at every other start.
    #[test]
    fn more_places_than_a_record_takes_are_one_for_each_file() {
        let blocks: Vec<Place> = (0..100).map(|n| (SegmentId(n % 3), n * 8_192, n * 8_192 + 4_096)).collect();
        let mut damage = KnownDamage::default();
        for era in 1..100 {
            let hidden: Vec<Place> = blocks.iter().copied().skip(era as usize % 2).step_by(2).collect();
            damage.note_hidden(&hidden, &[], era);
            damage.date(era);
            assert!(damage.hidden.len() <= HiddenPlace::COUNT_MAX, "{}", damage.hidden.len());
            for &(segment, offset, end) in &hidden {
                let is_in = |place: &&HiddenPlace| {
                    place.segment == segment && place.offset <= offset && end <= place.end
                };
                assert!(damage.not_there().any(|place| is_in(&place)), "{segment:?} {offset}");
                // What was hidden once, and is again, has not lost its first time.
                if era > 2 {
                    assert!(
                        damage.hidden.iter().filter(is_in).any(|place| place.from <= 2 && place.back >= 2)
                    );
                }
            }
        }
        // As long as there are as many, they are the same ones, since the same time.
        let crowd: Vec<Place> = (0..200).map(|n| (SegmentId(n % 3), n * 8_192, n * 8_192 + 4_096)).collect();
        damage = KnownDamage::default();
        for era in 1..4 {
            damage.note_hidden(&crowd, &[], era);
            damage.date(era);
            assert_eq!(damage.hidden.len(), 3, "one for each file");
            assert!(damage.hidden.iter().all(|place| (place.from, place.back, place.since_s) == (1, 0, 1)));
        }
        let back = damage.hidden.clone();
        let many: Vec<Place> = (0..200).map(|number| whole(SegmentId(number))).collect();
        damage.note_hidden(&many, &back, 200);
        assert_eq!(damage.hidden.len(), HiddenPlace::COUNT_MAX);
        assert_eq!(
            damage.hidden.iter().filter(|place| place.back > 0).count(),
            3,
            "mail that is there comes first"
        );
    }

    #[test]
    fn what_is_hidden_is_of_use_until_mail_of_before_would_have_expired() {
        let at = (SegmentId(1), 8_192, 12_288);
        let mut damage = KnownDamage::default();
        assert!(damage.may_have_mail(at, 5_000_000, EXPIRY_MS), "nobody has noted it");
        damage.note_hidden(&[at], &[], 3);
        damage.date(1_000_000);
        damage.note_hidden(&[at], &[], 4);
        damage.date(2_000_000);
        let floor = FoundFloor {
            lsn: 1,
            up_to: tern_protocol::ids::Seq(1),
            position: Position { segment: SegmentId(0), offset: 0 },
        };
        let floors = BTreeMap::from([((AccountId(1), DeviceId(1), 2), floor)]);
        let is_of_use = |now_s| {
            let kept = damage.floors_to_keep(&floors, now_s, EXPIRY_MS).len();
            assert_eq!(kept, usize::from(damage.may_have_mail(at, now_s, EXPIRY_MS)));
            kept == 1
        };
        let end_s = 1_000_000 + (EXPIRY_MS / 1000) as u32;
        assert!(is_of_use(end_s - 1) && !is_of_use(end_s));
    }
}
