//! `bench storm`: everybody's connection is dropped at once and everybody comes back by ticket. How fast, and what it costs
//! those whose connections stay.
//!
//! The many come from a generator of their own, which shares the hardware thread of the others' at a lower priority: what
//! coming back costs the server is what is asked for, not what it costs the generator. For the same reason the server's
//! own measure stands beside that of the phones.
//!
//! A storm is over long before the run is, and p99 of the whole run says little of it. So what is told as `meanwhile` is
//! of those messages alone that were scheduled between the drop and the last return.

use super::floor::{Pace, Traffic, ratio};
use super::idle::wait_for_logins;
use super::latencies::Latencies;
use super::measured::{Measured, grown, messages_in};
use super::{GENERATOR_CPU, SERVER_CPU, clean, place};
use crate::node::{Load, Node, NodePlan};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Phones of the storm where nothing else is said.
const PHONE_COUNT: u32 = 10_000;
/// Phones that stay, and their messages per second.
const STAYING_COUNT: u32 = 1_000;
const PER_S: u32 = 2_000;
/// From the last login of the many to the storm: the others must have begun to talk.
const HOLD_S: u32 = 5;
/// A run shorter than this may be over before everybody is back.
const SECONDS_MIN: u32 = 8;
/// Longest wait for each part.
const WAIT: Duration = Duration::from_secs(120);
/// Between two looks at the server. Its own counts are at most 50 ms old.
const LOOK: Duration = Duration::from_millis(20);

/// One run with a fresh server.
pub(super) fn run(phones: Option<u32>, seconds: u32) -> Result<Value> {
    if seconds < SECONDS_MIN {
        bail!("--seconds {seconds}, allowed: {SECONDS_MIN} or more");
    }
    let phones = phones.unwrap_or(PHONE_COUNT);
    let data = place()?;
    let node = Node::start(NodePlan::new(&data.path().join("data"), 1, Some(SERVER_CPU)))?;
    let staying = Traffic { phones: STAYING_COUNT, pace: Pace::Rate(PER_S), seconds };
    let quiet = quiet(&node, staying, phones)?;
    let each = data.path().join("latencies.csv");
    let stormy = storm(&node, staying, phones, &each)?;
    node.drain()?;
    let meanwhile = meanwhile(&Latencies::read(&each)?, &stormy.others["resumed"])?;
    let found = compare(&quiet, &stormy, meanwhile);
    eprintln!("xtask: {}", line(&found));
    Ok(found)
}

/// The many are there and silent.
fn quiet(node: &Node, staying: Traffic, phones: u32) -> Result<Measured> {
    let _crowd = Crowd::start(node, phones, staying.seconds + 60, false)?;
    let before = node.get("/v1/status")?;
    let report = Load::start(node, Some(GENERATOR_CPU), "pairs", &staying.options())?.finish()?;
    Ok(Measured { phones: clean(report)?, others: Value::Null, before, after: node.get("/v1/status")? })
}

/// The many are dropped and come back while the others talk, whose latencies go to the file `each`.
fn storm(node: &Node, staying: Traffic, phones: u32, each: &Path) -> Result<Measured> {
    let crowd = Crowd::start(node, phones, HOLD_S, true)?;
    let silent = messages_in(&node.get("/v1/status")?);
    let mut options = staying.options();
    options.extend(["--latencies".into(), each.to_string_lossy().into_owned()]);
    let mut load = Load::start(node, Some(GENERATOR_CPU), "pairs", &options)?;
    let everybody = u64::from(phones) + u64::from(STAYING_COUNT);
    let mut until = |what: &str, holds: &dyn Fn(&Value) -> bool| {
        let started = Instant::now();
        let mut last = Value::Null;
        loop {
            let status = node.get("/v1/status")?;
            if holds(&status) {
                return Ok((last, status));
            }
            if load.has_ended()? || started.elapsed() > WAIT {
                bail!("{what}: not before the others had stopped talking; --seconds may be longer");
            }
            last = status;
            std::thread::sleep(LOOK);
        }
    };
    let total = |status: &Value, name: &str| status["totals"][name].as_u64().unwrap_or(0);
    let (_, talking) = until("talk begins", &|status| messages_in(status) != silent)?;
    if total(&talking, "sessions_now") < everybody {
        bail!("the storm began before those who stay talked");
    }
    let logins = total(&talking, "logins") + u64::from(phones);
    // The last look before somebody was missing is where the storm begins.
    let (before, _) = until("the storm begins", &|status| total(status, "sessions_now") < everybody)?;
    let (_, after) = until("everybody back", &|status| total(status, "logins") >= logins)?;
    let others = crowd.finish()?;
    Ok(Measured { phones: clean(load.finish()?)?, others, before, after })
}

