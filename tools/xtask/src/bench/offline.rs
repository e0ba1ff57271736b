//! `bench offline`: storing for phones that are away, and draining when they come.

use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
use crate::node::{Load, Node, NodePlan};
use anyhow::Result;
use serde_json::Value;

/// One run with a fresh server: half of the phones send, the other half is away. It has no duration: it ends when
/// everything is drained. The messages fill three of the log's segments and more, so that making them is in the figure.
pub(super) fn run(_seconds: u32) -> Result<Value> {
    let data = place()?;
    let node = Node::start(NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)))?;
    let options = ["--phones", "2000", "--messages", "500000", "--body", "128"].map(String::from);
    let result = clean(Load::start(&node, Some(GENERATOR_CPU), "offline", &options)?.finish()?)?;
    node.drain()?;
    Ok(result)
}
