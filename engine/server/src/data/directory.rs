//! Opening the data directory, or making it.

use super::atomic;
use super::keys::{Keys, SERVER_KEY};
use super::manifest::Manifest;
use super::served;
use crate::exit::Failure;
use nix::unistd::{AccessFlags, eaccess};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tern_protocol::phone::noise::KeyPair;

const LOCK: &str = "LOCK";
/// How often the lock is tried before another process has the directory,
const LOCK_TRIES: u32 = 10;
/// and the pause in between.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
const MANIFEST: &str = "MANIFEST";

/// What the configuration wants of the directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Shards, where file or flags say them.
    pub(crate) shard_count: Option<u16>,
    /// Shards of a new directory where nobody says them.
    pub(crate) shard_count_default: u16,
    /// Bytes of a segment, where the file says them.
    pub(crate) segment_bytes: Option<u32>,
    /// Bytes of a segment in a new directory where nobody says them.
    pub(crate) segment_bytes_default: u32,
}

/// An open data directory. Nobody else can open it while this lives.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    /// Shards that the log is dealt over.
    pub(crate) shard_count: u16,
    /// Partitions that ids and names are dealt over.
    pub(crate) partition_count: u16,
    /// Bytes of a log segment.
    pub(crate) segment_bytes: u32,
    /// Key of the hashes of message ids.
    pub(crate) dedup_key: [u8; 16],
    /// The server's keys and the secret behind tickets.
    pub(crate) keys: Keys,
    /// The kernel lets go of the lock when the process ends, however it ends.
    _lock: File,
}

