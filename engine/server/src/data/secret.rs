//! Randomness from the operating system.

use crate::exit::Failure;

/// Random bytes from the operating system.
///
/// # Errors
/// The operating system has none: a start-up failure.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Failure::start_up("the operating system gave no random bytes"))?;
    Ok(bytes)
}
