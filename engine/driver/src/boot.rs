//! From a shard's directory to a shard: finds its files, reads them in the order of their generations.

use crate::error::StartError;
use crate::maker::file_name;
use crate::start_progress::StartProgress;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tern_core::shard::ShardRecovery;
use tern_ring::DurableFile;
use tern_storage::io::{BLOCK_BYTES, SegmentId};
use tern_storage::log::Recovery;

/// The directory of a shard.
pub(crate) fn directory(data: &Path, shard: u16) -> PathBuf {
    data.join(format!("shard-{shard:03}"))
}

/// Makes the shards' directories, and checks that there are not more of them than shards: they would be forgotten.
pub(crate) fn prepare(data: &Path, shard_count: u16) -> Result<(), StartError> {
    let wrap = |path: &Path| {
        let path = path.to_owned();
        move |error| StartError::Data(path, error)
    };
    for shard in 0..shard_count {
        let path = directory(data, shard);
        fs::create_dir_all(&path).map_err(wrap(&path))?;
    }
    for entry in fs::read_dir(data).map_err(wrap(data))? {
        let entry = entry.map_err(wrap(data))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("shard-")?.parse::<u32>().ok());
        if number.is_some_and(|number| number >= u32::from(shard_count)) {
            return Err(StartError::MoreShards(entry.path()));
        }
    }
    File::open(data).and_then(|directory| directory.sync_all()).map_err(wrap(data))
}

/// Reads all segments of a shard into `recovery`, some of them twice where it asks for that, and opens them for writing;
/// tells `progress` how far it is.
pub(crate) fn recover(
    directory: &Path,
    recovery: &mut ShardRecovery,
    (progress, shard): (&StartProgress, u16),
) -> Result<HashMap<SegmentId, DurableFile>, StartError> {
    let found = find(directory).map_err(|error| StartError::Data(directory.to_owned(), error))?;
    progress.found(shard, found.len());
    let segment_count = found.len();
    let mut files = HashMap::new();
    for (_, segment) in found {
        let path = directory.join(file_name(segment));
        let data_error = |error| StartError::Data(path.clone(), error);
        let bytes = fs::read(&path).map_err(data_error)?;
        recovery.segment(segment, &bytes).map_err(|error| StartError::Recovery(path.clone(), error))?;
        files.insert(segment, DurableFile::open(&path).map_err(data_error)?);
        progress.read_one(shard);
    }
    let wanted = recovery.wanted();
    progress.found(shard, segment_count + wanted.len());
    for segment in wanted {
        let path = directory.join(file_name(segment));
        let bytes = fs::read(&path).map_err(|error| StartError::Data(path.clone(), error))?;
        recovery.segment_again(segment, &bytes).map_err(|error| StartError::Recovery(path, error))?;
        progress.read_one(shard);
    }
    Ok(files)
}

/// The segments in ascending generation, unformatted ones first. Removes what a crash left unfinished.
fn find(directory: &Path) -> io::Result<Vec<(Option<u64>, SegmentId)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_prefix("seg-")) else { continue };
        if stem.ends_with(".new") {
            fs::remove_file(entry.path())?;
            continue;
        }
        let number = stem.strip_suffix(".log").and_then(|number| u32::from_str_radix(number, 16).ok());
        let Some(number) = number else { continue };
        let mut first_block = Vec::new();
        File::open(entry.path())?.take(u64::from(BLOCK_BYTES)).read_to_end(&mut first_block)?;
        found.push((Recovery::generation(&first_block), SegmentId(number)));
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_strangers_stay() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["seg-0000000a.log", "seg-00000002.log", "seg-00000003.new", "notes.txt"] {
            fs::write(directory.path().join(name), [0; 4096]).unwrap();
        }
        let found = find(directory.path()).unwrap();
        assert_eq!(found, [(None, SegmentId(2)), (None, SegmentId(10))]);
        assert!(!directory.path().join("seg-00000003.new").exists());
        assert!(directory.path().join("notes.txt").exists());
    }

    #[test]
    fn a_shard_too_many_is_refused() {
        let data = tempfile::tempdir().unwrap();
        prepare(data.path(), 3).unwrap();
        prepare(data.path(), 4).unwrap();
        assert!(matches!(prepare(data.path(), 3), Err(StartError::MoreShards(_))));
    }
}
