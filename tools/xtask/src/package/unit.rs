//! The installed systemd unit: what it starts, and whether systemd understands it.

use super::root::Root;
use super::skips::Skips;
use crate::tree::{output_of, works};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most exposure that the unit may have by `systemd-analyze security`, tenths. What is left is what a chat server is
/// for (the network), /proc/irq, and the few calls of @resources that the unit names.
const EXPOSURE_MAX: &str = "12";

/// What the test needs of the unit.
#[derive(Debug)]
pub(super) struct Unit {
    file: PathBuf,
    text: String,
    /// The words of ExecStart.
    pub(super) command: Vec<String>,
}

impl Unit {
    /// Reads a unit file.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = read_to_string(file).with_context(|| file.display().to_string())?;
        let command = command(&text).with_context(|| format!("{}: one plain ExecStart", file.display()))?;
        Ok(Self { file: file.into(), text, command })
    }

    /// Lets systemd look for what it would warn of. Where there is no systemd, that is said.
    pub(super) fn verify(&self, root: &Root, skips: &Skips) -> Result<()> {
        if !works(Command::new("systemd-analyze").arg("--version")) {
            skips.for_want("the unit", "there is no systemd-analyze here (Debian package systemd)");
            return Ok(());
        }
        // The program is looked for where it is installed. The name of the file is the name of the unit.
        let place = tempfile::tempdir().context("a temporary directory")?;
        let copy = place.path().join(self.file.file_name().context("the unit's name")?);
        let program = &self.command[0];
        let installed = root.inside(program).display().to_string();
        std::fs::write(
            &copy,
            self.text.replace(&format!("ExecStart={program}"), &format!("ExecStart={installed}")),
        )?;
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&copy)
            .output()
            .context("systemd-analyze")?;
        let said = String::from_utf8_lossy(&output.stderr);
        // It also tells of other units of this system.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("tern.service")).collect();
        if !ours.is_empty() || !output.status.success() {
            bail!("systemd-analyze verify ({}): {said}", output.status);
        }
        Ok(())
    }

    /// Lets systemd weigh what the unit leaves open; what it would have closed too is shown when that is too much.
    pub(super) fn is_tight(&self, skips: &Skips) -> Result<()> {
        let help = Command::new("systemd-analyze").arg("--help").output();
        if !help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--threshold")) {
            skips.for_want("the unit's exposure", "there is no systemd-analyze 250 or newer here");
            return Ok(());
        }
        let mut weigh = Command::new("systemd-analyze");
        weigh.args(["security", "--no-pager", "--offline=true", "--threshold", EXPOSURE_MAX]).arg(&self.file);
        let output = weigh.output().context("systemd-analyze")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            let open: Vec<&str> = said.lines().filter(|line| !line.starts_with('✓')).collect();
            bail!("systemd-analyze security ({}): {}", output.status, open.join("\n"));
        }
        Ok(())
    }

    /// The system calls that the unit allows, as this machine's systemd understands its groups. None: there is no
    /// systemd here.
    pub(super) fn allowed_calls(&self) -> Result<Option<BTreeSet<String>>> {
        if !works(Command::new("systemd-analyze").arg("--version")) {
            return Ok(None);
        }
        let mut allowed = BTreeSet::new();
        for line in self.text.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
            let (words, forbids) = line.strip_prefix('~').map_or((line, false), |words| (words, true));
            for word in words.split_whitespace() {
                let mut names = BTreeSet::new();
                expand(word, &mut names)?;
                if forbids {
                    allowed.retain(|name| !names.contains(name));
                } else {
                    allowed.extend(names);
                }
            }
        }
        Ok(Some(allowed))
    }
}

/// A group's calls, and those of the groups in it.
fn expand(word: &str, names: &mut BTreeSet<String>) -> Result<()> {
    if !word.starts_with('@') {
        names.insert(word.into());
        return Ok(());
    }
    let list = output_of(Command::new("systemd-analyze").args(["syscall-filter", word]))?;
    let members =
        list.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    members.into_iter().try_for_each(|member| expand(member, names))
}

/// The words of the only ExecStart; none if it has quotes or specifiers, which only systemd understands.
fn command(text: &str) -> Option<Vec<String>> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("ExecStart="));
    let line = lines.next().filter(|line| !line.contains(['"', '\'', '%', '$', '\\']))?;
    let words: Vec<String> = line.split_whitespace().map(String::from).collect();
    let plain = words.first().is_some_and(|program| program.starts_with('/'));
    (plain && lines.next().is_none()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::root;

    #[test]
    fn the_shipped_unit_is_tight() {
        let unit = Unit::read(&root().join("deploy/tern.service")).unwrap();
        unit.is_tight(&Skips::default()).unwrap();
        let allowed = unit.allowed_calls().unwrap();
        let has = |name: &str| allowed.as_ref().is_none_or(|allowed| allowed.contains(name));
        for name in ["io_uring_setup", "io_uring_enter", "set_mempolicy", "sched_setaffinity", "prlimit64"] {
            assert!(has(name), "{name}");
        }
        if let Some(allowed) = &allowed {
            for name in ["sched_setscheduler", "setpriority", "mount", "reboot"] {
                assert!(!allowed.contains(name), "{name}");
            }
        }
        let open = tempfile::tempdir().unwrap();
        let file = open.path().join("open.service");
        std::fs::write(&file, "[Service]\nExecStart=/bin/true\n").unwrap();
        let told = Unit::read(&file).unwrap().is_tight(&Skips::default());
        let can_tell = Command::new("systemd-analyze")
            .arg("--help")
            .output()
            .is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--threshold"));
        assert_eq!(told.is_err(), can_tell, "systemd's eye sees an open unit");
    }

    #[test]
    fn a_plain_command_is_read() {
        let unit = "[Service]\n# ExecStart=no\nExecStart=/usr/bin/tern serve --config /etc/x\n";
        assert_eq!(command(unit).unwrap(), ["/usr/bin/tern", "serve", "--config", "/etc/x"]);
        for unit in ["ExecStart=tern", "ExecStart=/a %n", "ExecStart=/a\nExecStart=/b", ""] {
            assert_eq!(command(unit), None, "{unit}");
        }
    }
}
