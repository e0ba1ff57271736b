//! `bench recovery`: from SIGKILL back to serving, with many messages waiting.

use super::{GENERATOR_CPU, SERVER_CPU, place};
use crate::node::{Load, Node, NodePlan};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Messages that wait when the node is killed.
const MESSAGE_COUNT: u64 = 500_000;
/// Longest time to store them.
const STORE_WAIT: Duration = Duration::from_secs(300);

/// One run: fill, kill, start.
pub(super) fn run(_seconds: u32) -> Result<Value> {
    let data = place()?;
    let node = Node::start(NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)))?;
    let messages = MESSAGE_COUNT.to_string();
    let options = ["--phones", "1000", "--messages", &messages, "--body", "128"].map(String::from);
    let load = Load::start(&node, Some(GENERATOR_CPU), "offline", &options)?;
    let started = Instant::now();
    // Just before the last one, so that the generator's phones have not come for them yet.
    while waiting(&node)? < MESSAGE_COUNT * 98 / 100 {
        if started.elapsed() > STORE_WAIT {
            bail!("{} messages were not stored in {STORE_WAIT:?}", MESSAGE_COUNT);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let plan = node.kill()?;
    drop(load);
    let node = Node::start(plan)?;
    let mail = waiting(&node)?;
    let records = records(&node)?;
    let ready = node.ready_after;
    if mail < MESSAGE_COUNT / 2 {
        bail!("only {mail} messages waited at the kill");
    }
    node.drain()?;
    Ok(json!({
        "mail_count": mail,
        "record_count": records,
        "ready_ms": ready.as_millis() as u64,
        "records_per_s": (records as f64 / ready.as_secs_f64()) as u64,
    }))
}

fn waiting(node: &Node) -> Result<u64> {
    let status = node.get("/v1/status")?;
    status["totals"]["mail_count_now"].as_u64().context("mail_count_now")
}

fn records(node: &Node) -> Result<u64> {
    let status = node.get("/v1/status")?;
    let shards = status["shards"].as_array().context("shards")?;
    shards.iter().map(|shard| shard["recovery"]["record_count"].as_u64().context("record_count")).sum()
}
