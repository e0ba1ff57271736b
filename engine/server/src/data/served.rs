//! That a node has served from its directory: from then on each shard has a log, and one without is not begun anew.
//!
//! A copy that was made or brought back without some of the files would otherwise start, with none of the accounts that
//! are at home there, and give their ids to others.

use super::atomic;
use crate::exit::Failure;
use std::io;
use std::path::Path;

const SERVED: &str = "SERVED";
const TEXT: &[u8] = b"Each shard has a log: tern refuses to start without one of them.\n";

/// Remembers it, on stable storage.
///
/// # Errors
/// The kernel's.
pub(super) fn remember(data: &Path) -> io::Result<()> {
    if data.join(SERVED).exists() { Ok(()) } else { atomic::replace(data, SERVED, TEXT) }
}

/// Looks whether each shard of a directory from which a node has served has files of its log.
///
/// # Errors
/// Damaged: one has none. Start-up: the kernel's.
pub(super) fn look(data: &Path, shard_count: u16) -> Result<(), Failure> {
    if !data.join(SERVED).exists() {
        return Ok(());
    }
    for shard in 0..shard_count {
        let place = data.join(format!("shard-{shard:03}"));
        if !has_log(&place).map_err(|error| Failure::start_up(format!("{}: {error}", place.display())))? {
            return Err(Failure::damaged(format!(
                "{} has no log (seg-*.log), and a node has served from it: bring its files back. Without them its accounts \
                 and their mail are gone, and others would get their ids; who wants that removes {}",
                place.display(),
                data.join(SERVED).display()
            )));
        }
    }
    Ok(())
}

/// How many shards have no log yet, of which each begins with a file of it.
pub(crate) fn shards_without_log(data: &Path, shard_count: u16) -> usize {
    let places = (0..shard_count).map(|shard| data.join(format!("shard-{shard:03}")));
    // What cannot be looked at is told elsewhere.
    places.filter(|place| !has_log(place).unwrap_or(true)).count()
}

fn has_log(place: &Path) -> io::Result<bool> {
    match std::fs::read_dir(place) {
        Ok(entries) => {
            for entry in entries {
                let name = entry?.file_name();
                if name.to_str().is_some_and(|name| name.starts_with("seg-") && name.ends_with(".log")) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Ending;
    use std::fs;

    #[test]
    fn a_shard_without_a_log_is_damage_once_the_node_has_served() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path();
        look(data, 2).unwrap();
        for shard in ["shard-000", "shard-001"] {
            fs::create_dir(data.join(shard)).unwrap();
            fs::write(data.join(shard).join("seg-00000000.log"), "").unwrap();
        }
        remember(data).unwrap();
        remember(data).unwrap();
        look(data, 2).unwrap();
        fs::rename(data.join("shard-001/seg-00000000.log"), data.join("shard-001/kept")).unwrap();
        for _ in 0..2 {
            let failure = look(data, 2).unwrap_err();
            assert_eq!(failure.ending, Ending::Damaged);
            assert!(
                failure.text.contains("shard-001 has no log") && failure.text.contains(SERVED),
                "{}",
                failure.text
            );
            let _ = fs::remove_dir_all(data.join("shard-001"));
        }
        fs::remove_file(data.join(SERVED)).unwrap();
        look(data, 2).unwrap();
    }
}
