//! What the node is and does: a dozen lines for a person, every counter of every shard, or JSON for a script.

use crate::print::print;
use anyhow::{Context, Result};
use serde_json::Value;
use tern_admin::{Admin, Percentiles, bytes, duration};

/// How much is told.
#[derive(clap::Args, Debug)]
pub(crate) struct StatusArgs {
    /// Also every counter that is not 0, in all and by shard.
    #[arg(long, conflicts_with = "json")]
    all: bool,
    /// The endpoint's whole answer as JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the node's status.
pub(crate) fn status(admin: &Admin, args: &StatusArgs) -> Result<()> {
    let status = admin.get("/v1/status")?;
    if args.json {
        return print(&format!("{status}\n")).map(drop);
    }
    // Limits and drive are told there alone; without them there is still most of it.
    let metrics = admin.get_text("/metrics").unwrap_or_default();
    let lacks = "the endpoint's answer lacks a field";
    let mut text = summary(&status, &metrics).context(lacks)?;
    if args.all {
        text += &counters(&status).context(lacks)?;
    }
    print(&text).map(drop)
}

/// A line for each thing that a person asks first.
fn summary(status: &Value, metrics: &str) -> Option<String> {
    let text = |field: &str| status[field].as_str();
    let uptime = status["uptime_s"].as_u64().map_or(String::new(), |s| format!(", up {}", span(s)));
    let mut lines = vec![
        (
            "tern",
            format!(
                "{} {}{uptime}, process {}",
                text("version")?,
                text("trouble").unwrap_or("serving"),
                status["pid"].as_u64()?
            ),
        ),
        ("phones at", text("phone")?.into()),
        ("admin at", text("admin")?.into()),
        ("server key", text("server_key")?.into()),
    ];
    let shards = status["shards"].as_array()?;
    // Nothing is counted before all shards serve.
    if !shards.is_empty() {
        let total = |name: &str| status["totals"][name].as_u64().unwrap_or(0);
        lines.push(("phones", phones(&total, shards.len(), metrics)));
        lines.push(("mail", mail(&total, shards, metrics)));
        lines.push(("messages", messages(&total)));
        lines.push(("durations", durations(status, shards)));
        lines.push(("limits hit", limits_hit(status)));
        lines.extend(damage(shards).map(|text| ("log", text)));
    }
    lines.extend(drive(metrics).map(|text| ("drive", text)));
    Some(lines.iter().map(|(name, text)| format!("{name:<11} {text}\n")).collect())
}

type Total<'a> = &'a dyn Fn(&str) -> u64;

fn phones(total: Total<'_>, shard_count: usize, metrics: &str) -> String {
    let (online, accounts) = (total("sessions_now"), total("accounts_now"));
    let sockets = total("connections_now");
    let most = limit(metrics, "connection_count").map_or(String::new(), |most| {
        format!(" of at most {} ({shard_count} x limits.connection_count)", most * shard_count as u64)
    });
    format!("{online} online of {accounts} accounts; {sockets} connections{most}")
}

fn mail(total: Total<'_>, shards: &[Value], metrics: &str) -> String {
    let held = |counters: &Value| counters["mail_held_bytes_now"].as_u64().unwrap_or(0);
    let fullest_bytes = shards.iter().map(|shard| held(&shard["counters"])).max().unwrap_or(0);
    let most = limit(metrics, "mail_bytes").map_or(String::new(), |most| {
        let (all, percent) = (bytes((most * shards.len() as u64) as f64), part(fullest_bytes, most));
        format!(" of {all} ({} x limits.mail_bytes); the fullest shard {percent}", shards.len())
    });
    let held_bytes = bytes(total("mail_held_bytes_now") as f64);
    format!("{} messages wait, {held_bytes}{most}", total("mail_count_now"))
}

fn messages(total: Total<'_>) -> String {
    format!(
        "since the start {} from phones, {} to phones, {} told busy, {} expired; ticks {} sent, {} delivered, {} read",
        total("messages_in"),
        total("messages_out"),
        total("refused_busy"),
        total("expired"),
        total("ticks_sent"),
        total("ticks_delivered"),
        total("ticks_read")
    )
}

/// Those of which there were some; 99 of 100 took no longer.
fn durations(status: &Value, shards: &[Value]) -> String {
    let kinds =
        [("sent", "to the sent tick"), ("delivery", "to the device"), ("commit", "commit"), ("turn", "turn")];
    let told: Vec<String> = kinds
        .iter()
        .filter_map(|(kind, name)| Some(format!("{name} {}", duration(Some(p99(status, shards, kind)?)))))
        .collect();
    if told.is_empty() { "none yet".into() } else { format!("{} (p99 since the start)", told.join(", ")) }
}

fn p99(status: &Value, shards: &[Value], kind: &str) -> Option<f64> {
    let numbers =
        |list: &Value| list.as_array().map(|list| list.iter().filter_map(Value::as_u64).collect::<Vec<_>>());
    let bounds_ns = numbers(&status["latency_bounds_ns"])?;
    let mut sum = vec![0; bounds_ns.len() + 1];
    for shard in shards {
        let counts = numbers(&shard["latency"][kind]).unwrap_or_default();
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    Percentiles::of(&bounds_ns, &sum).p99_ns
}

/// By their names in the configuration, the one that is hit most first; not those that are hit where nothing is wrong.
fn limits_hit(status: &Value) -> String {
    let is_everyday = |name: &str| {
        status["everyday_limits"]
            .as_array()
            .is_some_and(|names| names.iter().any(|everyday| everyday.as_str() == Some(name)))
    };
    let all = status["limit_hits"].as_object().into_iter().flatten();
    let mut hit: Vec<(&str, u64)> = all
        .map(|(name, count)| (&**name, count.as_u64().unwrap_or(0)))
        .filter(|(name, count)| *count > 0 && !is_everyday(name))
        .collect();
    // Which is no number of the configuration, and makes messages `busy` all the same.
    if let Some(count @ 1..) = status["totals"]["refused_share"].as_u64() {
        hit.push(("a sender's part of a mailbox", count));
    }
    hit.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let told: Vec<String> = hit.iter().map(|(name, count)| format!("{name} {count}")).collect();
    if told.is_empty() { "none".into() } else { told.join(", ") }
}

/// What the start could not read; None where that is nothing.
fn damage(shards: &[Value]) -> Option<String> {
    let places = |shard: &Value| shard["recovery"]["rot"].as_array().map_or(0, Vec::len);
    let count: usize = shards.iter().map(places).sum();
    let is_in_tables = |shard: &Value| shard["recovery"]["has_rot_in_tables"].as_bool() == Some(true);
    let among = if shards.iter().any(is_in_tables) { ", records of accounts among them" } else { "" };
    (count > 0 || !among.is_empty())
        .then(|| format!("{count} damaged places were found at the start{among}; --all says in which shards"))
}

fn drive(metrics: &str) -> Option<String> {
    let (free, size) = (sample(metrics, "tern_data_free_bytes")?, sample(metrics, "tern_data_size_bytes")?);
    Some(format!("{} free of {}", bytes(free as f64), bytes(size as f64)))
}

fn limit(metrics: &str, name: &str) -> Option<u64> {
    sample(metrics, &format!("tern_limit{{limit=\"{name}\"}}"))
}

/// One sample of `/metrics`.
fn sample(metrics: &str, name: &str) -> Option<u64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn part(some: u64, all: u64) -> String {
    format!("{:.0}%", some as f64 * 100.0 / all.max(1) as f64)
}

/// The two largest units: `2 d 3 h`.
fn span(s: u64) -> String {
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// What each shard's start found, and each counter that counted: in all, and by shard.
fn counters(status: &Value) -> Option<String> {
    let shards = status["shards"].as_array()?;
    let mut out = String::new();
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
    for (name, total) in status["totals"].as_object()? {
        if total.as_u64()? == 0 {
            continue;
        }
        let each: Vec<String> = shards.iter().map(|shard| shard["counters"][name].to_string()).collect();
        out += &format!("{name:<29} {total:>14}  {}\n", each.join(" "));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Value {
        json!({
            "version": "1", "pid": 7, "uptime_s": 90_061, "trouble": null, "phone": "p", "admin": "a", "server_key": "k",
            "latency_bounds_ns": [1_000_000, 2_000_000],
            "limit_hits": { "idle_ms": 40, "mail_bytes": 3, "mailbox_count": 5, "watch_count": 0 },
            "everyday_limits": ["handshakes_per_turn", "idle_ms"],
            "totals": {
                "logins": 5, "expired": 0, "sessions_now": 4, "accounts_now": 9, "connections_now": 6,
                "mail_count_now": 70, "mail_held_bytes_now": 1_572_864, "messages_in": 10, "messages_out": 11,
                "ticks_sent": 8, "refused_share": 4,
            },
            "shards": [{
                "counters": { "logins": 2, "expired": 0, "mail_held_bytes_now": 524_288 },
                "latency": { "sent": [0, 5, 0], "commit": [0, 0, 0], "turn": [1, 0, 0] },
                "recovery": { "record_count": 8, "rot": [{}, {}], "torn": [{}] },
            }, {
                "counters": { "logins": 3, "expired": 0, "mail_held_bytes_now": 1_048_576 },
                "latency": { "sent": [0, 5, 0], "commit": [0, 0, 0], "turn": [1, 0, 0] },
                "recovery": {
                    "record_count": 9, "rot": [{}], "torn": [], "has_rot_in_tables": true, "nameless_count": 2,
                },
            }],
        })
    }

    const METRICS: &str = "# TYPE tern_limit gauge\ntern_limit{limit=\"mail_bytes\"} 4194304\n\
        tern_limit{limit=\"connection_count\"} 16000\ntern_data_size_bytes 10737418240\ntern_data_free_bytes 5368709120\n";

    #[test]
    fn a_person_is_told_a_dozen_lines() {
        let text = summary(&node(), METRICS).unwrap();
        let expected = "\
tern        1 serving, up 1 d 1 h, process 7
phones at   p
admin at    a
server key  k
phones      4 online of 9 accounts; 6 connections of at most 32000 (2 x limits.connection_count)
mail        70 messages wait, 1.50MiB of 8.00MiB (2 x limits.mail_bytes); the fullest shard 25%
messages    since the start 10 from phones, 11 to phones, 0 told busy, 0 expired; ticks 8 sent, 0 delivered, 0 read
durations   to the sent tick 2.0ms, turn 990us (p99 since the start)
limits hit  mailbox_count 5, a sender's part of a mailbox 4, mail_bytes 3
log         3 damaged places were found at the start, records of accounts among them; --all says in which shards
drive       5.00GiB free of 10.0GiB
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let mut status = node();
        status["uptime_s"] = Value::Null;
        status["trouble"] = "draining".into();
        let text = summary(&status, "").unwrap();
        assert!(text.starts_with("tern        1 draining, process 7\n") && !text.contains("drive"), "{text}");
        assert!(text.contains("6 connections\n") && text.contains("70 messages wait, 1.50MiB\n"), "{text}");
        // While it recovers.
        (status["shards"], status["trouble"]) = (json!([]), "recovering: 0 of 2 shards are done".into());
        let text = summary(&status, METRICS).unwrap();
        assert!(text.contains("1 recovering: 0 of 2") && text.contains("5.00GiB free"), "{text}");
        assert!(!text.contains("messages"), "{text}");
        assert_eq!(summary(&json!({}), METRICS), None);
    }

    #[test]
    fn all_is_what_counted_by_shard() {
        let text = counters(&node()).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(lines.contains(&vec!["logins", "5", "2", "3"]), "{text}");
        assert!(
            text.contains("8 records, 2 damaged places, 1 torn tails")
                && text.contains("5  2 3")
                && text.contains("shard 1: records of accounts are damaged")
                && text.contains("shard 1: 2 accounts whose names")
                && !text.contains("shard 0: ")
                && !text.contains("expired"),
            "{text}"
        );
    }

    #[test]
    fn a_span_has_two_units() {
        let spans = [59, 61, 3_700, 90_000].map(span);
        assert_eq!(spans, ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
