//! Which message ids a home has seen: keyed hashes, by the time at which the sender made the id.
//!
//! Memory is bounded: ids are kept in periods of five minutes; a period is dropped when it leaves the horizon, and
//! earlier when there are too many ids; the horizon is then shorter, and an older retry is answered `expired`, never
//! taken for new. What is being sent and tried again now is never dropped: if it alone takes all that there is, new
//! messages are refused as busy until it is older. Ids from the future are not taken, so that nobody can fill periods
//! that are yet to come.
//!
//! No step is long, however many ids there are: sets grow by parts, and the memory of a period that is dropped is given
//! back table by table.
//!
//! # When the clock is set
//!
//! A clock that was ahead drops periods by its own time; once it is put right, that time is still to come. Were all that
//! was made before it refused as old, no new message would be taken until the right time reaches it: for as long as the
//! clock was ahead, which may be weeks. So a step that is believed, forward or back, moves the end of what counts as
//! dropped to the new present, or leaves it where it is if it lies before that. What this lets in, by the time of the id:
//!
//! - Before the present: nothing. It is refused as old as before. Where nothing of it was dropped, it is known.
//! - Ahead of the present: only phones that were told the later time come with it and are taken. What they come with is
//!   refused as old up to the latest end that there ever was, so a retry of what was dropped is not new. What they make now
//!   lies behind that end. All others are answered from what is remembered: ids of a time to come are kept.
//! - What the present reaches, when it goes over a time that another clock has told before. What is remembered is known:
//!   an id leaves only when it is older than the reach, counted in time that was lived through, or for want of memory when
//!   it is older than ten minutes. So only a retry older than the reach may be taken a second time, of an id from a time
//!   that the clock goes over twice, by a phone that has not come meanwhile; its recipients know it by its id. To tell it
//!   from what phones make now there is only its hash, and that was dropped: one of them must lose, and a refusal is final.
//!
//! A step forward over the latest end makes it count again, so a clock that goes to and fro forgets nothing of this.

use crate::account::SeededHash;
use crate::ahead::Fetch;
use crate::id_set::{IdSet, Table};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::hash::BuildHasher;
use tern_protocol::ids::{AccountId, MessageId};
use tern_storage::mailbox::EntryKind;

/// Length of a period, seconds.
pub(crate) const PERIOD_S: u32 = 300;
/// How far ahead of the server's clock an id may be, seconds: a client reads that clock in `Welcome`.
const AHEAD_S: u32 = 300;
/// For how long nothing is dropped, seconds: what was sent within it may still be tried again by a live connection.
pub(crate) const LIVE_S: u32 = 600;
/// The periods that may not be dropped may take so many times the limit.
const LIVE_FACTOR: usize = crate::limits::DEDUP_LIVE_FACTOR;
/// A tick that is said again is looked for so far back, seconds.
const TICK_AGAIN_S: u32 = 7_200;
/// Tables that are freed at once, each second.
const FREED_COUNT: usize = 4;
/// So long before a period begins its tables are made, seconds: at its first message it would need all of them at once.
const READY_S: u32 = 150;
/// Tables that are made at once, each second.
const MADE_COUNT: usize = 4;

/// What a home may say of an id by its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Age {
    /// It is known whether it was seen.
    Known,
    /// It may have been seen and forgotten.
    Old,
    /// Its time is yet to come: it is taken only if it was taken before, by a clock that was ahead.
    Ahead,
}

/// The hash of one id: keyed for the data directory, so that the log can hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IdHash(pub(crate) u64);

/// The ids that were made from one second on until another. An older log has them by the hour.
#[derive(Debug)]
struct Period {
    from_s: u32,
    until_s: u32,
    ids: IdSet,
}

/// The ids that a shard remembers.
#[derive(Debug)]
pub(crate) struct Dedup {
    key: SeededHash,
    /// In order of time; they do not overlap.
    periods: VecDeque<Period>,
    count: usize,
    count_max: usize,
    horizon_s: u32,
    /// Ids that were made before this second may have been dropped. Not after the present.
    dropped_until_s: u32,
    /// The same by any clock that there was: the latest end of a period that was dropped.
    lost_until_s: u32,
    /// When the last rotation was, seconds of Unix time.
    present_s: u32,
    /// The latest second that a phone may have been told to be now.
    told_s: u32,
    /// Ids of periods that are yet to come: from a log that was written by a clock that was ahead. Counted at rotations.
    ahead_count: usize,
    /// What was dropped and is not freed yet.
    leaving: Vec<Table>,
    /// Times that a period was dropped or a message refused for want of memory.
    pub(crate) hit_count: u64,
}

