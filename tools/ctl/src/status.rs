//! What the node is and does, for a person or a script.

use crate::print::print;
use anyhow::{Context, Result};
use serde_json::Value;
use tern_admin::{Admin, Percentiles, duration};

/// Prints the node's status.
pub(crate) fn status(admin: &Admin, json: bool) -> Result<()> {
    let status = admin.get("/v1/status")?;
    let text = if json {
        format!("{status}\n")
    } else {
        render(&status).context("the endpoint's answer lacks a field")?
    };
    print(&text).map(drop)
}

/// Lines for the node, one for each kind of duration, one for each counter that counted, by shard.
fn render(status: &Value) -> Option<String> {
    let text = |field: &str| status[field].as_str();
    let mut out = format!(
        "tern {} pid {} up {} s{}\nphone {} admin {}\nserver key {}\n",
        text("version")?,
        status["pid"].as_u64()?,
        status["uptime_s"].as_u64()?,
        status["trouble"].as_str().map_or(String::new(), |trouble| format!(", {trouble}")),
        text("phone")?,
        text("admin")?,
        text("server_key")?,
    );
    let shards = status["shards"].as_array()?;
    for (shard, recovery) in shards.iter().map(|shard| &shard["recovery"]).enumerate() {
        if let Some(report) = recovery.as_object() {
            let places = |field: &str| report.get(field).and_then(Value::as_array).map(Vec::len);
            let (records, rot, torn) =
                (report.get("record_count")?.as_u64()?, places("rot")?, places("torn")?);
            out += &format!(
                "shard {shard} recovered {records} records, {rot} damaged places, {torn} torn tails\n"
            );
            // Which a node of an earlier version does not tell.
            if report.get("has_rot_in_tables").and_then(Value::as_bool) == Some(true) {
                out += &format!(
                    "shard {shard}: records of accounts are damaged: devices and accounts that were removed may be back\n"
                );
            }
            if let Some(count @ 1..) = report.get("nameless_count").and_then(Value::as_u64) {
                out += &format!("shard {shard}: {count} accounts whose names others have taken\n");
            }
        }
    }
    for (kind, name) in [
        ("sent", "message to its sent tick"),
        ("delivery", "message to its device"),
        ("commit", "group commit"),
        ("turn", "a shard's turn"),
    ] {
        if let Some(Percentiles { p50_ns: Some(p50), p99_ns }) = since_start(status, shards, kind) {
            out += &format!("{name}: p50 {} p99 {} since the start\n", duration(Some(p50)), duration(p99_ns));
        }
    }
    for (name, total) in status["totals"].as_object()? {
        if total.as_u64()? == 0 {
            continue;
        }
        let each: Vec<String> = shards.iter().map(|shard| shard["counters"][name].to_string()).collect();
        out += &format!("{name:<22} {total:>14}  {}\n", each.join(" "));
    }
    Some(out)
}

/// The durations of all shards.
fn since_start(status: &Value, shards: &[Value], kind: &str) -> Option<Percentiles> {
    let numbers =
        |list: &Value| list.as_array().map(|list| list.iter().filter_map(Value::as_u64).collect::<Vec<_>>());
    let bounds_ns = numbers(&status["latency_bounds_ns"])?;
    let mut sum = vec![0; bounds_ns.len() + 1];
    for shard in shards {
        let counts = numbers(&shard["latency"][kind]).unwrap_or_default();
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    Some(Percentiles::of(&bounds_ns, &sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_what_counted_and_nothing_else() {
        let status = json!({
            "version": "1", "pid": 7, "uptime_s": 9, "trouble": "draining", "phone": "p", "admin": "a", "server_key": "k",
            "latency_bounds_ns": [1_000_000, 2_000_000],
            "totals": { "logins": 5, "expired": 0 },
            "shards": [{
                "counters": { "logins": 2, "expired": 0 },
                "latency": { "sent": [0, 5, 0], "commit": [0, 0, 0], "turn": [1, 0, 0] },
                "recovery": { "record_count": 8, "rot": [], "torn": [{}] },
            }, {
                "counters": { "logins": 3, "expired": 0 },
                "latency": { "sent": [0, 5, 0], "commit": [0, 0, 0], "turn": [1, 0, 0] },
                "recovery": {
                    "record_count": 9, "rot": [{}], "torn": [], "has_rot_in_tables": true, "nameless_count": 2,
                },
            }],
        });
        let text = render(&status).unwrap();
        assert!(
            text.contains("draining")
                && text.contains("8 records")
                && text.contains("5  2 3")
                && text.contains("shard 1: records of accounts are damaged")
                && text.contains("shard 1: 2 accounts whose names")
                && !text.contains("shard 0: ")
                && text.contains("sent tick: p50 1.5ms p99 2.0ms")
                && !text.contains("group commit")
                && !text.contains("expired"),
            "{text}"
        );
        assert_eq!(render(&json!({})), None);
    }
}
