//! `bench pairs`: what one delivered message costs, and how much of that any server would pay.
//!
//! After each run of Tern the stub (see `bench/`) moves the same records and makes as many commits of the same size on
//! the same hardware threads, and the raw echo sends as many records back: their cost is the floor.

use super::floor::{self, Pace, Traffic, cpu_us, ratio};
use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
use crate::node::{Load, Node, NodePlan};
use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// How many phones.
const PHONE_COUNTS: [u32; 2] = [1_000, 10_000];

/// One run for each number of phones, with a fresh server each.
pub(super) fn run(seconds: u32) -> Result<Value> {
    let mut result = Map::new();
    for phones in PHONE_COUNTS {
        let traffic = Traffic { phones, pace: Pace::Window(1), seconds };
        result.insert(format!("phones_{phones}"), against_the_floor(traffic)?);
    }
    Ok(Value::Object(result))
}

/// Tern, then the stub, then the echo.
pub(super) fn against_the_floor(traffic: Traffic) -> Result<Value> {
    let data = place()?;
    let node = Node::start(NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)))?;
    let mut result = clean(Load::start(&node, Some(GENERATOR_CPU), "pairs", &traffic.options())?.finish()?)?;
    node.drain()?;
    let stub = floor::stub(data.path(), traffic, &result)?;
    let echo = floor::echo(traffic)?;
    let to_stub = ratio(cpu_us(&result), cpu_us(&stub));
    let to_echo = ratio(cpu_us(&result), cpu_us(&echo));
    let p99 = |run: &Value| run["latency_us"]["p99"].as_f64();
    let p99_to_stub = ratio(p99(&result), p99(&stub));
    let fields = result.as_object_mut().context("the generator gives an object")?;
    fields.insert("stub".into(), stub);
    fields.insert("echo".into(), echo);
    fields.insert("cpu_ratio_to_stub".into(), to_stub);
    fields.insert("cpu_ratio_to_echo".into(), to_echo);
    fields.insert("p99_ratio_to_stub".into(), p99_to_stub);
    Ok(result)
}
