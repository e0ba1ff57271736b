//! `MANIFEST`: what a data directory is. Written last when a directory is made, so that its presence means that the
//! rest is there.

use super::directory::MadeWith;
use super::secret::random;
use crate::exit::Failure;
use serde::{Deserialize, Serialize};
use tern_protocol::hex::{from_hex, to_hex};

/// The version of the directory's format that this program writes: that of its log's segments.
const FORMAT_VERSION: u32 = 3;
/// The oldest one that it reads. A directory keeps the version that it was made with; new segments in it have the new one.
const OLDEST_VERSION: u32 = 1;
/// Partitions of a new directory.
const PARTITION_COUNT: u16 = 4096;

/// The file's fields.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format_version: u32,
    /// 16 hex digits, random: which node made this directory.
    node_id: String,
    pub(super) partition_count: u16,
    pub(super) shard_count: u16,
    pub(super) segment_bytes: u32,
    /// 32 hex digits: the key of the hashes of message ids in the log. Secret.
    dedup_key: String,
}

/// Read first, alone: another version's other fields are none of our business.
#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

impl Manifest {
    /// A manifest for a new directory.
    pub(super) fn new(shard_count: u16, segment_bytes: u32) -> Result<Self, Failure> {
        Ok(Self {
            format_version: FORMAT_VERSION,
            node_id: to_hex(&random::<8>()?),
            partition_count: PARTITION_COUNT,
            shard_count,
            segment_bytes,
            dedup_key: to_hex(&random::<16>()?),
        })
    }

    /// What a configuration must agree with.
    pub(super) fn made_with(&self) -> MadeWith {
        MadeWith { shard_count: self.shard_count, segment_bytes: self.segment_bytes }
    }

    /// Reads the text of a manifest.
    ///
    /// # Errors
    /// Another format version is a start-up failure; a text that no version of `tern` wrote is damage.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let damaged = |what: &dyn std::fmt::Display| Failure::damaged(format!("MANIFEST is damaged: {what}"));
        let version = toml::from_str::<VersionOnly>(text).map_err(|error| damaged(&error))?.format_version;
        if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&version) {
            return Err(Failure::start_up(format!(
                "MANIFEST: format_version = {version}, this program reads {OLDEST_VERSION} to {FORMAT_VERSION}; use the version of tern \
                 that made the directory"
            )));
        }
        let manifest: Self = toml::from_str(text).map_err(|error| damaged(&error))?;
        let whole = from_hex::<16>(&manifest.dedup_key).is_some()
            && from_hex::<8>(&manifest.node_id).is_some()
            && (1..=manifest.partition_count).contains(&manifest.shard_count);
        if whole { Ok(manifest) } else { Err(damaged(&"a value is out of its range")) }
    }

    /// The text of the file.
    pub(super) fn to_text(&self) -> String {
        let fields = toml::to_string(self).expect("numbers and hex digits are TOML");
        format!("# What this data directory is. Do not edit: tern wrote it and relies on it.\n{fields}")
    }

    /// The key of the hashes of message ids.
    pub(super) fn dedup_key(&self) -> [u8; 16] {
        from_hex(&self.dedup_key).expect("checked when it was parsed or made")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Ending;

    #[test]
    fn there_and_back() {
        let manifest = Manifest::new(3, 1 << 20).unwrap();
        assert_eq!(Manifest::parse(&manifest.to_text()).unwrap(), manifest);
        assert_ne!(Manifest::new(3, 1 << 20).unwrap().dedup_key(), manifest.dedup_key());
    }

    #[test]
    fn a_directory_of_the_versions_before_is_read() {
        for older in ["format_version = 1", "format_version = 2"] {
            let text = Manifest::new(3, 1 << 20).unwrap().to_text();
            assert_eq!(Manifest::parse(&text.replace("format_version = 3", older)).unwrap().shard_count, 3);
        }
    }

    #[test]
    fn another_version_is_not_damage() {
        let failure = Manifest::parse("format_version = 4\nnew_field = 1").unwrap_err();
        assert_eq!(failure.ending, Ending::StartUp);
    }

    #[test]
    fn a_cut_or_changed_manifest_is_damage() {
        let text = Manifest::new(3, 1 << 20).unwrap().to_text();
        for wrong in [&text[..text.len() - 3], "", &text.replace("shard_count = 3", "shard_count = 0")] {
            assert_eq!(Manifest::parse(wrong).unwrap_err().ending, Ending::Damaged, "{wrong}");
        }
    }
}
