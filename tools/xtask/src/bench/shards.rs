//! `bench shards`: what a second shard on a second hardware thread brings.
//!
//! The generator is on the same hardware threads as the server: with one shard both share the first one, with two they
//! share both, and the generator has a thread for each, which is pinned to none. So everything has twice as much to run
//! on, and twice the throughput is the most that could come of it. Half of all pairs have their phones on different
//! shards, so that their messages cross the mesh.
//!
//! How much two hardware threads are at all, `machine` tells: two stubs that share nothing, each with half of the phones
//! and with its own generator, against one. A server of shards that have no cost of their own would reach that.

use super::floor::{Pace, Traffic, cpu_us, ratio, stubs_apart};
use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
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
        "machine": machine(seconds)?,
        "one": one,
        "two": two,
    }))
}

/// What a second hardware thread brings to a server that shares nothing.
fn machine(seconds: u32) -> Result<Value> {
    let stubs =
        |phones, cpus: &[usize]| stubs_apart(Traffic { phones, pace: Pace::Window(1), seconds }, cpus);
    let one = stubs(PHONE_COUNT, &[SERVER_CPU])?;
    let two = stubs(PHONE_COUNT / 2, &[SERVER_CPU, GENERATOR_CPU])?;
    let throughput = |runs: &[Value]| runs.iter().map(|run| run["msgs_per_s"].as_f64()).sum::<Option<f64>>();
    let cpu = |runs: &[Value]| {
        let sum = runs.iter().map(cpu_us).sum::<Option<f64>>()?;
        Some(sum / runs.len() as f64)
    };
    Ok(json!({
        "throughput_ratio": ratio(throughput(&two), throughput(&one)),
        "cpu_ratio": ratio(cpu(&two), cpu(&one)),
    }))
}

fn measure(shards: u16, seconds: u32) -> Result<Value> {
    let data = place()?;
    // Free to run on all hardware threads, a node pins each of its shards to one of its own.
    let cpu = (shards == 1).then_some(SERVER_CPU);
    let node = Node::start(NodePlan::new(&data.path().join("data"), shards, cpu))?;
    let traffic = Traffic { phones: PHONE_COUNT, pace: Pace::Window(1), seconds };
    let options = [traffic.options(), vec!["--threads".into(), shards.to_string()]].concat();
    let result = clean(Load::start(&node, cpu, "pairs", &options)?.finish()?)?;
    node.drain()?;
    Ok(result)
}