/// The many.
struct Crowd(Load);

impl Crowd {
    /// All logged in, held for so long; a storm then.
    fn start(node: &Node, phones: u32, hold_s: u32, storm: bool) -> Result<Self> {
        let here = node.get("/v1/process")?["logins"].as_u64().context("logins")?;
        let mut options = ["--first", &STAYING_COUNT.to_string(), "--phones", &phones.to_string()]
            .map(String::from)
            .to_vec();
        options.extend(["--hold".into(), hold_s.to_string()]);
        options.extend(storm.then(|| "--storm".into()));
        let load = Load::command(node, "idle", &options);
        let mut command = Command::new("nice");
        command.args(["-n", "10"]).arg(load.get_program()).args(load.get_args());
        eprintln!("xtask: {}", crate::tree::words(&command));
        let crowd = Self(Load::spawn(Some(GENERATOR_CPU), &mut command)?);
        wait_for_logins(node, here + u64::from(phones))?;
        Ok(crowd)
    }

    fn finish(self) -> Result<Value> {
        clean(self.0.finish()?)
    }
}

/// Latency of the messages that were scheduled between the drop and the last return.
fn meanwhile(latencies: &Latencies, back: &Value) -> Result<Value> {
    let at = |name: &str| back[name].as_u64().with_context(|| format!("resumed.{name}"));
    let storm_us = at("dropped_unix_us")?..=at("back_unix_us")?;
    Ok(json!({
        "seconds": (storm_us.end() - storm_us.start()) as f64 / 1e6,
        "latency_us": latencies.of_deliveries(&storm_us),
        "tick_latency_us": latencies.of_ticks(&storm_us),
    }))
}

fn compare(quiet: &Measured, stormy: &Measured, meanwhile: Value) -> Value {
    let back = &stormy.others["resumed"];
    let p99_meanwhile = |field: &str| meanwhile[field]["p99"].as_f64();
    json!({
        "phones_of_the_storm": stormy.others["phones"],
        "phones_that_stay": stormy.phones["phones"],
        "all_back_s": back["all_back_s"],
        "login_per_s": back["login_per_s"],
        "login_p50_us": back["login_p50_us"],
        "login_p99_us": back["login_p99_us"],
        "by_ticket": back["by_ticket"],
        "busy": back["busy"],
        "meanwhile_p99_ratio": ratio(p99_meanwhile("latency_us"), quiet.p99_us()),
        "meanwhile_tick_p99_ratio": ratio(p99_meanwhile("tick_latency_us"), quiet.tick_p99_us()),
        "meanwhile": meanwhile,
        "p99_ratio": ratio(stormy.p99_us(), quiet.p99_us()),
        "tick_p99_ratio": ratio(stormy.tick_p99_us(), quiet.tick_p99_us()),
        "in_server_p99_ratio": ratio(stormy.in_server_us(0.99), quiet.in_server_us(0.99)),
        "counted": grown(&stormy.before, &stormy.after, &[]),
        "quiet": quiet.to_json(),
        "storm": stormy.to_json(),
    })
}

