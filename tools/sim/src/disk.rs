//! The simulated drive of one shard: a buffered and a stable image of every segment file.
//!
//! A write enters the buffered image at once or at its end, and the stable image only when it is reported as written.
//! A killed process leaves both, with some whole blocks of what was under way in the buffered one: what is read then is
//! not what a power loss leaves, which is the stable image and some 512-byte sectors of what was under way. A sync makes
//! the buffered image stable, but for blocks whose write has failed: the kernel counts these as written.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use tern_storage::io::{BLOCK_BYTES, DiskDone, DiskError, DiskOp, SegmentId};

/// What a drive writes in one piece or not at all, bytes.
const SECTOR_BYTES: usize = 512;

/// How a node stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process dies; the machine goes on.
    Kill,
    /// The machine dies.
    Power,
}

/// Names an operation under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(pub u64);

/// How the drive behaves now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mood {
    /// Longest time of an operation, nanoseconds.
    pub latency_ns_max: u64,
    /// No room for new files.
    pub full: bool,
    /// The next write fails.
    pub write_fails: bool,
}

#[derive(Clone, Debug, Default)]
struct File {
    buffered: Vec<u8>,
    stable: Vec<u8>,
    /// Blocks of the buffered image that no sync writes any more, because writing them has failed once.
    unwritten: BTreeSet<usize>,
}

impl File {
    /// The kernel forgets what it holds, and reads from the drive.
    fn forget(&mut self) {
        self.buffered.copy_from_slice(&self.stable);
        self.unwritten.clear();
    }
}

#[derive(Debug)]
struct Write {
    segment: SegmentId,
    offset: u32,
    data: Vec<u8>,
}

#[derive(Debug)]
enum Work {
    Create { segment: SegmentId, bytes: u32 },
    Write(Write),
}

/// The drive.
#[derive(Debug)]
pub struct Disk {
    files: BTreeMap<SegmentId, File>,
    /// What is under way, by ticket.
    under_way: BTreeMap<u64, Work>,
    next_ticket: u64,
    random: Random,
    /// How it behaves now.
    pub mood: Mood,
}

/// What a finished operation did.
#[derive(Debug)]
pub struct Finished {
    /// The answer to the shard.
    pub done: DiskDone,
    /// What became stable by it.
    pub written: Vec<u8>,
}

impl Disk {
    /// An empty drive.
    #[must_use]
    pub const fn new(random: Random, mood: Mood) -> Self {
        Self { files: BTreeMap::new(), under_way: BTreeMap::new(), next_ticket: 0, random, mood }
    }

