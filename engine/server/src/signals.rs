//! The signals that a node listens to. They are held from the first step of its start: one that comes before somebody
//! listens waits, where it would end the process without a word, or get lost where the process is the first of its container.

use nix::sys::signal::{SigSet, Signal::*};
use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// SIGTERM, SIGINT: drain, or end the start.
    End,
    /// SIGHUP: read the admin endpoint's files again.
    Reload,
}

/// Holds them, for this thread and those that it starts, until [`Signals::new`].
///
/// # Errors
/// The kernel's.
pub(crate) fn hold() -> io::Result<()> {
    Ok(heard().thread_block()?)
}

/// Those that came, in any order.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens. What was held comes now.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn new() -> io::Result<Self> {
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        };
        heard().thread_unblock()?;
        Ok(signals)
    }

    /// The next one's wish.
    pub(crate) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.hang_up.recv() => Wish::Reload,
        }
    }
}

fn heard() -> SigSet {
    SigSet::from_iter([SIGTERM, SIGINT, SIGHUP])
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;

    #[tokio::test(flavor = "current_thread")]
    async fn what_comes_before_somebody_listens_is_heard() {
        hold().unwrap();
        raise(SIGHUP).unwrap();
        let mut signals = Signals::new().unwrap();
        assert_eq!(signals.next().await, Wish::Reload);
        raise(SIGTERM).unwrap();
        assert_eq!(signals.next().await, Wish::End);
    }
}
