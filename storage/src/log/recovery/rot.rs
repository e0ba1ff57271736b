//! Damage behind the headers: what is told of it, what is still served, and what it may have taken.

use super::{BLOCK, LSN_REACH, Place, Recovery, Scanned, Sink};
use crate::io::{BLOCK_BYTES, SegmentId};
use crate::log::commit::{COMMIT_HEADER_BYTES, CommitHeader, Probe};
use crate::log::record::{RECORD_HEADER_BYTES, StoredRecord, read_record, read_sound_record};
use crate::log::segment::{Head, Position, Reach, Seal};
use alloc::vec::Vec;
use core::mem::take;

/// A damaged commit whose fate is open until a later commit says whether it had been durable.
#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) segment: SegmentId,
    head: Head,
    seal: Seal,
    pub(super) offset: usize,
    /// A copy of the commit, to serve what is sound in it if it turns out to be rot.
    bytes: Vec<u8>,
}

impl Recovery {
    /// Reports a damaged place and hands out the records after its header whose own checksums hold, wherever they begin:
    /// what said so may be damaged itself.
    pub(super) fn rot(&mut self, place: &Place, at: usize, bytes: &[u8], sink: &mut Sink<'_>) {
        self.report.rot.push((place.segment, at as u32));
        // Where the header is sound it says whose records follow it; a drive may have put others there.
        let own = match CommitHeader::probe(bytes, &place.seal) {
            Probe::Ours(header) => Some((header.length_bytes(), header.commit() as u32)),
            _ => None,
        };
        let mut offset = COMMIT_HEADER_BYTES;
        while let Some(rest) = bytes.get(offset..)
            && rest.len() >= RECORD_HEADER_BYTES
        {
            let is_own = |record: &StoredRecord<'_>| {
                own.is_none_or(|(length, commit_low)| offset >= length || record.commit_low == commit_low)
            };
            let Some(record) = self.sound_record(rest, &place.seal).filter(is_own) else {
                offset += 1;
                continue;
            };
            let position = Position { segment: place.segment, offset: (at + offset) as u32 };
            self.hand_out(position, &record, sink);
            offset += record.bytes;
        }
    }

    /// What is sound behind the unreadable blocks from `from` on, where no commit follows: each of them may have hidden one,
    /// whose records go no further than a commit does.
    pub(super) fn salvage_end(
        &mut self,
        place: &Place,
        from: usize,
        bytes: &[u8],
        unreadable: &[u32],
        sink: &mut Sink<'_>,
    ) {
        let reach = |start: usize| start.saturating_add(self.config.commit_bytes_max);
        let mut windows = Vec::from([(from, reach(from))]);
        for block in unreadable.iter().map(|&block| block as usize).filter(|&block| block >= from) {
            let end = reach(block + BLOCK);
            match windows.last_mut() {
                Some((_, last)) if block <= *last => *last = end,
                _ => windows.push((block, end)),
            }
        }
        for (start, end) in windows {
            self.rot(place, start, &bytes[start..end.min(bytes.len())], sink);
        }
    }

    /// The record at the start of `bytes`, if it is one and holds. Few places look like one at all: those are checked.
    pub(super) fn sound_record<'b>(&self, bytes: &'b [u8], seal: &Seal) -> Option<StoredRecord<'b>> {
        let lsn = read_sound_record(bytes)?.lsn;
        let is_likely = lsn > 0 && lsn < self.next_lsn.saturating_add(LSN_REACH);
        if !is_likely {
            return None;
        }
        read_record(bytes, seal).filter(|record| record.valid)
    }

    pub(super) fn suspect(
        &mut self,
        place: &Place,
        at: usize,
        bytes: &[u8],
        probe: Probe<'_>,
        is_commit: bool,
    ) {
        let length = match probe {
            Probe::Ours(header) => header.length_bytes(),
            _ => self.config.commit_bytes_max.next_multiple_of(BLOCK),
        };
        let end = at.saturating_add(length).min(bytes.len());
        // Behind most ends nothing was ever written.
        let is_empty = || bytes[at..end].iter().all(|&byte| byte == 0);
        if !is_commit && is_empty() {
            return;
        }
        let suspect = Suspect {
            segment: place.segment,
            head: place.head,
            seal: place.seal,
            offset: at,
            bytes: bytes[at..end].to_vec(),
        };
        if is_commit {
            self.suspects.push(suspect);
        } else {
            self.ends.push(suspect);
        }
    }

    /// A suspect that lies before what the highest commit found durable is rot. So is an end behind which a commit says
    /// that there was more.
    pub(super) fn settle_suspects(&mut self, sink: &mut Sink<'_>) {
        let mut index = 0;
        while index < self.suspects.len() {
            let suspect = &self.suspects[index];
            let durable = self.durable[suspect.head.index()];
            if (suspect.seal.generation, suspect.offset as u32) < durable.order() {
                let suspect = self.suspects.swap_remove(index);
                self.salvage(&suspect, sink);
            } else {
                index += 1;
            }
        }
        for end in take(&mut self.ends) {
            let is_newer = |s: &Scanned| s.head == end.head && s.seal.generation > end.seal.generation;
            if self.told_end(&end.seal) as usize > end.offset {
                self.salvage(&end, sink);
            } else if !self.scanned.iter().any(is_newer) {
                self.ends.push(end);
            }
        }
    }

    /// Hands out what is sound in a commit that was durable, and in nothing behind it.
    fn salvage(&mut self, suspect: &Suspect, sink: &mut Sink<'_>) {
        let Suspect { segment, head, seal, .. } = *suspect;
        let place = Place { segment, head, seal, is_older: false };
        let told_bytes = (self.told_end(&suspect.seal) as usize).saturating_sub(suspect.offset);
        let bytes = suspect.bytes.get(..told_bytes).filter(|told| !told.is_empty()).unwrap_or(&suspect.bytes);
        self.rot(&place, suspect.offset, bytes, sink);
    }

    /// Segments that end before a commit says they did: their last commits are gone altogether.
    pub(super) fn report_lost_ends(&mut self) {
        for scanned in &self.scanned {
            let at = (scanned.segment, scanned.end_bytes);
            if self.told_end(&scanned.seal) > scanned.end_bytes && !self.report.rot.contains(&at) {
                self.report.rot.push(at);
            }
        }
    }

    /// Blocks that the drive does not give, one behind the other: their records were not found, and all others were.
    pub(super) fn note_unread(&mut self, segment: SegmentId, unreadable: &[u32]) {
        let all = &mut self.report.unread;
        for &block in unreadable.iter().filter(|&&block| block > 0) {
            match all.last_mut() {
                Some((last, _, end)) if (*last, *end) == (segment, block) => *end += BLOCK_BYTES,
                _ => all.push((segment, block, block + BLOCK_BYTES)),
            }
        }
    }

    /// What damage among the tables may have taken lay before the next commit behind it in its segment, or before the end
    /// that this is known to have had.
    pub(super) fn rot_reach(&self) -> Reach {
        let reach = |&(segment, at): &(SegmentId, u32)| {
            let is_it = |scanned: &&Scanned| scanned.segment == segment && scanned.head == Head::Tables;
            let seal = self.scanned.iter().find(is_it)?.seal;
            // A lost header has taken nothing along.
            if at == 0 {
                return None;
            }
            let followed = self.followed.iter().find(|found| (found.0, found.1) == (segment, at));
            let told_end = Some(self.told_end(&seal)).filter(|&end| end > at);
            let end_bytes = followed.map(|found| found.2).or(told_end).unwrap_or(u32::MAX);
            Some(Reach { generation: seal.generation, end_bytes })
        };
        self.report.rot.iter().filter_map(reach).max().unwrap_or_default()
    }
}