    /// Starts an operation; `arena` is what its data range refers to. Returns its ticket and how long it takes.
    ///
    /// # Errors
    /// Says which rule of [`DiskOp`] the operation breaks.
    pub fn start(&mut self, op: DiskOp, arena: &[u8]) -> Result<(Ticket, u64), String> {
        let work = match op {
            DiskOp::Create { segment, bytes } => {
                if self.files.contains_key(&segment) {
                    return Err(format!("{segment:?} is created but exists"));
                }
                if bytes == 0 || !bytes.is_multiple_of(BLOCK_BYTES) {
                    return Err(format!("{segment:?} is created with {bytes} bytes"));
                }
                Work::Create { segment, bytes }
            }
            DiskOp::Write { segment, offset, data } => {
                let data = arena[data].to_vec();
                self.check_write(segment, offset, &data)?;
                let write = Write { segment, offset, data };
                if self.random.chance(50) {
                    self.apply(&write, Image::Buffered, |_| true);
                }
                Work::Write(write)
            }
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.under_way.insert(ticket, work);
        Ok((Ticket(ticket), self.random.below(self.mood.latency_ns_max) + 1))
    }

    /// Ends an operation; `None` if a crash forgot it.
    pub fn finish(&mut self, ticket: Ticket) -> Option<Finished> {
        Some(match self.under_way.remove(&ticket.0)? {
            Work::Create { segment, .. } if self.mood.full => Finished {
                done: DiskDone::Created { segment, result: Err(DiskError::Full) },
                written: Vec::new(),
            },
            Work::Create { segment, bytes } => {
                self.create(segment, bytes);
                Finished { done: DiskDone::Created { segment, result: Ok(()) }, written: Vec::new() }
            }
            Work::Write(write) => self.finish_write(write),
        })
    }

    /// Stops the node, or the machine on which it had stopped: what was under way is torn.
    pub fn crash(&mut self, crash: Crash) {
        if crash == Crash::Power {
            self.files.values_mut().for_each(File::forget);
        }
        for work in std::mem::take(&mut self.under_way).into_values() {
            match work {
                Work::Create { segment, bytes } => {
                    if self.random.chance(50) {
                        self.create(segment, bytes);
                    }
                }
                Work::Write(write) => {
                    let piece_bytes = if crash == Crash::Kill { BLOCK_BYTES as usize } else { SECTOR_BYTES };
                    let kept = self.torn(&write, piece_bytes);
                    self.apply(&write, Image::Buffered, |at| kept[at / piece_bytes]);
                    if crash == Crash::Power {
                        self.apply(&write, Image::Stable, |at| kept[at / piece_bytes]);
                    }
                }
            }
        }
        self.mood.write_fails = false;
    }

    /// Makes stable what only the cache holds, but for what failed to be written.
    pub fn sync(&mut self) {
        for file in self.files.values_mut() {
            let blocks = file.stable.chunks_mut(BLOCK_BYTES as usize);
            for (block, (stable, buffered)) in
                blocks.zip(file.buffered.chunks(BLOCK_BYTES as usize)).enumerate()
            {
                if !file.unwritten.contains(&block) {
                    stable.copy_from_slice(buffered);
                }
            }
        }
    }

    /// Lets the kernel forget what it holds of the files: what is read next is what the drive has.
    pub fn forget_cached(&mut self) {
        self.files.values_mut().for_each(File::forget);
    }

    /// The stable image of every file: what a power loss would leave.
    pub fn files(&self) -> impl Iterator<Item = (SegmentId, &[u8])> {
        self.files.iter().map(|(&segment, file)| (segment, file.stable.as_slice()))
    }

    /// The buffered image of every file: what is read.
    pub fn cached_files(&self) -> impl Iterator<Item = (SegmentId, &[u8])> {
        self.files.iter().map(|(&segment, file)| (segment, file.buffered.as_slice()))
    }

    fn check_write(&self, segment: SegmentId, offset: u32, data: &[u8]) -> Result<(), String> {
        let Some(file) = self.files.get(&segment) else {
            return Err(format!("write to {segment:?}, which does not exist"));
        };
        let end = offset as usize + data.len();
        let whole = offset.is_multiple_of(BLOCK_BYTES) && data.len().is_multiple_of(BLOCK_BYTES as usize);
        if !whole || data.is_empty() || end > file.stable.len() {
            return Err(format!("write of {} bytes at {offset} of {segment:?}", data.len()));
        }
        Ok(())
    }

    fn create(&mut self, segment: SegmentId, bytes: u32) {
        let zeros = vec![0; bytes as usize];
        let file = File { buffered: zeros.clone(), stable: zeros, unwritten: BTreeSet::new() };
        self.files.insert(segment, file);
    }

    fn finish_write(&mut self, write: Write) -> Finished {
        let (segment, offset) = (write.segment, write.offset);
        if std::mem::take(&mut self.mood.write_fails) {
            self.fail_write(&write);
            let result = Err(DiskError::Io(5));
            return Finished { done: DiskDone::Written { segment, offset, result }, written: Vec::new() };
        }
        self.apply(&write, Image::Buffered, |_| true);
        self.apply(&write, Image::Stable, |_| true);
        Finished { done: DiskDone::Written { segment, offset, result: Ok(()) }, written: write.data }
    }

    /// Some of it has reached the drive. The cache has that, too, or all of it, and never tries again to write the rest.
    fn fail_write(&mut self, write: &Write) {
        let kept = self.torn(write, SECTOR_BYTES);
        self.apply(write, Image::Stable, |at| kept[at / SECTOR_BYTES]);
        let is_cached = self.random.chance(50);
        self.apply(write, Image::Buffered, |at| is_cached || kept[at / SECTOR_BYTES]);
        let file = self.files.get_mut(&write.segment).expect("it was just written");
        let blocks = write.data.len() / BLOCK_BYTES as usize;
        let first = (write.offset / BLOCK_BYTES) as usize;
        file.unwritten.extend(first..first + blocks);
    }

    /// Which pieces of a write are left of it: none, all, a front, or any.
    fn torn(&mut self, write: &Write, piece_bytes: usize) -> Vec<bool> {
        let count = write.data.len() / piece_bytes;
        match self.random.below(4) {
            0 => vec![false; count],
            1 => vec![true; count],
            2 => {
                let front = self.random.index(count + 1);
                (0..count).map(|piece| piece < front).collect()
            }
            _ => (0..count).map(|_| self.random.chance(50)).collect(),
        }
    }

    /// Copies the sectors of a write that `kept` (offset inside the write) names into an image.
    fn apply(&mut self, write: &Write, image: Image, kept: impl Fn(usize) -> bool) {
        let file = self.files.get_mut(&write.segment).expect("checked when the write began");
        let bytes = if image == Image::Stable { &mut file.stable } else { &mut file.buffered };
        for at in (0..write.data.len()).step_by(SECTOR_BYTES) {
            if kept(at) {
                let to = write.offset as usize + at;
                if image == Image::Buffered {
                    file.unwritten.remove(&(to / BLOCK_BYTES as usize));
                }
                bytes[to..to + SECTOR_BYTES].copy_from_slice(&write.data[at..at + SECTOR_BYTES]);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Image {
    Buffered,
    Stable,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId(3);

    fn disk(seed: u64) -> Disk {
        let mood = Mood { latency_ns_max: 1000, full: false, write_fails: false };
        let mut disk = Disk::new(Random::new(seed), mood);
        let (ticket, _) = disk.start(DiskOp::Create { segment: SEGMENT, bytes: 16_384 }, &[]).unwrap();
        assert!(disk.files().next().is_none(), "not there before it ends");
        disk.finish(ticket).unwrap();
        disk
    }

    fn write(disk: &mut Disk, offset: u32, fill: u8, blocks: usize) -> Ticket {
        let data = vec![fill; blocks * BLOCK_BYTES as usize];
        disk.start(DiskOp::Write { segment: SEGMENT, offset, data: 0..data.len() }, &data).unwrap().0
    }

    fn stable(disk: &Disk) -> Vec<u8> {
        disk.files().next().unwrap().1.to_vec()
    }

    fn cached(disk: &Disk) -> Vec<u8> {
        disk.cached_files().next().unwrap().1.to_vec()
    }

    #[test]
    fn what_was_reported_survives_both_crashes_and_what_was_not_may_be_torn() {
        let mut torn_inside_a_block = false;
        let mut partly = false;
        for seed in 0..100 {
            for crash in [Crash::Kill, Crash::Power] {
                let mut disk = disk(seed);
                let first = write(&mut disk, 0, 1, 1);
                assert!(stable(&disk).iter().all(|&b| b == 0), "not stable before it ends");
                disk.finish(first).unwrap();
                let second = write(&mut disk, 4096, 2, 2);
                disk.crash(crash);
                assert!(disk.finish(second).is_none());
                let image = cached(&disk);
                assert!(crash == Crash::Kill || stable(&disk) == image);
                assert!(image[..4096].iter().all(|&b| b == 1));
                assert!(image[12_288..].iter().all(|&b| b == 0));
                let uneven = image[4096..8192].iter().any(|&b| b != image[4096]);
                assert!(crash == Crash::Power || !uneven, "a kill tears no block");
                torn_inside_a_block |= uneven;
                partly |= image[4096] != image[8192];
            }
        }
        assert!(torn_inside_a_block && partly);
    }

    #[test]
    fn a_power_loss_forgets_what_only_the_cache_had() {
        let survivors = |crash| {
            (0..200)
                .filter(|&seed| {
                    let mut disk = disk(seed);
                    write(&mut disk, 0, 9, 1);
                    disk.crash(crash);
                    cached(&disk)[..4096].iter().all(|&b| b == 9)
                })
                .count()
        };
        assert!(survivors(Crash::Kill) > survivors(Crash::Power) + 30);
    }

    #[test]
    fn what_a_kill_left_in_the_cache_is_stable_when_it_was_synced_and_not_before() {
        let mut lost_count = 0;
        for seed in 0..100 {
            for syncs in [false, true] {
                let mut disk = disk(seed);
                write(&mut disk, 0, 9, 1);
                disk.crash(Crash::Kill);
                let read = cached(&disk);
                assert!(stable(&disk).iter().all(|&b| b == 0));
                if syncs {
                    disk.sync();
                }
                disk.crash(Crash::Power);
                assert!(!syncs || cached(&disk) == read);
                lost_count += u32::from(cached(&disk) != read);
            }
        }
        assert!(lost_count > 30);
    }

    #[test]
    fn what_failed_to_be_written_may_be_read_until_the_cache_forgets_it_whatever_is_synced() {
        let mut believed_count = 0;
        for seed in 0..100 {
            let mut disk = disk(seed);
            disk.mood.write_fails = true;
            let failed = write(&mut disk, 0, 9, 1);
            disk.finish(failed).unwrap();
            disk.crash(Crash::Kill);
            disk.sync();
            let believed = cached(&disk);
            believed_count += u32::from(believed != stable(&disk));
            disk.forget_cached();
            assert_eq!(cached(&disk), stable(&disk));
            // Written again, it is written.
            let again = write(&mut disk, 0, 7, 1);
            disk.finish(again).unwrap();
            disk.crash(Crash::Power);
            assert!(cached(&disk)[..4096].iter().all(|&b| b == 7));
        }
        assert!(believed_count > 20);
    }

    #[test]
    fn rules_are_checked_and_errors_reported() {
        let mut disk = disk(1);
        assert!(disk.start(DiskOp::Create { segment: SEGMENT, bytes: 4096 }, &[]).is_err());
        let block = [0; 4096];
        assert!(disk.start(DiskOp::Write { segment: SEGMENT, offset: 1, data: 0..4096 }, &block).is_err());
        assert!(
            disk.start(DiskOp::Write { segment: SEGMENT, offset: 16_384, data: 0..4096 }, &block).is_err()
        );
        disk.mood = Mood { full: true, write_fails: true, ..disk.mood };
        let (create, _) = disk.start(DiskOp::Create { segment: SegmentId(4), bytes: 4096 }, &[]).unwrap();
        let full = DiskDone::Created { segment: SegmentId(4), result: Err(DiskError::Full) };
        assert_eq!(disk.finish(create).unwrap().done, full);
        let failed = write(&mut disk, 0, 1, 1);
        let result = Err(DiskError::Io(5));
        let done = DiskDone::Written { segment: SEGMENT, offset: 0, result };
        assert_eq!(disk.finish(failed).unwrap().done, done);
    }
}
