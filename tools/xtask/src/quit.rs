//! The user's wish to end early: a key on the live screen, or a signal.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often a wait looks whether it should go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whether the user wants to end; all clones are one. By itself it is never asked for.
#[derive(Clone, Default, Debug)]
pub(crate) struct Quit(Arc<AtomicBool>);

/// The user ended it: no failure, and no success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ended before its time, as asked")
    }
}

impl std::error::Error for Interrupted {}

impl Quit {
    /// Asked for by SIGINT, SIGTERM and SIGHUP, which end the process no more.
    pub(crate) fn on_signals() -> Result<Self> {
        let quit = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&quit.0))
                .with_context(|| format!("signal {signal}"))?;
        }
        Ok(quit)
    }

    /// Asks for it.
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked for.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error if it was asked for.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_asked() { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Sleeps, unless the user wants to end.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            self.check()?;
            let left = time.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }

    /// Waits for a value; none when there will be none, or when the time is over.
    pub(crate) fn wait_for<T>(&self, values: &Receiver<T>, longest: Duration) -> Result<Option<T>> {
        let started = Instant::now();
        loop {
            self.check()?;
            let left = longest.saturating_sub(started.elapsed());
            match values.recv_timeout(left.min(LOOK_EVERY)) {
                Ok(value) => return Ok(Some(value)),
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(_) => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, raise};
    use std::sync::mpsc::channel;

    #[test]
    fn waits_end_by_a_value_by_time_and_by_the_user() {
        let quit = Quit::default();
        let (send, receive) = channel();
        send.send(7).unwrap();
        assert_eq!(quit.wait_for(&receive, Duration::MAX).unwrap(), Some(7));
        assert_eq!(quit.wait_for(&receive, Duration::from_millis(1)).unwrap(), None);
        quit.clone().ask();
        assert!(quit.wait_for(&receive, Duration::MAX).unwrap_err().is::<Interrupted>());
        assert!(quit.sleep(Duration::MAX).unwrap_err().is::<Interrupted>());
        let quit = Quit::default();
        drop(send);
        assert_eq!(quit.wait_for(&receive, Duration::MAX).unwrap(), None);
        quit.sleep(Duration::from_millis(1)).unwrap();
    }

    #[test]
    fn a_signal_asks_and_does_not_kill() {
        let quit = Quit::on_signals().unwrap();
        quit.check().unwrap();
        raise(Signal::SIGHUP).unwrap();
        assert!(quit.is_asked());
    }
}
