//! The log: one stream of records for each shard and drive.

mod commit;
mod record;
mod recovery;
mod segment;
mod stream;
mod usage;

pub use commit::{Commit, NoRoom};
pub use record::Record;
pub use recovery::{Recovery, RecoveryError, RecoveryReport, Sink};
pub use segment::{FORMAT_VERSION, Head, Position};
pub use stream::{Log, LogConfig, LogEvent, LogStats};
