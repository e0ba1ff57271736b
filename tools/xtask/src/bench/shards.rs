//! `bench shards`: what a second shard brings, with the generator on the same hardware threads in both cases.
//!
//! One shard runs on the first hardware thread, two on the first and the second; the generator may use both. Half of all
//! pairs have their phones on different shards, so that their messages cross the mesh.

use super::floor::{Pace, Traffic, cpu_us, ratio};
use super::{clean, place};
use crate::node::{Load, Node, NodePlan};
use anyhow::Result;
use serde_json::{Value, json};

const PHONE_COUNT: u32 = 1_000;

/// One run with one shard, one with two, each with a fresh server.
pub(super) fn run(seconds: u32) -> Result<Value> {
    let (one, two) = (measure(1, seconds)?, measure(2, seconds)?);
    let throughput = |run: &Value| run["msgs_per_s"].as_f64();
    Ok(json!({
        "throughput_ratio": ratio(throughput(&two), throughput(&one)),
        "cpu_ratio": ratio(cpu_us(&two), cpu_us(&one)),
        "one": one,
        "two": two,
    }))
}

fn measure(shards: u16, seconds: u32) -> Result<Value> {
    let data = place()?;
    // With two hardware threads and no fixed one, each shard is pinned to its own by the node itself.
    let node = Node::start(NodePlan::new(&data.path().join("data"), shards, None))?;
    let traffic = Traffic { phones: PHONE_COUNT, pace: Pace::Window(1), seconds };
    let result = clean(Load::start(&node, None, "pairs", &traffic.options())?.finish()?)?;
    node.drain()?;
    Ok(result)
}
