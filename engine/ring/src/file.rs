//! Durable writes: O_DIRECT with RWF_DSYNC, or buffered writes and fdatasync where O_DIRECT is refused.

use crate::block::{Block, DIRECT_ALIGNMENT_BYTES};
use crate::operation::Operation;
use crate::ring::Ring;
use io_uring::{opcode, types};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A file that exists and is written in aligned blocks; cheap to clone.
#[derive(Clone, Debug)]
pub struct DurableFile {
    file: Arc<File>,
    direct: Arc<AtomicBool>,
}

impl DurableFile {
    /// Opens an existing file for writing, with O_DIRECT where the file system takes it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        match OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path) {
            Ok(file) => Ok(Self { file: Arc::new(file), direct: Arc::new(AtomicBool::new(true)) }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Self::open_buffered(path),
            Err(error) => Err(error),
        }
    }

    /// Opens an existing file for buffered writes and fdatasync.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open_buffered(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(Self { file: Arc::new(file), direct: Arc::new(AtomicBool::new(false)) })
    }

    /// Whether writes go by O_DIRECT.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct.load(Ordering::Relaxed)
    }

    /// Some file systems take the flag at open and refuse the writes.
    pub(crate) fn give_up_direct(&self) {
        let fd = self.file.as_raw_fd();
        // SAFETY: no memory is passed; the descriptor is owned by `self`.
        unsafe {
            let flags = libc::fcntl(fd, libc::F_GETFL);
            libc::fcntl(fd, libc::F_SETFL, flags & !libc::O_DIRECT);
        }
        self.direct.store(false, Ordering::Relaxed);
    }
}

impl Ring {
    /// Writes a copy of `data` at `offset` and makes it durable; `Written` follows with `key`.
    ///
    /// # Panics
    /// If offset or length are not multiples of 4,096, or there is nothing to write: the log writes whole blocks.
    pub fn write_durable(&mut self, file: &DurableFile, offset: u64, data: &[u8], key: u64) {
        let aligned = data.len().is_multiple_of(DIRECT_ALIGNMENT_BYTES)
            && offset.is_multiple_of(DIRECT_ALIGNMENT_BYTES as u64);
        assert!(aligned && !data.is_empty(), "durable writes are whole blocks");
        let block = self.pool.take(data);
        self.push_write(file.clone(), block, offset, 0, key);
    }

    /// Writes the block from byte `written` on.
    pub(crate) fn push_write(
        &mut self,
        file: DurableFile,
        block: Block,
        offset: u64,
        written: usize,
        key: u64,
    ) {
        let direct = file.is_direct();
        let operation = Operation::Write { file, block, offset, written, direct, key };
        self.push_operation(operation, |operation| {
            let Operation::Write { file, block, offset, written, direct, .. } = operation else {
                unreachable!("a write was inserted")
            };
            let length = u32::try_from(block.length() - *written).expect("writes are below 4 GiB");
            let flags = if *direct { libc::RWF_DSYNC } else { 0 };
            opcode::Write::new(types::Fd(file.file.as_raw_fd()), block.address(*written), length)
                .offset(*offset + *written as u64)
                .rw_flags(flags)
                .build()
        });
    }

    pub(crate) fn push_sync(&mut self, file: DurableFile, key: u64) {
        self.push_operation(Operation::Sync { file, key }, |operation| {
            let Operation::Sync { file, .. } = operation else { unreachable!("a sync was inserted") };
            opcode::Fsync::new(types::Fd(file.file.as_raw_fd())).flags(types::FsyncFlags::DATASYNC).build()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::event::Event;
    use std::time::{Duration, Instant};

    /// A file system may take O_DIRECT at open and refuse the writes: all that were under way then are written again.
    #[test]
    fn writes_that_are_refused_together_are_all_written_buffered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seg-00000000.log");
        std::fs::write(&path, [0; 8192]).unwrap();
        let file = DurableFile::open_buffered(&path).unwrap();
        let mut ring = Ring::new(&Config { descriptor_count: 8, ..Config::default() }).unwrap();
        let writes: Vec<Operation> = (0..2_u64)
            .map(|key| {
                let block = ring.pool.take(&[key as u8 + 1; 4096]);
                Operation::Write {
                    file: file.clone(),
                    block,
                    offset: key * 4096,
                    written: 0,
                    direct: true,
                    key,
                }
            })
            .collect();
        file.direct.store(true, Ordering::Relaxed);
        for write in writes {
            assert_eq!(ring.write_completed(write, -libc::EINVAL), None, "it is tried again");
        }
        assert!(!file.is_direct());
        let (mut results, end) = (vec![], Instant::now() + Duration::from_secs(10));
        while results.len() < 2 && Instant::now() < end {
            ring.enter(Some(Duration::from_millis(50))).unwrap();
            while let Some(event) = ring.next_event() {
                let Event::Written { key, result } = event else { panic!("{event:?}") };
                results.push((key, result));
            }
        }
        results.sort_unstable();
        assert_eq!(results, [(0, Ok(())), (1, Ok(()))]);
        assert!(std::fs::read(&path).unwrap() == [[1; 4096], [2; 4096]].concat());
    }

    #[test]
    fn a_buffered_write_that_is_refused_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seg-00000000.log");
        std::fs::write(&path, [0; 4096]).unwrap();
        let file = DurableFile::open_buffered(&path).unwrap();
        let mut ring = Ring::new(&Config { descriptor_count: 8, ..Config::default() }).unwrap();
        let block = ring.pool.take(&[1; 4096]);
        let write = Operation::Write { file, block, offset: 0, written: 0, direct: false, key: 5 };
        let refused = Event::Written { key: 5, result: Err(libc::EINVAL) };
        assert_eq!(ring.write_completed(write, -libc::EINVAL), Some(refused));
    }
}
