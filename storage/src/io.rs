//! What storage asks of a disk and what it hears back: data, no I/O.

use core::ops::Range;

/// Bytes of a disk block: every commit starts on one and is padded to one; also the alignment for O_DIRECT.
pub const BLOCK_BYTES: u32 = 4096;

/// A segment's file number inside its stream; the file is made once and used again after it was freed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentId(pub u32);

/// Something to do on the stream's drive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskOp {
    /// Make the segment's file with `bytes` zeroed, allocated bytes, and make its existence durable.
    /// Answered by [`DiskDone::Created`].
    Create {
        /// Which file.
        segment: SegmentId,
        /// Its length; a multiple of [`BLOCK_BYTES`].
        bytes: u32,
    },
    /// Write whole blocks and make them durable before answering with [`DiskDone::Written`].
    Write {
        /// Which file.
        segment: SegmentId,
        /// Where; a multiple of [`BLOCK_BYTES`].
        offset: u32,
        /// Which bytes of the arena that this operation was emitted with; a multiple of [`BLOCK_BYTES`] long.
        data: Range<usize>,
    },
}

/// Why an operation on a drive failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskError {
    /// No space left on the drive.
    Full,
    /// Anything else; the operating system's error number.
    Io(i32),
}

/// What became of a [`DiskOp`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskDone {
    /// Of `Create`.
    Created {
        /// Which file.
        segment: SegmentId,
        /// How it went.
        result: Result<(), DiskError>,
    },
    /// Of `Write`: durable, or not.
    Written {
        /// Which file.
        segment: SegmentId,
        /// Where.
        offset: u32,
        /// How it went.
        result: Result<(), DiskError>,
    },
}
