//! The image under a container runtime: with the shipped seccomp profile it serves, is drained and comes back; without it
//! says why it does not. Where there is no runtime that works, that is said.

use super::image::{Store, TAG};
use super::skips::Skips;
use crate::tree::{binary, output_of, root as tree, works};
use anyhow::{Context, Result, bail};
use std::fs::read_to_string;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Runtimes that podman may find.
const RUNTIMES: [&str; 2] = ["crun", "runc"];
/// The container.
const NAME: &str = "tern-trial";
/// The image's ports. The network is the container's own, so that they are free.
const PHONE: &str = "127.0.0.1:7322";
const ADMIN: &str = "127.0.0.1:7323";
/// Longest wait until it serves.
const WAIT: Duration = Duration::from_secs(30);

/// Runs the image.
pub(super) fn under_runtime(store: &Store, skips: &Skips) -> Result<()> {
    let runtime = match Runtime::find(store)? {
        Ok(runtime) => runtime,
        Err(why) => {
            skips.forbidden("the image under a runtime", why);
            return Ok(());
        }
    };
    let told = runtime.without_profile()?;
    runtime.output(&[&runtime.run("run", &["--detach", "--name", NAME]), &[TAG.into()][..]].concat())?;
    runtime.until_it_serves()?;
    runtime.is_confined()?;
    runtime.carries_messages()?;
    runtime.stop()?;
    runtime.output(&["start", NAME].map(String::from))?;
    runtime.until_it_serves()?;
    let list = runtime.control(&["account", "list"])?;
    if !list.contains("load-0") {
        bail!("after a restart of the container the accounts are {list:?}");
    }
    runtime.stop()?;
    runtime.output(&["rm", "--volumes", NAME].map(String::from))?;
    println!(
        "package: the image under {}: served, drained, served again; without its profile {told}",
        runtime.name
    );
    Ok(())
}

/// A runtime that starts containers here. The container is removed with it.
struct Runtime<'s> {
    store: &'s Store,
    name: &'static str,
    /// Open files: at most what we have ourselves, which is all that may be given away without being allowed to.
    files: String,
}

impl<'s> Runtime<'s> {
    /// The first that works, or why none does.
    fn find(store: &'s Store) -> Result<Result<Self, String>> {
        let mut why = "there is no container runtime here (Debian packages crun, runc)".to_string();
        for name in RUNTIMES {
            if !works(Command::new(name).arg("--version")) {
                continue;
            }
            let runtime = Self { store, name, files: open_files()? };
            let output = runtime
                .ask(&[&runtime.run("run", &["--rm"]), &[TAG.into(), "--version".into()][..]].concat())?;
            if output.status.success() {
                return Ok(Ok(runtime));
            }
            why = format!("{name} starts no container here: {}", last_words(&output));
        }
        Ok(Err(why))
    }

    /// The words of `podman run`.
    fn run(&self, action: &str, more: &[&str]) -> Vec<String> {
        let profile = format!("seccomp={}", tree().join("deploy/seccomp.json").display());
        let all = ["--security-opt", &profile];
        self.open_run(action, &[more, &all].concat())
    }

    /// Likewise, under the runtime's own profile.
    fn open_run(&self, action: &str, more: &[&str]) -> Vec<String> {
        let files = format!("nofile={0}:{0}", self.files);
        // Its default limits are more than may be had where not everything is allowed, as in a container.
        let all = [
            action,
            "--no-healthcheck",
            "--network",
            "none",
            "--ulimit",
            &files,
            "--ulimit",
            "nproc=4096:4096",
        ];
        [&all, more].concat().into_iter().map(String::from).collect()
    }

    fn podman(&self, words: &[String]) -> Command {
        let mut command = self.store.podman(&["--runtime", self.name]);
        command.args(words);
        command
    }

    fn ask(&self, words: &[String]) -> Result<Output> {
        self.podman(words).output().context("podman")
    }

