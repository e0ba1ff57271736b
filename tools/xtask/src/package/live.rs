//! The package under a systemd that runs: one of its own, in namespaces of its own, over this system's files, of which it
//! sees a copy that is gone afterwards. Needs root; where that or anything else is not to be had, that is said.

use super::skips::Skips;
use crate::tree::works;
use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// What happens in there, and how it comes about.
const SCRIPTS: [(&str, &str); 4] = [
    ("boot.sh", include_str!("live/boot.sh")),
    ("trial.sh", include_str!("live/trial.sh")),
    ("trial.service", include_str!("live/trial.service")),
    ("trial.target", include_str!("live/trial.target")),
];
/// Where this system has its systemd.
const SYSTEMD: &str = "/lib/systemd/systemd";
/// Seconds after which it is ended.
const LIMIT_S: &str = "180";
/// The exit code of `boot.sh` where the world could not be made.
const NO_WORLD: i32 = 125;
/// What this is the trial of.
const PART: &str = "under a live systemd";
/// Joins the control group, then goes on as what follows.
const JOIN: &str = "echo $$ > \"$1/cgroup.procs\" && shift && exec \"$@\"";

/// Lives through an installation under systemd.
pub(super) fn live(package: &Path, skips: &Skips) -> Result<()> {
    if !geteuid().is_root() {
        skips.forbidden(PART, "it needs root");
        return Ok(());
    }
    if let Some(reason) = missing() {
        skips.for_want(PART, reason);
        return Ok(());
    }
    let started = Instant::now();
    let share = tempfile::tempdir().context("a temporary directory")?;
    for (name, text) in SCRIPTS {
        fs::write(share.path().join(name), text)?;
    }
    fs::copy(package, share.path().join("tern.deb"))?;
    let Some(group) = Group::new() else {
        skips.forbidden(PART, "no control group of version 2 can be made here");
        return Ok(());
    };
    let mut command = Command::new("sh");
    command.args(["-c", JOIN, "join"]).arg(&group.0).args(["timeout", "--kill-after=5", LIMIT_S]);
    command.args([
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--uts",
        "--ipc",
        "--net",
        "--cgroup",
    ]);
    command.arg("sh").arg(share.path().join("boot.sh")).arg(share.path());
    let output = command.output().context("unshare")?;
    let said = fs::read_to_string(share.path().join("said")).unwrap_or_default();
    if output.status.code() == Some(NO_WORLD) && said.is_empty() {
        let why = String::from_utf8_lossy(&output.stderr);
        skips.forbidden(PART, why.lines().last().unwrap_or("no namespaces"));
        return Ok(());
    }
    if said.lines().last() != Some("passed") {
        bail!("under a live systemd ({}): {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    println!(
        "package: under a live systemd: installed, started, drained, killed, its key rotated, guarded, \
         misconfigured, removed in {} s",
        started.elapsed().as_secs()
    );
    Ok(())
}

/// What a trial needs and this system has not.
fn missing() -> Option<String> {
    if !Path::new(SYSTEMD).exists() {
        return Some(format!("{SYSTEMD} is not here"));
    }
    let programs = ["unshare", "pivot_root", "setpriv", "timeout", "ip", "openssl"];
    let absent = programs.iter().find(|name| !works(Command::new("which").arg(name)));
    absent.map(|name| format!("{name} is not here"))
}

/// A control group of its own for the trial's systemd, which makes further ones in it. Removed when dropped.
struct Group(PathBuf);

impl Group {
    /// Below ours. None: there is no version 2 here, or it is not ours to change.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let ours = fs::read_to_string("/proc/self/cgroup").ok()?;
        let at = place(&mounts, &ours)?.join(format!("tern-trial-{}", std::process::id()));
        fs::create_dir(&at).ok()?;
        Some(Self(at))
    }
}

/// Where our control group of version 2 lies.
fn place(mounts: &str, ours: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "))?.split(' ').nth(4)?;
    let group = ours.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(group))
}

impl Drop for Group {
    fn drop(&mut self) {
        // All in it has ended; the kernel may need a moment to see that.
        for _ in 0..50 {
            if remove_all(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        eprintln!("xtask: the control group {} is left", self.0.display());
    }
}

/// Removes a control group and those in it. Its files are the kernel's.
fn remove_all(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_control_group_is_found_in_both_arrangements() {
        let line = |at: &str, kind: &str| format!("31 23 0:27 / {at} rw,relatime - {kind} {kind} rw\n");
        let unified = line("/sys/fs/cgroup", "cgroup2");
        let found = place(&unified, "0::/user.slice/a\n").unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/user.slice/a"));
        let hybrid = line("/sys/fs/cgroup/cpu", "cgroup") + &line("/sys/fs/cgroup/unified", "cgroup2");
        let found = place(&hybrid, "1:cpu:/\n0::/\n").unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(place(&line("/sys/fs/cgroup/cpu", "cgroup"), "1:cpu:/\n"), None);
    }
}
