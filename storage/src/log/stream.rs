//! The log of one shard on one drive: where the next commit goes, what is under way, what is free.

use super::commit::{Commit, HeadEnd};
use super::segment::{HEAD_COUNT, Head, Position, Reach, Seal};
use super::usage::Usage;
use crate::io::{BLOCK_BYTES, DiskDone, DiskError, DiskOp, SegmentId};
use alloc::vec::Vec;

/// What a log is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// The stream's number; files of another stream are refused.
    pub stream: u16,
    /// Length of new segment files; a multiple of the block.
    pub segment_bytes: u32,
    /// Most bytes of one commit, headers included, padding not. Recovery raises it where the log holds larger records.
    pub commit_bytes_max: usize,
    /// Segments kept ready.
    pub spare_count: u32,
    /// Most segment files of this stream.
    pub segment_count_max: u32,
    /// Where the salts of new segments come from: random, new at every start, and never shown to clients.
    pub salt_seed: u64,
}

/// What the caller hears of the log's disk operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogEvent {
    /// All of this commit is durable.
    Committed(u64),
    /// A write failed: nothing after the last commit may be acknowledged, and the log takes no more.
    Failed(DiskError),
    /// A commit may start that could not before.
    SpaceBack,
    /// No space for another segment on the drive.
    Full,
}

/// Counts for the operator.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct LogStats {
    /// Commits since the start.
    pub commits: u64,
    /// Bytes handed to the drive since the start, padding included.
    pub bytes_written: u64,
    /// Segments that hold something.
    pub segments_used: u32,
    /// Segments that are ready, or will be.
    pub segments_free: u32,
}

/// A head's open segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Open {
    pub(super) segment: SegmentId,
    pub(super) seal: Seal,
    /// Where the next commit starts.
    pub(super) end_bytes: u32,
}

/// The writes that are under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    /// The commit that they make; `None` when they are only the log's own.
    pub(super) commit: Option<u64>,
    pub(super) write_count: u32,
    /// The freed segment that is marked along.
    pub(super) freeing: Option<SegmentId>,
}

/// Spares that only copies may use when there will be no more: what is thin can then always be written elsewhere, and
/// its segment is given back.
pub(super) const RESERVE_COUNT: u32 = 1;

/// A drive without room is asked again at the next call of [`Log::want_spares`], then after twice as many each time, and at
/// the latest after so many: making a segment costs others who write to that drive, also when it fails.
const PAUSE_CALLS_MAX: u32 = 60;

/// One log stream. Made by [`super::Recovery::finish`], also when there is nothing to recover.
///
/// The caller's duties: call [`Log::live`] or [`Log::floor_live`] for what it keeps of a commit before it begins
/// the next one, and [`Log::take_freed`] at the latest after each commit.
#[derive(Debug)]
pub struct Log {
    pub(super) config: LogConfig,
    pub(super) heads: [Option<Open>; HEAD_COUNT],
    /// Where the heads that have no open segment had come to before the start.
    pub(super) closed_ends: [HeadEnd; HEAD_COUNT],
    pub(super) usage: Usage,
    pub(super) next_commit: u64,
    pub(super) next_lsn: u64,
    pub(super) next_generation: u64,
    /// Tables records of the commit that is being put together; kept for its memory.
    pub(super) tables_buffer: Vec<u8>,
    /// Torn tails that the next writes cut off on disk, before any commit, so that they are not taken for rot later.
    pub(super) cuts: Vec<Position>,
    pub(super) in_flight: Option<InFlight>,
    pub(super) stats: LogStats,
    failed: bool,
    drive_full: bool,
    /// The last segment that was asked for could not be made.
    short_of_space: bool,
    /// How often in a row the drive had no room for another segment.
    refusal_count: u32,
    /// Calls of [`Log::want_spares`] until it is asked again.
    pause_calls: u32,
    /// Thin segments whose live records are being written elsewhere.
    pub(super) leaving: Vec<SegmentId>,
    /// The deliberate bug: the first of them is overwritten while its records are being copied.
    #[cfg(feature = "bugs")]
    pub frees_too_early: bool,
}

impl Log {
    pub(super) fn new(config: LogConfig, usage: Usage) -> Self {
        Self {
            config,
            heads: [None; HEAD_COUNT],
            closed_ends: [HeadEnd::default(); HEAD_COUNT],
            usage,
            next_commit: 1,
            next_lsn: 1,
            next_generation: 1,
            tables_buffer: Vec::new(),
            cuts: Vec::new(),
            in_flight: None,
            stats: LogStats::default(),
            failed: false,
            drive_full: false,
            short_of_space: false,
            refusal_count: 0,
            pause_calls: 0,
            leaving: Vec::new(),
            #[cfg(feature = "bugs")]
            frees_too_early: false,
        }
    }

