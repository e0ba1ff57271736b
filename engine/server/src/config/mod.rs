//! The configuration: built-in values, then the TOML file, then flags.

mod cores;
mod explain;
mod file;
mod limits;
mod settings;

pub(crate) use cores::{CoresSettings, Threads};
pub(crate) use settings::{SHARDS_MAX, Settings};
