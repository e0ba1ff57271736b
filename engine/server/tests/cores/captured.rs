//! Machines as they were captured: the part of `/sys` and `/proc` that `tern cores` reads, file by file and link by link.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Writes a capture below `place`; gives its `/sys`.
pub(crate) fn write(capture: &str, place: &Path) -> PathBuf {
    for line in capture.lines().filter(|line| !line.starts_with('#')) {
        if let Some((link, target)) = line.split_once(" -> ") {
            let link = place.join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(target, link).unwrap();
        } else if let Some((file, content)) = line.split_once(": ") {
            let file = place.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{content}\n")).unwrap();
        } else {
            let directory = line.strip_suffix('/').unwrap_or_else(|| panic!("{line}: not known"));
            fs::create_dir_all(place.join(directory)).unwrap();
        }
    }
    place.join("sys")
}
