//! A real `tern serve` as a child process.

use crate::affinity::spawn_on;
use crate::quit::Quit;
use crate::tree::binary;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tern_admin::{Access, Admin};
use tern_node::READY_WAIT;

/// How to start a node.
#[derive(Clone, Debug)]
pub(crate) struct NodePlan {
    /// The program `tern`.
    pub(crate) program: PathBuf,
    /// Data directory.
    pub(crate) data: PathBuf,
    /// Number of shards.
    pub(crate) shards: u16,
    /// The hardware thread of the whole process, for measurements with one shard.
    pub(crate) cpu: Option<usize>,
    /// A configuration file, for limits.
    pub(crate) config: Option<PathBuf>,
    /// A file that what it says is added to, where nobody listens; without one it is shown.
    pub(crate) log: Option<PathBuf>,
    /// Where phones connect; port 0 at first.
    pub(crate) phone: String,
    /// Admin endpoint; port 0 at first.
    pub(crate) admin: String,
}

impl NodePlan {
    /// A node of the release binary on ports that the kernel picks.
    pub(crate) fn new(data: &Path, shards: u16, cpu: Option<usize>) -> Self {
        let any = || "127.0.0.1:0".to_string();
        Self {
            program: binary("tern"),
            data: data.into(),
            shards,
            cpu,
            config: None,
            log: None,
            phone: any(),
            admin: any(),
        }
    }

    /// How it is called.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--data").arg(&self.data);
        command.args(["--phone", &self.phone, "--admin", &self.admin, "--shards", &self.shards.to_string()]);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        if let Some(log) = &self.log {
            let file = OpenOptions::new().create(true).append(true).open(log);
            command.stderr(file.with_context(|| log.display().to_string())?);
        }
        // What a start says is of use only when something goes wrong.
        command.env("TERN_LOG", std::env::var("TERN_LOG").unwrap_or_else(|_| "warn".into()));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        Ok(command)
    }
}

/// A running node; killed when dropped.
pub(crate) struct Node {
    process: tern_node::Node,
    plan: NodePlan,
    /// From the start of the process to its ready line.
    pub(crate) ready_after: Duration,
}

impl Node {
    /// Starts it and waits until it serves. What it says is shown.
    pub(crate) fn start(plan: NodePlan) -> Result<Self> {
        Self::start_unless(plan, &Quit::default(), None)
    }

    /// Likewise, and gives up when the user does. Its standard error goes to `listener`, if there is one.
    pub(crate) fn start_unless(
        mut plan: NodePlan,
        quit: &Quit,
        listener: Option<&dyn Fn(ChildStderr)>,
    ) -> Result<Self> {
        let mut command = plan.command()?;
        if listener.is_some() {
            command.stderr(Stdio::piped());
        }
        let started = Instant::now();
        let mut child = spawn_on(plan.cpu, &mut command)?;
        if let (Some(listen), Some(stderr)) = (listener, child.stderr.take()) {
            listen(stderr);
        }
        let mut process = tern_node::Node::of(child)?;
        process.wait_until_ready(READY_WAIT, || quit.check())?;
        plan.phone = process.ready().phone.to_string();
        plan.admin = process.ready().admin.to_string();
        Ok(Self { process, plan, ready_after: started.elapsed() })
    }

    /// Where phones connect.
    pub(crate) fn phone(&self) -> &str {
        &self.plan.phone
    }

    /// The admin endpoint.
    pub(crate) fn admin(&self) -> &str {
        &self.plan.admin
    }

    /// Ends the process by SIGKILL; gives what starts it again on the same data and ports.
    pub(crate) fn kill(mut self) -> Result<NodePlan> {
        self.process.kill()?;
        Ok(self.plan)
    }

    /// Sends a signal to the process.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end: how it ended, and what starts it again on the same data and ports.
    pub(crate) fn end(mut self) -> Result<(ExitStatus, NodePlan)> {
        Ok((self.process.wait_for_the_end()?.status, self.plan))
    }

    /// Ends the process by SIGTERM; fails when it does not drain.
    pub(crate) fn drain(self) -> Result<()> {
        let status = self.process.drain()?.status;
        if !status.success() {
            bail!("the node did not drain: {status}");
        }
        Ok(())
    }

    /// A client of its admin endpoint.
    pub(crate) fn endpoint(&self) -> Result<Admin> {
        Admin::new(&self.plan.admin, &Access::default())
    }

    /// `GET path` of the admin endpoint.
    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        self.endpoint()?.within(Duration::from_secs(10)).get(path)
    }
}

/// The last line of a child's output, at its end.
fn last_line(out: ChildStdout) -> Receiver<String> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = send.send(BufReader::new(out).lines().map_while(Result::ok).last().unwrap_or_default());
    });
    receive
}

/// A running `tern-load`; killed when dropped. Its progress is shown, its JSON is kept.
pub(crate) struct Load {
    child: Child,
    last_line: Receiver<String>,
}

impl Load {
    /// Starts the generator against a node.
    pub(crate) fn start(node: &Node, cpu: Option<usize>, mode: &str, options: &[String]) -> Result<Self> {
        let mut command = Self::command(node, mode, options);
        eprintln!("xtask: {}", crate::tree::words(&command));
        Self::spawn(cpu, &mut command)
    }

    /// How it is called.
    pub(crate) fn command(node: &Node, mode: &str, options: &[String]) -> Command {
        let mut command = Command::new(binary("tern-load"));
        command.args([mode, "--phone", node.phone(), "--admin", node.admin(), "--json"]).args(options);
        command
    }

    /// Starts it.
    pub(crate) fn spawn(cpu: Option<usize>, command: &mut Command) -> Result<Self> {
        let mut child = spawn_on(cpu, command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let out = child.stdout.take().context("the generator's standard output")?;
        Ok(Self { child, last_line: last_line(out) })
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard error, where that is a pipe.
    pub(crate) fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end; gives its JSON when it ended well or incomplete, which the caller judges.
    pub(crate) fn finish(self) -> Result<(Value, bool)> {
        self.finish_unless(&Quit::default())
    }

    /// Likewise, and gives up when the user does.
    pub(crate) fn finish_unless(mut self, quit: &Quit) -> Result<(Value, bool)> {
        let last = quit.wait_for(&self.last_line, Duration::MAX)?.unwrap_or_default();
        let status = self.child.wait()?;
        let value =
            serde_json::from_str(&last).with_context(|| format!("tern-load ({status}) said {last:?}"))?;
        Ok((value, status.success()))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