    fn output(&self, words: &[String]) -> Result<String> {
        output_of(&mut self.podman(words))
    }

    /// The runtime's own profile forbids io_uring nearly everywhere: then the server must say what to do.
    fn without_profile(&self) -> Result<&'static str> {
        let mut words = vec!["--signal=TERM".to_string(), "5".into()];
        let run = self.podman(&[&self.open_run("run", &["--rm"]), &[TAG.into()][..]].concat());
        words.push(run.get_program().to_string_lossy().into());
        let output = Command::new("timeout").args(&words).args(run.get_args()).output().context("timeout")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains(" serving ") {
            return Ok("it serves, too");
        }
        if output.status.code() == Some(3) && said.contains("seccomp=deploy/seccomp.json") {
            return Ok("it names it");
        }
        bail!("without the profile ({}): {said}", output.status)
    }

    /// `tern-ctl` in the container.
    fn control(&self, words: &[&str]) -> Result<String> {
        let all = [&["exec", NAME, "/usr/bin/tern-ctl", "--admin", ADMIN], words].concat();
        self.output(&all.into_iter().map(String::from).collect::<Vec<_>>())
    }

    fn until_it_serves(&self) -> Result<()> {
        let started = Instant::now();
        let words = ["exec", NAME, "/usr/bin/tern-ctl", "--admin", ADMIN, "status"].map(String::from);
        while !self.ask(&words)?.status.success() {
            if started.elapsed() > WAIT {
                let log = self.ask(&["logs", NAME].map(String::from))?;
                bail!("the container does not serve: {}", String::from_utf8_lossy(&log.stderr));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn pid(&self) -> Result<String> {
        Ok(self.output(&["inspect", "--format", "{{.State.Pid}}", NAME].map(String::from))?.trim().into())
    }

    /// The image's user, no capabilities, the filter in force: it did not run by an accident of the settings.
    fn is_confined(&self) -> Result<()> {
        let path = format!("/proc/{}/status", self.pid()?);
        let status = read_to_string(&path).context(path)?;
        for line in ["Uid:\t7322\t", "CapEff:\t0000000000000000", "Seccomp:\t2"] {
            if !status.contains(line) {
                bail!("the container's process has no line {line:?}: {status}");
            }
        }
        Ok(())
    }

    /// Phones log in and talk. The generator is no part of the image: only its network is the container's.
    fn carries_messages(&self) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid()?, "--net"]).arg(binary("tern-load"));
        command.args(["pairs", "--phone", PHONE, "--admin", ADMIN, "--phones", "8", "--rate", "200"]);
        output_of(command.args(["--duration", "1", "--body", "64", "--json"])).map(drop)
    }

    /// SIGTERM drains.
    fn stop(&self) -> Result<()> {
        self.output(&["stop", "--time", "60", NAME].map(String::from))?;
        let code = self.output(&["inspect", "--format", "{{.State.ExitCode}}", NAME].map(String::from))?;
        if code.trim() != "0" {
            bail!("the container did not drain: exit code {code}");
        }
        Ok(())
    }
}

impl Drop for Runtime<'_> {
    fn drop(&mut self) {
        let _ = self.ask(&["rm", "--force", "--volumes", "--ignore", NAME].map(String::from));
    }
}

/// The hard limit on open files of this process.
fn open_files() -> Result<String> {
    let limits = read_to_string("/proc/self/limits").context("/proc/self/limits")?;
    hard_limit(&limits).context("/proc/self/limits has no open files")
}

fn hard_limit(limits: &str) -> Option<String> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1).map(String::from)
}

fn last_words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it says nothing").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hard_limit_is_read() {
        let limits = "Limit      Soft Limit   Hard Limit   Units\nMax open files   1024   20000   files \n";
        assert_eq!(hard_limit(limits).as_deref(), Some("20000"));
        assert_eq!(hard_limit("Max processes 1 2\n"), None);
        assert!(open_files().unwrap().parse::<u64>().unwrap() > 100);
    }
}
