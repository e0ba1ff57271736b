//! Files that are there whole or not at all, also after a power cut.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// The directory of a file.
pub(super) fn place_of(file: &Path) -> &Path {
    let place = file.parent().filter(|place| !place.as_os_str().is_empty());
    place.unwrap_or(Path::new("."))
}

/// Makes or replaces `directory/name` (mode 0600) with `bytes`: temporary file, fsync, rename, fsync of the directory.
/// The file belongs to whom the directory belongs: root may do this for a server that runs as a user of its own.
///
/// # Errors
/// Whatever the kernel says; the old file is then still there, and no temporary one.
pub(super) fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.tmp"));
    // What a crash left of an earlier try: its mode is not to be trusted.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let mut write = || {
        give_to_owner_of(directory, &file)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, directory.join(name))
    };
    write().inspect_err(|_| {
        // Of the two errors the first one is of interest; what stays is replaced by the next try.
        let _ = std::fs::remove_file(&temporary);
    })?;
    File::open(directory)?.sync_all()
}

/// Gives a file that was made in `directory` to the directory's owner, where that is somebody else.
///
/// # Errors
/// The kernel's. That only root may give files away is none: whoever else writes here reads its own files again.
pub(super) fn give_to_owner_of(directory: &Path, file: &File) -> io::Result<()> {
    let (owner, now) = (std::fs::metadata(directory)?, file.metadata()?);
    if owner.uid() == now.uid() {
        return Ok(());
    }
    match fchown(file, Some(owner.uid()), Some(owner.gid())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn replaces_and_keeps_the_mode() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.tmp"), "left by a crash").unwrap();
        for text in ["one", "two"] {
            replace(directory.path(), "a", text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(directory.path().join("a")).unwrap(), text);
        }
        let mode = std::fs::metadata(directory.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!directory.path().join("a.tmp").exists());
    }

    #[test]
    fn a_file_belongs_to_whom_the_directory_belongs() {
        let directory = tempfile::tempdir().unwrap();
        // Only root can make the case; as anybody else the file is one's own, as the directory is.
        let _ = chown(directory.path(), Some(7322), Some(7323));
        replace(directory.path(), "a", b"one").unwrap();
        let owner = |path: &Path| {
            let metadata = std::fs::metadata(path).unwrap();
            (metadata.uid(), metadata.gid())
        };
        assert_eq!(owner(&directory.path().join("a")), owner(directory.path()));
    }
}
