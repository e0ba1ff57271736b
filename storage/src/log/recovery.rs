//! Reading a stream back after a stop of any kind.

mod headless;
mod rot;

use super::commit::{COMMIT_HEADER_BYTES, CommitHeader, HeadEnd, Probe};
use super::record::{Record, StoredRecord, read_record, read_sound_record};
use super::segment::{
    FORMAT_VERSION, FirstBlock, HEAD_COUNT, Head, Position, Reach, Seal, Segment, read_first_block,
};
use super::stream::{Log, LogConfig, Open, RESERVE_COUNT};
use super::usage::Usage;
use crate::io::{BLOCK_BYTES, SegmentId};
use alloc::vec::Vec;
use core::mem::take;
use headless::{Headless, is_unused};
use rot::Suspect;

const BLOCK: usize = BLOCK_BYTES as usize;
/// Bytes of small records that may have to go into the commit of a large one.
const BESIDE_BYTES: usize = 1024;
/// No record is further in the stream than this behind all that were read.
const LSN_REACH: u64 = 1 << 40;
/// What a drive does not give is filled with this. Not with zeros: these are a file that is not in use, and the end of a log.
pub const UNREADABLE: u8 = 0xff;
/// What cannot be read may be the newest that there is, and may come back: numbers go on so far behind all that is known.
const HIDDEN_COUNT: u64 = 1 << super::ERA_BITS;
/// And further, at random: two starts may know the same, and not each other.
const HIDDEN_SPREAD: u64 = HIDDEN_COUNT << 7;
/// The first commit behind what was hidden must be in reach: of it, too, what holds is served.
const _: () = assert!(LSN_REACH > 2 * HIDDEN_COUNT + HIDDEN_SPREAD);

/// Why a segment cannot be read at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecoveryError {
    /// It belongs to this other stream.
    Stream(u16),
    /// It was written in this other version of the format.
    Version(u32),
    /// It belongs to a head that this build does not know.
    Head(u8),
    /// It holds a sound record of this kind and version, which this build does not know: a later one wrote it. To go on
    /// without would lose what it says.
    Record(u8, u8),
    /// It holds a sound record whose content this build does not know: what it should be.
    Content(&'static str),
    /// Segments must come in ascending generation, each once.
    Order,
    /// The file is longer than offsets reach.
    Length,
    /// It was read again, and does not hold any more what it held.
    Changed,
}

/// What recovery found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RecoveryReport {
    /// Records handed out.
    pub record_count: u64,
    /// Parts of commits found whole.
    pub commit_count: u64,
    /// Places that are damaged, in the committed stream or in a file that is not in use: the block where it begins. What
    /// could be read was served.
    pub rot: Vec<(SegmentId, u32)>,
    /// Whether one of them is among the tables, or may be. Of what was written there an earlier record may be the last one
    /// that can be read: it says again what was changed since.
    pub has_rot_in_tables: bool,
    /// What the damage among the tables may have taken lay below this, but for what is in files that were left alone.
    pub rot_reach: Reach,
    /// Files that were left alone, because neither their header nor their first commit can be read.
    pub left_alone: Vec<SegmentId>,
    /// Where mail may be in blocks that the drive does not give, of other files: from which byte to which. All else that is
    /// sound there was served.
    pub unread: Vec<(SegmentId, u32, u32)>,
    /// Whether what could not be read may be the newest that there is, and may come back.
    pub is_hiding: bool,
    /// The number of the last record of all that could be read.
    pub last_lsn: u64,
    /// Commits that were never finished, and are cut off: the block where each begins.
    pub torn: Vec<(SegmentId, u32)>,
    /// Messages and ticks whose account has lost its record; they are kept. Set by the accounts' owner.
    pub orphan_count: u64,
    /// Accounts whose names others have by now; they are kept. Set by the accounts' owner.
    pub nameless_count: u64,
}

/// Where the records go: each with its position and its number in the stream.
pub type Sink<'s> = dyn FnMut(Position, u64, Record<'_>) + 's;

/// Where the whole commits of a segment end.
#[derive(Clone, Copy, Debug)]
struct Scanned {
    segment: SegmentId,
    head: Head,
    seal: Seal,
    end_bytes: u32,
    /// Whether new segments have this length and format too, and nothing damaged is at the end.
    reusable: bool,
    /// Whether it is of an older format.
    is_older: bool,
    suspect: bool,
}

