//! `bench pairs`: what one delivered message costs.

use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
use crate::node::{Load, Node, NodePlan};
use anyhow::Result;
use serde_json::Value;

/// One run with a fresh server.
pub(super) fn run(seconds: u32) -> Result<Value> {
    let data = place()?;
    let node = Node::start(NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)))?;
    let options = ["--phones", "1000", "--window", "1", "--body", "128", "--duration"].map(String::from);
    let options = [&options[..], &[seconds.to_string()]].concat();
    let result = clean(Load::start(&node, Some(GENERATOR_CPU), "pairs", &options)?.finish()?)?;
    node.drain()?;
    Ok(result)
}
