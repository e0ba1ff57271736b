//! What the node is and what its shards have counted.

use super::plane::Plane;
use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tern_core::counters::Counters;
use tern_driver::RecoveryReport;
use tern_storage::io::SegmentId;

/// `GET /v1/server-key`
pub(super) async fn server_key(State(plane): State<Arc<Plane>>) -> Json<Value> {
    Json(json!({ "public": plane.server_key() }))
}

/// `GET /v1/status`
pub(super) async fn status(State(plane): State<Arc<Plane>>) -> Json<Value> {
    let recovery = plane.recovery();
    let shards: Vec<Value> = plane
        .counters()
        .iter()
        .enumerate()
        .map(|(shard, counters)| {
            json!({
                "shard": shard,
                "counters": to_json(counters),
                "recovery": recovery.get(shard).map(report_to_json),
            })
        })
        .collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "boot_id": plane.boot_id(),
        "pid": std::process::id(),
        "uptime_s": plane.uptime().as_secs(),
        "draining": plane.draining(),
        "phone": plane.phone(),
        "admin": plane.admin(),
        "server_key": plane.server_key(),
        "totals": to_json(&plane.totals()),
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
        "unknown_count": report.unknown_count,
        "rot": places(&report.rot),
        "torn": places(&report.torn),
    })
}

fn to_json(counters: &Counters) -> Value {
    let mut fields = Map::new();
    counters.each(|name, _, value| {
        fields.insert(name.into(), value.into());
    });
    Value::Object(fields)
}