impl DataDirectory {
    /// Locks the directory and reads what it is; makes it if it is not there or empty.
    ///
    /// # Errors
    /// Start-up: locked by another process, made with other settings, secrets that others can read, no permission.
    /// Damaged: a manifest or key that nobody can have written, or one of them missing.
    pub(crate) fn open(path: &Path, wanted: Wanted) -> Result<Self, Failure> {
        let at = |what: &str, error: &dyn std::fmt::Display| {
            Failure::start_up(format!("data directory {}: {what}: {error}", path.display()))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| at("cannot make it", &error))?;
        let lock = lock(path)?;
        let manifest = match std::fs::read_to_string(path.join(MANIFEST)) {
            Ok(text) => Manifest::parse(&text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => make(path, wanted)?,
            Err(error) => return Err(at(MANIFEST, &error)),
        };
        manifest.made_with().agrees(path, wanted)?;
        served::look(path, manifest.shard_count)?;
        Ok(Self {
            shard_count: manifest.shard_count,
            partition_count: manifest.partition_count,
            segment_bytes: manifest.segment_bytes,
            dedup_key: manifest.dedup_key(),
            keys: Keys::read(path, unix_s())?,
            _lock: lock,
        })
    }

    /// Remembers that a node has served from it: from now on each shard has a log.
    ///
    /// # Errors
    /// The kernel's, for instance a full drive.
    pub(crate) fn has_served(path: &Path) -> std::io::Result<()> {
        served::remember(path)
    }

    /// Gives the server of a directory that is not in use a new key; the present one works `keep_s` longer. One before that
    /// ends, which has to be said if it still works.
    ///
    /// # Errors
    /// In use, not a data directory, or not writable; the key before the present one still works.
    pub(crate) fn rotate_key(path: &Path, keep_s: u64, end_previous: bool) -> Result<KeyPair, Failure> {
        let shown = path.display();
        let refuse = |text| Err(Failure::start_up(text));
        match path.join(MANIFEST).try_exists() {
            Ok(true) => {}
            Ok(false) => return refuse(format!("{shown} is not a data directory (it has no {MANIFEST})")),
            // It may well be one, of somebody else.
            Err(error) => return refuse(format!("data directory {shown}: {MANIFEST}: {error}")),
        }
        let _lock = lock(path)?;
        let now_s = unix_s();
        Keys::rotate(path, now_s, now_s.saturating_add(keep_s), end_previous)
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether the directory was made, whatever became of it since.
pub(crate) fn is_made(path: &Path) -> bool {
    path.join(MANIFEST).exists()
}

/// What a directory keeps for its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MadeWith {
    /// Shards.
    pub(crate) shard_count: u16,
    /// Bytes of a log segment.
    pub(crate) segment_bytes: u32,
}

/// What a directory was made with, without opening it; none where there is no directory that can be read.
pub(crate) fn made_with(path: &Path) -> Option<MadeWith> {
    let text = std::fs::read_to_string(path.join(MANIFEST)).ok()?;
    Some(Manifest::parse(&text).ok()?.made_with())
}

/// Whether another process has the directory.
pub(crate) fn in_use(path: &Path) -> bool {
    let Ok(lock) = File::open(path.join(LOCK)) else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

/// Looks for what would keep this user from opening the directory, and makes or changes nothing. One that is not there
/// yet is fine.
///
/// # Errors
/// As for [`DataDirectory::open`].
pub(crate) fn look(path: &Path) -> Result<(), Failure> {
    let at = |error: &dyn std::fmt::Display| {
        Failure::start_up(format!("data directory {}: {error}", path.display()))
    };
    // The nearest that is there: the rest would be made in it.
    let mut places =
        path.ancestors().map(|place| if place.as_os_str().is_empty() { Path::new(".") } else { place });
    let there = places.find(|place| place.try_exists().unwrap_or(true)).unwrap_or(path);
    if !std::fs::metadata(there).map_err(|error| at(&error))?.is_dir() {
        return Err(at(&format!("{} is not a directory", there.display())));
    }
    let may = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
    eaccess(there, may).map_err(|error| at(&format!("{}: {}", there.display(), error.desc())))?;
    match std::fs::read_to_string(path.join(MANIFEST)) {
        Ok(text) => {
            served::look(path, Manifest::parse(&text)?.shard_count)?;
            Keys::look(path)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && there == path => is_empty(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at(&format!("{MANIFEST}: {error}"))),
    }
}

fn lock(path: &Path) -> Result<File, Failure> {
    lock_between(path, || thread::sleep(LOCK_PAUSE))
}

/// Tries several times, with a pause in between: who only looks whether the directory is in use has it for a moment.
fn lock_between(path: &Path, mut pause: impl FnMut()) -> Result<File, Failure> {
    let file = path.join(LOCK);
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&file)
        .and_then(|lock| atomic::give_to_owner_of(path, &lock).map(|()| lock))
        .map_err(|error| Failure::start_up(format!("{}: {error}", file.display())))?;
    let mut tried = lock.try_lock();
    for _ in 1..LOCK_TRIES {
        if matches!(tried, Err(TryLockError::WouldBlock)) {
            pause();
            tried = lock.try_lock();
        }
    }
    match tried {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Failure::start_up(format!(
            "data directory {} is in use by another process (it holds {LOCK}): stop that one first, or name another \
             directory",
            path.display()
        ))),
        Err(TryLockError::Error(error)) => Err(Failure::start_up(format!("{}: {error}", file.display()))),
    }
}

/// Refuses a directory without a manifest that holds anything that is not ours.
fn is_empty(path: &Path) -> Result<(), Failure> {
    let list = std::fs::read_dir(path)
        .map_err(|error| Failure::start_up(format!("data directory {}: {error}", path.display())))?;
    for entry in list.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // What a crash in the middle of [`make`] leaves; `lost+found` is there when it is a mount point.
        let ours = [LOCK, SERVER_KEY, "lost+found"].contains(&&*name) || name.ends_with(".tmp");
        if !ours {
            return Err(Failure::damaged(format!(
                "data directory {} has no {MANIFEST} but is not empty (it has {name}): wrong directory, or damaged",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Makes the key and then the manifest of a new directory.
fn make(path: &Path, wanted: Wanted) -> Result<Manifest, Failure> {
    is_empty(path)?;
    let write = |name: &str, text: &str| {
        atomic::replace(path, name, text.as_bytes())
            .map_err(|error| Failure::start_up(format!("{}: {error}", path.join(name).display())))
    };
    Keys::make(path)?;
    let shard_count = wanted.shard_count.unwrap_or(wanted.shard_count_default);
    let segment_bytes = wanted.segment_bytes.unwrap_or(wanted.segment_bytes_default);
    let manifest = Manifest::new(shard_count, segment_bytes)?;
    write(MANIFEST, &manifest.to_text())?;
    Ok(manifest)
}

impl MadeWith {
    /// Whether a configuration wants nothing else.
    ///
    /// # Errors
    /// Start-up: names key and both values.
    pub(crate) fn agrees(self, path: &Path, wanted: Wanted) -> Result<(), Failure> {
        let refuse = |key: &str, wanted: u64, made: u64| {
            Err(Failure::start_up(format!(
                "{key} = {wanted}, but data directory {} was made with {made}; changing it is not available yet",
                path.display()
            )))
        };
        if let Some(count) = wanted.shard_count
            && count != self.shard_count
        {
            return refuse("shards", u64::from(count), u64::from(self.shard_count));
        }
        if let Some(bytes) = wanted.segment_bytes
            && bytes != self.segment_bytes
        {
            return refuse("segment_bytes", u64::from(bytes), u64::from(self.segment_bytes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Ending;
    use std::os::unix::fs::PermissionsExt;

    const WANTED: Wanted = Wanted {
        shard_count: None,
        shard_count_default: 2,
        segment_bytes: None,
        segment_bytes_default: 1 << 20,
    };

    #[test]
    fn the_same_keys_after_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("new/deep");
        let first = DataDirectory::open(&path, WANTED).unwrap();
        let (dedup, public) = (first.dedup_key, first.keys.server.public);
        let made = MadeWith { shard_count: 2, segment_bytes: 1 << 20 };
        assert_eq!(made_with(&path), Some(made), "a peek needs no lock");
        assert_eq!(made_with(place.path()), None);
        assert!(in_use(&path) && !in_use(place.path()));
        drop(first);
        assert!(!in_use(&path));
        let second = DataDirectory::open(&path, Wanted { shard_count_default: 9, ..WANTED }).unwrap();
        assert_eq!((second.dedup_key, second.keys.server.public), (dedup, public));
        assert_eq!(second.shard_count, 2, "an existing directory decides");
        for name in [SERVER_KEY, MANIFEST] {
            let mode = std::fs::metadata(path.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn two_nodes_cannot_use_one_directory() {
        let place = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(place.path(), WANTED).unwrap();
        let failure = DataDirectory::open(place.path(), WANTED).unwrap_err();
        assert_eq!(failure.ending, Ending::StartUp);
        assert!(failure.text.contains("in use"), "{}", failure.text);
        drop(first);
        DataDirectory::open(place.path(), WANTED).unwrap();
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_said_to_be_no_data_directory() {
        let place = tempfile::tempdir().unwrap();
        let rotate = |path: &Path| DataDirectory::rotate_key(path, 0, false).unwrap_err().text;
        assert!(rotate(place.path()).contains("is not a data directory"));
        let file = place.path().join("file");
        std::fs::write(&file, "").unwrap();
        let text = rotate(&file);
        assert!(text.contains("Not a directory") && !text.contains("is not a data"), "{text}");
    }

    #[test]
    fn who_only_looks_keeps_no_node_from_starting() {
        let place = tempfile::tempdir().unwrap();
        drop(DataDirectory::open(place.path(), WANTED).unwrap());
        let look = || {
            let lock = File::open(place.path().join(LOCK)).unwrap();
            lock.try_lock_shared().unwrap();
            lock
        };
        let (mut looking, mut pause_count) = (Some(look()), 0);
        let lock = lock_between(place.path(), || {
            pause_count += 1;
            drop(looking.take());
        });
        assert_eq!((lock.is_ok(), pause_count), (true, 1));
        drop(lock);
        let _stays = look();
        let mut pause_count = 0;
        assert!(lock_between(place.path(), || pause_count += 1).is_err());
        assert_eq!(pause_count, LOCK_TRIES - 1, "it does not try for ever");
    }

    #[test]
    fn another_number_of_shards_is_refused_and_changes_nothing() {
        let place = tempfile::tempdir().unwrap();
        drop(DataDirectory::open(place.path(), WANTED).unwrap());
        let failure =
            DataDirectory::open(place.path(), Wanted { shard_count: Some(4), ..WANTED }).unwrap_err();
        assert!(
            failure.text.contains("shards = 4") && failure.text.contains("made with 2"),
            "{}",
            failure.text
        );
        assert_eq!(DataDirectory::open(place.path(), WANTED).unwrap().shard_count, 2);
    }

    #[test]
    fn a_crash_while_it_is_made_is_harmless() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("MANIFEST.tmp"), "half").unwrap();
        std::fs::write(place.path().join("server.key.tmp"), "half").unwrap();
        DataDirectory::open(place.path(), WANTED).unwrap();
    }

    #[test]
    fn damage_is_told_and_not_repaired() {
        let place = tempfile::tempdir().unwrap();
        drop(DataDirectory::open(place.path(), WANTED).unwrap());
        let key = place.path().join(SERVER_KEY);
        let text = std::fs::read(&key).unwrap();
        std::fs::write(&key, "zz").unwrap();
        assert_eq!(DataDirectory::open(place.path(), WANTED).unwrap_err().ending, Ending::Damaged);
        std::fs::remove_file(&key).unwrap();
        assert_eq!(DataDirectory::open(place.path(), WANTED).unwrap_err().ending, Ending::Damaged);
        std::fs::write(&key, text).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let failure = DataDirectory::open(place.path(), WANTED).unwrap_err();
        assert!(failure.text.contains("chmod 600"), "{}", failure.text);
        std::fs::remove_file(place.path().join(MANIFEST)).unwrap();
        std::fs::write(place.path().join("segment"), "").unwrap();
        assert_eq!(DataDirectory::open(place.path(), WANTED).unwrap_err().ending, Ending::Damaged);
    }
}
