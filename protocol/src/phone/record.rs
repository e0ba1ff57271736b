//! Records: the byte stream after the preface, cut into pieces of at most 65,535 bytes.
//!
//! Layout: kind (u8), payload bytes (u16, little-endian), payload. The kind and the length are clear; a forged length
//! makes the payload's tag fail.

use super::frame::FRAME_HEADER_BYTES;
use alloc::vec::Vec;

/// Bytes before a record's payload.
pub const HEADER_BYTES: usize = 3;
/// Bytes of the AES-GCM tag at the end of an encrypted payload.
pub const TAG_BYTES: usize = 16;
/// Longest payload of a handshake record. The longest one of version 1 has 162 bytes; what is above this is refused
/// as soon as the header is seen, so that with [`split_handshake`] a stranger cannot make the server hold 64 KiB.
pub const HANDSHAKE_BYTES_MAX: usize = 512;

const VERSION_PAYLOAD_BYTES: usize = 2;
const BUSY_PAYLOAD_BYTES: usize = 4;

/// What a record carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// Clear, from the server: it does not speak the preface's version. Payload: lowest and highest version, u8 each.
    Version = 0,
    /// One Noise handshake message.
    Handshake = 1,
    /// One Noise transport message: whole frames, encrypted.
    Transport = 2,
    /// Clear, from the server, before any handshake: come back in so many milliseconds (u32).
    Busy = 3,
    /// Clear, from the server, before any handshake: the ticket is used up, too old, or not of this server. Empty.
    /// The server closes; the client logs in with its key.
    TicketRefused = 4,
}

/// Why a buffer's head cannot become a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordError {
    /// An unknown kind.
    Kind(u8),
    /// A length that this kind never has.
    Length,
}

/// Looks at the head of a buffer: `None` while it is incomplete, else the kind and the record's bytes with its header.
///
/// # Errors
/// [`RecordError`] as early as the bytes allow it: a stream that fails never recovers.
pub fn split(buffer: &[u8]) -> Result<Option<(RecordKind, usize)>, RecordError> {
    let Some(&kind) = buffer.first() else { return Ok(None) };
    let kind = match kind {
        0 => RecordKind::Version,
        1 => RecordKind::Handshake,
        2 => RecordKind::Transport,
        3 => RecordKind::Busy,
        4 => RecordKind::TicketRefused,
        other => return Err(RecordError::Kind(other)),
    };
    let Some(&[low, high]) = buffer.get(1..HEADER_BYTES).and_then(<[u8]>::first_chunk) else {
        return Ok(None);
    };
    let payload_bytes = usize::from(u16::from_le_bytes([low, high]));
    let allowed = match kind {
        RecordKind::Version => payload_bytes == VERSION_PAYLOAD_BYTES,
        RecordKind::Handshake => (1..=HANDSHAKE_BYTES_MAX).contains(&payload_bytes),
        RecordKind::Transport => payload_bytes >= TAG_BYTES + FRAME_HEADER_BYTES,
        RecordKind::Busy => payload_bytes == BUSY_PAYLOAD_BYTES,
        RecordKind::TicketRefused => payload_bytes == 0,
    };
    if !allowed {
        return Err(RecordError::Length);
    }
    let total_bytes = HEADER_BYTES + payload_bytes;
    Ok((buffer.len() >= total_bytes).then_some((kind, total_bytes)))
}

/// Likewise of a client that has no keys yet, which may say handshake records only: the record's bytes with its header.
/// Another kind is an error at its first byte, whatever its length: nobody waits for the rest of it.
///
/// # Errors
/// As [`split`]; [`RecordError::Kind`] also of the kinds that are known.
pub fn split_handshake(buffer: &[u8]) -> Result<Option<usize>, RecordError> {
    match buffer.first() {
        Some(&kind) if kind != RecordKind::Handshake as u8 => Err(RecordError::Kind(kind)),
        _ => Ok(split(buffer)?.map(|(_, total_bytes)| total_bytes)),
    }
}

/// Appends a clear record.
///
/// # Panics
/// If the payload does not fit 16 bits: all that are written this way are short.
pub(crate) fn append(kind: RecordKind, payload: &[u8], out: &mut Vec<u8>) {
    out.push(kind as u8);
    let payload_bytes = u16::try_from(payload.len()).expect("a clear record is short");
    out.extend_from_slice(&payload_bytes.to_le_bytes());
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    #[test]
    fn each_kind_has_its_lengths() {
        assert_eq!(split(&[5]), Err(RecordError::Kind(5)));
        assert_eq!(split(&[4, 0, 0]), Ok(Some((RecordKind::TicketRefused, 3))));
        assert_eq!(split(&[4, 1, 0]), Err(RecordError::Length));
        assert_eq!(split(&[2, 19, 0]), Err(RecordError::Length));
        assert_eq!(split(&[2, 20, 0]), Ok(None));
        assert_eq!(split(&[1, 0, 0]), Err(RecordError::Length));
        assert_eq!(split(&[1, 1, 2]), Err(RecordError::Length));
        assert_eq!(split(&[1, 0, 2]), Ok(None));
        assert_eq!(split(&[0, 2, 0, 1, 1]), Ok(Some((RecordKind::Version, 5))));
        assert_eq!(split(&[3, 4, 0, 1, 1]), Ok(None));
        assert_eq!(split(&[3, 5, 0]), Err(RecordError::Length));
    }

    #[test]
    fn without_keys_another_kind_is_refused_at_its_first_byte() {
        assert_eq!(split_handshake(&[]), Ok(None));
        assert_eq!(split_handshake(&[1]), Ok(None));
        assert_eq!(split_handshake(&[1, 2, 0, 7]), Ok(None));
        assert_eq!(split_handshake(&[1, 2, 0, 7, 7, 7]), Ok(Some(5)));
        assert_eq!(split_handshake(&[1, 1, 2]), Err(RecordError::Length));
        for kind in [0, 2, 3, 4, 5, 0xff] {
            assert_eq!(split_handshake(&[kind]), Err(RecordError::Kind(kind)));
            assert_eq!(split_handshake(&[kind, 0xff, 0xff]), Err(RecordError::Kind(kind)));
        }
    }

    proptest! {
        #[test]
        fn a_record_is_whole_at_its_last_byte_and_not_before(payload_bytes in 20_usize..2000, more: u8) {
            let mut bytes = vec![];
            append(RecordKind::Transport, &vec![7; payload_bytes], &mut bytes);
            for cut in 0..bytes.len() {
                prop_assert_eq!(split(&bytes[..cut]), Ok(None));
            }
            let total = bytes.len();
            bytes.push(more);
            prop_assert_eq!(split(&bytes), Ok(Some((RecordKind::Transport, total))));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = split(&bytes);
        }
    }
}
