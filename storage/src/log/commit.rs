//! One group commit: its stored header, and how it is put together.

use super::record::Record;
use super::segment::{FORMAT_VERSION, HEAD_COUNT, Head, Position, Seal, Segment, encode_freed};
use super::stream::{InFlight, Log, Open};
use crate::io::{BLOCK_BYTES, DiskOp, SegmentId};
use alloc::vec::Vec;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 4] = *b"TCOM";
const BLOCK: usize = BLOCK_BYTES as usize;

/// Up to where a head had been written, durably, when a commit began.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(super) struct HeadEnd {
    /// Generation of its open segment; zero when it had none.
    pub(super) generation: U64,
    /// Bytes written there.
    pub(super) end_bytes: U32,
    reserved: U32,
}

impl HeadEnd {
    pub(super) fn new(generation: u64, end_bytes: u32) -> Self {
        Self { generation: U64::new(generation), end_bytes: U32::new(end_bytes), reserved: U32::ZERO }
    }

    /// What is smaller was written before: generation, then bytes.
    pub(super) fn order(&self) -> (u64, u32) {
        (self.generation.get(), self.end_bytes.get())
    }
}

/// Heads that the format has room for: the two of today and the cold head to come.
const STORED_HEADS: usize = 3;

/// What stands at the start of a commit's part in one segment.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct CommitHeader {
    magic: [u8; 4],
    /// Over the rest of this header, starting from the segment's seed.
    crc: U32,
    /// The commit's number in the stream; its parts in other heads have the same.
    commit: U64,
    /// Number of the first record of this part.
    first_lsn: U64,
    /// This header and the records of this part, without padding.
    length_bytes: U32,
    record_count: U32,
    generation: U64,
    salt: U64,
    head: u8,
    /// Of the format; zero before 3.
    version: u8,
    reserved: [u8; 6],
    ends: [HeadEnd; STORED_HEADS],
}

/// Bytes of a commit before its records.
pub(super) const COMMIT_HEADER_BYTES: usize = 104;
const _: () = assert!(size_of::<CommitHeader>() == COMMIT_HEADER_BYTES && align_of::<CommitHeader>() == 1);
const CRC_END: usize = 8;

/// What the first bytes of a block are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Probe<'a> {
    /// A commit header of this use of the file.
    Ours(&'a CommitHeader),
    /// It was one: generation and salt are right, the checksum is not.
    Damaged,
    /// Zeros, another use's commit, the middle of some commit: nothing.
    Nothing,
}

impl CommitHeader {
    /// Looks at the start of a block of a segment with this seal.
    #[inline]
    pub(super) fn probe<'a>(block: &'a [u8], seal: &Seal) -> Probe<'a> {
        let Ok((header, _)) = Self::ref_from_prefix(block) else { return Probe::Nothing };
        let named = header.generation.get() == seal.generation && header.salt.get() == seal.salt;
        if header.magic != MAGIC && !named {
            return Probe::Nothing;
        }
        if header.crc.get() == header.checksum(seal) && named && header.magic == MAGIC {
            return Probe::Ours(header);
        }
        if named { Probe::Damaged } else { Probe::Nothing }
    }

    /// The header at the start of a block, with the seal that it claims for itself and that its checksum bears out.
    pub(super) fn self_sealed(block: &[u8]) -> Option<(&Self, Seal)> {
        let (header, _) = Self::ref_from_prefix(block).ok()?;
        let seal = Seal::new(header.generation.get(), header.salt.get());
        (header.magic == MAGIC && header.crc.get() == header.checksum(&seal)).then_some((header, seal))
    }

    /// Whether the build that wrote it marks the files that it gives back: zeros before it are no such mark.
    pub(super) const fn marks_freed(&self) -> bool {
        self.version >= 3
    }

    pub(super) const fn head(&self) -> u8 {
        self.head
    }

    fn checksum(&self, seal: &Seal) -> u32 {
        crc32c::crc32c_append(seal.seed, &self.as_bytes()[CRC_END..])
    }

    pub(super) fn commit(&self) -> u64 {
        self.commit.get()
    }

    pub(super) fn first_lsn(&self) -> u64 {
        self.first_lsn.get()
    }

    pub(super) fn record_count(&self) -> u32 {
        self.record_count.get()
    }

    pub(super) fn length_bytes(&self) -> usize {
        self.length_bytes.get() as usize
    }

    pub(super) fn ends(&self) -> [HeadEnd; HEAD_COUNT] {
        [self.ends[0], self.ends[1]]
    }
}

/// A record does not fit this commit any more: it is for the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRoom;

/// The part of a commit in one head's segment.
#[derive(Clone, Copy, Debug)]
struct Part {
    segment: SegmentId,
    seal: Seal,
    /// Whether the segment is a new one, so that its header block goes first.
    rolled: bool,
    /// Where in the file the part's write starts.
    write_offset: u32,
    /// Where in its buffer the part's write starts.
    start: usize,
    first_lsn: u64,
    record_count: u32,
    /// Bytes of the largest of its records.
    largest_bytes: u32,
}

