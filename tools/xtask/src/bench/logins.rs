//! `bench logins`: fresh connections of known accounts, with the server's key known (`IK`), and by resume ticket
//! (`NNpsk0`).

use super::floor::thousandths;
use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
use crate::node::{Load, Node, NodePlan};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const PHONE_COUNT: u32 = 10_000;

/// One run with a fresh server for each pattern: all phones log in once, as fast as it goes. It has no duration.
///
/// `logins_per_core_s` is what one core of the server could do, by the CPU time of a login; `login_per_s` is what was
/// seen, with a generator that pays as much for a login on its own core as the server does.
pub(super) fn run(_seconds: u32) -> Result<Value> {
    let mut result = by_key()?;
    result["ticket"] = by_ticket()?;
    Ok(result)
}

fn by_key() -> Result<Value> {
    let report = generate("pairs", &["--window", "1", "--duration", "1", "--verify-only"])?;
    let login_us = report["server"]["cpu_us_per_login"].as_f64().context("server.cpu_us_per_login")?;
    let mut found = of_login("IK", login_us, &report);
    found["logged_in"] = report["logged_in"].clone();
    Ok(found)
}

/// The phones log in with their keys, leave, and come back by the tickets that they were given: that is measured.
fn by_ticket() -> Result<Value> {
    let report = generate("idle", &["--hold", "0.1", "--resume"])?;
    let resumed = &report["resumed"];
    if resumed["by_ticket"].as_u64() != Some(u64::from(PHONE_COUNT)) {
        bail!("{} of {PHONE_COUNT} came back by ticket", resumed["by_ticket"]);
    }
    let login_us = resumed["server_cpu_us_per_login"].as_f64().context("resumed.server_cpu_us_per_login")?;
    let mut found = of_login("NNpsk0", login_us, resumed);
    found["logged_in"] = resumed["by_ticket"].clone();
    Ok(found)
}

/// The generator's report of a run with a fresh server.
fn generate(mode: &str, more: &[&str]) -> Result<Value> {
    let data = place()?;
    let node = Node::start(NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)))?;
    let phones = PHONE_COUNT.to_string();
    let options: Vec<String> = ["--phones", &phones].iter().chain(more).map(|word| (*word).into()).collect();
    let report = clean(Load::start(&node, Some(GENERATOR_CPU), mode, &options)?.finish()?)?;
    node.drain()?;
    Ok(report)
}

fn of_login(pattern: &str, login_us: f64, report: &Value) -> Value {
    json!({
        "pattern": pattern,
        "cpu_us_per_login": login_us,
        "logins_per_core_s": thousandths(1e6 / login_us),
        "login_per_s": report["login_per_s"],
        "login_p50_us": report["login_p50_us"],
        "login_p99_us": report["login_p99_us"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_does_as_many_as_its_second_holds() {
        let found = of_login("IK", 250.0, &json!({ "login_per_s": 3_000.5, "login_p50_us": 7 }));
        assert_eq!((&found["logins_per_core_s"], &found["login_per_s"]), (&json!(4_000.0), &json!(3_000.5)));
        assert!(found["login_p99_us"].is_null());
    }
}
