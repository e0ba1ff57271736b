//! `[log]` of the file.

use serde::{Deserialize, Serialize};

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// A line of text for people.
    #[default]
    Text,
    /// A JSON object a line, for programs.
    Json,
}

/// `[log]` of the file.
#[derive(Clone, Default, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogTable {
    pub(super) format: Option<LogFormat>,
    pub(super) repeats_per_s: Option<u32>,
}

/// How the node tells what happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogSettings {
    /// The form of a line.
    pub(crate) format: LogFormat,
    /// Warnings of one place in the program that are written each second; others are counted.
    pub(crate) repeats_per_s: u32,
}

impl LogSettings {
    pub(super) fn of(table: &LogTable) -> Self {
        Self { format: table.format.unwrap_or_default(), repeats_per_s: table.repeats_per_s.unwrap_or(5) }
    }

    pub(super) fn to_table(self) -> LogTable {
        LogTable { format: Some(self.format), repeats_per_s: Some(self.repeats_per_s) }
    }
}
