//! The installed server, running in the throw-away root.

use super::root::Root;
use crate::tree::{output_of, works};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for a start or a drain.
const WAIT: Duration = Duration::from_secs(30);
/// Phones of the small load.
const PHONES: &str = "8";

/// A running server; killed when dropped.
pub(super) struct Serving<'r> {
    root: &'r Root,
    child: Child,
    /// The server's own process; the child may be strace.
    pid: Pid,
    phone: String,
    admin: String,
    /// Where strace writes, if it works here.
    trace: Option<TempDir>,
}

impl<'r> Serving<'r> {
    /// Starts the unit's command, on ports that the kernel picks.
    pub(super) fn start(root: &'r Root, unit_command: &[String]) -> Result<Self> {
        let ports = ["--phone", "127.0.0.1:0", "--admin", "127.0.0.1:0"].map(String::from);
        let inner = root.command(&[unit_command, &ports].concat());
        let trace = can_trace().then(tempfile::tempdir).transpose().context("a temporary directory")?;
        let mut command = match &trace {
            Some(place) => traced(&inner, place.path().join("calls")),
            None => inner,
        };
        let mut child = command.stdout(Stdio::piped()).spawn().context("the server")?;
        let mut line = String::new();
        let read = BufReader::new(child.stdout.take().context("its standard output")?).read_line(&mut line);
        let field =
            |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)).map(String::from);
        let (Some(phone), Some(admin), Some(pid)) = (field("phone="), field("admin="), field("pid=")) else {
            let _ = child.kill();
            bail!("the installed server did not get ready ({}): {line:?} {read:?}", child.wait()?);
        };
        let pid = Pid::from_raw(pid.parse().context("pid")?);
        Ok(Self { root, child, pid, phone, admin, trace })
    }

    /// Whether the admin endpoint says that it serves.
    pub(super) fn is_healthy(&self) -> Result<()> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().proxy(None).timeout_global(Some(WAIT)).build().into();
        let mut response = agent.get(format!("http://{}/healthz", self.admin)).call().context("healthz")?;
        let text = response.body_mut().read_to_string()?;
        if text.trim() == "ok" { Ok(()) } else { bail!("healthz says {text:?}") }
    }

    /// Phones log in and talk, by the installed generator.
    pub(super) fn carries_messages(&self) -> Result<()> {
        let words = [
            "/usr/bin/tern-load",
            "pairs",
            "--phone",
            &self.phone,
            "--admin",
            &self.admin,
            "--phones",
            PHONES,
            "--rate",
            "200",
            "--duration",
            "1",
            "--body",
            "64",
            "--json",
        ];
        output_of(&mut self.root.command(&words.map(String::from))).map(drop)
    }

    /// Whether the accounts of the generator are there, by the installed control tool.
    pub(super) fn has_accounts(&self) -> Result<()> {
        let words = ["/usr/bin/tern-ctl", "--admin", &self.admin, "account", "list"];
        let list = output_of(&mut self.root.command(&words.map(String::from)))?;
        if list.contains("load-0") && list.contains("load-7") {
            return Ok(());
        }
        bail!("after a restart the accounts are {list:?}")
    }

    /// SIGTERM as systemd sends it; the system calls that were made, where they could be watched.
    pub(super) fn stop(mut self) -> Result<Option<String>> {
        kill(self.pid, Signal::SIGTERM).context("SIGTERM")?;
        let deadline = Instant::now() + WAIT;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                bail!("the server did not drain within {} s", WAIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if !status.success() {
            bail!("the server did not drain: {status}");
        }
        let read = |place: &TempDir| std::fs::read_to_string(place.path().join("calls"));
        self.trace.as_ref().map(read).transpose().context("the list of system calls")
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn can_trace() -> bool {
    works(Command::new("strace").args(["-f", "-o", "/dev/null", "true"]))
}

fn traced(inner: &Command, file: PathBuf) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "-e", "signal=none", "-o"])
        .arg(file)
        .arg(inner.get_program())
        .args(inner.get_args());
    command
}
