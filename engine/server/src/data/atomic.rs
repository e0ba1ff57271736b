//! Files that are there whole or not at all, also after a power cut.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes or replaces `directory/name` (mode 0600) with `bytes`: temporary file, fsync, rename, fsync of the directory.
///
/// # Errors
/// Whatever the kernel says; the old file is then still there.
pub(super) fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!("{name}.tmp"));
    // What a crash left of an earlier try: its mode is not to be trusted.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, directory.join(name))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
}
