//! A segment file as a start reads it: what the drive has, and not what is only in the kernel's cache.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use tern_storage::io::BLOCK_BYTES;
use tern_storage::log::UNREADABLE;

/// What is read in one piece where reading the whole file fails, bytes.
const PIECE_BYTES: usize = 1 << 20;
/// A file that begins with so many unreadable blocks may be on a drive that has failed: to go on would be to forget what it
/// holds. It has a hole, if the drive gives anything of the rest: flash that wears out loses a megabyte and more at a time.
const UNREADABLE_COUNT_MAX: usize = 256;

/// What a start asks of a segment file.
pub(crate) trait SegmentFile {
    /// Makes durable what a process wrote that is no more.
    fn sync(&self) -> io::Result<()>;
    /// Lets the kernel forget what it holds of the file.
    fn forget_cached(&self) -> io::Result<()>;
    fn length(&self) -> io::Result<u64>;
    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
}

impl SegmentFile for File {
    fn sync(&self) -> io::Result<()> {
        unless(self.sync_data(), libc::EINVAL)
    }

    fn forget_cached(&self) -> io::Result<()> {
        unless(tern_ring::forget_cached(self), libc::ESPIPE)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }
}

/// The error of a file of which there is nothing to sync, or to forget, is none.
fn unless(result: io::Result<()>, number: i32) -> io::Result<()> {
    result.or_else(|error| if error.raw_os_error() == Some(number) { Ok(()) } else { Err(error) })
}

/// What was read of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Contents {
    /// All of it; blocks that the drive did not give are filled with [`UNREADABLE`].
    pub(crate) bytes: Vec<u8>,
    /// Offsets of those blocks, ascending.
    pub(crate) unreadable: Vec<u32>,
}

/// Makes all that the file holds durable, so that what is read may be believed. A sync that fails leaves pages that count
/// as written and hold what the drive does not: the next sync says nothing of them, and so they are forgotten.
pub(crate) fn settle(file: &impl SegmentFile) -> io::Result<()> {
    file.sync()?;
    file.forget_cached()
}

/// Reads a file up to `bytes_max`, block by block where the drive does not give all of it; `tell` is called for each block
/// that it does not give, each time.
///
/// # Errors
/// The operating system's; also where the drive gives nothing at all. That of `tell`.
pub(crate) fn read(
    file: &impl SegmentFile,
    bytes_max: u64,
    tell: &dyn Fn() -> io::Result<()>,
) -> io::Result<Contents> {
    let length = file.length()?.min(bytes_max);
    let mut bytes = vec![0; length as usize];
    let unreadable = match file.read_exact_at(&mut bytes, 0) {
        Err(error) if is_unreadable(&error) => read_blocks(file, &mut bytes, tell)?,
        result => result.map(|()| Vec::new())?,
    };
    Ok(Contents { bytes, unreadable })
}

