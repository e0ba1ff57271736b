//! A throw-away root directory with a dpkg of its own.

use crate::tree::run;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What a program of this system needs to run in the root.
const LIBRARIES: [&str; 4] = ["lib", "lib64", "usr/lib", "usr/lib64"];

/// Mounts are seen by the command alone, and go with it. The package's scripts shall find a systemd that runs, but not
/// the one that may run here: [`SYSTEMCTL`] is in its place.
const OWN_SYSTEMD: &str =
    "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && PATH=$1:$PATH && shift && exec \"$@\"";

/// Notes what it is asked for.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$@\" >> \"$(dirname \"$0\")/asked\"\n";

/// Brings this system's libraries, processes and devices into the root.
const ENTER: &str = "root=$1; shift; for name in $1; do mount --rbind \"/$name\" \"$root/$name\" || exit 125; done; \
                     shift; exec chroot \"$root\" \"$@\"";

/// The directory, removed when this is dropped.
pub(super) struct Root {
    directory: TempDir,
    /// A `systemctl`, and what it was asked for.
    systemd: TempDir,
    /// Directories of this system that a program sees in the root.
    mounts: Vec<&'static str>,
}

impl Root {
    /// An empty one.
    pub(super) fn new() -> Result<Self> {
        let directory = tempfile::tempdir().context("a temporary directory")?;
        let at = directory.path();
        let mut mounts = vec!["proc", "sys", "dev"];
        for name in LIBRARIES {
            let here = Path::new("/").join(name);
            if here.is_symlink() {
                symlink(fs::read_link(&here)?, at.join(name))?;
            } else if here.is_dir() {
                mounts.push(name);
            }
        }
        let dpkg = ["info", "updates", "triggers"].map(|name| format!("var/lib/dpkg/{name}"));
        let plain = ["tmp", "var/log", "run"].map(String::from);
        let mounted = mounts.iter().map(|name| (*name).to_string());
        for name in mounted.chain(dpkg).chain(plain) {
            fs::create_dir_all(at.join(name))?;
        }
        for name in ["status", "available"] {
            fs::write(at.join("var/lib/dpkg").join(name), "")?;
        }
        let systemd = tempfile::tempdir().context("a temporary directory")?;
        let systemctl = systemd.path().join("systemctl");
        fs::write(&systemctl, SYSTEMCTL)?;
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755))?;
        Ok(Self { directory, systemd, mounts })
    }

    /// A directory that has all that its programs need.
    pub(super) fn of(directory: TempDir) -> Result<Self> {
        for name in ["proc", "sys", "dev"] {
            fs::create_dir_all(directory.path().join(name))?;
        }
        let systemd = tempfile::tempdir().context("a temporary directory")?;
        Ok(Self { directory, systemd, mounts: vec!["proc", "sys", "dev"] })
    }

    /// A path of the root as it is called from outside.
    pub(super) fn inside(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    /// Runs dpkg on the root. What the package depends on is not in it, so that is not asked for. Gives what the
    /// package's scripts asked systemd for.
    pub(super) fn dpkg(&self, args: &[&str]) -> Result<Vec<String>> {
        let asked = self.systemd.path().join("asked");
        fs::write(&asked, "")?;
        let mut command = as_root(OWN_SYSTEMD);
        command.arg(self.systemd.path()).arg("dpkg").arg("--root").arg(self.directory.path());
        command.args(["--force-depends", "--force-script-chrootless"]).args(args);
        run(&mut command)?;
        Ok(fs::read_to_string(&asked)?.lines().map(String::from).collect())
    }

    /// A command that runs in the root, as its root user. The process is the program itself.
    pub(super) fn command(&self, words: &[String]) -> Command {
        let mut command = as_root(ENTER);
        command.arg(self.directory.path()).arg(self.mounts.join(" ")).args(words);
        command
    }

    /// Every file in the root, as it is called inside, but for dpkg's own.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let mut files = Vec::new();
        let mut directories = vec![self.directory.path().to_path_buf()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
                let path = entry?.path();
                let name = format!("/{}", path.strip_prefix(self.directory.path())?.display());
                if name.starts_with("/var/lib/dpkg/") || name == "/var/log/dpkg.log" {
                    continue;
                }
                if path.is_dir() && !path.is_symlink() {
                    directories.push(path);
                } else {
                    files.push(name);
                }
            }
        }
        files.sort_unstable();
        Ok(files)
    }
}

/// `sh -c script` as the root of a user namespace, with mounts of its own.
fn as_root(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command
}
