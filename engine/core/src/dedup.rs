//! Which message ids a home has seen: keyed hashes, by the hour in which the sender made the id.
//!
//! Memory is bounded: an hour is dropped when it leaves the horizon, and earlier when there are too many ids; the
//! horizon is then shorter, and an older retry is answered `expired`, never taken for new. What is being sent and tried
//! again now is never dropped: if it alone takes all that there is, new messages are refused as busy until it is older.
//! Ids from the future are not taken, so that nobody can fill hours that are yet to come.

use crate::account::SeededHash;
use alloc::collections::VecDeque;
use core::hash::BuildHasher;
use hashbrown::HashTable;
use tern_protocol::ids::{AccountId, MessageId};
use tern_storage::mailbox::EntryKind;

const HOUR_S: u32 = 3600;
/// How far ahead of the server's clock an id may be, seconds: a client reads that clock in `Welcome`.
const AHEAD_S: u32 = 300;
/// For how long nothing is dropped, seconds: what was sent within it may still be tried again by a live connection.
const LIVE_S: u32 = 600;
/// The hours that may not be dropped may take so many times the limit.
const LIVE_FACTOR: usize = 4;

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

#[derive(Debug)]
struct Hour {
    hour: u32,
    hashes: HashTable<u64>,
}

/// The ids that a shard remembers.
#[derive(Debug)]
pub(crate) struct Dedup {
    key: SeededHash,
    hours: VecDeque<Hour>,
    count: usize,
    count_max: usize,
    horizon_s: u32,
    /// Ids of this hour and older ones were dropped for want of memory.
    dropped_hour: u32,
    /// When the last rotation was, seconds of Unix time.
    present_s: u32,
    /// The latest second that a phone may have been told to be now.
    told_s: u32,
    /// Ids of hours that are yet to come: from a log that was written by a clock that was ahead. Counted at rotations.
    ahead_count: usize,
    /// Times that an hour was dropped or a message refused for want of memory.
    pub(crate) hit_count: u64,
}

