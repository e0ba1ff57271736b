//! The user's word that it is enough: sending ends before its time, and the books are judged as if it had come.

use anyhow::{Context, Result};
use signal_hook::consts::SIGINT;
use signal_hook::flag::{register, register_conditional_shutdown};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of programs that SIGINT ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Whether it was said. By itself nobody says it.
#[derive(Default, Debug)]
pub(crate) struct Enough(Arc<AtomicBool>);

impl Enough {
    /// From now on SIGINT says it, and ends the process only when it was said before.
    pub(crate) fn on_sigint(&self) -> Result<()> {
        // In this order: the first one finds that nothing was said yet.
        register_conditional_shutdown(SIGINT, EXIT_INTERRUPTED, Arc::clone(&self.0)).context("SIGINT")?;
        register(SIGINT, Arc::clone(&self.0)).context("SIGINT")?;
        Ok(())
    }

    /// Whether it was said.
    pub(crate) fn is_said(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
