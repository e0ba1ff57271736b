//! `bench smoke`: every measurement once, as short as it can be. Its figures mean nothing; that each command still runs,
//! and still tells what the documents read from it, is what is asked.

use super::{Name, build_for, hostile, run_once};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A measurement, its phones and seconds, and what it must tell: numbers, as JSON pointers (RFC 6901).
type Smoke = (Name, Option<u32>, u32, &'static [&'static str]);

const SMOKES: [Smoke; 13] = [
    (
        Name::Pairs,
        None,
        1,
        &[
            "/phones_1000/server/cpu_user_us_per_msg",
            "/phones_1000/cpu_ratio_to_stub",
            "/phones_10000/cpu_ratio_to_stub",
            "/phones_10000/cpu_ratio_to_echo",
        ],
    ),
    (Name::Slices, None, 1, &["/phones_1000/cpu_ratio_to_stub", "/phones_10000/cpu_ratio_to_stub"]),
    (Name::Paced, None, 1, &["/cpu_ratio_to_stub", "/p99_ratio_to_stub", "/latency_us/p99"]),
    (Name::Shards, None, 1, &["/throughput_ratio", "/cpu_ratio", "/machine/throughput_ratio"]),
    (Name::Logins, None, 1, &["/logins_per_core_s", "/ticket/logins_per_core_s", "/login_per_s"]),
    (
        Name::Hostile,
        Some(100),
        5,
        &[
            "/garbage/p99_ratio",
            "/garbage/in_server_p99_ratio",
            "/garbage/counted/handshakes_failed",
            "/strangers/counted/accepted",
            "/crowds/counted/accepted",
            "/dropouts/counted/accepted",
            "/thieves/counted/logins_wrong_key",
            "/meddlers/counted/refused_asks",
            "/trickles/counted/logins",
            "/sleepers/counted/logins",
        ],
    ),
    (
        Name::Idle,
        Some(2_000),
        2,
        &[
            "/bytes_per_phone_by_slope/server_user_bytes",
            "/server_user_bytes_per_phone_by_total",
            "/server_user_bytes_per_phone_since_boot",
            "/idle_cpu_percent_of_a_core",
            "/many/pings_in_hold",
        ],
    ),
    (Name::Flap, Some(500), 2, &["/p99_ratio_for_phones_that_stay", "/cpu_per_msg_ratio"]),
    (
        Name::Storm,
        Some(500),
        8,
        &[
            "/all_back_s",
            "/by_ticket",
            "/p99_ratio",
            "/in_server_p99_ratio",
            "/meanwhile/latency_us/p99",
            "/meanwhile/tick_latency_us/p99",
            "/meanwhile_p99_ratio",
        ],
    ),
    (Name::Offline, None, 1, &["/stored_per_s", "/drained_per_s"]),
    (Name::Recovery, None, 1, &["/record_count", "/ready_ms", "/records_per_s"]),
    (Name::Mesh, None, 1, &["/batch_64_per_s"]),
    (Name::Wheel, None, 1, &["/timers_16000/bytes_per_timer", "/timers_1000000/bytes_per_timer"]),
];

/// The attacks of `hostile` that are tried: one that says nothing sensible, and those that take memory or go for others'
/// accounts.
const ATTACKS: [&str; 8] =
    ["garbage", "strangers", "crowds", "dropouts", "thieves", "meddlers", "trickles", "sleepers"];

/// Runs all of them; tells all fields that are missing, not only the first.
pub(super) fn run() -> Result<Value> {
    let mut missing = Vec::new();
    for (name, phones, seconds, fields) in SMOKES {
        eprintln!("xtask: smoke of {name:?}");
        build_for(name)?;
        let only = if name == Name::Hostile { ATTACKS.map(String::from).to_vec() } else { Vec::new() };
        let result = run_once(name, phones, &only, seconds).with_context(|| format!("{name:?}"))?;
        missing.extend(missing_in(&result, fields).map(|field| format!("{name:?} has no number at {field}")));
        if name == Name::Hostile {
            missing.extend(hostile::uncounted(&result));
        }
    }
    if missing.is_empty() {
        Ok(json!({ "measurements": SMOKES.len() }))
    } else {
        bail!("{}", missing.join("; "))
    }
}

fn missing_in<'a>(result: &Value, fields: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let is_missing = |field: &str| !result.pointer(field).is_some_and(Value::is_number);
    fields.iter().copied().filter(move |field| is_missing(field)).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn every_measurement_is_tried() {
        let all = Name::value_variants().iter().filter(|name| **name != Name::Smoke);
        let untried: Vec<_> = all.filter(|name| SMOKES.iter().all(|smoke| smoke.0 != **name)).collect();
        assert!(untried.is_empty(), "{untried:?}");
    }

    #[test]
    fn what_is_not_told_is_named() {
        let result = json!({ "a": { "b": 1.5, "c": null }, "d": "text" });
        let missing: Vec<_> = missing_in(&result, &["/a/b", "/a/c", "/d", "/e"]).collect();
        assert_eq!(missing, ["/a/c", "/d", "/e"]);
    }
}
