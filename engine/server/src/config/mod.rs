//! The configuration: built-in values, then the TOML file, then flags.

mod admin;
mod cores;
mod explain;
mod file;
mod limits;
mod log;
mod settings;

pub(crate) use admin::{AdminAccess, TlsFiles};
pub(crate) use cores::{CoresSettings, Threads};
pub(crate) use limits::LimitsTable;
pub(crate) use log::{LogFormat, LogLevel, LogSettings};
pub(crate) use settings::Settings;
