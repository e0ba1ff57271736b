//! Why a node does not start.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use tern_core::io::FatalError;
use tern_core::limits::LimitError;
use tern_core::shard::RecoveryError;
use tern_ring::probe::Missing;
use tern_storage::io::DiskError;

/// Why [`crate::Node::start`] failed. Nothing of the node is left when it is returned but, where a drive does not answer,
/// threads that wait for it; the log names them.
#[derive(Debug)]
pub enum StartError {
    /// Counts that make no node: shards, partitions, segment length.
    Config(&'static str),
    /// More shards than there is room for lanes between them.
    Shards {
        /// What was wanted.
        shard_count: u16,
        /// What fits.
        shards_max: u16,
        /// The largest body, which says how large lanes must be.
        body_bytes: usize,
    },
    /// A limit does not hold.
    Limits(LimitError),
    /// This machine lacks something; each says how to get it.
    Missing(Vec<Missing>),
    /// The phone door's address cannot be bound, or nobody can listen there.
    Bind(SocketAddr, io::Error),
    /// A file or directory of the data directory cannot be used.
    Data(PathBuf, io::Error),
    /// What the log holds cannot be made durable.
    Unsynced(PathBuf, io::Error),
    /// The data directory holds shards beyond the configured number.
    MoreShards(PathBuf),
    /// A log segment is none of this shard's.
    Recovery(PathBuf, RecoveryError),
    /// A shard could not write its first record.
    Fatal(FatalError),
    /// A thread or a ring could not be made.
    System(io::Error),
    /// A shard panicked while it started.
    Panicked(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) => f.write_str(text),
            Self::Shards { shard_count, shards_max, body_bytes } => write!(
                f,
                "shards = {shard_count}, allowed: at most {shards_max} with limits.body_bytes = {body_bytes}, so that \
                 the lanes between them fit 64 MiB"
            ),
            Self::Limits(error) => write!(f, "limits.{} must be {}", error.name, error.allowed),
            Self::Missing(missing) => {
                let lines: Vec<String> = missing.iter().map(ToString::to_string).collect();
                f.write_str(&lines.join("; "))
            }
            Self::Bind(address, error) => write!(f, "phone = {address}: {error}"),
            Self::Data(path, error) if error.raw_os_error() == Some(libc::EMFILE) => {
                write!(f, "{}: {error}: raise ulimit -n, or LimitNOFILE in the systemd unit", path.display())
            }
            Self::Data(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Unsynced(path, error) => write!(
                f,
                "{}: what was written before could not be made durable: {error}. Nothing that was acknowledged is lost; \
                 look after the drive, then start again",
                path.display()
            ),
            Self::MoreShards(path) => {
                write!(f, "{} belongs to a shard beyond the configured number", path.display())
            }
            Self::Recovery(path, error) => write!(f, "{} {}", path.display(), recovery_text(*error)),
            Self::Fatal(error) => f.write_str(&fatal_text(*error)),
            Self::System(error) => write!(f, "a shard could not be set up: {error}"),
            Self::Panicked(text) => write!(f, "a shard panicked while it started: {text}"),
        }
    }
}

impl std::error::Error for StartError {}

/// This process may open fewer files than its logs can have segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FewDescriptors {
    /// So many it may open.
    pub limit: u64,
    /// So many it may come to need.
    pub wanted: u64,
    /// For the logs of so many shards.
    pub shard_count: u16,
    /// Each of so many segments.
    pub segment_count: u32,
}

impl fmt::Display for FewDescriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, wanted, shard_count, segment_count } = self;
        write!(
            f,
            "open files are limited to {limit}, and logs of limits.segment_count = {segment_count} files in each of \
             {shard_count} shards need {wanted}: where none is left for another file of a log, messages are answered busy \
             as on a full drive. Raise it with ulimit -n {wanted}, LimitNOFILE={wanted} in the systemd unit, or lower \
             limits.segment_count"
        )
    }
}

/// What an operator reads of the error that ends a node.
pub(crate) fn fatal_text(error: FatalError) -> String {
    match error {
        FatalError::LogFullAtBoot => "the drive is full, or the log has as many segments as limits.segment_count allows: not even the boot epoch can be \
             written".into(),
        FatalError::LogWrite(DiskError::Full) => {
            "a write to the log failed: no space is left on the drive".into()
        }
        // So it ends writes that no worker thread of its own can be made for.
        FatalError::LogWrite(DiskError::Io(libc::ECANCELED)) => {
            "a write to the log failed: the kernel could not start a thread for it. Raise the limit on threads: TasksMax in \
             the systemd unit, the container's limit on processes, or ulimit -u"
                .into()
        }
        FatalError::LogWrite(DiskError::Io(number)) => {
            format!("a write to the log failed: {}", io::Error::from_raw_os_error(number))
        }
    }
}

fn recovery_text(error: RecoveryError) -> String {
    let other = |why: String| format!("is not a segment of this log: {why}");
    match error {
        RecoveryError::Stream(shard) => other(format!("it belongs to shard {shard}")),
        RecoveryError::Version(version) => {
            other(format!("it has version {version} of the format, which this program does not know"))
        }
        RecoveryError::Head(head) => {
            other(format!("it belongs to head {head}, which this program does not know"))
        }
        RecoveryError::Order => other("its generation is another segment's, too".into()),
        RecoveryError::Length => other("it is longer than 4 GiB".into()),
        RecoveryError::Changed => {
            "changed while it was read: another process writes it, or its drive fails".into()
        }
        RecoveryError::Record(kind, version) => format!(
            "holds records of kind {kind}, version {version}, which this version of tern does not know: start the version \
             that wrote them"
        ),
        RecoveryError::Content(what) => format!(
            "holds {what} in a form that this version of tern does not know: start the version that wrote it"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_reads_has_no_names_of_the_program() {
        let path = PathBuf::from("/data/shard-000/seg-00000007.log");
        let texts = [
            StartError::Recovery(path.clone(), RecoveryError::Stream(3)),
            StartError::Recovery(path.clone(), RecoveryError::Version(9)),
            StartError::Recovery(path, RecoveryError::Record(9, 1)),
            StartError::Fatal(FatalError::LogWrite(DiskError::Io(5))),
            StartError::Fatal(FatalError::LogWrite(DiskError::Full)),
            StartError::Fatal(FatalError::LogFullAtBoot),
            StartError::Fatal(FatalError::LogWrite(DiskError::Io(libc::ECANCELED))),
            StartError::Unsynced(PathBuf::from("/data/x"), io::Error::from_raw_os_error(5)),
        ]
        .map(|error| error.to_string());
        assert!(texts[0].ends_with("seg-00000007.log is not a segment of this log: it belongs to shard 3"));
        assert!(texts[1].contains("version 9"), "{}", texts[1]);
        assert!(
            texts[2].contains("seg-00000007.log holds records of kind 9, version 1, which"),
            "{}",
            texts[2]
        );
        assert!(texts[3].contains("Input/output error"), "{}", texts[2]);
        assert!(texts[6].contains("TasksMax") && texts[6].contains("ulimit -u"), "{}", texts[6]);
        for text in &texts {
            for word in ["Io(", "Full", "LogWrite", "Stream", "Version"] {
                assert!(!text.contains(word), "{text}");
            }
        }
    }
}
