//! `bench hostile`: what phones notice of hostile clients. The same paced traffic over the same server, quiet and then
//! while one kind of attack goes on; for each kind in turn.
//!
//! The attackers (`bench/src/hostile`) come from other addresses and share the generator's hardware thread, at a lower
//! priority: what they cost the server is what is asked for, not what they cost the generator.

use super::floor::{Pace, Traffic, ratio};
use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
use crate::affinity::spawn_on;
use crate::node::{Load, Node, NodePlan};
use crate::tree::binary;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Phones where nothing else is said.
const PHONE_COUNT: u32 = 1_000;
/// Messages per second over all phones.
const PER_S: u32 = 2_000;
/// Longest wait until the phones talk.
const TALK_WAIT: Duration = Duration::from_secs(60);
/// A run shorter than this is over before half prefaces are given up.
const SECONDS_MIN: u32 = 5;
/// Limits on addresses hold for loopback too. The phones' own address logs in anew for every measurement, so it may begin
/// more handshakes at once; half prefaces end within a run.
const CONFIG: &str = "open_registration = true\n\
                      [limits]\nlimit_loopback = true\naddress_handshakes_burst = 100000\nlogin_ms = 3000\n";
/// The attacks, and the server's counters that must tell of each.
const ATTACKS: [(&str, &[&str]); 6] = [
    ("connects", &["refused_address_connects"]),
    ("garbage", &["protocol_errors", "handshakes_failed"]),
    ("slowloris", &["timeouts"]),
    ("tickets", &["tickets_refused"]),
    ("records", &["protocol_errors"]),
    ("bodies", &["too_large"]),
];
/// Every counter that an attack may touch, as `/v1/status` names them; `/metrics` has the same numbers.
const COUNTERS: [&str; 15] = [
    "accepted",
    "logins",
    "refused_connections",
    "refused_address_connects",
    "refused_address_handshakes",
    "deferred_handshakes",
    "refused_handshakes",
    "handshakes_failed",
    "protocol_errors",
    "timeouts",
    "tickets_refused",
    "too_large",
    "floods",
    "refused_memory",
    "refused_busy",
];

/// One run with a fresh server.
pub(super) fn run(phones: Option<u32>, seconds: u32) -> Result<Value> {
    if seconds < SECONDS_MIN {
        bail!("--seconds {seconds}, allowed: {SECONDS_MIN} or more");
    }
    let data = place()?;
    let config = data.path().join("tern.toml");
    std::fs::write(&config, CONFIG).context("the configuration")?;
    let plan =
        NodePlan { config: Some(config), ..NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)) };
    let node = Node::start(plan)?;
    let traffic = Traffic { phones: phones.unwrap_or(PHONE_COUNT), pace: Pace::Rate(PER_S), seconds };
    let mut result = Map::new();
    for (attack, counters) in ATTACKS {
        let (quiet, _) = measure(&node, traffic, None)?;
        let before = counts(&node)?;
        let (attacked, report) = measure(&node, traffic, Some(attack))?;
        let counted = gained(&before, &counts(&node)?);
        if let Some(silent) = counters.iter().find(|name| counted[**name].as_u64().is_none()) {
            bail!("{attack}: the server did not count it as {silent}: {counted}");
        }
        let found = compare(&quiet, &attacked, report, counted);
        eprintln!("xtask: {}", line(attack, &found));
        result.insert(attack.into(), found);
    }
    node.drain()?;
    Ok(Value::Object(result))
}