fn line(found: &Value) -> String {
    let figures = |part: &Value| {
        let (messages, ticks) = (&part["latency_us"], &part["tick_latency_us"]);
        format!(
            "p99 {} max {} us, ticks p99 {} max {} us",
            messages["p99"], messages["max"], ticks["p99"], ticks["max"]
        )
    };
    format!(
        "{} phones back after {} s, {} logins/s, {} by ticket, {} told to wait; those who stay: quiet {}; meanwhile {} \
         ({} messages); the whole run {}; in the server p99 {} us, quiet {} us; counted {}",
        found["phones_of_the_storm"],
        found["all_back_s"],
        found["login_per_s"],
        found["by_ticket"],
        found["busy"],
        figures(&found["quiet"]),
        figures(&found["meanwhile"]),
        found["meanwhile"]["latency_us"]["count"],
        figures(&found["storm"]),
        found["storm"]["in_server_us"]["p99"],
        found["quiet"]["in_server_us"]["p99"],
        found["counted"]
    )
}

#[cfg(test)]
mod tests {
    use super::super::measured::tests::status;
    use super::*;

    fn measured(tick_p99: f64, slow: u64, others: Value) -> Measured {
        Measured {
            phones: json!({ "latency_us": { "p99": 9.0, "max": 12.5 }, "tick_latency_us": { "p99": tick_p99, "max": 70.0 }, "phones": 4 }),
            others,
            before: status(1, 5, 5),
            after: status(4, 5 + 99, 5 + slow),
        }
    }

    #[test]
    fn compares_the_phones_that_stay() {
        let back = json!({ "all_back_s": 1.5, "login_per_s": 7.0, "by_ticket": 8, "busy": 2 });
        let others = json!({ "phones": 8, "resumed": back });
        let meanwhile = json!({
            "latency_us": { "count": 40, "p99": 18.0, "max": 19.0 },
            "tick_latency_us": { "p99": 60.0, "max": 65.0 },
        });
        let found = compare(&measured(20.0, 1, Value::Null), &measured(50.0, 101, others), meanwhile);
        assert_eq!((&found["tick_p99_ratio"], &found["in_server_p99_ratio"]), (&json!(2.5), &json!(1.98)));
        assert_eq!(
            (&found["meanwhile_p99_ratio"], &found["meanwhile_tick_p99_ratio"]),
            (&json!(2.0), &json!(3.0))
        );
        assert_eq!(
            line(&found),
            "8 phones back after 1.5 s, 7.0 logins/s, 8 by ticket, 2 told to wait; those who stay: quiet p99 9.0 max \
             12.5 us, ticks p99 20.0 max 70.0 us; meanwhile p99 18.0 max 19.0 us, ticks p99 60.0 max 65.0 us (40 \
             messages); the whole run p99 9.0 max 12.5 us, ticks p99 50.0 max 70.0 us; in the server p99 198.0 us, \
             quiet 100.0 us; counted {\"timeouts\":3}"
        );
    }

    #[test]
    fn meanwhile_is_what_was_scheduled_from_the_drop_to_the_last_return() {
        let line = |what: &str, since_us: u64, took_ns: u64| format!("{what},{since_us},{took_ns}\n");
        let deliveries = [(999, 70_000), (1_000, 2_000), (1_500, 9_000), (2_000, 3_000), (2_001, 80_000)];
        let mut text: String =
            deliveries.iter().map(|&(since, took)| line("delivery", since, took)).collect();
        text += &line("sent", 1_999, 5_000);
        let latencies = Latencies::parse(&text).unwrap();
        let back = json!({ "dropped_unix_us": 1_000, "back_unix_us": 2_000 });
        let found = meanwhile(&latencies, &back).unwrap();
        assert_eq!(found["seconds"], 0.001);
        assert_eq!(found["latency_us"], json!({ "count": 3, "p50": 3.0, "p99": 9.0, "max": 9.0 }));
        assert_eq!(found["tick_latency_us"], json!({ "count": 1, "p50": 5.0, "p99": 5.0, "max": 5.0 }));
        let nobody_back = json!({ "dropped_unix_us": 1_000, "back_unix_us": null });
        assert!(meanwhile(&latencies, &nobody_back).is_err());
    }
}
