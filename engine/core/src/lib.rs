//! One shard of Tern as a pure step function: no I/O, no clock, no threads, no randomness of its own.
//!
//! Start reading at [`shard`]: its step shows the journey of a message. The modules in the order of that journey:
//! [`io`] (what goes in and out), `edge` and `receive` (socket, cryptography, framing), `session` (the connected
//! device), `router` (own shard, another shard), `home` (the mailbox, acknowledgements, ticks), `writer` and `commit` (the log),
//! `delivery` (back out to the device).
//!
//! Invariants: an input is never waited for; every completion is checked against its slot's generation; `sent` never
//! precedes safety; a mailbox's places only grow; whatever grows has a limit in [`limits::Limits`].
#![no_std]
#![cfg_attr(test, allow(missing_docs))]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod account;
mod addresses;
mod admission;
pub mod ahead;
mod bucket;
mod buffers;
#[cfg(feature = "bugs")]
pub mod bugs;
mod busiest;
mod chunks;
mod commit;
pub mod control;
mod copies;
pub mod counters;
mod dedup;
mod delivery;
mod devices;
mod edge;
mod edges;
mod expiry;
mod giving_up;
pub mod handover;
pub mod held;
pub mod histogram;
mod home;
mod hottest;
mod id_records;
mod id_set;
pub mod io;
pub mod lanes;
pub mod limits;
mod line;
mod login;
pub mod measures;
pub mod networks;
mod outbound;
pub mod partitions;
mod presence;
mod ready_keys;
mod receive;
mod recovery;
mod refusal;
mod removal;
mod rest;
mod resume;
mod rewrite;
mod room;
mod router;
mod session;
pub mod shard;
mod share;
mod ticks;
mod wall_clock;
mod wheel;
mod writer;
