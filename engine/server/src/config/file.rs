//! The TOML file as it stands on disk.

use super::admin::{self, AdminTable};
use super::cores::CoresTable;
use super::explain::explain;
use super::limits::LimitsTable;
use super::log::LogTable;
use crate::exit::Failure;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Every key of the file; all are optional, none is ignored.
#[derive(Clone, Default, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    /// Data directories, one for each drive; one for now.
    pub(super) data: Option<Vec<PathBuf>>,
    /// Where phones connect.
    pub(super) phone: Option<SocketAddr>,
    /// Networks of balancers that pass on phones' connections with a PROXY header (version 2).
    pub(super) phone_proxy: Option<Vec<String>>,
    /// Number of shards.
    pub(super) shards: Option<u16>,
    /// Whether phones may register.
    pub(super) open_registration: Option<bool>,
    /// Bytes of a log segment, fixed when the data directory is made.
    pub(super) segment_bytes: Option<u32>,
    /// The core map.
    pub(super) cores: Option<CoresTable>,
    /// Admin endpoint.
    #[serde(default, deserialize_with = "admin::read", skip_serializing_if = "Option::is_none")]
    pub(super) admin: Option<AdminTable>,
    /// How the log is written.
    pub(super) log: Option<LogTable>,
    /// The limits.
    pub(super) limits: Option<LimitsTable>,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, has an unknown key or a value of another type: the text shows the line,
    /// the key, the value and what is allowed.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("config {}: {error}", path.display())))?;
        Self::parse(&text).map_err(|error| Failure::usage(format!("config {}, {error}", path.display())))
    }

    /// Parses the text of a file. The error is a text for people.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| explain(text, &error))
    }
}