/// The generator's report, and that of the attackers if there were any: they begin when the phones talk.
fn measure(node: &Node, traffic: Traffic, attack: Option<&str>) -> Result<(Value, Value)> {
    let before = messages_in(node)?;
    let mut load = Load::start(node, Some(GENERATOR_CPU), "pairs", &traffic.options())?;
    let started = Instant::now();
    while messages_in(node)? == before {
        if load.has_ended()? || started.elapsed() > TALK_WAIT {
            bail!("the phones do not talk");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let attackers = attack.map(|attack| Attackers::start(node, attack, traffic.seconds)).transpose()?;
    let report = clean(load.finish()?)?;
    let attacked = attackers.map_or(Ok(Value::Null), Attackers::finish)?;
    Ok((report, attacked))
}

fn messages_in(node: &Node) -> Result<u64> {
    node.get("/v1/status")?["totals"]["messages_in"].as_u64().context("messages_in")
}

/// The program `hostile`; killed when dropped.
struct Attackers(Child);

impl Attackers {
    fn start(node: &Node, attack: &str, seconds: u32) -> Result<Self> {
        let mut command = Command::new("nice");
        command.args(["-n", "10"]).arg(binary("hostile")).args(["--phone", node.phone(), "--attack", attack]);
        command.args(["--duration", &seconds.to_string()]).stdout(Stdio::piped());
        Ok(Self(spawn_on(Some(GENERATOR_CPU), &mut command)?))
    }

    fn finish(mut self) -> Result<Value> {
        let mut text = String::new();
        self.0.stdout.take().context("the attackers' standard output")?.read_to_string(&mut text)?;
        let status = self.0.wait()?;
        serde_json::from_str(&text).with_context(|| format!("hostile ({status}) said {text:?}"))
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn counts(node: &Node) -> Result<Value> {
    // What a shard counts is told a moment later.
    std::thread::sleep(Duration::from_millis(200));
    Ok(node.get("/v1/status")?["totals"].take())
}

/// The counters that grew, and by how much.
fn gained(before: &Value, after: &Value) -> Value {
    let grown = COUNTERS.iter().filter_map(|name| {
        let gain = after[name].as_u64()?.saturating_sub(before[name].as_u64()?);
        (gain > 0).then(|| ((*name).to_string(), json!(gain)))
    });
    Value::Object(grown.collect())
}

/// Latency counts from the scheduled time to the delivery.
fn compare(quiet: &Value, attacked: &Value, report: Value, counted: Value) -> Value {
    let p99 = |run: &Value| run["latency_us"]["p99"].as_f64();
    json!({
        "p99_ratio": ratio(p99(attacked), p99(quiet)),
        "quiet": honest(quiet),
        "under_attack": honest(attacked),
        "counted": counted,
        "attack": report,
    })
}

/// What is told of the phones that are not hostile.
fn honest(run: &Value) -> Value {
    json!({
        "latency_us": run["latency_us"],
        "tick_latency_us": run["tick_latency_us"],
        "msgs_per_s": run["msgs_per_s"],
        "server": run["server"],
    })
}

fn line(attack: &str, found: &Value) -> String {
    let figures = |part: &str| {
        let latency = &found[part]["latency_us"];
        format!("p50 {} p99 {} max {} us", latency["p50"], latency["p99"], latency["max"])
    };
    format!(
        "{attack}, {}/s: quiet {}; under attack {}; p99 x {}; counted {}",
        found["attack"]["begun_per_s"],
        figures("quiet"),
        figures("under_attack"),
        found["p99_ratio"],
        found["counted"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_the_phones_that_are_not_hostile() {
        let run = |p99: f64| json!({ "latency_us": { "p50": 1.0, "p99": p99, "max": 9.0 }, "phones": 4 });
        let found =
            compare(&run(200.0), &run(300.0), json!({ "begun_per_s": 7.0 }), json!({ "timeouts": 3 }));
        assert_eq!(found["p99_ratio"], 1.5);
        assert_eq!(
            line("slowloris", &found),
            "slowloris, 7.0/s: quiet p50 1.0 p99 200.0 max 9.0 us; under attack p50 1.0 p99 300.0 max 9.0 us; \
             p99 x 1.5; counted {\"timeouts\":3}"
        );
    }

    #[test]
    fn only_what_grew_is_told() {
        let counters = |timeouts: u64, floods: u64| json!({ "timeouts": timeouts, "floods": floods, "mesh_in": timeouts });
        assert_eq!(gained(&counters(1, 2), &counters(5, 2)), json!({ "timeouts": 4 }));
    }

    #[test]
    fn what_must_count_an_attack_is_among_what_is_told() {
        assert!(ATTACKS.iter().flat_map(|attack| attack.1).all(|name| COUNTERS.contains(name)));
    }
}
