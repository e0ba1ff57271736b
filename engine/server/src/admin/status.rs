//! What the node is and what its shards have counted.

use super::plane::Plane;
use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tern_core::counters::Counters;

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
                "recovery": recovery.get(shard).map(|report| format!("{report:?}")),
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

fn to_json(counters: &Counters) -> Value {
    let mut fields = Map::new();
    counters.each(|name, _, value| {
        fields.insert(name.into(), value.into());
    });
    Value::Object(fields)
}
