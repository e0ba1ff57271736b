//! `cargo xtask demo`: the main job before your eyes. Phones log in, talk, go away and come back to what waited; the
//! server is killed in the middle, and nothing that was ticked is lost.

use crate::node::{Load, Node, NodePlan};
use crate::tree::{binary, build, run};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

/// How long and how wide.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Phones.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    phones: u32,
    /// Seconds of talk; the server is killed in the middle.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=3600))]
    seconds: u32,
}

/// The fields that count faults; all must be zero.
const FAULTS: [&str; 5] = ["lost", "duplicated", "misordered", "misdelivered", "early_ticks"];

/// Runs the demonstration; the last line is the generator's JSON for both parts.
pub(crate) fn demo(args: &DemoArgs) -> Result<()> {
    build(&["tern-server", "tern-load", "tern-ctl"])?;
    let place = tempfile::tempdir().context("temporary directory")?;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shards = u16::try_from(threads.min(4)).unwrap_or(1);

    say(&format!("a server with {shards} shards on a new data directory"));
    let node = Node::start(NodePlan::new(&place.path().join("data"), shards, None))?;
    say(&format!("it serves phones at {} after {} ms", node.phone(), node.ready_after.as_millis()));

    let (talk, node) = talk(args, node)?;
    let absent = absent(args, &node)?;
    run(Command::new(binary("tern-ctl")).args(["--admin", node.admin(), "status"]))?;
    say("SIGTERM: the server drains");
    node.drain()?;

    let both = merge(&talk, &absent);
    say(&summary(&talk, &absent));
    println!("{both}");
    match FAULTS.iter().find(|field| both[**field].as_u64() != Some(0)) {
        Some(field) => bail!("{field} is {}", both[*field]),
        None => Ok(()),
    }
}

/// Pairs talk; SIGKILL in the middle, start again on the same ports.
fn talk(args: &DemoArgs, node: Node) -> Result<(Value, Node)> {
    say(&format!("{} phones talk in pairs for {} s, encrypted, with ticks", args.phones, args.seconds));
    let options = [
        ("--phones", args.phones),
        ("--window", 4),
        ("--body", 128),
        ("--duration", args.seconds),
        ("--patience", 30),
    ];
    let load = Load::start(&node, None, "pairs", &words(&options))?;
    std::thread::sleep(Duration::from_millis(u64::from(args.seconds) * 500));
    let before = node.get("/v1/status")?;
    say(&format!("kill -9 the server, {} ticks after its start", before["totals"]["ticks_sent"]));
    let node = Node::start(node.kill()?)?;
    say(&format!(
        "it serves again after {} ms; the phones come back by themselves",
        node.ready_after.as_millis()
    ));
    let (result, success) = load.finish()?;
    if !success {
        bail!("the generator is not content: {result}");
    }
    Ok((result, node))
}

/// Messages for phones that are away, which then come.
fn absent(args: &DemoArgs, node: &Node) -> Result<Value> {
    let messages = args.phones * 50;
    say(&format!("{messages} messages for phones that are away; then they come and drain their mailboxes"));
    let options = [("--phones", args.phones), ("--messages", messages), ("--body", 128), ("--patience", 30)];
    let (result, success) = Load::start(node, None, "offline", &words(&options))?.finish()?;
    if !success {
        bail!("the generator is not content: {result}");
    }
    Ok(result)
}

fn words(options: &[(&str, u32)]) -> Vec<String> {
    options.iter().flat_map(|(name, value)| [(*name).to_string(), value.to_string()]).collect()
}

/// One object for both parts: faults added up, other fields from the talk, and where it has none, from the absent.
fn merge(talk: &Value, absent: &Value) -> Value {
    let mut both = talk.clone();
    let Some(fields) = both.as_object_mut() else { return both };
    for (name, value) in fields.iter_mut() {
        let other = &absent[name];
        if FAULTS.contains(&name.as_str()) {
            *value = value.as_u64().zip(other.as_u64()).map(|(a, b)| a + b).into();
        } else if value.is_null() {
            *value = other.clone();
        }
    }
    both
}

fn summary(talk: &Value, absent: &Value) -> String {
    format!(
        "talk: {} sent, {} ticked, {} delivered, {} redelivered after the kill, {} lost\n      \
         away: {} ticked at {}/s, {} drained at {}/s, {} lost",
        talk["sent"],
        talk["ticked"],
        talk["delivered"],
        talk["redelivered"],
        talk["lost"],
        absent["ticked"],
        absent["stored_per_s"],
        absent["delivered"],
        absent["drained_per_s"],
        absent["lost"],
    )
}

fn say(text: &str) {
    println!("demo: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_parts_in_one_object() {
        let talk = json!({ "lost": 1, "sent": 5, "stored_per_s": null, "early_ticks": 0 });
        let absent = json!({ "lost": 2, "sent": 7, "stored_per_s": 9, "early_ticks": 0 });
        assert_eq!(
            merge(&talk, &absent),
            json!({ "lost": 3, "sent": 5, "stored_per_s": 9, "early_ticks": 0 })
        );
        // A fault that a part does not report is not zero.
        assert!(merge(&talk, &json!({}))["lost"].is_null());
    }
}
