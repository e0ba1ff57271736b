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

/// What the log leaves out: everything below this. `TERN_LOG` says it more finely.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// As a filter of the log has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[log]` of the file.
#[derive(Clone, Default, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogTable {
    pub(super) format: Option<LogFormat>,
    pub(super) level: Option<LogLevel>,
    pub(super) repeats_per_s: Option<u32>,
}

/// How the node tells what happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogSettings {
    /// The form of a line.
    pub(crate) format: LogFormat,
    /// What is left out.
    pub(crate) level: LogLevel,
    /// Warnings of one place in the program that are written each second; others are counted.
    pub(crate) repeats_per_s: u32,
}

impl LogSettings {
    pub(super) fn of(table: &LogTable) -> Self {
        Self {
            format: table.format.unwrap_or_default(),
            level: table.level.unwrap_or_default(),
            repeats_per_s: table.repeats_per_s.unwrap_or(5),
        }
    }

    pub(super) fn to_table(self) -> LogTable {
        LogTable {
            format: Some(self.format),
            level: Some(self.level),
            repeats_per_s: Some(self.repeats_per_s),
        }
    }
}
