//! The admin endpoint: plain HTTP and JSON on loopback, for `tern-ctl`, the traffic generator and Prometheus.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /healthz` | `ok` while the node serves; 503 from the moment it drains |
//! | `GET /v1/process` | what this process used since it started |
//! | `GET /v1/status` | addresses, counters and recovery report of each shard |
//! | `GET /v1/server-key` | the key that phones may pin |
//! | `GET /v1/accounts?after=&limit=` | a page of accounts, by id |
//! | `POST /v1/accounts` | makes accounts, many at once |
//! | `DELETE /v1/accounts/{name}` | removes one |
//! | `GET /metrics` | every counter of every shard, as OpenMetrics text |
//!
//! Errors are `{"error": "..."}` with a status of 400, 404, 413 or 503. Ids are decimal strings: JSON numbers lose
//! the low bits of 64.

mod accounts;
mod metrics;
mod plane;
mod process;
mod reply;
mod status;

pub(crate) use plane::Plane;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get};
use std::sync::Arc;

/// Bytes of a request: 50,000 accounts with two keys each fit.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// The routes of the endpoint.
pub(crate) fn routes(plane: Arc<Plane>) -> Router {
    Router::new()
        .route("/healthz", get(process::health))
        .route("/v1/process", get(process::process))
        .route("/v1/status", get(status::status))
        .route("/v1/server-key", get(status::server_key))
        .route("/v1/accounts", get(accounts::list).post(accounts::create))
        .route("/v1/accounts/{name}", delete(accounts::remove))
        .route("/metrics", get(metrics::metrics))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(plane)
}
