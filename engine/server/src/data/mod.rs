//! The data directory: who may use it, what it is, and its secrets.
//!
//! ```text
//! DATA/LOCK         held (flock) by the one process that uses the directory
//! DATA/MANIFEST     what the directory is: format, node, partitions, shards (TOML, replaced atomically, mode 0600)
//! DATA/server.key   the server's private key (64 hex digits, mode 0600)
//! DATA/server.key.previous   the one before it, and until when it works (written by `tern rotate-key`)
//! DATA/ticket.key   what resume tickets are made from (64 hex digits, mode 0600)
//! DATA/SERVED       that each shard has a log: made when the node serves for the first time
//! ```
//! The log segments beside them belong to the driver.

mod atomic;
mod directory;
mod keys;
mod manifest;
mod secret;
mod served;
mod token;

pub(crate) use directory::{DataDirectory, MadeWith, Wanted, in_use, is_made, look, made_with};
pub(crate) use secret::random;
pub(crate) use served::shards_without_log;
pub(crate) use tern_protocol::hex::{from_hex, to_hex};
pub(crate) use token::Token;
