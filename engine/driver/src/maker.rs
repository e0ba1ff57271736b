//! Makes log segments: a helper thread, because writing and syncing zeros takes long and a shard may not wait.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use tern_ring::{DurableFile, Waker};
use tern_storage::io::SegmentId;

/// A segment to make.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) directory: PathBuf,
    pub(crate) segment: SegmentId,
    pub(crate) bytes: u32,
    pub(crate) answer: flume::Sender<Made>,
    pub(crate) waker: Waker,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) segment: SegmentId,
    pub(crate) result: io::Result<DurableFile>,
}

/// Starts the helper of a node; it ends when all senders of jobs are gone. To be joined after them: a node that is over
/// must not go on writing into a directory that the next one may use.
pub(crate) fn start() -> io::Result<(flume::Sender<Job>, JoinHandle<()>)> {
    let (jobs, taken) = flume::unbounded::<Job>();
    let helper = thread::Builder::new().name("segments".into()).spawn(move || {
        for Job { directory, segment, bytes, answer, waker } in taken {
            if answer.is_disconnected() {
                continue;
            }
            let result = make(&directory, segment, bytes);
            // The shard may be gone; then nobody wants it.
            let _ = answer.send(Made { segment, result });
            waker.wake();
        }
    })?;
    Ok((jobs, helper))
}

/// The file of a segment.
pub(crate) fn file_name(segment: SegmentId) -> String {
    format!("seg-{:08x}.log", segment.0)
}

/// Makes the file under another name, writes its zeros (written ones, not merely allocated: commits to it then change
/// no metadata), makes them durable, and renames it: under its own name a segment is always whole.
pub(crate) fn make(directory: &Path, segment: SegmentId, bytes: u32) -> io::Result<DurableFile> {
    make_with(directory, segment, bytes, tern_ring::allocate)
}

fn make_with(
    directory: &Path,
    segment: SegmentId,
    bytes: u32,
    allocate: impl Fn(&File, u64) -> io::Result<()>,
) -> io::Result<DurableFile> {
    let path = directory.join(file_name(segment));
    let unfinished = path.with_extension("new");
    let made = write_zeros(&unfinished, bytes, allocate)
        .and_then(|()| fs::rename(&unfinished, &path))
        .and_then(|()| File::open(directory)?.sync_all());
    if made.is_err() {
        // Gives the space back; if even that fails, the next start removes it.
        let _ = fs::remove_file(&unfinished);
    }
    made?;
    DurableFile::open(&path)
}

fn write_zeros(path: &Path, bytes: u32, allocate: impl Fn(&File, u64) -> io::Result<()>) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut file = File::create(path)?;
    // A full drive says so here, and is not filled with zeros to its last byte before it does.
    allocate(&file, u64::from(bytes))?;
    let mut left_bytes = bytes as usize;
    while left_bytes > 0 {
        let part = left_bytes.min(zeros.len());
        file.write_all(&zeros[..part])?;
        left_bytes -= part;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_zeros_of_its_length() {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path(), SegmentId(17), 3 << 20).unwrap();
        let bytes = fs::read(directory.path().join("seg-00000011.log")).unwrap();
        assert!(bytes.len() == 3 << 20 && bytes.iter().all(|&byte| byte == 0));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_drive_is_not_filled_with_zeros_before_it_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let full = |file: &File, bytes| {
            assert_eq!((file.metadata()?.len(), bytes), (0, 3 << 20));
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        };
        let error = make_with(directory.path(), SegmentId(1), 3 << 20, full).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        // A directory in the way of the final name: the rename fails after the zeros are written.
        fs::create_dir(directory.path().join("seg-00000001.log")).unwrap();
        assert!(make(directory.path(), SegmentId(1), 4096).is_err());
        assert!(!directory.path().join("seg-00000001.new").exists());
    }
}