/// Reads the segments of a stream, one after the other.
#[derive(Debug)]
pub struct Recovery {
    config: LogConfig,
    usage: Usage,
    last_generation: u64,
    /// The highest commit seen, and where it says that the heads' durable parts end.
    witness: u64,
    durable: [HeadEnd; HEAD_COUNT],
    /// For every generation, ascending, the furthest end that any commit states.
    told_ends: Vec<(u64, u32)>,
    next_lsn: u64,
    scanned: Vec<Scanned>,
    suspects: Vec<Suspect>,
    /// What is behind the ends of segments whose next ones were not read yet: more may have been there. One for each head.
    ends: Vec<Suspect>,
    /// What is one of these until a later commit says that its header was there.
    headless: Vec<Headless>,
    report: RecoveryReport,
    /// The kind and version of the first sound record that this build does not know.
    unknown: Option<(u8, u8)>,
    /// A header, or what may be an end, could not be read.
    is_hiding: bool,
    /// Files that are not in use and have a block that cannot be read.
    unused: Vec<SegmentId>,
    /// Damaged places, with the place of the next commit in their segment.
    followed: Vec<(SegmentId, u32, u32)>,
    /// No head goes on in one of these.
    closed: Vec<SegmentId>,
}

impl Recovery {
    /// Starts to read a stream.
    ///
    /// # Panics
    /// If a segment cannot hold one commit: the configuration is checked at boot.
    #[must_use]
    pub fn new(config: LogConfig) -> Self {
        let least = BLOCK + config.commit_bytes_max.next_multiple_of(BLOCK);
        assert!(config.segment_bytes.is_multiple_of(BLOCK_BYTES), "segments are made of whole blocks");
        assert!(config.segment_bytes as usize >= least, "a segment holds at least one largest commit");
        Self {
            config,
            usage: Usage::new(),
            last_generation: 0,
            witness: 0,
            durable: [HeadEnd::default(); HEAD_COUNT],
            told_ends: Vec::new(),
            next_lsn: 1,
            scanned: Vec::new(),
            suspects: Vec::new(),
            ends: Vec::new(),
            headless: Vec::new(),
            report: RecoveryReport::default(),
            unknown: None,
            is_hiding: false,
            unused: Vec::new(),
            followed: Vec::new(),
            closed: Vec::new(),
        }
    }

    /// The generation that a file's first block states; `None` when it is free (or its header rotted). Drivers feed
    /// files in ascending order of it, those without at any place.
    #[must_use]
    pub fn generation(first_block: &[u8]) -> Option<u64> {
        match read_first_block(first_block) {
            FirstBlock::Formatted(segment) => Some(segment.seal.generation),
            _ => None,
        }
    }