    /// Whether a commit may start now: none is under way, and each head has room for a whole one or a spare.
    ///
    /// Also when only writes of the log's own are waiting, which give back space or cut off a torn tail: then the commit
    /// may stay empty.
    #[must_use]
    pub fn can_commit(&self) -> bool {
        if self.in_flight.is_some() || self.failed {
            return false;
        }
        self.has_room() || self.usage.next_to_mark().is_some() || !self.cuts.is_empty()
    }

    /// Whether a commit may start now that carries nothing but copies: it may use the last spare.
    #[must_use]
    pub fn can_rewrite(&self) -> bool {
        self.in_flight.is_none() && !self.failed && self.has_rewriting_room()
    }

    /// Gives back memory that only large commits need, but for so many bytes.
    pub fn shrink_to(&mut self, kept_bytes: usize) {
        self.tables_buffer.shrink_to(kept_bytes);
    }

    /// Starts a group commit whose blocks are put together at the end of `arena`.
    ///
    /// # Panics
    /// If a commit is under way or a write has failed: [`Log::can_commit`] says so.
    pub fn begin<'a>(&'a mut self, arena: &'a mut Vec<u8>) -> Commit<'a> {
        assert!(self.in_flight.is_none() && !self.failed, "one commit at a time, and none after a failure");
        Commit::new(self, arena)
    }

    /// Takes the end of an operation; may emit further ones (new spares).
    ///
    /// # Panics
    /// If the operation is none that the log asked for.
    pub fn disk_done(&mut self, done: DiskDone, ops: &mut Vec<DiskOp>) -> Option<LogEvent> {
        match done {
            DiskDone::Created { segment, result } => self.created(segment, result),
            DiskDone::Written { result, .. } => self.written(result, ops),
        }
    }

    /// Emits what it takes to have spares ready; called at the start, and from time to time after
    /// [`LogEvent::Full`]: the longer the drive is full, the fewer of these calls do anything, at least one in 60. The log
    /// itself asks for more after each commit.
    pub fn want_spares(&mut self, ops: &mut Vec<DiskOp>) {
        if self.pause_calls > 0 {
            self.pause_calls -= 1;
            return;
        }
        self.drive_full = false;
        self.create_spares(ops);
    }

