//! The core on real rings: threads, sockets, lanes between shards, log files, the clock. No behaviour of its own.
//!
//! [`Node::start`] makes one pinned thread per shard ([`NodeConfig`]) and opens the door when all of them can serve; each turns its loop (`shard_thread`): one system
//! call that submits and waits, then completions, mesh and commands become inputs of the pure shard, and its outputs
//! become operations again. The parts: `sockets` (slots, closes, moves), `mesh` (lanes between shards), `disk` (log
//! files), `report` (counts and latencies), `start_progress` (how far a start is), `boot` (from files to a serving shard), `lifecycle` (how a node ends), `clock`, `pin`.
//!
//! Invariants: a shard's thread never blocks but in its turn's one system call; the core's bytes are copied before the
//! next step; nothing is reported closed before its last completion.

mod assembly;
mod boot;
mod clock;
mod control;
mod depths;
mod disk;
mod error;
mod lifecycle;
mod maker;
mod mesh;
mod node;
mod outputs;
mod pin;
mod report;
mod segment_file;
mod shard_thread;
mod sockets;
mod start_progress;

pub use control::Control;
pub use depths::{BOUNDS_BYTES, Depths};
pub use error::{FewDescriptors, StartError};
pub use lifecycle::Exit;
pub use node::{Node, NodeConfig, check_machine, limits_in_force, shards_max};
pub use pin::Place;
pub use report::{DriverCounters, ShardReport};
pub use start_progress::{ShardStart, StartProgress};
pub use tern_core::io::FatalError;
pub use tern_core::shard::RecoveryReport;
pub use tern_ring::huge_pages;
