//! `bench flap`: what phones that come and go cost those that stay. The same paced traffic over the same server, first
//! without and then with connections that are dropped and come back.

use super::floor::{cpu_us, ratio};
use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
use crate::node::{Load, Node, NodePlan};
use anyhow::Result;
use serde_json::{Value, json};

/// Phones where nothing else is said.
const PHONE_COUNT: u32 = 10_000;
/// Messages per second over all phones.
const RATE: &str = "2000";
/// Connections dropped per second over all phones.
const FLAPS: &str = "100";

/// One run with a fresh server.
pub(super) fn run(phones: Option<u32>, seconds: u32) -> Result<Value> {
    let data = place()?;
    let node = Node::start(NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)))?;
    let (phones, seconds) = (phones.unwrap_or(PHONE_COUNT).to_string(), seconds.to_string());
    let common = ["--phones", &phones, "--rate", RATE, "--body", "128", "--duration", &seconds];
    let mut options = common.map(String::from).to_vec();
    let calm = clean(Load::start(&node, Some(GENERATOR_CPU), "pairs", &options)?.finish()?)?;
    options.extend(["--flaps", FLAPS].map(String::from));
    let flapping = clean(Load::start(&node, Some(GENERATOR_CPU), "flap", &options)?.finish()?)?;
    node.drain()?;
    Ok(compare(&calm, &flapping))
}

/// The latency is that of messages whose both ends stayed: who is away gets its mail when it is back.
fn compare(calm: &Value, flapping: &Value) -> Value {
    let p99 = |run: &Value| run["steady_latency_us"]["p99"].as_f64();
    json!({
        "p99_ratio_for_phones_that_stay": ratio(p99(flapping), p99(calm)),
        "cpu_per_msg_ratio": ratio(cpu_us(flapping), cpu_us(calm)),
        "calm": calm,
        "flapping": flapping,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_the_phones_that_stay() {
        let run = |p99: f64, cpu: f64| {
            json!({
                "steady_latency_us": { "p99": p99 },
                "latency_us": { "p99": 1e9 },
                "server": { "cpu_user_us_per_msg": cpu, "cpu_system_us_per_msg": 2.0 * cpu },
            })
        };
        let result = compare(&run(200.0, 4.0), &run(300.0, 5.0));
        assert_eq!(result["p99_ratio_for_phones_that_stay"], 1.5);
        assert_eq!(result["cpu_per_msg_ratio"], 1.25);
    }
}
