//! The admin endpoint: HTTP and JSON, for `tern-ctl`, the traffic generator and Prometheus. Off loopback it has TLS and
//! asks for a bearer token; on loopback it may.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /healthz` | `ok` while the node serves; 503 while it recovers, when a shard is stuck, and from the moment it drains |
//! | `GET /v1/process` | what this process used since it started |
//! | `GET /v1/status` | addresses, counters and recovery report of each shard |
//! | `GET /v1/server-key` | the key that phones may pin |
//! | `GET /v1/accounts?after=&limit=` | a page of accounts, by id |
//! | `POST /v1/accounts` | makes accounts, many at once |
//! | `DELETE /v1/accounts/{name}` | removes one |
//! | `GET /v1/top?count=` | of each shard the mailboxes that hold most, and the accounts that get most |
//! | `GET /metrics` | every counter of every shard, as Prometheus text |
//!
//! It answers from before the recovery. While that lasts, `/v1/status` tells how far it is and has no shards, `/metrics` has
//! the process and the recovery, and what needs a shard is refused with 503.
//!
//! Errors are `{"error": "..."}` with a status of 400, 401, 404, 408, 413, 415, 421, 429 or 503. Ids are decimal strings: JSON
//! numbers lose the low bits of 64. `deploy/ADMIN.md` tells users all of this, with examples that a test runs.

mod accounts;
mod bodies;
mod exposition;
mod gate;
mod hottest;
mod listen;
mod metrics;
mod places;
mod plane;
mod process;
mod reply;
mod status;
mod tls;

pub(crate) use gate::Gate;
pub(crate) use listen::serve;
pub(crate) use plane::{About, Plane};
pub(crate) use tls::Identity;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get};
use std::sync::Arc;

/// Bytes of a request: 50,000 accounts with two keys each fit.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// The routes of the endpoint.
fn routes(plane: Arc<Plane>) -> Router {
    Router::new()
        .route("/healthz", get(process::health))
        .route("/v1/process", get(process::process))
        .route("/v1/status", get(status::status))
        .route("/v1/server-key", get(status::server_key))
        .route("/v1/accounts", get(accounts::list).post(accounts::create))
        .route("/v1/accounts/{name}", delete(accounts::remove))
        .route("/v1/top", get(hottest::top))
        .route("/metrics", get(metrics::metrics))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .layer(from_fn(bodies::refuse_long))
        .layer(from_fn_with_state(Arc::clone(&plane), gate::guard))
        .with_state(plane)
}
