//! The simulated drive of one shard: a buffered and a stable image of every segment file.
//!
//! A write enters the buffered image at once or at its end, and the stable image only when it is reported as written.
//! A killed process leaves the buffered image and some whole blocks of what was under way; a power loss leaves the
//! stable image and some 512-byte sectors of what was under way.

use crate::random::Random;
use std::collections::BTreeMap;
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

    /// Stops the node: what was under way is torn, and one image is left.
    pub fn crash(&mut self, crash: Crash) {
        if crash == Crash::Power {
            for file in self.files.values_mut() {
                file.buffered.copy_from_slice(&file.stable);
            }
        }
        for work in std::mem::take(&mut self.under_way).into_values() {
            match work {
                Work::Create { segment, bytes } => {
                    if self.random.chance(50) {
                        self.create(segment, bytes);
                    }
                }
                Work::Write(write) => self.tear(&write, crash),
            }
        }
        for file in self.files.values_mut() {
            file.stable.copy_from_slice(&file.buffered);
        }
        self.mood.write_fails = false;
    }

    /// The stable image of every file.
    pub fn files(&self) -> impl Iterator<Item = (SegmentId, &[u8])> {
        self.files.iter().map(|(&segment, file)| (segment, file.stable.as_slice()))
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
        self.files.insert(segment, File { buffered: zeros.clone(), stable: zeros });
    }

    fn finish_write(&mut self, write: Write) -> Finished {
        let (segment, offset) = (write.segment, write.offset);
        if std::mem::take(&mut self.mood.write_fails) {
            self.tear(&write, Crash::Power);
            let result = Err(DiskError::Io(5));
            return Finished { done: DiskDone::Written { segment, offset, result }, written: Vec::new() };
        }
        self.apply(&write, Image::Buffered, |_| true);
        self.apply(&write, Image::Stable, |_| true);
        Finished { done: DiskDone::Written { segment, offset, result: Ok(()) }, written: write.data }
    }

    /// Leaves a random part of a write: nothing, everything, a front, or any pieces.
    fn tear(&mut self, write: &Write, crash: Crash) {
        let piece_bytes = if crash == Crash::Kill { BLOCK_BYTES as usize } else { SECTOR_BYTES };
        let count = write.data.len() / piece_bytes;
        let kept: Vec<bool> = match self.random.below(4) {
            0 => vec![false; count],
            1 => vec![true; count],
            2 => {
                let front = self.random.index(count + 1);
                (0..count).map(|piece| piece < front).collect()
            }
            _ => (0..count).map(|_| self.random.chance(50)).collect(),
        };
        self.apply(write, Image::Buffered, |at| kept[at / piece_bytes]);
    }

    /// Copies the sectors of a write that `kept` (offset inside the write) names into an image.
    fn apply(&mut self, write: &Write, image: Image, kept: impl Fn(usize) -> bool) {
        let file = self.files.get_mut(&write.segment).expect("checked when the write began");
        let bytes = if image == Image::Stable { &mut file.stable } else { &mut file.buffered };
        for at in (0..write.data.len()).step_by(SECTOR_BYTES) {
            if kept(at) {
                let to = write.offset as usize + at;
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
                let image = stable(&disk);
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
                    stable(&disk)[..4096].iter().all(|&b| b == 9)
                })
                .count()
        };
        assert!(survivors(Crash::Kill) > survivors(Crash::Power) + 30);
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
