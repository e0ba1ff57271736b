//! The log files of one shard: creates go to the helper thread, writes to the ring.

use crate::maker::{Job, Made};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use tern_ring::{DurableFile, Ring};
use tern_storage::io::{DiskDone, DiskError, DiskOp, SegmentId};
use tracing::warn;

/// One shard's files.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
    files: HashMap<SegmentId, DurableFile>,
    jobs: flume::Sender<Job>,
    answer: flume::Sender<Made>,
    made: flume::Receiver<Made>,
}

impl Disk {
    pub(crate) fn new(
        directory: PathBuf,
        files: HashMap<SegmentId, DurableFile>,
        jobs: flume::Sender<Job>,
    ) -> Self {
        let (answer, made) = flume::unbounded();
        Self { directory, files, jobs, answer, made }
    }

    /// Starts an operation whose data are in `arena`.
    ///
    /// # Panics
    /// If it writes to a segment that was never made: the log's bug.
    pub(crate) fn start(&mut self, ring: &mut Ring, op: DiskOp, arena: &[u8]) {
        match op {
            DiskOp::Create { segment, bytes } => {
                let (directory, answer) = (self.directory.clone(), self.answer.clone());
                let job = Job { directory, segment, bytes, answer, waker: ring.waker() };
                if let Err(flume::SendError(job)) = self.jobs.send(job) {
                    let result = Err(io::Error::other("the segment maker is gone"));
                    let _ = self.answer.send(Made { segment: job.segment, result });
                    ring.waker().wake();
                }
            }
            DiskOp::Write { segment, offset, data } => {
                let file = self.files.get(&segment).expect("the log writes to segments that were made");
                ring.write_durable(file, u64::from(offset), &arena[data], key(segment, offset));
            }
        }
    }

    /// A segment that the helper has made, or failed to make.
    pub(crate) fn next_made(&mut self) -> Option<DiskDone> {
        let Made { segment, result } = self.made.try_recv().ok()?;
        let result = match result {
            Ok(file) => {
                self.files.insert(segment, file);
                Ok(())
            }
            Err(error) => {
                warn!(%error, segment = segment.0, "a log segment could not be made");
                Err(making_error(error.raw_os_error().unwrap_or(libc::EIO)))
            }
        };
        Some(DiskDone::Created { segment, result })
    }

    /// The end of a write of the ring.
    pub(crate) fn written(key: u64, result: Result<(), i32>) -> DiskDone {
        let segment = SegmentId((key >> 32) as u32);
        DiskDone::Written { segment, offset: key as u32, result: result.map_err(disk_error) }
    }
}

const fn key(segment: SegmentId, offset: u32) -> u64 {
    (segment.0 as u64) << 32 | offset as u64
}

const fn disk_error(number: i32) -> DiskError {
    match number {
        libc::ENOSPC | libc::EDQUOT => DiskError::Full,
        other => DiskError::Io(other),
    }
}

/// Without a descriptor for it a segment cannot be made now, as without room on the drive: nothing was written that could
/// be lost, what there is can be written on, and it is tried again.
const fn making_error(number: i32) -> DiskError {
    match number {
        libc::EMFILE | libc::ENFILE => DiskError::Full,
        other => disk_error(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_descriptors_ends_no_node() {
        assert_eq!(making_error(libc::EMFILE), DiskError::Full);
        assert_eq!(making_error(libc::ENFILE), DiskError::Full);
        assert_eq!(making_error(libc::EIO), DiskError::Io(libc::EIO));
    }

    #[test]
    fn a_write_is_recognised_by_its_key() {
        let done = Disk::written(key(SegmentId(u32::MAX), 4096), Err(libc::ENOSPC));
        let result = Err(DiskError::Full);
        assert_eq!(done, DiskDone::Written { segment: SegmentId(u32::MAX), offset: 4096, result });
        assert_eq!(disk_error(libc::EIO), DiskError::Io(libc::EIO));
    }
}
