//! How a `tern` process ends: every exit code has one name and one meaning.

use std::process::ExitCode;

/// Why the process ends. The numbers are part of the command-line contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Ending {
    /// 0: drained after SIGTERM or SIGINT (or the command did its work): everything accepted is safe.
    Drained = 0,
    /// 2: the command line or the configuration is wrong; nothing was touched.
    Usage = 2,
    /// 3: the node could not start: kernel feature, limit, port, data directory locked or made otherwise.
    StartUp = 3,
    /// 4: a write to the log failed: nothing after it was acknowledged.
    LogWrite = 4,
    /// 5: the data directory is damaged beyond what recovery may repair by itself.
    Damaged = 5,
    /// 6: a shard panicked: a bug. What was ticked is in the log.
    ShardPanic = 6,
    /// 7: a second SIGTERM or SIGINT cut the drain off. What was ticked is in the log.
    CutOff = 7,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending as u8)
    }
}

/// A reason together with the text for the operator.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) ending: Ending,
    /// What went wrong and what to do, one line.
    pub(crate) text: String,
}

impl Failure {
    /// The command line or configuration is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { ending: Ending::Usage, text: text.into() }
    }

    /// The node cannot start.
    pub(crate) fn start_up(text: impl Into<String>) -> Self {
        Self { ending: Ending::StartUp, text: text.into() }
    }

    /// The data directory is damaged.
    pub(crate) fn damaged(text: impl Into<String>) -> Self {
        Self { ending: Ending::Damaged, text: text.into() }
    }
}