impl Dedup {
    pub(crate) fn new(key: [u8; 16], horizon_ms: u64, count_max: usize) -> Self {
        let (low, high) = key.split_at(8);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        Self {
            key: SeededHash(word(low), word(high)),
            periods: VecDeque::new(),
            count: 0,
            count_max,
            horizon_s: u32::try_from(horizon_ms / 1000).unwrap_or(u32::MAX),
            dropped_until_s: 0,
            lost_until_s: 0,
            present_s: 0,
            told_s: 0,
            ahead_count: 0,
            leaving: Vec::new(),
            hit_count: 0,
        }
    }

    /// The hash under which an id is remembered.
    pub(crate) fn hash(&self, to: AccountId, from: AccountId, id: MessageId, kind: EntryKind) -> IdHash {
        // Spelled out in bytes: the log keeps these hashes, so they may not depend on how a release hashes tuples.
        let mut bytes = [0; 25];
        for (field, value) in bytes.chunks_exact_mut(8).zip([to.0, from.0, id.0]) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        bytes[24] = match kind {
            EntryKind::Message => 0,
            EntryKind::Delivered => 1,
            EntryKind::Read => 2,
            EntryKind::Copy => 3,
        };
        IdHash(self.key.build_hasher().hash(&bytes))
    }

    /// Where the period of ids made at `made_s` begins.
    pub(crate) const fn period(made_s: u32) -> u32 {
        made_s - made_s % PERIOD_S
    }

    /// What is known of an id made at `made_s`.
    pub(crate) fn age(&self, made_s: u32, now_s: u32) -> Age {
        // A phone that was welcomed before the clock went back may go by the old time, while there is room for it.
        let is_told = made_s <= self.told_s.saturating_add(AHEAD_S) && self.count < self.count_max;
        let is_ahead = made_s > now_s.saturating_add(AHEAD_S);
        let dropped_until_s = if is_ahead { self.lost_until_s } else { self.dropped_until_s };
        if is_ahead && !is_told {
            Age::Ahead
        } else if now_s.saturating_sub(made_s) <= self.horizon_s && made_s >= dropped_until_s {
            Age::Known
        } else {
            Age::Old
        }
    }

    /// Ids that were made before this second may have been dropped.
    pub(crate) const fn dropped_until_s(&self) -> u32 {
        self.dropped_until_s
    }

    /// How many ids are remembered.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// How far back ids are known now, seconds.
    pub(crate) fn reach_s(&self) -> u32 {
        self.present_s.saturating_sub(self.dropped_until_s).min(self.horizon_s)
    }

    /// Whether no new id may be remembered: those of the present take all the memory that there is.
    pub(crate) fn is_full(&self) -> bool {
        self.count - self.ahead_count >= self.count_max.saturating_mul(LIVE_FACTOR)
    }

