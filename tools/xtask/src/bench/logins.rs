//! `bench logins`: fresh connections of known accounts, with the server's key known (`IK`).

use super::floor::thousandths;
use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
use crate::node::{Load, Node, NodePlan};
use anyhow::{Context, Result};
use serde_json::{Value, json};

const PHONE_COUNT: u32 = 10_000;

/// One run with a fresh server: all phones log in once, as fast as it goes. It has no duration.
///
/// `logins_per_core_s` is what one core of the server could do, by the CPU time of a login; `login_per_s` is what was
/// seen, with a generator that pays as much for a login on its own core as the server does.
pub(super) fn run(_seconds: u32) -> Result<Value> {
    let data = place()?;
    let node = Node::start(NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)))?;
    let phones = PHONE_COUNT.to_string();
    let options =
        ["--phones", &phones, "--window", "1", "--duration", "1", "--verify-only"].map(String::from);
    let result = clean(Load::start(&node, Some(GENERATOR_CPU), "pairs", &options)?.finish()?)?;
    node.drain()?;
    let login_us = result["server"]["cpu_us_per_login"].as_f64().context("server.cpu_us_per_login")?;
    Ok(json!({
        "pattern": "IK",
        "logged_in": result["logged_in"],
        "cpu_us_per_login": login_us,
        "logins_per_core_s": thousandths(1e6 / login_us),
        "login_per_s": result["login_per_s"],
        "login_p50_us": result["login_p50_us"],
        "login_p99_us": result["login_p99_us"],
    }))
}