    /// Reads one segment file and hands out its sound records, together with what earlier ones left open.
    ///
    /// Records come in the stream's order inside one segment; salvaged ones may come later: their number tells.
    ///
    /// # Errors
    /// [`RecoveryError`] when the file is not one of this stream that this build can read.
    pub fn segment(
        &mut self,
        segment: SegmentId,
        bytes: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<(), RecoveryError> {
        self.damaged_segment(segment, bytes, &[], sink)
    }

    /// Likewise of a file with blocks that the drive does not give: `unreadable` are their offsets, ascending, and they
    /// are filled with [`UNREADABLE`]. They are rot. Nothing is written to such a file any more, but for zeros over a
    /// torn tail: where one of them may be the head's end, the head goes on in a fresh segment.
    ///
    /// # Errors
    /// As of [`Self::segment`].
    pub fn damaged_segment(
        &mut self,
        segment: SegmentId,
        bytes: &[u8],
        unreadable: &[u32],
        sink: &mut Sink<'_>,
    ) -> Result<(), RecoveryError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(RecoveryError::Length);
        }
        match read_first_block(bytes) {
            FirstBlock::Formatted(described) => {
                if described.seal.generation <= self.last_generation {
                    return Err(RecoveryError::Order);
                }
                self.last_generation = described.seal.generation;
                self.used((segment, described, false), bytes, unreadable, sink)?;
            }
            FirstBlock::Version(version) => return Err(RecoveryError::Version(version)),
            FirstBlock::Freed => self.spare(segment, bytes.len(), unreadable),
            FirstBlock::Zeros => self.without_header(segment, bytes, unreadable, sink)?,
            FirstBlock::Rotten { .. } if is_unused(bytes, unreadable) => self.damaged_spare(segment, 0),
            FirstBlock::Rotten { generation, salt } => match self.adopt(bytes, generation, salt) {
                Some(described) => self.lost_header(segment, described, bytes, unreadable, sink)?,
                None => self.quarantine(segment),
            },
        }
        self.settle_headless(sink)
    }

    /// A file that is not in use. One of another length is made anew when it is needed; so is a damaged one.
    fn spare(&mut self, segment: SegmentId, length: usize, unreadable: &[u32]) {
        if let Some(&block) = unreadable.first() {
            self.damaged_spare(segment, block);
        } else if length == self.config.segment_bytes as usize {
            self.usage.found_spare(segment);
        }
    }

    /// Reads a segment that is in use.
    fn used(
        &mut self,
        (segment, described, adopted): (SegmentId, Segment, bool),
        bytes: &[u8],
        unreadable: &[u32],
        sink: &mut Sink<'_>,
    ) -> Result<(), RecoveryError> {
        if described.stream != self.config.stream {
            return Err(RecoveryError::Stream(described.stream));
        }
        let head = Head::from_stored(described.head).ok_or(RecoveryError::Head(described.head))?;
        // A file of another length, or with damage, is served and freed, but made anew before it is used again.
        let length = self.config.segment_bytes;
        let right_length = bytes.len() == length as usize
            && described.segment_bytes == length
            && !adopted
            && unreadable.is_empty();
        self.usage.found_used(segment, head, described.seal.generation, right_length);
        // One of an older format gets nothing new: who knows only that format would take it for all that there is.
        let reusable = right_length && described.version == FORMAT_VERSION;
        let is_older = described.version < FORMAT_VERSION;
        self.scan(
            Place { segment, head, seal: described.seal, is_older },
            bytes,
            (unreadable, reusable),
            sink,
        );
        if head == Head::Mail {
            self.note_unread(segment, unreadable);
        }
        self.settle_suspects(sink);
        self.unknown.map_or(Ok(()), |(kind, version)| Err(RecoveryError::Record(kind, version)))
    }

    /// Reads records again that were handed out before, by their offsets in the file of their segment: `None` for one that
    /// is not there any more.
    pub fn again<'b>(
        &self,
        segment: SegmentId,
        bytes: &'b [u8],
        offsets: impl Iterator<Item = u32>,
    ) -> impl Iterator<Item = Option<Record<'b>>> {
        let scanned = self.scanned.iter().find(|scanned| scanned.segment == segment);
        let seal = scanned.map(|scanned| scanned.seal);
        offsets.map(move |offset| {
            let record = read_record(bytes.get(offset as usize..)?, seal.as_ref()?)?;
            record.meaning().filter(|_| record.valid)
        })
    }

    /// No head goes on in one of these files, and those that are not in use are used last.
    pub fn close(&mut self, segments: impl Iterator<Item = SegmentId>) {
        self.closed.extend(segments);
    }

    /// Ends recovery. Nothing counts as live until [`Log::live`] says so, and nothing is freed before
    /// [`Log::recovered_done`].
    #[must_use]
    pub fn finish(mut self) -> (Log, RecoveryReport) {
        for suspect in &self.suspects {
            self.report.torn.push((suspect.segment, suspect.offset as u32));
        }
        let mut cuts: Vec<_> = self
            .suspects
            .iter()
            .map(|suspect| Position { segment: suspect.segment, offset: suspect.offset as u32 })
            .collect();
        // Nor were the commits that got to the drive without the header before them.
        for Headless { segment, right_length, .. } in take(&mut self.headless) {
            self.report.torn.push((segment, BLOCK_BYTES));
            cuts.push(Position { segment, offset: BLOCK_BYTES });
            if right_length {
                self.usage.found_spare(segment);
            }
        }
        let (mut heads, mut is_older) = ([None; HEAD_COUNT], false);
        for head in Head::ALL {
            let is_closed = |s: &Scanned| self.closed.contains(&s.segment);
            // The tables may go on in an older segment. Mail may not: older segments hold no floors of its newer ones.
            let may_go_on = |s: &&Scanned| s.head == head && (head == Head::Mail || !is_closed(s));
            let newest = self.scanned.iter().filter(may_go_on).max_by_key(|s| s.seal.generation);
            is_older |= newest.is_some_and(|newest| newest.is_older);
            heads[head.index()] = newest
                .filter(|s| s.reusable && !s.suspect && !is_closed(s))
                .filter(|s| self.told_end(&s.seal) <= s.end_bytes)
                .map(|s| Open { segment: s.segment, seal: s.seal, end_bytes: s.end_bytes });
        }
        self.report_lost_ends();
        self.report.has_rot_in_tables =
            self.report.rot.iter().any(|&(segment, _)| self.may_be_tables(segment));
        self.report.rot_reach = self.rot_reach();
        self.report.is_hiding = self.is_hiding;
        self.report.last_lsn = self.next_lsn.saturating_sub(1);
        self.closed.iter().for_each(|&segment| self.usage.use_last(segment));
        for open in heads.iter().flatten() {
            self.usage.reopen(open.segment);
        }
        let stated = self.told_ends.iter().map(|&(generation, _)| generation);
        let scanned = self.scanned.iter().map(|s| s.seal.generation);
        let last_generation = stated.chain(scanned).max().unwrap_or(0);
        let closed_ends = Head::ALL.map(|head| self.closed_end(head));
        // Where an older build has left no file, its heads had room yet, and what gives back space went there.
        if is_older {
            let more = HEAD_COUNT as u32 + RESERVE_COUNT;
            self.config.segment_count_max = self.config.segment_count_max.saturating_add(more);
        }
        let mut log = Log::new(self.config, self.usage);
        // No segment has the generation zero.
        let random = log.new_seal(0).salt % HIDDEN_SPREAD;
        let skipped = if self.is_hiding { HIDDEN_COUNT + random } else { 0 };
        log.heads = heads;
        log.closed_ends = closed_ends;
        log.next_commit = self.witness.saturating_add(1).saturating_add(skipped);
        log.next_lsn = self.next_lsn.saturating_add(skipped);
        log.next_generation = last_generation.saturating_add(1).saturating_add(skipped);
        log.cuts = cuts;
        (log, self.report)
    }

    /// A file that is not in use has a block that cannot be read: it is told, and made anew when it is needed.
    fn damaged_spare(&mut self, segment: SegmentId, block: u32) {
        self.report.rot.push((segment, block));
        self.unused.push(segment);
    }

    /// Whether a segment is not known to be one of mail, or not in use.
    fn may_be_tables(&self, segment: SegmentId) -> bool {
        let found = self.scanned.iter().find(|scanned| scanned.segment == segment);
        found.map_or(!self.unused.contains(&segment), |scanned| scanned.head != Head::Mail)
    }

    /// Up to where a head's durable part is known to reach.
    fn closed_end(&self, head: Head) -> HeadEnd {
        let scanned = self
            .scanned
            .iter()
            .filter(|s| s.head == head)
            .map(|s| HeadEnd::new(s.seal.generation, s.end_bytes.max(self.told_end(&s.seal))));
        let stated = self.durable[head.index()];
        scanned.chain([stated]).max_by_key(HeadEnd::order).unwrap_or(stated)
    }

    fn scan(
        &mut self,
        place: Place,
        bytes: &[u8],
        (unreadable, reusable): (&[u32], bool),
        sink: &mut Sink<'_>,
    ) {
        let mut at = BLOCK;
        let mut suspect = false;
        let mut rot_at = Vec::new();
        while at + BLOCK <= bytes.len() {
            let probe = CommitHeader::probe(&bytes[at..], &place.seal);
            if let Probe::Ours(header) = probe {
                self.take_witness(header);
                let followed = rot_at.drain(..).map(|rot_at| (place.segment, rot_at, at as u32));
                self.followed.extend(followed);
                let length = header.length_bytes();
                if let Some(commit) = bytes[at..].get(..length)
                    && length >= COMMIT_HEADER_BYTES
                    && is_whole(commit, header, &place.seal)
                {
                    self.report.commit_count += 1;
                    self.serve(&place, at, commit, header.record_count(), sink);
                    at += length.next_multiple_of(BLOCK);
                    continue;
                }
            }
            // Not a whole commit. A later one in this segment proves that there was one here.
            let next = self.next_commit_at(&place, bytes, at + BLOCK);
            let told_end = self.told_end(&place.seal) as usize;
            if next.is_some() || told_end > at {
                let end = next.unwrap_or(told_end).min(bytes.len());
                self.rot(&place, at, &bytes[at..end], sink);
                rot_at.push(at as u32);
                at = end;
                continue;
            }
            if let Some(&block) = unreadable.iter().find(|&&block| block as usize >= at) {
                // It may be a commit that was durable: told, served where it holds, and not cut off.
                self.is_hiding = true;
                let from = if matches!(probe, Probe::Nothing) { block as usize } else { at };
                self.salvage_end(&place, from, bytes, unreadable, sink);
                break;
            }
            let first_holds = bytes[at..]
                .get(COMMIT_HEADER_BYTES..)
                .is_some_and(|records| read_record(records, &place.seal).is_some_and(|record| record.valid));
            suspect = !matches!(probe, Probe::Nothing) || first_holds;
            self.suspect(&place, at, bytes, probe, suspect);
            break;
        }
        self.scanned.push(Scanned {
            segment: place.segment,
            head: place.head,
            seal: place.seal,
            end_bytes: at.min(bytes.len()) as u32,
            reusable,
            is_older: place.is_older,
            suspect,
        });
    }

    fn take_witness(&mut self, header: &CommitHeader) {
        let ends = header.ends();
        if header.commit() > self.witness {
            self.witness = header.commit();
            self.durable = ends;
        }
        self.next_lsn =
            self.next_lsn.max(header.first_lsn().saturating_add(u64::from(header.record_count())));
        for end in ends {
            let (generation, bytes) = (end.generation.get(), end.end_bytes.get());
            match self.told_ends.binary_search_by_key(&generation, |&(generation, _)| generation) {
                Ok(at) => self.told_ends[at].1 = self.told_ends[at].1.max(bytes),
                Err(at) => self.told_ends.insert(at, (generation, bytes)),
            }
        }
    }

    fn told_end(&self, seal: &Seal) -> u32 {
        let found = self.told_ends.binary_search_by_key(&seal.generation, |&(generation, _)| generation);
        found.map_or(0, |at| self.told_ends[at].1)
    }

    /// The next block from `at` on that starts a commit of this segment.
    fn next_commit_at(&self, place: &Place, bytes: &[u8], at: usize) -> Option<usize> {
        (at..bytes.len())
            .step_by(BLOCK)
            .find(|&at| matches!(CommitHeader::probe(&bytes[at..], &place.seal), Probe::Ours(_)))
    }

    /// Hands out the records of a commit that is known to be whole.
    fn serve(&mut self, place: &Place, at: usize, commit: &[u8], record_count: u32, sink: &mut Sink<'_>) {
        let mut offset = COMMIT_HEADER_BYTES;
        for _ in 0..record_count {
            let Some(record) = read_sound_record(&commit[offset..]) else { return };
            let position = Position { segment: place.segment, offset: (at + offset) as u32 };
            self.hand_out(position, &record, sink);
            offset += record.bytes;
        }
    }

    fn hand_out(&mut self, position: Position, record: &StoredRecord<'_>, sink: &mut Sink<'_>) {
        self.next_lsn = self.next_lsn.max(record.lsn.saturating_add(1));
        self.usage.put(position.segment, 1, record.bytes as u32, record.bytes as u32);
        self.make_room_for(record.bytes);
        match record.meaning() {
            Some(meaning) => {
                self.report.record_count += 1;
                sink(position, record.lsn, meaning);
            }
            None => self.unknown = self.unknown.or(Some(record.kind_and_version())),
        }
    }

    /// Commits may have been larger once: they must take what one of them took, when it is to be written elsewhere.
    /// Segments may have been longer, too; what fits none any more weighs more than half of one, and is never chosen.
    fn make_room_for(&mut self, record_bytes: usize) {
        let needed = COMMIT_HEADER_BYTES + record_bytes + BESIDE_BYTES;
        let segment_room = self.config.segment_bytes as usize - BLOCK;
        self.config.commit_bytes_max = self.config.commit_bytes_max.max(needed.min(segment_room));
    }
}

/// Whether all records of a commit are there and sound.
fn is_whole(commit: &[u8], header: &CommitHeader, seal: &Seal) -> bool {
    let mut offset = COMMIT_HEADER_BYTES;
    for _ in 0..header.record_count() {
        let Some(record) = read_record(&commit[offset..], seal) else { return false };
        if !record.valid || record.commit_low != header.commit() as u32 {
            return false;
        }
        offset += record.bytes;
    }
    offset == commit.len()
}

/// Which segment is being read.
#[derive(Clone, Copy, Debug)]
struct Place {
    segment: SegmentId,
    head: Head,
    seal: Seal,
    is_older: bool,
}
