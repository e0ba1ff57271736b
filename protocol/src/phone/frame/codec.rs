//! The frame header, and a reader over one frame's fields that cannot run over.

use super::super::noise::PLAINTEXT_BYTES_MAX;
use crate::envelope::NAME_BYTES_MAX;
use alloc::vec::Vec;

/// Bytes of a frame's header: u24 length of what follows it, u8 kind.
pub const FRAME_HEADER_BYTES: usize = 4;

/// Bytes of a `Deliver` frame besides its name and body.
pub(super) const DELIVER_FIXED_BYTES: usize = 29;

/// Longest message body that fits a record of its own in both directions.
pub const BODY_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX - DELIVER_FIXED_BYTES - NAME_BYTES_MAX;

/// Why bytes are not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// Cut short, or not the length that its kind has.
    Length,
    /// A kind that this side does not take.
    Kind(u8),
    /// A text that is not UTF-8, or a name that is too long.
    Text,
    /// A code or number outside of its range.
    Value,
}

/// Appends a frame whose fields `fields` writes.
///
/// # Panics
/// If the frame would not fit a record: callers hold [`BODY_BYTES_MAX`].
pub(super) fn append(kind: u8, out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, kind]);
    fields(out);
    let frame_bytes = out.len() - start;
    assert!(frame_bytes <= PLAINTEXT_BYTES_MAX, "a frame of {frame_bytes} bytes does not fit a record");
    let [b0, b1, b2, _] = ((frame_bytes - FRAME_HEADER_BYTES) as u32).to_le_bytes();
    out[start..start + 3].copy_from_slice(&[b0, b1, b2]);
}

/// Takes the first frame of a record's plaintext: its kind, its fields, and what follows.
pub(super) fn split_first(plain: &[u8]) -> Result<(u8, Fields<'_>, &[u8]), FrameError> {
    let (&[b0, b1, b2, kind], after) = plain.split_first_chunk().ok_or(FrameError::Length)?;
    let length_bytes = u32::from_le_bytes([b0, b1, b2, 0]) as usize;
    let (fields, rest) = after.split_at_checked(length_bytes).ok_or(FrameError::Length)?;
    Ok((kind, Fields(fields), rest))
}

/// Bytes of the frame at the head of `plain`, for plaintext that was made here.
pub(crate) fn first_frame_bytes(plain: &[u8]) -> usize {
    FRAME_HEADER_BYTES + u32::from_le_bytes([plain[0], plain[1], plain[2], 0]) as usize
}

/// What is unread of one frame's fields.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(FrameError::Length)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FrameError> {
        self.array().map(u8::from_le_bytes)
    }

    /// A byte that is 0 or 1.
    pub(super) fn flag(&mut self) -> Result<bool, FrameError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FrameError::Value),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16, FrameError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FrameError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A name after its length byte.
    pub(super) fn counted_name(&mut self) -> Result<&'a str, FrameError> {
        let name_bytes = usize::from(self.u8()?);
        let (name, rest) = self.0.split_at_checked(name_bytes).ok_or(FrameError::Length)?;
        self.0 = rest;
        name_of(name)
    }

    /// The rest of the frame as a name.
    pub(super) fn rest_name(self) -> Result<&'a str, FrameError> {
        name_of(self.0)
    }

    /// The rest of the frame as text.
    pub(super) fn rest_text(self) -> Result<&'a str, FrameError> {
        core::str::from_utf8(self.0).map_err(|_| FrameError::Text)
    }

    /// The rest of the frame.
    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Checks that all fields were read.
    pub(super) fn end(self) -> Result<(), FrameError> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::Length) }
    }
}

fn name_of(bytes: &[u8]) -> Result<&str, FrameError> {
    if bytes.len() > NAME_BYTES_MAX {
        return Err(FrameError::Text);
    }
    core::str::from_utf8(bytes).map_err(|_| FrameError::Text)
}
