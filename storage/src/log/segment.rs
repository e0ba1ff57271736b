//! A segment file's first block: what the file is, and the seed that makes its checksums its own.

use crate::io::{BLOCK_BYTES, SegmentId};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 8] = *b"TERNSEG1";
const END_MAGIC: [u8; 4] = *b"SEG\xff";
/// The same of a file that was given back. Either will do: neither comes of one that rots.
const FREE_MAGIC: [u8; 8] = *b"TERNFREE";
const FREE_END_MAGIC: [u8; 4] = *b"FREE";
/// The format that this build writes. It goes up with every kind of record, and every form of an account, that builds
/// before do not know: these refuse the segment.
pub const FORMAT_VERSION: u32 = 3;
/// The oldest one that this build reads.
const OLDEST_VERSION: u32 = 1;

/// Which of a stream's open segments a record is appended to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Head {
    /// Messages, ticks and floors: much, and soon dead.
    Mail = 1,
    /// Accounts, epochs and remembered ids: little, and long-lived.
    Tables = 2,
}

/// Heads that this build writes.
pub(super) const HEAD_COUNT: usize = 2;

impl Head {
    /// Every head, in the order of [`Head::index`].
    pub(super) const ALL: [Self; HEAD_COUNT] = [Self::Mail, Self::Tables];

    /// Index into arrays that hold one thing for each head.
    pub(super) const fn index(self) -> usize {
        self as usize - 1
    }

    /// Reads the stored value.
    pub(super) const fn from_stored(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Mail),
            2 => Some(Self::Tables),
            _ => None,
        }
    }
}

/// Where a record is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// In which file.
    pub segment: SegmentId,
    /// Bytes from the file's start to the record's header.
    pub offset: u32,
}

/// Up to where a head has come. What is lower was written before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Reach {
    /// Which use of a file, counted over the whole stream.
    pub generation: u64,
    /// Bytes there.
    pub end_bytes: u32,
}

/// The first bytes of a segment file; the rest of its block is zero. They lie in one sector, and so are there whole or not at
/// all, whatever stops their writing.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct SegmentHeader {
    magic: [u8; 8],
    version: U32,
    stream: U16,
    head: u8,
    reserved: u8,
    generation: U64,
    salt: U64,
    segment_bytes: U32,
    /// Over all that is before it.
    crc: U32,
    end_magic: [u8; 4],
    padding: [u8; 4],
}

const HEADER_BYTES: usize = 48;
const CRC_AT: usize = 36;
const _: () = assert!(size_of::<SegmentHeader>() == HEADER_BYTES && align_of::<SegmentHeader>() == 1);

/// What tells the commits of one use of a file from those of another, and from what clients put into bodies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seal {
    /// Which use of a file this is, counted over the whole stream.
    pub(super) generation: u64,
    /// A random number that clients never see.
    pub(super) salt: u64,
    /// What the checksums of this use start from: the checksum of the two above.
    pub(super) seed: u32,
}

impl Seal {
    pub(super) fn new(generation: u64, salt: u64) -> Self {
        let seed = crc32c::crc32c_append(crc32c::crc32c(&generation.to_le_bytes()), &salt.to_le_bytes());
        Self { generation, salt, seed }
    }
}

/// What the first block of a file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FirstBlock {
    /// Zeros: never used, or given back by a build before format 3; or a header that is lost.
    Zeros,
    /// Not in use any more.
    Freed,
    /// In use by this stream format.
    Formatted(Segment),
    /// In use by a format of another version.
    Version(u32),
    /// In use once, but damaged; what can still be read of its generation and salt.
    Rotten {
        /// As it stands there.
        generation: u64,
        /// As it stands there.
        salt: u64,
    },
}

/// A segment as its header describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    /// Of the format.
    pub(super) version: u32,
    pub(super) stream: u16,
    /// As stored: a later build's head may be unknown to this one.
    pub(super) head: u8,
    pub(super) seal: Seal,
    pub(super) segment_bytes: u32,
}

impl Segment {
    /// Appends the header block.
    pub(super) fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        let mut header = SegmentHeader {
            magic: MAGIC,
            version: U32::new(self.version),
            stream: U16::new(self.stream),
            head: self.head,
            reserved: 0,
            generation: U64::new(self.seal.generation),
            salt: U64::new(self.seal.salt),
            segment_bytes: U32::new(self.segment_bytes),
            crc: U32::ZERO,
            end_magic: END_MAGIC,
            padding: [0; 4],
        };
        header.crc = U32::new(crc32c::crc32c(&header.as_bytes()[..CRC_AT]));
        let start = out.len();
        out.extend_from_slice(header.as_bytes());
        out.resize(start + BLOCK_BYTES as usize, 0);
    }
}

/// Appends the header block of a file that is given back.
pub(super) fn encode_freed(out: &mut alloc::vec::Vec<u8>) {
    let start = out.len();
    let header = SegmentHeader {
        magic: FREE_MAGIC,
        version: U32::new(FORMAT_VERSION),
        end_magic: FREE_END_MAGIC,
        ..SegmentHeader::new_zeroed()
    };
    out.extend_from_slice(header.as_bytes());
    out.resize(start + BLOCK_BYTES as usize, 0);
}

/// Reads the first block of a file; fewer bytes than a header are as good as zeros.
pub(super) fn read_first_block(bytes: &[u8]) -> FirstBlock {
    let Ok((header, _)) = SegmentHeader::ref_from_prefix(bytes) else { return FirstBlock::Zeros };
    let raw = header.as_bytes();
    if raw.iter().all(|&byte| byte == 0) {
        return FirstBlock::Zeros;
    }
    if header.magic == FREE_MAGIC || header.end_magic == FREE_END_MAGIC {
        return FirstBlock::Freed;
    }
    let whole = header.magic == MAGIC
        && header.end_magic == END_MAGIC
        && header.crc.get() == crc32c::crc32c(&raw[..CRC_AT]);
    let (generation, salt) = (header.generation.get(), header.salt.get());
    if !whole {
        return FirstBlock::Rotten { generation, salt };
    }
    if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&header.version.get()) {
        return FirstBlock::Version(header.version.get());
    }
    FirstBlock::Formatted(Segment {
        version: header.version.get(),
        stream: header.stream.get(),
        head: header.head,
        seal: Seal::new(generation, salt),
        segment_bytes: header.segment_bytes.get(),
    })
}
