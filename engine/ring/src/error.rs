//! What a caller can do wrong with a slot.

use std::fmt;

/// Why an operation on a slot was not started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SlotError {
    /// No socket is open there, or it is being closed or moved.
    NotOpen,
    /// An operation of the same kind is under way (or, for a move, any operation).
    Busy,
    /// Nothing to send.
    Empty,
}

impl fmt::Display for SlotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOpen => "no open socket in that slot",
            Self::Busy => "an operation of this kind is under way on that slot",
            Self::Empty => "nothing to send",
        })
    }
}

impl std::error::Error for SlotError {}
