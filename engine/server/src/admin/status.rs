//! What the node is and what its shards have counted.

use super::plane::{Plane, Trouble};
use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tern_core::counters::{Counters, EVERYDAY_LIMITS, Metric};
use tern_core::histogram::{BOUNDS_NS, Histogram};
use tern_driver::{RecoveryReport, ShardReport};
use tern_storage::io::SegmentId;

/// `GET /v1/server-key`
pub(super) async fn server_key(State(plane): State<Arc<Plane>>) -> Json<Value> {
    Json(json!({ "public": plane.server_key() }))
}

/// `GET /v1/status`
pub(super) async fn status(State(plane): State<Arc<Plane>>) -> Json<Value> {
    let recovery = plane.recovery();
    let reports = plane.reports();
    // Of the same reports: whoever adds up the shards finds the totals.
    let totals = Counters::total(reports.iter().map(|report| &report.counters));
    let shards: Vec<Value> = reports
        .iter()
        .enumerate()
        .map(|(shard, report)| {
            json!({
                "shard": shard,
                "counters": to_json(|visit| report.counters.each(visit)),
                "thread": to_json(|visit| report.driver.each(visit)),
                "latency": latency_to_json(report),
                "recovery": recovery.get(shard).map(report_to_json),
            })
        })
        .collect();
    let trouble = plane.trouble();
    let state = match &trouble {
        None => "serving",
        Some(Trouble::Recovering(_)) => "recovering",
        Some(Trouble::Draining) => "draining",
        Some(Trouble::Stuck(_)) => "stuck",
    };
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "boot_id": plane.boot_id(),
        "pid": std::process::id(),
        "uptime_s": plane.uptime().as_secs(),
        "draining": plane.draining(),
        "state": state,
        "trouble": trouble.as_ref().map(ToString::to_string),
        "limit_hits": limit_hits(&totals),
        "everyday_limits": EVERYDAY_LIMITS,
        "phone": plane.phone(),
        "admin": plane.admin(),
        "server_key": plane.server_key(),
        "totals": to_json(|visit| totals.each(visit)),
        "latency_bounds_ns": BOUNDS_NS,
        "shards": shards,
    }))
}

fn report_to_json(report: &RecoveryReport) -> Value {
    let places = |list: &[(SegmentId, u32)]| -> Vec<Value> {
        list.iter().map(|(segment, offset)| json!({ "segment": segment.0, "offset": offset })).collect()
    };
    json!({
        "record_count": report.record_count,
        "commit_count": report.commit_count,
        "orphan_count": report.orphan_count,
        "nameless_count": report.nameless_count,
        "rot": places(&report.rot),
        "has_rot_in_tables": report.has_rot_in_tables,
        "torn": places(&report.torn),
    })
}

/// How many durations fell into each bucket of `latency_bounds_ns`, and into the one above all.
fn latency_to_json(report: &ShardReport) -> Value {
    let counts = |histogram: &Histogram| histogram.counts().to_vec();
    json!({
        "commit": counts(&report.measures.commit),
        "sent": counts(&report.measures.sent),
        "delivery": counts(&report.measures.delivery),
        "turn": counts(&report.turn),
        "turn_sum_ns": report.turn.sum_ns(),
    })
}

/// Times that something ran into each limit, by the limit's name in the configuration.
fn limit_hits(counters: &Counters) -> Value {
    let mut limits = Map::new();
    counters.each(|metric, value| {
        if let ("limit_hits", [(_, limit)]) = (metric.family, metric.labels) {
            let hits = limits.get(*limit).and_then(Value::as_u64).unwrap_or(0);
            limits.insert((*limit).into(), (hits + value).into());
        }
    });
    Value::Object(limits)
}

fn to_json(each: impl FnOnce(&mut dyn FnMut(Metric, u64))) -> Value {
    let mut fields = Map::new();
    each(&mut |metric, value| {
        fields.insert(metric.name.into(), value.into());
    });
    Value::Object(fields)
}
