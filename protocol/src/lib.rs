//! Tern's wire formats: bytes to envelopes and back, without I/O, clock or randomness.
//!
//! - [`ids`]: the identifiers that every part shares.
//! - [`envelope`]: the one encoded form of what moves inside and between nodes.
//! - [`hex`]: keys as text.
//! - [`phone`]: the compact client protocol, both sides as state machines (specified in `PHONE.md`).
//! - [`proxy`]: what a balancer says before a connection that it passes on.
#![no_std]
#![cfg_attr(test, allow(missing_docs))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod envelope;
pub mod hex;
pub mod ids;
pub mod phone;
pub mod proxy;