    /// Whether rotations have memory to give back.
    pub(crate) const fn is_freeing(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Whether the id was seen.
    pub(crate) fn has(&self, made_s: u32, hash: IdHash) -> bool {
        self.find(made_s).is_ok_and(|index| self.periods[index].ids.has(hash.0))
    }

    /// Asks for the memory that says whether an id is known.
    pub(crate) fn fetch(&self, made_s: u32, hash: IdHash, fetch: Fetch) {
        if let Ok(index) = self.find(made_s) {
            fetch.of(self.periods[index].ids.line(hash.0));
        }
    }

    /// Whether a tick came before. It is known by the time at which it came first: `again` looks further back.
    pub(crate) fn has_tick(&self, made_s: u32, hash: IdHash, again: bool) -> bool {
        let back_s = if again { TICK_AGAIN_S } else { PERIOD_S };
        let first_s = made_s.saturating_sub(back_s);
        let earlier = self.periods.iter().rev().skip_while(|period| period.from_s > made_s);
        earlier.take_while(|period| period.until_s > first_s).any(|period| period.ids.has(hash.0))
    }

    /// Remembers an id, known or not.
    pub(crate) fn insert(&mut self, made_s: u32, hash: IdHash) {
        if !self.has(made_s, hash) {
            self.insert_new(made_s, hash);
        }
    }

    /// Remembers an id that [`Self::has`] has just denied: one look-up less.
    pub(crate) fn insert_new(&mut self, made_s: u32, hash: IdHash) {
        let from_s = Self::period(made_s);
        self.insert_into(from_s, from_s.saturating_add(PERIOD_S), made_s, hash);
    }

    /// Remembers an id of which only the time from `from_s` until `until_s` is known. These come before others that are
    /// known better.
    pub(crate) fn insert_between(&mut self, from_s: u32, until_s: u32, hash: IdHash) {
        if !self.has(from_s, hash) {
            self.insert_into(from_s, until_s, from_s, hash);
        }
    }

    fn insert_into(&mut self, from_s: u32, until_s: u32, made_s: u32, hash: IdHash) {
        let index = self.find(made_s).unwrap_or_else(|index| {
            // As large as the one before it: growing copies tables.
            let is_now = from_s.abs_diff(self.present_s) <= 2 * PERIOD_S;
            let before = index.checked_sub(1).filter(|_| is_now).and_then(|before| self.periods.get(before));
            let count = before.map_or(0, |before| before.ids.len()).min(self.count_max);
            self.periods.insert(index, Period { from_s, until_s, ids: IdSet::for_count(count) });
            index
        });
        self.periods[index].ids.insert_new(hash.0);
        self.count += 1;
        self.keep_to_limit();
    }

    /// The clock was set to another time: what may have been dropped of a time that is to come does not make the present
    /// old. The module's text says what follows.
    pub(crate) fn clock_is_set(&mut self, now_s: u32) {
        self.dropped_until_s = self.lost_until_s.min(now_s);
    }

    /// Drops the periods before `oldest_s`, which is where the horizon ends if the clock has not stepped, and earlier if
    /// it has. `told_s` is the latest second that a phone may take for now.
    pub(crate) fn rotate(&mut self, now_s: u32, oldest_s: u32, told_s: u32) {
        self.present_s = now_s;
        self.told_s = told_s.max(now_s);
        self.leaving.truncate(self.leaving.len().saturating_sub(FREED_COUNT));
        while self.periods.front().is_some_and(|period| period.until_s <= oldest_s) {
            // A clock that goes back must not make them new again.
            self.drop_oldest();
        }
        // A period that begins soon is the present: its first ids may come from now on.
        let last_s = self.told_s.saturating_add(AHEAD_S);
        let ahead = self.periods.iter().rev().take_while(|period| period.from_s > last_s);
        self.ahead_count = ahead.map(|period| period.ids.len()).sum();
        self.keep_to_limit();
        self.make_next_ready();
    }

    /// If there will be many ids in the next period, makes some of its tables.
    fn make_next_ready(&mut self) {
        let next_s = Self::period(self.present_s).saturating_add(PERIOD_S);
        if next_s - self.present_s > READY_S {
            return;
        }
        let Ok(index) = self.find(self.present_s) else { return };
        // As many as there would be in this one if it went on as it began.
        let Period { from_s, ids, .. } = &self.periods[index];
        let passed_s = (self.present_s - from_s).max(1);
        let count = (ids.len() as u64 * u64::from(PERIOD_S) / u64::from(passed_s)).min(self.count_max as u64);
        if IdSet::is_small(count as usize) {
            return;
        }
        let next = self.find(next_s).unwrap_or_else(|index| {
            let until_s = next_s.saturating_add(PERIOD_S);
            let ids = IdSet::for_count(count as usize);
            self.periods.insert(index, Period { from_s: next_s, until_s, ids });
            index
        });
        self.periods[next].ids.make_ready(MADE_COUNT);
    }

    /// What was made before `oldest_s` is not taken in from the log, whatever the clock turns out to be.
    pub(crate) fn forgets_before(&mut self, oldest_s: u32) {
        self.dropped_until_s = self.dropped_until_s.max(oldest_s);
        self.lost_until_s = self.lost_until_s.max(oldest_s);
    }

    /// Drops what may be dropped of too many. Also when time has passed: nothing new comes while it is full.
    fn keep_to_limit(&mut self) {
        while self.count > self.count_max && self.may_drop() {
            self.drop_oldest();
            self.hit_count += 1;
        }
    }

    /// What is being sent and tried again is never dropped.
    fn may_drop(&self) -> bool {
        self.periods.front().is_some_and(|oldest| oldest.until_s.saturating_add(LIVE_S) <= self.present_s)
    }

    fn drop_oldest(&mut self) {
        let Some(period) = self.periods.pop_front() else { return };
        self.count -= period.ids.len();
        self.forgets_before(period.until_s);
        self.leaving.extend(period.ids.into_tables());
    }

    fn find(&self, made_s: u32) -> Result<usize, usize> {
        // The present period is the last one nearly always, or the last but one: the next may be there already.
        let lasts = (0..self.periods.len()).rev().take(2);
        let has = |period: &Period| (period.from_s..period.until_s).contains(&made_s);
        if let Some(index) = lasts.into_iter().find(|&index| has(&self.periods[index])) {
            return Ok(index);
        }
        self.periods.binary_search_by(|period| match period {
            Period { until_s, .. } if *until_s <= made_s => Ordering::Less,
            Period { from_s, .. } if *from_s > made_s => Ordering::Greater,
            _ => Ordering::Equal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_S: u32 = 3_600;

    fn rotate(dedup: &mut Dedup, now_s: u32) {
        dedup.rotate(now_s, now_s - dedup.horizon_s, now_s);
    }

    fn dedup(count_max: usize) -> Dedup {
        Dedup::new([7; 16], 24 * 3_600_000, count_max)
    }

    #[test]
    fn remembers_within_the_horizon() {
        let mut dedup = dedup(1000);
        let now_s = 1_800_000_000;
        let hash = dedup.hash(AccountId(1), AccountId(2), MessageId(3), EntryKind::Message);
        assert!(!dedup.has(now_s, hash));
        dedup.insert(now_s, hash);
        assert!(dedup.has(now_s, hash));
        rotate(&mut dedup, now_s + 23 * HOUR_S);
        assert!(dedup.has(now_s, hash));
        assert_eq!(dedup.age(now_s, now_s + 25 * HOUR_S), Age::Old);
        rotate(&mut dedup, now_s + 26 * HOUR_S);
        assert!(!dedup.has(now_s, hash));
        assert_eq!((dedup.count, dedup.leaving.len()), (0, 1));
        rotate(&mut dedup, now_s + 26 * HOUR_S + 1);
        assert_eq!(dedup.leaving.len(), 0, "its memory is given back");
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_known_again() {
        let mut dedup = dedup(10);
        let now_s = 1_800_000_000;
        rotate(&mut dedup, now_s);
        dedup.insert(now_s, IdHash(1));
        rotate(&mut dedup, now_s + 26 * HOUR_S);
        rotate(&mut dedup, now_s + 10);
        assert_eq!(dedup.age(now_s, now_s + 10), Age::Old, "it was dropped");
    }

    #[test]
    fn what_a_clock_that_was_ahead_dropped_counts_only_when_it_is_there_again() {
        let mut dedup = dedup(1000);
        let (now_s, ahead_s) = (1_800_000_000, 1_800_000_000 + 31 * 24 * HOUR_S);
        dedup.insert(ahead_s, IdHash(1));
        rotate(&mut dedup, ahead_s + 26 * HOUR_S);
        let lost_until_s = ahead_s + PERIOD_S;
        assert_eq!(dedup.dropped_until_s(), lost_until_s);
        // Put right. What was made before is as old as it was, and what phones make now is new.
        dedup.clock_is_set(now_s);
        dedup.rotate(now_s, now_s - 24 * HOUR_S, ahead_s + 26 * HOUR_S);
        let ages = [now_s - 1, now_s, now_s + AHEAD_S].map(|made_s| dedup.age(made_s, now_s));
        assert_eq!(ages, [Age::Old, Age::Known, Age::Known]);
        assert_eq!(dedup.reach_s(), 0);
        // Who was told the other time may have sent what was dropped.
        let ages = [ahead_s, lost_until_s - 1, lost_until_s].map(|made_s| dedup.age(made_s, now_s));
        assert_eq!(ages, [Age::Old, Age::Old, Age::Known]);
        // Ahead once more, and less far than at the end.
        dedup.clock_is_set(ahead_s + HOUR_S);
        let ages = [ahead_s, lost_until_s].map(|made_s| dedup.age(made_s, ahead_s + HOUR_S));
        assert_eq!(ages, [Age::Old, Age::Known]);
    }

    #[test]
    fn who_was_told_a_later_time_may_go_by_it_while_there_is_room() {
        let mut dedup = dedup(10);
        let now_s = 1_800_000_000;
        dedup.rotate(now_s, now_s - dedup.horizon_s, now_s + 7 * HOUR_S);
        assert_eq!(dedup.age(now_s + 7 * HOUR_S + AHEAD_S, now_s), Age::Known);
        assert_eq!(dedup.age(now_s + 7 * HOUR_S + AHEAD_S + 1, now_s), Age::Ahead);
        (0..10).for_each(|n| dedup.insert(now_s + 7 * HOUR_S, IdHash(n)));
        assert_eq!(dedup.age(now_s + 7 * HOUR_S, now_s), Age::Ahead);
        assert!(!dedup.is_full());
    }

    #[test]
    fn too_many_ids_shorten_the_horizon_instead_of_forgetting() {
        let mut dedup = dedup(10);
        let now_s = 1_800_000_000;
        let old_s = now_s - 2 * HOUR_S;
        rotate(&mut dedup, now_s);
        for n in 0..10 {
            dedup.insert(old_s, IdHash(n));
        }
        assert_eq!(dedup.age(old_s, now_s), Age::Known);
        dedup.insert(now_s, IdHash(99));
        assert_eq!(dedup.age(old_s, now_s), Age::Old, "dropped ids must be refused, not taken for new");
        assert!(dedup.has(now_s, IdHash(99)));
        assert_eq!(dedup.hit_count, 1);
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_make_the_present_expire() {
        let mut dedup = dedup(10);
        let now_s = 1_800_000_000;
        rotate(&mut dedup, now_s);
        for n in 0..15 {
            dedup.insert(now_s, IdHash(n));
        }
        dedup.insert(now_s + HOUR_S, IdHash(99));
        assert_eq!(dedup.age(now_s, now_s), Age::Known);
        for n in 100..200 {
            dedup.insert(now_s + HOUR_S, IdHash(n));
        }
        assert!(dedup.has(now_s, IdHash(7)));
        assert_eq!(dedup.age(now_s, now_s), Age::Known);
        // Nobody but a log can put them there, and then they do not take the present's room.
        assert_eq!(dedup.age(now_s + AHEAD_S, now_s), Age::Known);
        assert_eq!(dedup.age(now_s + AHEAD_S + 1, now_s), Age::Ahead);
        rotate(&mut dedup, now_s + 1);
        assert!(!dedup.is_full());
    }

    #[test]
    fn what_is_older_than_ten_minutes_goes_before_anybody_has_to_wait() {
        let mut dedup = dedup(10);
        let start_s = 500_000 * HOUR_S;
        rotate(&mut dedup, start_s);
        (0..60).for_each(|n| dedup.insert(start_s + 1, IdHash(n)));
        assert!(dedup.is_full());
        let over_s = start_s + PERIOD_S + LIVE_S;
        rotate(&mut dedup, over_s - 1);
        assert_eq!(dedup.age(start_s + 1, over_s - 1), Age::Known, "still being tried again");
        assert!(dedup.is_full());
        rotate(&mut dedup, over_s);
        assert!(!dedup.is_full());
        assert_eq!(dedup.age(start_s + 1, over_s), Age::Old);
        assert_eq!(dedup.age(start_s + PERIOD_S, over_s), Age::Known);
        assert_eq!(dedup.reach_s(), LIVE_S);
    }

    #[test]
    fn a_steady_load_of_two_limits_a_quarter_of_an_hour_never_waits() {
        // The default keeps 60 million ids: so many as 120,000 a second make in 500 seconds.
        let mut dedup = dedup(60_000);
        let start_s = 500_000 * HOUR_S;
        let mut most = 0;
        for second in 0..3 * HOUR_S {
            let now_s = start_s + second;
            rotate(&mut dedup, now_s);
            for n in 0..120 {
                assert!(!dedup.is_full());
                dedup.insert_new(now_s, IdHash(u64::from(second * 120 + n)));
            }
            most = most.max(dedup.count());
        }
        assert!(most < 60_000 * LIVE_FACTOR);
        assert!(dedup.reach_s() >= LIVE_S);
    }

    #[test]
    fn the_tables_of_the_next_period_are_made_before_it_begins() {
        let start_s = 500_000 * HOUR_S;
        for (per_s, is_made) in [(1, false), (30, true)] {
            let mut dedup = dedup(20_000_000);
            for second in 0..PERIOD_S {
                let now_s = start_s + second;
                rotate(&mut dedup, now_s);
                // Spread as keyed hashes are.
                let hash = |n: u32| IdHash(u64::from(second * per_s + n).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                (0..per_s).for_each(|n| dedup.insert_new(now_s, hash(n)));
            }
            assert_eq!(dedup.periods.len(), 1 + usize::from(is_made), "few ids need nothing");
            let Some(next) = dedup.periods.get_mut(1) else { continue };
            assert_eq!((next.from_s, next.ids.len()), (start_s + PERIOD_S, 0));
            assert!(!next.ids.make_ready(0), "all of them are there");
            // What comes finds its period, and what is old finds its own.
            let found =
                [start_s, start_s + PERIOD_S - 1, start_s + PERIOD_S].map(|made_s| dedup.find(made_s));
            assert_eq!(found, [Ok(0), Ok(0), Ok(1)]);
            rotate(&mut dedup, start_s + PERIOD_S);
            dedup.insert_new(start_s + PERIOD_S, IdHash(1));
            assert_eq!(dedup.periods.len(), 2);
        }
    }

    #[test]
    fn what_an_older_log_knows_by_the_hour_is_known_beside_what_is_known_better() {
        let mut dedup = dedup(1000);
        let hour_s = 500_000 * HOUR_S;
        rotate(&mut dedup, hour_s + HOUR_S + 100);
        dedup.insert_between(hour_s, hour_s + HOUR_S, IdHash(1));
        dedup.insert(hour_s + 700, IdHash(2));
        dedup.insert(hour_s + HOUR_S, IdHash(3));
        assert_eq!(dedup.periods.len(), 2);
        for made_s in [hour_s, hour_s + 700, hour_s + HOUR_S - 1] {
            assert!(dedup.has(made_s, IdHash(1)) && dedup.has(made_s, IdHash(2)));
            assert!(!dedup.has(made_s, IdHash(3)));
        }
        assert!(dedup.has(hour_s + HOUR_S, IdHash(3)) && !dedup.has(hour_s - 1, IdHash(1)));
    }

    #[test]
    fn a_tick_that_is_said_again_is_looked_for_further_back() {
        let mut dedup = dedup(1000);
        let now_s = 500_000 * HOUR_S;
        dedup.insert(now_s - PERIOD_S, IdHash(1));
        dedup.insert(now_s - TICK_AGAIN_S, IdHash(2));
        dedup.insert(now_s - TICK_AGAIN_S - PERIOD_S, IdHash(3));
        for with_present in [false, true] {
            let known = |again| [1, 2, 3].map(|n| dedup.has_tick(now_s, IdHash(n), again));
            let expected = ([true, false, false], [true, true, false]);
            assert_eq!((known(false), known(true)), expected, "{with_present}");
            dedup.insert(now_s, IdHash(4));
        }
    }

    proptest! {
        /// Whatever comes and however fast: the present never expires, memory is bounded, and what counts as known is
        /// known.
        #[test]
        fn the_present_never_expires_and_memory_is_bounded(
            steps in proptest::collection::vec((0_u32..2_000, -7_200_i64..4_000, 1_u64..30), 1..200),
        ) {
            let mut dedup = dedup(10);
            let (mut now_s, mut next, mut taken) = (1_800_000_000, 0, Vec::new());
            for (pause_s, made_s, count) in steps {
                now_s += pause_s;
                rotate(&mut dedup, now_s);
                let made_s = (i64::from(now_s) + made_s) as u32;
                for _ in 0..count {
                    if dedup.age(made_s, now_s) == Age::Known && !dedup.is_full() {
                        next += 1;
                        dedup.insert(made_s, IdHash(next));
                        taken.push((made_s, IdHash(next)));
                    }
                }
                prop_assert!(dedup.count <= 10 * LIVE_FACTOR);
                prop_assert!([0, 1, LIVE_S - 1].iter().all(|ago_s| dedup.age(now_s - ago_s, now_s) == Age::Known));
                let known = |id: &&(u32, IdHash)| dedup.age(id.0, now_s) == Age::Known;
                let is_there = |id: &(u32, IdHash)| dedup.has(id.0, id.1);
                prop_assert!(taken.iter().filter(known).all(is_there));
            }
        }
    }

    #[test]
    fn a_tick_and_its_message_are_told_apart() {
        let dedup = dedup(10);
        let message = dedup.hash(AccountId(1), AccountId(2), MessageId(3), EntryKind::Message);
        assert_ne!(message, dedup.hash(AccountId(1), AccountId(2), MessageId(3), EntryKind::Delivered));
        assert_ne!(message, dedup.hash(AccountId(2), AccountId(1), MessageId(3), EntryKind::Message));
    }
}
