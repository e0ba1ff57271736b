//! The configuration: built-in values, then the TOML file, then flags.

mod file;
mod limits;
mod settings;

pub(crate) use settings::Settings;
