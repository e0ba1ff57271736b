//! Which message ids a home has seen: keyed hashes, by the hour in which the sender made the id.
//!
//! Memory is bounded twice: an hour is dropped when it leaves the horizon, and earlier when there are too many ids;
//! the horizon is then shorter, and an older retry is answered `expired`, never taken for new.

use crate::account::SeededHash;
use alloc::collections::VecDeque;
use core::hash::BuildHasher;
use hashbrown::HashTable;
use tern_protocol::ids::{AccountId, MessageId};
use tern_storage::mailbox::EntryKind;

const HOUR_S: u32 = 3600;

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
    /// The hour in which the last rotation was.
    present_hour: u32,
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
            present_hour: 0,
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

    /// Whether an id made at `made_s` is one of which it is known whether it was seen.
    pub(crate) fn is_within(&self, made_s: u32, now_s: u32) -> bool {
        now_s.abs_diff(made_s) <= self.horizon_s && Self::hour(made_s) > self.dropped_hour
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
            let is_now = hour.abs_diff(self.present_hour) <= 1;
            let before = index.checked_sub(1).filter(|_| is_now).and_then(|before| self.hours.get(before));
            let count = before.map_or(0, |before| before.hashes.len());
            self.hours.insert(index, Hour { hour, hashes: HashTable::with_capacity(count) });
            index
        });
        self.hours[index].hashes.insert_unique(hash.0, hash.0, |h| *h);
        self.count += 1;
        if self.count > self.count_max && self.may_drop() {
            self.drop_oldest();
        }
    }

    /// Drops the hours that have left the horizon; returns the first hour that is kept.
    pub(crate) fn rotate(&mut self, now_s: u32) -> u32 {
        let first = Self::hour(now_s.saturating_sub(self.horizon_s));
        self.present_hour = Self::hour(now_s);
        while self.hours.front().is_some_and(|hour| hour.hour < first) {
            let gone = self.hours.pop_front().map_or(0, |hour| hour.hashes.len());
            self.count -= gone;
        }
        first
    }

    /// The present hour and the one before hold what is being sent and tried again: dropping them would refuse live
    /// traffic, and one phone whose clock is ahead would be enough. They may take four times the limit.
    fn may_drop(&self) -> bool {
        let is_old = self.hours.front().is_some_and(|oldest| oldest.hour + 1 < self.present_hour);
        self.hours.len() > 1 && (is_old || self.count > self.count_max.saturating_mul(4))
    }

    fn drop_oldest(&mut self) {
        if let Some(hour) = self.hours.pop_front() {
            self.count -= hour.hashes.len();
            self.dropped_hour = self.dropped_hour.max(hour.hour);
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
        dedup.rotate(now_s + 23 * HOUR_S);
        assert!(dedup.has(Dedup::hour(now_s), hash));
        assert!(!dedup.is_within(now_s, now_s + 25 * HOUR_S));
        dedup.rotate(now_s + 26 * HOUR_S);
        assert!(!dedup.has(Dedup::hour(now_s), hash));
        assert_eq!(dedup.count, 0);
    }

    #[test]
    fn too_many_ids_shorten_the_horizon_instead_of_forgetting() {
        let mut dedup = dedup(10);
        let now_s = 1_800_000_000;
        let old_s = now_s - 2 * HOUR_S;
        dedup.rotate(now_s);
        for n in 0..10 {
            dedup.insert(Dedup::hour(old_s), IdHash(n));
        }
        assert!(dedup.is_within(old_s, now_s));
        dedup.insert(Dedup::hour(now_s), IdHash(99));
        assert!(!dedup.is_within(old_s, now_s), "dropped ids must be refused, not taken for new");
        assert!(dedup.has(Dedup::hour(now_s), IdHash(99)));
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_make_the_present_expire() {
        let mut dedup = dedup(10);
        let now_s = 1_800_000_000;
        dedup.rotate(now_s);
        for n in 0..20 {
            dedup.insert(Dedup::hour(now_s), IdHash(n));
        }
        dedup.insert(Dedup::hour(now_s + HOUR_S), IdHash(99));
        assert!(dedup.is_within(now_s, now_s) && dedup.has(Dedup::hour(now_s), IdHash(7)));
        for n in 100..200 {
            dedup.insert(Dedup::hour(now_s + HOUR_S), IdHash(n));
        }
        assert!(dedup.count <= 140, "four times the limit is the end, one hour's worth more");
    }

    #[test]
    fn a_tick_and_its_message_are_told_apart() {
        let dedup = dedup(10);
        let message = dedup.hash(AccountId(1), AccountId(2), MessageId(3), EntryKind::Message);
        assert_ne!(message, dedup.hash(AccountId(1), AccountId(2), MessageId(3), EntryKind::Delivered));
        assert_ne!(message, dedup.hash(AccountId(2), AccountId(1), MessageId(3), EntryKind::Message));
    }
}
