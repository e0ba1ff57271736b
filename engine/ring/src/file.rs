//! Durable writes: O_DIRECT with RWF_DSYNC, or buffered writes and fdatasync where O_DIRECT is refused.

use crate::block::DIRECT_ALIGNMENT_BYTES;
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
        self.push_write(Operation::Write { file: file.clone(), block, offset, written: 0, key });
    }

    pub(crate) fn push_write(&mut self, operation: Operation) {
        self.push_operation(operation, |operation| {
            let Operation::Write { file, block, offset, written, .. } = operation else {
                unreachable!("a write was inserted")
            };
            let length = u32::try_from(block.length() - *written).expect("writes are below 4 GiB");
            let flags = if file.is_direct() { libc::RWF_DSYNC } else { 0 };
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