impl Part {
    /// Bytes of the write before the commit header.
    const fn lead_bytes(&self) -> usize {
        if self.rolled { BLOCK } else { 0 }
    }
}

/// A group commit that is being put together. Dropped before [`Commit::finish`], it never was.
#[derive(Debug)]
pub struct Commit<'a> {
    log: &'a mut Log,
    arena: &'a mut Vec<u8>,
    arena_start: usize,
    parts: [Option<Part>; HEAD_COUNT],
    next_lsn: u64,
    rolled_count: usize,
    bytes: usize,
    finished: bool,
}

impl<'a> Commit<'a> {
    pub(super) fn new(log: &'a mut Log, arena: &'a mut Vec<u8>) -> Self {
        log.tables_buffer.clear();
        let (arena_start, next_lsn) = (arena.len(), log.next_lsn);
        Self {
            log,
            arena,
            arena_start,
            parts: [None; HEAD_COUNT],
            next_lsn,
            rolled_count: 0,
            bytes: 0,
            finished: false,
        }
    }

    /// Whether no record has been pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Option::is_none)
    }

    /// Bytes that it has so far, headers included, padding not.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a record and says where it will be.
    ///
    /// # Errors
    /// [`NoRoom`] when the commit is as large as it may get, or its head needs a segment and none is ready.
    ///
    /// # Panics
    /// If the record alone is larger than a commit may be: the caller's limits keep it smaller.
    pub fn push(&mut self, record: &Record<'_>) -> Result<Position, NoRoom> {
        let record_bytes = record.encoded_bytes();
        let bytes_max = self.log.config.commit_bytes_max;
        assert!(record_bytes + COMMIT_HEADER_BYTES <= bytes_max, "a record is larger than a commit may be");
        let head = record.head();
        let part = match self.parts[head.index()] {
            Some(part) => {
                let end = part.write_offset as usize + self.buffer(head).len() - part.start + record_bytes;
                let fits = end.next_multiple_of(BLOCK) <= self.log.config.segment_bytes as usize;
                if !fits || self.bytes + record_bytes > bytes_max {
                    return Err(NoRoom);
                }
                part
            }
            None => {
                if self.bytes + COMMIT_HEADER_BYTES + record_bytes > bytes_max {
                    return Err(NoRoom);
                }
                self.start_part(head, record_bytes)?
            }
        };
        let (lsn, commit) = (self.next_lsn, self.log.next_commit);
        let buffer = self.buffer(head);
        let offset = part.write_offset + (buffer.len() - part.start) as u32;
        record.encode(&part.seal, commit, lsn, buffer);
        self.next_lsn += 1;
        self.bytes += record_bytes;
        let record_count = part.record_count + 1;
        let largest_bytes = part.largest_bytes.max(record_bytes as u32);
        self.parts[head.index()] = Some(Part { record_count, largest_bytes, ..part });
        Ok(Position { segment: part.segment, offset })
    }

    /// Ends the commit: emits its writes and returns its number, which [`super::LogEvent::Committed`] repeats.
    ///
    /// `None` when nothing was pushed. There may be writes all the same, of the log's own (a freed segment is
    /// marked, a torn tail is cut off on disk); [`Log::can_commit`] is false until they are done. While a torn tail is
    /// still to be cut off, nothing can be pushed.
    pub fn finish(mut self, ops: &mut Vec<DiskOp>) -> Option<u64> {
        self.finished = true;
        let first_op = ops.len();
        let ends = self.log.ends();
        for head in Head::ALL {
            if let Some(part) = self.parts[head.index()] {
                self.finish_part(head, part, &ends, ops);
            }
        }
        let commit = (!self.is_empty()).then_some(self.log.next_commit);
        let freeing = self.finish_chores(commit.is_some(), ops);
        let write_count = (ops.len() - first_op) as u32;
        if let Some(number) = commit {
            self.log.next_commit = number + 1;
            self.log.next_lsn = self.next_lsn;
            self.log.next_generation += self.rolled_count as u64;
            self.log.stats.commits += 1;
        }
        self.log.stats.bytes_written += (self.arena.len() - self.arena_start) as u64;
        if write_count > 0 {
            self.log.in_flight = Some(InFlight { commit, write_count, freeing });
        }
        commit
    }

    fn buffer(&mut self, head: Head) -> &mut Vec<u8> {
        match head {
            Head::Mail => self.arena,
            Head::Tables => &mut self.log.tables_buffer,
        }
    }

    fn start_part(&mut self, head: Head, record_bytes: usize) -> Result<Part, NoRoom> {
        // Cuts go before all records: a commit beside them would be the new witness, and be there without them after a
        // crash.
        if !self.log.cuts.is_empty() {
            return Err(NoRoom);
        }
        let need = (COMMIT_HEADER_BYTES + record_bytes).next_multiple_of(BLOCK);
        let log = &self.log;
        let in_place = log.heads[head.index()].filter(|open| log.room(open) >= need);
        let (segment, seal, write_offset) = match in_place {
            Some(open) => (open.segment, open.seal, open.end_bytes),
            None => {
                let segment = log.usage.peek_spare(self.rolled_count).ok_or(NoRoom)?;
                let generation = log.next_generation + self.rolled_count as u64;
                self.rolled_count += 1;
                (segment, log.new_seal(generation), 0)
            }
        };
        let rolled = in_place.is_none();
        let described = Segment {
            version: FORMAT_VERSION,
            stream: log.config.stream,
            head: head as u8,
            seal,
            segment_bytes: log.config.segment_bytes,
        };
        let first_lsn = self.next_lsn;
        let buffer = self.buffer(head);
        let start = buffer.len();
        if rolled {
            described.encode(buffer);
        }
        // The header's place; it is filled in when the commit is finished.
        buffer.resize(buffer.len() + COMMIT_HEADER_BYTES, 0);
        self.bytes += COMMIT_HEADER_BYTES;
        Ok(Part { segment, seal, rolled, write_offset, start, first_lsn, record_count: 0, largest_bytes: 0 })
    }

    fn finish_part(&mut self, head: Head, part: Part, ends: &[HeadEnd; HEAD_COUNT], ops: &mut Vec<DiskOp>) {
        let commit = self.log.next_commit;
        let buffer = self.buffer(head);
        let at = part.start + part.lead_bytes();
        let mut header = CommitHeader {
            magic: MAGIC,
            crc: U32::ZERO,
            commit: U64::new(commit),
            first_lsn: U64::new(part.first_lsn),
            length_bytes: U32::new((buffer.len() - at) as u32),
            record_count: U32::new(part.record_count),
            generation: U64::new(part.seal.generation),
            salt: U64::new(part.seal.salt),
            head: head as u8,
            version: FORMAT_VERSION as u8,
            reserved: [0; 6],
            ends: [ends[0], ends[1], HeadEnd::default()],
        };
        header.crc = U32::new(header.checksum(&part.seal));
        buffer[at..at + COMMIT_HEADER_BYTES].copy_from_slice(header.as_bytes());
        let bytes = (buffer.len() - part.start).next_multiple_of(BLOCK);
        buffer.resize(part.start + bytes, 0);
        let start = match head {
            Head::Mail => part.start,
            Head::Tables => {
                let start = self.arena.len();
                self.arena.extend_from_slice(&self.log.tables_buffer);
                start
            }
        };
        ops.push(DiskOp::Write {
            segment: part.segment,
            offset: part.write_offset,
            data: start..start + bytes,
        });
        let end_bytes = part.write_offset + bytes as u32;
        let open = Open { segment: part.segment, seal: part.seal, end_bytes };
        let record_bytes = header.length_bytes.get() - COMMIT_HEADER_BYTES as u32;
        let before = self.log.heads[head.index()].replace(open);
        if part.rolled {
            self.log.usage.open(part.segment, head, part.seal.generation);
            if let Some(before) = before {
                self.log.usage.seal(before.segment);
            }
        }
        self.log.usage.put(part.segment, part.record_count, record_bytes, part.largest_bytes);
    }

    /// Writes of the log's own: zeros over torn tails, and the mark of one freed segment.
    fn finish_chores(&mut self, has_records: bool, ops: &mut Vec<DiskOp>) -> Option<SegmentId> {
        // Not before the first commit is durable, unless there is no room for that: a freed segment may hold the damage
        // that it speaks of.
        let is_early = self.log.stats.commits == 0 && (has_records || self.log.has_room());
        let freeing = self.log.usage.next_to_mark().filter(|_| !is_early);
        if !self.log.cuts.is_empty() {
            let start = self.arena.len();
            self.arena.resize(start + BLOCK, 0);
            let data = start..start + BLOCK;
            for cut in self.log.cuts.drain(..) {
                ops.push(DiskOp::Write { segment: cut.segment, offset: cut.offset, data: data.clone() });
            }
        }
        #[cfg(feature = "bugs")]
        if let Some(&segment) = self.log.leaving.first().filter(|_| self.log.frees_too_early) {
            self.write_mark(segment, ops);
        }
        freeing.into_iter().for_each(|segment| self.write_mark(segment, ops));
        freeing
    }

    fn write_mark(&mut self, segment: SegmentId, ops: &mut Vec<DiskOp>) {
        let start = self.arena.len();
        encode_freed(self.arena);
        ops.push(DiskOp::Write { segment, offset: 0, data: start..start + BLOCK });
    }
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.arena.truncate(self.arena_start);
        }
    }
}

/// Makes a commit what builds before format 3 wrote.
#[cfg(test)]
pub(super) fn make_older(block: &mut [u8]) {
    let (header, seal) = CommitHeader::self_sealed(block).expect("a commit");
    let mut header = CommitHeader { version: 0, ..*header };
    header.crc = U32::new(header.checksum(&seal));
    block[..COMMIT_HEADER_BYTES].copy_from_slice(header.as_bytes());
}
