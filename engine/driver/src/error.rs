//! Why a node does not start.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use tern_core::io::FatalError;
use tern_core::limits::LimitError;
use tern_core::shard::RecoveryError;
use tern_ring::probe::Missing;

/// Why [`crate::Node::start`] failed. Nothing of the node is left when it is returned.
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
    /// The phone door's address cannot be bound.
    Bind(SocketAddr, io::Error),
    /// A file or directory of the data directory cannot be used.
    Data(PathBuf, io::Error),
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
            Self::Data(path, error) => write!(f, "{}: {error}", path.display()),
            Self::MoreShards(path) => {
                write!(f, "{} belongs to a shard beyond the configured number", path.display())
            }
            Self::Recovery(path, error) => {
                write!(f, "{} is not a segment of this log: {error:?}", path.display())
            }
            Self::Fatal(FatalError::LogFullAtBoot) => {
                f.write_str("the drive is full: no boot epoch can be written")
            }
            Self::Fatal(FatalError::LogWrite(error)) => write!(f, "the log cannot be written: {error:?}"),
            Self::System(error) => write!(f, "a shard could not be set up: {error}"),
            Self::Panicked(text) => write!(f, "a shard panicked while it started: {text}"),
        }
    }
}

impl std::error::Error for StartError {}
