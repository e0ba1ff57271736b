//! The ids that the log remembers beside their mail: records in the table head, which outlive it.
//!
//! A record holds as many ids as it may, whatever their times: a phone chooses the times of its ids, and with a record for
//! each period it could make hundreds of records of each mail segment.

use crate::dedup::{Dedup, IdHash, PERIOD_S};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::mem::take;
use tern_storage::log::{IdGroup, Position};

/// Bytes of a hash.
const HASH_BYTES: usize = size_of::<u64>();

/// The ids in the mail segment that is open now. They become records of their own before the segment can be freed:
/// dedup must outlive the mail. They are put in order as they come, so that the end of a segment costs next to nothing.
#[derive(Debug, Default)]
pub(crate) struct SegmentIds {
    /// The pinned record that keeps the segment until the ids are durable elsewhere.
    pub(crate) pinned: Option<Position>,
    /// By where their period begins: the hashes' bytes, less than a record takes.
    open: BTreeMap<u32, Vec<u8>>,
    /// The groups of records that are full.
    full: Vec<Vec<u8>>,
}

impl SegmentIds {
    /// Those of a new segment, whose first mail is here.
    pub(crate) fn behind(pinned: Position) -> Self {
        Self { pinned: Some(pinned), ..Self::default() }
    }

    /// Takes an id that was made at `made_s`.
    pub(crate) fn push(&mut self, (made_s, hash): (u32, IdHash), ids_per_record: usize) {
        let from_s = Dedup::period(made_s);
        let hashes = self.open.entry(from_s).or_default();
        hashes.extend_from_slice(&hash.0.to_le_bytes());
        if hashes.len() >= ids_per_record * HASH_BYTES {
            let mut groups = Vec::with_capacity(IdGroup::HEADER_BYTES + hashes.len());
            IdGroup { from_s, span_s: PERIOD_S, hashes }.encode(&mut groups);
            self.full.push(groups);
            // Ids of the same period go on: their memory does, too.
            hashes.clear();
        }
    }

    /// The groups of all records, each with room for so many ids of one period.
    pub(crate) fn into_records(mut self, ids_per_record: usize) -> Vec<Vec<u8>> {
        let bytes_max = IdGroup::HEADER_BYTES + ids_per_record * HASH_BYTES;
        let mut groups = Vec::new();
        for (from_s, hashes) in self.open {
            let mut rest = &hashes[..];
            while !rest.is_empty() {
                let room = bytes_max.saturating_sub(groups.len() + IdGroup::HEADER_BYTES);
                let fitting = rest.len().min(room - room % HASH_BYTES);
                if fitting == 0 {
                    self.full.push(take(&mut groups));
                    continue;
                }
                let (hashes, behind) = rest.split_at(fitting);
                IdGroup { from_s, span_s: PERIOD_S, hashes }.encode(&mut groups);
                rest = behind;
            }
        }
        if !groups.is_empty() {
            self.full.push(groups);
        }
        self.full
    }
}

/// A record of ids in the log.
#[derive(Debug)]
pub(crate) struct IdRecord {
    /// The second of Unix time after the last one that an id of it was made in.
    until_s: u32,
    /// What it holds, to write it elsewhere; `None` where memory was short: it keeps its segment until its time is over.
    pub(crate) groups: Option<Box<[u8]>>,
}

/// The records of ids in the log.
#[derive(Debug)]
pub(crate) struct IdRecords {
    records: BTreeMap<Position, IdRecord>,
    /// The same by when their time is over.
    ends: BTreeSet<(u32, Position)>,
    /// Bytes that are kept to write them elsewhere, and how many may be.
    kept_bytes: usize,
    kept_bytes_max: usize,
}

impl IdRecords {
    /// None so far; of them, so many ids are kept.
    pub(crate) const fn new(ids_kept_max: usize) -> Self {
        let kept_bytes_max = ids_kept_max.saturating_mul(HASH_BYTES);
        Self { records: BTreeMap::new(), ends: BTreeSet::new(), kept_bytes: 0, kept_bytes_max }
    }

    /// A record is in the log.
    pub(crate) fn add(&mut self, groups: Vec<u8>, position: Position) {
        let until_s = IdGroup::all(&groups).map(|group| group.until_s()).max().unwrap_or(0);
        let is_kept = self.kept_bytes + groups.len() <= self.kept_bytes_max;
        self.kept_bytes += if is_kept { groups.len() } else { 0 };
        let groups = is_kept.then(|| groups.into_boxed_slice());
        self.insert(position, IdRecord { until_s, groups });
    }

