//! `bench pairs`: what one delivered message costs, and how much of that any server would pay.
//!
//! After each run of Tern the stub (see `bench/`) moves the same records and makes as many commits of the same size on
//! the same hardware threads: its cost is the floor.

use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
use crate::node::{Load, Node, NodePlan};
use crate::tree::{binary, output_of};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// One run of Tern with a fresh server, then one of the stub.
pub(super) fn run(seconds: u32) -> Result<Value> {
    let data = place()?;
    let node = Node::start(NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)))?;
    let options = ["--phones", "1000", "--window", "1", "--body", "128", "--duration"].map(String::from);
    let options = [&options[..], &[seconds.to_string()]].concat();
    let mut result = clean(Load::start(&node, Some(GENERATOR_CPU), "pairs", &options)?.finish()?)?;
    node.drain()?;
    let stub = stub(data.path(), seconds, &result)?;
    let ratio = cpu_us(&result).zip(cpu_us(&stub)).map(|(tern, floor)| tern / floor);
    let fields = result.as_object_mut().context("the generator gives an object")?;
    fields.insert("stub".into(), stub);
    fields.insert("cpu_ratio_to_stub".into(), json!(ratio));
    Ok(result)
}

/// The floor for the run that gave `tern`.
fn stub(data: &Path, seconds: u32, tern: &Value) -> Result<Value> {
    let field = |name: &str| tern["server"][name].as_u64().with_context(|| format!("server.{name}"));
    let (commits, bytes) = (field("log_commits")?, field("log_bytes_written")?);
    let mut command = Command::new(binary("stub"));
    command.args(["--phones", "1000", "--window", "1", "--body", "128", "--duration", &seconds.to_string()]);
    command.args(["--server-core", &SERVER_CPU.to_string(), "--client-core", &GENERATOR_CPU.to_string()]);
    if commits > 0 {
        let rate = commits.div_ceil(u64::from(seconds)).to_string();
        command.args(["--commits-per-s", &rate, "--commit-bytes", &(bytes / commits).to_string()]);
        command.arg("--data").arg(data);
    }
    let text = output_of(&mut command)?;
    serde_json::from_str(text.lines().last().unwrap_or_default()).context("the stub's JSON")
}

/// The server's CPU time for a message, user and system, microseconds.
fn cpu_us(run: &Value) -> Option<f64> {
    let field = |name: &str| run["server"][name].as_f64();
    Some(field("cpu_user_us_per_msg")? + field("cpu_system_us_per_msg")?)
}
