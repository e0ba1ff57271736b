//! A node, `tern serve`, as a child process: started and waited for, signalled, ended. No wait is without an end, and
//! what the node said is part of every failure.

mod built;
mod output;

pub use built::built;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use output::Output;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Longest wait for the ready line: recovery of a few gigabytes from a slow drive, and tests on a busy machine.
pub const READY_WAIT: Duration = Duration::from_secs(120);
/// Longest wait for the end of a node that was told to end.
pub const END_WAIT: Duration = Duration::from_secs(120);

/// How often a wait looks around; start-up times are measured with it.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What the ready line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ready {
    /// Where phones connect.
    pub phone: SocketAddr,
    /// The admin endpoint.
    pub admin: SocketAddr,
    /// The server's own process; the child that was started may be one that runs it.
    pub pid: u32,
    /// All of it.
    pub line: String,
}

impl Ready {
    fn parse(line: &str) -> Option<Self> {
        let fields = line.strip_prefix("ready ")?;
        let field = |name: &str| fields.split_whitespace().find_map(|word| word.strip_prefix(name));
        Some(Self {
            phone: field("phone=")?.parse().ok()?,
            admin: field("admin=")?.parse().ok()?,
            pid: field("pid=")?.parse().ok()?,
            line: line.into(),
        })
    }
}

/// What is left of a node that ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it said on standard output after its ready line.
    pub stdout: String,
    /// What it said on standard error, if that was a pipe.
    pub stderr: String,
}

/// A node's process; killed when dropped.
#[derive(Debug)]
pub struct Node {
    child: Child,
    stdout: Output,
    stderr: Option<Output>,
    /// Its first line on standard output, once it is there.
    first_line: Arc<OnceLock<String>>,
    ready: Option<Ready>,
}

impl Node {
    /// Starts the command and waits until it serves. What it says on standard error is kept and shown.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not serve in time: with what it said.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut node = Self::begin(command)?;
        node.wait_until_ready(READY_WAIT, || Ok(()))?;
        Ok(node)
    }

    /// Likewise, but waits for nothing.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn begin(command: &mut Command) -> Result<Self> {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = piped.spawn().with_context(|| format!("{}", command.get_program().display()))?;
        Self::of(child)
    }

    /// A child that was started otherwise. If its standard error is a pipe, what it says there is kept and shown.
    ///
    /// # Errors
    /// Its standard output is no pipe.
    pub fn of(mut child: Child) -> Result<Self> {
        let first_line = Arc::new(OnceLock::new());
        let theirs = Arc::clone(&first_line);
        let all_but_first = move |line: String| theirs.set(line).err();
        let stdout = child.stdout.take().context("the node's standard output is no pipe")?;
        let stdout = Output::read(stdout, all_but_first);
        let shown = |line: String| {
            eprint!("{line}");
            Some(line)
        };
        let stderr = child.stderr.take().map(|pipe| Output::read(pipe, shown));
        Ok(Self { child, stdout, stderr, first_line, ready: None })
    }

    /// Waits until it serves. `go_on` is asked all the time, and its error ends the wait.
    ///
    /// # Errors
    /// It ends, or does not serve in time, and is killed then: with what it said.
    pub fn wait_until_ready(&mut self, longest: Duration, go_on: impl Fn() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + longest;
        loop {
            go_on()?;
            if let Some(line) = self.first_line.get() {
                let Some(ready) = Ready::parse(line) else {
                    return Err(self.failed(&format!("and said {line:?} instead")));
                };
                self.ready = Some(ready);
                return Ok(());
            }
            if self.stdout.is_over() && self.first_line.get().is_none() {
                return Err(self.failed("and said nothing"));
            }
            if Instant::now() >= deadline {
                return Err(self.failed(&format!("within {longest:?}")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What it said when it served.
    ///
    /// # Panics
    /// Nobody waited for that.
    pub fn ready(&self) -> &Ready {
        self.ready.as_ref().expect("a node that was waited for")
    }

    /// The server's own process, as far as it is known.
    pub fn pid(&self) -> u32 {
        self.ready.as_ref().map_or_else(|| self.child.id(), |ready| ready.pid)
    }

    /// Sends a signal to the server's own process.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).context("pid")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to the node"))
    }

    /// Ends it by SIGKILL, if it has not ended by itself.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn kill(&mut self) -> Result<()> {
        self.end_by(Signal::SIGKILL).map(drop)
    }

    /// Ends it by SIGTERM, if it has not ended by itself.
    ///
    /// # Errors
    /// The signal cannot be sent, or the node does not end in time.
    pub fn drain(mut self) -> Result<Ended> {
        self.end_by(Signal::SIGTERM)
    }

    /// The number of a process that was waited for may be another's by now: that one gets no signal.
    fn end_by(&mut self, signal: Signal) -> Result<Ended> {
        if self.child.try_wait().context("the node")?.is_none() {
            self.signal(signal)?;
        }
        self.wait_for_the_end()
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// It does not end in time: with what it said.
    pub fn wait_for_the_end(&mut self) -> Result<Ended> {
        let deadline = Instant::now() + END_WAIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("the node")? {
                break status;
            }
            if Instant::now() >= deadline {
                let said = self.stderr.as_ref().map_or_else(String::new, Output::text);
                bail!("the node does not end within {END_WAIT:?}; it said:\n{said}");
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let stderr = self.stderr.as_ref().map_or_else(String::new, Output::whole);
        Ok(Ended { status, stdout: self.stdout.whole(), stderr })
    }

    /// Ends it: why, and what it said.
    fn failed(&mut self, how: &str) -> anyhow::Error {
        // One that is ending says more when it has.
        let grace = Instant::now() + Duration::from_secs(1);
        while self.stdout.is_over() && matches!(self.child.try_wait(), Ok(None)) && Instant::now() < grace {
            std::thread::sleep(LOOK_EVERY);
        }
        let status = match self.child.try_wait() {
            Ok(Some(status)) => status.to_string(),
            _ => "it was still running".into(),
        };
        let _ = self.child.kill();
        let _ = self.child.wait();
        let said = self.stderr.as_ref().map_or_else(String::new, Output::whole);
        anyhow!("the node did not get ready {how} ({status}); standard error:\n{said}")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // As in `end_by`.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.signal(Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests;