    /// Whether there is no room for more, and none is on its way.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.has_room() && !self.usage.expects_spares() && (self.drive_full || self.has_all_files())
    }

    /// Whether it has as many segments as it may, so that another one is not even tried.
    #[must_use]
    pub fn has_all_files(&self) -> bool {
        self.usage.file_count() >= self.config.segment_count_max
    }

    /// Whether the rest of the drive must be kept for what gives space back: floors, ticks and their confirmations.
    /// New mail and new accounts are to be refused then; otherwise a full drive could never be emptied.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.is_short() && self.usage.usable_count() <= 1 + RESERVE_COUNT
    }

    /// Whether there will be no more files than there are.
    fn is_short(&self) -> bool {
        self.short_of_space || self.has_all_files()
    }

    /// A live record (mail, account, ids, epoch) is at `p`.
    pub fn live(&mut self, p: Position) {
        self.usage.live(p);
    }

    /// The record at `p` is not live any more; may free its segment.
    pub fn dead(&mut self, p: Position) {
        self.usage.dead(p);
    }

    /// The last floor of some mailbox's device is at `p`.
    pub fn floor_live(&mut self, p: Position) {
        self.usage.floor_live(p);
    }

    /// The floor at `p` was followed by a later one; may free its segment.
    pub fn floor_dead(&mut self, p: Position) {
        self.usage.floor_dead(p);
    }

    /// Recovery has called [`Log::live`] and [`Log::floor_live`] for all that it keeps: the rest may be freed.
    pub fn recovered_done(&mut self) {
        self.usage.stop_holding();
    }

    /// Moves the numbers of segments that were freed to `freed`: positions of floors in them are to be forgotten.
    pub fn take_freed(&mut self, freed: &mut Vec<SegmentId>) {
        self.usage.take_freed(freed);
    }

    /// Counts.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        LogStats {
            segments_used: self.usage.used_count(),
            segments_free: self.usage.coming_count(),
            ..self.stats
        }
    }

    /// Number that the next commit will have.
    #[must_use]
    pub const fn next_commit(&self) -> u64 {
        self.next_commit
    }

    /// The era of what is written next.
    #[must_use]
    pub const fn era(&self) -> u32 {
        super::era(self.next_lsn)
    }

    /// Up to where the tables have come: nothing is written below that any more.
    #[must_use]
    pub fn tables_reach(&self) -> Reach {
        let open = self.heads[Head::Tables.index()];
        open.map_or(Reach { generation: self.next_generation, end_bytes: 0 }, |open| Reach {
            generation: open.seal.generation,
            end_bytes: open.end_bytes,
        })
    }

    /// What is written from now on is of another era than all before.
    pub const fn begin_era(&mut self) {
        self.next_lsn = self.next_lsn.saturating_add(1 << super::ERA_BITS);
    }

    /// Number in the stream that the next record will have.
    #[must_use]
    pub const fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    pub(super) fn room(&self, open: &Open) -> usize {
        (self.config.segment_bytes - open.end_bytes) as usize
    }

    /// Where each head's durable part ends; only between commits.
    pub(super) fn ends(&self) -> [HeadEnd; HEAD_COUNT] {
        Head::ALL.map(|head| match self.heads[head.index()] {
            Some(open) => HeadEnd::new(open.seal.generation, open.end_bytes),
            None => self.closed_ends[head.index()],
        })
    }

    /// The seal of a new segment. Salts are a mixed counter over the seed (SplitMix64, Steele et al. 2014).
    pub(super) fn new_seal(&self, generation: u64) -> Seal {
        let mut salt = self.config.salt_seed.wrapping_add(generation.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        salt = (salt ^ salt >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        salt = (salt ^ salt >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Seal::new(generation, salt ^ salt >> 31)
    }

    /// Whether each head can take a whole commit, in its open segment or in a spare that is not kept for copies. The
    /// first commit makes the epoch durable, and without that nobody can give back space: for it a block of the tables
    /// head will do.
    #[must_use]
    pub fn has_room(&self) -> bool {
        if self.stats.commits == 0 {
            let tables = self.heads[Head::Tables.index()];
            let has_block = tables.is_some_and(|open| self.room(&open) >= BLOCK_BYTES as usize);
            return has_block || self.usage.spare_count() > 0;
        }
        let lacking = self.lacking_count();
        let kept = if self.is_short() { RESERVE_COUNT } else { 0 };
        lacking == 0 || self.usage.spare_count() >= lacking + kept
    }

    /// Whether one head at least can take a whole commit, if need be in the last spare.
    fn has_rewriting_room(&self) -> bool {
        self.lacking_count() < HEAD_COUNT as u32 || self.usage.spare_count() > 0
    }

    /// Heads whose open segment has no room for a whole commit.
    fn lacking_count(&self) -> u32 {
        let need = self.config.commit_bytes_max.next_multiple_of(BLOCK_BYTES as usize);
        self.heads.iter().filter(|head| head.is_none_or(|open| self.room(&open) < need)).count() as u32
    }

    fn create_spares(&mut self, ops: &mut Vec<DiskOp>) {
        let wanted = self.config.spare_count.max(HEAD_COUNT as u32);
        // While the last one could not be made one more is tried: without it the spares may be too few for a commit, and
        // yet enough.
        let wanted = wanted + if self.short_of_space { RESERVE_COUNT } else { 0 };
        while !self.drive_full
            && !self.failed
            && self.usage.coming_count() < wanted
            && self.usage.file_count() < self.config.segment_count_max
        {
            let segment = self.usage.start_create();
            ops.push(DiskOp::Create { segment, bytes: self.config.segment_bytes });
        }
    }

    fn created(&mut self, segment: SegmentId, result: Result<(), DiskError>) -> Option<LogEvent> {
        let could = self.has_room();
        self.usage.created(segment, result.is_ok());
        match result {
            Ok(()) => {
                (self.drive_full, self.short_of_space) = (false, false);
                (self.refusal_count, self.pause_calls) = (0, 0);
                (!could && self.has_room()).then_some(LogEvent::SpaceBack)
            }
            Err(DiskError::Full) => {
                // Several may have been asked for at once.
                if !self.drive_full {
                    self.pause_calls = (1 << self.refusal_count.min(6)).min(PAUSE_CALLS_MAX) - 1;
                    self.refusal_count += 1;
                }
                (self.drive_full, self.short_of_space) = (true, true);
                Some(LogEvent::Full)
            }
            Err(error) => self.fail(error),
        }
    }

    fn written(&mut self, result: Result<(), DiskError>, ops: &mut Vec<DiskOp>) -> Option<LogEvent> {
        if let Err(error) = result {
            return self.fail(error);
        }
        if self.failed {
            return None;
        }
        let in_flight = self.in_flight.as_mut().expect("a write ended that the log did not ask for");
        in_flight.write_count -= 1;
        if in_flight.write_count > 0 {
            return None;
        }
        let InFlight { commit, freeing, .. } = *in_flight;
        self.in_flight = None;
        if let Some(segment) = freeing {
            self.usage.marked(segment);
        }
        self.create_spares(ops);
        Some(commit.map_or(LogEvent::SpaceBack, LogEvent::Committed))
    }

    fn fail(&mut self, error: DiskError) -> Option<LogEvent> {
        let first = !self.failed;
        self.failed = true;
        first.then_some(LogEvent::Failed(error))
    }
}
