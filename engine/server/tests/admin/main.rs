//! The admin endpoint over real sockets: who may ask, TLS, clients that are slow, and what the metrics look like.
#![allow(missing_docs)]

mod access;
mod alerts;
mod metrics;
mod node;
