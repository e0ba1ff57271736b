//! Which hardware thread a child process runs on.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::process::{Child, Command};

/// Starts a command that may only run on `cpu`; `None` lets it run anywhere.
///
/// A child inherits the affinity of the thread that starts it, so this thread goes there for a moment.
pub(crate) fn spawn_on(cpu: Option<usize>, command: &mut Command) -> Result<Child> {
    let words = crate::tree::words(command);
    let Some(cpu) = cpu else { return command.spawn().context(words) };
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this).context("sched_getaffinity")?;
    let mut only = CpuSet::new();
    only.set(cpu).with_context(|| format!("hardware thread {cpu}"))?;
    sched_setaffinity(this, &only).with_context(|| format!("hardware thread {cpu}"))?;
    let child = command.spawn().context(words);
    sched_setaffinity(this, &before).context("sched_setaffinity")?;
    child
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn the_child_is_pinned_and_we_are_not() {
        let before = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let cpu = (0..CpuSet::count()).find(|&cpu| before.is_set(cpu).unwrap()).unwrap();
        let mut command = Command::new("grep");
        command.args(["Cpus_allowed_list", "/proc/self/status"]).stdout(Stdio::piped());
        let output = spawn_on(Some(cpu), &mut command).unwrap().wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.split_whitespace().nth(1), Some(cpu.to_string().as_str()));
        assert_eq!(sched_getaffinity(Pid::from_raw(0)).unwrap(), before);
    }
}
