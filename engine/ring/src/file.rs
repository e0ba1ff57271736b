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

/// Lets the kernel forget what it holds of a file: what is read next is what the drive has. What waits to be written stays,
/// but pages whose writing has failed do not count as that.
///
/// # Errors
/// The operating system's.
pub fn forget_cached(file: &File) -> io::Result<()> {
    // SAFETY: no memory is passed; the descriptor is borrowed.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Takes room on the drive for a file's first `bytes`, and writes nothing. File systems that cannot do that do nothing.
///
/// # Errors
/// The operating system's: without room there is `ENOSPC` at once.
pub fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let bytes = libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    loop {
        // SAFETY: no memory is passed; the descriptor is borrowed.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(()),
            _ => return Err(error),
        }
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
    use std::io::Write;
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

    /// Whether the first block of a file is in the cache.
    fn is_cached(file: &File) -> io::Result<bool> {
        let mut block = [0_u8; 4096];
        let part = libc::iovec { iov_base: block.as_mut_ptr().cast(), iov_len: block.len() };
        // SAFETY: one part, which is alive and as long as it says.
        let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const part, 1, 0, libc::RWF_NOWAIT) };
        match io::Error::last_os_error() {
            error if read < 0 && error.raw_os_error() != Some(libc::EAGAIN) => Err(error),
            _ => Ok(read == 4096),
        }
    }

    fn is_in_memory_only(file: &File) -> bool {
        // SAFETY: all zeros are a value of it, which the call fills.
        let told = unsafe {
            let mut told: libc::statfs = std::mem::zeroed();
            (libc::fstatfs(file.as_raw_fd(), &raw mut told) == 0).then_some(told)
        };
        told.is_some_and(|told| told.f_type == libc::TMPFS_MAGIC)
    }

    /// A file of two blocks in the cache; an error says why a place has none of which that can be told, and forgotten.
    fn cached_file(place: &Path) -> io::Result<(tempfile::TempDir, File)> {
        let directory = tempfile::tempdir_in(place)?;
        let path = directory.path().join("seg-00000000.log");
        std::fs::write(&path, [1; 8192])?;
        let file = File::open(&path)?;
        file.sync_data()?;
        if is_in_memory_only(&file) {
            return Err(io::Error::other("its files are in memory only"));
        }
        assert!(is_cached(&file)?);
        Ok((directory, file))
    }

    #[test]
    fn what_was_forgotten_is_not_in_the_cache() {
        // On the drive of the working directory: others are often in memory only.
        let place = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (directory, file) = match cached_file(place) {
            Ok(made) => made,
            Err(why) => {
                // Past the test's own output, which nobody sees of a test that passes.
                let _ = writeln!(io::stderr(), "SKIPPED: what_was_forgotten in {}: {why}", place.display());
                return;
            }
        };
        forget_cached(&file).unwrap();
        assert!(!is_cached(&file).unwrap());
        assert!(std::fs::read(directory.path().join("seg-00000000.log")).unwrap() == [1; 8192]);
    }

    #[test]
    fn room_that_is_not_there_is_refused_before_anything_is_written() {
        let file = tempfile::tempfile().unwrap();
        allocate(&file, 8192).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 8192);
        // Larger than a drive, or than a file may be.
        let error = allocate(&file, 1 << 60).unwrap_err().raw_os_error();
        assert!(matches!(error, Some(libc::ENOSPC | libc::EFBIG)), "{error:?}");
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