impl Dedup {
    pub(crate) fn new(key: [u8; 16], horizon_ms: u64, count_max: usize) -> Self {
        let (low, high) = key.split_at(8);
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        Self {
            key: SeededHash(word(low), word(high)),
            hours: VecDeque::new(),
            count: 0,
            count_max,
            horizon_s: u32::try_from(horizon_ms / 1000).unwrap_or(u32::MAX),
            dropped_hour: 0,
            present_s: 0,
            told_s: 0,
            ahead_count: 0,
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

    /// The hour that an id made at `made_s` belongs to.
    pub(crate) const fn hour(made_s: u32) -> u32 {
        made_s / HOUR_S
    }

    /// What is known of an id made at `made_s`.
    pub(crate) fn age(&self, made_s: u32, now_s: u32) -> Age {
        // A phone that was welcomed before the clock went back may go by the old time, while there is room for it.
        let is_told = made_s <= self.told_s.saturating_add(AHEAD_S) && self.count < self.count_max;
        if made_s > now_s.saturating_add(AHEAD_S) && !is_told {
            Age::Ahead
        } else if now_s.saturating_sub(made_s) <= self.horizon_s && Self::hour(made_s) > self.dropped_hour {
            Age::Known
        } else {
            Age::Old
        }
    }

    /// Whether no new id may be remembered: those of the present take all the memory that there is.
    pub(crate) fn is_full(&self) -> bool {
        self.count - self.ahead_count >= self.count_max.saturating_mul(LIVE_FACTOR)
    }

    /// Whether the id was seen.
    pub(crate) fn has(&self, hour: u32, hash: IdHash) -> bool {
        self.find(hour).is_ok_and(|index| self.hours[index].hashes.find(hash.0, |h| *h == hash.0).is_some())
    }

    /// Remembers an id, known or not.
    pub(crate) fn insert(&mut self, hour: u32, hash: IdHash) {
        if !self.has(hour, hash) {
            self.insert_new(hour, hash);
        }
    }

    /// Remembers an id that [`Self::has`] has just denied: one look-up less.
    pub(crate) fn insert_new(&mut self, hour: u32, hash: IdHash) {
        let index = self.find(hour).unwrap_or_else(|index| {
            // As large as the hour before it: growing copies a table, in one go.
            let is_now = hour.abs_diff(Self::hour(self.present_s)) <= 1;
            let before = index.checked_sub(1).filter(|_| is_now).and_then(|before| self.hours.get(before));
            let count = before.map_or(0, |before| before.hashes.len()).min(self.count_max);
            self.hours.insert(index, Hour { hour, hashes: HashTable::with_capacity(count) });
            index
        });
        self.hours[index].hashes.insert_unique(hash.0, hash.0, |h| *h);
        self.count += 1;
        self.keep_to_limit();
    }

    /// Drops the hours before `oldest_s`, which is where the horizon ends if the clock has not stepped, and earlier if
    /// it has; returns the first hour that is kept. `told_s` is the latest second that a phone may take for now.
    pub(crate) fn rotate(&mut self, now_s: u32, oldest_s: u32, told_s: u32) -> u32 {
        let first = Self::hour(oldest_s);
        self.present_s = now_s;
        self.told_s = told_s.max(now_s);
        while self.hours.front().is_some_and(|hour| hour.hour < first) {
            let Some(gone) = self.hours.pop_front() else { break };
            self.count -= gone.hashes.len();
            // A clock that goes back must not make them known again.
            self.dropped_hour = self.dropped_hour.max(gone.hour);
        }
        // An hour that begins soon is the present: its first ids may come from now on.
        let last = Self::hour(self.told_s.saturating_add(AHEAD_S));
        let ahead = self.hours.iter().rev().take_while(|hour| hour.hour > last);
        self.ahead_count = ahead.map(|hour| hour.hashes.len()).sum();
        self.keep_to_limit();
        first
    }

    /// Drops what may be dropped of too many. Also when time has passed: nothing new comes while it is full.
    fn keep_to_limit(&mut self) {
        while self.count > self.count_max && self.may_drop() {
            self.drop_oldest();
        }
    }

    /// The present hour is never dropped, and the one before it only if memory is really short and it is over for long
    /// enough: they hold what is being sent and tried again.
    fn may_drop(&self) -> bool {
        let Some(oldest) = self.hours.front() else { return false };
        let over_s = oldest.hour.saturating_add(1).saturating_mul(HOUR_S);
        let quiet_s = if self.is_full() { LIVE_S } else { HOUR_S };
        over_s.saturating_add(quiet_s) <= self.present_s
    }

    fn drop_oldest(&mut self) {
        if let Some(hour) = self.hours.pop_front() {
            self.count -= hour.hashes.len();
            self.dropped_hour = self.dropped_hour.max(hour.hour);
            self.hit_count += 1;
        }
    }

    fn find(&self, hour: u32) -> Result<usize, usize> {
        // The present hour is the last one nearly always.
        match self.hours.back() {
            Some(last) if last.hour == hour => Ok(self.hours.len() - 1),
            _ => self.hours.binary_search_by_key(&hour, |entry| entry.hour),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

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
        assert!(!dedup.has(Dedup::hour(now_s), hash));
        dedup.insert(Dedup::hour(now_s), hash);
        assert!(dedup.has(Dedup::hour(now_s), hash));
        rotate(&mut dedup, now_s + 23 * HOUR_S);
        assert!(dedup.has(Dedup::hour(now_s), hash));
        assert_eq!(dedup.age(now_s, now_s + 25 * HOUR_S), Age::Old);
        rotate(&mut dedup, now_s + 26 * HOUR_S);
        assert!(!dedup.has(Dedup::hour(now_s), hash));
        assert_eq!(dedup.count, 0);
    }

    #[test]
    fn a_clock_that_goes_back_makes_nothing_known_again() {
        let mut dedup = dedup(10);
        let now_s = 1_800_000_000;
        rotate(&mut dedup, now_s);
        dedup.insert(Dedup::hour(now_s), IdHash(1));
        rotate(&mut dedup, now_s + 26 * HOUR_S);
        rotate(&mut dedup, now_s + 10);
        assert_eq!(dedup.age(now_s, now_s + 10), Age::Old, "it was dropped");
    }

    #[test]
    fn who_was_told_a_later_time_may_go_by_it_while_there_is_room() {
        let mut dedup = dedup(10);
        let now_s = 1_800_000_000;
        dedup.rotate(now_s, now_s - dedup.horizon_s, now_s + 7 * HOUR_S);
        assert_eq!(dedup.age(now_s + 7 * HOUR_S + AHEAD_S, now_s), Age::Known);
        assert_eq!(dedup.age(now_s + 7 * HOUR_S + AHEAD_S + 1, now_s), Age::Ahead);
        (0..10).for_each(|n| dedup.insert(Dedup::hour(now_s + 7 * HOUR_S), IdHash(n)));
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
            dedup.insert(Dedup::hour(old_s), IdHash(n));
        }
        assert_eq!(dedup.age(old_s, now_s), Age::Known);
        dedup.insert(Dedup::hour(now_s), IdHash(99));
        assert_eq!(dedup.age(old_s, now_s), Age::Old, "dropped ids must be refused, not taken for new");
        assert!(dedup.has(Dedup::hour(now_s), IdHash(99)));
        assert_eq!(dedup.hit_count, 1);
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_make_the_present_expire() {
        let mut dedup = dedup(10);
        let now_s = 1_800_000_000;
        rotate(&mut dedup, now_s);
        for n in 0..20 {
            dedup.insert(Dedup::hour(now_s), IdHash(n));
        }
        dedup.insert(Dedup::hour(now_s + HOUR_S), IdHash(99));
        assert_eq!(dedup.age(now_s, now_s), Age::Known);
        for n in 100..200 {
            dedup.insert(Dedup::hour(now_s + HOUR_S), IdHash(n));
        }
        assert!(dedup.has(Dedup::hour(now_s), IdHash(7)));
        assert_eq!(dedup.age(now_s, now_s), Age::Known);
        // Nobody but a log can put them there, and then they do not take the present's room.
        assert_eq!(dedup.age(now_s + AHEAD_S, now_s), Age::Known);
        assert_eq!(dedup.age(now_s + AHEAD_S + 1, now_s), Age::Ahead);
        rotate(&mut dedup, now_s + 1);
        assert!(!dedup.is_full());
    }

    #[test]
    fn the_hour_before_goes_when_it_is_quiet_and_memory_is_really_short() {
        let mut dedup = dedup(10);
        let hour_s = 500_000 * HOUR_S;
        rotate(&mut dedup, hour_s - 1);
        (0..40).for_each(|n| dedup.insert(499_999, IdHash(n)));
        assert!(dedup.is_full());
        rotate(&mut dedup, hour_s + LIVE_S - 1);
        dedup.insert(500_000, IdHash(100));
        assert_eq!(dedup.age(hour_s - 1, hour_s + LIVE_S - 1), Age::Known, "still being tried again");
        assert!(dedup.is_full());
        rotate(&mut dedup, hour_s + LIVE_S);
        assert!(!dedup.is_full() && dedup.has(500_000, IdHash(100)));
        assert_eq!(dedup.age(hour_s - 1, hour_s + LIVE_S), Age::Old);
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
                        dedup.insert(Dedup::hour(made_s), IdHash(next));
                        taken.push((made_s, IdHash(next)));
                    }
                }
                prop_assert!(dedup.count <= 10 * LIVE_FACTOR);
                prop_assert!([0, 1, LIVE_S - 1].iter().all(|ago_s| dedup.age(now_s - ago_s, now_s) == Age::Known));
                let known = |id: &&(u32, IdHash)| dedup.age(id.0, now_s) == Age::Known;
                let is_there = |id: &(u32, IdHash)| dedup.has(Dedup::hour(id.0), id.1);
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
