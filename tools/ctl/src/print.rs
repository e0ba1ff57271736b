//! Standard output, whose reader may leave.

use anyhow::{Context, Result};
use std::io::{ErrorKind, Write, stdout};

/// Writes a text in one piece. False: its reader has left, as `head` does when it has seen enough; there is nobody to tell
/// more, and nothing went wrong.
///
/// # Errors
/// It cannot be written, for instance to a file on a full drive.
pub(crate) fn print(text: &str) -> Result<bool> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("standard output"),
    }
}
