//! The preface: eight clear bytes that say, before any cryptography, what follows and which shard should have it.
//!
//! Layout: `TRN`, version, pattern, flags, partition hint (u16, little-endian); with pattern `NNpsk0` the id of a ticket
//! follows. All of it is the Noise prologue, so a changed byte makes the handshake fail.

use super::ticket::TICKET_BYTES;
use crate::ids::PartitionId;

/// Bytes of a preface.
pub const PREFACE_BYTES: usize = 8;
/// The protocol version that this build speaks.
pub const VERSION: u8 = 1;

const MAGIC: [u8; 3] = *b"TRN";
const FLAG_HINT: u8 = 1;

/// The Noise handshake pattern (Noise specification, section 7.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// The client knows the server's static key: one round trip.
    IK,
    /// It does not: it learns the key in message 2 and decides whether to trust it.
    XX,
    /// It has a ticket of an earlier session: the ticket's id follows the preface, its psk authenticates both sides.
    NNpsk0,
}

impl Pattern {
    /// Bytes from the first one of the preface to the first handshake record: the Noise prologue.
    #[must_use]
    pub const fn prologue_bytes(self) -> usize {
        match self {
            Self::IK | Self::XX => PREFACE_BYTES,
            Self::NNpsk0 => PREFACE_BYTES + TICKET_BYTES,
        }
    }
}

/// A checked preface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Preface {
    /// Always [`VERSION`] in a parsed one.
    pub version: u8,
    /// The handshake that follows.
    pub pattern: Pattern,
    /// The partition of the client's account, where the client knows it. Only a hint: login decides.
    pub partition_hint: Option<PartitionId>,
}

/// Why eight bytes are not a preface that this build accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrefaceError {
    /// Not this protocol: close without an answer.
    Magic,
    /// A version that this build does not speak: answer with [`super::server::version_refusal`], then close.
    Version(u8),
    /// A pattern that this build does not know.
    Pattern(u8),
    /// Unknown flags, or a hint without its flag.
    Flags,
}

impl Preface {
    /// Reads a preface.
    ///
    /// # Errors
    /// [`PrefaceError`]; the version is checked before anything that a later version may change.
    pub fn parse(bytes: &[u8; PREFACE_BYTES]) -> Result<Self, PrefaceError> {
        let [m0, m1, m2, version, pattern, flags, hint_low, hint_high] = *bytes;
        if [m0, m1, m2] != MAGIC {
            return Err(PrefaceError::Magic);
        }
        if version != VERSION {
            return Err(PrefaceError::Version(version));
        }
        let pattern = match pattern {
            1 => Pattern::IK,
            2 => Pattern::XX,
            3 => Pattern::NNpsk0,
            other => return Err(PrefaceError::Pattern(other)),
        };
        let hint = u16::from_le_bytes([hint_low, hint_high]);
        let partition_hint = match flags {
            0 if hint == 0 => None,
            FLAG_HINT => Some(PartitionId(hint)),
            _ => return Err(PrefaceError::Flags),
        };
        Ok(Self { version, pattern, partition_hint })
    }

    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> [u8; PREFACE_BYTES] {
        let [m0, m1, m2] = MAGIC;
        let pattern = match self.pattern {
            Pattern::IK => 1,
            Pattern::XX => 2,
            Pattern::NNpsk0 => 3,
        };
        let flags = if self.partition_hint.is_some() { FLAG_HINT } else { 0 };
        let [hint_low, hint_high] = self.partition_hint.map_or(0, |p| p.0).to_le_bytes();
        [m0, m1, m2, self.version, pattern, flags, hint_low, hint_high]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_read(number in 0_usize..3, hint: Option<u16>) {
            let pattern = [Pattern::IK, Pattern::XX, Pattern::NNpsk0][number];
            let preface = Preface { version: VERSION, pattern, partition_hint: hint.map(PartitionId) };
            prop_assert_eq!(Preface::parse(&preface.encode()), Ok(preface));
        }

        #[test]
        fn what_is_read_has_one_form(tail: [u8; 4]) {
            let bytes = [b'T', b'R', b'N', VERSION, tail[0] % 5, tail[1] % 4, tail[2], tail[3]];
            if let Ok(preface) = Preface::parse(&bytes) {
                prop_assert_eq!(preface.encode(), bytes);
            }
        }
    }

    #[test]
    fn refusals_name_their_reason() {
        assert_eq!(Preface::parse(b"GET / HT"), Err(PrefaceError::Magic));
        assert_eq!(Preface::parse(b"TRN\x02????"), Err(PrefaceError::Version(2)));
        assert_eq!(Preface::parse(b"TRN\x01\x04\x00\x00\x00"), Err(PrefaceError::Pattern(4)));
        assert_eq!(Preface::parse(b"TRN\x01\x01\x02\x00\x00"), Err(PrefaceError::Flags));
        assert_eq!(Preface::parse(b"TRN\x01\x01\x00\x01\x00"), Err(PrefaceError::Flags));
    }
}