    /// Likewise, and there is no memory for what it holds.
    pub(crate) fn add_unkept(&mut self, until_s: u32, position: Position) {
        self.insert(position, IdRecord { until_s, groups: None });
    }

    fn insert(&mut self, position: Position, record: IdRecord) {
        self.ends.insert((record.until_s, position));
        self.records.insert(position, record);
    }

    /// The record here, if its time is not over.
    pub(crate) fn get(&self, position: Position) -> Option<&IdRecord> {
        self.records.get(&position)
    }

    /// The first record from a place on.
    pub(crate) fn first_from(&self, position: Position) -> Option<(Position, &IdRecord)> {
        self.records.range(position..).next().map(|(&position, record)| (position, record))
    }

    /// A record is somewhere else now; false if its time is over.
    pub(crate) fn moves(&mut self, old: Position, position: Position) -> bool {
        let Some(record) = self.records.remove(&old) else { return false };
        self.ends.remove(&(record.until_s, old));
        self.ends.insert((record.until_s, position));
        self.records.insert(position, record);
        true
    }

    /// Takes a record whose time was over at a second of Unix time: where it was.
    pub(crate) fn pop_before(&mut self, oldest_s: u32) -> Option<Position> {
        let (_, position) = self.ends.first().copied().filter(|&(until_s, _)| until_s <= oldest_s)?;
        self.ends.pop_first();
        let groups = self.records.remove(&position).and_then(|record| record.groups);
        self.kept_bytes -= groups.map_or(0, |groups| groups.len());
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_storage::io::SegmentId;

    fn at(offset: u32) -> Position {
        Position { segment: SegmentId(1), offset }
    }

    #[test]
    fn ids_of_many_periods_share_records_and_none_is_lost() {
        const PER_RECORD: usize = 100;
        let mut ids = SegmentIds::default();
        let mut all = Vec::new();
        // A day of periods with few ids each, and one with many.
        for n in 0..1_000_u32 {
            let made_s = if n % 2 == 0 { 7 } else { n * 86 };
            ids.push((made_s, IdHash(u64::from(n))), PER_RECORD);
            all.push((Dedup::period(made_s), u64::from(n)));
        }
        let records = ids.into_records(PER_RECORD);
        assert!(records.len() < 20, "{} records", records.len());
        let mut found = Vec::new();
        for groups in &records {
            assert!(groups.len() <= IdGroup::HEADER_BYTES + PER_RECORD * HASH_BYTES);
            for IdGroup { from_s, span_s, hashes } in IdGroup::all(groups) {
                assert_eq!(span_s, PERIOD_S);
                let hashes = hashes.chunks_exact(8).map(|hash| u64::from_le_bytes(hash.try_into().unwrap()));
                found.extend(hashes.map(|hash| (from_s, hash)));
            }
        }
        found.sort_unstable();
        all.sort_unstable();
        assert_eq!(found, all);
    }

    #[test]
    fn records_go_when_their_last_id_is_too_old_wherever_they_are_by_then() {
        let groups = |from_s: u32| {
            let mut groups = Vec::new();
            for from_s in [from_s, 0] {
                IdGroup { from_s, span_s: PERIOD_S, hashes: &[1; 16] }.encode(&mut groups);
            }
            groups
        };
        // Memory for two.
        let mut records = IdRecords::new(2 * groups(0).len() / HASH_BYTES);
        (1..=3).for_each(|n| records.add(groups(3_000 - n * 600), at(n)));
        assert!(records.get(at(2)).is_some_and(|record| record.groups.is_some()));
        assert!(records.get(at(3)).is_some_and(|record| record.groups.is_none()));
        assert!(records.moves(at(2), at(9)) && !records.moves(at(2), at(10)));
        assert_eq!(records.first_from(at(4)).map(|(position, _)| position), Some(at(9)));
        assert_eq!(records.pop_before(1_499), None);
        assert_eq!(records.pop_before(1_500), Some(at(3)));
        assert_eq!(records.pop_before(2_100), Some(at(9)));
        assert_eq!((records.pop_before(2_699), records.pop_before(2_700)), (None, Some(at(1))));
        assert_eq!((records.kept_bytes, records.ends.len(), records.records.len()), (0, 0, 0));
    }
}
