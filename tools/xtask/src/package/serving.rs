//! The installed server, running in the throw-away root.

use super::root::Root;
use crate::tree::{output_of, works};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tern_admin::{Access, Admin};
use tern_node::Node;

/// Longest wait for an answer.
const WAIT: Duration = Duration::from_secs(30);
/// Phones of the small load.
const PHONES: &str = "8";

/// A running server; killed when dropped.
pub(super) struct Serving<'r> {
    root: &'r Root,
    /// Perhaps strace, which runs it.
    node: Node,
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
        let node = Node::start(&mut command).context("the installed server")?;
        let (phone, admin) = (node.ready().phone.to_string(), node.ready().admin.to_string());
        Ok(Self { root, node, phone, admin, trace })
    }

    /// Whether the admin endpoint says that it serves.
    pub(super) fn is_healthy(&self) -> Result<()> {
        let text = Admin::new(&self.admin, &Access::default())?.within(WAIT).get_text("/healthz")?;
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
    pub(super) fn stop(self) -> Result<Option<String>> {
        let status = self.node.drain()?.status;
        if !status.success() {
            bail!("the server did not drain: {status}");
        }
        let read = |place: &TempDir| std::fs::read_to_string(place.path().join("calls"));
        self.trace.as_ref().map(read).transpose().context("the list of system calls")
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
