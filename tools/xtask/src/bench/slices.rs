//! `bench slices`: what one delivered message costs against the stub, with both at work at the same time.
//!
//! Where others share the machine, the same program costs a fifth more in one run than in the next, and the ratio of two
//! runs says little. Here Tern and the stub run on the same hardware threads side by side, each with its generator, and
//! each is stopped for a fifth of a second while the other goes on: whatever else the machine does falls on both.

use super::floor::{self, Pace, Traffic, cpu_us, ratio};
use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
use crate::node::{Load, Node, NodePlan};
use crate::tree::words;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How many phones.
const PHONE_COUNTS: [u32; 2] = [1_000, 10_000];
/// How long one runs while the other is stopped: long enough for caches to be its own.
const SLICE: Duration = Duration::from_millis(200);
/// What comes before the traffic may take so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// One run for each number of phones, with a fresh server each, and `seconds` of traffic for each of the two sides.
pub(super) fn run(seconds: u32) -> Result<Value> {
    let mut result = Map::new();
    for phones in PHONE_COUNTS {
        result.insert(format!("phones_{phones}"), side_by_side(phones, seconds)?);
    }
    Ok(Value::Object(result))
}

fn side_by_side(phones: u32, seconds: u32) -> Result<Value> {
    let alone = Traffic { phones, pace: Pace::Window(1), seconds: seconds.div_ceil(2) };
    let data = place()?;
    let commits = alone_on(&data.path().join("alone"), alone)?;
    // Each is stopped half of the time, which passes for its generator all the same.
    let together = Traffic { seconds: 2 * seconds, ..alone };
    let node = Node::start(NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)))?;
    let load = Load::start(&node, Some(GENERATOR_CPU), "pairs", &together.options())?;
    wait_for_logins(&node, phones)?;
    let mut tern = Side::Tern(Box::new(node), load);
    tern.signal(Signal::SIGSTOP)?;
    let mut stub = Side::stub(&mut floor::stub_command(data.path(), together, (&commits, alone.seconds))?)?;
    // Its phones are there at once, and the first tenth of the time is not counted.
    sleep(SLICE);
    let mut slice_count = 0;
    while !tern.has_ended()? && !stub.has_ended()? {
        stub.signal(Signal::SIGSTOP)?;
        tern.signal(Signal::SIGCONT)?;
        sleep(SLICE);
        tern.signal(Signal::SIGSTOP)?;
        stub.signal(Signal::SIGCONT)?;
        sleep(SLICE);
        slice_count += 1;
    }
    tern.signal(Signal::SIGCONT)?;
    let (stub, tern) = (stub.finish()?, tern.finish()?);
    let (tern_us, stub_us) = (cpu_us(&tern), cpu_us(&stub));
    Ok(json!({
        "server": tern["server"],
        "stub": { "server": stub["server"] },
        "cpu_ratio_to_stub": ratio(tern_us, stub_us),
        "slices": slice_count,
    }))
}

/// A run of Tern that has the machine to itself: how many commits it makes, and how large they are.
fn alone_on(data: &Path, traffic: Traffic) -> Result<Value> {
    let node = Node::start(NodePlan::new(data, 1, Some(SERVER_CPU)))?;
    let result = clean(Load::start(&node, Some(GENERATOR_CPU), "pairs", &traffic.options())?.finish()?)?;
    node.drain()?;
    Ok(result)
}

fn wait_for_logins(node: &Node, phones: u32) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while node.get("/v1/process")?["logins"].as_u64() != Some(u64::from(phones)) {
        if Instant::now() > end {
            bail!("{phones} phones did not log in within {PATIENCE:?}");
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// One of the two, with its generator.
enum Side {
    Tern(Box<Node>, Load),
    Stub(Stub),
}

/// The stub's generator, which leads a process group with its server; killed when dropped.
struct Stub(Child);

impl Drop for Stub {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = killpg(pid(self.0.id()), Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}

impl Side {
    fn stub(command: &mut Command) -> Result<Self> {
        let child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        Ok(Self::Stub(Stub(child.with_context(|| words(command))?)))
    }

    /// Signals both processes; a generator that has ended is nobody's process any more.
    fn signal(&mut self, signal: Signal) -> Result<()> {
        let has_ended = self.has_ended()?;
        match self {
            Self::Tern(node, load) => {
                node.signal(signal)?;
                if has_ended { Ok(()) } else { kill(pid(load.id()), signal).context("the generator") }
            }
            Self::Stub(_) if has_ended => Ok(()),
            Self::Stub(stub) => killpg(pid(stub.0.id()), signal).context("the stub"),
        }
    }

    fn has_ended(&mut self) -> Result<bool> {
        match self {
            Self::Tern(_, load) => load.has_ended(),
            Self::Stub(stub) => Ok(stub.0.try_wait()?.is_some()),
        }
    }

    /// Its JSON.
    fn finish(self) -> Result<Value> {
        match self {
            Self::Tern(node, load) => {
                let result = clean(load.finish()?)?;
                node.drain()?;
                Ok(result)
            }
            Self::Stub(mut stub) => {
                let mut text = String::new();
                stub.0.stdout.take().context("the stub's standard output")?.read_to_string(&mut text)?;
                let status = stub.0.wait()?;
                let last = text.lines().last().unwrap_or_default();
                if !status.success() {
                    bail!("the stub ({status}) said {last:?}");
                }
                serde_json::from_str(last).with_context(|| format!("the stub said {last:?}"))
            }
        }
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed())
}