fn read_blocks(
    file: &impl SegmentFile,
    bytes: &mut [u8],
    tell: &dyn Fn() -> io::Result<()>,
) -> io::Result<Vec<u32>> {
    let length = bytes.len() as u64;
    let mut unreadable = Vec::new();
    let mut has_read = false;
    for (piece, at) in bytes.chunks_mut(PIECE_BYTES).zip((0_u64..).step_by(PIECE_BYTES)) {
        if file.read_exact_at(piece, at).is_ok() {
            has_read = true;
            continue;
        }
        for (block, at) in piece.chunks_mut(BLOCK_BYTES as usize).zip((at..).step_by(BLOCK_BYTES as usize)) {
            match file.read_exact_at(block, at) {
                Ok(()) => has_read = true,
                Err(error) if is_unreadable(&error) => {
                    block.fill(UNREADABLE);
                    unreadable.push(at as u32);
                    tell()?;
                    if !has_read && unreadable.len() >= UNREADABLE_COUNT_MAX {
                        has_read = gives_some(file, at + u64::from(BLOCK_BYTES)..length, tell)?;
                        if !has_read {
                            return Err(error);
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(unreadable)
}

/// Whether the drive gives the first block of any piece that begins in this range.
fn gives_some(
    file: &impl SegmentFile,
    range: Range<u64>,
    tell: &dyn Fn() -> io::Result<()>,
) -> io::Result<bool> {
    let mut block = [0; BLOCK_BYTES as usize];
    for at in range.clone().step_by(PIECE_BYTES) {
        let bytes = (range.end - at).min(block.len() as u64) as usize;
        match file.read_exact_at(&mut block[..bytes], at) {
            Ok(()) => return Ok(true),
            Err(error) if is_unreadable(&error) => tell()?,
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// What drives and file systems say of a place that they cannot read, or whose checksum is wrong.
fn is_unreadable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EBADMSG))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    /// A file on a drive that fails at some places.
    pub(crate) struct BadFile {
        pub(crate) file: File,
        /// Bytes that the drive does not give.
        pub(crate) bad: Range<u64>,
        pub(crate) sync_error: Option<i32>,
        /// What it was asked for.
        pub(crate) asked: Rc<RefCell<Vec<&'static str>>>,
    }

    impl BadFile {
        pub(crate) fn new(file: File, bad: Range<u64>) -> Self {
            Self { file, bad, sync_error: None, asked: Rc::default() }
        }
    }

    impl SegmentFile for BadFile {
        fn sync(&self) -> io::Result<()> {
            self.asked.borrow_mut().push("sync");
            self.sync_error.map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)))
        }

        fn forget_cached(&self) -> io::Result<()> {
            self.asked.borrow_mut().push("forget");
            Ok(())
        }

        fn length(&self) -> io::Result<u64> {
            self.file.length()
        }

        fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            self.asked.borrow_mut().push("read");
            if self.bad.start < offset + bytes.len() as u64 && offset < self.bad.end {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            SegmentFile::read_exact_at(&self.file, bytes, offset)
        }
    }

    const BLOCK: u64 = BLOCK_BYTES as u64;

    fn bad_file(length: u64, bad: Range<u64>) -> BadFile {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; length as usize], 0).unwrap();
        BadFile::new(file, bad)
    }

    fn read_with(length: u64, bad: Range<u64>) -> io::Result<Contents> {
        read(&bad_file(length, bad), u64::MAX, &|| Ok(()))
    }

    #[test]
    fn what_the_drive_does_not_give_is_filled_and_named_and_the_rest_read() {
        let length = 3 * (1 << 20) + 5 * BLOCK;
        let whole = read_with(length, 0..0).unwrap();
        assert!(whole.bytes.len() as u64 == length && whole.unreadable.is_empty());
        for first in [0, 1, 256, 770] {
            let bad = first * BLOCK + 100..(first + 2) * BLOCK - 100;
            let contents = read_with(length, bad).unwrap();
            assert_eq!(contents.unreadable, [(first * BLOCK) as u32, ((first + 1) * BLOCK) as u32]);
            for (at, &byte) in (0..).zip(&contents.bytes) {
                let is_bad = (first * BLOCK..(first + 2) * BLOCK).contains(&at);
                assert_eq!(byte, if is_bad { UNREADABLE } else { 7 }, "byte {at}");
            }
        }
    }

    #[test]
    fn a_hole_at_the_beginning_is_a_damaged_place_however_large() {
        let length = 8 * (PIECE_BYTES as u64) + BLOCK;
        // To the end of a piece, into the next one, and all but the last block.
        for bad_count in [256, 257, 600, 8 * 256] {
            let contents = read_with(length, 0..bad_count * BLOCK).unwrap();
            let bad: Vec<u32> = (0..bad_count).map(|block| (block * BLOCK) as u32).collect();
            assert!(contents.unreadable == bad, "{bad_count}: {} blocks", contents.unreadable.len());
            assert!(contents.bytes[(bad_count * BLOCK) as usize..].iter().all(|&byte| byte == 7));
        }
    }

    #[test]
    fn a_drive_that_gives_nothing_is_no_damaged_place_and_is_not_asked_for_all_of_it() {
        let file = bad_file(32 << 20, 0..32 << 20);
        let told_count = Cell::new(0);
        let tell = || {
            told_count.set(told_count.get() + 1);
            Ok(())
        };
        let error = read(&file, u64::MAX, &tell).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        // The blocks of the first piece, and one of each other.
        assert_eq!(told_count.get(), UNREADABLE_COUNT_MAX + 31);
        assert_eq!(file.asked.borrow().len(), 2 + UNREADABLE_COUNT_MAX + 31);
    }
}
