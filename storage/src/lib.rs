//! What survives a crash: policy without I/O.
//!
//! - [`io`]: what storage asks of a disk and what it hears back.
//! - [`log`]: the stream of records of one shard on one drive, and its recovery.
//! - [`mailbox`]: what an account's devices have not acknowledged yet.
//! - [`cache`]: envelopes in memory, by size classes.
#![no_std]
#![cfg_attr(test, allow(missing_docs))]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod cache;
pub mod io;
pub mod log;
pub mod mailbox;
